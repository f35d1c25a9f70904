//! From a script to the three fragments of each query.
//!
//! ```text
//!   SELECT ──check──▶ columns exist ──context──▶ logical plan, types coerced ──build──▶ cut at the aggregate
//!
//!   scan     event time ─▶ window ─▶ WHERE, lookups ─▶ keys, arguments ─▶ groups: accumulators' update ─▶ their states
//!   merge                                              partial rows    ─▶ groups: accumulators' merge  ─▶ their states
//!   finish                                             partial rows    ─▶ groups: accumulators' merge  ─▶ values ─▶ HAVING, SELECT
//! ```
//!
//! The groups and accumulators are those of DataFusion's aggregate operator. They are driven directly, without the
//! operator around them: it would want a stream and a task for each call, and a call is often only a few rows.

mod apart;
mod build;
mod calls;
mod check;
mod compile;
mod context;
mod fingerprint;
mod finish;
mod fragments;
mod groups;
mod intervals;
mod join;
mod limits;
mod lookups;
mod names;
mod parts;
mod reads;
mod record_time;
mod risk;
mod rows;
mod scan;
mod score;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{BooleanArray, Int64Array};
use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;

use crate::history::History;
use crate::reference::Tables;
use crate::sql::{JobError, Join, Script, Sink, Source};
use crate::window::Window;
pub(crate) use check::{aggregate_texts, group_texts};
use fragments::Fragments;
pub(crate) use scan::{FIRST_MS, LAST_MS};

/// The version of the partial rows' layout and of the fingerprint's text. It stands in every fingerprint.
const FORMAT: u32 = 1;

/// The first column of a partial row: the start of its window, milliseconds since 1970 (UTC), Int64, never null.
pub const WINDOW_START: &str = "__window_start";
/// The last column but two, only where windows do not lie fast in time: the end of the row's interval, milliseconds
/// since 1970, Int64, never null.
pub const WINDOW_END: &str = "__window_end";
/// The last column but one: how many source rows are in the partial row, Int64, never null.
pub const ROWS: &str = "__rows";
/// The last column: the highest partials offset that touched the row, Int64, never null; 0 as scan writes it, the
/// fold puts the offset in.
pub const TOUCHED: &str = "__touched";

/// The column that every source has beside those of its values: the time that the log has for the record, milliseconds
/// since 1970 (UTC), null if it has none. A column of that name in the values is taken instead.
pub const RECORD_TIME: &str = "record_time";

/// What scan makes of some source batches.
#[derive(Clone, Debug)]
pub struct Scanned {
    /// Partial rows, one per window and group, in no particular order; [`Query::partial`] is its schema.
    pub partial: RecordBatch,
    /// How many rows came in.
    pub rows_in: u64,
    /// How many of them the job's WHERE left out, or an inner join that found nothing.
    pub filtered: u64,
    /// How many rows are in the partial rows: each is in at least one window.
    pub kept: u64,
    /// How many row × window pairs are in the partial rows: a row is in several hopping windows.
    pub assigned: u64,
    /// For a query without groups: which row each row of `partial` was made of, by its index over all batches of the
    /// call.
    pub origins: Vec<u32>,
    /// The rows that could not be read, in their order.
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

/// What decides which shard a partial row goes to. All rows of a group must meet in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Its group key, without the window.
    Key,
    /// Its window: the query ranks the groups of a window.
    Window,
    /// Nothing: the query ranks the groups of windows that overlap, so that all go to one shard.
    One,
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

/// Plans each INSERT of a job. `schemas` holds the columns of every source and reference table, by its name, as they are
/// decoded; [`RECORD_TIME`] is put beside those of sources.
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

/// A reference table, as a query uses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookup {
    /// The join.
    pub join: Join,
    /// The columns of the table that it reads, beside those of the key: what a snapshot must have.
    pub columns: Vec<String>,
}

