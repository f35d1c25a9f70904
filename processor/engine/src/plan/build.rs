//! From a job's statements to its queries: the logical plan, taken apart and checked.

use std::collections::{BTreeMap, BTreeSet};

use arrow::datatypes::SchemaRef;
use datafusion_common::Result;
use datafusion_expr::Expr;

use super::check::key_type;
use super::compile::unqualified;
use super::context::{Context, WINDOW_COLUMNS};
use super::fragments::GroupColumn;
use super::parts::{Parts, take_apart};
use super::{Query, Settings, check, limits, lookups, names, record_time, risk, rows};
use crate::sql::{
    Emit, Insert, JobError, Location, ReferenceTable, Script, Sink, Source, TableOrigin, suggest,
};
use crate::window::Window;

pub(super) fn plan(
    script: &Script,
    schemas: &BTreeMap<String, SchemaRef>,
    settings: &Settings,
) -> Result<Vec<Query>, Vec<JobError>> {
    let mut errors = Vec::new();
    let schemas = &record_time::beside(script, schemas);
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
    for table in script.tables.values() {
        match (schemas.get(&table.name), &table.origin) {
            (Some(columns), _) => check::reference_table(table, columns, &mut errors),
            (None, TableOrigin::Topic { topic, .. }) => errors.push(JobError::new(
                table.origin_at,
                format!("the columns of the topic {topic} are not known"),
                format!("register a schema for the subject {topic}-value"),
            )),
            // Whoever could not read the file has said why.
            (None, TableOrigin::Csv(path) | TableOrigin::Parquet(path)) => {
                errors.push(JobError::bare(
                    table.origin_at,
                    format!("the columns of {path} are not known"),
                ))
            }
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
        if insert.joins.iter().any(|join| {
            let table = script.tables.get(&join.table);
            table.is_none_or(|table| !has_key(table, schemas.get(&table.name)))
        }) {
            continue;
        }
        names::check(insert, schemas, &mut errors);
        if errors.len() > before || columns.field_with_name(&source.event_time).is_err() {
            continue;
        }
        let job = Job {
            script,
            insert,
            source,
            sink,
            columns,
            schemas,
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

pub(super) struct Job<'a> {
    pub(super) script: &'a Script,
    pub(super) insert: &'a Insert,
    pub(super) source: &'a Source,
    pub(super) sink: &'a Sink,
    pub(super) columns: &'a SchemaRef,
    /// Those of all sources and reference tables, by name.
    pub(super) schemas: &'a BTreeMap<String, SchemaRef>,
    pub(super) settings: &'a Settings,
}

impl Job<'_> {
    fn query(&self) -> Result<Query, Vec<JobError>> {
        let windowed = self.insert.window.is_some_and(Window::is_bounded);
        let references = self
            .script
            .tables
            .keys()
            .filter_map(|name| self.schemas.get_key_value(name));
        let context = Context::new(&self.insert.source, self.columns, windowed, references);
        let plan = context
            .plan((*self.insert.query).clone())
            .map_err(|error| check::locate(self.insert, &context, &error))?;
        if self.insert.window.is_none() {
            return rows::plan(self, &plan);
        }
        let failed = |error| vec![JobError::bare(self.insert.at, check::message(&error))];
        let Some(parts) = take_apart(&plan).map_err(failed)? else {
            let help =
                "a query is SELECT … FROM TUMBLE(…) WHERE … GROUP BY window_start, … HAVING …";
            return Err(vec![JobError::new(
                self.insert.at,
                "a query of this shape is not supported",
                help,
            )]);
        };
        let lookups = lookups::of(self, &parts.relations)?;
        let mut errors = Vec::new();
        let window = self.window(&mut errors);
        let columns = self.group_columns(&parts, &mut errors);
        limits::check(self, &parts, &lookups, &columns, window, &mut errors);
        self.key(&parts, &columns, &mut errors);
        self.risks(&parts, &mut errors);
        self.calls(&parts, &mut errors);
        let masks = self.masks(&parts, &mut errors);
        if !errors.is_empty() {
            return Err(errors);
        }
        self.compile(parts, columns, masks, window, lookups)
            .map_err(failed)
    }

    /// The windows, with what the sink says of them.
    fn window(&self, errors: &mut Vec<JobError>) -> Window {
        let at = |option| self.script.option_at(&self.sink.name, option, self.sink.at);
        let window = self
            .insert
            .window
            .unwrap_or(Window::Unbounded { ttl_ms: None });
        let Window::Unbounded { .. } = window else {
            if self.sink.state_ttl.is_some() {
                errors.push(JobError::new(
                    at("state_ttl"),
                    "state_ttl is for queries without windows: a window's state goes when it is closed",
                    "leave it out",
                ));
            }
            return window;
        };
        if self.sink.emit == Emit::Final {
            errors.push(JobError::new(
                at("emit"),
                "a query without windows has no final result",
                "write emit = 'changes', or group by a window: FROM TUMBLE(source, event_time, INTERVAL '1 hour') … GROUP BY window_start, …",
            ));
        }
        if !self.sink.grace.is_zero() {
            errors.push(JobError::new(
                at("grace"),
                "grace is for windows, and the query has none",
                "leave it out",
            ));
        }
        let ttl_ms = self
            .sink
            .state_ttl
            .map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
        if ttl_ms == Some(0) {
            errors.push(JobError::new(
                at("state_ttl"),
                "a group would be forgotten at once",
                "write state_ttl = INTERVAL '30 days', or leave it out to keep every group",
            ));
        }
        Window::Unbounded { ttl_ms }
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
        let windowed = self.insert.window.is_some_and(Window::is_bounded);
        if windowed
            && !columns.contains(&GroupColumn::WindowStart)
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
                        "a key is made of the columns of GROUP BY",
                    ));
                }
            }
        }
        if errors.len() > before {
            return;
        }
        let window = |column: &GroupColumn| !matches!(column, GroupColumn::Key(_));
        let mut missing = Vec::new();
        if columns.iter().any(&window) && !covered.iter().any(|group| window(&columns[*group])) {
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
        for by in parts.top.iter().flat_map(|(order, _)| order) {
            check(&by.expr, self.insert.at);
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
}

/// Whether a table's columns are known, with those of its key: otherwise that is said already.
fn has_key(table: &ReferenceTable, columns: Option<&SchemaRef>) -> bool {
    let usable = |columns: &SchemaRef, key: &String| {
        let field = columns.field_with_name(key);
        field.is_ok_and(|field| key_type(field.data_type()))
    };
    columns.is_some_and(|columns| table.key.iter().all(|key| usable(columns, key)))
}

fn window_column(group: &Expr) -> Option<GroupColumn> {
    match group.clone().unalias_nested().data {
        Expr::Column(column) if column.name == WINDOW_COLUMNS[0] => Some(GroupColumn::WindowStart),
        Expr::Column(column) if column.name == WINDOW_COLUMNS[1] => Some(GroupColumn::WindowEnd),
        _ => None,
    }
}
