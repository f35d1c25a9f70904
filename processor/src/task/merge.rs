//! Folds one shard's partials, and says what they give: results of closed windows, and late rows.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use engine::fold::{Fold, FoldError, LateRows};
use engine::plan::FragmentError;
use engine::window::Window;
use runtime::log::{Batch, Offset, TopicPartition};

use crate::job::JobQuery;
use crate::offsets::ShardState;
use crate::partial::{self, PartialError};
use crate::snapshot::restore::Restored;

/// The fold of one shard.
pub struct MergeTask {
    /// The partials partition.
    pub partition: TopicPartition,
    /// Which query, by its place in the job.
    pub query_index: usize,
    query: Arc<JobQuery>,
    live: Progress,
    committed: Progress,
    /// Partials below this offset were folded before; what they gave is out already.
    restore_to: Offset,
    /// The offset of the snapshot that it was made from.
    restored_from: Offset,
}

#[derive(Clone)]
struct Progress {
    fold: Fold,
    position: Offset,
    emitted: u64,
    changes: u64,
    /// What it would cost to fold again what was folded since the last snapshot: see [`RECORD_COST`].
    cost: u64,
}

/// What it costs to fold a record without rows, where a row costs 1.
const RECORD_COST: u64 = 200;

/// Something that a partials record gave.
#[derive(Debug)]
pub enum Given {
    /// Rows of closed windows.
    Results(RecordBatch),
    /// Rows that may still change.
    Changes(RecordBatch),
    /// Rows that came too late.
    Late {
        /// How many, and for which window.
        rows: LateRows,
        /// The source partition that they are from.
        partition: i32,
        /// The first position of the range that they are in.
        range_start: Offset,
        /// The first position behind it.
        range_end: Offset,
        /// Where the watermark stood.
        watermark: i64,
    },
}

/// Why a shard can't go on.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A record of the partials topic can't be read.
    #[error("record {offset} of {partition} can't be read")]
    Unreadable {
        /// The partials partition.
        partition: TopicPartition,
        /// The record's offset.
        offset: Offset,
        /// Why.
        #[source]
        source: PartialError,
    },
    /// A record does not follow on the others.
    #[error("record {offset} of {partition} can't be applied")]
    Fold {
        /// The partials partition.
        partition: TopicPartition,
        /// The record's offset.
        offset: Offset,
        /// Why.
        #[source]
        source: FoldError,
    },
    /// The results of a window can't be worked out.
    #[error(transparent)]
    Finish(#[from] FragmentError),
}

impl MergeTask {
    /// A shard that goes on from a snapshot, or from the beginning. Partials below `restore_to`, the committed offset, will
    /// be folded without giving anything; `state` is what stands committed there.
    pub fn new(
        partition: TopicPartition,
        query_index: usize,
        query: Arc<JobQuery>,
        restored: Option<Restored>,
        restore_to: Offset,
        state: ShardState,
    ) -> Self {
        let (fold, position) = match restored {
            Some(restored) => (restored.fold, restored.offset),
            None => (Fold::new(Arc::clone(&query.plan), query.fingerprint), 0),
        };
        let live = Progress {
            fold,
            position,
            emitted: state.emitted,
            changes: state.changes,
            cost: 0,
        };
        Self {
            partition,
            query_index,
            query,
            committed: live.clone(),
            restored_from: live.position,
            live,
            restore_to,
        }
    }

    /// Folds a batch of partials, which must follow on the last one.
    pub fn take(&mut self, batch: &Batch, given: &mut Vec<Given>) -> Result<(), MergeError> {
        for (index, record) in batch.iter().enumerate() {
            let unreadable = |source| MergeError::Unreadable {
                partition: self.partition.clone(),
                offset: record.offset,
                source,
            };
            let header =
                partial::decode_header(batch.header(index, partial::HEADER)).map_err(unreadable)?;
            let rows = partial::decode_rows(record.value).map_err(unreadable)?;
            let before = self.live.fold.watermark().now();
            let applied = self
                .live
                .fold
                .apply(record.offset, &header, rows.as_ref())
                .map_err(|source| MergeError::Fold {
                    partition: self.partition.clone(),
                    offset: record.offset,
                    source,
                })?;
            self.live.position = record.offset + 1;
            self.live.cost += RECORD_COST + rows.as_ref().map_or(0, RecordBatch::num_rows) as u64;
            if record.offset < self.restore_to {
                if self.query.plan.has_history() {
                    for window in &applied.closed {
                        self.live.fold.results(window)?;
                    }
                }
                self.live.fold.forget_changes();
                continue;
            }
            for rows in applied.late {
                given.push(Given::Late {
                    rows,
                    partition: header.partition,
                    range_start: header.start,
                    range_end: header.end,
                    watermark: before.unwrap_or(i64::MIN),
                });
            }
            for window in &applied.closed {
                let results = self.live.fold.results(window)?;
                self.live.emitted += results.num_rows() as u64;
                given.push(Given::Results(results));
            }
        }
        if self.live.position <= self.restore_to {
            self.committed = self.live.clone();
        }
        Ok(())
    }

