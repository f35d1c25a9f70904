//! What a query reads of its source: only the columns that some expression needs.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion_common::{DFSchema, DFSchemaRef, Result, TableReference};
use datafusion_expr::Expr;

use super::build::Job;
use super::context::{WINDOW_COLUMNS, window_fields};

pub(super) struct Reads {
    /// The columns of source batches, event time among them.
    pub(super) input: SchemaRef,
    /// These, and the window's columns if some expression needs them.
    pub(super) windowed: DFSchema,
    /// Which of them something behind the filter reads.
    pub(super) kept: Vec<usize>,
    /// Those.
    pub(super) kept_schema: DFSchema,
}

impl Reads {
    /// `behind` are the expressions behind the filter.
    pub(super) fn of(
        job: &Job<'_>,
        source: &DFSchemaRef,
        behind: &[&Expr],
        filter: Option<&Expr>,
    ) -> Result<Self> {
        let read = Columns::of(behind.iter().copied());
        let all = Columns::of(behind.iter().copied().chain(filter));
        let input: Vec<FieldRef> = job
            .columns
            .fields()
            .iter()
            .filter(|field| all.has(field.name()) || *field.name() == job.source.event_time)
            .cloned()
            .collect();
        let input = Arc::new(Schema::new(input));
        let mut windowed: Vec<FieldRef> = input.fields().iter().cloned().collect();
        if WINDOW_COLUMNS.iter().any(|name| all.has(name)) {
            windowed.extend(window_fields());
        }
        let kept: Vec<usize> = (0..windowed.len())
            .filter(|column| read.has(windowed[*column].name()))
            .collect();
        let qualifier = source.qualified_field(0).0.cloned();
        let kept_fields: Vec<FieldRef> = kept
            .iter()
            .map(|column| Arc::clone(&windowed[*column]))
            .collect();
        Ok(Self {
            input,
            windowed: qualified(&windowed, qualifier.as_ref())?,
            kept,
            kept_schema: qualified(&kept_fields, qualifier.as_ref())?,
        })
    }
}

fn qualified(fields: &[FieldRef], qualifier: Option<&TableReference>) -> Result<DFSchema> {
    let fields = fields
        .iter()
        .map(|field| (qualifier.cloned(), Arc::clone(field)))
        .collect();
    DFSchema::new_with_metadata(fields, HashMap::new())
}

/// The names of the columns that some expressions read.
struct Columns(BTreeSet<String>);

impl Columns {
    fn of<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Self {
        Self(
            exprs
                .into_iter()
                .flat_map(Expr::column_refs)
                .map(|column| column.name.clone())
                .collect(),
        )
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}
