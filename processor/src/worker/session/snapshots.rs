//! Snapshots of the shards: begun when folding again has become dear, sent with the commits, a part with each.
//!
//! ```text
//!   commit n      state after partials O is kept, by pointer
//!   commit n + 1  rows
//!   commit n + 2  rows, manifest of O, tombstones      with a commit of the shard's own offset
//!   behind it     partials below O are deleted
//! ```

use runtime::log::{Log, LogError, NewRecord, Offset, TopicPartition};

use super::Session;
use crate::snapshot::SnapshotError;
use crate::snapshot::draft::{Draft, Outgoing};
use crate::snapshot::shelf::Shelf;
use crate::task::merge::MergeTask;
use crate::worker::WorkerError;
use crate::worker::error::{Doing, chain};
use crate::worker::transaction::Transaction;

/// One shard's snapshots.
pub(super) struct Snapshots {
    shelf: Shelf,
    writing: Option<Writing>,
    /// Partials below this offset are in a committed snapshot, and still there.
    to_delete: Option<Offset>,
    /// When deleting them is tried again, by the clock.
    delete_at_ms: i64,
}

/// How long it waits after partials could not be deleted. They are only in the way.
const DELETE_AGAIN_MS: i64 = 60_000;

/// A snapshot that is on its way.
struct Writing {
    draft: Draft,
    /// What folding again would cost that it spares.
    cost: u64,
    /// How many records of rows are committed, and how many are sent.
    committed: usize,
    sent: usize,
    /// Whether its end is sent.
    ended: bool,
}

impl Snapshots {
    pub(super) fn new(shelf: Shelf, to_delete: Option<Offset>) -> Self {
        Self {
            shelf,
            writing: None,
            to_delete,
            delete_at_ms: i64::MIN,
        }
    }

    /// What was sent since the last commit will never be read.
    pub(super) fn roll_back(&mut self) {
        if let Some(writing) = &mut self.writing {
            writing.sent = writing.committed;
            writing.ended = false;
        }
    }

    /// Begins a snapshot if it is worth it.
    fn begin(&mut self, merge: &MergeTask, least_cost: u64, topic_id: &str) {
        let (fold, offset, cost) = merge.to_snapshot();
        if self.writing.is_some() || cost < least_cost.max(fold.held_rows() as u64) {
            return;
        }
        self.writing = Some(Writing {
            draft: Draft::new(fold, offset, topic_id, &self.shelf),
            cost,
            committed: 0,
            sent: 0,
            ended: false,
        });
    }

    /// Sends a part of the snapshot; its end only with a commit of the shard's offset.
    fn send(
        &mut self,
        transaction: &mut Transaction,
        state: &TopicPartition,
        most_bytes: usize,
        with_offset: bool,
        format: u32,
    ) -> Result<u64, Failed> {
        let Some(writing) = &mut self.writing else {
            return Ok(0);
        };
        let mut bytes = 0;
        while bytes < most_bytes {
            let Some(record) = writing.draft.record(writing.sent)? else {
                break;
            };
            bytes += send(transaction, state, &record)?;
            writing.sent += 1;
        }
        if writing.sent == writing.draft.len() && with_offset && bytes < most_bytes {
            for record in writing.draft.end(format)? {
                bytes += send(transaction, state, &record)?;
            }
            writing.ended = true;
        }
        Ok(bytes as u64)
    }

    /// Notes that what was sent is committed; the offset and the cost of a snapshot that is complete.
    fn committed(&mut self) -> Option<(Offset, u64)> {
        let writing = self.writing.as_mut()?;
        writing.committed = writing.sent;
        if !writing.ended {
            return None;
        }
        let done = self.writing.take()?;
        let offset = done.draft.offset();
        self.shelf = done.draft.into_shelf();
        self.to_delete = Some(offset);
        Some((offset, done.cost))
    }
}

/// Why a part of a snapshot could not be sent.
enum Failed {
    Log(LogError),
    Snapshot(SnapshotError),
}

impl From<LogError> for Failed {
    fn from(error: LogError) -> Self {
        Self::Log(error)
    }
}

