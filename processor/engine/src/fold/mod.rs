//! The deterministic fold over one shard's partials, in log order.
//!
//! ```text
//!   partials[..O] ──apply, one by one──▶ Fold { ranges, watermark, windows }
//!                                          │ Applied { late, closed }
//!                                          ▼
//!                     closed windows ──finish──▶ output rows
//! ```
//!
//! It reads no clock and depends on nothing but the log: whoever folds the same partials holds the same state, and gets
//! the same late rows and closed windows at the same offsets. That is why the partials topic is the changelog.

mod admit;
mod applied;
mod blocks;
mod check;
mod closed;
mod error;
mod image;
mod keyed;
mod open;
mod panes;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use admit::touched_at;
pub use applied::{Applied, Counts, LateRows, OpenWindow};
pub use blocks::Block;
use blocks::Keeping;
pub use closed::{ClosedPieces, ClosedWindow};
pub use error::FoldError;
pub use image::{Head, IMAGE_VERSION, Image, ImageError, ImageRun};
use keyed::Keyed;
use panes::Panes;

use crate::history::History;
use crate::partial::Header;
use crate::plan::Query;
use crate::spill::{InMemory, Spill};
use crate::sql::Emit;
use crate::watermark::{PartitionTime, Watermark};
use crate::window::Window;

/// The state of one shard after some offset of its partials.
#[derive(Clone, Debug)]
pub struct Fold {
    query: Arc<Query>,
    fingerprint: u64,
    keeping: Keeping,
    topic_id: Option<String>,
    ranges: BTreeMap<i32, i64>,
    watermark: Watermark,
    grace_ms: i64,
    state: State,
    history: History,
    counts: Counts,
    /// Gaps in the ranges of source partitions that are accepted: partition, where it begins, where it ends.
    gaps: Vec<(i32, i64, i64)>,
    handover: Handover,
}

/// What another job has given, so that this one goes on from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// Windows that end here or before were given by the other job; milliseconds since 1970.
    pub given_to: i64,
    /// What is added to versions, so that they are above those of the other job.
    pub versions_from: i64,
}

impl Default for Handover {
    fn default() -> Self {
        Self {
            given_to: i64::MIN,
            versions_from: 0,
        }
    }
}

#[derive(Clone, Debug)]
enum State {
    /// Windows that lie fast in time, of which only the end is told.
    Panes(Panes),
    /// Sessions, groups without a window, and windows whose changes are told.
    Keyed(Keyed),
}

/// An immutable batch of partial rows. Its number is given in the order of the fold: whoever folds the same partials
/// numbers them alike.
#[derive(Clone, Debug)]
struct Run {
    number: u64,
    rows: RecordBatch,
}

impl Run {
    fn next(number: &mut u64, rows: RecordBatch) -> Self {
        let run = Self {
            number: *number,
            rows,
        };
        *number += 1;
        run
    }
}

/// What became of some partial rows.
#[derive(Default)]
struct Taken {
    /// Row × window pairs that were merged.
    merged: u64,
    /// Those that were late.
    late: Vec<LateRows>,
}

impl Fold {
    /// The state before the first partial of a job with this fingerprint (see [`crate::partial::fingerprint_hash`]).
    pub fn new(query: Arc<Query>, fingerprint: u64) -> Self {
        Self::with_spill(query, fingerprint, Arc::new(InMemory))
    }

    /// The same, with large batches kept by `spill`.
    pub fn with_spill(query: Arc<Query>, fingerprint: u64, spill: Arc<dyn Spill>) -> Self {
        let window = window_of(&query);
        let state = match by_panes(&query) {
            Some(size_ms) => State::Panes(Panes::new(window, size_ms)),
            None => State::Keyed(Keyed::new(window)),
        };
        Self {
            fingerprint,
            keeping: Keeping {
                spill,
                block_rows: blocks::BLOCK_ROWS,
            },
            topic_id: None,
            ranges: BTreeMap::new(),
            watermark: Watermark::default(),
            grace_ms: i64::try_from(query.sink.grace.as_millis()).unwrap_or(i64::MAX),
            state,
            history: History::default(),
            counts: Counts::default(),
            gaps: Vec::new(),
            handover: Handover::default(),
            query,
        }
    }

