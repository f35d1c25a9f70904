//! What is written comes back.

use std::collections::BTreeMap;

use runtime::log::{Event, NewRecord, ProducerOptions, partition_for_key};

use super::support::*;
use super::targets::Target;

pub fn records_come_back_in_order_and_whole(target: &Target) {
    let partition = target.topic(1).remove(0);
    let mut producer = writer(target);
    let now_ms = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    let large = vec![7_u8; 300_000];
    type Row<'a> = (
        Option<&'a [u8]>,
        Option<&'a [u8]>,
        &'a [(&'a str, &'a [u8])],
        Option<i64>,
    );
    let rows: [Row; 6] = [
        (
            Some(b"key"),
            Some(b"value"),
            &[("a", b"1"), ("b", b"\xff\x00"), ("a", b"2")],
            Some(1_451_606_400_000),
        ),
        (
            Some(b"gone"),
            None,
            &[("reason", b"tombstone")],
            Some(1_451_606_400_001),
        ),
        (None, Some(b""), &[("empty", b"")], Some(1_451_606_300_000)),
        (Some(b""), Some(b"empty key"), &[], Some(1)),
        (None, Some(&large), &[], Some(1_451_606_400_002)),
        (None, Some(b"now"), &[], None),
    ];
    for (key, value, headers, timestamp_ms) in rows {
        let record = NewRecord {
            topic: &partition.topic,
            partition: Some(0),
            key,
            value,
            headers,
            timestamp_ms,
        };
        producer.send(record).expect("a record is taken");
    }
    producer.flush().expect("all is delivered");

    let mut consumer = reader(target, &[(partition.clone(), 0)]);
    let mut next = 0;
    until(target, "all records came", || {
        if let Some(Event::Records(batch)) = poll(&mut *consumer, 100) {
            assert_eq!(batch.partition, partition);
            for (index, record) in batch.iter().enumerate() {
                let (key, value, headers, timestamp_ms) = rows[next];
                assert_eq!(record.offset, next as i64);
                assert_eq!(record.key, key, "key of record {next}");
                assert_eq!(record.value, value, "value of record {next}");
                match timestamp_ms {
                    Some(timestamp_ms) => assert_eq!(record.timestamp_ms, timestamp_ms),
                    None => assert!(
                        (record.timestamp_ms - now_ms).abs() < 60_000,
                        "{} is not now",
                        record.timestamp_ms
                    ),
                }
                for (name, _) in headers {
                    let last = headers.iter().rfind(|(n, _)| n == name).unwrap().1;
                    assert_eq!(
                        batch.header(index, name),
                        Some(last),
                        "header {name} of record {next}"
                    );
                }
                assert_eq!(batch.header(index, "none"), None);
                next += 1;
            }
            assert_eq!(batch.next_position(), next as i64);
        }
        next == rows.len()
    });
    close(consumer);
}

pub fn a_topic_can_have_the_times_at_which_records_were_taken_in(target: &Target) {
    let partition = target
        .topic_with(1, &[("message.timestamp.type", "LogAppendTime")])
        .remove(0);
    let mut producer = writer(target);
    let now_ms = i64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap();
    for (timestamp_ms, key) in [(Some(1_451_606_400_000), None), (None, Some(&b"key"[..]))] {
        let record = NewRecord {
            topic: &partition.topic,
            partition: Some(0),
            key,
            value: Some(b"value"),
            headers: &[("name", b"header")],
            timestamp_ms,
        };
        producer.send(record).expect("a record is taken");
    }
    producer.flush().expect("all is delivered");
    let seen = all(target, &[partition]);
    assert_eq!(seen.len(), 2);
    for record in &seen {
        if target.name.starts_with("kfake") && record.offset == 0 {
            // It keeps the setting and does not follow it.
            assert_eq!(record.timestamp_ms, 1_451_606_400_000);
            continue;
        }
        assert!(
            (record.timestamp_ms - now_ms).abs() < 60_000,
            "{} is not now",
            record.timestamp_ms
        );
        assert_eq!(record.value.as_deref(), Some(&b"value"[..]));
    }
    assert_eq!(seen[1].key.as_deref(), Some(&b"key"[..]));
}

