//! The open groups of windows that do not lie fast in time: sessions, and groups without a window.
//!
//! ```text
//!   key ─▶ intervals, each { start, end, pieces }        pieces: rows of immutable batches, merged when they are eight
//!   ends: (end, key), so that what is over is found without a look at the rest
//! ```
//!
//! The maps share what they have with their copies, so that going back to the last commit costs nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanBufferBuilder, Int64Array};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::image::{Image, ImageError, ImageRun, Numbers};
use super::{ClosedWindow, FoldError, LateRows, OpenWindow, Run, Taken, with_starts};
use crate::plan::Query;
use crate::window::Window;

/// How many pieces of a group are merged into one.
const FAN_IN: usize = 8;
/// How many rows that are no longer part of a group may be held beside as many as are.
const SLACK_ROWS: usize = 4096;

type Key = Arc<[u8]>;

#[derive(Clone, Debug)]
pub(super) struct Keyed {
    window: Window,
    /// Intervals that end here or before are closed.
    closed_to: i64,
    groups: RedBlackTreeMapSync<Key, Arc<Vec<Interval>>>,
    ends: RedBlackTreeSetSync<(i64, Key)>,
    intervals: usize,
    /// Rows of batches that some piece may be in, and pieces.
    held_rows: usize,
    pieces: usize,
    /// The number of the next batch.
    next_run: u64,
    /// Groups that rows came to since changes were last taken.
    dirty: BTreeSet<Key>,
    /// Such groups that are over since.
    dropped: Vec<RecordBatch>,
}

/// A stretch of event time in which a key has rows.
#[derive(Clone, Debug)]
struct Interval {
    start: i64,
    end: i64,
    /// Batches and rows in them, in the order in which they came.
    pieces: Vec<(Arc<Run>, u32)>,
}

impl Keyed {
    pub(super) fn new(window: Window) -> Self {
        Self {
            window,
            closed_to: i64::MIN,
            groups: RedBlackTreeMapSync::new_sync(),
            ends: RedBlackTreeSetSync::new_sync(),
            intervals: 0,
            held_rows: 0,
            pieces: 0,
            next_run: 0,
            dirty: BTreeSet::new(),
            dropped: Vec::new(),
        }
    }

    /// The open sessions, in order of end. Groups without windows are none.
    pub(super) fn open(&self) -> Vec<OpenWindow> {
        if !self.window.is_bounded() {
            return Vec::new();
        }
        let mut open: Vec<OpenWindow> = self
            .groups
            .values()
            .flat_map(|intervals| intervals.iter())
            .map(|interval| OpenWindow {
                start: interval.start,
                end: interval.end,
                partial_rows: interval.pieces.len(),
            })
            .collect();
        open.sort_by_key(|window| (window.end, window.start));
        open
    }

    pub(super) fn open_count(&self) -> usize {
        self.intervals
    }

    /// Takes partial rows in: one interval each, united with the open ones of its key that it overlaps.
    pub(super) fn add(
        &mut self,
        query: &Query,
        rows: &RecordBatch,
        track_changes: bool,
    ) -> Result<Taken, FoldError> {
        let mut taken = Taken::default();
        let keys = query.key_bytes(rows)?;
        let batch = Arc::new(Run::next(&mut self.next_run, rows.clone()));
        let column = |at: usize| rows.column(at).as_primitive::<Int64Type>().values();
        let columns = rows.num_columns();
        let (starts, ends, counts) = (column(0), column(columns - 3), column(columns - 2));
        let mut crowded = BTreeSet::new();
        self.held_rows += rows.num_rows();
        for row in 0..rows.num_rows() {
            let key = keys.as_ref().map(|keys| keys.row(row));
            let key = key.as_ref().map_or(&[][..], |key| key.data());
            let mut new = Interval {
                start: starts[row],
                end: ends[row],
                pieces: vec![(Arc::clone(&batch), row as u32)],
            };
            let (key, before) = match self.groups.get_key_value(key) {
                Some((key, open)) => (Arc::clone(key), open.as_slice()),
                None => (Key::from(key), &[][..]),
            };
            let (met, mut kept): (Vec<Interval>, Vec<Interval>) = before
                .iter()
                .cloned()
                .partition(|open| self.meet(open, &new));
            let count = u64::try_from(counts[row]).unwrap_or_default();
            // Where its first row alone would end.
            let first_end = match self.window {
                Window::Session { gap_ms } => new.start.saturating_add(gap_ms),
                _ => new.end,
            };
            if met.is_empty() && first_end <= self.closed_to {
                let window_start = match self.window {
                    Window::Unbounded { ttl_ms: Some(ttl) } => new.end.saturating_sub(ttl),
                    _ => new.start,
                };
                taken.late.push(LateRows {
                    window_start,
                    window_end: new.end,
                    rows: count,
                });
                continue;
            }
            taken.merged += count;
            // What was there comes first: floats are added in the log's order.
            let mut pieces = Vec::new();
            let several = met.len() > 1;
            for old in met {
                self.ends.remove_mut(&(old.end, Arc::clone(&key)));
                new.start = new.start.min(old.start);
                new.end = new.end.max(old.end);
                pieces.extend(old.pieces);
                self.intervals -= 1;
            }
            if several {
                pieces.sort_by_key(|(run, row)| (run.number, *row));
            }
            pieces.append(&mut new.pieces);
            new.pieces = pieces;
            if new.pieces.len() >= FAN_IN {
                crowded.insert(Arc::clone(&key));
            }
            if new.end < i64::MAX {
                self.ends.insert_mut((new.end, Arc::clone(&key)));
            }
            if track_changes {
                self.dirty.insert(Arc::clone(&key));
            }
            kept.insert(kept.partition_point(|old| old.start < new.start), new);
            self.groups.insert_mut(key, Arc::new(kept));
            self.intervals += 1;
            self.pieces += 1;
        }
        if self.held_rows > 2 * self.pieces + SLACK_ROWS {
            let all = self.groups.keys().cloned().collect();
            self.held_rows = 0;
            self.compact(query, &all)?;
        } else if !crowded.is_empty() {
            self.compact(query, &crowded)?;
        }
        Ok(taken)
    }

