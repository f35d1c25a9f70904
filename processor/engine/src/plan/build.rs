//! From the logical plan to compiled fragments.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{
    DFSchema, DFSchemaRef, Result, ScalarValue, TableReference, plan_datafusion_err, plan_err,
};
use datafusion_expr::execution_props::ExecutionProps;
use datafusion_expr::expr::{AggregateFunction, Cast};
use datafusion_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion_expr::simplify::SimplifyContext;
use datafusion_expr::{Expr, ExprSchemable, LogicalPlan};
use datafusion_optimizer::simplify_expressions::ExprSimplifier;
use datafusion_physical_expr::aggregate::LoweredAggregateBuilder;
use datafusion_physical_expr::{PhysicalExpr, create_physical_expr};

use super::context::{Context, WINDOW_COLUMNS, window_fields};
use super::groups::{Aggregate, Fragments, GroupColumn};
use super::{FORMAT, Query, ROWS, Settings, TOUCHED, WINDOW_START, Window, check, risk};
use crate::functions::mask::{Mask, MaskCoordinate};
use crate::sql::{Insert, JobError, Location, Script, Sink, Source, suggest};

pub(super) fn plan(
    script: &Script,
    schemas: &BTreeMap<String, SchemaRef>,
    settings: &Settings,
) -> Result<Vec<Query>, Vec<JobError>> {
    let mut errors = Vec::new();
    for source in script.sources.values() {
        match schemas.get(&source.name) {
            Some(columns) => check::event_time(script, source, columns, &mut errors),
            None => errors.push(JobError::new(
                script.option_at(&source.name, "topic", source.at),
                format!("the columns of the topic {} are not known", source.topic),
                format!("register a schema for the subject {}-value", source.topic),
            )),
        }
    }
    let mut queries = Vec::new();
    for insert in &script.inserts {
        let (Some(source), Some(sink), Some(columns)) = (
            script.sources.get(&insert.source),
            script.sinks.get(&insert.sink),
            schemas.get(&insert.source),
        ) else {
            continue;
        };
        let before = errors.len();
        check::columns(insert, columns, &mut errors);
        if errors.len() > before || columns.field_with_name(&source.event_time).is_err() {
            continue;
        }
        let job = Job {
            script,
            insert,
            source,
            sink,
            columns,
            settings,
        };
        match job.query() {
            Ok(query) => queries.push(query),
            Err(found) => errors.extend(found),
        }
    }
    if errors.is_empty() {
        return Ok(queries);
    }
    errors.sort_by_key(|error| error.at);
    errors.dedup();
    Err(errors)
}

struct Job<'a> {
    script: &'a Script,
    insert: &'a Insert,
    source: &'a Source,
    sink: &'a Sink,
    columns: &'a SchemaRef,
    settings: &'a Settings,
}

/// The plan, taken apart: SELECT list over HAVING over the aggregate over WHERE over the source.
struct Parts {
    /// Each column of the SELECT list and its name.
    projection: Vec<(Expr, String)>,
    having: Option<Expr>,
    groups: Vec<Expr>,
    aggregates: Vec<Expr>,
    grouped: DFSchemaRef,
    filter: Option<Expr>,
    source: DFSchemaRef,
}

fn take_apart(plan: &LogicalPlan) -> Option<Parts> {
    let LogicalPlan::Projection(projection) = plan else {
        return None;
    };
    let names = projection
        .schema
        .fields()
        .iter()
        .map(|field| field.name().clone());
    let (having, below) = match projection.input.as_ref() {
        LogicalPlan::Filter(filter) => (Some(filter.predicate.clone()), filter.input.as_ref()),
        other => (None, other),
    };
    let LogicalPlan::Aggregate(aggregate) = below else {
        return None;
    };
    let (filter, below) = match aggregate.input.as_ref() {
        LogicalPlan::Filter(filter) => (Some(filter.predicate.clone()), filter.input.as_ref()),
        other => (None, other),
    };
    if !matches!(
        below,
        LogicalPlan::TableScan(_) | LogicalPlan::SubqueryAlias(_)
    ) {
        return None;
    }
    Some(Parts {
        projection: projection.expr.iter().cloned().zip(names).collect(),
        having,
        groups: aggregate.group_expr.clone(),
        aggregates: aggregate.aggr_expr.clone(),
        grouped: Arc::clone(&aggregate.schema),
        filter,
        source: Arc::clone(below.schema()),
    })
}

