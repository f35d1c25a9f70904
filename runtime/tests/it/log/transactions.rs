//! Transactions: all or nothing, fenced, bounded in time.

use std::time::Duration;

use runtime::log::{
    Class, ConsumerOptions, Event, LogError, NewRecord, ProducerOptions, TopicPartition,
};

use super::support::*;
use super::targets::Target;

pub fn aborted_records_are_never_read(target: &Target) {
    let partitions = target.topic(2);
    let mut producer = transactional(target, &target.unique("tx"));
    let mut consumer = reader(
        target,
        &[(partitions[0].clone(), 0), (partitions[1].clone(), 0)],
    );
    for round in 0..6 {
        producer.begin().expect("begun");
        for partition in &partitions {
            put(&mut *producer, partition, &format!("{round}"));
        }
        producer.flush().expect("all is delivered");
        if round % 2 == 0 {
            producer.commit().expect("committed")
        } else {
            producer.abort().expect("aborted")
        }
    }
    let mut seen = texts(&read(target, &mut *consumer, 6));
    seen.sort();
    assert_eq!(seen, ["0", "0", "2", "2", "4", "4"]);
    expect_silence(target, &mut *consumer, Duration::from_millis(200));
    close(consumer);
    // and by a reader that comes later
    let mut seen = texts(&all(target, &partitions));
    seen.sort();
    assert_eq!(seen, ["0", "0", "2", "2", "4", "4"]);
}

pub fn an_open_transaction_holds_the_last_stable_offset(target: &Target) {
    let partition = target.topic(1).remove(0);
    let mut plain = writer(target);
    put_numbers(&mut *plain, &partition, 0..2);
    let mut producer = transactional(target, &target.unique("tx"));
    producer.begin().expect("begun");
    put(&mut *producer, &partition, "in the transaction");
    producer.flush().expect("delivered");
    put(&mut *plain, &partition, "behind it");
    plain.flush().expect("delivered");

    let bounds = target.log.bounds(&partition).expect("bounds");
    assert_eq!((bounds.start, bounds.stable, bounds.end), (0, 2, 4));
    let mut consumer = reader(target, &[(partition.clone(), 0)]);
    let mut seen = Vec::new();
    let mut end = None;
    until(target, "the end is reached", || {
        match poll(&mut *consumer, 100) {
            Some(Event::Records(batch)) => seen.extend(copy(&batch)),
            Some(Event::End { position, .. }) => end = Some(position),
            _ => {}
        }
        end.is_some()
    });
    assert_eq!(
        (texts(&seen), end),
        (vec!["0".to_string(), "1".into()], Some(2))
    );
    expect_silence(target, &mut *consumer, Duration::from_millis(300));

    producer.commit().expect("committed");
    assert_eq!(
        texts(&read(target, &mut *consumer, 2)),
        ["in the transaction", "behind it"]
    );
    let bounds = target.log.bounds(&partition).expect("bounds");
    assert_eq!(
        (bounds.stable, bounds.end),
        (5, 5),
        "the control record took one offset"
    );
    close(consumer);
}

pub fn control_records_leave_holes_and_the_end_lies_behind_them(target: &Target) {
    let partition = target.topic(1).remove(0);
    let mut producer = transactional(target, &target.unique("tx"));
    let mut consumer = reader(target, &[(partition.clone(), 0)]);
    let mut offsets = Vec::new();
    let mut last_end = -1;
    let mut wait_for_end = |expected: i64, offsets: &mut Vec<i64>| {
        until(target, "the end lies behind the control record", || {
            match poll(&mut *consumer, 100) {
                Some(Event::Records(batch)) => {
                    offsets.extend(batch.iter().map(|record| record.offset))
                }
                Some(Event::End { position, .. }) => {
                    assert!(
                        position > last_end && position <= expected,
                        "end {position} after {last_end}"
                    );
                    last_end = position;
                }
                _ => {}
            }
            last_end == expected
        });
        assert_eq!(
            target.log.bounds(&partition).expect("bounds").stable,
            expected
        );
    };
    wait_for_end(0, &mut offsets);
    producer.begin().expect("begun");
    put(&mut *producer, &partition, "0");
    put(&mut *producer, &partition, "1");
    producer.commit().expect("committed");
    wait_for_end(3, &mut offsets);
    producer.begin().expect("begun");
    put(&mut *producer, &partition, "aborted");
    producer.flush().expect("delivered");
    producer.abort().expect("aborted");
    wait_for_end(5, &mut offsets);
    producer.begin().expect("begun");
    put(&mut *producer, &partition, "5");
    producer.commit().expect("committed");
    wait_for_end(7, &mut offsets);
    assert_eq!(offsets, [0, 1, 5]);

    // A reader may begin in a hole.
    let mut other = reader(target, &[(partition.clone(), 3)]);
    assert_eq!(read(target, &mut *other, 1)[0].offset, 5);
    close(other);
}

