//! Topics: creation, description, deletion of records, compaction.

use std::collections::BTreeMap;
use std::time::Duration;

use runtime::log::{Class, Event, LogError, NewRecord, TopicPartition, TopicSpec};

use super::support::*;
use super::targets::Target;

pub fn a_topic_is_described_and_its_id_changes_when_it_is_created_again(target: &Target) {
    let name = target.unique("described");
    assert_eq!(target.log.topic(&name).expect("an answer"), None);
    let spec = TopicSpec::new(&name, 5)
        .with("cleanup.policy", "compact")
        .with("retention.ms", "86400000");
    assert!(target.log.create_topic(&spec).expect("created"));
    let first = target
        .log
        .topic(&name)
        .expect("an answer")
        .expect("a topic");
    assert_eq!((first.name.as_str(), first.partitions), (name.as_str(), 5));
    assert!(first.replication >= 1, "{first:?}");
    assert_eq!(
        first.config.get("cleanup.policy").map(String::as_str),
        Some("compact")
    );
    assert_eq!(
        first.config.get("retention.ms").map(String::as_str),
        Some("86400000")
    );
    assert_eq!(
        first.id.len(),
        22,
        "{:?} is not 16 bytes in base64",
        first.id
    );
    assert!(
        first
            .id
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'),
        "{}",
        first.id
    );
    assert_ne!(first.id, "AAAAAAAAAAAAAAAAAAAAAA");
    assert_eq!(
        target
            .log
            .topic(&name)
            .expect("an answer")
            .expect("a topic")
            .id,
        first.id
    );

    target.log.delete_topic(&name).expect("deleted");
    until(target, "the topic is gone", || {
        target.log.topic(&name).expect("an answer").is_none()
    });
    target
        .log
        .delete_topic(&name)
        .expect("deleting what is not there is no error");
    assert!(
        target
            .log
            .create_topic(&TopicSpec::new(&name, 2))
            .expect("created again")
    );
    let second = target
        .log
        .topic(&name)
        .expect("an answer")
        .expect("a topic");
    assert_eq!(second.partitions, 2);
    assert_ne!(second.id, first.id);
    let bounds = target
        .log
        .bounds(&TopicPartition::new(name, 1))
        .expect("bounds");
    assert_eq!((bounds.start, bounds.stable, bounds.end), (0, 0, 0));
}

pub fn creating_a_topic_twice_leaves_the_first_alone(target: &Target) {
    let name = target.unique("twice");
    assert!(
        target
            .log
            .create_topic(&TopicSpec::new(&name, 2).with("retention.ms", "1000000"))
            .expect("created")
    );
    assert!(
        !target
            .log
            .create_topic(&TopicSpec::new(&name, 3).with("retention.ms", "5"))
            .expect("found")
    );
    let topic = target
        .log
        .topic(&name)
        .expect("an answer")
        .expect("a topic");
    assert_eq!(topic.partitions, 2);
    assert_eq!(
        topic.config.get("retention.ms").map(String::as_str),
        Some("1000000")
    );
}

pub fn what_is_not_there_is_said_to_be_missing(target: &Target) {
    let nowhere = TopicPartition::new(target.unique("nowhere"), 0);
    let error = target.log.bounds(&nowhere).expect_err("no topic");
    assert!(matches!(error, LogError::UnknownTopic { .. }), "{error}");
    let beyond = TopicPartition {
        partition: 9,
        ..target.topic(2).remove(0)
    };
    let error = target.log.bounds(&beyond).expect_err("no partition");
    assert!(matches!(error, LogError::UnknownTopic { .. }), "{error}");
    let error = target
        .log
        .delete_records(&nowhere, 5)
        .expect_err("no topic");
    assert!(matches!(error, LogError::UnknownTopic { .. }), "{error}");
    let offsets = target
        .log
        .committed(&target.unique("group"), &[nowhere])
        .expect("an answer");
    assert_eq!(offsets, [None]);
}

pub fn deleted_records_are_gone_and_reading_there_is_an_error(target: &Target) {
    let partition = target.topic(1).remove(0);
    let mut producer = writer(target);
    put_numbers(&mut *producer, &partition, 0..10);
    target.log.delete_records(&partition, 6).expect("deleted");
    let bounds = target.log.bounds(&partition).expect("bounds");
    assert_eq!((bounds.start, bounds.stable, bounds.end), (6, 10, 10));
    let left: Vec<_> = all(target, std::slice::from_ref(&partition))
        .iter()
        .map(|record| record.offset)
        .collect();
    assert_eq!(left, [6, 7, 8, 9]);
    target
        .log
        .delete_records(&partition, 3)
        .expect("what is gone already is no error");
    assert_eq!(target.log.bounds(&partition).expect("bounds").start, 6);

    for wrong in [2, 25] {
        let mut consumer = reader(target, &[(partition.clone(), wrong)]);
        let mut error = None;
        until(target, "the offset is said to be out of range", || {
            match consumer.poll(TICK, 10) {
                Ok(Some(Event::Records(batch))) => panic!("{batch:?} came for offset {wrong}"),
                Ok(_) => {}
                Err(e) => error = Some(e),
            }
            error.is_some()
        });
        let error = error.unwrap();
        assert_eq!(error.class(), Class::Fatal);
        match error {
            LogError::OffsetOutOfRange {
                partition: of,
                offset,
                start,
                end,
            } => {
                assert_eq!((of, offset, start, end), (partition.clone(), wrong, 6, 10));
            }
            other => panic!("{other}"),
        }
        close(consumer);
    }
}