    /// Merges the pieces of each interval of these keys into one.
    fn compact(&mut self, query: &Query, keys: &BTreeSet<Key>) -> Result<(), FoldError> {
        let groups: Vec<(Key, Arc<Vec<Interval>>)> = keys
            .iter()
            .filter_map(|key| Some((Arc::clone(key), Arc::clone(self.groups.get(key)?))))
            .collect();
        let intervals: Vec<&Interval> = groups
            .iter()
            .flat_map(|(_, intervals)| intervals.iter())
            .collect();
        let Some(gathered) = gather(&intervals)? else {
            return Ok(());
        };
        let merged = query.merge(&[gathered])?;
        if merged.num_rows() != intervals.len() {
            return Err(FoldError::Columns);
        }
        let mut row = 0;
        self.held_rows += merged.num_rows();
        let merged = Arc::new(Run::next(&mut self.next_run, merged));
        for (key, mut intervals) in groups {
            for interval in Arc::make_mut(&mut intervals) {
                self.pieces -= interval.pieces.len() - 1;
                interval.pieces = vec![(Arc::clone(&merged), row)];
                row += 1;
            }
            self.groups.insert_mut(key, intervals);
        }
        Ok(())
    }

    /// Takes out the intervals that end at `closes` or before: sessions to be finished; groups without a window are
    /// forgotten.
    pub(super) fn close(&mut self, closes: i64) -> Result<Vec<ClosedWindow>, FoldError> {
        if closes <= self.closed_to {
            return Ok(Vec::new());
        }
        self.closed_to = closes;
        let mut over: Vec<Interval> = Vec::new();
        let mut unsaid: Vec<Interval> = Vec::new();
        while let Some((end, key)) = self.ends.first().filter(|(end, _)| *end <= closes).cloned() {
            self.ends.remove_mut(&(end, Arc::clone(&key)));
            let Some(intervals) = self.groups.get(&key) else {
                continue;
            };
            let (ended, kept): (Vec<Interval>, Vec<Interval>) = intervals
                .iter()
                .cloned()
                .partition(|interval| interval.end == end);
            if kept.is_empty() {
                self.groups.remove_mut(&key);
            } else {
                self.groups.insert_mut(Arc::clone(&key), Arc::new(kept));
            }
            for interval in ended {
                self.intervals -= 1;
                self.pieces -= interval.pieces.len();
                if self.window.is_bounded() {
                    over.push(interval);
                } else if self.dirty.remove(&key) {
                    unsaid.push(interval);
                }
            }
        }
        self.dropped
            .extend(gather(&unsaid.iter().collect::<Vec<_>>())?);
        let intervals: Vec<&Interval> = over.iter().collect();
        let Some(run) = gather(&intervals)? else {
            return Ok(Vec::new());
        };
        Ok(vec![ClosedWindow {
            start: over
                .iter()
                .map(|interval| interval.start)
                .min()
                .unwrap_or(0),
            end: over.iter().map(|interval| interval.end).max().unwrap_or(0),
            windows: over.len() as u64,
            runs: vec![run],
        }])
    }

    /// How many partial rows are held.
    pub(super) fn rows(&self) -> usize {
        self.held_rows
    }

    /// Puts the batches into an image, and which of their rows are part of a group.
    pub(super) fn draw(&self, image: &mut Image) {
        image.head.closed_to = self.closed_to;
        image.head.next_run = self.next_run;
        image.head.held_rows = self.held_rows as u64;
        let mut live: BTreeMap<u64, (&RecordBatch, BooleanBufferBuilder)> = BTreeMap::new();
        let intervals = self.groups.values().flat_map(|group| group.iter());
        for (run, row) in intervals.flat_map(|interval| &interval.pieces) {
            let (_, live) = live.entry(run.number).or_insert_with(|| {
                let mut none = BooleanBufferBuilder::new(run.rows.num_rows());
                none.append_n(run.rows.num_rows(), false);
                (&run.rows, none)
            });
            live.set_bit(*row as usize, true);
        }
        for (number, (rows, mut live)) in live {
            let live = live.finish();
            image.runs.push(ImageRun {
                number,
                place: 0,
                live: (live.count_set_bits() < live.len()).then_some(live),
                rows: rows.clone(),
            });
        }
    }

