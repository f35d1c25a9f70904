//! Whether every column that a query names is there, and only once.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use arrow::datatypes::SchemaRef;
use datafusion_sql::sqlparser::ast::{
    Expr, Ident, SelectItem, TableFactor, TableWithJoins, Visit, Visitor,
};

use super::check::{normal, select};
use super::context::WINDOW_COLUMNS;
use crate::sql::{Insert, JobError, Location, condition, suggest};
use crate::window::Window;

/// What columns come from: the source, or a reference table.
struct Relation<'a> {
    qualifier: String,
    columns: Vec<&'a str>,
}

/// Checks that every column that a query names is there. `schemas` has those of sources and reference tables.
pub(super) fn check(
    insert: &Insert,
    schemas: &BTreeMap<String, SchemaRef>,
    errors: &mut Vec<JobError>,
) {
    let Some(select) = select(&insert.query) else {
        return;
    };
    let mut relations: Vec<Relation<'_>> = Vec::new();
    let columns = |name: &str| -> Vec<&str> {
        schemas
            .get(name)
            .into_iter()
            .flat_map(|columns| columns.fields())
            .map(|field| field.name().as_str())
            .collect()
    };
    let mut source = columns(&insert.source);
    if insert.window.is_some_and(Window::is_bounded) {
        source.extend(WINDOW_COLUMNS);
    }
    relations.push(Relation {
        qualifier: source_alias(insert, &select.from),
        columns: source,
    });
    for join in &insert.joins {
        if relations.iter().any(|known| known.qualifier == join.alias) {
            errors.push(JobError::new(
                join.at,
                format!("two tables of the query are named {}", join.alias),
                format!("name one of them anew: {} AS other", join.table),
            ));
        }
        relations.push(Relation {
            qualifier: join.alias.clone(),
            columns: columns(&join.table),
        });
    }

    let on = select.from.first().map(|from| from.joins.as_slice());
    for (place, join) in on.unwrap_or_default().iter().enumerate() {
        if let Some((_, on)) = condition(join) {
            let mut names = Names {
                relations: &relations[..=(place + 1).min(relations.len() - 1)],
                aliases: &[],
                at: insert.at,
                errors,
            };
            let _ = on.visit(&mut names);
        }
    }
    let aliases: Vec<String> = select
        .projection
        .iter()
        .filter_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } => Some(normal(alias)),
            _ => None,
        })
        .collect();
    let mut names = Names {
        relations: &relations,
        aliases: &[],
        at: insert.at,
        errors,
    };
    for item in &select.projection {
        let _ = item.visit(&mut names);
    }
    let _ = select.selection.visit(&mut names);
    names.aliases = &aliases;
    let _ = select.group_by.visit(&mut names);
    let _ = select.having.visit(&mut names);
    let _ = insert.query.order_by.visit(&mut names);
}

/// The name of the source in the query.
fn source_alias(insert: &Insert, from: &[TableWithJoins]) -> String {
    match from.first().map(|table| &table.relation) {
        Some(TableFactor::Table {
            alias: Some(alias), ..
        }) => normal(&alias.name),
        _ => insert.source.clone(),
    }
}

/// With so many errors, names that are not known are no longer looked for.
const MOST_ERRORS: usize = 100;

struct Names<'a> {
    /// The source first.
    relations: &'a [Relation<'a>],
    /// The names that the SELECT list gives, where they may be used.
    aliases: &'a [String],
    at: Location,
    errors: &'a mut Vec<JobError>,
}

impl Visitor for Names<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.errors.len() >= MOST_ERRORS {
            return ControlFlow::Break(());
        }
        match expr {
            Expr::Identifier(ident) => self.unqualified(ident),
            Expr::CompoundIdentifier(parts) => {
                if let [qualifier, ident, ..] = parts.as_slice() {
                    self.qualified(qualifier, ident, Location::of(expr, self.at));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Names<'_> {
    fn unqualified(&mut self, ident: &Ident) {
        let name = normal(ident);
        let at = Location::from(ident.span.start);
        let having: Vec<&str> = self
            .relations
            .iter()
            .filter(|relation| relation.columns.contains(&name.as_str()))
            .map(|relation| relation.qualifier.as_str())
            .collect();
        if having.len() > 1 {
            let all: Vec<String> = having
                .iter()
                .map(|qualifier| format!("{qualifier}.{name}"))
                .collect();
            self.errors.push(JobError::new(
                at,
                format!("{name} is a column of {}", having.join(" and of ")),
                format!("say which: {}", all.join(" or ")),
            ));
        } else if having.is_empty() && !self.aliases.contains(&name) {
            let known: Vec<&str> = self
                .relations
                .iter()
                .flat_map(|relation| relation.columns.iter().copied())
                .chain(self.aliases.iter().map(String::as_str))
                .collect();
            self.unknown(ident, &name, &known);
        }
    }

    fn qualified(&mut self, qualifier: &Ident, ident: &Ident, at: Location) {
        let wanted = normal(qualifier);
        let name = normal(ident);
        let Some(relation) = self
            .relations
            .iter()
            .find(|relation| relation.qualifier == wanted)
        else {
            let names: Vec<&str> = self
                .relations
                .iter()
                .map(|relation| relation.qualifier.as_str())
                .collect();
            let (what, help) = match names.as_slice() {
                [only] => (
                    format!("there is no source {qualifier} here"),
                    format!("write {only} or leave it out"),
                ),
                several => (
                    format!("there is no source or table {qualifier} here"),
                    format!("write {}", several.join(" or ")),
                ),
            };
            self.errors.push(JobError::new(at, what, help));
            return;
        };
        if relation.columns.contains(&name.as_str()) {
            return;
        }
        let elsewhere = self
            .relations
            .iter()
            .find(|other| other.columns.contains(&name.as_str()));
        match elsewhere {
            Some(other) => self.errors.push(JobError::new(
                ident.span.start.into(),
                format!("{wanted} has no column {name}"),
                format!("did you mean {}.{name}?", other.qualifier),
            )),
            None => {
                let known = relation.columns.clone();
                self.unknown(ident, &name, &known);
            }
        }
    }

    fn unknown(&mut self, ident: &Ident, name: &str, known: &[&str]) {
        let at = Location::from(ident.span.start);
        if WINDOW_COLUMNS.contains(&name) {
            self.errors.push(JobError::new(
                at,
                format!("{name} is a window's, and the query has no windows"),
                format!(
                    "write FROM TUMBLE({}, event_time, INTERVAL '1 hour')",
                    self.relations[0].qualifier
                ),
            ));
            return;
        }
        let mut help = suggest::help(name, known.iter().copied());
        if ident.quote_style == Some('"') && !help.starts_with("did") {
            help = format!("a text stands in single quotes: '{name}'");
        }
        self.errors.push(JobError::new(
            at,
            format!("there is no column {name}"),
            help,
        ));
    }
}
