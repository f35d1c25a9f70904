//! The loop: one thread that reads, commits and answers rebalances, while uploads run beside it.
//!
//! ```text
//!   poll ─▶ records ─▶ Gather ──due──▶ commit(start, plan) ──▶ Upload (tokio) ──done──▶ dead letters ─▶ commit(end)
//!     └──▶ Assigned: committed offset ─▶ plan::decide ─▶ go on, finish a plan, or refuse
//! ```
//!
//! - A worker's life is a sequence of sessions, one consumer each. A commit of unknown outcome, or a place in the group that
//!   is over, ends the session: everything open is dropped, the group is left and joined again, and what is committed says
//!   where to go on. Nothing is lost, because nothing is uploaded before its plan stands.
//! - Partitions with an upload under way are paused; polling never stops.

mod finish;
mod flush;
mod partition;
mod read;
mod rebalance;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use runtime::dead_letter::{DeadLetterWriter, dlq_topic};
use runtime::lifecycle::Phase;
use runtime::log::{
    Class, Consumer, Event, LogError, Offset, OffsetCommit, Producer, TopicDescription,
    TopicPartition, TopicSpec,
};
use schemas::SchemaId;

use self::partition::Part;
use crate::backoff::Backoff;
use crate::error::{SinkError, Step, Stop, at_log};
use crate::lake::OpenLake;
use crate::ledger::PartitionLedger;
use crate::options::{Options, TopicOptions};
use crate::plan::{Note, Refusal, Refused, Totals};
use crate::progress::Counts;
use crate::upload::Uploaded;

/// The most records of a poll.
const POLL_RECORDS: usize = 8192;
/// How long a poll waits when nothing is under way, and when something is.
const IDLE_WAIT: Duration = Duration::from_millis(50);
const BUSY_WAIT: Duration = Duration::from_millis(5);
/// How long a call to the log is tried again in place before the session ends.
const LOG_DEADLINE: Duration = Duration::from_secs(60);
/// How long leaving the group may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// How often lags are measured.
const MEASURE_EVERY: Duration = Duration::from_secs(10);

/// What a run has done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// What this run committed.
    pub counts: Counts,
    /// The partitions that it had at its end, and what was written of each since the sink began with it.
    pub partitions: BTreeMap<TopicPartition, PartitionLedger>,
}

/// Writes topics to the lake until [`Options::lifecycle`] ends it. Blocks; call it on a thread of its own, outside any
/// async runtime.
///
/// - Draining: reads to the end of what is on the log in all partitions of all topics, writes it, commits, and returns once
///   the whole group has.
/// - Stopping: writes what is gathered, commits, and returns.
///
/// # Errors
/// [`SinkError`]. What was committed stays, and the next run goes on from there.
pub fn run(options: Options) -> Result<Summary, SinkError> {
    options.check()?;
    let lake = OpenLake::open(&options.lake)?;
    std::fs::create_dir_all(&options.spill_dir).map_err(|source| {
        SinkError::Write(crate::writer::WriteError::Spill {
            folder: options.spill_dir.clone(),
            source,
        })
    })?;
    let uploads = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("sink-s3-upload")
        .enable_all()
        .build()
        .map_err(|error| SinkError::Options {
            detail: format!("no thread can be started for uploads: {error}"),
        })?;
    let result = Worker::new(options, lake, uploads.handle().clone()).and_then(Worker::run);
    uploads.shutdown_background();
    result
}

/// What outlives a session.
struct Worker {
    options: Options,
    topics: BTreeMap<Arc<str>, Topic>,
    lake: OpenLake,
    uploads: tokio::runtime::Handle,
    producer: Option<Box<dyn Producer>>,
    letters: DeadLetterWriter,
    partitions: BTreeMap<TopicPartition, PartitionLedger>,
}

struct Topic {
    options: TopicOptions,
    description: TopicDescription,
    /// Pairs of reader's and writer's schema whose left-out fields were reported.
    reported: BTreeSet<(SchemaId, SchemaId)>,
}

impl Worker {
    fn new(
        options: Options,
        lake: OpenLake,
        uploads: tokio::runtime::Handle,
    ) -> Result<Self, SinkError> {
        let mut worker = Self {
            topics: BTreeMap::new(),
            producer: None,
            letters: DeadLetterWriter::new(
                "sink-s3",
                options.registry.clone(),
                options.edge_metrics.clone(),
            ),
            partitions: BTreeMap::new(),
            options,
            lake,
            uploads,
        };
        match worker.describe_topics() {
            Ok(()) => Ok(worker),
            Err(Stop::Fail(error)) => Err(error),
            Err(Stop::Rejoin(detail)) => Err(SinkError::Options {
                detail: format!("the log can't be reached: {detail}"),
            }),
        }
    }

