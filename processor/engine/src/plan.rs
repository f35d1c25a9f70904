//! From a script to the three fragments of each query.
//!
//! ```text
//!   SELECT ──check──▶ columns exist ──context──▶ logical plan, types coerced ──build──▶ cut at the aggregate
//!
//!   scan     event time ─▶ window ─▶ WHERE ─▶ keys, arguments ─▶ groups: accumulators' update ─▶ their states
//!   merge                                     partial rows    ─▶ groups: accumulators' merge  ─▶ their states
//!   finish                                    partial rows    ─▶ groups: accumulators' merge  ─▶ values ─▶ HAVING, SELECT
//! ```
//!
//! The groups and accumulators are those of DataFusion's aggregate operator. They are driven directly, without the
//! operator around them: it would want a stream and a task for each call, and a call is often only a few rows.

mod build;
mod check;
mod compile;
mod context;
mod finish;
mod groups;
mod risk;
mod scan;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::sql::{JobError, Script, Sink, Source};
pub(crate) use check::{aggregate_texts, group_texts};
use groups::Fragments;

/// The version of the partial rows' layout and of the fingerprint's text. It stands in every fingerprint.
const FORMAT: u32 = 1;

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
    /// The rows that could not be read, in their order. `rows_in` = rows assigned + `filtered` + dead.
    pub dead: Vec<DeadRow>,
}

/// A row that has no place in any window or that the job's expressions fail on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadRow {
    /// Its index, counted over all batches of the call.
    pub row: u32,
    /// Why, for the one who reads the dead letter.
    pub reason: String,
}

/// What the operator gives, beside the job's text.
#[derive(Clone, Default)]
pub struct Settings {
    /// The secret behind `mask_coordinate`: jobs that use it are refused without one.
    pub mask_salt: Vec<u8>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").finish_non_exhaustive()
    }
}

/// Plans each INSERT of a job. `schemas` holds every source's columns, by the source's name, as its topic is decoded.
///
/// # Errors
/// Everything that is wrong with the job, in the text's order; never an empty list.
pub fn plan(
    script: &Script,
    schemas: &BTreeMap<String, SchemaRef>,
    settings: &Settings,
) -> Result<Vec<Query>, Vec<JobError>> {
    build::plan(script, schemas, settings)
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

impl Query {
    /// Filters, projects, assigns windows and aggregates: source batches, with the columns of [`Query::input`], to
    /// partial rows.
    ///
    /// # Errors
    /// A batch has other columns, or DataFusion failed. A row that an expression fails on is no error: it is dead.
    pub fn scan(&self, batches: &[RecordBatch]) -> Result<Scanned, FragmentError> {
        self.fragments
            .scan(batches, &self.partial)
            .map_err(|source| self.failed("scan", source))
    }

    /// Merges partial rows of the same window and group.
    ///
    /// # Errors
    /// A batch has other columns than [`Query::partial`], or DataFusion failed.
    pub fn merge(&self, batches: &[RecordBatch]) -> Result<RecordBatch, FragmentError> {
        self.fragments
            .merge(batches, &self.partial)
            .map_err(|source| self.failed("merge", source))
    }

    /// Turns partial rows of closed windows into results, ordered by window end and group key.
    /// `version` is 2 × [`TOUCHED`] + `is_final`.
    ///
    /// # Errors
    /// The batch has other columns than [`Query::partial`], or an expression of the SELECT list or of HAVING failed.
    pub fn finish(
        &self,
        partial: &RecordBatch,
        is_final: bool,
    ) -> Result<RecordBatch, FragmentError> {
        self.fragments
            .finish(partial, is_final, &self.partial, &self.output)
            .map_err(|source| self.failed("finish", source))
    }

    fn failed(
        &self,
        fragment: &'static str,
        source: datafusion_common::DataFusionError,
    ) -> FragmentError {
        FragmentError {
            fragment,
            query: self.name.clone(),
            source,
        }
    }
}
