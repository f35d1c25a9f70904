//! Committed offsets and their metadata.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use runtime::log::{Committed, ConsumerOptions, LogError, MAX_METADATA_BYTES};

use super::support::*;
use super::targets::Target;

fn at(offset: i64, metadata: &str) -> Option<Committed> {
    Some(Committed {
        offset,
        metadata: metadata.into(),
    })
}

pub fn committed_offsets_come_back_with_their_metadata(target: &Target) {
    let partitions = target.topic(3);
    let group = target.unique("group");
    let mut consumer = target
        .log
        .consumer(&ConsumerOptions::new(&group))
        .expect("a consumer");
    assert_eq!(
        consumer.committed(&partitions).expect("an answer"),
        [None, None, None]
    );
    assert_eq!(
        target
            .log
            .committed(&group, &partitions)
            .expect("an answer"),
        [None, None, None]
    );

    let plan = r#"{"flush_end":5,"city":"São Paulo"}"#;
    consumer
        .commit(&[
            commit_of(&partitions[2], 7, plan),
            commit_of(&partitions[0], 0, ""),
        ])
        .expect("committed");
    let expected = [at(0, ""), None, at(7, plan)];
    assert_eq!(
        consumer.committed(&partitions).expect("an answer"),
        expected
    );
    assert_eq!(
        target
            .log
            .committed(&group, &partitions)
            .expect("an answer"),
        expected
    );
    let turned = [partitions[2].clone(), partitions[0].clone()];
    assert_eq!(
        target.log.committed(&group, &turned).expect("an answer"),
        [at(7, plan), at(0, "")]
    );

    // a later commit replaces offset and metadata, backwards too
    consumer
        .commit(&[commit_of(&partitions[2], 3, "")])
        .expect("committed");
    assert_eq!(
        target
            .log
            .committed(&group, &partitions)
            .expect("an answer"),
        [at(0, ""), None, at(3, "")]
    );
    close(consumer);
    assert_eq!(
        target
            .log
            .committed(&group, &partitions)
            .expect("an answer"),
        [at(0, ""), None, at(3, "")]
    );
    assert_eq!(
        target
            .log
            .committed(&target.unique("other"), &partitions)
            .expect("an answer"),
        [None, None, None]
    );
}

pub fn metadata_of_4096_bytes_fits_and_one_more_is_too_large(target: &Target) {
    let partitions = target.topic(1);
    let group = target.unique("group");
    let mut consumer = target
        .log
        .consumer(&ConsumerOptions::new(&group))
        .expect("a consumer");
    let fits = "m".repeat(MAX_METADATA_BYTES);
    let larger = "m".repeat(MAX_METADATA_BYTES + 1);
    consumer
        .commit(&[commit_of(&partitions[0], 1, &fits)])
        .expect("committed");
    assert_eq!(
        consumer.committed(&partitions).expect("an answer"),
        [at(1, &fits)]
    );
    let error = consumer
        .commit(&[commit_of(&partitions[0], 2, &larger)])
        .expect_err("too large");
    assert!(
        matches!(error, LogError::TooLarge { bytes: 4097, .. }),
        "{error}"
    );
    assert_eq!(
        consumer.committed(&partitions).expect("an answer"),
        [at(1, &fits)]
    );

    let mut producer = transactional(target, &target.unique("tx"));
    let membership = consumer.group_metadata().expect("a membership");
    producer.begin().expect("begun");
    let error = producer
        .send_offsets(&[commit_of(&partitions[0], 3, &larger)], &membership)
        .expect_err("too large");
    assert!(
        matches!(error, LogError::TooLarge { bytes: 4097, .. }),
        "{error}"
    );
    producer.abort().expect("aborted");
    producer.begin().expect("begun");
    producer
        .send_offsets(&[commit_of(&partitions[0], 4, &fits)], &membership)
        .expect("sent");
    producer.commit().expect("committed");
    assert_eq!(
        consumer.committed(&partitions).expect("an answer"),
        [at(4, &fits)]
    );
    close(consumer);
}