    /// Asks what the topics are now, and creates the dead-letter topics that are not there.
    fn describe_topics(&mut self) -> Step<()> {
        for topic in self.options.topics.clone() {
            let name: Arc<str> = topic.name.as_str().into();
            let description = self.describe(&topic.name)?;
            let letters = dlq_topic(&topic.name);
            if self
                .attempt("find the dead-letter topic", || {
                    self.options.log.topic(&letters)
                })?
                .is_none()
            {
                let spec = TopicSpec::new(&letters, 1);
                if self.attempt("create the dead-letter topic", || {
                    self.options.log.create_topic(&spec)
                })? {
                    tracing::info!(topic = letters, "created a dead-letter topic");
                }
            }
            let reported = self
                .topics
                .remove(&name)
                .map(|known| known.reported)
                .unwrap_or_default();
            self.topics.insert(
                name,
                Topic {
                    options: topic,
                    description,
                    reported,
                },
            );
        }
        Ok(())
    }

    fn describe(&self, name: &str) -> Step<TopicDescription> {
        let found = self.attempt("find the topic", || self.options.log.topic(name))?;
        found.ok_or_else(|| {
            at_log(
                "find the topic",
                LogError::UnknownTopic { name: name.into() },
            )
        })
    }

    /// Calls the log, again if that may help.
    fn attempt<T>(
        &self,
        action: &'static str,
        call: impl FnMut() -> Result<T, LogError>,
    ) -> Step<T> {
        attempt(&self.options, action, call)
    }

    fn run(mut self) -> Result<Summary, SinkError> {
        let mut rejoins = 0;
        loop {
            let began = Instant::now();
            let ended = Session::begin(&mut self).and_then(Session::run_to_its_end);
            match ended {
                Ok(()) => break,
                Err(Stop::Fail(error)) => return Err(error),
                Err(Stop::Rejoin(reason)) => {
                    if self.options.lifecycle.stopping() {
                        return Err(SinkError::Unfinished { partitions: reason });
                    }
                    self.options.metrics.rejoins.inc();
                    rejoins = if began.elapsed() > LOG_DEADLINE {
                        1
                    } else {
                        rejoins + 1
                    };
                    let pause = self.options.backoff.pause(rejoins);
                    tracing::warn!(
                        reason,
                        pause_ms = pause.as_millis(),
                        "left the group, joining it again"
                    );
                    self.options.nap(pause);
                }
            }
        }
        Ok(Summary {
            counts: self.options.progress.counts(),
            partitions: self.partitions,
        })
    }
}

/// Calls the log; failures that may pass are tried again with growing pauses, up to a deadline.
fn attempt<T>(
    options: &Options,
    action: &'static str,
    mut call: impl FnMut() -> Result<T, LogError>,
) -> Step<T> {
    let (began, mut failures) = (Instant::now(), 0);
    loop {
        match call() {
            Ok(done) => return Ok(done),
            Err(error) => {
                failures += 1;
                let again = error.class() == Class::Retry && began.elapsed() < LOG_DEADLINE;
                if !again || (options.lifecycle.stopping() && failures > 3) {
                    return Err(at_log(action, error));
                }
                let pause = options.backoff.pause(failures);
                tracing::warn!(action, reason = %error, pause_ms = pause.as_millis(), "the log failed, trying again");
                options.nap(pause);
            }
        }
    }
}

/// The life of one consumer. What it holds is worth nothing once it is over.
struct Session<'w> {
    worker: &'w mut Worker,
    consumer: Box<dyn Consumer>,
    parts: BTreeMap<TopicPartition, Part>,
    epoch: u64,
    done: (Sender<Done>, Receiver<Done>),
    /// Where each partition ended when the input was said to be over.
    targets: Option<BTreeMap<TopicPartition, Offset>>,
    stopping_since: Option<Instant>,
    poll_failures: u32,
    measured: Option<Instant>,
    asked: Option<Instant>,
}

/// An upload that has ended.
struct Done {
    partition: TopicPartition,
    epoch: u64,
    result: Result<Uploaded, SinkError>,
}

impl<'w> Session<'w> {
    fn begin(worker: &'w mut Worker) -> Step<Self> {
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

    fn run_to_its_end(mut self) -> Step<()> {
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

    fn options(&self) -> &Options {
        &self.worker.options
    }

    fn backoff(&self) -> Backoff {
        self.worker.options.backoff
    }

    /// Commits one partition's offset. Only for a partition that is owned: a [`Part`] is the proof.
    fn commit(&mut self, part: &Part, offset: Offset, note: &Note) -> Step<()> {
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
    fn settled(&self, part: &Part, totals: Totals) -> Note {
        Note::new(&self.topic_of(&part.partition).description.id, totals, None)
    }

    fn topic_of(&self, partition: &TopicPartition) -> &Topic {
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
        if self
            .measured
            .is_some_and(|last| last.elapsed() < MEASURE_EVERY)
        {
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