impl Job<'_> {
    fn query(&self) -> Result<Query, Vec<JobError>> {
        let context = Context::new(&self.insert.source, self.columns);
        let plan = context
            .plan((*self.insert.query).clone())
            .map_err(|error| check::locate(self.insert, &context, &error))?;
        let Some(parts) = take_apart(&plan) else {
            let help =
                "a query is SELECT … FROM TUMBLE(…) WHERE … GROUP BY window_start, … HAVING …";
            return Err(vec![JobError::new(
                self.insert.at,
                "a query of this shape is not supported",
                help,
            )]);
        };
        let mut errors = Vec::new();
        let columns = self.group_columns(&parts, &mut errors);
        self.key(&parts, &columns, &mut errors);
        self.risks(&parts, &mut errors);
        let masks = self.masks(&parts, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        self.compile(parts, columns, masks)
            .map_err(|error| vec![JobError::bare(self.insert.at, check::message(&error))])
    }

    /// Tells windows from keys.
    fn group_columns(&self, parts: &Parts, errors: &mut Vec<JobError>) -> Vec<GroupColumn> {
        let at = self.insert.group_by_at;
        let mut keys = 0;
        let columns: Vec<GroupColumn> = parts
            .groups
            .iter()
            .map(|group| match window_column(group) {
                Some(column) => column,
                None => {
                    keys += 1;
                    GroupColumn::Key(keys - 1)
                }
            })
            .collect();
        if !columns.contains(&GroupColumn::WindowStart)
            && !columns.contains(&GroupColumn::WindowEnd)
        {
            let help = "write GROUP BY window_start, window_end, …";
            errors.push(JobError::new(
                at,
                "GROUP BY has no window: state would grow for ever",
                help,
            ));
        }
        for (group, field) in parts.groups.iter().zip(parts.grouped.fields()) {
            if !key_type(field.data_type()) {
                let what = format!(
                    "{group} cannot be a group key: it is {}",
                    check::type_name(field.data_type())
                );
                errors.push(JobError::new(
                    at,
                    what,
                    "group by integers, texts, booleans or timestamps; cast or round it",
                ));
            }
        }
        columns
    }

    /// The sink's key must tell groups apart.
    fn key(&self, parts: &Parts, columns: &[GroupColumn], errors: &mut Vec<JobError>) {
        let at = self.script.option_at(&self.sink.name, "key", self.sink.at);
        let before = errors.len();
        let mut covered = BTreeSet::new();
        for name in &self.sink.key {
            let Some((expr, _)) = parts.projection.iter().find(|(_, column)| column == name) else {
                let what = format!("the key's column {name} is not in the SELECT list");
                let help =
                    suggest::help(name, parts.projection.iter().map(|(_, name)| name.as_str()));
                errors.push(JobError::new(at, what, help));
                continue;
            };
            let group = match expr.clone().unalias_nested().data {
                Expr::Column(column) => parts
                    .grouped
                    .maybe_index_of_column(&column)
                    .filter(|at| *at < columns.len()),
                _ => None,
            };
            match group {
                Some(group) => {
                    covered.insert(group);
                }
                None => {
                    let what = format!("the key's column {name} is not a column of GROUP BY");
                    errors.push(JobError::new(
                        at,
                        what,
                        "a key is made of window_start or window_end and the group's columns",
                    ));
                }
            }
        }
        if errors.len() > before {
            return;
        }
        let window = |column: &GroupColumn| !matches!(column, GroupColumn::Key(_));
        let mut missing = Vec::new();
        if !covered.iter().any(|group| window(&columns[*group])) {
            missing.push("window_start".to_owned());
        }
        for (position, group) in parts.groups.iter().enumerate() {
            if !window(&columns[position]) && !covered.contains(&position) {
                missing.push(unqualified(group));
            }
        }
        if !missing.is_empty() {
            let what = "results of different groups would have the same key";
            let help = format!(
                "add to the key, and to the SELECT list: {}",
                missing.join(", ")
            );
            errors.push(JobError::new(at, what, help));
        }
    }

    /// Expressions behind the aggregate must not fail.
    fn risks(&self, parts: &Parts, errors: &mut Vec<JobError>) {
        let select = check::select(&self.insert.query);
        let mut check = |expr: &Expr, at| match risk::find(expr, &parts.grouped, &parts.aggregates)
        {
            Ok(Some((what, help))) => errors.push(JobError::new(at, what, help)),
            Ok(None) => {}
            Err(error) => errors.push(JobError::bare(at, check::message(&error))),
        };
        let items = select
            .map(|select| select.projection.as_slice())
            .unwrap_or_default();
        for (position, (expr, _)) in parts.projection.iter().enumerate() {
            check(
                expr,
                items
                    .get(position)
                    .map_or(self.insert.at, |item| Location::of(item, self.insert.at)),
            );
        }
        if let Some(having) = &parts.having {
            let place = select.and_then(|select| select.having.as_ref());
            check(
                having,
                place.map_or(self.insert.at, |having| {
                    Location::of(having, self.insert.at)
                }),
            );
        }
    }

    /// Which aggregates are mask_coordinate, and how they mask.
    fn masks(&self, parts: &Parts, errors: &mut Vec<JobError>) -> Vec<Option<Mask>> {
        let mut masks = Vec::new();
        for aggregate in &parts.aggregates {
            let Expr::AggregateFunction(AggregateFunction { func, params }) =
                aggregate.clone().unalias_nested().data
            else {
                masks.push(None);
                continue;
            };
            if func.name() != MaskCoordinate::NAME {
                masks.push(None);
                continue;
            }
            let at = self.call_at(MaskCoordinate::NAME);
            let cell = params
                .args
                .get(1)
                .map(|cell| self.simplify(cell.clone(), &parts.source));
            let cell = match cell {
                Some(Ok(Expr::Literal(ScalarValue::Float64(Some(cell)), _)))
                    if cell > 0.0 && cell.is_finite() =>
                {
                    cell
                }
                _ => {
                    let what = "mask_coordinate wants a positive number as its cell";
                    errors.push(JobError::new(at, what, "write mask_coordinate(x, 0.01)"));
                    continue;
                }
            };
            if self.settings.mask_salt.is_empty() {
                let what = "mask_coordinate needs a secret salt, and none is configured";
                errors.push(JobError::new(
                    at,
                    what,
                    "set the processor's mask salt to a long random text and keep it",
                ));
                continue;
            }
            let argument = params.args.first().map(unqualified).unwrap_or_default();
            masks.push(Some(Mask {
                salt: self.settings.mask_salt.clone(),
                argument,
                cell,
            }));
        }
        masks
    }

    fn call_at(&self, function: &str) -> Location {
        check::call_at(&self.insert.query, function).unwrap_or(self.insert.at)
    }

    fn simplify(&self, expr: Expr, schema: &DFSchemaRef) -> Result<Expr> {
        let context = SimplifyContext::builder()
            .with_schema(Arc::clone(schema))
            .build();
        let expr = ExprSimplifier::new(context).simplify(expr)?;
        let schema = Arc::clone(schema);
        expr.transform_up(|expr| local_time_in_millis(expr, &schema))
            .map(|changed| changed.data)
    }

    fn compile(
        &self,
        parts: Parts,
        group_columns: Vec<GroupColumn>,
        masks: Vec<Option<Mask>>,
    ) -> Result<Query> {
        let simplify = |expr: &Expr| self.simplify(expr.clone(), &parts.source);
        let filter = parts.filter.as_ref().map(simplify).transpose()?;
        let groups = parts
            .groups
            .iter()
            .map(simplify)
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
            params.args = params.args.iter().map(simplify).collect::<Result<_>>()?;
            params.filter = params
                .filter
                .map(|filter| simplify(&filter).map(Box::new))
                .transpose()?;
            aggregates.push(Expr::AggregateFunction(AggregateFunction { func, params }));
        }
        let keys: Vec<&Expr> = groups
            .iter()
            .zip(&group_columns)
            .filter_map(|(group, column)| matches!(column, GroupColumn::Key(_)).then_some(group))
            .collect();

        // Only the columns that something reads.
        let read = Columns::of(keys.iter().copied().chain(&aggregates));
        let all = Columns::of(keys.iter().copied().chain(&aggregates).chain(&filter));
        let input: Vec<FieldRef> = self
            .columns
            .fields()
            .iter()
            .filter(|field| all.has(field.name()) || *field.name() == self.source.event_time)
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
        let qualifier = parts.source.qualified_field(0).0.cloned();
        let windowed_df = qualified(&windowed, qualifier.as_ref())?;
        let kept_df = qualified(
            &kept
                .iter()
                .map(|column| Arc::clone(&windowed[*column]))
                .collect::<Vec<_>>(),
            qualifier.as_ref(),
        )?;

        let key_exprs = keys
            .iter()
            .map(|key| physical(key, &kept_df))
            .collect::<Result<Vec<_>>>()?;
        let compiled = aggregates
            .iter()
            .zip(masks)
            .enumerate()
            .map(|(position, (aggregate, mask))| {
                compile_aggregate(aggregate, position, mask, &kept_df)
            })
            .collect::<Result<Vec<_>>>()?;
        let group_fields = group_fields(&keys, &key_exprs, kept_df.as_arrow())?;
        let mut partial = group_fields.clone();
        for aggregate in &compiled {
            partial.extend(aggregate.function.state_fields()?);
        }
        partial.push(Arc::new(Field::new(ROWS, DataType::Int64, false)));
        partial.push(Arc::new(Field::new(TOUCHED, DataType::Int64, false)));
        let partial = Arc::new(Schema::new(partial));

        let grouped = grouped_schema(
            &parts.grouped,
            &group_columns,
            &group_fields,
            &compiled,
            kept_df.as_arrow(),
        )?;
        let having = parts
            .having
            .as_ref()
            .map(|having| physical(having, &grouped))
            .transpose()?;
        let projection = parts
            .projection
            .iter()
            .map(|(expr, _)| physical(expr, &grouped))
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

        let Window::Tumbling { size_ms } = self.insert.window;
        let fingerprint = self.fingerprint(&partial);
        let fragments = Fragments {
            event_time: input.index_of(&self.source.event_time)?,
            size_ms,
            filter: filter
                .as_ref()
                .map(|filter| physical(filter, &windowed_df))
                .transpose()?,
            windowed: Arc::clone(windowed_df.inner()),
            kept,
            kept_schema: Arc::clone(kept_df.inner()),
            keys: key_exprs,
            group_schema: Arc::new(Schema::new(group_fields)),
            aggregates: compiled,
            group_columns,
            grouped: Arc::clone(grouped.inner()),
            having,
            projection,
            input: Arc::clone(&input),
        };
        Ok(Query {
            name: self.sink.name.clone(),
            source: self.source.clone(),
            sink: self.sink.clone(),
            window: self.insert.window,
            input,
            partial,
            keys: fragments.keys.len(),
            output: Arc::new(Schema::new(output)),
            fingerprint,
            fragments: Arc::new(fragments),
        })
    }

    /// One line per thing that partial rows depend on. What only the results depend on (HAVING, the SELECT list's
    /// arithmetic) may change while state lives.
    fn fingerprint(&self, partial: &Schema) -> String {
        let mut text = format!("format {FORMAT}\n");
        let mut line = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} {value}");
        };
        let Window::Tumbling { size_ms } = self.insert.window;
        line("topic", &self.source.topic);
        line("event time", &self.source.event_time);
        line("windows", &format!("tumbling, {size_ms} ms"));
        if let Some(select) = check::select(&self.insert.query) {
            line(
                "where",
                &select
                    .selection
                    .as_ref()
                    .map_or_else(|| "true".to_owned(), ToString::to_string),
            );
            for group in check::group_texts(select) {
                line("group by", &group);
            }
            for aggregate in check::aggregate_texts(select) {
                line("aggregate", &aggregate);
            }
        }
        for field in partial.fields() {
            line(
                "partial",
                &format!("{} {}", field.name(), field.data_type()),
            );
        }
        text
    }
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

