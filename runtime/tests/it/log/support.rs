//! Readers, writers and group members as the tests need them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use runtime::log::{
    Batch, Class, Consumer, ConsumerOptions, Delivered, Event, LogError, NewRecord, Offset,
    OffsetCommit, Producer, ProducerOptions, TopicPartition,
};

use super::targets::Target;

/// How long one poll waits.
pub const TICK: Duration = Duration::from_millis(20);

/// A record as it was read, copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub partition: TopicPartition,
    pub offset: Offset,
    pub timestamp_ms: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
}

impl Seen {
    pub fn text(&self) -> String {
        String::from_utf8(self.value.clone().expect("a value")).unwrap()
    }
}

pub fn copy(batch: &Batch) -> Vec<Seen> {
    batch
        .iter()
        .map(|record| Seen {
            partition: batch.partition.clone(),
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
        })
        .collect()
}

pub fn texts(seen: &[Seen]) -> Vec<String> {
    seen.iter().map(Seen::text).collect()
}

/// One poll. What the port calls a matter of trying again, such as a connection that broke, is tried again.
pub fn poll(consumer: &mut dyn Consumer, most: usize) -> Option<Event> {
    match consumer.poll(TICK, most) {
        Err(error) if error.class() == Class::Retry => None,
        polled => polled.expect("a poll"),
    }
}

/// Calls `step` until it says that it is done; fails the test when patience is over.
pub fn until(target: &Target, what: &str, mut step: impl FnMut() -> bool) {
    let start = Instant::now();
    while !step() {
        assert!(
            start.elapsed() < target.patience,
            "{}: waited in vain until {what}",
            target.name
        );
    }
}

/// A consumer without a group, reading from these offsets.
pub fn reader(target: &Target, starts: &[(TopicPartition, Offset)]) -> Box<dyn Consumer> {
    let mut consumer = target
        .log
        .consumer(&ConsumerOptions::new(target.unique("reader")))
        .expect("a consumer");
    consumer.assign(starts).expect("partitions are assigned");
    consumer
}

/// Reads until at least `count` records came.
pub fn read(target: &Target, consumer: &mut dyn Consumer, count: usize) -> Vec<Seen> {
    let mut seen = Vec::new();
    let start = Instant::now();
    while seen.len() < count {
        assert!(
            start.elapsed() < target.patience,
            "{}: read {} records, waited in vain for {count}",
            target.name,
            seen.len()
        );
        if let Some(Event::Records(batch)) = poll(&mut *consumer, 1000) {
            seen.extend(copy(&batch));
        }
    }
    seen
}

/// All that can be read of partitions now, from their starts to their last stable offsets.
pub fn all(target: &Target, partitions: &[TopicPartition]) -> Vec<Seen> {
    let bounds: Vec<_> = partitions
        .iter()
        .map(|p| target.log.bounds(p).expect("bounds"))
        .collect();
    let starts: Vec<_> = partitions
        .iter()
        .cloned()
        .zip(bounds.iter().map(|bounds| bounds.start))
        .collect();
    let mut open: BTreeMap<TopicPartition, Offset> = partitions
        .iter()
        .cloned()
        .zip(bounds.iter().map(|bounds| bounds.stable))
        .collect();
    let mut consumer = reader(target, &starts);
    let mut seen = Vec::new();
    until(target, "all partitions were read to their ends", || {
        match poll(&mut *consumer, 1000) {
            Some(Event::Records(batch)) => seen.extend(copy(&batch)),
            Some(Event::End {
                partition,
                position,
            }) if open.get(&partition).is_some_and(|end| position >= *end) => {
                open.remove(&partition);
            }
            _ => {}
        }
        open.is_empty()
    });
    close(consumer);
    seen
}

/// Reads for a while, in which nothing may come.
pub fn expect_silence(target: &Target, consumer: &mut dyn Consumer, how_long: Duration) {
    let start = Instant::now();
    while start.elapsed() < how_long {
        if let Some(Event::Records(batch)) = poll(&mut *consumer, 1000) {
            panic!("{}: {batch:?} came, and nothing should have", target.name);
        }
    }
}

pub fn close(consumer: Box<dyn Consumer>) {
    consumer
        .close(Duration::from_secs(10))
        .expect("a consumer closes");
}

/// A producer without transactions.
pub fn writer(target: &Target) -> Box<dyn Producer> {
    let mut options = ProducerOptions::idempotent(target.unique("writer"));
    options.linger = Duration::from_millis(2);
    target.log.producer(&options).expect("a producer")
}

/// A transactional producer that has taken its id.
pub fn transactional(target: &Target, id: &str) -> Box<dyn Producer> {
    initialised(target, &target.transactional(id))
}

/// A transactional producer with these options that has taken its id.
pub fn initialised(target: &Target, options: &ProducerOptions) -> Box<dyn Producer> {
    let mut producer = target.log.producer(options).expect("a producer");
    producer
        .init_transactions()
        .expect("the transactional id is taken");
    producer
}

pub fn put(producer: &mut dyn Producer, partition: &TopicPartition, value: &str) {
    try_put(producer, partition, value).expect("a record is taken");
}

pub fn try_put(
    producer: &mut dyn Producer,
    partition: &TopicPartition,
    value: &str,
) -> Result<(), LogError> {
    producer.send(NewRecord {
        topic: &partition.topic,
        partition: Some(partition.partition),
        key: None,
        value: Some(value.as_bytes()),
        headers: &[],
        timestamp_ms: None,
    })
}

