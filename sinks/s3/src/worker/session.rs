//! The life of one consumer.

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use runtime::lifecycle::Phase;
use runtime::log::Class;
use runtime::log::{Consumer, Event, LogError, Offset, OffsetCommit, TopicPartition};

use super::partition::Part;
use super::{Topic, Worker, attempt};
use crate::backoff::Backoff;
use crate::error::{SinkError, Step, at_log};
use crate::ledger::PartitionLedger;
use crate::options::Options;
use crate::plan::{Note, Refusal, Refused, Totals};
use crate::upload::Uploaded;

/// The most records of a poll.
const POLL_RECORDS: usize = 8192;
/// How long a poll waits when nothing is under way, and when something is.
const IDLE_WAIT: Duration = Duration::from_millis(50);
const BUSY_WAIT: Duration = Duration::from_millis(5);
/// How long leaving the group may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// How often lags are measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// The life of one consumer. What it holds is worth nothing once it is over.
pub(super) struct Session<'w> {
    pub(super) worker: &'w mut Worker,
    pub(super) consumer: Box<dyn Consumer>,
    pub(super) parts: BTreeMap<TopicPartition, Part>,
    pub(super) epoch: u64,
    pub(super) done: (Sender<Done>, Receiver<Done>),
    /// Where each partition ended when the input was said to be over.
    pub(super) targets: Option<BTreeMap<TopicPartition, Offset>>,
    pub(super) stopping_since: Option<Instant>,
    pub(super) poll_failures: u32,
    pub(super) measured: Option<Instant>,
    pub(super) asked: Option<Instant>,
}

/// An upload that has ended.
pub(super) struct Done {
    pub(super) partition: TopicPartition,
    pub(super) epoch: u64,
    pub(super) result: Result<Uploaded, SinkError>,
}

impl<'w> Session<'w> {
    pub(super) fn begin(worker: &'w mut Worker) -> Step<Self> {
        worker.describe_topics()?;
        worker.partitions.clear();
        let options = &worker.options;
        let mut consumer = attempt(options, "make a consumer", || {
            options.log.consumer(&options.consumer)
        })?;
        let names: Vec<&str> = options
            .topics
            .iter()
            .map(|topic| topic.name.as_str())
            .collect();
        attempt(options, "join the group", || consumer.subscribe(&names))?;
        Ok(Self {
            worker,
            consumer,
            parts: BTreeMap::new(),
            epoch: 0,
            done: mpsc::channel(),
            targets: None,
            stopping_since: None,
            poll_failures: 0,
            measured: None,
            asked: None,
        })
    }

    pub(super) fn run_to_its_end(mut self) -> Step<()> {
        let ended = self.turn_until_the_end();
        if ended.is_ok() {
            self.note_partitions();
        }
        // Uploads under way are given up before the group is left.
        self.parts.clear();
        if let Err(error) = self.consumer.close(CLOSE_DEADLINE) {
            tracing::warn!(reason = %error, "could not leave the group");
        }
        ended
    }

    fn turn_until_the_end(&mut self) -> Step<()> {
        loop {
            self.take_completions()?;
            self.flush_what_is_due()?;
            if self.is_over()? {
                return Ok(());
            }
            self.pause_and_resume()?;
            self.measure();
            // small flushes want small polls: what is polled beyond a flush's rows is in it
            let records =
                POLL_RECORDS.min(usize::try_from(self.options().flush.rows).unwrap_or(usize::MAX));
            let busy = self.options().lifecycle.phase() != Phase::Running
                || self.parts.values().any(Part::in_flight);
            match self
                .consumer
                .poll(if busy { BUSY_WAIT } else { IDLE_WAIT }, records)
            {
                Ok(None) => self.poll_failures = 0,
                Ok(Some(event)) => {
                    self.poll_failures = 0;
                    self.on_event(event)?;
                }
                Err(LogError::OffsetOutOfRange {
                    partition,
                    offset,
                    start,
                    end,
                }) => {
                    let refusal = if start > offset {
                        Refusal::Overtaken {
                            offset,
                            log_start: start,
                        }
                    } else {
                        Refusal::Truncated {
                            needed: offset,
                            log_end: end,
                        }
                    };
                    return Err(Refused { partition, refusal }.into());
                }
                Err(error) if error.class() == Class::Retry => {
                    self.poll_failures += 1;
                    let pause = self.options().backoff.pause(self.poll_failures);
                    tracing::warn!(reason = %error, pause_ms = pause.as_millis(), "the log can't be read, trying again");
                    self.options().nap(pause);
                }
                Err(error) => return Err(at_log("read", error)),
            }
        }
    }

