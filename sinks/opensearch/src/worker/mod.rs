//! The worker: reads topics as a member of a consumer group, stores their records as documents, then commits.
//!
//! ```text
//!   poll ──batch──▶ Topic ──documents──▶ Round ──bulks──▶ Target ──outcomes──▶ Round ──settled──▶ flush dead letters
//!                      └─ bad records ─▶ Round.letters ◀── rejected ──┘                              └─▶ commit offsets
//! ```
//!
//! - Offsets are committed after their documents are stored and their dead letters are flushed: what a crash leaves
//!   uncommitted is read again, and versions make that harmless.
//! - While the target, the log or the registry can't be reached, partitions are paused and polling goes on: membership
//!   lasts, memory does not grow, and nothing needs a restart.
//! - Nothing in the ledger of a committed offset depends on when commits fell.

mod letters;
mod recovery;
mod round;
mod session;
mod topic;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use runtime::dead_letter::DeadLetterError;
use runtime::lifecycle::Lifecycle;
use runtime::log::{ConsumerOptions, Log, LogError, Offset, ProducerOptions, TopicPartition};
use runtime::telemetry::{Condition, Readiness};
use runtime::topics::{Durability, Unfit};
use schemas::decode::DecodeError;
use schemas::{Registry, RegistryError};

use crate::ledger::LedgerError;
use crate::metrics::Metrics;
use crate::settings::{SettingsError, TopicSettings};
use crate::target::{Pacing, PacingOptions, Target, TargetError};

use letters::DeadLetters;
use session::{Ended, Session};

/// What a run needs.
pub struct Options {
    /// The log to read from.
    pub log: Arc<dyn Log>,
    /// The registry that knows the records' schemas.
    pub registry: Arc<dyn Registry>,
    /// The topics, and how their records become documents.
    pub topics: Vec<TopicSettings>,
    /// Where documents go.
    pub target: Arc<dyn Target>,
    /// The consumer group and its timeouts.
    pub consumer: ConsumerOptions,
    /// How dead letters are written.
    pub producer: ProducerOptions,
    /// Bulk sizes and pauses.
    pub pacing: PacingOptions,
    /// Documents are written, and offsets committed, when this many bytes are in hand. What is in memory is bounded by
    /// this and one poll's records.
    pub flush_bytes: usize,
    /// The same, at the latest after this time.
    pub flush_interval: Duration,
    /// How many brokers must have what is written: topics are refused with less.
    pub durability: Durability,
    /// Whether documents are stored, for readiness.
    pub condition: Condition,
    /// Tells the run to end.
    pub lifecycle: Lifecycle,
    /// What is measured.
    pub metrics: Metrics,
    /// What is measured of dead letters.
    pub edge_metrics: runtime::metrics::Metrics,
    /// How far the run is, for others to look at.
    pub progress: Arc<Progress>,
}

impl Options {
    /// A run with the usual sizes and times.
    ///
    /// # Errors
    /// When the metrics are registered already.
    pub fn new(
        log: Arc<dyn Log>,
        registry: Arc<dyn Registry>,
        target: Arc<dyn Target>,
        group: &str,
        topics: Vec<TopicSettings>,
        metrics: &prometheus::Registry,
        edge_metrics: runtime::metrics::Metrics,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            log,
            registry,
            topics,
            target,
            consumer: ConsumerOptions::new(group),
            producer: ProducerOptions::idempotent(format!("{group}-dead-letters")),
            pacing: PacingOptions::default(),
            flush_bytes: 5 << 20,
            flush_interval: Duration::from_secs(1),
            durability: Durability::default(),
            condition: Readiness::new().condition("documents"),
            lifecycle: Lifecycle::new(),
            metrics: Metrics::new(metrics)?,
            edge_metrics,
            progress: Arc::default(),
        })
    }
}

/// How far a run is. All numbers are of this run, replays counted again.
#[derive(Debug, Default)]
pub struct Progress {
    stored: AtomicU64,
    conflicts: AtomicU64,
    dead: AtomicU64,
    retried: AtomicU64,
    unfinished: AtomicU64,
    paused: AtomicBool,
}

impl Progress {
    /// The numbers now.
    pub fn snapshot(&self) -> Summary {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Summary {
            stored: read(&self.stored),
            conflicts: read(&self.conflicts),
            dead: read(&self.dead),
            retried: read(&self.retried),
            unfinished: read(&self.unfinished),
        }
    }