fn physical(expr: &Expr, schema: &DFSchema) -> Result<Arc<dyn PhysicalExpr>> {
    create_physical_expr(
        expr,
        schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
}

fn qualified(fields: &[FieldRef], qualifier: Option<&TableReference>) -> Result<DFSchema> {
    let fields = fields
        .iter()
        .map(|field| (qualifier.cloned(), Arc::clone(field)))
        .collect();
    DFSchema::new_with_metadata(fields, HashMap::new())
}

/// The window's start and the keys, as partial rows begin.
fn group_fields(
    keys: &[&Expr],
    compiled: &[Arc<dyn PhysicalExpr>],
    schema: &Schema,
) -> Result<Vec<FieldRef>> {
    let mut fields = vec![Arc::new(Field::new(WINDOW_START, DataType::Int64, false))];
    for (key, expr) in keys.iter().zip(compiled) {
        fields.push(Arc::new(Field::new(
            unqualified(key),
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
                let mut nullable = aggregate.filter.is_some();
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

fn window_column(group: &Expr) -> Option<GroupColumn> {
    match group.clone().unalias_nested().data {
        Expr::Column(column) if column.name == WINDOW_COLUMNS[0] => Some(GroupColumn::WindowStart),
        Expr::Column(column) if column.name == WINDOW_COLUMNS[1] => Some(GroupColumn::WindowEnd),
        _ => None,
    }
}

/// Floating-point numbers are left out: 0.0 and -0.0 or two NaNs would be one group here and two elsewhere.
fn key_type(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Utf8 | DataType::Boolean | DataType::Timestamp(..) | DataType::Date32
        )
}

/// An expression's text without its source's name before each column and without the casts that the planner put in.
fn unqualified(expr: &Expr) -> String {
    let bare = expr.clone().transform_up(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(
                datafusion_common::Column::new_unqualified(column.name),
            )),
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