pub fn keys_go_where_murmur2_says(target: &Target) {
    let partitions = target.topic(7);
    let mut producer = writer(target);
    let keys: Vec<String> = (0..300)
        .map(|number| format!("trip-{number}-{}", "x".repeat(number % 9)))
        .collect();
    for key in &keys {
        let record = NewRecord {
            topic: &partitions[0].topic,
            partition: None,
            key: Some(key.as_bytes()),
            value: Some(b"v"),
            headers: &[],
            timestamp_ms: None,
        };
        producer.send(record).expect("a record is taken");
    }
    producer.flush().expect("all is delivered");
    let seen = all(target, &partitions);
    assert_eq!(seen.len(), keys.len());
    for record in seen {
        let key = record.key.unwrap();
        let expected = partition_for_key(&key, 7);
        assert_eq!(
            record.partition.partition,
            expected,
            "key {}",
            String::from_utf8_lossy(&key)
        );
    }
}

pub fn records_without_a_key_are_spread(target: &Target) {
    let partitions = target.topic(3);
    let mut producer = writer(target);
    for _ in 0..40 {
        for _ in 0..5 {
            let record = NewRecord {
                topic: &partitions[0].topic,
                partition: None,
                key: None,
                value: Some(b"v"),
                headers: &[],
                timestamp_ms: None,
            };
            producer.send(record).expect("a record is taken");
        }
        // Clients may keep to one partition for a batch; another batch goes elsewhere.
        producer.flush().expect("all is delivered");
    }
    let mut counts = BTreeMap::new();
    for record in all(target, &partitions) {
        *counts.entry(record.partition).or_insert(0) += 1;
    }
    assert_eq!(counts.len(), 3, "{counts:?}");
    assert_eq!(counts.values().sum::<i32>(), 200);
}

pub fn a_flush_counts_the_deliveries_of_each_partition(target: &Target) {
    let partitions = target.topic(3);
    let mut producer = writer(target);
    assert!(producer.flush().expect("nothing to deliver").is_empty());
    for (partition, count) in partitions.iter().zip([5, 0, 7]) {
        for number in 0..count {
            put(&mut *producer, partition, &number.to_string());
        }
    }
    let delivered = producer.flush().expect("all is delivered");
    assert_eq!(
        delivered,
        [(partitions[0].clone(), 5), (partitions[2].clone(), 7)].into()
    );
    let delivered = put_numbers(&mut *producer, &partitions[1], 0..2);
    assert_eq!(delivered, [(partitions[1].clone(), 2)].into());
}

pub fn a_full_queue_is_back_pressure(target: &Target) {
    let partition = target.topic(1).remove(0);
    let mut producer = writer(target);
    let delivered = put_numbers(&mut *producer, &partition, 0..30_000);
    assert_eq!(delivered, [(partition.clone(), 30_000)].into());
    let seen = all(target, &[partition]);
    let expected: Vec<String> = (0..30_000).map(|number| number.to_string()).collect();
    assert_eq!(texts(&seen), expected);
}

pub fn records_handed_over_together_are_as_sent_one_by_one(target: &Target) {
    let partitions = target.topic(3);
    let options = ProducerOptions {
        counts: false,
        ..target.transactional(&target.unique("together"))
    };
    let mut producer = initialised(target, &options);
    let mut send = |values: std::ops::Range<usize>, keep: bool| {
        producer.begin().expect("a transaction");
        let texts: Vec<_> = values
            .map(|number| (format!("key-{}", number % 50), number.to_string()))
            .collect();
        let mut records = texts
            .iter()
            .map(|(key, value)| (key.as_bytes(), value.as_bytes()));
        let topic = &partitions[0].topic;
        producer.send_all(topic, &mut records).expect("all taken");
        match keep {
            true => {
                producer.flush().expect("all is delivered");
                producer.commit().expect("committed");
            }
            false => producer.abort().expect("given up"),
        }
    };
    send(90_000..92_000, false);
    send(0..30_000, true);
    let mut by_key: BTreeMap<Vec<u8>, Vec<usize>> = BTreeMap::new();
    for record in all(target, &partitions) {
        let value = record.text().parse().unwrap();
        let key = record.key.unwrap();
        assert_eq!(
            record.partition.partition,
            partition_for_key(&key, 3),
            "key {}",
            String::from_utf8_lossy(&key)
        );
        by_key.entry(key).or_default().push(value);
    }
    assert_eq!(by_key.len(), 50);
    for (key, values) in by_key {
        let number: usize = String::from_utf8(key).unwrap()[4..].parse().unwrap();
        let expected: Vec<_> = (0..30_000).skip(number).step_by(50).collect();
        assert_eq!(values, expected, "of key {number}");
    }
}
