//! The table of groups: one row per window and key, with its accumulators.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::compute::concat_batches;
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion_common::{DataFusionError, Result, exec_err, internal_datafusion_err};
use datafusion_expr::{EmitTo, GroupsAccumulator};
use datafusion_functions_aggregate_common::aggregate::groups_accumulator::GroupsAccumulatorAdapter;
use datafusion_physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion_physical_plan::aggregates::order::GroupOrdering;

use super::apart::Apart;
use super::fragments::{Aggregate, Fragments};
use crate::window::Window;

impl Aggregate {
    fn accumulator(&self) -> Result<Box<dyn GroupsAccumulator>> {
        if self.function.groups_accumulator_supported() {
            return self.function.create_groups_accumulator();
        }
        let function = Arc::clone(&self.function);
        Ok(Box::new(GroupsAccumulatorAdapter::new(move || {
            function.create_accumulator()
        })))
    }
}

/// Arguments and filters of each aggregate, evaluated over some rows.
#[derive(Debug)]
pub(super) struct Evaluated {
    /// The window's start, then the keys.
    pub(super) groups: Vec<ArrayRef>,
    /// Where each row's interval ends, for windows that do not lie fast in time.
    pub(super) ends: Option<Vec<i64>>,
    pub(super) args: Vec<Vec<ArrayRef>>,
    pub(super) filters: Vec<Option<BooleanArray>>,
    /// Which rows of those that were given passed the filter; `None`: all.
    pub(super) kept: Option<Vec<u32>>,
}

pub(super) struct Groups<'a> {
    fragments: &'a Fragments,
    values: Box<dyn GroupValues>,
    apart: Apart,
    accumulators: Vec<Box<dyn GroupsAccumulator>>,
    /// Where each group's interval ends, for windows that do not lie fast in time.
    ends: Option<Vec<i64>>,
    /// How many source rows are in each group.
    rows: Vec<i64>,
    /// The highest partials offset that touched each group.
    touched: Vec<i64>,
    /// Which group each row of the current batch belongs to.
    indices: Vec<usize>,
}

impl<'a> Groups<'a> {
    pub(super) fn new(fragments: &'a Fragments) -> Result<Self> {
        Self::of(fragments, Apart::Whole)
    }

    /// For source rows.
    pub(super) fn of_rows(fragments: &'a Fragments) -> Result<Self> {
        Self::of(fragments, Apart::of_rows(fragments))
    }

    /// For these partial rows.
    pub(super) fn of_partials(fragments: &'a Fragments, partials: &[&RecordBatch]) -> Result<Self> {
        Self::of(fragments, Apart::of_partials(fragments, partials))
    }

    fn of(fragments: &'a Fragments, apart: Apart) -> Result<Self> {
        let schema = apart.schema(&fragments.group_schema);
        Ok(Self {
            values: new_group_values(schema, &GroupOrdering::None)?,
            apart,
            accumulators: fragments
                .aggregates
                .iter()
                .map(Aggregate::accumulator)
                .collect::<Result<_>>()?,
            ends: fragments.pane_ms().is_none().then(Vec::new),
            rows: Vec::new(),
            touched: Vec::new(),
            indices: Vec::new(),
            fragments,
        })
    }

    fn intern(&mut self, groups: &[ArrayRef]) -> Result<usize> {
        let looked_at = self.apart.looked_at(groups);
        self.values.intern(&looked_at, &mut self.indices)?;
        let total = self.values.len();
        self.rows.resize(total, 0);
        self.touched.resize(total, 0);
        if let Some(ends) = &mut self.ends {
            ends.resize(total, i64::MIN);
        }
        Ok(total)
    }

    fn extend_to(&mut self, row_ends: &[i64]) {
        if let Some(ends) = &mut self.ends {
            for (index, end) in self.indices.iter().zip(row_ends) {
                ends[*index] = ends[*index].max(*end);
            }
        }
    }

    /// Takes source rows in.
    pub(super) fn update(&mut self, rows: &Evaluated) -> Result<()> {
        let total = self.intern(&rows.groups)?;
        for index in &self.indices {
            self.rows[*index] += 1;
        }
        if let Some(ends) = &rows.ends {
            self.extend_to(ends);
        }
        for ((accumulator, args), filter) in self
            .accumulators
            .iter_mut()
            .zip(&rows.args)
            .zip(&rows.filters)
        {
            accumulator.update_batch(args, &self.indices, filter.as_ref(), total)?;
        }
        Ok(())
    }

