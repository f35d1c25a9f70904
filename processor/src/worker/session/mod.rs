//! One session of a worker: from joining the group to leaving it, or to a failure that a new session heals.
//!
//! ```text
//!   poll ──▶ records ──▶ tasks ──▶ results, late rows, dead letters ─┐
//!     │                                                             ├─▶ one transaction per commit interval
//!     │  every commit interval: close ranges ──▶ partials ──────────┤
//!     │                         offsets of both topics ─────────────┘
//!     ├──▶ Assigned: read the committed offsets, restore state, make tasks, begin to read
//!     ├──▶ Revoked:  commit (or roll back), drop the tasks, let go
//!     └──▶ Lost:     roll back, drop the tasks, let go
//! ```

mod assignment;
mod closes;
mod commit;
mod drain;
mod formats;
mod handover;
mod partitions;
mod pauses;
mod predecessor;
mod restores;
mod show;
mod snapshots;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use runtime::lifecycle::Phase;
use runtime::log::{
    Batch, Class, Consumer, ConsumerOptions, Event, Offset, ProducerOptions, TopicPartition,
};

use super::error::{Doing, chain};
use super::output::Outputs;
use super::transaction::Transaction;
use super::{Worker, WorkerError};
use crate::format;
use crate::task::merge::MergeTask;
use crate::task::scan::ScanTask;
use drain::Drained;
use handover::Handing;
use pauses::Pauses;
use predecessor::Following;
use restores::Restoring;
use snapshots::Snapshots;
use upstream::Upstream;

/// How long a source partition rests after the registry could not be reached.
const REGISTRY_PAUSE_MS: i64 = 500;
/// How often it is looked at what is restored.
const RESTORE_STEP: Duration = Duration::from_millis(2);
/// How long a session waits for its group when it leaves.
const LEAVE_DEADLINE: Duration = Duration::from_secs(10);

pub(super) struct Session<'a> {
    worker: &'a Worker,
    consumer: Box<dyn Consumer>,
    transaction: Transaction,
    outputs: Outputs,
    scans: BTreeMap<TopicPartition, ScanTask>,
    merges: BTreeMap<TopicPartition, MergeTask>,
    /// Partials partitions whose shards' state is read first.
    restores: BTreeMap<TopicPartition, Restoring>,
    snapshots: BTreeMap<TopicPartition, Snapshots>,
    /// Partials partitions that wait until the results of what was read are out.
    closing: BTreeSet<TopicPartition>,
    pauses: Pauses,
    /// How many partitions each source topic has.
    partitions: BTreeMap<String, i32>,
    last_partitions_ms: i64,
    /// Where the record of the job ended when it was last read.
    record_end: Offset,
    drained: Drained,
    upstream: Upstream,
    following: Following,
    /// Set where the application is handed over: sources are not read.
    handing: Option<Handing>,
    last_commit_ms: i64,
    last_heard_ms: i64,
    /// The last question for open windows that was answered.
    answered: u64,
    /// The last question for state that was answered.
    answered_view: u64,
    aborts: u32,
    /// Whether the group has answered, and what it gave is under way.
    joined: bool,
}

impl<'a> Session<'a> {
    /// Joins the group and takes over the slot's transactional id.
    pub(super) fn open(worker: &'a Worker) -> Result<Self, WorkerError> {
        let application_id = &worker.job.options.application_id;
        let producer = worker
            .log
            .producer(&ProducerOptions {
                transaction_timeout: worker.options.transaction_timeout,
                linger: Duration::ZERO,
                counts: false,
                ..ProducerOptions::transactional(format!("{application_id}-{}", worker.slot))
            })
            .doing("the worker's producer can't be made")?;
        let written = worker.job.written_topics();
        let transaction = Transaction::take_over(
            producer,
            worker.log.as_ref(),
            written.iter().map(String::as_str),
        )
        .doing("the worker's transactional id can't be taken")?;
        let member = format::client_id(application_id, &worker.slot, worker.job.format.newest());
        let mut consumer = worker
            .log
            .consumer(&ConsumerOptions {
                client_id: member.clone(),
                // Whoever comes back under it, even from a crash, has its place at once. Another release is another member:
                // brokers go on showing the client id of the one whose place was taken.
                instance_id: Some(member),
                session_timeout: worker.options.session_timeout,
                ..ConsumerOptions::new(application_id)
            })
            .doing("the worker's consumer can't be made")?;
        consumer
            .subscribe(&worker.job.subscription())
            .doing("the worker can't join its group")?;
        let mut partitions = BTreeMap::new();
        for topic in worker.job.sources.keys() {
            let found = worker
                .log
                .topic(topic)
                .doing("the source topic can't be looked at")?;
            partitions.insert(topic.clone(), found.map_or(0, |found| found.partitions));
        }
        Ok(Self {
            outputs: Outputs::new(
                &worker.job,
                &worker.registry,
                &worker.metrics,
                &worker.edge_metrics,
                worker.options.recent,
            )?,
            worker,
            consumer,
            transaction,
            scans: BTreeMap::new(),
            merges: BTreeMap::new(),
            restores: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            closing: BTreeSet::new(),
            pauses: Pauses::default(),
            partitions,
            last_partitions_ms: worker.clock.now_ms(),
            // Read when the job was loaded; what has come since then, soon.
            record_end: 0,
            drained: Drained::default(),
            upstream: Upstream::default(),
            following: Following::default(),
            handing: None,
            last_commit_ms: worker.clock.now_ms(),
            last_heard_ms: 0,
            answered: 0,
            answered_view: 0,
            aborts: 0,
            joined: false,
        })
    }

