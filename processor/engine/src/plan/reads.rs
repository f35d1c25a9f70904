//! What a query reads of its source and of its reference tables: only the columns that some expression needs.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::datatypes::{FieldRef, Schema, SchemaRef};
use datafusion_common::{Column, DFSchema, DFSchemaRef, Result, TableReference};
use datafusion_expr::Expr;
use datafusion_expr::utils::{conjunction, split_conjunction_owned};

use super::build::Job;
use super::context::{WINDOW_COLUMNS, window_fields};
use super::lookups::Lookup;

pub(super) struct Reads {
    /// The columns of source batches, event time among them.
    pub(super) input: SchemaRef,
    /// These, and the window's columns if some expression needs them.
    pub(super) windowed: DFSchema,
    /// What of WHERE the source alone decides.
    pub(super) filter: Option<Expr>,
    /// [`Reads::windowed`] and the tables' columns, after each lookup.
    pub(super) joined: Vec<DFSchema>,
    /// The rest of WHERE, over the last of them.
    pub(super) joined_filter: Option<Expr>,
    /// Which of all these columns something behind the filters reads.
    pub(super) kept: Vec<usize>,
    /// Those.
    pub(super) kept_schema: DFSchema,
}

type Qualified = (Option<TableReference>, FieldRef);

impl Reads {
    /// `all` has the columns of the source and of the tables that `lookups` join; `behind` are the expressions behind the
    /// filter.
    pub(super) fn of(
        job: &Job<'_>,
        all: &DFSchemaRef,
        lookups: &[Lookup],
        behind: &[&Expr],
        filter: Option<Expr>,
    ) -> Result<Self> {
        let source = all.qualified_field(0).0.cloned();
        let of_source = |condition: &Expr| {
            condition
                .column_refs()
                .iter()
                .all(|column| column.relation.is_none() || column.relation == source)
        };
        let (early, late): (Vec<Expr>, Vec<Expr>) = match filter {
            // A condition that the source alone decides spares its rows the lookup.
            Some(filter) if !lookups.is_empty() => split_conjunction_owned(filter)
                .into_iter()
                .partition(of_source),
            filter => (filter.into_iter().collect(), vec![]),
        };
        let read = Columns::of(behind.iter().copied());
        let keys = lookups.iter().flat_map(|lookup| &lookup.keys);
        let needed = Columns::of(
            behind
                .iter()
                .copied()
                .chain(&early)
                .chain(&late)
                .chain(keys),
        );
        let input: Vec<FieldRef> = job
            .columns
            .fields()
            .iter()
            .filter(|field| {
                needed.has(source.as_ref(), field.name()) || *field.name() == job.source.event_time
            })
            .cloned()
            .collect();
        let mut fields: Vec<Qualified> = input
            .iter()
            .map(|field| (source.clone(), Arc::clone(field)))
            .collect();
        if WINDOW_COLUMNS
            .iter()
            .any(|name| needed.has(source.as_ref(), name))
        {
            fields.extend(window_fields().map(|field| (source.clone(), field)));
        }
        let windowed = schema(&fields)?;
        let mut joined = Vec::new();
        for lookup in lookups {
            let of_table = all.iter().filter(|(qualifier, field)| {
                *qualifier == Some(&lookup.qualifier) && needed.has(*qualifier, field.name())
            });
            fields
                .extend(of_table.map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field))));
            joined.push(schema(&fields)?);
        }
        let kept: Vec<usize> = (0..fields.len())
            .filter(|column| {
                let (qualifier, field) = &fields[*column];
                read.has(qualifier.as_ref(), field.name())
            })
            .collect();
        let kept_fields: Vec<Qualified> =
            kept.iter().map(|column| fields[*column].clone()).collect();
        Ok(Self {
            input: Arc::new(Schema::new(input)),
            windowed,
            filter: conjunction(early),
            joined,
            joined_filter: conjunction(late),
            kept,
            kept_schema: schema(&kept_fields)?,
        })
    }

    /// The columns before a lookup.
    pub(super) fn before(&self, lookup: usize) -> &DFSchema {
        match lookup.checked_sub(1) {
            Some(last) => &self.joined[last],
            None => &self.windowed,
        }
    }
}

fn schema(fields: &[Qualified]) -> Result<DFSchema> {
    DFSchema::new_with_metadata(fields.to_vec(), HashMap::new())
}

/// The columns that some expressions read.
struct Columns<'a>(HashSet<&'a Column>);

impl<'a> Columns<'a> {
    fn of(exprs: impl IntoIterator<Item = &'a Expr>) -> Self {
        Self(exprs.into_iter().flat_map(Expr::column_refs).collect())
    }

    fn has(&self, qualifier: Option<&TableReference>, name: &str) -> bool {
        self.0.iter().any(|column| {
            column.name == name
                && (column.relation.is_none() || column.relation.as_ref() == qualifier)
        })
    }
}
