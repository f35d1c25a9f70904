//! Folds one shard's partials, and says what they give: results of closed windows, and late rows.

mod succession;

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use engine::fold::{ClosedPieces, ClosedWindow, Fold, FoldError, Handover, LateRows};
use engine::window::Window;
use runtime::log::{Batch, Offset, TopicPartition};

use crate::job::JobQuery;
use crate::offsets::{Cursor, RangeGap, ShardState, Succession};
use crate::partial::{self, PartialError};

/// The fold of one shard.
pub struct MergeTask {
    /// The partials partition.
    pub partition: TopicPartition,
    /// Which query, by its place in the job.
    pub query_index: usize,
    query: Arc<JobQuery>,
    live: Progress,
    committed: Progress,
    /// Gaps in its ranges that were accepted by hand.
    gaps: Vec<RangeGap>,
    /// Partials below this offset were folded before; what they gave is out already.
    restore_to: Offset,
    /// The offset of the snapshot that it was made from.
    restored_from: Offset,
    /// The pieces of the window whose results are being given.
    pieces: Option<ClosedPieces>,
    /// How many more result rows fit into the open transaction.
    room: usize,
    max_close_rows: usize,
    predecessor: Option<Ahead>,
}

/// How far the application is whose query is taken over.
#[derive(Clone, Copy)]
enum Ahead {
    /// It has given what ends here or before, and may go on.
    Running(i64),
    /// It gives nothing more.
    HandedOver(Handover),
}

#[derive(Clone)]
struct Progress {
    fold: Fold,
    position: Offset,
    emitted: u64,
    changes: u64,
    /// What it would cost to fold again what was folded since the last snapshot: see [`RECORD_COST`].
    cost: u64,
    /// What is out already of what the next record gives, as it stood committed.
    out: Option<Cursor>,
    /// Closed windows whose results are not all given.
    closing: Option<Closing>,
    /// What was left to an earlier application, if its query is taken over.
    succession: Option<Succession>,
    /// Up to which end the next record would close windows that that one may still give.
    waits_for: Option<i64>,
}

/// Windows that a record has closed, on their way out.
#[derive(Clone)]
struct Closing {
    /// The record's offset.
    offset: Offset,
    windows: Arc<Vec<ClosedWindow>>,
    given: Cursor,
    /// How far event time was before the record: up to there all results are out.
    watermark: Option<i64>,
}

/// How many partial rows of closed windows are made results at once. A window at a time, most of the cost is that of small
/// batches.
const MOST_TOGETHER: usize = 4096;

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
}

impl MergeTask {
    /// A shard that goes on from this state, which is the one after all partials below its offset. Partials below `restore_to`, the committed offset, will
    /// be folded without giving anything; `state` is what stands committed there.
    pub fn new(
        partition: TopicPartition,
        query_index: usize,
        query: Arc<JobQuery>,
        (mut fold, position): (Fold, Offset),
        restore_to: Offset,
        state: ShardState,
    ) -> Self {
        for gap in &state.gaps {
            fold.accept_gap(gap.partition, gap.from, gap.to);
        }
        let mut live = Progress {
            fold,
            position,
            emitted: state.emitted,
            changes: state.changes,
            cost: 0,
            out: state.given,
            closing: None,
            succession: state.succession.map(|succession| Succession {
                waits: false,
                ..succession
            }),
            waits_for: None,
        };
        if let Some(from) = live.succession.and_then(|succession| succession.from) {
            live.fold.go_on_from(from);
        }
        Self {
            partition,
            query_index,
            query,
            committed: live.clone(),
            restored_from: live.position,
            live,
            restore_to,
            pieces: None,
            room: usize::MAX,
            max_close_rows: usize::MAX,
            gaps: state.gaps,
            predecessor: None,
        }
    }

    /// The same, of a query that takes over one of an earlier application: it gives nothing before that one is handed over.
    #[must_use]
    pub fn taking_over(mut self) -> Self {
        for progress in [&mut self.live, &mut self.committed] {
            progress.succession.get_or_insert_default();
        }
        self
    }