    /// Works until the end, and leaves the group.
    pub(super) fn run(mut self) -> Result<(), WorkerError> {
        let worked = self.work();
        let all: Vec<_> = self
            .scans
            .keys()
            .chain(self.merges.keys())
            .chain(self.restores.keys())
            .cloned()
            .collect();
        self.forget(&all);
        match worked {
            Ok(()) if self.worker.options.keep_partitions_on_stop => self
                .consumer
                .close_for_a_moment(LEAVE_DEADLINE)
                .doing("the log's client can't be closed"),
            Ok(()) => self
                .consumer
                .close(LEAVE_DEADLINE)
                .doing("the group can't be left"),
            Err(error) => {
                let taken = match error.may_be_a_timeout() {
                    true => self.place_taken(),
                    false => None,
                };
                let error = taken.unwrap_or(error);
                // Others may go on at once with what this session had; the new producer settles its last transaction.
                // Where that fails too, the group's session timeout does it.
                let _ = self.consumer.close(LEAVE_DEADLINE);
                Err(error)
            }
        }
    }

    /// That another instance has this worker's place in the group, if one takes it within the next heartbeats: whoever takes
    /// over its transactional id then joins under its name. So a fenced producer is told from one whose transaction was timed
    /// out, and the older of two instances leaves without having disturbed the newer one.
    fn place_taken(&mut self) -> Option<WorkerError> {
        let until = Instant::now() + self.worker.options.successor_wait;
        while Instant::now() < until {
            match self.consumer.poll(Duration::from_millis(50), 1) {
                Err(error) if error.class() == Class::Fenced => {
                    return Some(WorkerError::Log {
                        action: "the worker has lost its place",
                        source: error,
                    });
                }
                Ok(Some(Event::Lost(partitions) | Event::Revoked(partitions))) => {
                    // leaving gives back what can't be given back here
                    let _ = self.consumer.unassign(&partitions);
                }
                Ok(_) | Err(_) => {}
            }
        }
        None
    }

    fn work(&mut self) -> Result<(), WorkerError> {
        loop {
            let draining = self.worker.lifecycle.phase() == Phase::Draining;
            if self.worker.leaving() || (draining && self.drained()?) {
                self.commit()?;
                return self
                    .transaction
                    .abort()
                    .doing("the last transaction can't be ended");
            }
            match self
                .consumer
                .poll(self.wait(), self.worker.options.max_poll_records)
            {
                Ok(Some(event)) => self.take(event)?,
                Ok(None) => {}
                Err(error) if error.class() == Class::Retry => {
                    tracing::warn!(slot = self.worker.slot, error = %chain(&error), "the log can't be read; trying again");
                    std::thread::sleep(Duration::from_millis(100));
                }
                Err(error) => return Err(error).doing("the log can't be read"),
            }
            self.wake()?;
            if !self.joined && self.consumer.in_group() {
                self.joined = true;
                self.worker.progress.joined(&self.worker.slot);
            }
            if self.commit_is_due() {
                self.commit()?;
            }
        }
    }

