//! A reader, and a member of a group.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as ListOffset, TopicPartitionList};

use super::super::{
    Committed, Consumer, ConsumerOptions, Event, GroupMetadata, LogError, Offset, OffsetCommit,
    TopicPartition,
};
use super::batch::{Fetched, MainQueue, PartitionQueue, Waker};
use super::context::{MemberContext, Rebalance, lock};
use super::errors::{self, Doing, Kind};
use super::member::{self, Client};
use super::native::Ending;
use super::offsets::{self, Membership, Owned};
use super::options::KafkaOptions;

/// How long a call that may be made again waits before it is.
const PAUSE: Duration = Duration::from_millis(20);

/// A partition being read.
struct Reading {
    queue: PartitionQueue<Client>,
    paused: bool,
    /// The end that was reported, if nothing came since.
    ended: Option<Offset>,
    /// The offset behind what was fetched.
    position: Offset,
    /// The end was fetched last: librdkafka then counts one offset too many, and would skip a record after a pause.
    skewed: bool,
}

pub(super) struct KafkaConsumer {
    // The queues go before the client.
    reading: BTreeMap<TopicPartition, Reading>,
    /// What was fetched and not yet handed out.
    pending: VecDeque<(TopicPartition, Fetched)>,
    errors: VecDeque<LogError>,
    main: MainQueue<Client>,
    client: Arc<Client>,
    waker: Arc<Waker>,
    owned: Owned,
    /// The partition that has its turn next.
    turn: usize,
    /// A commit without an answer: nobody knows what is committed.
    unknown: bool,
    group: String,
    instance_id: String,
    timeout: Duration,
}

impl KafkaConsumer {
    pub(super) fn new(kafka: &KafkaOptions, options: &ConsumerOptions) -> Result<Self, LogError> {
        let mut base: BaseConsumer<MemberContext> = kafka
            .consumer(options)
            .create_with_context(MemberContext::default())
            .map_err(|error| errors::of_creation(&error))?;
        let waker = Arc::new(Waker::default());
        let wake = Arc::clone(&waker);
        base.set_nonempty_callback(move || wake.wake());
        let native = base.client().native_ptr();
        let client: Arc<Client> = Arc::new(Ending::with(base, member::end));
        Ok(Self {
            reading: BTreeMap::new(),
            pending: VecDeque::new(),
            errors: VecDeque::new(),
            main: MainQueue::of(native, Arc::clone(&client)),
            client,
            waker,
            owned: Arc::default(),
            turn: 0,
            unknown: false,
            group: options.group.clone(),
            instance_id: options.instance_id.clone().unwrap_or_default(),
            timeout: kafka.request_timeout,
        })
    }

    fn base(&self) -> &BaseConsumer<MemberContext> {
        &self.client
    }