/// Writes numbered values, `from` up to but without `to`.
pub fn put_numbers(
    producer: &mut dyn Producer,
    partition: &TopicPartition,
    numbers: std::ops::Range<usize>,
) -> Delivered {
    for number in numbers {
        put(producer, partition, &number.to_string());
    }
    producer.flush().expect("all is delivered")
}

pub fn commit_of(partition: &TopicPartition, offset: Offset, metadata: &str) -> OffsetCommit {
    OffsetCommit {
        partition: partition.clone(),
        offset,
        metadata: metadata.into(),
    }
}

/// A member of a group that answers each rebalance at once: it goes on at the committed offsets, and commits what it has
/// read before it gives partitions back.
pub struct Member {
    pub consumer: Box<dyn Consumer>,
    /// Its partitions, with the next offset of each.
    pub owned: BTreeMap<TopicPartition, Offset>,
    /// What it has read.
    pub seen: Vec<Seen>,
    /// The ranges that it has committed: partition, from, to.
    pub ranges: Vec<(TopicPartition, Offset, Offset)>,
    /// How many partitions it was told that it has lost.
    pub lost: usize,
    /// How often partitions were assigned.
    pub assigned: usize,
    from: BTreeMap<TopicPartition, Offset>,
}

impl Member {
    pub fn join(target: &Target, options: &ConsumerOptions, topic: &str) -> Self {
        let mut consumer = target.log.consumer(options).expect("a consumer");
        consumer.subscribe(&[topic]).expect("a subscription");
        Self {
            consumer,
            owned: BTreeMap::new(),
            seen: Vec::new(),
            ranges: Vec::new(),
            lost: 0,
            assigned: 0,
            from: BTreeMap::new(),
        }
    }

    /// One poll, and the answer to what it brings.
    pub fn step(&mut self) {
        match poll(&mut *self.consumer, 100) {
            Some(Event::Records(batch)) => {
                self.owned
                    .insert(batch.partition.clone(), batch.next_position());
                self.seen.extend(copy(&batch));
            }
            Some(Event::Assigned(partitions)) => self.take(&partitions),
            Some(Event::Revoked(partitions)) => {
                self.commit(&partitions)
                    .expect("a member commits what it gives back");
                self.give(&partitions);
            }
            Some(Event::Lost(partitions)) => {
                self.lost += partitions.len();
                self.give(&partitions);
            }
            Some(Event::End { .. }) | None => {}
        }
    }

    /// Answers an assignment: goes on where the group has committed.
    pub fn take(&mut self, partitions: &[TopicPartition]) {
        self.assigned += 1;
        let committed = self
            .consumer
            .committed(partitions)
            .expect("the group's offsets");
        let starts: Vec<_> = partitions
            .iter()
            .zip(committed)
            .map(|(partition, committed)| {
                (
                    partition.clone(),
                    committed.map_or(0, |committed| committed.offset),
                )
            })
            .collect();
        self.consumer
            .assign(&starts)
            .expect("partitions are assigned");
        self.owned.extend(starts.iter().cloned());
        self.from.extend(starts);
    }

    /// Answers a revoke or a loss.
    pub fn give(&mut self, partitions: &[TopicPartition]) {
        self.consumer
            .unassign(partitions)
            .expect("partitions are given back");
        for partition in partitions {
            self.owned.remove(partition);
            self.from.remove(partition);
        }
    }

    /// Commits what was read of some of its partitions.
    pub fn commit(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        let done: Vec<(TopicPartition, Offset, Offset)> = partitions
            .iter()
            .map(|partition| {
                (
                    partition.clone(),
                    self.from[partition],
                    self.owned[partition],
                )
            })
            .filter(|(_, from, to)| to > from)
            .collect();
        if done.is_empty() {
            return Ok(());
        }
        let offsets: Vec<_> = done
            .iter()
            .map(|(partition, _, to)| commit_of(partition, *to, ""))
            .collect();
        self.consumer.commit(&offsets)?;
        for (partition, _, to) in &done {
            self.from.insert(partition.clone(), *to);
        }
        self.ranges.extend(done);
        Ok(())
    }

    pub fn commit_all(&mut self) -> Result<(), LogError> {
        let partitions: Vec<_> = self.owned.keys().cloned().collect();
        self.commit(&partitions)
    }
}

/// Lets members take turns until a condition holds.
pub fn drive(
    target: &Target,
    what: &str,
    members: &mut [&mut Member],
    mut done: impl FnMut(&[&mut Member]) -> bool,
) {
    until(target, what, || {
        for member in members.iter_mut() {
            member.step();
        }
        done(members)
    });
}

/// Fails unless the ranges that all members committed cover each partition up to its end, each offset once.
pub fn expect_each_offset_committed_once(
    ranges: &[(TopicPartition, Offset, Offset)],
    ends: &[(TopicPartition, Offset)],
) {
    for (partition, end) in ends {
        let mut of: Vec<_> = ranges
            .iter()
            .filter(|(p, ..)| p == partition)
            .map(|(_, from, to)| (*from, *to))
            .collect();
        of.sort_unstable();
        let mut next = 0;
        for (from, to) in &of {
            assert_eq!(
                *from, next,
                "{partition}: committed ranges {of:?} leave a gap or overlap"
            );
            next = *to;
        }
        assert_eq!(
            next, *end,
            "{partition}: committed ranges {of:?} do not reach the end"
        );
    }
}