    /// The same, which gives at most about this many rows of closed windows between two commits.
    #[must_use]
    pub fn with_room(mut self, rows: usize) -> Self {
        (self.room, self.max_close_rows) = (rows, rows);
        self
    }

    /// Folds a batch of partials, which must follow on the last one. It stops at a record that gives more than there is
    /// room for: the rest is to be read again, from [`MergeTask::position`], once [`MergeTask::is_closing`] is over.
    pub fn take(&mut self, batch: &Batch, given: &mut Vec<Given>) -> Result<(), MergeError> {
        for (index, record) in batch.iter().enumerate() {
            if self.is_closing() {
                break;
            }
            let unreadable = |source| MergeError::Unreadable {
                partition: self.partition.clone(),
                offset: record.offset,
                source,
            };
            let (header, rows) =
                partial::decode(batch, index, self.query.newest_format).map_err(unreadable)?;
            if record.offset >= self.restore_to && self.must_wait(&header) {
                break;
            }
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
                    for window in applied.given_before.iter().chain(&applied.closed) {
                        self.results_of(window, record.offset)?;
                    }
                }
                self.live.fold.forget_changes();
                continue;
            }
            self.leave_out(&applied, record.offset)?;
            let out = self.live.out.take();
            if !applied.closed.is_empty() {
                self.live.closing = Some(Closing {
                    offset: record.offset,
                    windows: Arc::new(applied.closed),
                    given: out.unwrap_or_default(),
                    watermark: before,
                });
            }
            if let Some(out) = out {
                // Its late rows, too, are out.
                self.learn_again(out)?;
                self.go_on(given)?;
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
            self.go_on(given)?;
        }
        if self.live.position <= self.restore_to {
            self.committed = self.live.clone();
        }
        Ok(())
    }

    /// Whether there are results to be given before partials are read on: with [`MergeTask::go_on`], after a commit.
    pub fn is_closing(&self) -> bool {
        self.live.closing.is_some()
    }

    /// Gives results of closed windows while there is room for them.
    pub fn go_on(&mut self, given: &mut Vec<Given>) -> Result<(), MergeError> {
        while let Some(closing) = &mut self.live.closing {
            let Some(window) = closing.windows.get(closing.given.windows) else {
                self.live.closing = None;
                break;
            };
            if self.room == 0 {
                break;
            }
            let fold = &mut self.live.fold;
            if self.pieces.is_none() && closing.given.pieces == 0 {
                let rest = &closing.windows[closing.given.windows..];
                let count = fold.together(rest, MOST_TOGETHER.min(self.room - 1));
                if count > 1 {
                    let results = fold.results_together(&rest[..count]).map_err(|source| {
                        MergeError::Fold {
                            partition: self.partition.clone(),
                            offset: closing.offset,
                            source,
                        }
                    })?;
                    closing.given.windows += count;
                    self.room -= results.num_rows();
                    self.live.emitted += results.num_rows() as u64;
                    if results.num_rows() > 0 {
                        given.push(Given::Results(results));
                    }
                    continue;
                }
            }
            let pieces = self
                .pieces
                .get_or_insert_with(|| fold.pieces(window, closing.given.pieces));
            let results = fold
                .next_results(pieces)
                .map_err(|source| MergeError::Fold {
                    partition: self.partition.clone(),
                    offset: closing.offset,
                    source,
                })?;
            match results {
                Some(results) => {
                    closing.given.pieces = pieces.position();
                    self.room = self.room.saturating_sub(results.num_rows());
                    self.live.emitted += results.num_rows() as u64;
                    if results.num_rows() > 0 {
                        given.push(Given::Results(results));
                    }
                }
                None => {
                    self.pieces = None;
                    closing.given = Cursor {
                        windows: closing.given.windows + 1,
                        pieces: 0,
                    };
                }
            }
        }
        Ok(())
    }

    /// Lets history learn from results that are out already.
    fn learn_again(&mut self, out: Cursor) -> Result<(), MergeError> {
        let Some(closing) = self.live.closing.clone() else {
            return Ok(());
        };
        if !self.query.plan.has_history() {
            return Ok(());
        }
        for window in closing.windows.iter().take(out.windows) {
            self.results_of(window, closing.offset)?;
        }
        if let Some(window) = closing.windows.get(out.windows) {
            let mut pieces = self.live.fold.pieces(window, 0);
            while pieces.position() < out.pieces {
                self.next_of(&mut pieces, closing.offset)?;
            }
        }
        Ok(())
    }

    fn results_of(&mut self, window: &ClosedWindow, offset: Offset) -> Result<(), MergeError> {
        let mut pieces = self.live.fold.pieces(window, 0);
        while self.next_of(&mut pieces, offset)? {}
        Ok(())
    }

    fn next_of(&mut self, pieces: &mut ClosedPieces, offset: Offset) -> Result<bool, MergeError> {
        let next = self.live.fold.next_results(pieces);
        let next = next.map_err(|source| MergeError::Fold {
            partition: self.partition.clone(),
            offset,
            source,
        })?;
        Ok(next.is_some())
    }

    /// What has changed since the last commit, if the sink asks for that: to be sent before the next one.
    pub fn changes(&mut self) -> Result<Option<Given>, MergeError> {
        if !self.tells() || self.to_commit().is_none() {
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

    /// Whether the state that stands committed is the one after all partials below the committed offset.
    pub fn is_whole(&self) -> bool {
        !self.restoring() && self.committed.closing.is_none()
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

    /// The offset to be committed, if it or what stands beside it has changed since the last commit.
    pub fn to_commit(&self) -> Option<Offset> {
        let at = self.live.at();
        let news = at != self.committed.at() || self.live.known() != self.committed.known();
        (!self.restoring() && news && at.0 >= self.restore_to).then_some(at.0)
    }

    /// What the shard has taken and given.
    pub fn state(&self) -> ShardState {
        let bounded = self.query.plan.window.is_some_and(Window::is_bounded);
        ShardState {
            gaps: self.gaps.clone(),
            ..self.live.state(bounded)
        }
    }

    /// The fold, to be looked at.
    pub fn fold(&self) -> &Fold {
        &self.live.fold
    }

    /// Windows that were closed at the last commit, and whose results were not all out: each from this piece on.
    pub fn committed_closing(&self) -> Vec<(ClosedWindow, usize)> {
        let Some(closing) = &self.committed.closing else {
            return Vec::new();
        };
        let given = closing.given;
        let windows = closing.windows.iter().cloned().enumerate();
        windows
            .skip(given.windows)
            .map(|(place, window)| match place == given.windows {
                true => (window, given.pieces),
                false => (window, 0),
            })
            .collect()
    }

    /// The fold as it was at the last commit: while state is restored, as far as that is.
    pub fn committed_fold(&self) -> &Fold {
        &self.committed.fold
    }

    /// Whether every source partition has ended, and that is committed.
    pub fn ended(&self) -> bool {
        self.committed.fold.watermark().ended() && self.committed.closing.is_none()
    }

    /// Notes that what was given is committed.
    pub fn committed(&mut self) {
        self.room = self.max_close_rows;
        if !self.restoring() {
            self.committed = self.live.clone();
        }
    }

    /// Goes back to the last commit, and says at which offset to read on. State is shared, not copied, so this costs
    /// no restore.
    pub fn roll_back(&mut self) -> Offset {
        self.room = self.max_close_rows;
        self.pieces = None;
        self.live = self.committed.clone();
        self.settle();
        self.live.position
    }
}

impl Progress {
    /// The offset to be committed, and what is out of what the record there gives.
    fn at(&self) -> (Offset, Option<Cursor>) {
        match &self.closing {
            Some(closing) => (closing.offset, Some(closing.given)),
            None => (self.position, None),
        }
    }

    /// What stands committed of what is taken over, beside counts.
    fn known(&self) -> Option<(bool, bool, bool)> {
        self.succession
            .map(|known| (known.waits, known.from.is_some(), known.told))
    }

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
            watermark: match &self.closing {
                Some(closing) => closing.watermark,
                None => self.fold.watermark().now(),
            },
            ended: self.fold.watermark().ended() && self.closing.is_none(),
            given: self.closing.as_ref().map(|closing| closing.given),
            gaps: Vec::new(),
            succession: self.succession,
            handed_over: false,
        }
    }
}
