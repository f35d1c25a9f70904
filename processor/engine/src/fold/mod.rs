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

mod windows;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;

pub use windows::OpenWindow;
use windows::Windows;

use crate::partial::{FORMAT_VERSION, Header};
use crate::plan::{FragmentError, Query, TOUCHED, Window};
use crate::watermark::{PartitionTime, Watermark};

/// The state of one shard after some offset of its partials.
#[derive(Clone, Debug)]
pub struct Fold {
    query: Arc<Query>,
    fingerprint: u64,
    topic_id: Option<String>,
    ranges: BTreeMap<i32, i64>,
    watermark: Watermark,
    windows: Windows,
    counts: Counts,
}

/// What a shard has taken, since the query's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Row × window pairs merged into windows.
    pub merged: u64,
    /// Row × window pairs that came after their window was closed.
    pub late: u64,
    /// Windows closed.
    pub closed: u64,
    /// Partials skipped because their range had been taken before.
    pub duplicates: u64,
}

/// Rows that came after their window was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateRows {
    /// The window's start, in milliseconds since 1970.
    pub window_start: i64,
    /// The first millisecond behind it.
    pub window_end: i64,
    /// How many source rows.
    pub rows: u64,
}

/// A window that the watermark has passed.
#[derive(Clone, Debug)]
pub struct ClosedWindow {
    /// The window's start, in milliseconds since 1970.
    pub start: i64,
    /// The first millisecond behind it.
    pub end: i64,
    runs: Vec<RecordBatch>,
}

impl ClosedWindow {
    /// Its results.
    pub fn finish(&self, query: &Query) -> Result<RecordBatch, FragmentError> {
        query.finish(&query.merge(&self.runs)?, true)
    }
}

/// What one partials record did.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Its rows that were late, by window, in order of window.
    pub late: Vec<LateRows>,
    /// The windows that it closed, in order of end.
    pub closed: Vec<ClosedWindow>,
    /// Whether its range had been taken before, so that it was skipped.
    pub duplicate: bool,
}

/// Why a partials record can't be applied. None of these heals by itself: the log or the job is not what it was.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// Written by another version of the program.
    #[error("the partials are in format {found}; this program reads format {FORMAT_VERSION}")]
    Format {
        /// The record's format.
        found: u32,
    },
    /// Written by another job.
    #[error(
        "the partials were written by a job with another fingerprint than this one's; run the changed job under a new application id"
    )]
    Fingerprint,
    /// The source topic is not the one that was read before.
    #[error(
        "the source topic was deleted and created again: its id was {was}, and is {is}; run the job under a new application id"
    )]
    TopicId {
        /// The id so far.
        was: String,
        /// The record's.
        is: String,
    },
    /// A range does not begin where the last one ended.
    #[error(
        "source partition {partition}: the range {start} to {end} does not follow on {expected}, where the last one ended: rows would be lost or counted twice"
    )]
    Gap {
        /// The source partition.
        partition: i32,
        /// Where it should begin.
        expected: i64,
        /// Where it begins.
        start: i64,
        /// Where it ends.
        end: i64,
    },
    /// The rows do not have the columns of this query's partials.
    #[error("the partial rows do not have this job's columns")]
    Columns,
    /// Merging failed.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
}

impl Fold {
    /// The state before the first partial of a job with this fingerprint (see [`crate::partial::fingerprint_hash`]).
    pub fn new(query: Arc<Query>, fingerprint: u64) -> Self {
        let Window::Tumbling { size_ms } = query.window;
        let grace_ms = i64::try_from(query.sink.grace.as_millis()).unwrap_or(i64::MAX);
        Self {
            fingerprint,
            query,
            topic_id: None,
            ranges: BTreeMap::new(),
            watermark: Watermark::default(),
            windows: Windows::new(size_ms, grace_ms),
            counts: Counts::default(),
        }
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
            applied.late = self.merge(&rows)?;
        }
        let time = PartitionTime {
            watermark: header.watermark,
            idle: header.idle,
            advance_to: header.advance_to,
            ended: header.ended,
        };
        if let Some(now) = self
            .watermark
            .update(header.partition, header.partitions, time)
        {
            applied.closed = self.windows.close(now);
            self.counts.closed += applied.closed.len() as u64;
        }
        Ok(applied)
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

    /// The windows that are not closed yet, in order of start.
    pub fn open_windows(&self) -> impl Iterator<Item = OpenWindow> + '_ {
        self.windows.open()
    }

    /// How many windows are open.
    pub fn open_count(&self) -> usize {
        self.windows.len()
    }

    /// Checks that a record belongs here and follows on the last one of its partition. False: taken before.
    fn admit(&mut self, header: &Header) -> Result<bool, FoldError> {
        if header.version != FORMAT_VERSION {
            return Err(FoldError::Format {
                found: header.version,
            });
        }
        if header.fingerprint != self.fingerprint {
            return Err(FoldError::Fingerprint);
        }
        match &self.topic_id {
            Some(was) if *was != header.topic_id => {
                return Err(FoldError::TopicId {
                    was: was.clone(),
                    is: header.topic_id.clone(),
                });
            }
            Some(_) => {}
            None => self.topic_id = Some(header.topic_id.clone()),
        }
        let gap = |expected| FoldError::Gap {
            partition: header.partition,
            expected,
            start: header.start,
            end: header.end,
        };
        match self.ranges.get(&header.partition) {
            _ if header.end < header.start => return Err(gap(header.start)),
            Some(&expected) if header.start == expected => {}
            Some(&expected) if header.end <= expected && header.start < expected => {
                return Ok(false);
            }
            Some(&expected) => return Err(gap(expected)),
            None => {}
        }
        self.ranges.insert(header.partition, header.end);
        Ok(true)
    }

    /// Puts rows into their windows; those of closed windows come back as late.
    fn merge(&mut self, rows: &RecordBatch) -> Result<Vec<LateRows>, FoldError> {
        let mut late = Vec::new();
        for (start, part) in windows::by_window(rows).map_err(|_| FoldError::Columns)? {
            let count = source_rows(&part);
            let end = self.windows.end_of(start);
            if self
                .watermark
                .now()
                .is_some_and(|now| self.windows.is_closed(start, now))
            {
                self.counts.late += count;
                late.push(LateRows {
                    window_start: start,
                    window_end: end,
                    rows: count,
                });
            } else {
                self.counts.merged += count;
                self.windows.add(&self.query, start, part)?;
            }
        }
        Ok(late)
    }
}

/// How many source rows are in partial rows.
fn source_rows(partial: &RecordBatch) -> u64 {
    let counts = partial
        .column(partial.num_columns() - 2)
        .as_primitive::<Int64Type>();
    arrow::compute::sum(counts).map_or(0, |sum| u64::try_from(sum).unwrap_or(0))
}

/// The rows with the offset that brought them, after a check that they have the query's columns.
fn touched_at(query: &Query, rows: &RecordBatch, offset: i64) -> Result<RecordBatch, FoldError> {
    let same = rows.num_columns() == query.partial.fields().len()
        && rows
            .schema()
            .fields()
            .iter()
            .zip(query.partial.fields())
            .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
    if !same
        || query
            .partial
            .fields()
            .last()
            .is_none_or(|field| field.name() != TOUCHED)
    {
        return Err(FoldError::Columns);
    }
    let mut columns = rows.columns().to_vec();
    let last = columns.len() - 1;
    columns[last] = Arc::new(Int64Array::from_value(offset, rows.num_rows()));
    RecordBatch::try_new(Arc::clone(&query.partial), columns).map_err(|_| FoldError::Columns)
}