    /// The groups of an image.
    pub(super) fn restore(window: Window, query: &Query, image: Image) -> Result<Self, ImageError> {
        let mut keyed = Self::new(window);
        keyed.closed_to = image.head.closed_to;
        keyed.next_run = image.head.next_run;
        keyed.held_rows = usize::try_from(image.head.held_rows).unwrap_or(usize::MAX);
        let mut numbers = Numbers::new(&image.head);
        let mut by_key: HashMap<Key, Vec<Interval>> = HashMap::new();
        for run in image.runs {
            let wrong = || ImageError::Run { number: run.number };
            numbers.take(run.number)?;
            let rows = super::image::columns_of(query, &run.rows)?;
            let total = rows.num_rows();
            if run.live.as_ref().is_some_and(|live| live.len() != total) {
                return Err(wrong());
            }
            let keys = query.key_bytes(&rows)?;
            let column = |at: usize| rows.column(at).as_primitive::<Int64Type>().values().clone();
            let (starts, ends) = (column(0), column(rows.num_columns() - 3));
            let batch = Arc::new(Run {
                number: run.number,
                rows,
            });
            for row in 0..total {
                if run.live.as_ref().is_some_and(|live| !live.value(row)) {
                    continue;
                }
                let key = keys.as_ref().map(|keys| keys.row(row));
                let key = key.as_ref().map_or(&[][..], |key| key.data());
                let piece = Interval {
                    start: starts[row],
                    end: ends[row],
                    pieces: vec![(Arc::clone(&batch), row as u32)],
                };
                match by_key.get_mut(key) {
                    Some(pieces) => pieces.push(piece),
                    None => {
                        by_key.insert(Key::from(key), vec![piece]);
                    }
                }
            }
        }
        for (key, pieces) in by_key {
            let intervals = keyed.unite(pieces);
            for interval in &intervals {
                keyed.intervals += 1;
                keyed.pieces += interval.pieces.len();
                if interval.end < i64::MAX {
                    keyed.ends.insert_mut((interval.end, Arc::clone(&key)));
                }
            }
            keyed.groups.insert_mut(key, Arc::new(intervals));
        }
        Ok(keyed)
    }

    /// The intervals of a key that these pieces make up: those that meet are one.
    fn unite(&self, mut pieces: Vec<Interval>) -> Vec<Interval> {
        pieces.sort_by_key(|piece| (piece.start, piece.end));
        let mut intervals: Vec<Interval> = Vec::with_capacity(1);
        for piece in pieces {
            match intervals.last_mut() {
                Some(last) if self.meet(last, &piece) => {
                    last.start = last.start.min(piece.start);
                    last.end = last.end.max(piece.end);
                    last.pieces.extend(piece.pieces);
                }
                _ => intervals.push(piece),
            }
        }
        for interval in &mut intervals {
            interval.pieces.sort_by_key(|(run, row)| (run.number, *row));
        }
        intervals
    }

    fn meet(&self, one: &Interval, other: &Interval) -> bool {
        match self.window {
            Window::Unbounded { .. } => true,
            _ => one.start < other.end && other.start < one.end,
        }
    }

    pub(super) fn forget_changes(&mut self) {
        self.dirty.clear();
        self.dropped.clear();
    }

    /// The rows of groups that have changed.
    pub(super) fn changes(&mut self) -> Result<Vec<RecordBatch>, FoldError> {
        let mut changes = std::mem::take(&mut self.dropped);
        let groups: Vec<Arc<Vec<Interval>>> = std::mem::take(&mut self.dirty)
            .iter()
            .filter_map(|key| self.groups.get(key).cloned())
            .collect();
        let intervals: Vec<&Interval> = groups.iter().flat_map(|group| group.iter()).collect();
        changes.extend(gather(&intervals)?);
        Ok(changes)
    }
}

/// The pieces of some intervals as one batch, each under its interval's start.
fn gather(intervals: &[&Interval]) -> Result<Option<RecordBatch>, FoldError> {
    if intervals.is_empty() {
        return Ok(None);
    }
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut batches: Vec<&RecordBatch> = Vec::new();
    let mut rows = Vec::new();
    let mut starts = Vec::new();
    for interval in intervals {
        for (run, row) in &interval.pieces {
            let place = *places.entry(run.number).or_insert_with(|| {
                batches.push(&run.rows);
                batches.len() - 1
            });
            rows.push((place, *row as usize));
            starts.push(interval.start);
        }
    }
    let gathered = interleave_record_batch(&batches, &rows).map_err(|_| FoldError::Columns)?;
    with_starts(&gathered, Int64Array::from(starts)).map(Some)
}
