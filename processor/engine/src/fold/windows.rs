//! The open windows of a shard, each a few immutable batches.
//!
//! A batch that comes in is put behind the others. When eight of about one size stand at the end, they are merged into
//! one, as a log-structured tree does: each row is merged a few times in all, not once per batch. When that happens
//! depends on the batches alone, so that a replay merges the same rows in the same order, to the last bit.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{AsArray, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use super::ClosedWindow;
use crate::plan::{FragmentError, Query};

/// How many batches of one size are merged into one.
const FAN_IN: usize = 8;

/// A window that is not closed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenWindow {
    /// Its start, in milliseconds since 1970.
    pub start: i64,
    /// The first millisecond behind it.
    pub end: i64,
    /// How many partial rows it holds, an upper bound for its groups.
    pub partial_rows: usize,
}

#[derive(Clone, Debug)]
pub(super) struct Windows {
    size_ms: i64,
    grace_ms: i64,
    by_start: BTreeMap<i64, Arc<Vec<RecordBatch>>>,
}

impl Windows {
    pub(super) fn new(size_ms: i64, grace_ms: i64) -> Self {
        Self {
            size_ms,
            grace_ms,
            by_start: BTreeMap::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_start.len()
    }

    pub(super) fn end_of(&self, start: i64) -> i64 {
        start.saturating_add(self.size_ms)
    }

    /// Whether a window is closed when the watermark stands at `now`.
    pub(super) fn is_closed(&self, start: i64, now: i64) -> bool {
        self.end_of(start).saturating_add(self.grace_ms) <= now
    }

    pub(super) fn open(&self) -> impl Iterator<Item = OpenWindow> + '_ {
        self.by_start.iter().map(|(&start, runs)| OpenWindow {
            start,
            end: self.end_of(start),
            partial_rows: runs.iter().map(RecordBatch::num_rows).sum(),
        })
    }

    pub(super) fn add(
        &mut self,
        query: &Query,
        start: i64,
        rows: RecordBatch,
    ) -> Result<(), FragmentError> {
        let runs = Arc::make_mut(self.by_start.entry(start).or_default());
        runs.push(rows);
        while let Some(from) = crowded(runs) {
            let merged = query.merge(&runs[from..])?;
            runs.truncate(from);
            runs.push(merged);
        }
        Ok(())
    }

    /// Takes out the windows that are closed when the watermark stands at `now`, in order of end.
    pub(super) fn close(&mut self, now: i64) -> Vec<ClosedWindow> {
        let mut closed = Vec::new();
        while let Some(entry) = self.by_start.first_entry() {
            let start = *entry.key();
            let end = start.saturating_add(self.size_ms);
            if end.saturating_add(self.grace_ms) > now {
                break;
            }
            let runs = Arc::unwrap_or_clone(entry.remove());
            closed.push(ClosedWindow { start, end, runs });
        }
        closed
    }
}

/// Where the run of batches at the end begins that are to be merged, if there is one. Sizes are compared by powers of
/// four: a batch that is larger than those behind it waits for others of its own size.
fn crowded(runs: &[RecordBatch]) -> Option<usize> {
    let tier = |rows: usize| (rows | 1).ilog2() / 2;
    let last = tier(runs.last()?.num_rows());
    let from = runs
        .iter()
        .rposition(|run| tier(run.num_rows()) > last)
        .map_or(0, |larger| larger + 1);
    (runs.len() - from >= FAN_IN).then_some(from)
}

/// Partial rows by the start of their window, in order of start; rows keep their order.
pub(super) fn by_window(rows: &RecordBatch) -> Result<Vec<(i64, RecordBatch)>, ArrowError> {
    let starts = rows
        .column(0)
        .as_primitive_opt::<Int64Type>()
        .ok_or_else(|| {
            ArrowError::SchemaError(
                "the first column of partial rows is not the window's start".into(),
            )
        })?;
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
