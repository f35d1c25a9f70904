//! What can be told of a job once its columns are known, each thing where it stands in the text.

use std::ops::ControlFlow;

use arrow::datatypes::{DataType, Schema};
use datafusion_common::DataFusionError;
use datafusion_sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, Query, Select, SelectItem, SetExpr, Value, Visit, Visitor,
};

use super::context::{Context, WINDOW_COLUMNS};
use crate::sql::{Insert, JobError, Location, ReferenceTable, Script, Source, suggest};
use crate::window::Window;

/// The SELECT of an INSERT: the parser has let nothing else through.
pub(super) fn select(query: &Query) -> Option<&Select> {
    query.body.as_select()
}

/// Checks the source's event time.
pub(super) fn event_time(
    script: &Script,
    source: &Source,
    columns: &Schema,
    errors: &mut Vec<JobError>,
) {
    let at = script.option_at(&source.name, "event_time", source.at);
    match columns.field_with_name(&source.event_time) {
        Err(_) => {
            let what = format!(
                "the source {} has no column {}",
                source.name, source.event_time
            );
            errors.push(JobError::new(
                at,
                what,
                suggest::help(&source.event_time, names(columns)),
            ));
        }
        Ok(field) if !matches!(field.data_type(), DataType::Timestamp(..)) => {
            let what = format!(
                "event time must be a timestamp: {} is {}",
                field.name(),
                type_name(field.data_type())
            );
            let timestamps: Vec<&str> = columns
                .fields()
                .iter()
                .filter(|field| matches!(field.data_type(), DataType::Timestamp(..)))
                .map(|field| field.name().as_str())
                .collect();
            let help = if timestamps.is_empty() {
                "give the topic's schema a column of logical type timestamp-millis".to_owned()
            } else {
                format!("the timestamps are: {}", timestamps.join(", "))
            };
            errors.push(JobError::new(at, what, help));
        }
        Ok(_) => {}
    }
    window_columns(
        &format!("the source {}", source.name),
        source.at,
        columns,
        errors,
    );
}

fn window_columns(name: &str, at: Location, columns: &Schema, errors: &mut Vec<JobError>) {
    for column in WINDOW_COLUMNS {
        if columns.field_with_name(column).is_ok() {
            errors.push(JobError::new(
                at,
                format!("{name} has a column {column}, the name of a window's own column"),
                "rename it in the query that writes the topic, with AS, or in the schema",
            ));
        }
    }
}

/// Checks a reference table's columns and key.
pub(super) fn reference_table(
    table: &ReferenceTable,
    columns: &Schema,
    errors: &mut Vec<JobError>,
) {
    let name = format!("the reference table {}", table.name);
    window_columns(&name, table.at, columns, errors);
    for key in &table.key {
        match columns.field_with_name(key) {
            Err(_) => errors.push(JobError::new(
                table.key_at,
                format!("{name} has no column {key}"),
                suggest::help(key, names(columns)),
            )),
            Ok(field) if !key_type(field.data_type()) => errors.push(JobError::new(
                table.key_at,
                format!(
                    "{key} cannot be a key: it is {}",
                    type_name(field.data_type())
                ),
                "a key is made of integers, texts, booleans, dates or timestamps",
            )),
            Ok(_) => {}
        }
    }
}

/// Floating-point numbers are left out: 0.0 and -0.0 or two NaNs would be one key here and two elsewhere.
pub(super) fn key_type(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Utf8 | DataType::Boolean | DataType::Timestamp(..) | DataType::Date32
        )
}

fn names(columns: &Schema) -> impl Iterator<Item = &str> {
    columns.fields().iter().map(|field| field.name().as_str())
}

/// A type as a job's author knows it.
pub(super) fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Utf8 => "a text".to_owned(),
        DataType::Boolean => "a boolean".to_owned(),
        DataType::Int32 | DataType::Int64 => "an integer".to_owned(),
        DataType::Float32 | DataType::Float64 => "a floating-point number".to_owned(),
        other => format!("of type {other}"),
    }
}

pub(super) fn normal(ident: &Ident) -> String {
    if ident.quote_style.is_some() {
        ident.value.clone()
    } else {
        ident.value.to_lowercase()
    }
}

/// Turns a planner's error into errors with a place: its own, if it has one; else the part of the query that fails
/// when it is planned by itself.
pub(super) fn locate(insert: &Insert, context: &Context, error: &DataFusionError) -> Vec<JobError> {
    if let Some(diagnostic) = error.diagnostic()
        && let Some(span) = diagnostic.span
        && span.start.line > 0
    {
        let at = Location {
            line: span.start.line,
            column: span.start.column,
        };
        let help = diagnostic.helps.first().map(|help| help.message.clone());
        return vec![JobError {
            at,
            what: message(&DataFusionError::Plan(diagnostic.message.clone())),
            help,
        }];
    }
    for (place, join) in insert.joins.iter().enumerate() {
        if let Err(error) = context.plan(joined_up_to(insert, place)) {
            return vec![JobError::bare(join.on_at, message(&error))];
        }
    }
    let mut found = Vec::new();
    for (at, part) in parts(insert) {
        if let Err(error) = context.plan(part) {
            found.push(JobError::bare(at, message(&error)));
        }
    }
    if found.is_empty() {
        found.push(JobError::bare(insert.at, message(error)));
    }
    found
}

