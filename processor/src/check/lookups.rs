//! What a query's joins with reference tables do, for people and programs.

use std::collections::BTreeMap;

use engine::plan::Query;
use engine::sql::{Format, ReferenceTable, TableOrigin};
use serde::Serialize;

/// A join with a reference table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lookup {
    /// The table.
    pub table: String,
    /// What the query calls it.
    pub alias: String,
    /// `left`, or `inner`: rows without a match are left out.
    pub join: &'static str,
    /// The condition.
    pub on: String,
    /// The columns of its key.
    pub key: Vec<String>,
    /// The columns that are read of it, beside the key.
    pub reads: Vec<String>,
    /// Where its rows come from: a file, or a topic.
    pub origin: String,
    /// Whether it is followed while the job runs; otherwise it is read at the start.
    pub live: bool,
}

/// The topics that a query looks rows up in, each once.
pub(super) fn lookup_topics(
    query: &Query,
    tables: &BTreeMap<String, ReferenceTable>,
) -> impl Iterator<Item = (String, Format)> {
    let topics: BTreeMap<String, Format> = query
        .lookups
        .iter()
        .filter_map(|lookup| match &tables.get(&lookup.join.table)?.origin {
            TableOrigin::Topic { topic, format } => Some((topic.clone(), *format)),
            TableOrigin::Csv(_) | TableOrigin::Parquet(_) => None,
        })
        .collect();
    topics.into_iter()
}

/// The joins of a query.
pub(super) fn lookups(query: &Query, tables: &BTreeMap<String, ReferenceTable>) -> Vec<Lookup> {
    let known = query
        .lookups
        .iter()
        .filter_map(|lookup| Some((lookup, tables.get(&lookup.join.table)?)));
    known
        .map(|(lookup, table)| {
            let (origin, live) = match &table.origin {
                TableOrigin::Csv(path) | TableOrigin::Parquet(path) => (path.clone(), false),
                TableOrigin::Topic { topic, .. } => (format!("topic {topic}"), true),
            };
            Lookup {
                table: table.name.clone(),
                alias: lookup.join.alias.clone(),
                join: if lookup.join.inner { "inner" } else { "left" },
                on: lookup.join.on.clone(),
                key: table.key.clone(),
                reads: lookup.columns.clone(),
                origin,
                live,
            }
        })
        .collect()
}

impl Lookup {
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let Self {
            table,
            alias,
            on,
            key,
            reads,
            origin,
            ..
        } = self;
        let named = match alias == table {
            true => table.clone(),
            false => format!("{table} as {alias}"),
        };
        let kind = match self.join {
            "inner" => "rows without a match are left out",
            _ => "its columns are null without a match",
        };
        let when = match self.live {
            true => "live: read to its end before the first row, then followed",
            false => "read at the start",
        };
        vec![
            ("lookup", format!("{named} on {on}: {kind}")),
            (
                "",
                format!(
                    "{origin}, {when}; key: {}; reads: {}",
                    key.join(", "),
                    match reads.as_slice() {
                        [] => "nothing else".to_owned(),
                        reads => reads.join(", "),
                    }
                ),
            ),
        ]
    }
}
