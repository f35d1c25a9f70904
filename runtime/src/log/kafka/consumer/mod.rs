//! A reader, and a member of a group.

mod serve;
mod unclaimed;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::topic_partition_list::{Offset as ListOffset, TopicPartitionList};

use super::super::{
    Committed, Consumer, ConsumerOptions, Event, GroupMetadata, LogError, Offset, OffsetCommit,
    TopicPartition,
};
use super::batch::{Fetched, MainQueue, PartitionQueue, Waker};
use super::context::{MemberContext, lock};
use super::errors::{self, Doing};
use super::member::{self, Client};
use super::native::Ending;
use super::offsets::{self, Membership, Owned};
use super::options::KafkaOptions;
use unclaimed::Unclaimed;

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
    /// What was subscribed to.
    topics: Vec<String>,
    unclaimed: Unclaimed,
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
            topics: Vec::new(),
            unclaimed: Unclaimed::default(),
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
        self.topics = topics.iter().map(|&topic| topic.into()).collect();
        if !self.instance_id.is_empty() {
            self.unclaimed = Unclaimed::look();
        }
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
            self.claim();
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

    fn in_group(&self) -> bool {
        self.base().client().context().joined.load(Ordering::SeqCst)
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
        let until = Instant::now() + deadline;
        let left = match self.instance_id.is_empty() {
            true => Ok(Ok(())),
            false => member::give_up_place(self.base(), until),
        };
        left.and_then(|left| Ok(left.and(member::end_in_order(self.base(), until)?)))
            .map_err(|error| self.doing("leave the group").of(&error))?
    }

    fn close_for_a_moment(mut self: Box<Self>, deadline: Duration) -> Result<(), LogError> {
        self.pending.clear();
        self.reading.clear();
        member::end_in_order(self.base(), Instant::now() + deadline)
            .map_err(|error| self.doing("leave the group").of(&error))?
    }
}