pub fn offsets_in_a_transaction_take_effect_with_it(target: &Target) {
    let partitions = target.topic(2);
    let group = target.unique("group");
    let mut consumer = target
        .log
        .consumer(&ConsumerOptions::new(&group))
        .expect("a consumer");
    consumer
        .commit(&[commit_of(&partitions[0], 1, "before")])
        .expect("committed");
    let membership = consumer.group_metadata().expect("a membership");
    let mut producer = transactional(target, &target.unique("tx"));

    producer.begin().expect("begun");
    put(&mut *producer, &partitions[1], "x");
    producer
        .send_offsets(&[commit_of(&partitions[0], 5, "five")], &membership)
        .expect("sent");
    producer.abort().expect("aborted");
    assert_eq!(
        consumer.committed(&partitions).expect("an answer"),
        [at(1, "before"), None]
    );

    producer.begin().expect("begun");
    put(&mut *producer, &partitions[1], "y");
    let both = [
        commit_of(&partitions[0], 6, "six"),
        commit_of(&partitions[1], 9, r#"{"wm":1}"#),
    ];
    producer.send_offsets(&both, &membership).expect("sent");
    assert_eq!(
        target
            .log
            .committed(&group, &partitions[..1])
            .expect("an answer"),
        [at(1, "before")]
    );
    producer.commit().expect("committed");
    assert_eq!(
        consumer.committed(&partitions).expect("an answer"),
        [at(6, "six"), at(9, r#"{"wm":1}"#)]
    );

    // offsets without a record
    producer.begin().expect("begun");
    producer
        .send_offsets(&[commit_of(&partitions[0], 7, "")], &membership)
        .expect("sent");
    producer.commit().expect("committed");
    assert_eq!(
        consumer.committed(&partitions[..1]).expect("an answer"),
        [at(7, "")]
    );
    assert_eq!(texts(&all(target, &partitions)), ["y"]);
    close(consumer);
}

pub fn committed_offsets_wait_for_the_transaction_that_holds_them(target: &Target) {
    let partitions = target.topic(1);
    let group = target.unique("group");
    let mut consumer = target
        .log
        .consumer(&ConsumerOptions::new(&group))
        .expect("a consumer");
    consumer
        .commit(&[commit_of(&partitions[0], 1, "old")])
        .expect("committed");
    let membership = consumer.group_metadata().expect("a membership");
    let mut producer = transactional(target, &target.unique("tx"));
    producer.begin().expect("begun");
    producer
        .send_offsets(&[commit_of(&partitions[0], 2, "new")], &membership)
        .expect("sent");
    let is_over = Arc::new(AtomicBool::new(false));
    let ending = Arc::clone(&is_over);
    let commit = std::thread::spawn(move || {
        // Time for an answer that does not wait.
        std::thread::sleep(Duration::from_millis(500));
        ending.store(true, Ordering::SeqCst);
        producer.commit()
    });
    assert_eq!(
        consumer.committed(&partitions).expect("an answer"),
        [at(2, "new")]
    );
    assert!(
        is_over.load(Ordering::SeqCst),
        "the answer came while the transaction was open"
    );
    commit.join().unwrap().expect("committed");
    close(consumer);
}

pub fn a_closed_reader_goes_on_where_it_committed(target: &Target) {
    let partitions = target.topic(1);
    let partition = &partitions[0];
    put_numbers(&mut *writer(target), partition, 0..30);
    let group = target.unique("group");
    let mut next = 0;
    for _ in 0..3 {
        let mut member = Member::join(target, &ConsumerOptions::new(&group), &partition.topic);
        drive(target, "ten records came", &mut [&mut member], |members| {
            members[0].seen.len() >= 10
        });
        let first = &member.seen[0];
        assert_eq!(first.offset, next, "it went on elsewhere");
        next = first.offset + 10;
        member
            .consumer
            .commit(&[commit_of(partition, next, "")])
            .expect("committed");
        close(member.consumer);
        if next == 30 {
            return;
        }
    }
}