    /// The same, with its runs cut into blocks of about this many rows. Whoever folds the same partials must cut alike.
    #[must_use]
    pub fn with_block_rows(mut self, rows: usize) -> Self {
        self.keeping.block_rows = rows.max(1);
        self
    }

    /// Takes a range of a source partition that begins at `to` as following on one that ended at `from`: somebody has
    /// decided that what lay between is lost. It is no part of the state: it must be said again after a restore.
    pub fn accept_gap(&mut self, partition: i32, from: i64, to: i64) {
        self.gaps.push((partition, from, to));
    }

    /// Goes on where another job stopped: windows that it gave are told apart when they close, and versions are above its
    /// own. It is no part of the state: it must be said again after a restore.
    pub fn go_on_from(&mut self, handover: Handover) {
        self.handover = handover;
    }

    /// Up to which end windows are closed; `None`: none is.
    pub fn closes_to(&self) -> Option<i64> {
        let now = self.watermark.now();
        now.map(|now| now.saturating_sub(self.grace_ms))
    }

    /// Up to which end windows would be closed if a record with this header were applied; `None`: none would be yet.
    pub fn would_close_to(&self, header: &Header) -> Option<i64> {
        let mut watermark = self.watermark.clone();
        let now = watermark.update(header.partition, header.partitions, time_of(header));
        now.map(|now| now.saturating_sub(self.grace_ms))
    }

    /// Applies the partials record at `offset`: its header, and its rows (none in a mark).
    ///
    /// # Errors
    /// After an error the fold must not be used any more.
    pub fn apply(
        &mut self,
        offset: i64,
        header: &Header,
        rows: Option<&RecordBatch>,
    ) -> Result<Applied, FoldError> {
        if !self.admit(header)? {
            self.counts.duplicates += 1;
            return Ok(Applied {
                duplicate: true,
                ..Applied::default()
            });
        }
        let mut applied = Applied::default();
        if let Some(rows) = rows.filter(|rows| rows.num_rows() > 0) {
            let rows = touched_at(&self.query, rows, offset)?;
            let changes = self.query.sink.emit == Emit::Changes;
            let taken = match &mut self.state {
                State::Panes(panes) => panes.add(&self.query, &rows, &self.keeping)?,
                State::Keyed(keyed) => keyed.add(&self.query, &rows, changes)?,
            };
            self.counts.merged += taken.merged;
            self.counts.late += taken.late.iter().map(|late| late.rows).sum::<u64>();
            applied.late = taken.late;
        }
        if let Some(now) =
            self.watermark
                .update(header.partition, header.partitions, time_of(header))
        {
            let closes = now.saturating_sub(self.grace_ms);
            applied.given_before = self.close(closes.min(self.handover.given_to))?;
            applied.closed = self.close(closes)?;
            let closed = applied.given_before.iter().chain(&applied.closed);
            self.counts.closed += closed.map(|closed| closed.windows).sum::<u64>();
        }
        Ok(applied)
    }

    fn close(&mut self, closes: i64) -> Result<Vec<ClosedWindow>, FoldError> {
        match &mut self.state {
            State::Panes(panes) => Ok(panes.close(closes)),
            State::Keyed(keyed) => keyed.close(closes, self.keeping.block_rows),
        }
    }

    /// What has been taken so far.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// How far event time has come, and by which partitions.
    pub fn watermark(&self) -> &Watermark {
        &self.watermark
    }

    /// Where the next range of each source partition must begin.
    pub fn ranges(&self) -> &BTreeMap<i32, i64> {
        &self.ranges
    }

