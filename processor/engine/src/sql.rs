//! The text of a job: its statements, and where they stand.

use std::collections::BTreeMap;
use std::time::Duration;

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

/// `CREATE SOURCE name WITH (...)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Its name in the job.
    pub name: String,
    /// The topic; its columns come from the registry's subject `<topic>-value`.
    pub topic: String,
    /// The column that holds event time (a timestamp).
    pub event_time: String,
    /// How far event times may lag behind the latest one of their partition.
    pub out_of_orderness: Duration,
    /// After how long without a record a partition no longer holds the watermark back. `None`: never.
    pub idle_timeout: Option<Duration>,
    /// Where the statement begins.
    pub at: Location,
}

/// When a sink's rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emit {
    /// Once, when the window is closed.
    Final,
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
    /// Where the statement begins.
    pub at: Location,
}

/// A job's statements.
#[derive(Clone, Debug)]
pub struct Script {
    /// The sources by name.
    pub sources: BTreeMap<String, Source>,
    /// The sinks by name.
    pub sinks: BTreeMap<String, Sink>,
}