    fn doing(&self, action: &'static str) -> Doing<'_> {
        Doing::new(action)
            .group(&self.group)
            .instance_id(&self.instance_id)
    }

    /// The error that has ended this client for good, if one has.
    fn ended(&self, action: &'static str) -> Result<(), LogError> {
        match self.base().client().fatal_error() {
            None => Ok(()),
            Some((code, said)) => Err(self.doing(action).error(code, &said)),
        }
    }

    /// Serves the main queue until it is empty: rebalances, commit answers, errors and log lines.
    fn pump(&mut self) {
        self.serve_main();
        if self
            .base()
            .client()
            .context()
            .disturbed
            .swap(false, Ordering::SeqCst)
        {
            self.realign();
        }
    }

    fn serve_main(&mut self) {
        // The queue refills only by the brokers' doing; a bound keeps a flood of errors from holding the caller.
        for _ in 0..1000 {
            match self.client.poll(Duration::ZERO) {
                None => {
                    if self.main.is_empty() {
                        return;
                    }
                }
                Some(Ok(message)) => {
                    use rdkafka::Message as _;
                    let detail = format!(
                        "a record of {}-{} came outside its queue",
                        message.topic(),
                        message.partition()
                    );
                    self.errors.push_back(LogError::State { detail });
                }
                Some(Err(error)) => self.note(&error),
            }
        }
    }

    fn note(&mut self, error: &KafkaError) {
        let doing = Doing::new("read")
            .group(&self.group)
            .instance_id(&self.instance_id);
        let fatal = self.client.client().fatal_error();
        let error = match (fatal, error.rdkafka_error_code()) {
            (Some((code, said)), _) => doing.error(code, &said),
            // A rebalance tells the member of it as lost partitions.
            (None, Some(RDKafkaErrorCode::PollExceeded)) => return,
            (None, Some(code)) => doing.error(
                code,
                &self
                    .client
                    .client()
                    .context()
                    .notes
                    .last()
                    .unwrap_or_default(),
            ),
            (None, None) => doing.of(error),
        };
        self.errors.push_back(error);
    }

    fn rebalance(&mut self) -> Option<Event> {
        let rebalance = lock(&self.base().client().context().rebalances).pop_front()?;
        let event = match &rebalance {
            Rebalance::Assigned(partitions) => Event::Assigned(partitions.clone()),
            Rebalance::Revoked(partitions) => Event::Revoked(partitions.clone()),
            Rebalance::Lost(partitions) => {
                // They may be read by others already: nothing more of them is handed out.
                for partition in partitions {
                    self.forget(partition);
                }
                Event::Lost(partitions.clone())
            }
        };
        *lock(&self.base().client().context().unanswered) = Some(rebalance);
        Some(event)
    }

    /// Sets librdkafka's own position right where it is one too high. It uses that position only when it resumes what was
    /// paused, by the caller or by a rebalance.
    fn realign(&mut self) {
        let skewed: Vec<_> = self
            .reading
            .iter()
            .filter(|(_, reading)| reading.skewed)
            .map(|(partition, reading)| (partition.clone(), reading.position))
            .collect();
        for (partition, position) in skewed {
            match self.go_to(&partition, position) {
                Ok(()) => {
                    if let Some(reading) = self.reading.get_mut(&partition) {
                        reading.skewed = false;
                    }
                }
                Err(error) => self.errors.push_back(error),
            }
        }
    }

    /// Tells librdkafka where to go on.
    fn go_to(&self, partition: &TopicPartition, offset: Offset) -> Result<(), LogError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(
                &partition.topic,
                partition.partition,
                ListOffset::Offset(offset),
            )
            .map_err(|error| self.doing("seek").of(&error))?;
            let failed = match self.base().seek_partitions(list, self.timeout) {
                Ok(answer) => answer
                    .elements()
                    .first()
                    .and_then(|element| element.error().err()),
                Err(error) => Some(error),
            };
            let Some(error) = failed else { return Ok(()) };
            // A partition just assigned may not have begun.
            if Instant::now() + PAUSE >= deadline {
                return Err(LogError::Unreachable {
                    action: "seek",
                    detail: error.to_string(),
                });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Stops reading a partition on this side.
    fn forget(&mut self, partition: &TopicPartition) {
        self.reading.remove(partition);
        self.pending.retain(|(of, _)| of != partition);
        if let Some(owned) = &mut *lock(&self.owned) {
            owned.retain(|of| of != partition);
        }
    }

    /// Hands out what was fetched earlier, save of paused partitions.
    fn next_pending(&mut self) -> Option<Result<Event, LogError>> {
        while let Some(index) = self
            .pending
            .iter()
            .position(|(partition, _)| self.reading.get(partition).is_some_and(|r| !r.paused))
        {
            let (partition, fetched) = self.pending.remove(index)?;
            let Some(reading) = self.reading.get_mut(&partition) else {
                continue;
            };
            match fetched {
                Fetched::Records(batch) => {
                    reading.ended = None;
                    return Some(Ok(Event::Records(batch)));
                }
                // librdkafka reports an end again after a pause.
                Fetched::End(position) if reading.ended == Some(position) => {}
                Fetched::End(position) => {
                    reading.ended = Some(position);
                    return Some(Ok(Event::End {
                        partition,
                        position,
                    }));
                }
                Fetched::Failed(code, said, offset) => {
                    return Some(Err(self.fetch_error(&partition, code, &said, offset)));
                }
            }
        }
        None
    }

    fn fetch_error(
        &self,
        partition: &TopicPartition,
        code: RDKafkaErrorCode,
        said: &str,
        offset: Offset,
    ) -> LogError {
        if errors::kind(code) == Some(Kind::OutOfRange) {
            // The bounds are only words in the error: without an answer it says that they are not known.
            let bounds =
                self.base()
                    .fetch_watermarks(&partition.topic, partition.partition, self.timeout);
            let (start, end) = bounds.unwrap_or((-1, -1));
            return errors::out_of_range(partition, offset, start, end);
        }
        self.doing("read")
            .name(&partition.to_string())
            .error(code, said)
    }

    /// Fetches from the next partition that has something.
    fn fetch(&mut self, most: usize) {
        let count = self.reading.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let Some((partition, reading)) = self.reading.iter_mut().nth(index) else {
                continue;
            };
            if reading.paused {
                continue;
            }
            let fetched = reading.queue.fetch(most);
            if let Some(last) = fetched.last() {
                match last {
                    Fetched::Records(batch) => {
                        reading.position = batch.next_position();
                        reading.skewed = false;
                    }
                    Fetched::End(position) => {
                        reading.position = *position;
                        reading.skewed = true;
                    }
                    Fetched::Failed(..) => {}
                }
                self.pending.extend(
                    fetched
                        .into_iter()
                        .map(|fetched| (partition.clone(), fetched)),
                );
                self.turn = index + 1;
                return;
            }
        }
    }
}

impl Consumer for KafkaConsumer {
    fn subscribe(&mut self, topics: &[&str]) -> Result<(), LogError> {
        self.ended("subscribe")?;
        self.base()
            .subscribe(topics)
            .map_err(|error| LogError::Config {
                detail: format!("to subscribe to {topics:?}: {error}"),
            })?;
        lock(&self.owned).get_or_insert_default();
        Ok(())
    }