pub fn a_later_producer_fences_an_earlier_one(target: &Target) {
    let partition = target.topic(1).remove(0);
    let id = target.unique("tx");
    let mut first = transactional(target, &id);
    first.begin().expect("begun");
    put(&mut *first, &partition, "committed by the first");
    first.commit().expect("committed");
    first.begin().expect("begun");
    put(&mut *first, &partition, "left open by the first");
    first.flush().expect("delivered");

    let mut second = transactional(target, &id);
    second.begin().expect("begun");
    put(&mut *second, &partition, "by the second");
    second.commit().expect("committed");

    let _ = try_put(&mut *first, &partition, "by the zombie");
    let error = first.commit().expect_err("the first is fenced");
    if target.name.starts_with("kfake") {
        // It refuses the zombie's record as one outside a transaction, which does not tell the zombie why.
        assert!(
            matches!(error.class(), Class::Fenced | Class::Abort),
            "{error}"
        );
    } else {
        assert_eq!(error.class(), Class::Fenced, "{error}");
        let error = first.begin().expect_err("the first is fenced for good");
        assert!(
            matches!(error.class(), Class::Fenced | Class::Fatal),
            "{error}"
        );
    }
    drop(first);

    second.begin().expect("begun");
    put(&mut *second, &partition, "by the second again");
    second.commit().expect("the zombie disturbs nobody");
    assert_eq!(
        texts(&all(target, &[partition])),
        [
            "committed by the first",
            "by the second",
            "by the second again"
        ]
    );
}

pub fn a_transaction_past_its_timeout_is_aborted(target: &Target) {
    let partition = target.topic(1).remove(0);
    let id = target.unique("tx");
    let options = ProducerOptions {
        transaction_timeout: target.transaction,
        ..target.transactional(&id)
    };
    let mut producer = initialised(target, &options);
    producer.begin().expect("begun");
    put(&mut *producer, &partition, "too late");
    producer.flush().expect("delivered");
    assert_eq!(target.log.bounds(&partition).expect("bounds").stable, 0);
    until(target, "the log aborts the transaction", || {
        std::thread::sleep(Duration::from_millis(100));
        target.log.bounds(&partition).expect("bounds").stable == 2
    });
    // How a producer hears of it differs: as an epoch that is over (Kafka), or as a transaction that must be aborted.
    let error = producer.commit().expect_err("the transaction is over");
    assert!(
        matches!(error.class(), Class::Abort | Class::Restart | Class::Fenced),
        "{error}"
    );
    drop(producer);
    let mut successor = initialised(target, &target.transactional(&id));
    successor.begin().expect("begun");
    put(&mut *successor, &partition, "in time");
    successor.commit().expect("committed");
    assert_eq!(texts(&all(target, &[partition])), ["in time"]);
}

pub fn a_transaction_over_several_topics_is_one(target: &Target) {
    let mut partitions = target.topic(3);
    partitions.extend(target.topic(2));
    let mut producer = transactional(target, &target.unique("tx"));
    for (round, commits) in [(0, true), (1, false), (2, true)] {
        producer.begin().expect("begun");
        for partition in &partitions {
            put_numbers(&mut *producer, partition, round * 10..round * 10 + 5);
        }
        if commits {
            producer.commit().expect("committed")
        } else {
            producer.abort().expect("aborted")
        }
    }
    for partition in partitions {
        let expected: Vec<String> = (0..5)
            .chain(20..25)
            .map(|number| number.to_string())
            .collect();
        assert_eq!(
            texts(&all(target, std::slice::from_ref(&partition))),
            expected,
            "{partition}"
        );
    }
}