    /// What has changed since the last commit, if the sink asks for that: to be sent before the next one.
    pub fn changes(&mut self) -> Result<Option<Given>, MergeError> {
        if self.to_commit().is_none() {
            return Ok(None);
        }
        let changes = self
            .live
            .fold
            .changes()
            .map_err(|source| MergeError::Fold {
                partition: self.partition.clone(),
                offset: self.live.position - 1,
                source,
            })?;
        self.live.changes += changes.as_ref().map_or(0, |rows| rows.num_rows() as u64);
        Ok(changes.map(Given::Changes))
    }

    /// Notes that the partition's end was reached at `position`.
    pub fn reached_end(&mut self, position: Offset) {
        if self.restoring() && position >= self.restore_to {
            self.live.position = self.restore_to;
            self.committed = self.live.clone();
        }
    }

    /// Whether partials that were folded before are still to be read.
    pub fn restoring(&self) -> bool {
        self.live.position < self.restore_to
    }

    /// How far folding again what was folded before is, from 0 to 1.
    pub fn restored(&self) -> f64 {
        match self.restoring() {
            true => {
                let done = self.live.position - self.restored_from;
                done as f64 / (self.restore_to - self.restored_from) as f64
            }
            false => 1.0,
        }
    }

    /// Where it reads on.
    pub fn position(&self) -> Offset {
        self.live.position
    }

    /// The state that stands committed, the offset up to which partials are in it, and what it would cost to fold those
    /// since the last snapshot again.
    pub fn to_snapshot(&self) -> (&Fold, Offset, u64) {
        let committed = &self.committed;
        (&committed.fold, committed.position, committed.cost)
    }

    /// Notes that a snapshot of what was folded at this cost is committed.
    pub fn snapshot_taken(&mut self, cost: u64) {
        for progress in [&mut self.live, &mut self.committed] {
            progress.cost = progress.cost.saturating_sub(cost);
        }
    }

    /// The position to be committed, if it is ahead of the last one.
    pub fn to_commit(&self) -> Option<Offset> {
        (!self.restoring() && self.live.position > self.committed.position.max(self.restore_to))
            .then_some(self.live.position)
    }

    /// What the shard has taken and given.
    pub fn state(&self) -> ShardState {
        self.live
            .state(self.query.plan.window.is_some_and(Window::is_bounded))
    }

    /// The fold, to be looked at.
    pub fn fold(&self) -> &Fold {
        &self.live.fold
    }

    /// Whether every source partition has ended, and that is committed.
    pub fn ended(&self) -> bool {
        self.committed.fold.watermark().ended()
    }

    /// Notes that what was given is committed.
    pub fn committed(&mut self) {
        if !self.restoring() {
            self.committed = self.live.clone();
        }
    }

    /// Goes back to the last commit, and says at which offset to read on. State is shared, not copied, so this costs
    /// no restore.
    pub fn roll_back(&mut self) -> Offset {
        self.live = self.committed.clone();
        self.live.position
    }
}

impl Progress {
    fn state(&self, bounded: bool) -> ShardState {
        let counts = self.fold.counts();
        let groups = if bounded { 0 } else { self.fold.open_count() };
        ShardState {
            merged: counts.merged,
            late: counts.late,
            closed: counts.closed,
            duplicates: counts.duplicates,
            emitted: self.emitted,
            changes: self.changes,
            groups: groups as u64,
            watermark: self.fold.watermark().now(),
            ended: self.fold.watermark().ended(),
        }
    }
}

/// The values of a result's key columns as text, separated by `|`: instants as milliseconds since 1970.
pub fn key_text(results: &RecordBatch, columns: &[usize], row: usize) -> String {
    let mut text = String::new();
    for (place, &column) in columns.iter().enumerate() {
        if place > 0 {
            text.push('|');
        }
        let column = results.column(column);
        if column.is_null(row) {
            continue;
        }
        let instant =
            arrow::compute::cast(&column.slice(row, 1), &arrow::datatypes::DataType::Int64)
                .ok()
                .filter(|_| {
                    matches!(
                        column.data_type(),
                        arrow::datatypes::DataType::Timestamp(_, _)
                    )
                });
        match instant {
            Some(millis) => text.push_str(&millis.as_primitive::<Int64Type>().value(0).to_string()),
            None => text.push_str(
                &arrow::util::display::array_value_to_string(column, row).unwrap_or_default(),
            ),
        }
    }
    text
}