/// One query, planned: a plan cut at its streaming aggregate.
#[derive(Clone, Debug)]
pub struct Query {
    /// Its name: the sink's.
    pub name: String,
    /// Where its rows come from.
    pub source: Source,
    /// The reference tables that it looks rows up in, in the order of the text.
    pub lookups: Vec<Lookup>,
    /// Where its results go.
    pub sink: Sink,
    /// Its windows; `None` if each row gives a result: the query then has a scan only.
    pub window: Option<Window>,
    /// The columns that it reads, event time among them: what a source batch must have, in this order.
    pub input: SchemaRef,
    /// Whether [`RECORD_TIME`] in `input` is the log's: no column of the values.
    pub reads_record_time: bool,
    /// The columns of partial rows: [`WINDOW_START`], the group keys, aggregate states, [`WINDOW_END`] where windows do
    /// not lie fast in time, [`ROWS`], [`TOUCHED`]. Without groups: the SELECT list.
    pub partial: SchemaRef,
    /// How many group key columns follow [`WINDOW_START`] in a partial row.
    pub keys: usize,
    /// The columns of results: the SELECT list, then `version` (Int64) and `is_final` (Boolean). Without groups, the
    /// version is 2 × the source record's offset + 1.
    pub output: SchemaRef,
    /// What decides which shard a partial row goes to.
    pub spread: Spread,
    /// What must not change while the query's state lives: keys, windows, functions, filters, in one readable text.
    pub fingerprint: String,
    fragments: Arc<Fragments>,
}

impl Query {
    /// Filters, projects, assigns windows and aggregates: source batches, with the columns of [`Query::input`], to
    /// partial rows. For a query without lookups.
    ///
    /// # Errors
    /// A batch has other columns, or DataFusion failed. A row that an expression fails on is no error: it is dead.
    pub fn scan(&self, batches: &[RecordBatch]) -> Result<Scanned, FragmentError> {
        self.scan_with(batches, &Tables::new())
    }

    /// The same, and looks rows up in `tables`: each that [`Query::lookups`] names, with the columns that it says.
    ///
    /// # Errors
    /// As with [`Query::scan`], or a table is missing.
    pub fn scan_with(
        &self,
        batches: &[RecordBatch],
        tables: &Tables,
    ) -> Result<Scanned, FragmentError> {
        self.fragments
            .scan(batches, tables, &self.partial)
            .map_err(|source| self.failed("scan", source))
    }

    /// Merges partial rows of the same window and group. Sessions of a key that overlap are united.
    ///
    /// # Errors
    /// A batch has other columns than [`Query::partial`], or DataFusion failed.
    pub fn merge(&self, batches: &[RecordBatch]) -> Result<RecordBatch, FragmentError> {
        self.fragments
            .merge(batches, &self.partial)
            .map_err(|source| self.failed("merge", source))
    }

    /// Merges partial rows of the same window and group and turns them into results, ordered by window end and group key, or within each window by
    /// the query's ORDER BY. `version` is 2 × [`TOUCHED`] + `is_final`. `anomaly_score` compares with `history`, which
    /// learns from final results.
    ///
    /// # Errors
    /// A batch has other columns than [`Query::partial`], or an expression of the SELECT list or of HAVING failed.
    pub fn finish(
        &self,
        partials: &[RecordBatch],
        is_final: bool,
        history: &mut History,
    ) -> Result<RecordBatch, FragmentError> {
        self.fragments
            .finish(partials, is_final, history, &self.partial, &self.output)
            .map_err(|source| self.failed("finish", source))
    }

    /// Whether its event time is the log's [`RECORD_TIME`].
    pub fn is_by_record_time(&self) -> bool {
        self.reads_record_time && self.source.event_time == RECORD_TIME
    }

    /// Whether results depend on those of earlier windows.
    pub fn has_history(&self) -> bool {
        !self.fragments.scored.is_empty()
    }

    /// Whether only the first groups of each window are results.
    pub(crate) fn is_ranked(&self) -> bool {
        self.fragments.top.is_some()
    }

    /// How many scores it has.
    pub(crate) fn scores(&self) -> usize {
        self.fragments.scored.len()
    }

    /// Rows of a query without groups as results: `offsets` are those of the source records that they were made of.
    ///
    /// # Errors
    /// The batch has other columns than [`Query::partial`], or other rows than there are offsets.
    pub fn results_of_rows(
        &self,
        rows: &RecordBatch,
        offsets: &[i64],
    ) -> Result<RecordBatch, FragmentError> {
        let versions = offsets.iter().map(|offset| offset.saturating_mul(2) + 1);
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(Int64Array::from_iter_values(versions)));
        columns.push(Arc::new(BooleanArray::from(vec![true; offsets.len()])));
        RecordBatch::try_new(Arc::clone(&self.output), columns)
            .map_err(|error| self.failed("scan", error.into()))
    }

    /// Each row's group key as bytes.
    pub(crate) fn key_bytes(
        &self,
        partial: &RecordBatch,
    ) -> Result<Option<arrow::row::Rows>, FragmentError> {
        self.fragments
            .key_bytes(&partial.columns()[1..=self.keys])
            .map_err(|source| self.failed("merge", source))
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
