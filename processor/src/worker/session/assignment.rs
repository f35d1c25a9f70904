//! Partitions come and go: tasks are made from the committed offsets, and dropped.

use std::sync::Arc;
use std::time::Duration;

use runtime::log::{Class, TopicPartition};

use super::Session;
use crate::offsets::{self, ShardState, SourceState};
use crate::task::scan::ScanTask;
use crate::topics;
use crate::worker::WorkerError;
use crate::worker::error::{Doing, chain};

impl Session<'_> {
    /// Begins with partitions that the group gives: reads where they stand, and makes their tasks.
    pub(super) fn assigned(&mut self, partitions: Vec<TopicPartition>) -> Result<(), WorkerError> {
        if self.worker.leaving() {
            // What another worker has just left is not begun here only to be left again.
            return Ok(());
        }
        tracing::info!(
            slot = self.worker.slot,
            partitions = partitions.len(),
            "partitions came"
        );
        let committed = loop {
            match self.consumer.committed(&partitions) {
                Err(error) if error.class() == Class::Retry && !self.worker.leaving() => {
                    tracing::warn!(error = %chain(&error), "committed offsets can't be read yet; trying again");
                    std::thread::sleep(Duration::from_millis(100));
                }
                other => break other.doing("the group's committed offsets can't be read")?,
            }
        };
        let newest = self.worker.job.format.newest();
        let mut starts = Vec::with_capacity(partitions.len());
        // Partials are read once the state before them is restored.
        let mut waiting = Vec::new();
        for (partition, committed) in partitions.into_iter().zip(committed) {
            let bounds = self
                .worker
                .log
                .bounds(&partition)
                .doing("a partition can't be looked at")?;
            if let Some(committed) = committed
                .as_ref()
                .filter(|committed| committed.offset > bounds.end)
            {
                return Err(WorkerError::BehindEnd {
                    partition,
                    committed: committed.offset,
                    end: bounds.end,
                });
            }
            let bad = |source| WorkerError::Metadata {
                partition: partition.clone(),
                source,
            };
            let handed_over = || WorkerError::HandedOver {
                partition: partition.clone(),
                record: topics::job(&self.worker.job.options.application_id),
            };
            if let Some(source) = self.worker.job.sources.get(partition.topic.as_ref()) {
                let (start, state) = match &committed {
                    Some(committed) => (
                        committed.offset,
                        offsets::decode_to::<SourceState>(&committed.metadata, newest)
                            .map_err(bad)?,
                    ),
                    None => (bounds.start, SourceState::default()),
                };
                if state.handed_over {
                    return Err(handed_over());
                }
                if let Some(handing) = &mut self.handing {
                    handing.sources.insert(partition.clone(), (start, state));
                    waiting.push(partition.clone());
                    starts.push((partition, start));
                    continue;
                }
                let registry = Arc::clone(&self.worker.registry);
                let is_new = committed.is_none();
                let mut task = ScanTask::new(
                    &self.worker.job,
                    source,
                    registry,
                    partition.clone(),
                    start,
                    state,
                )
                .map_err(|source| WorkerError::Scan {
                    partition: partition.clone(),
                    source,
                })?;
                if is_new {
                    task.announce();
                }
                self.scans.insert(partition.clone(), task);
                starts.push((partition, start));
            } else {
                let committed = match &committed {
                    Some(committed) => Some((
                        committed.offset,
                        offsets::decode_to::<ShardState>(&committed.metadata, newest)
                            .map_err(bad)?,
                    )),
                    None => None,
                };
                if matches!(&committed, Some((_, state)) if state.handed_over) {
                    return Err(handed_over());
                }
                let queries = &self.worker.job.queries;
                let Some(index) = queries.iter().position(|query| {
                    query
                        .folded
                        .as_ref()
                        .is_some_and(|folded| *folded.partials_topic == *partition.topic)
                }) else {
                    continue;
                };
                self.begin_restore(&partition, index, committed)?;
                waiting.push(partition.clone());
                starts.push((partition, bounds.start));
            }
        }
        self.consumer
            .assign(&starts)
            .doing("assigned partitions can't be read")?;
        if !waiting.is_empty() {
            self.consumer
                .pause(&waiting)
                .doing("a partition can't be paused")?;
        }
        self.announce_new()?;
        self.restore()
    }

    /// Drops the tasks of partitions, and says that others may have them.
    pub(super) fn let_go(&mut self, partitions: &[TopicPartition]) -> Result<(), WorkerError> {
        self.forget(partitions);
        self.consumer
            .unassign(partitions)
            .doing("partitions can't be let go")
    }

    /// Drops the tasks of partitions.
    pub(super) fn forget(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if self.scans.remove(partition).is_some() {
                self.worker
                    .progress
                    .gone(&partition.topic, None, partition.partition);
            }
            self.snapshots.remove(partition);
            self.following.forget(partition);
            let merge = self.merges.remove(partition).map(|merge| merge.query_index);
            let restore = self
                .restores
                .remove(partition)
                .map(|restore| restore.query_index);
            if let Some(index) = merge.or(restore) {
                let query = &self.worker.job.queries[index].plan.name;
                self.worker
                    .progress
                    .gone(&partition.topic, Some(query), partition.partition);
            }
            self.pauses.forget(partition);
        }
        self.count_paused();
    }
}
