//! The open groups by key: sessions, groups without a window, and those of any window where changes are asked for, so that
//! what has changed is found without a look at the rest.
//!
//! ```text
//!   key ─▶ intervals, each { start, end, pieces }        pieces: rows of immutable batches, merged when they are eight
//!   times: (time, key), so that what is over is found without a look at the rest
//! ```
//!
//! An interval is a session, a pane of windows that lie fast in time, or all that a group without windows has.
//! The maps share what they have with their copies, so that going back to the last commit costs nothing.

mod fixed;
mod gather;
mod image;
mod open;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use super::closed::ClosedWindow;
use super::{FoldError, LateRows, Run, Taken};
use crate::plan::Query;
use crate::window::Window;
use gather::{Under, gather};

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
    /// Where windows lie fast in time: the start of each interval. Else the end, unless it has none.
    times: RedBlackTreeSetSync<(i64, Key)>,
    intervals: usize,
    /// Where windows lie fast in time: how many intervals each pane has.
    panes: BTreeMap<i64, usize>,
    /// Rows of batches that some piece may be in, and pieces.
    held_rows: usize,
    pieces: usize,
    /// The number of the next batch.
    next_run: u64,
    /// Groups that rows came to since changes were last taken, and where their intervals start, if windows lie fast in
    /// time.
    dirty: BTreeSet<(Key, i64)>,
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
            times: RedBlackTreeSetSync::new_sync(),
            intervals: 0,
            panes: BTreeMap::new(),
            held_rows: 0,
            pieces: 0,
            next_run: 0,
            dirty: BTreeSet::new(),
            dropped: Vec::new(),
        }
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
        let (starts, ends) = self.times_of(rows);
        let counts = rows
            .column(rows.num_columns() - 2)
            .as_primitive::<Int64Type>()
            .values();
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
            let open = self.admit(&new, !met.is_empty(), count, &mut taken.late);
            if open == 0 {
                continue;
            }
            taken.merged += open * count;
            // What was there comes first: floats are added in the log's order.
            let mut pieces = Vec::new();
            let several = met.len() > 1;
            for old in met {
                self.forget_time(&old, &key);
                new.start = new.start.min(old.start);
                new.end = new.end.max(old.end);
                pieces.extend(old.pieces);
            }
            if several {
                pieces.sort_by_key(|(run, row)| (run.number, *row));
            }
            pieces.append(&mut new.pieces);
            new.pieces = pieces;
            if new.pieces.len() >= FAN_IN {
                crowded.insert(Arc::clone(&key));
            }
            self.note_time(&new, &key);
            if track_changes {
                let at = self.window.size_ms().map_or(0, |_| new.start);
                self.dirty.insert((Arc::clone(&key), at));
            }
            kept.insert(kept.partition_point(|old| old.start < new.start), new);
            self.groups.insert_mut(key, Arc::new(kept));
            self.pieces += 1;
        }
        taken.late.sort_by_key(|late| late.window_start);
        if self.held_rows > 2 * self.pieces + SLACK_ROWS {
            let all = self.groups.keys().cloned().collect();
            self.held_rows = 0;
            self.compact(query, &all)?;
        } else if !crowded.is_empty() {
            self.compact(query, &crowded)?;
        }
        Ok(taken)
    }

    /// Where the intervals of partial rows start and end.
    fn times_of(&self, rows: &RecordBatch) -> (Vec<i64>, Vec<i64>) {
        let column = |at: usize| {
            rows.column(at)
                .as_primitive::<Int64Type>()
                .values()
                .to_vec()
        };
        let starts = column(0);
        let ends = match self.window.pane_ms() {
            Some(pane_ms) => starts
                .iter()
                .map(|start| start.saturating_add(pane_ms))
                .collect(),
            None => column(rows.num_columns() - 3),
        };
        (starts, ends)
    }

    /// In how many windows that are open a partial row is; reports it as late in the others. `meets`: it is part of an
    /// interval that is there.
    fn admit(&self, new: &Interval, meets: bool, rows: u64, late: &mut Vec<LateRows>) -> u64 {
        let mut report = |window_start, window_end| {
            late.push(LateRows {
                window_start,
                window_end,
                rows,
            });
        };
        if let Some(size_ms) = self.window.size_ms() {
            let mut open = 0;
            for start in self.window.starts_over(new.start) {
                match self.is_open(start) {
                    true => open += 1,
                    false => report(start, start.saturating_add(size_ms)),
                }
            }
            return open;
        }
        // Where its first row alone would end.
        let (first_end, window_start) = match self.window {
            Window::Session { gap_ms } => (new.start.saturating_add(gap_ms), new.start),
            Window::Unbounded { ttl_ms: Some(ttl) } => (new.end, new.end.saturating_sub(ttl)),
            _ => (new.end, new.start),
        };
        if !meets && first_end <= self.closed_to {
            report(window_start, new.end);
            return 0;
        }
        1
    }

    fn time_of(&self, interval: &Interval) -> Option<i64> {
        match self.window.size_ms() {
            Some(_) => Some(interval.start),
            None => Some(interval.end).filter(|end| *end < i64::MAX),
        }
    }

    fn note_time(&mut self, interval: &Interval, key: &Key) {
        self.intervals += 1;
        if let Some(time) = self.time_of(interval) {
            self.times.insert_mut((time, Arc::clone(key)));
        }
        if self.window.size_ms().is_some() {
            *self.panes.entry(interval.start).or_default() += 1;
        }
    }

    fn forget_time(&mut self, interval: &Interval, key: &Key) {
        self.intervals -= 1;
        if let Some(time) = self.time_of(interval) {
            self.times.remove_mut(&(time, Arc::clone(key)));
        }
        if self.window.size_ms().is_some()
            && let Some(intervals) = self.panes.get_mut(&interval.start)
        {
            *intervals -= 1;
            if *intervals == 0 {
                self.panes.remove(&interval.start);
            }
        }
    }

    /// Merges the pieces of each interval of these keys into one.
    fn compact(&mut self, query: &Query, keys: &BTreeSet<Key>) -> Result<(), FoldError> {
        let groups: Vec<(Key, Arc<Vec<Interval>>)> = keys
            .iter()
            .filter_map(|key| Some((Arc::clone(key), Arc::clone(self.groups.get(key)?))))
            .collect();
        let intervals: Vec<Under<'_>> = groups
            .iter()
            .flat_map(|(_, intervals)| intervals.iter().map(Interval::own))
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

    /// Takes out what is over at `closes`: windows to be finished; groups without a window are forgotten.
    pub(super) fn close(
        &mut self,
        closes: i64,
        block_rows: usize,
    ) -> Result<Vec<ClosedWindow>, FoldError> {
        if closes <= self.closed_to {
            return Ok(Vec::new());
        }
        if let Some(size_ms) = self.window.size_ms() {
            return self.close_panes(closes, size_ms, block_rows);
        }
        self.close_intervals(closes, block_rows)
    }

    /// Takes some intervals of a key out of the state.
    fn take_out(&mut self, key: &Key, is_over: impl Fn(&Interval) -> bool) -> Vec<Interval> {
        let Some(intervals) = self.groups.get(key) else {
            return Vec::new();
        };
        let (over, kept): (Vec<Interval>, Vec<Interval>) =
            intervals.iter().cloned().partition(is_over);
        if kept.is_empty() {
            self.groups.remove_mut(key);
        } else {
            self.groups.insert_mut(Arc::clone(key), Arc::new(kept));
        }
        for interval in &over {
            self.pieces -= interval.pieces.len();
            self.forget_time(interval, key);
        }
        over
    }

    /// How many partial rows are held.
    pub(super) fn rows(&self) -> usize {
        self.held_rows
    }

    /// Takes all that is there for changed.
    pub(super) fn all_changed(&mut self) {
        let panes = self.window.size_ms().is_some();
        for (key, intervals) in self.groups.iter() {
            for interval in intervals.iter() {
                let at = if panes { interval.start } else { 0 };
                self.dirty.insert((Arc::clone(key), at));
            }
        }
    }

    pub(super) fn forget_changes(&mut self) {
        self.dirty.clear();
        self.dropped.clear();
    }

    /// The rows of groups that have changed, in each open window that they are in and that ends behind `given_to`.
    pub(super) fn changes(&mut self, given_to: i64) -> Result<Vec<RecordBatch>, FoldError> {
        let mut changes = std::mem::take(&mut self.dropped);
        let dirty = std::mem::take(&mut self.dirty);
        let intervals: Vec<Under<'_>> = match self.window.size_ms() {
            None => {
                let groups = dirty.iter().filter_map(|(key, _)| self.groups.get(key));
                groups
                    .flat_map(|group| group.iter().map(Interval::own))
                    .collect()
            }
            Some(size_ms) => {
                let ends_behind = |start: i64| start.saturating_add(size_ms) > given_to;
                let windows: BTreeSet<(&Key, i64)> = dirty
                    .iter()
                    .flat_map(|(key, pane)| {
                        self.window
                            .starts_over(*pane)
                            .map(move |start| (key, start))
                    })
                    .filter(|(_, start)| self.is_open(*start) && ends_behind(*start))
                    .collect();
                let of_window = |(key, start)| self.of_window(key, start);
                windows.into_iter().flat_map(of_window).collect()
            }
        };
        changes.extend(gather(&intervals)?);
        Ok(changes)
    }
}
