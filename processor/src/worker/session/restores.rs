//! The state of shards that have just come: read from the state topic, then from the partials behind the snapshot.
//!
//! It is read a batch at a time between the session's own polls, so that the group knows that the worker is alive.

use std::sync::Arc;
use std::time::Duration;

use engine::fold::Fold;
use runtime::log::{Class, Offset, TopicPartition};

use super::Session;
use super::snapshots::Snapshots;
use crate::offsets::ShardState;
use crate::progress::ShardProgress;
use crate::snapshot::restore::{Restore, RestoreError};
use crate::snapshot::shelf::Shelf;
use crate::task::merge::MergeTask;
use crate::worker::WorkerError;
use crate::worker::error::{Doing, chain};

/// For how long the state is read before the session's own poll.
const SLICE_MS: i64 = 50;

/// A shard whose state is being read.
pub(super) struct Restoring {
    pub(super) query_index: usize,
    read: Restore,
    committed: Option<(Offset, ShardState)>,
}

impl Session<'_> {
    /// Begins to read a shard's state. What stands `committed` was read before: no transaction that is over by then can
    /// bring a snapshot of more.
    pub(super) fn begin_restore(
        &mut self,
        partition: &TopicPartition,
        query_index: usize,
        committed: Option<(Offset, ShardState)>,
    ) -> Result<(), WorkerError> {
        let job = &self.worker.job;
        let Some(folded) = &job.queries[query_index].folded else {
            return Ok(());
        };
        let state = TopicPartition::new(folded.state_topic.as_str(), partition.partition);
        let client_id = format!("{}-{}", job.options.application_id, self.worker.slot);
        let read = Restore::begin(
            self.worker.log.as_ref(),
            &client_id,
            &state,
            &self.worker.spill_dir,
        )
        .doing("a shard's state can't be read")?;
        let restoring = Restoring {
            query_index,
            read,
            committed,
        };
        self.restores.insert(partition.clone(), restoring);
        Ok(())
    }

    /// Reads on the state of shards, and begins with those whose state is complete.
    pub(super) fn restore(&mut self) -> Result<(), WorkerError> {
        if self.restores.is_empty() {
            return Ok(());
        }
        let started = self.worker.clock.now_ms();
        let mut complete = Vec::new();
        for (partition, restoring) in &mut self.restores {
            loop {
                let before = restoring.read.fraction();
                let done = match restoring.read.step(Duration::ZERO) {
                    Ok(done) => done,
                    Err(RestoreError::Log(error)) if error.class() == Class::Retry => {
                        tracing::warn!(%partition, error = %chain(&error), "a shard's state can't be read; trying again");
                        false
                    }
                    Err(RestoreError::Log(error)) => {
                        return Err(error).doing("a shard's state can't be read");
                    }
                    Err(RestoreError::Spool(error)) => {
                        return Err(WorkerError::Snapshot {
                            partition: partition.clone(),
                            source: error.into(),
                        });
                    }
                };
                if done {
                    complete.push(partition.clone());
                    break;
                }
                let in_time = self.worker.clock.now_ms().saturating_sub(started) < SLICE_MS;
                if restoring.read.fraction() <= before || !in_time {
                    break;
                }
            }
            let name = &self.worker.job.queries[restoring.query_index].plan.name;
            let progress = ShardProgress {
                // What is read of the state counts half: partials come behind it.
                restored: restoring.read.fraction() / 2.0,
                ..ShardProgress::default()
            };
            self.worker
                .progress
                .shard(name, partition.partition, progress);
        }
        for partition in complete {
            self.begin_merge(&partition)?;
        }
        Ok(())
    }

    /// Begins with a shard whose state has been read.
    fn begin_merge(&mut self, partition: &TopicPartition) -> Result<(), WorkerError> {
        let Some(Restoring {
            query_index,
            read,
            committed,
        }) = self.restores.remove(partition)
        else {
            return Ok(());
        };
        let query = &self.worker.job.queries[query_index];
        let topic_id = query
            .folded
            .as_ref()
            .map_or("", |folded| folded.partials_topic_id.as_str());
        let writer = uuid::Uuid::new_v4().simple().to_string();
        let (restored, shelf) = read
            .finish(query, topic_id, &writer, &self.worker.spill)
            .map_err(|source| WorkerError::Snapshot {
                partition: partition.clone(),
                source,
            })?;
        let snapshot = restored.as_ref().map(|restored| restored.offset);
        let bounds = self
            .worker
            .log
            .bounds(partition)
            .doing("a partition can't be looked at")?;
        if bounds.start > snapshot.unwrap_or(0) {
            return Err(WorkerError::PartialsGone {
                partition: partition.clone(),
                start: bounds.start,
                snapshot,
            });
        }
        let at = committed.as_ref().map(|(offset, _)| *offset);
        if let Some(snapshot) = snapshot.filter(|snapshot| at.is_none_or(|at| *snapshot > at)) {
            return Err(WorkerError::SnapshotAhead {
                partition: partition.clone(),
                snapshot,
                committed: at,
            });
        }
        let (restore_to, state) = committed.unwrap_or((0, ShardState::default()));
        if let Some(restored) = &restored {
            let (records, rows) = shelf.size();
            tracing::info!(%partition, offset = restored.offset, committed = restore_to, records, rows, "a snapshot was read");
        }
        self.begin_snapshots(partition, shelf, snapshot, bounds.start);
        let begin = match restored {
            Some(restored) => (restored.fold, restored.offset),
            None => {
                let (plan, spill) = (Arc::clone(&query.plan), Arc::clone(&self.worker.spill));
                let mut fold = Fold::with_spill(plan, query.fingerprint, spill);
                if let Some(rows) = self.worker.options.block_rows {
                    fold = fold.with_block_rows(rows);
                }
                (fold, 0)
            }
        };
        let task = MergeTask::new(
            partition.clone(),
            query_index,
            Arc::clone(query),
            begin,
            restore_to,
            state,
        )
        .with_room(self.worker.options.max_close_rows);
        let predecessor = self.worker.job.predecessor.as_ref();
        let task = match predecessor.is_some_and(|of| of.queries.contains_key(&query_index)) {
            true => task.taking_over(),
            false => task,
        };
        self.consumer
            .seek(partition, task.position())
            .doing("a partition can't be read from its snapshot")?;
        self.consumer
            .resume(std::slice::from_ref(partition))
            .doing("a partition can't be resumed")?;
        self.show_windows(&task, 0, self.worker.clock.now_ms());
        self.merges.insert(partition.clone(), task);
        self.show(partition);
        Ok(())
    }

    fn begin_snapshots(
        &mut self,
        partition: &TopicPartition,
        shelf: Shelf,
        snapshot: Option<Offset>,
        start: Offset,
    ) {
        // Whoever took the snapshot may not have come to it.
        let to_delete = snapshot.filter(|snapshot| *snapshot > start);
        self.snapshots
            .insert(partition.clone(), Snapshots::new(shelf, to_delete));
    }
}
