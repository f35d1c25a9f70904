//! The text of a job: its statements, and where they stand.
//!
//! ```text
//!   text ──tokens──▶ statements, cut at `;` ──▶ CREATE SOURCE │ REFERENCE TABLE │ SINK │ INSERT INTO … SELECT ──▶ Script
//!                                                  (options, columns)                   (select, from, joins)
//! ```
//!
//! Every statement is read even when another is wrong, so that a job's errors come all at once.

mod bounds;
mod calls;
mod chain;
mod clauses;
mod columns;
mod from;
mod joins;
mod names;
mod options;
mod reference;
mod select;
mod statement;
pub(crate) mod suggest;

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::datatypes::SchemaRef;
use datafusion_sql::sqlparser::ast;

pub use clauses::Clauses;
pub(crate) use joins::condition;

use crate::window::Window;

/// Where something stands in a job's text; both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Location {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// What is wrong with a job, where, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:{}: {what}{}", at.line, at.column, help.as_deref().map(|help| format!("\n  help: {help}")).unwrap_or_default())]
pub struct JobError {
    /// Where.
    pub at: Location,
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub help: Option<String>,
}

/// How the values of a source's records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Avro, each with its schema's number in front (Confluent's framing); the columns come from the registry.
    Avro,
    /// A JSON object each; the columns are declared in the job.
    Json,
}

/// `CREATE SOURCE name WITH (...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name in the job.
    pub name: String,
    /// The topic; its columns come from the registry's subject `<topic>-value` unless they are declared.
    pub topic: String,
    /// How values are written.
    pub format: Format,
    /// The declared columns.
    pub columns: Option<SchemaRef>,
    /// The column that holds event time (a timestamp).
    pub event_time: String,
    /// How far event times may lag behind the latest one of their partition.
    pub out_of_orderness: Duration,
    /// After how long without a record a partition no longer holds the watermark back. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Whether event time goes on by the clock while all partitions are idle.
    pub idle_advance: bool,
    /// How far ahead of the clock an event time may be when it is read. `None`: any distance.
    pub max_ahead: Option<Duration>,
    /// How far the watermark of a partition may be ahead of the slowest one's before it is paused. `None`: any distance.
    pub max_drift: Option<Duration>,
    /// Where the statement begins.
    pub at: Location,
}

/// Where the rows of a reference table come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TableOrigin {
    /// A CSV file with a header; the columns are declared.
    Csv(String),
    /// A Parquet file; the columns are the file's, or those of them that are declared.
    Parquet(String),
    /// A topic of which the last record of each key counts. It is followed while the job runs.
    Topic {
        /// Its name; the columns come from the registry's subject `<topic>-value` unless they are declared.
        topic: String,
        /// How values are written.
        format: Format,
    },
}

/// `CREATE REFERENCE TABLE name WITH (...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReferenceTable {
    /// Its name in the job.
    pub name: String,
    /// Where its rows come from.
    pub origin: TableOrigin,
    /// The declared columns.
    pub columns: Option<SchemaRef>,
    /// The columns that make up its key, which no two rows have in common, in the order of their declaration.
    pub key: Vec<String>,
    /// Where the statement begins.
    pub at: Location,
    /// Where the file or topic is named.
    pub origin_at: Location,
    /// Where the key is named.
    pub key_at: Location,
}

/// `[LEFT] JOIN table ON …`, in a query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The reference table's name.
    pub table: String,
    /// The name that the query gives it.
    pub alias: String,
    /// Whether rows without a match are left out; otherwise the table's columns are null in them.
    pub inner: bool,
    /// The condition, as its author wrote it.
    pub on: String,
    /// Where the table is named.
    pub at: Location,
    /// Where the condition stands.
    pub on_at: Location,
}

/// When a sink's rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Once, when the window is closed.
    Final,
    /// At every commit, what has changed since the last one, and once more when the window is closed.
    Changes,
}

/// `CREATE SINK name WITH (...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sink {
    /// Its name in the job, and the query's.
    pub name: String,
    /// The topic.
    pub topic: String,
    /// The columns that make up the record's key, in order.
    pub key: Vec<String>,
    /// When rows are written.
    pub emit: Emit,
    /// How long after its end a window stays open for late rows.
    pub grace: Duration,
    /// Without windows: after how long without a row, in event time, a group is forgotten. `None`: never.
    pub state_ttl: Option<Duration>,
    /// For how long, in event time, `anomaly_score` remembers a group that has no windows.
    pub history_ttl: Duration,
    /// Where the statement begins.
    pub at: Location,
}

/// `INSERT INTO sink SELECT … FROM TUMBLE(source, …) …`.
#[derive(Clone, Debug)]
pub struct Insert {
    /// The sink's name.
    pub sink: String,
    /// The source's name.
    pub source: String,
    /// The reference tables that it looks rows up in, in the order of the text.
    pub joins: Vec<Join>,
    /// Its windows; `None` if the query gives a row for each row.
    pub window: Option<Window>,
    /// Where the statement begins.
    pub at: Location,
    /// The SELECT, with the window function's call replaced by its source's name.
    pub(crate) query: Box<ast::Query>,
    /// Where the source is named.
    pub(crate) source_at: Location,
    /// The event time column that the window function names, and where.
    pub(crate) time_column: Option<(String, Location)>,
    /// Where GROUP BY stands.
    pub(crate) group_by_at: Location,
}

/// A job's statements.
#[derive(Clone, Debug)]
pub struct Script {
    /// The sources by name.
    pub sources: BTreeMap<String, Source>,
    /// The reference tables by name.
    pub tables: BTreeMap<String, ReferenceTable>,
    /// The sinks by name.
    pub sinks: BTreeMap<String, Sink>,
    /// The INSERT statements, in the job's order; each sink has exactly one.
    pub inserts: Vec<Insert>,
    /// Where each option of a source, reference table or sink stands, by (name, option).
    pub(crate) options: BTreeMap<(String, String), Location>,
}

impl Script {
    /// Where an option stands, or its statement if it was left out.
    pub(crate) fn option_at(&self, name: &str, option: &str, statement: Location) -> Location {
        self.options
            .get(&(name.to_owned(), option.to_owned()))
            .copied()
            .unwrap_or(statement)
    }
}

/// Reads a job.
///
/// # Errors
/// Everything that is wrong with it, in the text's order; never an empty list.
pub fn parse(text: &str) -> Result<Script, Vec<JobError>> {
    statement::script(text)
}

impl JobError {
    pub(crate) fn new(at: Location, what: impl Into<String>, help: impl Into<String>) -> Self {
        Self {
            at,
            what: what.into(),
            help: Some(help.into()),
        }
    }

    pub(crate) fn bare(at: Location, what: impl Into<String>) -> Self {
        Self {
            at,
            what: what.into(),
            help: None,
        }
    }
}

impl From<datafusion_sql::sqlparser::tokenizer::Location> for Location {
    fn from(at: datafusion_sql::sqlparser::tokenizer::Location) -> Self {
        Self {
            line: at.line,
            column: at.column,
        }
    }
}

impl Location {
    /// The start of a part of the syntax tree; `otherwise` if the parser did not record it.
    pub(crate) fn of(part: &impl ast::Spanned, otherwise: Self) -> Self {
        let start = part.span().start;
        if start.line == 0 {
            otherwise
        } else {
            start.into()
        }
    }
}
