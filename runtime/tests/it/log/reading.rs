//! Polling, pausing, seeking, ends.

use std::collections::BTreeSet;
use std::time::Duration;

use runtime::log::{ConsumerOptions, Event};

use super::support::*;
use super::targets::Target;

fn numbers(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

pub fn a_batch_is_never_larger_than_asked_for(target: &Target) {
    let partition = target.topic(1).remove(0);
    put_numbers(&mut *writer(target), &partition, 0..500);
    let mut consumer = reader(target, &[(partition, 0)]);
    let mut seen = Vec::new();
    until(target, "all records came", || {
        let most = 1 + seen.len() % 17;
        if let Some(Event::Records(batch)) = poll(&mut *consumer, most) {
            assert!(
                batch.len() > 0 && batch.len() <= most,
                "{} records, asked for {most}",
                batch.len()
            );
            seen.extend(copy(&batch));
        }
        seen.len() == 500
    });
    assert_eq!(texts(&seen), numbers(0..500));
    close(consumer);
}

pub fn partitions_take_turns(target: &Target) {
    let partitions = target.topic(4);
    let mut producer = writer(target);
    for partition in &partitions {
        put_numbers(&mut *producer, partition, 0..2000);
    }
    let starts: Vec<_> = partitions
        .iter()
        .map(|partition| (partition.clone(), 0))
        .collect();
    let mut consumer = reader(target, &starts);
    // A client may get one partition before another: turns can be taken once all have something.
    let mut seen = read(target, &mut *consumer, 1);
    std::thread::sleep(Duration::from_millis(1000));
    let mut first = BTreeSet::new();
    until(target, "all records came", || {
        if let Some(Event::Records(batch)) = poll(&mut *consumer, 10) {
            if seen.len() < 4000 {
                first.insert(batch.partition.clone());
            }
            seen.extend(copy(&batch));
        }
        seen.len() == 8000
    });
    assert_eq!(
        first.len(),
        4,
        "while half of the records were read, only {first:?} had a turn"
    );
    for partition in &partitions {
        let of: Vec<_> = seen
            .iter()
            .filter(|record| record.partition == *partition)
            .map(Seen::text)
            .collect();
        assert_eq!(of, numbers(0..2000), "{partition}");
    }
    close(consumer);
}

pub fn pause_resume_and_seek_skip_nothing(target: &Target) {
    let partitions = target.topic(2);
    let (first, second) = (&partitions[0], &partitions[1]);
    let mut producer = writer(target);
    put_numbers(&mut *producer, first, 0..300);
    put_numbers(&mut *producer, second, 0..300);
    let mut consumer = reader(target, &[(first.clone(), 0), (second.clone(), 0)]);

    // a few records of each, then the first is paused: the second goes on alone, even while more arrives
    let mut of_first = Vec::new();
    let mut of_second = Vec::new();
    until(target, "both have begun", || {
        if let Some(Event::Records(batch)) = poll(&mut *consumer, 10) {
            let to = if batch.partition == *first {
                &mut of_first
            } else {
                &mut of_second
            };
            to.extend(copy(&batch));
        }
        !of_first.is_empty() && !of_second.is_empty()
    });
    consumer
        .pause(std::slice::from_ref(first))
        .expect("a pause");
    put_numbers(&mut *producer, first, 300..320);
    put_numbers(&mut *producer, second, 300..320);
    until(target, "the second was read to its end", || {
        if let Some(Event::Records(batch)) = poll(&mut *consumer, 10) {
            assert_eq!(batch.partition, *second, "the first is paused");
            of_second.extend(copy(&batch));
        }
        of_second.len() == 320
    });
    expect_silence(target, &mut *consumer, Duration::from_millis(300));
    assert_eq!(texts(&of_second), numbers(0..320));

    // resumed, it goes on exactly where it stopped
    consumer
        .resume(std::slice::from_ref(first))
        .expect("a resume");
    of_first.extend(read(target, &mut *consumer, 320 - of_first.len()));
    assert_eq!(texts(&of_first), numbers(0..320));

    // back, and forward
    consumer.seek(first, 100).expect("a seek");
    let again = read(target, &mut *consumer, 220);
    assert_eq!(texts(&again), numbers(100..320));
    consumer.seek(first, 5).expect("a seek");
    consumer.seek(first, 310).expect("a seek");
    assert_eq!(texts(&read(target, &mut *consumer, 10)), numbers(310..320));

    // a paused partition that is assigned anew is no longer paused
    consumer
        .pause(std::slice::from_ref(first))
        .expect("a pause");
    consumer
        .unassign(std::slice::from_ref(first))
        .expect("given back");
    consumer
        .assign(&[(first.clone(), 317)])
        .expect("assigned again");
    assert_eq!(texts(&read(target, &mut *consumer, 3)), numbers(317..320));
    close(consumer);
}

pub fn the_end_is_reported_each_time_it_is_reached(target: &Target) {
    let partition = target.topic(1).remove(0);
    let mut producer = writer(target);
    let mut consumer = reader(target, &[(partition.clone(), 0)]);
    for end in [0, 3, 4] {
        let mut position = consumer_end(target, &mut *consumer);
        // What came first may be an end that was reached between two records of one write.
        while position < end {
            position = consumer_end(target, &mut *consumer);
        }
        assert_eq!(position, end);
        assert_eq!(target.log.bounds(&partition).expect("bounds").stable, end);
        for _ in 0..5 {
            if let Some(Event::End { position, .. }) = poll(&mut *consumer, 10) {
                panic!("the end at {position} was reported twice");
            }
        }
        let more = if end == 0 { 0..3 } else { 3..4 };
        put_numbers(&mut *producer, &partition, more);
    }
    close(consumer);
}

fn consumer_end(target: &Target, consumer: &mut dyn runtime::log::Consumer) -> i64 {
    let mut end = None;
    until(target, "the end is reported", || {
        if let Some(Event::End { position, .. }) = poll(&mut *consumer, 100) {
            end = Some(position);
        }
        end.is_some()
    });
    end.unwrap()
}

pub fn nothing_is_read_before_a_start_is_named(target: &Target) {
    let partition = target.topic(1).remove(0);
    put_numbers(&mut *writer(target), &partition, 0..10);
    let group = target.unique("group");
    let mut consumer = target
        .log
        .consumer(&ConsumerOptions::new(&group))
        .expect("a consumer");
    consumer
        .subscribe(&[&partition.topic])
        .expect("a subscription");
    let mut assigned = Vec::new();
    until(target, "partitions are assigned", || {
        match poll(&mut *consumer, 10) {
            Some(Event::Assigned(partitions)) => assigned = partitions,
            Some(Event::Records(batch)) => panic!("{batch:?} came without a start"),
            _ => {}
        }
        !assigned.is_empty()
    });
    assert_eq!(assigned, std::slice::from_ref(&partition));
    assert_eq!(
        consumer.committed(&assigned).expect("the group's offsets"),
        [None]
    );
    expect_silence(target, &mut *consumer, Duration::from_millis(300));
    consumer
        .assign(&[(partition, 4)])
        .expect("partitions are assigned");
    assert_eq!(texts(&read(target, &mut *consumer, 6)), numbers(4..10));
    close(consumer);
}

pub fn an_unassigned_partition_is_silent(target: &Target) {
    let partitions = target.topic(2);
    let mut producer = writer(target);
    put_numbers(&mut *producer, &partitions[0], 0..200);
    put_numbers(&mut *producer, &partitions[1], 0..10);
    let mut consumer = reader(target, &[(partitions[0].clone(), 0)]);
    until(target, "the first has begun", || {
        matches!(poll(&mut *consumer, 10), Some(Event::Records(_)))
    });
    consumer.unassign(&partitions[..1]).expect("given back");
    expect_silence(target, &mut *consumer, Duration::from_millis(300));
    consumer
        .assign(&[(partitions[1].clone(), 0)])
        .expect("assigned");
    let seen = read(target, &mut *consumer, 10);
    assert!(seen.iter().all(|record| record.partition == partitions[1]));
    assert_eq!(texts(&seen), numbers(0..10));
    close(consumer);
}