    fn take(&mut self, event: Event) -> Result<(), WorkerError> {
        match event {
            Event::Records(batch) => match self.up_to_predecessor(batch)? {
                Some(batch) => self.records(&batch),
                None => Ok(()),
            },
            Event::End {
                partition,
                position,
            } => {
                let now_ms = self.worker.clock.now_ms();
                if let Some(scan) = self.scans.get_mut(&partition) {
                    scan.reached_end(position, now_ms);
                } else if let Some(merge) = self.merges.get_mut(&partition) {
                    merge.reached_end(position);
                    self.drained.reached_end(&partition, position);
                    self.show(&partition);
                }
                Ok(())
            }
            Event::Assigned(partitions) => self.assigned(partitions),
            Event::Revoked(partitions) => {
                tracing::info!(
                    slot = self.worker.slot,
                    partitions = partitions.len(),
                    "partitions go to others"
                );
                self.commit()?;
                self.let_go(&partitions)
            }
            Event::Lost(partitions) => {
                tracing::warn!(
                    slot = self.worker.slot,
                    partitions = partitions.len(),
                    "partitions were lost to others"
                );
                // They can't be read any more, not even again from their last commit.
                self.forget(&partitions);
                self.roll_back("partitions were lost")?;
                self.let_go(&partitions)
            }
        }
    }

    fn records(&mut self, batch: &Batch) -> Result<(), WorkerError> {
        let partition = &batch.partition;
        if let Some(scan) = self.scans.get_mut(partition) {
            let now_ms = self.worker.clock.now_ms();
            let taken = scan
                .take(batch, now_ms)
                .map_err(|source| WorkerError::Scan {
                    partition: partition.clone(),
                    source,
                })?;
            self.worker.metrics.records_in.inc_by(batch.len() as u64);
            for dead in &taken.dead {
                let sent = self
                    .outputs
                    .dead_letter(&mut self.transaction, partition, dead);
                if let Err(error) = sent {
                    return self.abort_or(error, "a dead letter can't be sent");
                }
            }
            if let Some((offset, error)) = taken.stopped {
                tracing::warn!(%partition, offset, error = %chain(&error), "a source partition waits for the schema registry");
                self.consumer
                    .seek(partition, offset)
                    .doing("a partition can't be read again")?;
                self.pauses
                    .rest(
                        self.consumer.as_mut(),
                        partition,
                        now_ms + REGISTRY_PAUSE_MS,
                    )
                    .doing("a partition can't be paused")?;
            }
        } else if let Some(merge) = self.merges.get_mut(partition) {
            let mut given = Vec::new();
            merge.take(batch, &mut given)?;
            self.worker.metrics.partials_in.inc_by(batch.len() as u64);
            for given in given {
                let shard = Some(partition.partition);
                let sent =
                    self.outputs
                        .given(&mut self.transaction, merge.query_index, shard, given);
                if let Err(error) = sent {
                    return self.abort_or(error, "results can't be sent");
                }
            }
            if merge.is_closing() {
                let position = merge.position();
                self.consumer
                    .seek(partition, position)
                    .doing("a partition can't be read again")?;
                self.hold_closing()?;
            }
            self.hold_waiting(partition)?;
            self.show(partition);
        }
        // Records of a partition that was let go in the meantime are another's to read.
        Ok(())
    }

    /// Resumes partitions whose rest is over, pauses those too far ahead, and lets the scans look at the clock.
    fn wake(&mut self) -> Result<(), WorkerError> {
        let now_ms = self.worker.clock.now_ms();
        self.pauses
            .wake(self.consumer.as_mut(), now_ms)
            .doing("partitions can't be resumed")?;
        self.look_for_partitions(now_ms)?;
        self.restore()?;
        self.go_on()?;
        self.align(now_ms)?;
        self.listen_upstream(now_ms)?;
        self.follow(now_ms)?;
        self.tick(now_ms);
        Ok(())
    }

    /// How long a poll may wait.
    fn wait(&self) -> Duration {
        match self.restores.is_empty() {
            _ if !self.closing.is_empty() => Duration::ZERO,
            true => self.until_commit(),
            // What is restored is read by consumers of its own.
            false => self.until_commit().min(RESTORE_STEP),
        }
    }

    fn until_commit(&self) -> Duration {
        let since = self
            .worker
            .clock
            .now_ms()
            .saturating_sub(self.last_commit_ms);
        let since = Duration::from_millis(u64::try_from(since).unwrap_or(0));
        self.worker.options.commit_interval.saturating_sub(since)
    }

    fn commit_is_due(&self) -> bool {
        self.until_commit().is_zero()
            || !self.closing.is_empty()
            || self
                .scans
                .values()
                .any(|scan| scan.rows_in_range() >= self.worker.options.max_range_rows)
    }
}