pub fn calls_out_of_turn_are_refused(target: &Target) {
    let partition = target.topic(1).remove(0);
    let state = |result: Result<(), LogError>| {
        let error = result.expect_err("out of turn");
        assert!(matches!(error, LogError::State { .. }), "{error}");
    };
    let mut plain = writer(target);
    state(plain.init_transactions());
    state(plain.begin());
    state(plain.commit());
    state(plain.abort());
    let mut producer = target
        .log
        .producer(&target.transactional(&target.unique("tx")))
        .expect("a producer");
    state(producer.begin());
    producer.init_transactions().expect("taken");
    state(producer.commit());
    state(producer.abort());
    state(try_put(&mut *producer, &partition, "outside a transaction"));
    producer.begin().expect("begun");
    state(producer.begin());
    put(&mut *producer, &partition, "inside");
    producer.commit().expect("committed");
    state(producer.commit());
    // an empty transaction is no error
    producer.begin().expect("begun");
    producer.commit().expect("committed");
    producer.begin().expect("begun");
    producer.abort().expect("aborted");
    assert_eq!(texts(&all(target, &[partition])), ["inside"]);
}

/// One turn of a worker: reads a batch, writes each record doubled, and commits both together.
fn turn(
    target: &Target,
    input: &TopicPartition,
    output: &TopicPartition,
    group: &str,
    id: &str,
    mut ending: impl FnMut() -> u32,
) -> bool {
    // A static member, so that after a crash its successor need not wait for the session timeout.
    let options = ConsumerOptions {
        instance_id: Some("worker".into()),
        ..ConsumerOptions::new(group)
    };
    let mut member = Member::join(target, &options, &input.topic);
    let mut producer = transactional(target, id);
    drive(
        target,
        "the partition is assigned",
        &mut [&mut member],
        |members| !members[0].owned.is_empty(),
    );
    let consumer = &mut member.consumer;
    let start = consumer
        .committed(std::slice::from_ref(input))
        .expect("offsets")[0]
        .as_ref()
        .map_or(0, |c| c.offset);
    consumer.seek(input, start).expect("a seek");
    let mut position = start;
    loop {
        let mut read = Vec::new();
        let mut end = -1;
        until(target, "records or the end came", || {
            match poll(&mut **consumer, 7) {
                Some(Event::Records(batch)) => read.extend(copy(&batch)),
                Some(Event::End { position, .. }) => end = position,
                _ => {}
            }
            !read.is_empty() || end >= 0
        });
        let Some(last) = read.last() else {
            close(member.consumer);
            return target.log.bounds(input).expect("bounds").stable == end;
        };
        let next = last.offset + 1;
        producer.begin().expect("begun");
        for record in &read {
            let record = NewRecord {
                topic: &output.topic,
                partition: Some(output.partition),
                key: None,
                value: record.value.as_deref(),
                headers: &[],
                timestamp_ms: None,
            };
            producer.send(record).expect("a record is taken");
        }
        match ending() {
            // a crash before the offsets, and one after them
            0 => return false,
            1 => {
                let membership = consumer.group_metadata().expect("a membership");
                producer
                    .send_offsets(&[commit_of(input, next, "")], &membership)
                    .expect("sent");
                return false;
            }
            // an abort: the batch is read again
            2 => {
                producer.flush().expect("delivered");
                producer.abort().expect("aborted");
                consumer.seek(input, position).expect("a seek");
            }
            _ => {
                let membership = consumer.group_metadata().expect("a membership");
                producer
                    .send_offsets(&[commit_of(input, next, "doubled")], &membership)
                    .expect("sent");
                producer.commit().expect("committed");
                position = next;
            }
        }
    }
}

pub fn read_process_write_is_exactly_once_through_aborts_and_restarts(target: &Target) {
    let input = target.topic(1).remove(0);
    let output = target.topic(1).remove(0);
    let mut source = transactional(target, &target.unique("source"));
    for round in 0..10 {
        source.begin().expect("begun");
        put_numbers(&mut *source, &input, round * 10..round * 10 + 10);
        source.commit().expect("committed");
    }
    let (group, id) = (target.unique("group"), target.unique("worker"));
    // A fixed plan of endings, so that a failure can be looked at again.
    let plan = [3, 2, 3, 0, 2, 3, 3, 1, 3, 2, 2, 3, 3, 1, 3];
    let mut step = 0;
    let mut ending = || {
        step += 1;
        plan.get(step - 1).copied().unwrap_or(3)
    };
    let mut turns = 0;
    while !turn(target, &input, &output, &group, &id, &mut ending) {
        turns += 1;
        assert!(turns < 20, "it does not come to an end");
    }
    let expected: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    assert_eq!(texts(&all(target, &[output])), expected);
}