    fn on_event(&mut self, event: Event) -> Step<()> {
        match event {
            Event::Records(batch) => self.on_records(&batch),
            Event::End {
                partition,
                position,
            } => {
                if let Some(part) = self.parts.get_mut(&partition)
                    && part.in_line()
                {
                    part.end_seen = Some(position);
                }
                Ok(())
            }
            Event::Assigned(partitions) => self.on_assigned(&partitions),
            Event::Revoked(partitions) => self.on_revoked(&partitions),
            Event::Lost(partitions) => self.on_lost(&partitions),
        }
    }

    pub(super) fn options(&self) -> &Options {
        &self.worker.options
    }

    pub(super) fn backoff(&self) -> Backoff {
        self.worker.options.backoff
    }

    /// Commits one partition's offset. Only for a partition that is owned: a [`Part`] is the proof.
    pub(super) fn commit(&mut self, part: &Part, offset: Offset, note: &Note) -> Step<()> {
        let metadata = note.encode().map_err(|source| SinkError::Plan {
            partition: part.partition.clone(),
            source,
        })?;
        let commit = [OffsetCommit {
            partition: part.partition.clone(),
            offset,
            metadata,
        }];
        let consumer = &mut self.consumer;
        attempt(&self.worker.options, "commit offsets", || {
            consumer.commit(&commit)
        })
    }

    /// A settled note of a partition.
    pub(super) fn settled(&self, part: &Part, totals: Totals) -> Note {
        Note::new(&self.topic_of(&part.partition).description.id, totals, None)
    }

    pub(super) fn topic_of(&self, partition: &TopicPartition) -> &Topic {
        // only partitions of subscribed topics are assigned, and each of those is in the map
        &self.worker.topics[&partition.topic]
    }

    fn note_partitions(&mut self) {
        for part in self.parts.values() {
            let Totals {
                from,
                rows,
                dead,
                files,
            } = part.totals;
            let pending = part.plan.is_some();
            let ledger = PartitionLedger {
                from,
                offset: part.at,
                rows,
                dead,
                files,
                pending,
            };
            self.worker
                .partitions
                .insert(part.partition.clone(), ledger);
        }
    }

    /// Tells lags, and how much room retention leaves.
    fn measure(&mut self) {
        let memory: usize = self.parts.values().map(Part::memory_bytes).sum();
        let metrics = &self.worker.options.metrics;
        metrics
            .memory_bytes
            .set(i64::try_from(memory).unwrap_or(i64::MAX));
        let recently = self
            .measured
            .is_some_and(|last| last.elapsed() < MEASURE_EVERY);
        // so that the first look is not wasted before there is anything to see
        if recently || self.parts.is_empty() {
            return;
        }
        self.measured = Some(Instant::now());
        for part in self.parts.values() {
            let Ok(bounds) = self.worker.options.log.bounds(&part.partition) else {
                continue;
            };
            let number = part.partition.partition.to_string();
            let labels = [&*part.partition.topic, number.as_str()];
            metrics
                .lag_records
                .with_label_values(&labels)
                .set((bounds.stable - part.at).max(0));
            metrics
                .headroom_records
                .with_label_values(&labels)
                .set((part.at - bounds.start).max(0));
        }
    }
}
