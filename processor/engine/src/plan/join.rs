//! Source rows joined with the rows of reference tables.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray};
use arrow::compute::FilterBuilder;
use arrow::datatypes::SchemaRef;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::{Result, internal_datafusion_err};

use super::fragments::Fragments;
use super::scan::mask;
use crate::reference::{Snapshot, Tables};

/// A reference table as one scan sees it.
pub(super) struct Opened<'a> {
    table: &'a Snapshot,
    /// Where the columns that the query reads stand in it.
    columns: Vec<usize>,
}

/// The rows that the filters and inner joins have left so far.
pub(super) struct Left {
    pub(super) batch: RecordBatch,
    /// The start of each row's window.
    pub(super) starts: ArrayRef,
    /// Which of the rows at the beginning are left; `None`: all.
    pub(super) passed: Option<Vec<u32>>,
    /// Whether somebody asks for that.
    pub(super) wants_passed: bool,
}

impl Left {
    /// Leaves all columns out but some.
    pub(super) fn read_only(&mut self, columns: &[usize], schema: &SchemaRef) -> Result<()> {
        let columns = columns
            .iter()
            .map(|column| Arc::clone(self.batch.column(*column)))
            .collect();
        self.put(Arc::clone(schema), columns, self.batch.num_rows())
    }

    fn put(&mut self, schema: SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<()> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        self.batch = RecordBatch::try_new_with_options(schema, columns, &options)?;
        Ok(())
    }

    /// Leaves out the rows where `keep` is false.
    pub(super) fn keep(&mut self, keep: &BooleanArray) -> Result<()> {
        if keep.true_count() == keep.len() {
            return Ok(());
        }
        if self.wants_passed {
            // A batch has fewer rows than u32 can count: Arrow's own kernels index rows with it.
            let rows = keep.values().set_indices().map(|row| row as u32);
            self.passed = Some(match &self.passed {
                Some(passed) => rows.map(|row| passed[row as usize]).collect(),
                None => rows.collect(),
            });
        }
        let filter = FilterBuilder::new(keep).optimize().build();
        self.starts = filter.filter(&self.starts)?;
        let columns = self.batch.columns().iter();
        let columns = columns
            .map(|column| filter.filter(column))
            .collect::<Result<_, _>>()?;
        self.put(self.batch.schema(), columns, self.starts.len())
    }
}

impl Fragments {
    /// The tables that the query looks rows up in, one for each lookup.
    pub(super) fn opened<'a>(&self, tables: &'a Tables) -> Result<Vec<Opened<'a>>> {
        let mut before = self.windowed.fields().len();
        let mut opened = Vec::with_capacity(self.lookups.len());
        for lookup in &self.lookups {
            let table = tables.get(&lookup.table).ok_or_else(|| {
                internal_datafusion_err!("the reference table {} was not loaded", lookup.table)
            })?;
            let columns = lookup.joined.fields()[before..]
                .iter()
                .map(|field| table.layout().columns().index_of(field.name()))
                .collect::<Result<_, _>>()?;
            before = lookup.joined.fields().len();
            opened.push(Opened { table, columns });
        }
        Ok(opened)
    }

    /// Puts the tables' columns beside those of the rows, and leaves out rows without a match in an inner join, or that
    /// the rest of WHERE leaves out.
    pub(super) fn look_up(&self, left: &mut Left, tables: &[Opened<'_>]) -> Result<()> {
        for (lookup, Opened { table, columns }) in self.lookups.iter().zip(tables) {
            let rows = left.batch.num_rows();
            let keys = lookup
                .keys
                .iter()
                .map(|key| key.evaluate(&left.batch)?.into_array(rows))
                .collect::<Result<Vec<_>>>()?;
            let mut places = table.find(&keys)?;
            if lookup.inner && places.iter().any(Option::is_none) {
                let found: BooleanArray =
                    places.iter().map(|place| Some(place.is_some())).collect();
                left.keep(&found)?;
                places.retain(Option::is_some);
            }
            let mut joined = left.batch.columns().to_vec();
            for column in columns {
                joined.push(table.values(*column, &places)?);
            }
            left.put(Arc::clone(&lookup.joined), joined, places.len())?;
        }
        if let Some(filter) = &self.joined_filter {
            left.keep(&mask(filter, &left.batch)?)?;
        }
        Ok(())
    }
}