    /// The windows that are not closed yet, in order of their ends.
    pub fn open_windows(&self) -> Vec<OpenWindow> {
        match &self.state {
            State::Panes(panes) => panes.open(),
            State::Keyed(keyed) => keyed.open(),
        }
    }

    /// How many windows are open; of a query without windows, how many groups.
    pub fn open_count(&self) -> usize {
        match &self.state {
            State::Panes(panes) => panes.open_count(),
            State::Keyed(keyed) => keyed.open_count(),
        }
    }

    /// What has changed in open windows and groups since the last call, as results that are not final. `None` unless
    /// the sink asks for changes, and if there are none. Windows that another job gave are left out.
    ///
    /// # Errors
    /// A fragment failed.
    pub fn changes(&mut self) -> Result<Option<RecordBatch>, FoldError> {
        if self.query.sink.emit != Emit::Changes {
            return Ok(None);
        }
        let changes = match &mut self.state {
            State::Panes(_) => return Ok(None),
            State::Keyed(keyed) => keyed.changes(self.handover.given_to)?,
        };
        let results = self.query.finish(&changes, false, &mut self.history)?;
        match results.num_rows() {
            0 => Ok(None),
            _ => self.raised(results).map(Some),
        }
    }

    /// Takes all that is open for changed, so that [`Fold::changes`] says it: whoever goes on for another job tells what it
    /// has.
    pub fn all_changed(&mut self) {
        if let State::Keyed(keyed) = &mut self.state {
            keyed.all_changed();
        }
    }

    /// Results with versions above those of the job that this one goes on for.
    fn raised(&self, results: RecordBatch) -> Result<RecordBatch, FoldError> {
        let from = self.handover.versions_from;
        if from == 0 {
            return Ok(results);
        }
        // `version` is the last column but one of every query's results.
        let version = results.num_columns() - 2;
        let mut columns = results.columns().to_vec();
        let versions = columns[version].as_primitive::<Int64Type>();
        columns[version] =
            Arc::new(versions.unary::<_, Int64Type>(|version| version.saturating_add(from)));
        RecordBatch::try_new(results.schema(), columns).map_err(|_| FoldError::Columns)
    }

    /// Lets go of what [`Fold::changes`] would say: it has been said before.
    pub fn forget_changes(&mut self) {
        if let State::Keyed(keyed) = &mut self.state {
            keyed.forget_changes();
        }
    }
}

fn time_of(header: &Header) -> PartitionTime {
    PartitionTime {
        watermark: header.watermark,
        idle: header.idle,
        advance_to: header.advance_to,
        ended: header.ended,
    }
}

fn window_of(query: &Query) -> Window {
    // A query without groups has no partials to fold.
    query.window.unwrap_or(Window::Unbounded { ttl_ms: None })
}

/// The length of windows whose panes are kept as they lie in time: windows of which only the end is told.
fn by_panes(query: &Query) -> Option<i64> {
    let size_ms = window_of(query).size_ms();
    size_ms.filter(|_| query.sink.emit == Emit::Final)
}

/// How many source rows are in partial rows.
fn source_rows(partial: &RecordBatch) -> u64 {
    let counts = partial
        .column(partial.num_columns() - 2)
        .as_primitive::<Int64Type>();
    arrow::compute::sum(counts).map_or(0, |sum| u64::try_from(sum).unwrap_or(0))
}

/// Partial rows under another window start.
fn with_start(rows: &RecordBatch, start: i64) -> Result<RecordBatch, FoldError> {
    with_starts(rows, Int64Array::from_value(start, rows.num_rows()))
}

fn with_starts(rows: &RecordBatch, starts: Int64Array) -> Result<RecordBatch, FoldError> {
    let mut columns = rows.columns().to_vec();
    columns[0] = Arc::new(starts);
    RecordBatch::try_new(rows.schema(), columns).map_err(|_| FoldError::Columns)
}