    fn assign(&mut self, starts: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        self.ended("begin to read")?;
        let mut list = TopicPartitionList::with_capacity(starts.len());
        for (partition, offset) in starts {
            if self.reading.contains_key(partition) {
                return Err(LogError::State {
                    detail: format!("{partition} is being read already"),
                });
            }
            list.add_partition_offset(
                &partition.topic,
                partition.partition,
                ListOffset::Offset(*offset),
            )
            .map_err(|error| self.doing("begin to read").of(&error))?;
        }
        // The queues first: then nothing goes to the main queue.
        let native = self.base().client().native_ptr();
        let mut queues = Vec::with_capacity(starts.len());
        for (partition, _) in starts {
            let (client, waker) = (Arc::clone(&self.client), Arc::clone(&self.waker));
            queues.push((
                partition.clone(),
                PartitionQueue::take(native, client, partition, waker)?,
            ));
        }
        *lock(&self.base().client().context().unanswered) = None;
        if let Err(error) = self.base().incremental_assign(&list) {
            return Err(LogError::State {
                detail: format!("the group does not take the assignment: {error}"),
            });
        }
        for ((partition, queue), (_, position)) in queues.into_iter().zip(starts) {
            if let Some(owned) = &mut *lock(&self.owned) {
                owned.push(partition.clone());
            }
            self.reading.insert(
                partition,
                Reading {
                    queue,
                    paused: false,
                    ended: None,
                    position: *position,
                    skewed: false,
                },
            );
        }
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        *lock(&self.base().client().context().unanswered) = None;
        for partition in partitions {
            self.forget(partition);
        }
        if self.base().client().fatal_error().is_some() {
            return Ok(());
        }
        let list = offsets::list_of(partitions);
        // A paused partition would still be paused when it is assigned again.
        self.base().resume(&list).ok();
        self.base()
            .incremental_unassign(&list)
            .map_err(|error| LogError::State {
                detail: format!("partitions could not be given back: {error}"),
            })
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), LogError> {
        if !self.reading.contains_key(partition) {
            return Err(LogError::State {
                detail: format!("{partition} is not being read"),
            });
        }
        self.go_to(partition, offset)?;
        self.pending.retain(|(of, _)| of != partition);
        if let Some(reading) = self.reading.get_mut(partition) {
            reading.ended = None;
            reading.position = offset;
            reading.skewed = false;
        }
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.base()
            .pause(&offsets::list_of(partitions))
            .map_err(|error| self.doing("pause").of(&error))?;
        for partition in partitions {
            if let Some(reading) = self.reading.get_mut(partition) {
                reading.paused = true;
            }
        }
        self.realign();
        Ok(())
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.base()
            .resume(&offsets::list_of(partitions))
            .map_err(|error| self.doing("resume").of(&error))?;
        for partition in partitions {
            if let Some(reading) = self.reading.get_mut(partition) {
                reading.paused = false;
            }
        }
        Ok(())
    }

