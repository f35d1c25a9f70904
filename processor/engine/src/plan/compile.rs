//! Compiles a query that has been checked: expressions, schemas, fragments.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::row::{RowConverter, SortField};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, DFSchema, DFSchemaRef, Result, plan_datafusion_err, plan_err};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::{AggregateFunction, Cast};
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{Expr, ExprSchemable};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};

use super::build::Job;
use super::fragments::{Aggregate, Fragments, GroupColumn, Top};
use super::lookups::{Lookup, compiled, described, simplified_keys};
use super::parts::Parts;
use super::reads::Reads;
use super::score::Scores;
use super::{Query, ROWS, Spread, TOUCHED, WINDOW_END, WINDOW_START, record_time};
use crate::functions::{self, mask::Mask};
use crate::partial::is_plain;
use crate::window::Window;

impl Job<'_> {
    pub(super) fn compile(
        &self,
        parts: Parts,
        group_columns: Vec<GroupColumn>,
        masks: Vec<Option<Mask>>,
        window: Window,
        lookups: Vec<Lookup>,
    ) -> Result<Query> {
        let simplified = |expr: &Expr| simplify(expr.clone(), &parts.source);
        let filter = parts.filter.as_ref().map(simplified).transpose()?;
        let groups = parts
            .groups
            .iter()
            .map(simplified)
            .collect::<Result<Vec<_>>>()?;
        let mut aggregates = Vec::new();
        for (aggregate, mask) in parts.aggregates.iter().zip(&masks) {
            let aggregate = aggregate.clone().unalias_nested().data;
            let Expr::AggregateFunction(AggregateFunction {
                mut func,
                mut params,
            }) = aggregate
            else {
                return plan_err!("{aggregate} is not an aggregate");
            };
            if mask.is_some() {
                func = datafusion_functions_aggregate::average::avg_udaf();
                params.args.truncate(1);
            }
            if std::mem::take(&mut params.distinct) {
                func = functions::distinct(&func)?;
            }
            params.args = params.args.iter().map(simplified).collect::<Result<_>>()?;
            params.filter = params
                .filter
                .map(|filter| simplified(&filter).map(Box::new))
                .transpose()?;
            aggregates.push(Expr::AggregateFunction(AggregateFunction { func, params }));
        }
        let keys: Vec<&Expr> = groups
            .iter()
            .zip(&group_columns)
            .filter_map(|(group, column)| matches!(column, GroupColumn::Key(_)).then_some(group))
            .collect();

        let behind: Vec<&Expr> = keys.iter().copied().chain(&aggregates).collect();
        let lookups = simplified_keys(lookups, &parts.source)?;
        let reads = Reads::of(self, &parts.source, &lookups, &behind, filter)?;
        let joins = compiled(&lookups, &reads)?;
        let (input, kept_df) = (&reads.input, &reads.kept_schema);

        let key_exprs = keys
            .iter()
            .map(|key| physical(key, kept_df))
            .collect::<Result<Vec<_>>>()?;
        let compiled = aggregates
            .iter()
            .zip(masks)
            .enumerate()
            .map(|(position, (aggregate, mask))| {
                compile_aggregate(aggregate, position, mask, kept_df)
            })
            .collect::<Result<Vec<_>>>()?;
        let group_fields = group_fields(&keys, &key_exprs, kept_df.as_arrow())?;
        let mut partial = group_fields.clone();
        for (aggregate, expr) in compiled.iter().zip(&aggregates) {
            let states = aggregate.function.state_fields()?;
            if let Some(state) = states.iter().find(|state| !is_plain(state.data_type())) {
                return plan_err!(
                    "{} keeps values of type {}, which have no place in partial rows",
                    unqualified(expr),
                    state.data_type()
                );
            }
            partial.extend(states);
        }
        if window.pane_ms().is_none() {
            partial.push(Arc::new(Field::new(WINDOW_END, DataType::Int64, false)));
        }
        partial.push(Arc::new(Field::new(ROWS, DataType::Int64, false)));
        partial.push(Arc::new(Field::new(TOUCHED, DataType::Int64, false)));
        let partial = Arc::new(Schema::new(partial));

        let unscored = grouped_schema(
            &parts.grouped,
            &group_columns,
            &group_fields,
            &compiled,
            kept_df.as_arrow(),
        )?;
        let mut scores = Scores::default();
        let having = parts
            .having
            .map(|having| scores.replace(having))
            .transpose()?;
        let mut order = Vec::new();
        for by in parts.top.iter().flat_map(|(order, _)| order) {
            order.push((scores.replace(by.expr.clone())?, by.asc, by.nulls_first));
        }
        let selected = parts
            .projection
            .iter()
            .map(|(expr, _)| scores.replace(expr.clone()))
            .collect::<Result<Vec<_>>>()?;
        let scored = scores
            .arguments()
            .iter()
            .map(|argument| physical(argument, &unscored))
            .collect::<Result<Vec<_>>>()?;
        let mut fields: Vec<_> = unscored
            .iter()
            .map(|(qualifier, field)| (qualifier.cloned(), Arc::clone(field)))
            .collect();
        fields.extend(scores.fields().map(|field| (None, Arc::new(field))));
        let grouped = DFSchema::new_with_metadata(fields, HashMap::new())?;
        let having = having
            .as_ref()
            .map(|having| physical(having, &grouped))
            .transpose()?;
        let order = order
            .iter()
            .map(|(expr, ascending, nulls_first)| {
                let options = SortOptions {
                    descending: !ascending,
                    nulls_first: *nulls_first,
                };
                Ok((physical(expr, &grouped)?, options))
            })
            .collect::<Result<Vec<_>>>()?;
        let top = parts.top.map(|(_, rows)| Top { order, rows });
        let projection = selected
            .iter()
            .map(|expr| physical(expr, &grouped))
            .collect::<Result<Vec<_>>>()?;
        let mut output = Vec::new();
        for (expr, (_, name)) in projection.iter().zip(&parts.projection) {
            let nullable = expr.nullable(grouped.as_arrow())?;
            output.push(Field::new(
                name,
                expr.data_type(grouped.as_arrow())?,
                nullable,
            ));
        }
        output.push(Field::new("version", DataType::Int64, false));
        output.push(Field::new("is_final", DataType::Boolean, false));

        let spread = match (&top, window) {
            (None, _) => Spread::Key,
            (Some(_), Window::Tumbling { .. }) => Spread::Window,
            (Some(_), _) => Spread::One,
        };
        let described = described(&lookups, &reads);
        let fingerprint = self.fingerprint(&reads.input, &partial, window, spread, &described);
        let sort_fields: Vec<SortField> = group_fields[1..]
            .iter()
            .map(|field| SortField::new(field.data_type().clone()))
            .collect();
        let key_rows = match sort_fields.is_empty() {
            true => None,
            false => Some(RowConverter::new(sort_fields)?),
        };
        let fragments = Fragments {
            event_time: input.index_of(&self.source.event_time)?,
            window: Some(window),
            key_rows,
            filter: conditioned(reads.filter.as_ref(), &reads.windowed)?,
            joined_filter: conditioned(reads.joined_filter.as_ref(), reads.before(lookups.len()))?,
            lookups: joins,
            windowed: Arc::clone(reads.windowed.inner()),
            kept: reads.kept,
            kept_schema: Arc::clone(kept_df.inner()),
            keys: key_exprs,
            group_schema: Arc::new(Schema::new(group_fields)),
            aggregates: compiled,
            group_columns,
            grouped: Arc::clone(grouped.inner()),
            scored,
            history_ms: i64::try_from(self.sink.history_ttl.as_millis()).unwrap_or(i64::MAX),
            having,
            top,
            projection,
            input: Arc::clone(input),
        };
        Ok(Query {
            name: self.sink.name.clone(),
            source: self.source.clone(),
            lookups: described,
            sink: self.sink.clone(),
            window: Some(window),
            spread,
            reads_record_time: record_time::is_read(&reads.input),
            input: reads.input,
            partial,
            keys: fragments.keys.len(),
            output: Arc::new(Schema::new(output)),
            fingerprint,
            fragments: Arc::new(fragments),
        })
    }
}

