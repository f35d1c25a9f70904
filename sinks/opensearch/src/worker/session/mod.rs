//! One membership of the group, from joining it to leaving it.

mod membership;
mod writing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use runtime::lifecycle::Phase;
use runtime::log::{Batch, Bounds, Consumer, Event, LogError, Offset, TopicPartition};
use runtime::topics::{self, Use};

use crate::ledger::Ledger;
use crate::target::Pacing;
use crate::worker::letters::DeadLetters;
use crate::worker::recovery::{self, Remedy};
use crate::worker::round::Round;
use crate::worker::topic::{Topic, Undecoded};
use crate::worker::{Options, SinkError};

/// How long leaving the group may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// The longest wait in a poll: how late a word from the lifecycle may be heard.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// The most records of one poll.
const POLL_RECORDS: usize = 2_000;

/// How a session ended.
pub(super) enum Ended {
    /// As the lifecycle asked.
    Finished,
    /// The group must be joined anew.
    Rejoin {
        /// Why.
        error: LogError,
        /// Whether something was committed in this session.
        worked: bool,
    },
    /// Someone must act.
    Failed(SinkError),
}

impl From<SinkError> for Ended {
    fn from(error: SinkError) -> Self {
        Self::Failed(error)
    }
}

/// A partition that this member reads.
struct Held {
    /// Up to where its records are taken.
    position: Offset,
    committed: Offset,
    ledger: Ledger,
}

pub(super) struct Session<'a> {
    options: &'a Options,
    letters: &'a mut DeadLetters,
    pacing: &'a mut Pacing,
    consumer: Box<dyn Consumer>,
    topics: BTreeMap<Arc<str>, Topic>,
    held: BTreeMap<TopicPartition, Held>,
    /// Given to this member and not yet answered.
    joining: Vec<TopicPartition>,
    /// Taken from this member and not yet answered.
    leaving: Vec<TopicPartition>,
    round: Round,
    /// A batch that could not be decoded yet.
    stalled: Option<Batch>,
    /// The round is being written and committed; nothing is added to it.
    flushing: bool,
    /// When a position moved past the committed one with nothing in hand, as behind control records.
    moved: Option<Instant>,
    /// Nothing is tried before this moment.
    wait_until: Option<Instant>,
    /// Failures in a row at the log or the registry.
    failures: u32,
    /// Since when the target, or the registry, can't be used.
    trouble: Option<Instant>,
    paused: bool,
    /// The last poll brought nothing.
    quiet: bool,
    worked: bool,
    record_bytes: usize,
    /// What each partition held when draining began.
    goal: Option<BTreeMap<TopicPartition, Bounds>>,
    looked: Option<Instant>,
}

impl<'a> Session<'a> {
    /// Joins the group.
    pub fn start(
        options: &'a Options,
        letters: &'a mut DeadLetters,
        pacing: &'a mut Pacing,
    ) -> Result<Self, Ended> {
        let ended = |error: LogError| match recovery::remedy(error.class(), 0) {
            Remedy::Again | Remedy::Rejoin => Ended::Rejoin {
                error,
                worked: false,
            },
            Remedy::Leave => SinkError::Fenced(error).into(),
            Remedy::Fail => SinkError::Log(error).into(),
        };
        let mut known = BTreeMap::new();
        for settings in &options.topics {
            let name = settings.topic.as_str();
            let Some(found) = options.log.topic(name).map_err(ended)? else {
                return Err(SinkError::Log(LogError::UnknownTopic {
                    name: name.to_owned(),
                })
                .into());
            };
            topics::check(&found, Use::Any, options.durability).map_err(SinkError::Topic)?;
            letters.prepare(name).map_err(ended)?;
            known.insert(
                Arc::from(name),
                Topic::new(settings.clone(), found.id, found.partitions),
            );
        }
        let mut consumer = options.log.consumer(&options.consumer).map_err(ended)?;
        let names: Vec<&str> = known.values().map(Topic::name).collect();
        consumer.subscribe(&names).map_err(ended)?;
        options.condition.ready();
        Ok(Self {
            options,
            letters,
            pacing,
            consumer,
            topics: known,
            held: BTreeMap::new(),
            joining: Vec::new(),
            leaving: Vec::new(),
            round: Round::default(),
            stalled: None,
            flushing: false,
            moved: None,
            wait_until: None,
            failures: 0,
            trouble: None,
            paused: false,
            quiet: false,
            worked: false,
            record_bytes: 1,
            goal: None,
            looked: None,
        })
    }

    /// Works until the session ends.
    pub fn run(mut self) -> Ended {
        let ended = loop {
            match self.turn() {
                Ok(false) => {}
                Ok(true) => break Ended::Finished,
                Err(ended) => break ended,
            }
        };
        self.options
            .progress
            .unfinished
            .fetch_add(self.round.waiting() as u64, Relaxed);
        self.options.progress.paused.store(false, Relaxed);
        self.options.metrics.paused.set(0);
        self.options.metrics.in_hand_bytes.set(0);
        match &ended {
            // neither may call the consumer again: nobody knows what it is now
            Ended::Rejoin { .. } | Ended::Failed(SinkError::Fenced(_)) => {}
            Ended::Finished | Ended::Failed(_) => {
                if let Err(error) = self.consumer.close(CLOSE_DEADLINE) {
                    tracing::warn!(%error, "the group was not left in order: it waits for the session timeout");
                }
            }
        }
        ended
    }

