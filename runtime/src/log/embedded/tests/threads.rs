//! Many threads at one log.

use std::collections::BTreeSet;
use std::thread;
use std::time::Instant;

use super::*;

#[test]
fn rows_carried_from_topic_to_topic_by_workers_that_come_and_go_arrive_once() {
    const ROWS: u64 = 3_000;
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(
        dir.path(),
        EmbeddedOptions {
            segment_bytes: 20_000,
            ..EmbeddedOptions::default()
        },
    );
    let log = log.unwrap();
    log.create_topic(&TopicSpec::new("in", 4)).unwrap();
    log.create_topic(&TopicSpec::new("out", 3)).unwrap();
    let worker = |number: usize, lives: u64| {
        for life in 0..lives {
            let mut consumer = log.consumer(&ConsumerOptions::new("g")).unwrap();
            consumer.subscribe(&["in"]).unwrap();
            let mut producer = log
                .producer(&ProducerOptions::transactional(format!("w{number}")))
                .unwrap();
            producer.init_transactions().unwrap();
            let begun = Instant::now();
            let last = life + 1 == lives;
            while last || begun.elapsed() < Duration::from_millis(60) {
                match consumer.poll(Duration::from_millis(5), 50).unwrap() {
                    Some(Event::Assigned(partitions)) => {
                        let committed = consumer.committed(&partitions).unwrap();
                        let starts: Vec<_> = partitions
                            .into_iter()
                            .zip(committed)
                            .map(|(partition, committed)| {
                                (partition, committed.map_or(0, |held| held.offset))
                            })
                            .collect();
                        consumer.assign(&starts).unwrap();
                    }
                    Some(Event::Revoked(partitions) | Event::Lost(partitions)) => {
                        consumer.unassign(&partitions).unwrap();
                    }
                    Some(Event::Records(batch)) => {
                        producer.begin().unwrap();
                        for record in batch.iter() {
                            let (key, value) = (record.key, record.value);
                            let headers = [("h", value.unwrap())];
                            let timestamp_ms = Some(record.timestamp_ms);
                            let (topic, partition) = ("out", None);
                            let record = NewRecord {
                                topic,
                                partition,
                                key,
                                value,
                                headers: &headers,
                                timestamp_ms,
                            };
                            producer.send(record).unwrap();
                        }
                        let offsets = [commit_of(&batch.partition, batch.next_position(), "")];
                        let sent =
                            producer.send_offsets(&offsets, &consumer.group_metadata().unwrap());
                        match sent {
                            Ok(()) => producer.commit().unwrap(),
                            Err(error) => {
                                assert_eq!(error.class(), crate::log::Class::Abort);
                                producer.abort().unwrap();
                                break;
                            }
                        }
                    }
                    Some(Event::End { .. }) | None => {
                        let done: Offset = (0..4)
                            .map(|number| log.bounds(&tp("in", number)).unwrap().stable)
                            .sum();
                        let committed = log
                            .committed("g", &[tp("in", 0), tp("in", 1), tp("in", 2), tp("in", 3)]);
                        let at: Offset = committed
                            .unwrap()
                            .into_iter()
                            .flatten()
                            .map(|held| held.offset)
                            .sum();
                        if done as u64 == ROWS && at == done {
                            return;
                        }
                    }
                }
            }
            consumer.close(NOW).unwrap();
        }
    };
    thread::scope(|scope| {
        for number in 0..3 {
            scope.spawn(move || worker(number, 4));
        }
        scope.spawn(|| {
            let mut producer = log.producer(&ProducerOptions::idempotent("p")).unwrap();
            for row in 0..ROWS {
                let text = row.to_string();
                send(&mut *producer, "in", (row % 4) as i32, &text, &text);
                if row % 10 == 0 {
                    producer.flush().unwrap();
                    thread::sleep(Duration::from_micros(200));
                }
            }
            producer.flush().unwrap();
        });
    });
    let mut rows = Vec::new();
    for partition in 0..3 {
        rows.extend(
            read(&*log, &tp("out", partition))
                .0
                .into_iter()
                .map(|(_, row)| row.parse::<u64>().unwrap()),
        );
    }
    assert_eq!(rows.len() as u64, ROWS);
    assert_eq!(
        rows.into_iter().collect::<BTreeSet<_>>(),
        (0..ROWS).collect()
    );
}

#[test]
fn new_records_wake_a_waiting_reader() {
    let fixture = Fixture::new();
    fixture.topic("t", 1);
    let mut consumer = fixture.log.consumer(&ConsumerOptions::new("r")).unwrap();
    consumer.assign(&[(tp("t", 0), 0)]).unwrap();
    assert!(matches!(
        consumer.poll(NOW, 1).unwrap(),
        Some(Event::End { .. })
    ));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut producer = fixture
                .log
                .producer(&ProducerOptions::idempotent("p"))
                .unwrap();
            thread::sleep(Duration::from_millis(20));
            send(&mut *producer, "t", 0, "k", "x");
            producer.flush().unwrap();
        });
        assert!(matches!(
            consumer.poll(Duration::from_secs(60), 1).unwrap(),
            Some(Event::Records(_))
        ));
    });
}

/// Prints how fast it is; asserts only that all is there.
#[test]
fn many_records_go_through() {
    const RECORDS: usize = 200_000;
    let dir = tempfile::tempdir().unwrap();
    let log = EmbeddedLog::open(dir.path(), EmbeddedOptions::default()).unwrap();
    log.create_topic(&TopicSpec::new("t", 4)).unwrap();
    let mut producer = log.producer(&ProducerOptions::transactional("p")).unwrap();
    producer.init_transactions().unwrap();
    let value = [7_u8; 92];
    let begun = Instant::now();
    for start in (0..RECORDS).step_by(20_000) {
        producer.begin().unwrap();
        for number in start..start + 20_000 {
            let key = number.to_le_bytes();
            let (topic, partition, key, value) =
                ("t", None, Some(key.as_slice()), Some(value.as_slice()));
            producer
                .send(NewRecord {
                    topic,
                    partition,
                    key,
                    value,
                    headers: &[],
                    timestamp_ms: Some(1),
                })
                .unwrap();
        }
        producer.commit().unwrap();
    }
    let written = begun.elapsed();
    let mut consumer = log.consumer(&ConsumerOptions::new("r")).unwrap();
    let starts: Vec<_> = (0..4).map(|number| (tp("t", number), 0)).collect();
    consumer.assign(&starts).unwrap();
    let (mut records, mut bytes, mut ends) = (0, 0, 0);
    let begun = Instant::now();
    while ends < 4 {
        match consumer.poll(NOW, 10_000).unwrap() {
            Some(Event::Records(batch)) => {
                records += batch.len();
                bytes += batch
                    .iter()
                    .map(|record| record.value.unwrap().len())
                    .sum::<usize>();
            }
            Some(Event::End { .. }) => ends += 1,
            other => panic!("{other:?}"),
        }
    }
    let read = begun.elapsed();
    assert_eq!((records, bytes), (RECORDS, RECORDS * value.len()));
    let rate = |time: Duration| (RECORDS as f64 / time.as_secs_f64() / 1e6 * 100.0).round() / 100.0;
    println!(
        "{} M records/s written, {} M records/s read",
        rate(written),
        rate(read)
    );
}
