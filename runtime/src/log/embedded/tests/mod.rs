#![allow(clippy::unwrap_used, clippy::expect_used)]

mod compaction;
mod crash;
mod groups;
mod model;
mod threads;

use super::*;
use crate::clock::ManualClock;
use crate::log::{Event, NewRecord};

const NOW: Duration = Duration::ZERO;

struct Fixture {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    log: Arc<EmbeddedLog>,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_000_000));
        let log = EmbeddedLog::open(dir.path(), options(&clock)).unwrap();
        Self { dir, clock, log }
    }

    fn reopen(&mut self) {
        self.log.close();
        self.log = EmbeddedLog::open(self.dir.path(), options(&self.clock)).unwrap();
    }

    fn topic(&self, name: &str, partitions: i32) {
        assert!(
            self.log
                .create_topic(&TopicSpec::new(name, partitions))
                .unwrap()
        );
    }

    fn transactional(&self, id: &str) -> Box<dyn Producer> {
        let mut producer = self
            .log
            .producer(&ProducerOptions::transactional(id))
            .unwrap();
        producer.init_transactions().unwrap();
        producer
    }

    fn member(&self, group: &str, topics: &[&str]) -> Box<dyn Consumer> {
        let mut consumer = self.log.consumer(&ConsumerOptions::new(group)).unwrap();
        consumer.subscribe(topics).unwrap();
        consumer
    }
}

fn options(clock: &Arc<ManualClock>) -> EmbeddedOptions {
    EmbeddedOptions {
        clock: Arc::clone(clock) as Arc<dyn Clock>,
        segment_bytes: 600,
        fetch_bytes: 300,
        stable_offsets_wait: NOW,
        ..EmbeddedOptions::default()
    }
}

fn send(producer: &mut dyn Producer, topic: &str, partition: i32, key: &str, value: &str) {
    let (key, value) = (Some(key.as_bytes()), Some(value.as_bytes()));
    let headers = [("h", b"1".as_slice()), ("h", value.unwrap())];
    let record = NewRecord {
        topic,
        partition: Some(partition),
        key,
        value,
        headers: &headers,
        timestamp_ms: Some(7),
    };
    producer.send(record).unwrap();
}

/// All that can be read of a partition from its start, and the position of its end.
fn read(log: &dyn Log, partition: &TopicPartition) -> (Vec<(Offset, String)>, Offset) {
    let mut consumer = log.consumer(&ConsumerOptions::new("reader")).unwrap();
    let start = log.bounds(partition).unwrap().start;
    consumer.assign(&[(partition.clone(), start)]).unwrap();
    let mut found = Vec::new();
    loop {
        match consumer.poll(NOW, 3).unwrap() {
            Some(Event::Records(batch)) => {
                assert_eq!(batch.partition, *partition);
                for (index, record) in batch.iter().enumerate() {
                    assert_eq!(batch.header(index, "h"), record.value);
                    assert_eq!(batch.header(index, "none"), None);
                    found.push((
                        record.offset,
                        String::from_utf8(record.value.unwrap().to_vec()).unwrap(),
                    ));
                }
            }
            Some(Event::End { position, .. }) => {
                assert!(
                    consumer.poll(NOW, 3).unwrap().is_none(),
                    "an end is reported once"
                );
                return (found, position);
            }
            other => panic!("{other:?}"),
        }
    }
}

fn tp(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition::new(topic, partition)
}

#[test]
fn what_was_flushed_is_read_back_before_and_after_a_restart() {
    let mut fixture = Fixture::new();
    fixture.topic("t", 2);
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("p"))
        .unwrap();
    let mut expected = Vec::new();
    for number in 0..51 {
        send(&mut *producer, "t", 1, "k", &format!("value {number}"));
        expected.push((number, format!("value {number}")));
        if number % 7 == 0 {
            producer.flush().unwrap();
        }
    }
    assert_eq!(producer.flush().unwrap(), [(tp("t", 1), 1)].into());
    for _ in 0..2 {
        assert_eq!(read(&*fixture.log, &tp("t", 1)), (expected.clone(), 51));
        assert_eq!(read(&*fixture.log, &tp("t", 0)), (vec![], 0));
        fixture.reopen();
    }
    assert!(matches!(producer.flush(), Err(LogError::Closed)));
}

#[test]
fn only_committed_transactions_are_read_and_their_ends_take_offsets() {
    let mut fixture = Fixture::new();
    fixture.topic("t", 1);
    let partition = tp("t", 0);
    let mut producer = fixture.transactional("a");
    for (value, commit) in [("one", true), ("two", false), ("three", true)] {
        producer.begin().unwrap();
        send(&mut *producer, "t", 0, "k", value);
        producer.flush().unwrap();
        let bounds = fixture.log.bounds(&partition).unwrap();
        assert_eq!(bounds.stable, bounds.end - 1);
        if commit {
            producer.commit().unwrap()
        } else {
            producer.abort().unwrap()
        }
    }
    let expected = vec![(0, "one".into()), (4, "three".into())];
    assert_eq!(read(&*fixture.log, &partition), (expected.clone(), 6));
    producer.begin().unwrap();
    send(&mut *producer, "t", 0, "k", "never");
    producer.flush().unwrap();
    assert_eq!(read(&*fixture.log, &partition), (expected.clone(), 6));
    fixture.reopen();
    assert_eq!(
        read(&*fixture.log, &partition),
        (expected, 8),
        "a restart aborts what was open"
    );
}

fn commit_of(partition: &TopicPartition, offset: Offset, metadata: &str) -> OffsetCommit {
    OffsetCommit {
        partition: partition.clone(),
        offset,
        metadata: metadata.into(),
    }
}
