//! One membership of the group, from joining it to leaving it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use runtime::dead_letter::DeadLetterError;
use runtime::lifecycle::Phase;
use runtime::log::{
    Batch, Bounds, Consumer, Event, LogError, Offset, OffsetCommit, TopicPartition,
};

use super::letters::DeadLetters;
use super::recovery::{self, Remedy};
use super::round::{Item, Round};
use super::topic::{Topic, Undecoded};
use super::{Options, SinkError};
use crate::ledger::Ledger;
use crate::target::{Outcome, Pacing, Remedy as TargetRemedy, TargetError};

/// How long documents may be written without a poll: well within every session timeout.
const WRITE_BUDGET: Duration = Duration::from_secs(2);
/// How long what is in hand may take when partitions are wanted back, or the run is to stop.
const FINISH_BUDGET: Duration = Duration::from_secs(10);
/// How long leaving the group may take.
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
/// The longest wait in a poll: how late a word from the lifecycle may be heard.
const POLL_WAIT: Duration = Duration::from_millis(100);
/// The most records of one poll.
const POLL_RECORDS: usize = 2_000;
/// How often a draining run asks how far the group is.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

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
        let mut topics = BTreeMap::new();
        for settings in &options.topics {
            let name = settings.topic.as_str();
            let Some(found) = options.log.topic(name).map_err(ended)? else {
                return Err(SinkError::Log(LogError::UnknownTopic {
                    name: name.to_owned(),
                })
                .into());
            };
            letters.prepare(name, found.partitions).map_err(ended)?;
            topics.insert(
                Arc::from(name),
                Topic::new(settings.clone(), found.id, found.partitions),
            );
        }
        let mut consumer = options.log.consumer(&options.consumer).map_err(ended)?;
        let names: Vec<&str> = topics.values().map(Topic::name).collect();
        consumer.subscribe(&names).map_err(ended)?;
        Ok(Self {
            options,
            letters,
            pacing,
            consumer,
            topics,
            held: BTreeMap::new(),
            joining: Vec::new(),
            leaving: Vec::new(),
            round: Round::default(),
            stalled: None,
            flushing: false,
            moved: None,
            wait_until: None,
            failures: 0,
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

    // ── failures ────────────────────────────────────────────────────────────────────────────────────────────────────

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
        tracing::warn!(
            %error,
            pause_seconds = pause.as_secs_f64(),
            "trying again after a pause"
        );
    }

    fn wait(&mut self, pause: Duration) {
        self.wait_until = Some(Instant::now() + pause);
    }

    fn waiting(&self) -> bool {
        self.wait_until.is_some_and(|until| Instant::now() < until)
    }

    // ── membership ──────────────────────────────────────────────────────────────────────────────────────────────────

    /// Answers what the group asked for.
    fn answer(&mut self) -> Result<(), Ended> {
        if !self.leaving.is_empty() && !self.waiting() {
            if let Err(error) = self.consumer.unassign(&self.leaving) {
                return self.log_failure(error);
            }
            self.leaving.clear();
        }
        if self.joining.is_empty() || !self.leaving.is_empty() || self.waiting() {
            return Ok(());
        }
        match self.begin() {
            Ok(()) => Ok(()),
            Err(Ended::Failed(SinkError::Log(error))) => self.log_failure(error),
            Err(ended) => Err(ended),
        }
    }

    /// Begins to read the partitions given to this member, where the group stands.
    fn begin(&mut self) -> Result<(), Ended> {
        let group = &self.options.consumer.group;
        let committed = self
            .consumer
            .committed(&self.joining)
            .map_err(SinkError::Log)?;
        let mut starts = Vec::new();
        for (partition, committed) in self.joining.iter().zip(committed) {
            let bounds = self.options.log.bounds(partition).map_err(SinkError::Log)?;
            let topic_id = self
                .topics
                .get(&partition.topic)
                .map_or("", |topic| topic.id.as_str());
            let (start, ledger) = match committed {
                None => (bounds.start, None),
                Some(found) => {
                    let ledger = Ledger::from_metadata(group, partition, &found.metadata)
                        .map_err(SinkError::Ledger)?;
                    (found.offset, ledger)
                }
            };
            let ledger = ledger.unwrap_or_else(|| Ledger::starting_at(topic_id, start));
            if !topic_id.is_empty() && !ledger.topic_id.is_empty() && ledger.topic_id != topic_id {
                return Err(Ended::Failed(SinkError::OtherTopic {
                    topic: partition.topic.to_string(),
                    group: group.clone(),
                    was: ledger.topic_id,
                    now: topic_id.to_owned(),
                }));
            }
            if start < bounds.start || start > bounds.end {
                return Err(Ended::Failed(SinkError::Gap {
                    partition: partition.clone(),
                    group: group.clone(),
                    committed: start,
                    start: bounds.start,
                    end: bounds.end,
                }));
            }
            starts.push((partition.clone(), start, ledger));
        }
        let assigned: Vec<_> = starts
            .iter()
            .map(|(partition, start, _)| (partition.clone(), *start))
            .collect();
        self.consumer.assign(&assigned).map_err(SinkError::Log)?;
        self.joining.clear();
        for (partition, start, ledger) in starts {
            tracing::info!(%partition, start, "reading");
            self.held.insert(
                partition,
                Held {
                    position: start,
                    committed: start,
                    ledger,
                },
            );
        }
        if self.paused {
            let partitions: Vec<_> = assigned
                .into_iter()
                .map(|(partition, _)| partition)
                .collect();
            self.consumer.pause(&partitions).map_err(SinkError::Log)?;
        }
        Ok(())
    }

    /// The group wants partitions back: what is in hand is finished first, if that can be done now.
    fn give_back(&mut self, partitions: Vec<TopicPartition>) -> Result<(), Ended> {
        self.finish_in_hand()?;
        self.forget(partitions);
        self.answer()
    }

    fn forget(&mut self, partitions: Vec<TopicPartition>) {
        let gone: BTreeSet<TopicPartition> = partitions.iter().cloned().collect();
        self.round.forget(&gone);
        self.stalled = self
            .stalled
            .take()
            .filter(|batch| !gone.contains(&batch.partition));
        self.held.retain(|partition, _| !gone.contains(partition));
        self.joining.retain(|partition| !gone.contains(partition));
        for partition in &gone {
            tracing::info!(%partition, "no longer reading");
        }
        self.leaving.extend(partitions);
    }

    // ── records ─────────────────────────────────────────────────────────────────────────────────────────────────────

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
        let decoded = match topic.decode(&self.options.registry, &batch) {
            Ok(decoded) => decoded,
            Err(Undecoded::Later(error)) => {
                self.stalled = Some(batch);
                self.pause_for(&error);
                return Ok(());
            }
            Err(Undecoded::Failed(error)) => return Err(error.into()),
        };
        self.failures = 0;
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
        self.options
            .metrics
            .in_hand_bytes
            .set(self.round.bytes() as i64);
        Ok(())
    }

    // ── writing and committing ──────────────────────────────────────────────────────────────────────────────────────

    /// Does what is due.
    fn work(&mut self, phase: Phase) -> Result<(), Ended> {
        if self.waiting() {
            return Ok(());
        }
        self.wait_until = None;
        if let Some(batch) = self.stalled.take() {
            self.take(batch)?;
            if self.waiting() {
                return Ok(());
            }
        }
        let since = self.round.opened().into_iter().chain(self.moved).min();
        let old = since.is_some_and(|since| since.elapsed() >= self.options.flush_interval);
        let ending = since.is_some() && phase == Phase::Draining && self.quiet;
        if self.flushing || old || ending || self.round.bytes() >= self.options.flush_bytes {
            self.flush(WRITE_BUDGET)?;
        }
        Ok(())
    }

    /// Writes what is in hand and commits, as far as that can be done now.
    fn flush(&mut self, budget: Duration) -> Result<(), Ended> {
        self.flushing = true;
        let started = Instant::now();
        while self.round.waiting() > 0 {
            if started.elapsed() >= budget {
                return Ok(());
            }
            self.write_bulk()?;
            if self.waiting() {
                return Ok(());
            }
        }
        self.commit()
    }

    /// Before partitions are given back, or the run stops. What can't be finished now will be read again.
    fn finish_in_hand(&mut self) -> Result<(), Ended> {
        if self.waiting() || (self.round.is_empty() && self.moved.is_none()) {
            return Ok(());
        }
        self.flush(FINISH_BUDGET)
    }

    fn write_bulk(&mut self) -> Result<(), Ended> {
        let options = self.options;
        let metrics = &options.metrics;
        let items = self
            .round
            .next_bulk(self.pacing.bulk_bytes(), self.pacing.bulk_documents());
        let documents: Vec<_> = items.iter().map(|item| &item.document).collect();
        let bytes: usize = documents.iter().map(|document| document.bytes()).sum();
        metrics.bulk_bytes.observe(bytes as f64);
        let started = Instant::now();
        let outcomes = self.options.target.write(&documents).and_then(|outcomes| {
            if outcomes.len() == items.len() {
                return Ok(outcomes);
            }
            let detail = format!(
                "it answered for {} of {} documents",
                outcomes.len(),
                items.len()
            );
            Err(TargetError::Unreachable {
                target: self.options.target.name().to_owned(),
                detail,
            })
        });
        let result = if outcomes.is_ok() {
            "answered"
        } else {
            "failed"
        };
        metrics
            .call_seconds
            .with_label_values(&[result])
            .observe(started.elapsed().as_secs_f64());
        match outcomes {
            Ok(outcomes) => self.settle(items, outcomes),
            Err(error) => self.call_failed(items, bytes, error)?,
        }
        metrics
            .bulk_limit_bytes
            .set(i64::try_from(self.pacing.bulk_bytes()).unwrap_or(i64::MAX));
        Ok(())
    }

    fn settle(&mut self, items: Vec<Item>, outcomes: Vec<Outcome>) {
        let options = self.options;
        let (metrics, progress) = (&options.metrics, &options.progress);
        let (mut settled, mut again, mut overload, mut example) = (0_usize, 0_usize, false, None);
        for (item, outcome) in items.into_iter().zip(outcomes) {
            match outcome {
                Outcome::Stored | Outcome::Conflict => {
                    settled += 1;
                    self.round.settle(&item);
                    let (label, count) = match outcome {
                        Outcome::Stored => ("stored", &progress.stored),
                        _ => ("conflict", &progress.conflicts),
                    };
                    count.fetch_add(1, Relaxed);
                    metrics.documents.with_label_values(&[label]).inc();
                }
                Outcome::Rejected { reason } => {
                    settled += 1;
                    tracing::warn!(index = %item.document.index, id = item.document.id, reason, "a document is rejected");
                    metrics.documents.with_label_values(&["rejected"]).inc();
                    self.round.reject(&item, &reason);
                }
                Outcome::Retry { reason, overloaded } => {
                    again += 1;
                    overload |= overloaded;
                    progress.retried.fetch_add(1, Relaxed);
                    let cause = if overloaded { "overloaded" } else { "failed" };
                    metrics.retried.with_label_values(&[cause]).inc();
                    example.get_or_insert(reason);
                    self.round.again(item);
                }
            }
        }
        let Some(reason) = example else {
            self.pacing.settled();
            return;
        };
        let pause = if settled > 0 {
            self.pacing.progressed(overload)
        } else {
            self.pacing.failed(overload, None)
        };
        tracing::warn!(
            settled,
            again,
            reason,
            pause_seconds = pause.as_secs_f64(),
            bulk_bytes = self.pacing.bulk_bytes(),
            "some documents must be sent again"
        );
        self.wait(pause);
    }

    fn call_failed(
        &mut self,
        mut items: Vec<Item>,
        bytes: usize,
        error: TargetError,
    ) -> Result<(), Ended> {
        self.options.metrics.failed_calls.inc();
        let (overloaded, after) = match &error {
            TargetError::Overloaded { after, .. } => (true, *after),
            _ => (false, None),
        };
        let too_large = matches!(error, TargetError::TooLarge { .. });
        match error.remedy() {
            TargetRemedy::Wait | TargetRemedy::Ease => {
                let pause = self.pacing.failed(overloaded, after);
                tracing::warn!(
                    %error,
                    documents = items.len(),
                    failures = self.pacing.failures(),
                    pause_seconds = pause.as_secs_f64(),
                    "the target did not take a bulk"
                );
                self.wait(pause);
                self.round.put_back(items);
            }
            TargetRemedy::Split if items.len() > 1 => {
                self.pacing.split(items.len(), bytes, too_large);
                tracing::warn!(%error, documents = items.len(), "a bulk is refused: its documents are sent in smaller ones");
                self.round.put_back(items);
            }
            TargetRemedy::Split => {
                for item in items.drain(..) {
                    tracing::warn!(index = %item.document.index, id = item.document.id, %error, "a document is rejected");
                    self.options
                        .metrics
                        .documents
                        .with_label_values(&["rejected"])
                        .inc();
                    self.round.reject(&item, &error.to_string());
                }
                self.pacing.settled();
            }
            TargetRemedy::Stop => {
                self.round.put_back(items);
                return Err(SinkError::Target(error).into());
            }
        }
        Ok(())
    }

    /// Flushes dead letters, then commits the offsets behind everything that is settled.
    fn commit(&mut self) -> Result<(), Ended> {
        let dead = self.round.letters().len() as u64;
        if dead > 0 {
            match self.letters.write(self.round.letters()) {
                Ok(()) => {}
                Err(DeadLetterError::Log(error)) => return self.log_failure(error),
                Err(error) => {
                    return match recovery::remedy(error.class(), self.failures) {
                        Remedy::Again => {
                            self.pause_for(&error);
                            Ok(())
                        }
                        Remedy::Rejoin | Remedy::Leave | Remedy::Fail => {
                            Err(SinkError::DeadLetter(error).into())
                        }
                    };
                }
            }
            self.round.letters_sent();
            self.options.progress.dead.fetch_add(dead, Relaxed);
        }

        let counts = self.round.counts();
        let mut commits = Vec::new();
        let mut next = Vec::new();
        for (partition, held) in &self.held {
            let count = counts.get(partition).copied().unwrap_or_default();
            if held.position <= held.committed {
                continue;
            }
            let ledger = held.ledger.plus(count.docs, count.dead);
            let metadata = ledger.to_metadata();
            commits.push(OffsetCommit {
                partition: partition.clone(),
                offset: held.position,
                metadata,
            });
            next.push((partition.clone(), held.position, ledger));
        }
        if !commits.is_empty() {
            if let Err(error) = self.consumer.commit(&commits) {
                return self.log_failure(error);
            }
            self.options.metrics.commits.inc();
            self.worked = true;
        }
        for (partition, position, ledger) in next {
            if let Some(held) = self.held.get_mut(&partition) {
                held.committed = position;
                held.ledger = ledger;
            }
        }
        self.failures = 0;
        self.flushing = false;
        self.moved = None;
        self.round.clear();
        self.options.metrics.in_hand_bytes.set(0);
        Ok(())
    }

    /// Pauses what is read while what is in hand can't be written, and lets it go on afterwards.
    fn hold_or_release(&mut self) -> Result<(), Ended> {
        let hold = self.flushing || self.stalled.is_some();
        if hold == self.paused {
            return Ok(());
        }
        let partitions: Vec<_> = self.held.keys().cloned().collect();
        let done = if hold {
            self.consumer.pause(&partitions)
        } else {
            self.consumer.resume(&partitions)
        };
        if let Err(error) = done {
            return self.log_failure(error);
        }
        self.paused = hold;
        self.options.progress.paused.store(hold, Relaxed);
        self.options.metrics.paused.set(i64::from(hold));
        if hold {
            tracing::warn!(
                documents = self.round.waiting(),
                "reading is paused until what is in hand is stored"
            );
        } else {
            tracing::info!("reading goes on");
        }
        Ok(())
    }

    // ── draining ────────────────────────────────────────────────────────────────────────────────────────────────────

    /// Whether the group has committed all that was on the log when draining began.
    fn drained(&mut self) -> Result<bool, Ended> {
        let busy = !self.round.is_empty()
            || self.moved.is_some()
            || self.stalled.is_some()
            || self.waiting();
        if busy
            || self
                .looked
                .is_some_and(|looked| looked.elapsed() < DRAIN_LOOK)
        {
            return Ok(false);
        }
        self.looked = Some(Instant::now());
        match self.goal_reached() {
            Ok(reached) => Ok(reached),
            Err(error) => self.log_failure(error).map(|()| false),
        }
    }

    fn goal_reached(&mut self) -> Result<bool, LogError> {
        let log = &self.options.log;
        if self.goal.is_none() {
            let mut goal = BTreeMap::new();
            for topic in self.topics.values() {
                for number in 0..topic.partitions {
                    let partition = TopicPartition::new(topic.name(), number);
                    goal.insert(partition.clone(), log.bounds(&partition)?);
                }
            }
            self.goal = Some(goal);
        }
        let Some(goal) = &self.goal else {
            return Ok(false);
        };
        let partitions: Vec<_> = goal.keys().cloned().collect();
        let committed = log.committed(&self.options.consumer.group, &partitions)?;
        Ok(goal
            .values()
            .zip(committed)
            .all(|(bounds, found)| match found {
                Some(found) => found.offset >= bounds.end,
                // a partition without records needs no commit
                None => bounds.start == bounds.end,
            }))
    }
}
