//! The last final results of a query: a few, kept for those who ask.

use std::collections::VecDeque;

use arrow::array::{Array, UInt32Array};
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;

/// How much is kept of each query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecentBounds {
    /// The most rows.
    pub rows: usize,
    /// The most bytes, as they lie in memory.
    pub bytes: usize,
}

impl Default for RecentBounds {
    fn default() -> Self {
        Self {
            rows: 1_000,
            bytes: 4 << 20,
        }
    }
}

/// The last final results of one query, the oldest first.
#[derive(Clone, Debug, Default)]
pub struct Recent {
    batches: VecDeque<Kept>,
    rows: usize,
    bytes: usize,
    /// Whether older ones were let go.
    pub cut_off: bool,
}

#[derive(Clone, Debug)]
struct Kept {
    shard: Option<i32>,
    /// Which commit brought them; 0 before they are committed.
    commit: u64,
    rows: RecordBatch,
    bytes: usize,
}

impl Recent {
    /// Takes in results, and lets the oldest go. `shard`: whose they are; `None` of a query without shards.
    pub fn push(&mut self, shard: Option<i32>, rows: &RecordBatch, bounds: RecentBounds) {
        if rows.num_rows() > 0 {
            self.add(shard, 0, rows, bounds);
        }
    }

    /// Whether there is none, and was none.
    pub fn is_empty(&self) -> bool {
        self.batches.is_empty() && !self.cut_off
    }

    /// Takes in what another one holds, as brought by that commit.
    pub fn append(&mut self, later: &mut Self, commit: u64, bounds: RecentBounds) {
        self.cut_off |= later.cut_off;
        for kept in std::mem::take(later).batches {
            self.add(kept.shard, commit, &kept.rows, bounds);
        }
    }

    /// Forgets a shard's results: it is no longer here.
    pub fn forget(&mut self, shard: i32) {
        self.batches.retain(|kept| kept.shard != Some(shard));
        self.rows = self.batches.iter().map(|kept| kept.rows.num_rows()).sum();
        self.bytes = self.batches.iter().map(|kept| kept.bytes).sum();
    }

    /// The results, the oldest first: whose they are, and which commit brought them.
    pub fn batches(&self) -> impl Iterator<Item = (Option<i32>, u64, &RecordBatch)> {
        self.batches
            .iter()
            .map(|kept| (kept.shard, kept.commit, &kept.rows))
    }

    fn add(&mut self, shard: Option<i32>, commit: u64, rows: &RecordBatch, bounds: RecentBounds) {
        let fits = fitting(rows, bounds);
        if fits
            .as_ref()
            .is_none_or(|(kept, _)| kept.num_rows() < rows.num_rows())
        {
            // What came before the rows that have no place has none either.
            *self = Self {
                cut_off: true,
                ..Self::default()
            };
        }
        let Some((kept, bytes)) = fits else {
            return;
        };
        self.rows += kept.num_rows();
        self.bytes += bytes;
        self.batches.push_back(Kept {
            shard,
            commit,
            rows: kept,
            bytes,
        });
        while self.rows > bounds.rows || self.bytes > bounds.bytes {
            let Some(oldest) = self.batches.pop_front() else {
                break;
            };
            self.cut_off = true;
            self.rows -= oldest.rows.num_rows();
            self.bytes -= oldest.bytes;
            // Of the oldest, its last rows may still have their place.
            let room = RecentBounds {
                rows: bounds.rows.saturating_sub(self.rows),
                bytes: bounds.bytes.saturating_sub(self.bytes),
            };
            if let Some((rows, bytes)) = fitting(&oldest.rows, room) {
                self.rows += rows.num_rows();
                self.bytes += bytes;
                self.batches.push_front(Kept {
                    shard: oldest.shard,
                    commit: oldest.commit,
                    rows,
                    bytes,
                });
            }
        }
    }
}

/// As many of the last rows as fit, and their size; `None` if none does. They are copied only where all of them together
/// are too large.
fn fitting(rows: &RecordBatch, bounds: RecentBounds) -> Option<(RecordBatch, usize)> {
    let (count, bytes) = (rows.num_rows(), size(rows));
    if bytes <= bounds.bytes {
        let keep = count.min(bounds.rows);
        return (keep > 0).then(|| (rows.slice(count - keep, keep), bytes));
    }
    let by_bytes = (bounds.bytes as u128 * count as u128 / bytes.max(1) as u128) as usize;
    let mut keep = count.min(bounds.rows).min(by_bytes);
    while keep > 0 {
        let places: UInt32Array = (count - keep..count).map(|row| row as u32).collect();
        let last = take_record_batch(rows, &places).ok()?;
        let bytes = size(&last);
        if bytes <= bounds.bytes {
            return Some((last, bytes));
        }
        keep /= 2;
    }
    None
}

fn size(rows: &RecordBatch) -> usize {
    let columns = rows.columns().iter();
    columns.map(|column| column.get_array_memory_size()).sum()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;

    use super::*;

    fn batch(values: std::ops::Range<i64>) -> RecordBatch {
        let text: StringArray = values
            .clone()
            .map(|value| Some("x".repeat(value as usize % 50)))
            .collect();
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_from_iter([("n", numbers), ("t", Arc::new(text))]).unwrap()
    }

    fn numbers(recent: &Recent) -> Vec<i64> {
        recent
            .batches()
            .flat_map(|(_, _, rows)| rows.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect()
    }

    #[test]
    fn the_last_rows_are_kept_and_no_more() {
        let bounds = RecentBounds {
            rows: 10,
            bytes: usize::MAX,
        };
        let mut recent = Recent::default();
        recent.push(Some(0), &batch(0..4), bounds);
        recent.push(Some(1), &batch(4..10), bounds);
        assert_eq!(
            (numbers(&recent), recent.cut_off),
            ((0..10).collect(), false)
        );
        recent.push(Some(0), &batch(10..13), bounds);
        assert_eq!(
            (numbers(&recent), recent.cut_off),
            ((3..13).collect(), true)
        );
        // One batch that is too large by itself.
        recent.push(None, &batch(13..60), bounds);
        assert_eq!(numbers(&recent), (50..60).collect::<Vec<_>>());
        let mut later = Recent::default();
        later.push(Some(2), &batch(60..62), bounds);
        recent.append(&mut later, 1, bounds);
        assert_eq!(numbers(&recent), (52..62).collect::<Vec<_>>());
        recent.forget(2);
        assert_eq!(numbers(&recent), (52..60).collect::<Vec<_>>());
    }

    #[test]
    fn bytes_are_bounded_whatever_the_batches() {
        let bounds = RecentBounds {
            rows: usize::MAX,
            bytes: 4_000,
        };
        let mut recent = Recent::default();
        let mut from = 0;
        for step in 0..200 {
            let count = step * 7 % 90;
            recent.push(None, &batch(from..from + count), bounds);
            from += count;
            let held: usize = recent.batches().map(|(_, _, rows)| size(rows)).sum();
            assert!(held <= bounds.bytes, "{held} bytes at step {step}");
            let kept = numbers(&recent);
            assert_eq!(kept, (from - kept.len() as i64..from).collect::<Vec<_>>());
        }
        assert!(recent.cut_off && !numbers(&recent).is_empty());
    }
}