    fn poll(&mut self, wait: Duration, max_records: usize) -> Result<Option<Event>, LogError> {
        let deadline = Instant::now() + wait;
        let most = max_records.clamp(1, 100_000);
        loop {
            let seen = self.waker.arrivals();
            self.pump();
            if let Some(event) = self.rebalance() {
                return Ok(Some(event));
            }
            if let Some(error) = self.errors.pop_front() {
                return Err(error);
            }
            if let Some(next) = self.next_pending() {
                return next.map(Some);
            }
            self.fetch(most);
            if let Some(next) = self.next_pending() {
                return next.map(Some);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            // Polling is also how librdkafka learns that the member is alive.
            self.waker.wait(seen, left.min(Duration::from_secs(1)));
        }
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        offsets::committed(
            self.base(),
            partitions,
            self.timeout,
            &self.doing("read committed offsets"),
        )
    }

    fn commit(&mut self, offsets: &[OffsetCommit]) -> Result<(), LogError> {
        const ACTION: &str = "commit offsets";
        if self.unknown {
            return Err(LogError::UnknownOutcome { action: ACTION });
        }
        if offsets.is_empty() {
            return Ok(());
        }
        offsets::check_sizes(offsets)?;
        self.ended(ACTION)?;
        if self.base().assignment_lost() {
            return Err(LogError::StaleGeneration {
                group: self.group.clone(),
                detail: "its partitions were given to others".into(),
            });
        }
        offsets::check_owned(&self.owned, &self.group, offsets)?;
        let Err(error) = offsets::commit(self.base(), offsets, self.timeout, &self.doing(ACTION))
        else {
            return Ok(());
        };
        self.unknown = matches!(error, LogError::UnknownOutcome { .. });
        self.ended(ACTION)?;
        Err(error)
    }

    fn group_metadata(&self) -> Result<GroupMetadata, LogError> {
        let metadata = self
            .base()
            .group_metadata()
            .ok_or_else(|| LogError::State {
                detail: "the Kafka client has no group".into(),
            })?;
        Ok(GroupMetadata(Box::new(Membership {
            metadata: Arc::new(metadata),
            group: self.group.clone(),
            instance_id: self.instance_id.clone(),
            owned: Arc::clone(&self.owned),
        })))
    }

    fn close(mut self: Box<Self>, deadline: Duration) -> Result<(), LogError> {
        self.pending.clear();
        self.reading.clear();
        member::leave(self.base(), Instant::now() + deadline)
            .map_err(|error| self.doing("leave the group").of(&error))?
    }
}