    /// One turn of the loop; whether the run is over.
    fn turn(&mut self) -> Result<bool, Ended> {
        let phase = self.options.lifecycle.phase();
        if phase == Phase::Stopping {
            self.finish_in_hand()?;
            return Ok(true);
        }
        self.answer()?;
        self.work(phase)?;
        if phase == Phase::Draining && self.drained()? {
            return Ok(true);
        }
        self.hold_or_release()?;
        self.poll()?;
        Ok(false)
    }

    /// A failure at the log: a pause, or the end of the session.
    fn log_failure(&mut self, error: LogError) -> Result<(), Ended> {
        match recovery::remedy(error.class(), self.failures) {
            Remedy::Again => {
                self.pause_for(&error);
                Ok(())
            }
            Remedy::Rejoin => Err(Ended::Rejoin {
                error,
                worked: self.worked,
            }),
            Remedy::Leave => Err(SinkError::Fenced(error).into()),
            Remedy::Fail => Err(SinkError::Log(error).into()),
        }
    }

    fn pause_for(&mut self, error: &dyn std::error::Error) {
        let pause = recovery::pause(self.failures);
        self.failures = self.failures.saturating_add(1);
        self.wait(pause);
        // An outage may last for hours: it is told ever more rarely.
        if self.failures.is_power_of_two() {
            tracing::warn!(
                %error,
                failures = self.failures,
                pause_seconds = pause.as_secs_f64(),
                "trying again after a pause"
            );
        }
    }

    /// After a success at the log or the registry.
    fn no_failure(&mut self) {
        if self.failures > 0 {
            tracing::info!(failures = self.failures, "going on after failures");
            self.failures = 0;
        }
    }

    /// The target, or the registry, can't be used: this process is not ready.
    fn in_trouble(&mut self, error: &dyn std::error::Error) {
        self.trouble.get_or_insert_with(Instant::now);
        self.options
            .condition
            .waiting(format!("paused, nothing is lost: {error}"));
    }

    fn out_of_trouble(&mut self) {
        if let Some(since) = self.trouble.take() {
            let after_seconds = since.elapsed().as_secs();
            tracing::info!(after_seconds, "documents are stored again");
            self.options.condition.ready();
        }
    }

    fn wait(&mut self, pause: Duration) {
        self.wait_until = Some(Instant::now() + pause);
    }

    fn waiting(&self) -> bool {
        self.wait_until.is_some_and(|until| Instant::now() < until)
    }

    fn poll(&mut self) -> Result<(), Ended> {
        let now = Instant::now();
        let mut wait = POLL_WAIT;
        if let Some(until) = self.wait_until {
            wait = wait.min(
                until
                    .saturating_duration_since(now)
                    .max(Duration::from_millis(1)),
            );
        } else if let Some(since) = self.round.opened().or(self.moved) {
            let left = (since + self.options.flush_interval).saturating_duration_since(now);
            wait = wait.min(left.max(Duration::from_millis(1)));
        }
        self.quiet = false;
        match self.consumer.poll(wait, self.poll_records()) {
            Ok(None) => self.quiet = true,
            Ok(Some(Event::Records(batch))) => self.take(batch)?,
            Ok(Some(Event::End {
                partition,
                position,
            })) => self.reached(&partition, position),
            Ok(Some(Event::Assigned(partitions))) => self.joining.extend(partitions),
            Ok(Some(Event::Revoked(partitions))) => self.give_back(partitions)?,
            Ok(Some(Event::Lost(partitions))) => {
                tracing::warn!(
                    count = partitions.len(),
                    "partitions were lost: others go on from what is committed"
                );
                self.forget(partitions);
            }
            Err(error) => {
                let passes = recovery::passes(&error);
                self.log_failure(error)?;
                if passes {
                    std::thread::sleep(POLL_WAIT);
                }
            }
        }
        Ok(())
    }

    /// So many that their bytes fit into one flush, as far as can be known.
    fn poll_records(&self) -> usize {
        let room = self.options.flush_bytes.saturating_sub(self.round.bytes());
        (room / self.record_bytes).clamp(1, POLL_RECORDS)
    }

    fn reached(&mut self, partition: &TopicPartition, position: Offset) {
        if let Some(held) = self.held.get_mut(partition) {
            held.position = held.position.max(position);
            if held.position > held.committed {
                self.moved.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Takes a batch into the round.
    fn take(&mut self, batch: Batch) -> Result<(), Ended> {
        let Some(topic) = self.topics.get_mut(&batch.partition.topic) else {
            return Ok(());
        };
        let Some(held) = self.held.get_mut(&batch.partition) else {
            return Ok(());
        };
        let decoded = match topic.decode(&self.options.registry, &*self.options.target, &batch) {
            Ok(decoded) => decoded,
            Err(Undecoded::Later(error)) => {
                self.stalled = Some(batch);
                self.in_trouble(&error);
                self.pause_for(&error);
                return Ok(());
            }
            Err(Undecoded::Failed(error)) => return Err(error.into()),
        };
        held.position = held.position.max(batch.next_position());
        let bytes: usize = batch
            .iter()
            .map(|record| record.value.map_or(0, <[u8]>::len))
            .sum();
        // a document is a few times as large as its record
        self.record_bytes = (bytes * 4 / batch.len()).max(self.record_bytes / 2).max(64);
        self.options
            .metrics
            .records
            .with_label_values(&[topic.name()])
            .inc_by(batch.len() as u64);
        self.round.add(batch, decoded, Instant::now());
        self.no_failure();
        self.out_of_trouble();
        self.options
            .metrics
            .in_hand_bytes
            .set(self.round.bytes() as i64);
        Ok(())
    }
}
