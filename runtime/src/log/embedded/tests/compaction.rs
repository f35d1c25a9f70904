//! Compaction, deletion of records, and what a topic refuses.

use super::*;

fn compacted(fixture: &Fixture) -> TopicPartition {
    fixture
        .log
        .create_topic(&TopicSpec::new("c", 1).with("cleanup.policy", "compact"))
        .unwrap();
    tp("c", 0)
}

fn tombstone(producer: &mut dyn Producer, key: &str) {
    let key = Some(key.as_bytes());
    let record = NewRecord {
        topic: "c",
        partition: Some(0),
        key,
        value: None,
        headers: &[],
        timestamp_ms: None,
    };
    producer.send(record).unwrap();
}

/// Offsets and whether there is a value.
fn offsets(log: &dyn Log, partition: &TopicPartition) -> (Vec<(Offset, bool)>, Offset) {
    let mut consumer = log.consumer(&ConsumerOptions::new("r")).unwrap();
    consumer
        .assign(&[(partition.clone(), log.bounds(partition).unwrap().start)])
        .unwrap();
    let mut found = Vec::new();
    loop {
        match consumer.poll(NOW, 100).unwrap() {
            Some(Event::Records(batch)) => {
                found.extend(
                    batch
                        .iter()
                        .map(|record| (record.offset, record.value.is_some())),
                );
            }
            Some(Event::End { position, .. }) => return (found, position),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn compaction_keeps_the_last_of_each_key_at_its_offset_and_tombstones_for_their_time() {
    let mut fixture = Fixture::new();
    let partition = compacted(&fixture);
    let mut producer = fixture.transactional("a");
    producer.begin().unwrap();
    for key in ["a", "b", "a", "c"] {
        send(&mut *producer, "c", 0, key, "x");
    }
    producer.commit().unwrap();
    producer.begin().unwrap();
    send(&mut *producer, "c", 0, "b", "aborted");
    producer.flush().unwrap();
    producer.abort().unwrap();
    producer.begin().unwrap();
    tombstone(&mut *producer, "c");
    producer.commit().unwrap();
    // 0 a, 1 b, 2 a, 3 c, 4 end, 5 b (aborted), 6 end, 7 c tombstone, 8 end
    producer.begin().unwrap();
    send(&mut *producer, "c", 0, "a", "open");
    producer.flush().unwrap();
    fixture.log.compact_now().unwrap();
    let expected = vec![(1, true), (2, true), (7, false)];
    assert_eq!(offsets(&*fixture.log, &partition), (expected.clone(), 9));
    producer.abort().unwrap();
    fixture.reopen();
    assert_eq!(offsets(&*fixture.log, &partition), (expected.clone(), 11));
    fixture.log.compact_now().unwrap();
    assert_eq!(offsets(&*fixture.log, &partition), (expected, 11));
    fixture.clock.advance(Duration::from_secs(86_401));
    fixture.log.compact_now().unwrap();
    for _ in 0..2 {
        assert_eq!(
            offsets(&*fixture.log, &partition),
            (vec![(1, true), (2, true)], 11)
        );
        assert_eq!(
            fixture.log.bounds(&partition).unwrap(),
            Bounds {
                start: 0,
                stable: 11,
                end: 11
            }
        );
        fixture.reopen();
    }
}

#[test]
fn a_compacted_topic_does_not_grow_with_what_is_overwritten() {
    let fixture = Fixture::new();
    let partition = compacted(&fixture);
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("p"))
        .unwrap();
    for number in 0..2_000 {
        send(
            &mut *producer,
            "c",
            0,
            &(number % 4).to_string(),
            &number.to_string(),
        );
        producer.flush().unwrap();
    }
    let found = read(&*fixture.log, &partition).0;
    assert!(found.len() < 40, "{} records are left", found.len());
    let last: Vec<_> = found[found.len() - 4..]
        .iter()
        .map(|(offset, _)| *offset)
        .collect();
    assert_eq!(last, [1996, 1997, 1998, 1999]);
}

#[test]
fn a_reader_goes_on_undisturbed_while_the_partition_is_compacted() {
    let fixture = Fixture::new();
    let partition = compacted(&fixture);
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("p"))
        .unwrap();
    for number in 0..60 {
        send(
            &mut *producer,
            "c",
            0,
            &(number % 30).to_string(),
            &number.to_string(),
        );
        producer.flush().unwrap();
    }
    let mut consumer = fixture.log.consumer(&ConsumerOptions::new("r")).unwrap();
    consumer.assign(&[(partition.clone(), 0)]).unwrap();
    let mut last = -1;
    let mut seen = std::collections::BTreeMap::new();
    while let Some(Event::Records(batch)) = consumer.poll(NOW, 1).unwrap() {
        let record = batch.get(0);
        assert!(record.offset > last);
        last = record.offset;
        seen.insert(record.key.unwrap().to_vec(), record.offset);
        fixture.log.compact_now().unwrap();
    }
    assert_eq!(
        seen.values()
            .copied()
            .collect::<std::collections::BTreeSet<_>>(),
        (30..60).collect()
    );
}

#[test]
fn deleted_records_stay_deleted_and_their_segments_go() {
    let mut fixture = Fixture::new();
    fixture.topic("t", 1);
    let partition = tp("t", 0);
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("p"))
        .unwrap();
    for number in 0..40 {
        send(&mut *producer, "t", 0, "k", &number.to_string());
        producer.flush().unwrap();
    }
    let files = |fixture: &Fixture| {
        let topic = fs::read_dir(fixture.dir.path().join("topics"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        fs::read_dir(topic.join("0")).unwrap().count()
    };
    let before = files(&fixture);
    fixture.log.delete_records(&partition, 33).unwrap();
    fixture.log.delete_records(&partition, 20).unwrap();
    assert!(files(&fixture) < before / 2);
    for _ in 0..2 {
        assert_eq!(
            fixture.log.bounds(&partition).unwrap(),
            Bounds {
                start: 33,
                stable: 40,
                end: 40
            }
        );
        assert_eq!(read(&*fixture.log, &partition).0[0], (33, "33".into()));
        fixture.reopen();
    }
    let refused = fixture.log.delete_records(&partition, 41);
    assert!(
        matches!(refused, Err(LogError::OffsetOutOfRange { .. })),
        "{refused:?}"
    );
    fixture.log.delete_records(&partition, 40).unwrap();
    assert_eq!(read(&*fixture.log, &partition), (vec![], 40));
}

#[test]
fn what_a_broker_refuses_is_refused() {
    let fixture = Fixture::new();
    compacted(&fixture);
    fixture
        .log
        .create_topic(&TopicSpec::new("s", 1).with("max.message.bytes", "1000"))
        .unwrap();
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("p"))
        .unwrap();
    let value = vec![0; 1000];
    let mut refused = |topic, partition, value: &[u8]| {
        let record = NewRecord {
            topic,
            partition,
            key: None,
            value: Some(value),
            headers: &[],
            timestamp_ms: None,
        };
        producer.send(record).unwrap_err()
    };
    assert!(matches!(
        refused("s", None, &value),
        LogError::TooLarge { .. }
    ));
    assert!(matches!(
        refused("c", None, &[]),
        LogError::NotAllowed { .. }
    ));
    assert!(matches!(
        refused("none", None, &[]),
        LogError::UnknownTopic { .. }
    ));
    assert!(matches!(
        refused("s", Some(1), &[]),
        LogError::UnknownTopic { .. }
    ));
    let mut consumer = fixture.log.consumer(&ConsumerOptions::new("g")).unwrap();
    let long = consumer.commit(&[commit_of(&tp("s", 0), 0, &"m".repeat(4097))]);
    assert!(matches!(long, Err(LogError::TooLarge { .. })), "{long:?}");
    consumer
        .commit(&[commit_of(&tp("s", 0), 0, &"m".repeat(4096))])
        .unwrap();
    assert!(matches!(
        consumer.subscribe(&["none"]),
        Err(LogError::UnknownTopic { .. })
    ));
    for spec in [
        TopicSpec::new("a/b", 1),
        TopicSpec::new("d", 0),
        TopicSpec::new("d", 1).with("segment.bytes", "x"),
    ] {
        assert!(
            matches!(
                fixture.log.create_topic(&spec),
                Err(LogError::Config { .. })
            ),
            "{spec:?}"
        );
    }
    assert!(!fixture.log.create_topic(&TopicSpec::new("s", 5)).unwrap());
    let described = fixture.log.topic("s").unwrap().unwrap();
    assert_eq!(
        (
            described.partitions,
            described.config["max.message.bytes"].as_str()
        ),
        (1, "1000")
    );
}
