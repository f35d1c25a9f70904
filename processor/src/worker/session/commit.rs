//! The transaction at the end of every commit interval, and what happens when the log refuses it.

use std::time::Duration;

use runtime::log::{Class, NewRecord, Offset, OffsetCommit, TopicPartition};

use super::Session;
use super::snapshots::Snapshots;
use crate::offsets;
use crate::partial;
use crate::task::merge::{Given, MergeTask};
use crate::task::scan::{Outgoing, ScanTask};
use crate::worker::WorkerError;
use crate::worker::error::{Doing, chain};

/// After how many aborts in a row a new session is tried.
const MAX_ABORTS: u32 = 5;

impl Session<'_> {
    /// Commits what the tasks have done since the last time, or rolls it back if the log refuses.
    pub(super) fn commit(&mut self) -> Result<(), WorkerError> {
        self.last_commit_ms = self.worker.clock.now_ms();
        self.show_restore();
        if let Err(error) = self.send_changes() {
            return self.abort_or(error, "changes can't be sent");
        }
        let offsets = match self.close_ranges() {
            Ok(offsets) => offsets,
            Err(WorkerError::Log { action, source }) => {
                return self.abort_or(
                    WorkerError::Log { action, source },
                    "partials can't be sent",
                );
            }
            Err(error) => return Err(error),
        };
        if offsets.is_empty() {
            self.show_all();
            return Ok(());
        }
        if let Err(error) = self.send_snapshots() {
            return self.abort_or(error, "a snapshot can't be sent");
        }
        let timer = self.worker.metrics.commit_seconds.start_timer();
        let group = self
            .consumer
            .group_metadata()
            .doing("the group's generation can't be had")?;
        match self
            .transaction
            .commit(&offsets, &group)
            .doing("a transaction can't be committed")
        {
            Ok(()) => {
                timer.observe_duration();
                self.aborts = 0;
                self.scans.values_mut().for_each(ScanTask::committed);
                self.merges.values_mut().for_each(MergeTask::committed);
                self.snapshots_committed();
                self.outputs.committed(&self.worker.progress.views);
                self.show_all();
                Ok(())
            }
            Err(error) => {
                timer.stop_and_discard();
                self.abort_or(error, "a transaction was refused")
            }
        }
    }

    /// Sends what has changed in open windows and groups, for the queries that ask for it.
    fn send_changes(&mut self) -> Result<(), WorkerError> {
        for merge in self.merges.values_mut() {
            if let Some(given) = merge.changes()? {
                let shard = Some(merge.partition.partition);
                self.outputs
                    .given(&mut self.transaction, merge.query_index, shard, given)?;
            }
        }
        Ok(())
    }

    /// Sends the partials of every range, and gathers the offsets to be committed with them.
    fn close_ranges(&mut self) -> Result<Vec<OffsetCommit>, WorkerError> {
        let mut commits = Vec::new();
        let format = self.worker.job.format.written();
        for (partition, scan) in &mut self.scans {
            let partitions = self
                .partitions
                .get(partition.topic.as_ref())
                .copied()
                .unwrap_or(0);
            let closed = scan
                .close_range(partitions)
                .map_err(|source| WorkerError::Scan {
                    partition: partition.clone(),
                    source,
                })?;
            let Some((outgoing, offset)) = closed else {
                continue;
            };
            for out in outgoing {
                match out {
                    Outgoing::Results { query, rows } => {
                        let results = Given::Results(rows);
                        self.outputs
                            .given(&mut self.transaction, query, None, results)?;
                    }
                    Outgoing::Partial {
                        query,
                        shard,
                        header,
                        rows,
                    } => {
                        let Some(folded) = &self.worker.job.queries[query].folded else {
                            continue;
                        };
                        let record = partial::encode(&header, rows.as_ref())?;
                        self.worker
                            .metrics
                            .partial_bytes
                            .inc_by(record.value.as_ref().map_or(0, Vec::len) as u64);
                        self.transaction
                            .send(NewRecord {
                                topic: &folded.partials_topic,
                                partition: Some(shard),
                                key: None,
                                value: record.value.as_deref(),
                                headers: &record.headers(),
                                timestamp_ms: None,
                            })
                            .doing("partials can't be sent")?;
                    }
                }
            }
            commits.push(commit_of(partition, offset, scan.state(), format)?);
        }
        for (partition, merge) in &self.merges {
            if let Some(offset) = merge.to_commit() {
                commits.push(commit_of(partition, offset, &merge.state(), format)?);
            }
        }
        Ok(commits)
    }

    /// Sorts a failure: rolls back if that heals it, and gives up the session otherwise.
    pub(super) fn abort_or(
        &mut self,
        error: WorkerError,
        what: &'static str,
    ) -> Result<(), WorkerError> {
        match error.class() {
            Class::Retry | Class::Abort => {
                tracing::warn!(slot = self.worker.slot, error = %chain(&error), what, "rolling back to the last commit");
                self.aborts += 1;
                if self.aborts > MAX_ABORTS {
                    return Err(error);
                }
                self.roll_back(what)?;
                std::thread::sleep(Duration::from_millis(20 << self.aborts));
                Ok(())
            }
            Class::Restart | Class::Fenced | Class::Fatal => Err(error),
        }
    }

    /// Aborts the open transaction and takes every task back to its last commit.
    pub(super) fn roll_back(&mut self, what: &'static str) -> Result<(), WorkerError> {
        self.worker.metrics.aborts.inc();
        self.transaction.abort().doing(what)?;
        self.snapshots.values_mut().for_each(Snapshots::roll_back);
        self.outputs.rolled_back();
        for (partition, scan) in &mut self.scans {
            let offset = scan.roll_back().map_err(|source| WorkerError::Scan {
                partition: partition.clone(),
                source,
            })?;
            self.consumer
                .seek(partition, offset)
                .doing("a partition can't be read again")?;
        }
        for (partition, merge) in &mut self.merges {
            let offset = merge.roll_back();
            self.consumer
                .seek(partition, offset)
                .doing("a partition can't be read again")?;
        }
        self.hold_closing()?;
        self.let_waiting_go_on()
    }
}

pub(super) fn commit_of<T: serde::Serialize>(
    partition: &TopicPartition,
    offset: Offset,
    state: &T,
    format: u32,
) -> Result<OffsetCommit, WorkerError> {
    let metadata = offsets::encode(state, format).map_err(|source| WorkerError::Metadata {
        partition: partition.clone(),
        source,
    })?;
    Ok(OffsetCommit {
        partition: partition.clone(),
        offset,
        metadata,
    })
}
