//! What the graph is made of, as it is shown.

use serde::Serialize;

use crate::check::{Finish, Merge, Scan, Time};

/// A job as a graph.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Topology {
    /// The name that it runs under.
    pub application_id: String,
    /// When the log was asked, by this machine's clock; `None` if it never answered.
    pub log_as_of: Option<String>,
    /// Why the log did not answer last time.
    pub log_error: Option<String>,
    /// Its parts, each behind those that it reads from.
    pub nodes: Vec<Node>,
    /// What reads from what, by ids.
    pub edges: Vec<Edge>,
}

/// From one part to another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Edge {
    /// The part that is read from.
    pub from: String,
    /// The part that reads.
    pub to: String,
}

/// A part of a job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Node {
    /// Its id: its kind and its name.
    pub id: String,
    /// The topic, or the query.
    pub name: String,
    /// What it is.
    #[serde(flatten)]
    pub part: Part,
}

/// What a part is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Part {
    /// A topic that is read as a source, or that results go to, or both.
    Topic(TopicPart),
    /// A reference table that rows are joined with.
    Table(TablePart),
    /// From source rows to partial rows, or to results where there is no state.
    Scan(ScanPart),
    /// The topic of partial rows: the changelog of the state.
    Partials(PartialsPart),
    /// From partial rows to results.
    Merge(MergePart),
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TopicPart {
    /// Whether a query reads it.
    pub read: bool,
    /// Whether a query writes it.
    pub written: bool,
    /// How it is read; nothing of one that is only written.
    pub time: Option<Time>,
    /// Records taken from it.
    pub rows_in: u64,
    /// How far its partitions together are behind.
    pub lag: i64,
    /// The least watermark of its partitions that have one.
    pub watermark: Option<String>,
    /// Its partitions, if it is read.
    pub partitions: Vec<SourcePartition>,
}

/// A reference table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TablePart {
    /// Where its rows come from: a file, or a topic.
    pub origin: String,
    /// Whether it is followed while the job runs.
    pub live: bool,
    /// The columns of its key.
    pub key: Vec<String>,
}

/// A partition of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SourcePartition {
    /// Its number.
    pub partition: i32,
    /// Whether this process reads it.
    pub here: bool,
    /// The committed offset.
    pub committed: Option<i64>,
    /// How much is left to read.
    pub lag: Option<i64>,
    /// Records taken.
    pub rows_in: Option<u64>,
    /// Its watermark, known of those that are read here.
    pub watermark: Option<String>,
    /// Whether it was read to its end; known of those that are read here.
    pub at_end: Option<bool>,
    /// Whether it is idle.
    pub idle: Option<bool>,
    /// Whether it waits for slower ones.
    pub paused: Option<bool>,
    /// Why it could not go on, if that can be seen.
    pub problem: Option<String>,
}

/// A query's scan.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScanPart {
    /// What it does.
    #[serde(flatten)]
    pub scan: Scan,
    /// Rows, over all partitions, that WHERE left out.
    pub filtered: u64,
    /// Rows without a usable event time.
    pub dead: u64,
    /// Rows that are in at least one window.
    pub kept: u64,
    /// Row × window pairs sent on.
    pub assigned: u64,
}

/// A query's partials topic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartialsPart {
    /// How many shards there are.
    pub shards: u32,
    /// How far they together are behind.
    pub lag: i64,
}

/// A query's merge and finish.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MergePart {
    /// What it holds.
    #[serde(flatten)]
    pub merge: Merge,
    /// What it makes of that.
    #[serde(flatten)]
    pub finish: Finish,
    /// `final` or `changes`.
    pub emit: String,
    /// The least watermark of the shards; `None` while one has none, and once all input has come.
    pub watermark: Option<String>,
    /// Whether all input has come.
    pub ended: bool,
    /// Windows open in the shards that are here; of a query without windows, groups.
    pub open: u64,
    /// Row × window pairs merged.
    pub merged: u64,
    /// Row × window pairs that were late.
    pub late: u64,
    /// Windows closed.
    pub closed: u64,
    /// Final result rows emitted.
    pub emitted: u64,
    /// Result rows emitted that may still change.
    pub changes: u64,
    /// Its shards.
    pub shard: Vec<ShardPart>,
}

/// A shard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShardPart {
    /// Its number.
    pub shard: i32,
    /// Whether this process holds it.
    pub here: bool,
    /// The committed offset of its partials.
    pub committed: Option<i64>,
    /// How much is left to fold.
    pub lag: Option<i64>,
    /// How far event time has come in it.
    pub watermark: Option<String>,
    /// Windows open, or groups held; known of those that are here.
    pub open: Option<u64>,
    /// How far it is restored, from 0 to 1; known of those that are here.
    pub restored: Option<f64>,
    /// Why it could not go on, if that can be seen.
    pub problem: Option<String>,
}
