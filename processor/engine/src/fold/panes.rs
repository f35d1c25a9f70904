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

use super::blocks::{Block, Blocks, Keeping};
use super::closed::{ClosedWindow, Source};
use super::image::{Image, ImageError, ImageRun, Numbers};
use super::{FoldError, LateRows, OpenWindow, Taken, source_rows};
use crate::plan::Query;
use crate::window::Window;

/// How many batches of one size are merged into one.
const FAN_IN: usize = 8;
/// Partial rows up to this number share their memory with those of other panes that came with them: it is needed until the
/// last of them is gone, and a copy of each pane's rows would cost much more than these few rows take.
const MOST_SHARED: usize = 256;

#[derive(Clone, Debug)]
pub(super) struct Panes {
    window: Window,
    size_ms: i64,
    /// Windows that end here or before are closed.
    closed_to: i64,
    by_start: BTreeMap<i64, Arc<Vec<Blocks>>>,
    /// The number of the next batch.
    next_run: u64,
}

impl Panes {
    pub(super) fn new(window: Window, size_ms: i64) -> Self {
        Self {
            window,
            size_ms,
            closed_to: i64::MIN,
            by_start: BTreeMap::new(),
            next_run: 0,
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
            partial_rows: self.runs(start).map(|run| run.rows).sum(),
        };
        self.starts().into_iter().map(window).collect()
    }

    pub(super) fn open_count(&self) -> usize {
        match self.window {
            Window::Tumbling { .. } => self.by_start.len(),
            _ => self.starts().len(),
        }
    }

    /// The open windows as they are now, in order of their ends.
    pub(super) fn as_closed(&self) -> impl Iterator<Item = ClosedWindow> + '_ {
        self.starts().into_iter().map(|start| self.whole(start))
    }

    /// A window as it is now.
    fn whole(&self, start: i64) -> ClosedWindow {
        ClosedWindow {
            start,
            end: self.end_of(start),
            windows: 1,
            source: Source::Runs {
                runs: self.runs(start).cloned().collect(),
                under: match self.window {
                    Window::Tumbling { .. } => None,
                    _ => Some(start),
                },
            },
        }
    }

    fn end_of(&self, start: i64) -> i64 {
        start.saturating_add(self.size_ms)
    }

    fn runs(&self, start: i64) -> impl Iterator<Item = &Blocks> {
        self.by_start
            .range(start..self.end_of(start))
            .flat_map(|(_, runs)| runs.iter())
    }

    /// Takes partial rows in.
    pub(super) fn add(
        &mut self,
        query: &Query,
        rows: &RecordBatch,
        keeping: &Keeping,
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
                self.push(query, pane, part, keeping)?;
            }
        }
        taken.late.sort_by_key(|late| late.window_start);
        Ok(taken)
    }

    fn push(
        &mut self,
        query: &Query,
        pane: i64,
        rows: RecordBatch,
        keeping: &Keeping,
    ) -> Result<(), FoldError> {
        let runs = Arc::make_mut(self.by_start.entry(pane).or_default());
        runs.push(Blocks::one(&mut self.next_run, rows, keeping)?);
        while let Some(from) = crowded(runs) {
            let merged = Blocks::merge(query, &runs[from..], &mut self.next_run, keeping)?;
            runs.truncate(from);
            runs.push(merged);
        }
        Ok(())
    }

    /// How many partial rows are held.
    pub(super) fn rows(&self) -> usize {
        let runs = self.by_start.values().flat_map(|runs| runs.iter());
        runs.map(|run| run.rows).sum()
    }

    /// Puts the batches into an image.
    pub(super) fn draw(&self, image: &mut Image) {
        image.head.closed_to = self.closed_to;
        image.head.next_run = self.next_run;
        for (&place, runs) in &self.by_start {
            for run in runs.iter() {
                let parts = run.blocks.len() as u32;
                image
                    .runs
                    .extend(run.blocks.iter().zip(0..).map(|(block, part)| ImageRun {
                        place,
                        part,
                        parts,
                        live: None,
                        block: block.clone(),
                    }));
            }
        }
    }

    /// The panes of an image.
    pub(super) fn restore(window: Window, size_ms: i64, image: Image) -> Result<Self, ImageError> {
        let mut panes = Self::new(window, size_ms);
        panes.closed_to = image.head.closed_to;
        panes.next_run = image.head.next_run;
        let mut numbers = Numbers::new(&image.head);
        let mut blocks: Vec<Block> = Vec::new();
        for run in image.runs {
            let number = run.block.number;
            let wrong = || ImageError::Run { number };
            numbers.take(number)?;
            let part = usize::try_from(run.part).unwrap_or(usize::MAX);
            let follows =
                part == blocks.len() && blocks.last().is_none_or(|last| last.number < number);
            let whole = run.parts.is_power_of_two() && run.part < run.parts;
            let empty = run.block.rows == 0 && run.parts == 1;
            if empty || !whole || !follows || run.live.is_some() {
                return Err(wrong());
            }
            blocks.push(run.block);
            if run.part + 1 < run.parts {
                continue;
            }
            let run_of_blocks = Blocks::of(std::mem::take(&mut blocks));
            let runs = Arc::make_mut(panes.by_start.entry(run.place).or_default());
            // The runs of a pane stand in the order in which they were made.
            if runs
                .last()
                .is_some_and(|last| last.number() > run_of_blocks.number())
            {
                return Err(wrong());
            }
            runs.push(run_of_blocks);
        }
        match blocks.first() {
            Some(block) => Err(ImageError::Run {
                number: block.number,
            }),
            None => Ok(panes),
        }
    }

    /// Takes out the windows that end at `closes` or before, in order of end.
    pub(super) fn close(&mut self, closes: i64) -> Vec<ClosedWindow> {
        if closes <= self.closed_to {
            return Vec::new();
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
        let closed = ending.into_iter().map(|start| self.whole(start)).collect();
        self.closed_to = closes;
        while let Some(entry) = self.by_start.first_entry() {
            let last = self.window.starts_over(*entry.key()).last();
            if last.is_some_and(|start| start.saturating_add(self.size_ms) > closes) {
                break;
            }
            entry.remove();
        }
        closed
    }
}

/// Where the run of batches at the end begins that are to be merged, if there is one. Sizes are compared by powers of
/// four: a batch that is larger than those behind it waits for others of its own size.
fn crowded(runs: &[Blocks]) -> Option<usize> {
    let tier = |run: &Blocks| (run.rows | 1).ilog2() / 2;
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
    if rows.num_rows() > MOST_SHARED {
        return by_start
            .into_iter()
            .map(|(start, indices)| {
                Ok((start, take_record_batch(rows, &UInt32Array::from(indices))?))
            })
            .collect();
    }
    let sorted = match starts.values().is_sorted() {
        true => rows.clone(),
        false => {
            let order: Vec<u32> = by_start.values().flatten().copied().collect();
            take_record_batch(rows, &UInt32Array::from(order))?
        }
    };
    let mut at = 0;
    let mut parts = Vec::with_capacity(by_start.len());
    for (start, indices) in by_start {
        parts.push((start, sorted.slice(at, indices.len())));
        at += indices.len();
    }
    Ok(parts)
}