impl From<SnapshotError> for Failed {
    fn from(error: SnapshotError) -> Self {
        Self::Snapshot(error)
    }
}

fn send(
    transaction: &mut Transaction,
    state: &TopicPartition,
    record: &Outgoing,
) -> Result<usize, LogError> {
    let headers: Vec<_> = record
        .headers
        .iter()
        .map(|(name, bytes)| (*name, bytes.as_slice()))
        .collect();
    transaction.send(NewRecord {
        topic: &state.topic,
        partition: Some(state.partition),
        key: Some(record.key.as_bytes()),
        value: record.value.as_deref(),
        headers: &headers,
        timestamp_ms: None,
    })?;
    Ok(record.key.len() + record.value.as_ref().map_or(0, Vec::len))
}

/// Deletes the records of a partition below an offset if its topic is still the one of this id; says whether it is.
///
/// A worker that stood still behind its commit may find that its application was begun anew meanwhile, with topics of the same
/// names. DeleteRecords itself names a topic by nothing else, so that what can be done is to look right before.
fn delete_of(
    log: &dyn Log,
    partition: &TopicPartition,
    before: Offset,
    topic_id: Option<&str>,
) -> Result<bool, LogError> {
    let found = log.topic(&partition.topic)?;
    if found.is_none_or(|found| Some(found.id.as_str()) != topic_id) {
        return Ok(false);
    }
    log.delete_records(partition, before).map(|()| true)
}

impl Session<'_> {
    /// Begins snapshots that are due, and sends parts of those that are on their way, in the open transaction.
    pub(super) fn send_snapshots(&mut self) -> Result<(), WorkerError> {
        let worker = self.worker;
        for (partition, snapshots) in &mut self.snapshots {
            let Some(merge) = self.merges.get(partition).filter(|merge| merge.is_whole()) else {
                continue;
            };
            let Some(folded) = &worker.job.queries[merge.query_index].folded else {
                continue;
            };
            snapshots.begin(
                merge,
                worker.options.snapshot_cost,
                &folded.partials_topic_id,
            );
            let state = TopicPartition::new(folded.state_topic.as_str(), partition.partition);
            let sent = snapshots.send(
                &mut self.transaction,
                &state,
                worker.options.snapshot_bytes,
                merge.to_commit().is_some(),
                worker.job.format.written(),
            );
            match sent {
                Ok(bytes) => worker.metrics.snapshot_bytes.inc_by(bytes),
                Err(Failed::Log(source)) => return Err(source).doing("a snapshot can't be sent"),
                Err(Failed::Snapshot(source)) => {
                    return Err(WorkerError::Snapshot {
                        partition: partition.clone(),
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    /// Takes note of snapshots that the commit has completed, and deletes the partials that they make needless.
    pub(super) fn snapshots_committed(&mut self) {
        let now_ms = self.worker.clock.now_ms();
        for (partition, snapshots) in &mut self.snapshots {
            if let Some((offset, cost)) = snapshots.committed() {
                self.worker.metrics.snapshots.inc();
                tracing::debug!(%partition, offset, "a snapshot was taken");
                if let Some(merge) = self.merges.get_mut(partition) {
                    merge.snapshot_taken(cost);
                }
            }
            let due = snapshots.delete_at_ms <= now_ms;
            let Some(before) = snapshots.to_delete.filter(|_| due) else {
                continue;
            };
            let topic_id = self.merges.get(partition).and_then(|merge| {
                let folded = self.worker.job.queries[merge.query_index].folded.as_ref();
                folded.map(|folded| folded.partials_topic_id.as_str())
            });
            match delete_of(self.worker.log.as_ref(), partition, before, topic_id) {
                Ok(true) => snapshots.to_delete = None,
                Ok(false) => {
                    snapshots.to_delete = None;
                    tracing::warn!(%partition, before, "the partials topic was deleted or created again meanwhile: none of its records are deleted");
                }
                Err(error) => {
                    snapshots.delete_at_ms = now_ms.saturating_add(DELETE_AGAIN_MS);
                    tracing::warn!(%partition, before, error = %chain(&error), "partials that a snapshot covers can't be deleted yet");
                }
            }
        }
    }
}
