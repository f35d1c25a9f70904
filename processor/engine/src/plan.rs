//! From a script to the three fragments of each query.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::sql::{Sink, Source};

/// The first column of a partial row: the start of its window, milliseconds since 1970 (UTC), Int64, never null.
pub const WINDOW_START: &str = "__window_start";
/// The last column but one: how many source rows are in the partial row, Int64, never null.
pub const ROWS: &str = "__rows";
/// The last column: the highest partials offset that touched the row, Int64, never null; 0 as scan writes it, the
/// fold puts the offset in.
pub const TOUCHED: &str = "__touched";

/// How event time is cut into windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// `TUMBLE`: windows of this length in milliseconds, aligned to 1970-01-01T00:00:00Z.
    Tumbling {
        /// The length, positive.
        size_ms: i64,
    },
}

/// What scan makes of some source batches.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// Partial rows, one per window and group, in no particular order; [`Query::partial`] is its schema.
    pub partial: RecordBatch,
    /// How many rows came in.
    pub rows_in: u64,
    /// How many of them the job's WHERE left out.
    pub filtered: u64,
    /// How many row × window pairs are in the partial rows.
    pub assigned: u64,
}

/// A failure inside a fragment: the job is at fault (such as an overflow), or there is a bug.
#[derive(Debug, thiserror::Error)]
#[error("{fragment} of query {query} failed")]
pub struct FragmentError {
    /// scan, merge or finish.
    pub fragment: &'static str,
    /// The query's name.
    pub query: String,
    /// DataFusion's or Arrow's reason.
    #[source]
    pub source: datafusion_common::DataFusionError,
}

/// One query, planned: a plan cut at its streaming aggregate.
#[derive(Clone, Debug)]
pub struct Query {
    /// Its name: the sink's.
    pub name: String,
    /// Where its rows come from.
    pub source: Source,
    /// Where its results go.
    pub sink: Sink,
    /// Its windows.
    pub window: Window,
    /// The columns that it reads, event time among them: what a source batch must have, in this order.
    pub input: SchemaRef,
    /// The columns of partial rows: [`WINDOW_START`], the group keys, aggregate states, [`ROWS`], [`TOUCHED`].
    pub partial: SchemaRef,
    /// How many group key columns follow [`WINDOW_START`] in a partial row.
    pub keys: usize,
    /// The columns of results: the SELECT list, then `version` (Int64) and `is_final` (Boolean).
    pub output: SchemaRef,
    /// What must not change while the query's state lives: keys, windows, functions, filters, in one readable text.
    pub fingerprint: String,
    fragments: Arc<Fragments>,
}

#[derive(Debug)]
struct Fragments;

impl Query {
    /// Filters, projects, assigns windows and aggregates: source batches to partial rows.
    pub fn scan(&self, _batches: &[RecordBatch]) -> Result<Scanned, FragmentError> {
        let _ = &self.fragments;
        Err(self.unplanned("scan"))
    }

    /// Merges partial rows of the same window and group.
    pub fn merge(&self, _batches: &[RecordBatch]) -> Result<RecordBatch, FragmentError> {
        Err(self.unplanned("merge"))
    }

    /// Turns partial rows, merged, of closed windows into results, ordered by window end and key.
    /// `version` is 2 × [`TOUCHED`] + `is_final`.
    pub fn finish(&self, _partial: &RecordBatch, _is_final: bool) -> Result<RecordBatch, FragmentError> {
        Err(self.unplanned("finish"))
    }

    fn unplanned(&self, fragment: &'static str) -> FragmentError {
        FragmentError {
            fragment,
            query: self.name.clone(),
            source: datafusion_common::DataFusionError::NotImplemented(String::new()),
        }
    }
}