/// A condition, if there is one.
pub(super) fn conditioned(
    condition: Option<&Expr>,
    schema: &DFSchema,
) -> Result<Option<Arc<dyn PhysicalExpr>>> {
    condition
        .map(|condition| physical(condition, schema))
        .transpose()
}

/// Folds constants and removes what changes nothing.
pub(super) fn simplify(expr: Expr, schema: &DFSchemaRef) -> Result<Expr> {
    let context = SimplifyContext::builder()
        .with_schema(Arc::clone(schema))
        .build();
    let expr = ExprSimplifier::new(context).simplify(expr)?;
    let schema = Arc::clone(schema);
    expr.transform_up(|expr| local_time_in_millis(expr, &schema))
        .map(|changed| changed.data)
}

fn compile_aggregate(
    aggregate: &Expr,
    position: usize,
    mask: Option<Mask>,
    kept: &DFSchema,
) -> Result<Aggregate> {
    let (props, planning) = (ExecutionProps::new(), PhysicalPlanningContext::default());
    let lowered = LoweredAggregateBuilder::new(aggregate, kept, kept.as_arrow(), &props, &planning)
        .with_name(format!("a{position}"))
        .build()?;
    Ok(Aggregate {
        args: lowered.aggregate.expressions(),
        filter: lowered.filter,
        states: lowered.aggregate.state_fields()?.len(),
        function: lowered.aggregate,
        mask,
    })
}

