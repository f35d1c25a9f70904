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
mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::dead_letter::{DeadLetterWriter, dlq_wanted};
use runtime::log::{Class, LogError, Producer, TopicDescription, TopicPartition};
use runtime::topics::{self, Use};
use schemas::SchemaId;
use tokio::runtime::Handle;

use self::session::Session;
use crate::error::{SinkError, Step, Stop, at_log, chain};
use crate::lake::{Lake, OpenLake};
use crate::ledger::PartitionLedger;
use crate::options::{Options, TopicOptions};
use crate::progress::Counts;

/// How long a call to the log is tried again in place before the session ends.
const LOG_DEADLINE: Duration = Duration::from_secs(60);

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
    let result = reach(&options, &lake, uploads.handle())
        .and_then(|()| Worker::new(options, lake, uploads.handle().clone()))
        .and_then(Worker::run);
    uploads.shutdown_background();
    result
}

/// Finds out whether the lake can be used, so that a wrong address or key shows at once and not with the first flush.
fn reach(options: &Options, lake: &OpenLake, uploads: &Handle) -> Result<(), SinkError> {
    if !matches!(&options.lake, Lake::At(location) if location.is_bucket()) {
        return Ok(());
    }
    let (began, mut failures) = (Instant::now(), 0);
    loop {
        match uploads.block_on(lake.probe()) {
            Ok(()) => {
                if failures > 0 {
                    tracing::info!(failures, "the lake can be used");
                }
                return Ok(());
            }
            Err(error)
                if error.may_pass_at_start()
                    && began.elapsed() < options.start_deadline
                    && !options.lifecycle.stopping() =>
            {
                failures += 1;
                // The last look is at the deadline, not a long pause behind it.
                let left = options.start_deadline.saturating_sub(began.elapsed());
                let pause = options.backoff.pause(failures).min(left);
                let reason = chain(&error);
                if failures.is_power_of_two() {
                    tracing::warn!(
                        failures,
                        reason,
                        pause_ms = pause.as_millis(),
                        "the lake can't be used yet, trying again"
                    );
                }
                options.nap(pause);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// What outlives a session.
struct Worker {
    options: Options,
    topics: BTreeMap<Arc<str>, Topic>,
    lake: OpenLake,
    uploads: Handle,
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
    fn new(options: Options, lake: OpenLake, uploads: Handle) -> Result<Self, SinkError> {
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
            topics::check(&description, Use::Records, self.options.durability)
                .map_err(SinkError::from)?;
            let wanted = dlq_wanted(&topic.name).durable(self.options.durability);
            let letters = &wanted.spec.name;
            if self
                .attempt("find the dead-letter topic", || {
                    self.options.log.topic(letters)
                })?
                .is_none()
                && self.attempt("create the dead-letter topic", || {
                    self.options.log.create_topic(&wanted.spec)
                })?
            {
                tracing::info!(topic = letters, "created a dead-letter topic");
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
            Ok(done) => {
                if failures > 0 {
                    tracing::info!(action, failures, "the log answers again");
                }
                return Ok(done);
            }
            Err(error) => {
                failures += 1;
                let again = error.class() == Class::Retry && began.elapsed() < LOG_DEADLINE;
                if !again || (options.lifecycle.stopping() && failures > 3) {
                    return Err(at_log(action, error));
                }
                let pause = options.backoff.pause(failures);
                // an outage may last long: it is told ever more rarely
                if failures.is_power_of_two() {
                    tracing::warn!(action, failures, reason = %error, pause_ms = pause.as_millis(), "the log failed, trying again");
                }
                options.nap(pause);
            }
        }
    }
}