/// The query's FROM up to one of its joins, and nothing else.
fn joined_up_to(insert: &Insert, place: usize) -> Query {
    let mut query = (*insert.query).clone();
    (query.order_by, query.limit_clause) = (None, None);
    if let SetExpr::Select(select) = query.body.as_mut() {
        (select.selection, select.having) = (None, None);
        select.group_by = GroupByExpr::Expressions(vec![], vec![]);
        select.projection = vec![SelectItem::UnnamedExpr(Expr::value(Value::Null))];
        if let Some(from) = select.from.first_mut() {
            from.joins.truncate(place + 1);
        }
    }
    query
}

/// The query with one column of its SELECT list each, with WHERE alone and with HAVING alone.
fn parts(insert: &Insert) -> Vec<(Location, Query)> {
    let Some(whole) = select(&insert.query) else {
        return Vec::new();
    };
    let with = |change: &dyn Fn(&mut Select)| {
        let mut query = (*insert.query).clone();
        (query.order_by, query.limit_clause) = (None, None);
        if let SetExpr::Select(select) = query.body.as_mut() {
            select.selection = None;
            select.having = None;
            change(select);
        }
        query
    };
    // Something that can be selected whatever else the query does.
    let window = || match whole.projection.first() {
        Some(first) if !insert.window.is_some_and(Window::is_bounded) => vec![first.clone()],
        _ => vec![SelectItem::UnnamedExpr(Expr::Identifier(Ident::new(
            "window_start",
        )))],
    };
    let mut parts = Vec::new();
    for item in &whole.projection {
        let at = Location::of(item, insert.at);
        parts.push((at, with(&|select| select.projection = vec![item.clone()])));
    }
    if let Some(condition) = &whole.selection {
        let at = Location::of(condition, insert.at);
        parts.push((
            at,
            with(&|select| {
                (select.projection, select.selection) = (window(), Some(condition.clone()))
            }),
        ));
    }
    if let Some(condition) = &whole.having {
        let at = Location::of(condition, insert.at);
        parts.push((
            at,
            with(&|select| {
                (select.projection, select.having) = (window(), Some(condition.clone()))
            }),
        ));
    }
    parts
}

/// DataFusion's words, without its prefixes and source places.
pub(super) fn message(error: &DataFusionError) -> String {
    let text = error.strip_backtrace();
    let mut text = text.as_str();
    for prefix in [
        "type_coercion\ncaused by\n",
        "Error during planning: ",
        "This feature is not implemented: ",
        "Schema error: ",
        "Execution error: ",
        "Arrow error: ",
    ] {
        text = text.strip_prefix(prefix).unwrap_or(text);
    }
    text.lines()
        .next()
        .unwrap_or(text)
        .trim_end_matches('.')
        .to_owned()
}

/// The text of each group key, with positions and aliases replaced by what they stand for.
pub(crate) fn group_texts(select: &Select) -> Vec<String> {
    let GroupByExpr::Expressions(groups, _) = &select.group_by else {
        return Vec::new();
    };
    let item = |expr: &Expr| -> Option<String> {
        match expr {
            Expr::Value(value) => {
                let position: usize = value.to_string().parse().ok()?;
                match select.projection.get(position.checked_sub(1)?)? {
                    SelectItem::ExprWithAlias { expr, .. } | SelectItem::UnnamedExpr(expr) => {
                        Some(expr.to_string())
                    }
                    _ => None,
                }
            }
            Expr::Identifier(ident) => select.projection.iter().find_map(|item| match item {
                SelectItem::ExprWithAlias { expr, alias } if normal(alias) == normal(ident) => {
                    Some(expr.to_string())
                }
                _ => None,
            }),
            _ => None,
        }
    };
    groups
        .iter()
        .map(|group| item(group).unwrap_or_else(|| group.to_string()))
        .collect()
}

/// The text of each aggregate call, once, in the order of the query's text.
pub(crate) fn aggregate_texts(select: &Select) -> Vec<String> {
    struct Calls(Vec<String>);
    impl Visitor for Calls {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Function(function) = expr
                && crate::functions::is_aggregate(&function.name.to_string().to_lowercase())
            {
                let text = expr.to_string();
                if !self.0.contains(&text) {
                    self.0.push(text);
                }
            }
            ControlFlow::Continue(())
        }
    }
    let mut calls = Calls(Vec::new());
    for item in &select.projection {
        let _ = item.visit(&mut calls);
    }
    let _ = select.having.visit(&mut calls);
    calls.0
}

/// Where a function is called first.
pub(super) fn call_at(query: &Query, name: &str) -> Option<Location> {
    struct Call<'a>(&'a str, Option<Location>);
    impl Visitor for Call<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::Function(function) = expr
                && self.1.is_none()
                && function.name.to_string().eq_ignore_ascii_case(self.0)
            {
                self.1 = Some(Location::of(&function.name, Location::default()));
            }
            ControlFlow::Continue(())
        }
    }
    let mut call = Call(name, None);
    let _ = query.visit(&mut call);
    call.1
}
