//! The open windows that lie fast in time, as the panes that they are made of; each pane a few immutable batches.
//!
//! A row is in one pane, whatever the number of windows over it. A batch that comes in is put behind the others of its
//! pane. When eight of about one size stand at the end, they are merged into one, as a log-structured tree does: each
//! row is merged a few times in all, not once per batch. When that happens depends on the batches alone, so that a
//! replay merges the same rows in the same order, to the last bit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::image::{Image, ImageError, ImageRun, Numbers};
use super::{ClosedWindow, FoldError, LateRows, OpenWindow, Run, Taken, source_rows, with_start};
use crate::plan::{FragmentError, Query};
use crate::window::Window;

/// How many batches of one size are merged into one.
const FAN_IN: usize = 8;

#[derive(Clone, Debug)]
pub(super) struct Panes {
    window: Window,
    size_ms: i64,
    /// Windows that end here or before are closed.
    closed_to: i64,
    by_start: BTreeMap<i64, Arc<Vec<Run>>>,
    /// The number of the next batch.
    next_run: u64,
    /// Panes that rows came to since changes were last taken.
    dirty: BTreeSet<i64>,
}

impl Panes {
    pub(super) fn new(window: Window, size_ms: i64) -> Self {
        Self {
            window,
            size_ms,
            closed_to: i64::MIN,
            by_start: BTreeMap::new(),
            next_run: 0,
            dirty: BTreeSet::new(),
        }
    }

    /// The open windows over the panes that hold rows.
    fn starts(&self) -> BTreeSet<i64> {
        self.by_start
            .keys()
            .flat_map(|pane| self.window.starts_over(*pane))
            .filter(|start| self.end_of(*start) > self.closed_to)
            .collect()
    }

    pub(super) fn open(&self) -> Vec<OpenWindow> {
        let window = |start: i64| OpenWindow {
            start,
            end: self.end_of(start),
            partial_rows: self.runs(start).map(RecordBatch::num_rows).sum(),
        };
        self.starts().into_iter().map(window).collect()
    }

    pub(super) fn open_count(&self) -> usize {
        match self.window {
            Window::Tumbling { .. } => self.by_start.len(),
            _ => self.starts().len(),
        }
    }

    fn end_of(&self, start: i64) -> i64 {
        start.saturating_add(self.size_ms)
    }

    fn runs(&self, start: i64) -> impl Iterator<Item = &RecordBatch> {
        self.by_start
            .range(start..self.end_of(start))
            .flat_map(|(_, runs)| runs.iter().map(|run| &run.rows))
    }

    /// The batches of a window, under its own start.
    fn window_runs(&self, start: i64) -> Result<Vec<RecordBatch>, FoldError> {
        self.runs(start)
            .map(|run| match self.window {
                Window::Tumbling { .. } => Ok(run.clone()),
                _ => with_start(run, start),
            })
            .collect()
    }

    /// Takes partial rows in.
    pub(super) fn add(
        &mut self,
        query: &Query,
        rows: &RecordBatch,
        track_changes: bool,
    ) -> Result<Taken, FoldError> {
        let mut taken = Taken::default();
        for (pane, part) in by_pane(rows).map_err(|_| FoldError::Columns)? {
            let count = source_rows(&part);
            let mut open = 0;
            for start in self.window.starts_over(pane) {
                let end = self.end_of(start);
                if end > self.closed_to {
                    open += 1;
                    continue;
                }
                taken.late.push(LateRows {
                    window_start: start,
                    window_end: end,
                    rows: count,
                });
            }
            if open > 0 {
                taken.merged += open * count;
                self.push(query, pane, part)?;
                if track_changes {
                    self.dirty.insert(pane);
                }
            }
        }
        taken.late.sort_by_key(|late| late.window_start);
        Ok(taken)
    }

    fn push(&mut self, query: &Query, pane: i64, rows: RecordBatch) -> Result<(), FragmentError> {
        let runs = Arc::make_mut(self.by_start.entry(pane).or_default());
        runs.push(Run::next(&mut self.next_run, rows));
        while let Some(from) = crowded(runs) {
            let crowd: Vec<RecordBatch> = runs[from..].iter().map(|run| run.rows.clone()).collect();
            let merged = query.merge(&crowd)?;
            runs.truncate(from);
            runs.push(Run::next(&mut self.next_run, merged));
        }
        Ok(())
    }

    /// How many partial rows are held.
    pub(super) fn rows(&self) -> usize {
        let runs = self.by_start.values().flat_map(|runs| runs.iter());
        runs.map(|run| run.rows.num_rows()).sum()
    }