/// An offset and the value there; `None` is a tombstone.
type Kept = (i64, Option<Vec<u8>>);

/// Writes twelve versions of four keys; what is the last of each.
fn write_versions(target: &Target, partition: &TopicPartition) -> BTreeMap<String, Kept> {
    let mut producer = writer(target);
    let mut last = BTreeMap::new();
    let mut offset = 0;
    for version in 0..12 {
        for key in ["a", "b", "c", "d"] {
            // 'd' ends with a tombstone
            let mut value = vec![b'.'; 60_000];
            value[0] = version;
            let value = if key == "d" && version == 11 {
                None
            } else {
                Some(value)
            };
            let record = NewRecord {
                topic: &partition.topic,
                partition: Some(partition.partition),
                key: Some(key.as_bytes()),
                value: value.as_deref(),
                headers: &[],
                timestamp_ms: None,
            };
            producer.send(record).expect("a record is taken");
            last.insert(key.to_string(), (offset, value));
            offset += 1;
        }
        producer.flush().expect("all is delivered");
    }
    last
}

pub fn compaction_keeps_the_last_value_of_each_key_at_its_offset(target: &Target) {
    let partition = target
        .topic_with(
            1,
            &[
                ("cleanup.policy", "compact"),
                ("segment.bytes", "1048576"),
                ("segment.ms", "200"),
                ("min.cleanable.dirty.ratio", "0.001"),
                ("delete.retention.ms", "86400000"),
            ],
        )
        .remove(0);
    let last = write_versions(target, &partition);
    let mut producer = writer(target);
    let mut fill = 0;
    let filler = vec![b'x'; 300_000];
    until(target, "each key has one record left", || {
        // A segment is cleaned only when it is closed, and closed only by a later write: by its size or by its age.
        let record = NewRecord {
            topic: &partition.topic,
            partition: Some(0),
            key: Some(b"fill"),
            value: Some(&filler),
            headers: &[],
            timestamp_ms: None,
        };
        producer.send(record).expect("a record is taken");
        producer.flush().expect("all is delivered");
        fill += 1;
        std::thread::sleep(Duration::from_millis(300));

        let seen = all(target, std::slice::from_ref(&partition));
        assert!(
            seen.windows(2).all(|pair| pair[0].offset < pair[1].offset),
            "in order"
        );
        let mut kept: BTreeMap<String, Vec<_>> = BTreeMap::new();
        for record in seen {
            let key = String::from_utf8(record.key.clone().unwrap()).unwrap();
            kept.entry(key)
                .or_default()
                .push((record.offset, record.value));
        }
        for (key, (offset, value)) in &last {
            let of = &kept[key];
            assert_eq!(
                of.last(),
                Some(&(*offset, value.clone())),
                "the last record of {key}"
            );
        }
        last.keys().all(|key| kept[key].len() == 1)
    });
    assert!(fill > 0);
    let end = target.log.bounds(&partition).expect("bounds").end;
    assert_eq!(end, 48 + fill, "compaction moves no offset");
}

pub fn a_topic_can_be_given_more_partitions_and_never_fewer(target: &Target) {
    let partitions = target.topic(1);
    let topic = partitions[0].topic.to_string();
    let mut producer = writer(target);
    put(&mut *producer, &partitions[0], "before");
    producer.flush().expect("flushed");
    let before = target
        .log
        .topic(&topic)
        .expect("an answer")
        .expect("a topic");
    target.log.add_partitions(&topic, 3).expect("added");
    target.log.add_partitions(&topic, 3).expect("there already");
    let after = target
        .log
        .topic(&topic)
        .expect("an answer")
        .expect("a topic");
    assert_eq!((after.partitions, &after.id), (3, &before.id));
    let fewer = target.log.add_partitions(&topic, 2).expect_err("fewer");
    assert_eq!(fewer.class(), Class::Fatal, "{fewer}");
    let third = TopicPartition::new(topic.as_str(), 2);
    let mut producer = writer(target);
    put(&mut *producer, &third, "behind");
    producer.flush().expect("flushed");
    let both = [partitions[0].clone(), third];
    assert_eq!(texts(&all(target, &both)).len(), 2);
}