pub(super) fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    create_physical_expr(
        expr,
        schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
}

/// The window's start and the keys, as partial rows begin.
fn group_fields(
    keys: &[&Expr],
    compiled: &[Arc<dyn PhysicalExpr>],
    schema: &Schema,
) -> Result<Vec<FieldRef>> {
    let mut fields = vec![Arc::new(Field::new(WINDOW_START, DataType::Int64, false))];
    for (key, expr) in keys.iter().zip(compiled) {
        let mut name = unqualified(key);
        // Columns of two tables can have one name.
        if fields.iter().any(|field| *field.name() == name) {
            name = key.to_string();
        }
        fields.push(Arc::new(Field::new(
            name,
            expr.data_type(schema)?,
            expr.nullable(schema)?,
        )));
    }
    Ok(fields)
}

/// The planner's schema behind GROUP BY, with what is known about nulls: an aggregate over at least one value that is
/// not null is not null.
fn grouped_schema(
    planned: &DFSchema,
    columns: &[GroupColumn],
    groups: &[FieldRef],
    aggregates: &[Aggregate],
    kept: &Schema,
) -> Result<DFSchema> {
    let mut fields = Vec::new();
    for (position, (qualifier, field)) in planned.iter().enumerate() {
        let (data_type, nullable) = match columns.get(position) {
            Some(GroupColumn::WindowStart | GroupColumn::WindowEnd) => {
                (field.data_type().clone(), false)
            }
            Some(GroupColumn::Key(key)) => {
                let group = &groups[1 + key];
                (group.data_type().clone(), group.is_nullable())
            }
            None => {
                let aggregate = aggregates
                    .get(position - columns.len())
                    .ok_or_else(|| plan_datafusion_err!("{} is not an aggregate", field.name()))?;
                let mut nullable = aggregate.filter.is_some()
                    || functions::wants_two_rows(aggregate.function.fun());
                for arg in &aggregate.args {
                    nullable |= arg.nullable(kept)?;
                }
                (
                    aggregate.function.field().data_type().clone(),
                    nullable && aggregate.function.is_nullable(),
                )
            }
        };
        fields.push((
            qualifier.cloned(),
            Arc::new(Field::new(field.name(), data_type, nullable)),
        ));
    }
    DFSchema::new_with_metadata(fields, HashMap::new())
}

/// An expression's text without its source's name before each column and without the casts that the planner put in.
pub(super) fn unqualified(expr: &Expr) -> String {
    let bare = expr.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(column) => {
                Transformed::yes(Expr::Column(Column::new_unqualified(column.name)))
            }
            Expr::Cast(cast) => Transformed::yes(*cast.expr),
            Expr::Alias(alias) => Transformed::yes(*alias.expr),
            other => Transformed::no(other),
        })
    });
    match bare {
        Ok(bare) => bare.data.human_display().to_string(),
        Err(_) => expr.to_string(),
    }
}

/// `AT TIME ZONE` casts to nanoseconds; where only a part of the local time is asked for, the instant's own unit does,
/// and a cast within a unit copies nothing.
fn local_time_in_millis(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let Expr::ScalarFunction(mut function) = expr else {
        return Ok(Transformed::no(expr));
    };
    if function.func.name() == "date_part"
        && let [_, Expr::Cast(cast)] = function.args.as_slice()
        && let DataType::Timestamp(_, Some(zone)) = cast.field.data_type()
        && let DataType::Timestamp(unit, Some(_)) = cast.expr.get_type(schema)?
    {
        let local = Cast::new(
            cast.expr.clone(),
            DataType::Timestamp(unit, Some(Arc::clone(zone))),
        );
        function.args[1] = Expr::Cast(local);
        return Ok(Transformed::yes(Expr::ScalarFunction(function)));
    }
    Ok(Transformed::no(Expr::ScalarFunction(function)))
}