    /// Puts the batches into an image.
    pub(super) fn draw(&self, image: &mut Image) {
        image.head.closed_to = self.closed_to;
        image.head.next_run = self.next_run;
        for (&place, runs) in &self.by_start {
            image.runs.extend(runs.iter().map(|run| ImageRun {
                number: run.number,
                place,
                live: None,
                rows: run.rows.clone(),
            }));
        }
    }

    /// The panes of an image.
    pub(super) fn restore(
        window: Window,
        size_ms: i64,
        query: &Query,
        image: Image,
    ) -> Result<Self, ImageError> {
        let mut panes = Self::new(window, size_ms);
        panes.closed_to = image.head.closed_to;
        panes.next_run = image.head.next_run;
        let mut numbers = Numbers::new(&image.head);
        for run in image.runs {
            numbers.take(run.number)?;
            let rows = super::image::columns_of(query, &run.rows)?;
            let starts = rows.column(0).as_primitive::<Int64Type>();
            let astray = starts.values().iter().any(|start| *start != run.place);
            if astray || run.live.is_some() || rows.num_rows() == 0 {
                return Err(ImageError::Run { number: run.number });
            }
            let runs = Arc::make_mut(panes.by_start.entry(run.place).or_default());
            // The batches of a pane stand in the order in which they were made.
            if runs.last().is_some_and(|last| last.number > run.number) {
                return Err(ImageError::Run { number: run.number });
            }
            runs.push(Run {
                number: run.number,
                rows,
            });
        }
        Ok(panes)
    }

    /// Takes out the windows that end at `closes` or before, in order of end.
    pub(super) fn close(&mut self, closes: i64) -> Result<Vec<ClosedWindow>, FoldError> {
        if closes <= self.closed_to {
            return Ok(Vec::new());
        }
        let mut ending = BTreeSet::new();
        for &pane in self.by_start.keys() {
            let mut any = false;
            for start in self.window.starts_over(pane) {
                let end = self.end_of(start);
                if end > closes {
                    break;
                }
                any = true;
                if end > self.closed_to {
                    ending.insert(start);
                }
            }
            // The windows over the panes behind this one end no earlier.
            if !any {
                break;
            }
        }
        let closed = ending
            .into_iter()
            .map(|start| {
                Ok(ClosedWindow {
                    start,
                    end: self.end_of(start),
                    windows: 1,
                    runs: self.window_runs(start)?,
                })
            })
            .collect::<Result<Vec<_>, FoldError>>()?;
        self.closed_to = closes;
        while let Some(entry) = self.by_start.first_entry() {
            let last = self.window.starts_over(*entry.key()).last();
            if last.is_some_and(|start| start.saturating_add(self.size_ms) > closes) {
                break;
            }
            self.dirty.remove(entry.key());
            entry.remove();
        }
        Ok(closed)
    }

    pub(super) fn forget_changes(&mut self) {
        self.dirty.clear();
    }

    /// The rows of open windows that an offset from `since` on has touched, under their windows' starts.
    pub(super) fn changes(
        &mut self,
        query: &Query,
        since: i64,
    ) -> Result<Vec<RecordBatch>, FoldError> {
        let windows: BTreeSet<i64> = std::mem::take(&mut self.dirty)
            .into_iter()
            .flat_map(|pane| self.window.starts_over(pane))
            .filter(|start| self.end_of(*start) > self.closed_to)
            .collect();
        windows
            .into_iter()
            .map(|start| {
                let merged = query.merge(&self.window_runs(start)?)?;
                super::touched_since(&merged, since)
            })
            .collect()
    }
}

/// Where the run of batches at the end begins that are to be merged, if there is one. Sizes are compared by powers of
/// four: a batch that is larger than those behind it waits for others of its own size.
fn crowded(runs: &[Run]) -> Option<usize> {
    let tier = |run: &Run| (run.rows.num_rows() | 1).ilog2() / 2;
    let last = tier(runs.last()?);
    let from = runs
        .iter()
        .rposition(|run| tier(run) > last)
        .map_or(0, |larger| larger + 1);
    (runs.len() - from >= FAN_IN).then_some(from)
}

/// Partial rows by the start of their pane, in order of start; rows keep their order.
fn by_pane(rows: &RecordBatch) -> Result<Vec<(i64, RecordBatch)>, ArrowError> {
    let starts = rows.column(0).as_primitive::<Int64Type>();
    let mut by_start: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
    for (row, start) in starts.values().iter().enumerate() {
        // A batch has fewer rows than u32 can count: Arrow's own kernels index rows with it.
        by_start.entry(*start).or_default().push(row as u32);
    }
    if let (1, Some((&start, _))) = (by_start.len(), by_start.first_key_value()) {
        return Ok(vec![(start, rows.clone())]);
    }
    by_start
        .into_iter()
        .map(|(start, indices)| Ok((start, take_record_batch(rows, &UInt32Array::from(indices))?)))
        .collect()
}
