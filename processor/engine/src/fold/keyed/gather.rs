//! The rows of some intervals as one batch.

use std::collections::HashMap;

use arrow::array::Int64Array;
use arrow::compute::interleave_record_batch;
use arrow::record_batch::RecordBatch;

use super::Interval;
use crate::fold::{FoldError, with_starts};

impl Interval {
    pub(super) fn own(&self) -> Under<'_> {
        Under {
            start: self.start,
            interval: self,
        }
    }
}

/// An interval, and the start of the window that its rows are to be put under.
#[derive(Clone, Copy)]
pub(super) struct Under<'a> {
    pub(super) start: i64,
    pub(super) interval: &'a Interval,
}

/// The pieces of groups in batches of a block's size; each group in one of them.
pub(super) fn gather_in_parts(
    groups: &[Vec<Under<'_>>],
    block_rows: usize,
) -> Result<Vec<RecordBatch>, FoldError> {
    groups
        .chunks(block_rows)
        .filter_map(|groups| gather(&groups.concat()).transpose())
        .collect()
}

/// The pieces of some intervals as one batch.
pub(super) fn gather(intervals: &[Under<'_>]) -> Result<Option<RecordBatch>, FoldError> {
    if intervals.is_empty() {
        return Ok(None);
    }
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut batches: Vec<&RecordBatch> = Vec::new();
    let mut rows = Vec::new();
    let mut starts = Vec::new();
    for Under { start, interval } in intervals {
        for (run, row) in &interval.pieces {
            let place = *places.entry(run.number).or_insert_with(|| {
                batches.push(&run.rows);
                batches.len() - 1
            });
            rows.push((place, *row as usize));
            starts.push(*start);
        }
    }
    let gathered = interleave_record_batch(&batches, &rows).map_err(|_| FoldError::Columns)?;
    with_starts(&gathered, Int64Array::from(starts)).map(Some)
}
