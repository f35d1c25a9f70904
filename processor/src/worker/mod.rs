//! A worker: one consumer, one transactional producer, and the tasks of the partitions that the group gives it.

mod error;
mod keys;
mod output;
mod session;
mod transaction;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::spill::Spill;
use runtime::clock::Clock;
use runtime::lifecycle::Lifecycle;
use runtime::log::{Class, Log};
use runtime::telemetry::Condition;
use schemas::Registry;

pub use error::WorkerError;
pub(crate) use error::chain;

use crate::job::Job;
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::query::recent::RecentBounds;
use crate::record::{self, HandedOver};
use crate::takeover::handed_to;
use session::Session;

/// How a worker works.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// How often a transaction is committed.
    pub commit_interval: Duration,
    /// How many rows a source partition's range may hold before a transaction is committed early.
    pub max_range_rows: u64,
    /// The most records in one poll.
    pub max_poll_records: usize,
    /// How long the group waits for a silent worker.
    pub session_timeout: Duration,
    /// Whether a worker that leaves keeps its partitions for that long (KIP-345), and has them again if it is back by then.
    pub keep_partitions_on_stop: bool,
    /// How long a worker that was fenced waits to see whether another instance takes its place in the group: some heartbeats
    /// (a tenth of the session timeout).
    pub successor_wait: Duration,
    /// How long the broker lets a transaction stand open. Between the commit interval and the session timeout.
    pub transaction_timeout: Duration,
    /// Whether idle partitions stop holding the watermark back. Off where input is read to its end and then closed.
    pub idle_marks: bool,
    /// From which cost of folding partials again on a snapshot of a shard is taken, if its state is not larger still: a row
    /// counts 1, a record 200.
    pub snapshot_cost: u64,
    /// About how many bytes of a snapshot go into one transaction.
    pub snapshot_bytes: usize,
    /// About how many results of closed windows go into one transaction.
    pub max_close_rows: usize,
    /// Into blocks of how many rows large state is cut, if not as many as usual. All members must agree.
    pub block_rows: Option<usize>,
    /// How many of each query's last results are kept to be looked at.
    pub recent: RecentBounds,
}

impl Default for WorkerOptions {
    fn default() -> Self {
        Self {
            commit_interval: Duration::from_millis(100),
            max_range_rows: 262_144,
            max_poll_records: 16_384,
            session_timeout: Duration::from_secs(10),
            keep_partitions_on_stop: false,
            successor_wait: Duration::from_millis(2_500),
            transaction_timeout: Duration::from_secs(8),
            idle_marks: true,
            snapshot_cost: 1_000_000,
            snapshot_bytes: 4 * 1024 * 1024,
            max_close_rows: 262_144,
            block_rows: None,
            recent: RecentBounds::default(),
        }
    }
}

/// A worker, before it runs.
pub struct Worker {
    /// The job.
    pub job: Arc<Job>,
    /// Where it reads and writes.
    pub log: Arc<dyn Log>,
    /// Where schemas are.
    pub registry: Arc<dyn Registry>,
    /// Its slot's name, the same after a restart: its transactional id.
    pub slot: String,
    /// How it works.
    pub options: WorkerOptions,
    /// When to end.
    pub lifecycle: Lifecycle,
    /// Set when another worker of this process has failed: leave at once.
    pub abandon: Arc<AtomicBool>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is counted of dead letters.
    pub edge_metrics: runtime::metrics::Metrics,
    /// What can be looked at.
    pub progress: Arc<Progress>,
    /// Holds while no state is being restored.
    pub ready: Condition,
    /// Where large batches of the state go.
    pub spill: Arc<dyn Spill>,
    /// The folder for temporary files.
    pub spill_dir: PathBuf,
}

/// A worker that is fenced again within this time leaves.
const FENCED_TWICE_MS: i64 = 5 * 60 * 1000;

/// The longest pause between two sessions.
const MAX_PAUSE: Duration = Duration::from_secs(10);

/// For how long it is tried to hand an application over while the log fails.
const HAND_OVER_MS: i64 = 60_000;

impl Worker {
    /// Works until the lifecycle says to end, or until the input has ended if it says to drain.
    ///
    /// # Errors
    /// What a new session can't heal: another instance has taken the slot, or someone must act.
    pub fn run(&self) -> Result<(), WorkerError> {
        let mut pause = Duration::from_millis(100);
        let mut fenced_at = None;
        loop {
            let started = self.clock.now_ms();
            let error = match Session::open(self).and_then(Session::run) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            match error.class() {
                Class::Retry | Class::Abort | Class::Restart => {
                    if self.leaving() {
                        return Ok(());
                    }
                    tracing::warn!(slot = self.slot, error = %chain(&error), "a session was given up; starting another");
                    self.metrics.sessions.inc();
                }
                // The client says this, too, where the coordinator has timed the transaction out, as after a moment in
                // which this process or the broker stood still (KIP-588). Of two instances with one name the older one has
                // lost its place in the group, which it has waited for; if it did not see that, each fences the other, and
                // the one that began first is the first to be fenced twice, and leaves.
                Class::Fenced if error.may_be_a_timeout() => {
                    let now = self.clock.now_ms();
                    let twice = fenced_at
                        .replace(now)
                        .is_some_and(|before| now.saturating_sub(before) < FENCED_TWICE_MS);
                    if twice {
                        return Err(error);
                    }
                    if self.leaving() {
                        return Ok(());
                    }
                    tracing::warn!(slot = self.slot, error = %chain(&error), "the transaction was timed out, or another instance has taken this one's name; starting another session");
                    self.metrics.sessions.inc();
                }
                Class::Fenced | Class::Fatal => return Err(error),
            }
            if self.clock.now_ms().saturating_sub(started) > 60_000 {
                pause = Duration::from_millis(100);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    /// Hands the application over to `successor`: the worker must be its only member.
    ///
    /// # Errors
    /// Somebody has joined, it was handed over to another one, or someone must act. Nothing is decided then; it can be run
    /// again.
    pub fn hand_over(&self, successor: &str) -> Result<HandedOver, WorkerError> {
        let application_id = &self.job.options.application_id;
        let started = self.clock.now_ms();
        loop {
            // An attempt before may have come to its end without knowing, or have left its transaction open.
            record::settle(self.log.as_ref(), application_id)?;
            let known = record::read(self.log.as_ref(), application_id)?;
            let known = known.map(|known| handed_to(application_id, successor, &known));
            if let Some(handed_over) = known.transpose()?.flatten() {
                return Ok(handed_over);
            }
            let error = match Session::open(self).and_then(|of| of.hand_over(successor)) {
                Ok(handed_over) => return Ok(handed_over),
                Err(error) => error,
            };
            let in_time = self.clock.now_ms().saturating_sub(started) < HAND_OVER_MS;
            match error.class() {
                Class::Retry | Class::Abort | Class::Restart if in_time && !self.leaving() => {
                    tracing::warn!(error = %chain(&error), "the application could not be handed over; trying again");
                }
                // It is decided, and the record's topic does not show it yet.
                _ if in_time && matches!(error, WorkerError::HandedOver { .. }) => {}
                _ => return Err(error),
            }
            std::thread::sleep(MAX_PAUSE / 50);
        }
    }

    /// Whether there is no point in starting again.
    fn leaving(&self) -> bool {
        self.lifecycle.stopping() || self.abandon.load(Ordering::SeqCst)
    }
}