    /// Takes partial rows in, under other starts than their own if some are given.
    pub(super) fn merge(&mut self, partial: &RecordBatch, starts: Option<ArrayRef>) -> Result<()> {
        let groups = 1 + self.fragments.keys.len();
        let columns = partial.columns();
        let total = match starts {
            Some(starts) => {
                let mut keys = columns[..groups].to_vec();
                keys[0] = starts;
                self.intern(&keys)?
            }
            None => self.intern(&columns[..groups])?,
        };
        let mut next = groups;
        for (accumulator, aggregate) in self.accumulators.iter_mut().zip(&self.fragments.aggregates)
        {
            accumulator.merge_batch(
                &columns[next..next + aggregate.states],
                &self.indices,
                total,
            )?;
            next += aggregate.states;
        }
        if self.ends.is_some() {
            self.extend_to(columns[next].as_primitive::<Int64Type>().values());
            next += 1;
        }
        let rows = columns[next].as_primitive::<Int64Type>().values();
        let touched = columns[next + 1].as_primitive::<Int64Type>().values();
        for ((index, rows), touched) in self.indices.iter().zip(rows).zip(touched) {
            self.rows[*index] = self.rows[*index]
                .checked_add(*rows)
                .ok_or_else(too_many_rows)?;
            self.touched[*index] = self.touched[*index].max(*touched);
        }
        Ok(())
    }

    /// The window's start of each group, then its keys.
    fn emit(&mut self) -> Result<Vec<ArrayRef>> {
        let count = self.values.len();
        let looked_at = self.values.emit(EmitTo::All)?;
        Ok(self.apart.groups(looked_at, count))
    }

    /// The groups as partial rows.
    pub(super) fn into_partial(mut self, schema: &SchemaRef) -> Result<RecordBatch> {
        if self.values.is_empty() {
            return Ok(RecordBatch::new_empty(Arc::clone(schema)));
        }
        let mut columns = self.emit()?;
        for accumulator in &mut self.accumulators {
            columns.extend(accumulator.state(EmitTo::All)?);
        }
        columns.extend(
            self.ends
                .map(|ends| Arc::new(Int64Array::from(ends)) as ArrayRef),
        );
        columns.push(Arc::new(Int64Array::from(self.rows)));
        columns.push(Arc::new(Int64Array::from(self.touched)));
        Ok(RecordBatch::try_new(Arc::clone(schema), columns)?)
    }

    /// The groups' values.
    pub(super) fn into_values(mut self) -> Result<Values> {
        let groups = self.emit()?;
        let values = self
            .accumulators
            .iter_mut()
            .map(|accumulator| accumulator.evaluate(EmitTo::All))
            .collect::<Result<_>>()?;
        let ends = match (self.ends, self.fragments.size_ms()) {
            (Some(ends), _) => ends,
            (None, size_ms) => groups[0]
                .as_primitive::<Int64Type>()
                .values()
                .iter()
                .map(|start| start.saturating_add(size_ms.unwrap_or_default()))
                .collect(),
        };
        Ok(Values {
            groups,
            values,
            ends: Int64Array::from(ends),
            touched: Arc::new(Int64Array::from(self.touched)),
        })
    }
}

/// What the groups have come to.
pub(super) struct Values {
    /// The window's start, then the keys.
    pub(super) groups: Vec<ArrayRef>,
    /// Each aggregate's value.
    pub(super) values: Vec<ArrayRef>,
    /// The first millisecond behind each window.
    pub(super) ends: Int64Array,
    /// The highest partials offset that touched each group.
    pub(super) touched: ArrayRef,
}

fn too_many_rows() -> DataFusionError {
    internal_datafusion_err!("a group's count of rows exceeds 2^63")
}

impl Fragments {
    /// Merges partial rows to partial rows. Sessions that overlap are united first.
    pub(super) fn merge(&self, batches: &[RecordBatch], schema: &SchemaRef) -> Result<RecordBatch> {
        for batch in batches {
            check_columns(batch, schema, "partial")?;
        }
        if matches!(self.window, Some(Window::Session { .. })) {
            let mut groups = Groups::new(self)?;
            let all = concat_batches(schema, batches)?;
            if all.num_rows() > 0 {
                let end = all.num_columns() - 3;
                let starts = self.unite(
                    &all.columns()[1..=self.keys.len()],
                    all.column(0).as_primitive::<Int64Type>().values(),
                    all.column(end).as_primitive::<Int64Type>().values(),
                )?;
                groups.merge(&all, Some(Arc::new(Int64Array::from(starts))))?;
            }
            return groups.into_partial(schema);
        }
        let filled: Vec<_> = filled(batches).collect();
        let mut groups = Groups::of_partials(self, &filled)?;
        for batch in filled {
            groups.merge(batch, None)?;
        }
        groups.into_partial(schema)
    }
}

/// The batches that have rows.
pub(super) fn filled(batches: &[RecordBatch]) -> impl Iterator<Item = &RecordBatch> {
    batches.iter().filter(|batch| batch.num_rows() > 0)
}

/// A batch must have exactly these columns.
pub(super) fn check_columns(batch: &RecordBatch, expected: &SchemaRef, what: &str) -> Result<()> {
    let given = batch.schema_ref();
    if Arc::ptr_eq(given, expected) {
        return Ok(());
    }
    let same = given.fields().len() == expected.fields().len()
        && given
            .fields()
            .iter()
            .zip(expected.fields())
            .zip(batch.columns())
            .all(|((given, expected), column)| {
                given.name() == expected.name()
                    && given.data_type() == expected.data_type()
                    && (expected.is_nullable() || column.null_count() == 0)
            });
    if same {
        return Ok(());
    }
    exec_err!("the {what} rows have the columns {given}, not {expected}")
}