    /// Whether partitions are paused because the target, the log or the registry can't be reached.
    pub fn paused(&self) -> bool {
        self.paused.load(Ordering::Relaxed)
    }
}

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Documents stored, new versions of the same one included.
    pub stored: u64,
    /// Documents of which the target had this version or a higher one.
    pub conflicts: u64,
    /// Records that became dead letters.
    pub dead: u64,
    /// Documents sent again after a pause.
    pub retried: u64,
    /// Documents taken but neither stored nor rejected: not committed, the next start reads them again.
    pub unfinished: u64,
}

/// Why a run ended before its time.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The settings can't be used.
    #[error("the sink's settings can't be used")]
    Settings(#[from] SettingsError),
    /// The log needs someone.
    #[error("the sink can't go on with the log")]
    Log(#[source] LogError),
    /// Another instance has taken this one's place.
    #[error("another instance has taken this one's place; this one leaves the work to it")]
    Fenced(#[source] LogError),
    /// The target needs someone.
    #[error("the sink can't go on with its target")]
    Target(#[from] TargetError),
    /// The registry needs someone.
    #[error("the sink can't go on with the schema registry")]
    Registry(#[source] RegistryError),
    /// A topic has no schema.
    #[error(
        "the registry has no schema under {subject}: register one with `schemas register`, or start what writes topic {topic}"
    )]
    NoSchema {
        /// The topic.
        topic: String,
        /// Where its schema is looked for.
        subject: String,
    },
    /// A topic's schema can't be used.
    #[error("the records of topic {topic} can't be decoded")]
    Decoder {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// Dead letters can't be written.
    #[error("dead letters can't be written")]
    DeadLetter(#[source] DeadLetterError),
    /// A topic's settings would lose data.
    #[error(transparent)]
    Topic(#[from] Unfit),
    /// The group's offsets belong to somebody else.
    #[error("the sink can't take up where its group stands")]
    Ledger(#[from] LedgerError),
    /// The topic was deleted and made anew.
    #[error(
        "topic {topic} was deleted and created again since group {group} read it (its id was {was}, and is {now}): offsets and ids of the old one mean nothing there; use a new group, and new indices for documents without key fields"
    )]
    OtherTopic {
        /// The topic.
        topic: String,
        /// The group.
        group: String,
        /// The id in the ledger.
        was: String,
        /// The id now.
        now: String,
    },
    /// Records were deleted before they were read.
    #[error(
        "{partition} holds offsets {start} to {end}, and group {group} stands at {committed}: the records in between can't be read; to go on without them, reset the group's offset by hand"
    )]
    Gap {
        /// The partition.
        partition: TopicPartition,
        /// The group.
        group: String,
        /// Where the group stands.
        committed: Offset,
        /// The first offset there.
        start: Offset,
        /// The end.
        end: Offset,
    },
}

/// Reads the topics until the lifecycle says otherwise, or someone must act. Blocks the calling thread.
///
/// [`Draining`](runtime::lifecycle::Phase::Draining): goes on until the group has committed all that was on the log when
/// draining began, whichever member did it. [`Stopping`](runtime::lifecycle::Phase::Stopping): finishes what is in hand,
/// if the target can be reached, and returns.
///
/// # Errors
/// When someone must act; nothing was committed that is not stored.
pub fn run(options: Options) -> Result<Summary, SinkError> {
    crate::settings::check(&options.topics)?;
    let mut letters = DeadLetters::new(&options);
    let mut pacing = Pacing::new(options.pacing);
    let mut rejoins = 0_u32;
    loop {
        let ended = match Session::start(&options, &mut letters, &mut pacing) {
            Ok(session) => session.run(),
            Err(ended) => ended,
        };
        match ended {
            Ended::Finished => return Ok(options.progress.snapshot()),
            Ended::Failed(error) => return Err(error),
            Ended::Rejoin { error, worked } => {
                rejoins = if worked { 0 } else { rejoins.saturating_add(1) };
                options.metrics.rejoins.inc();
                let pause = recovery::pause(rejoins);
                tracing::warn!(%error, pause_seconds = pause.as_secs_f64(), "joining the group anew");
                rest(&options.lifecycle, pause);
                if options.lifecycle.stopping() {
                    return Ok(options.progress.snapshot());
                }
            }
        }
    }
}

/// Sleeps, but not when the run is to stop.
fn rest(lifecycle: &Lifecycle, pause: Duration) {
    let until = Instant::now() + pause;
    while !lifecycle.stopping() {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        std::thread::sleep(left.min(Duration::from_millis(50)));
    }
}
