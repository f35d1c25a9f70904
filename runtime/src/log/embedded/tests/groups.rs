//! Groups, transactional ids, and the clock.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

#[test]
fn a_partition_moves_only_when_its_owner_gives_it_back_and_an_old_generation_commits_nothing() {
    let fixture = Fixture::new();
    fixture.topic("t", 2);
    let mut first = fixture.member("g", &["t"]);
    let Some(Event::Assigned(all)) = first.poll(NOW, 1).unwrap() else {
        panic!("not assigned")
    };
    assert_eq!(all, [tp("t", 0), tp("t", 1)]);
    first.assign(&[(tp("t", 0), 0), (tp("t", 1), 0)]).unwrap();
    first.commit(&[commit_of(&all[0], 3, "meta")]).unwrap();
    let old = first.group_metadata().unwrap();

    let mut second = fixture.member("g", &["t"]);
    assert!(
        second.poll(NOW, 1).unwrap().is_none(),
        "nothing is free yet"
    );
    let Some(Event::Revoked(moved)) = first.poll(NOW, 1).unwrap() else {
        panic!("not revoked")
    };
    assert_eq!(moved.len(), 1);
    assert!(
        second.poll(NOW, 1).unwrap().is_none(),
        "the owner has not answered"
    );
    first.unassign(&moved).unwrap();
    let Some(Event::Assigned(got)) = second.poll(NOW, 1).unwrap() else {
        panic!("not assigned")
    };
    assert_eq!(got, moved);

    let mut producer = fixture.transactional("a");
    producer.begin().unwrap();
    let refused = producer.send_offsets(&[commit_of(&all[0], 9, "")], &old);
    assert!(
        matches!(refused, Err(LogError::StaleGeneration { .. })),
        "{refused:?}"
    );
    producer
        .send_offsets(
            &[commit_of(&all[0], 5, "new")],
            &first.group_metadata().unwrap(),
        )
        .unwrap();
    let waiting = first.committed(&all);
    assert!(
        matches!(waiting, Err(LogError::TimedOut { .. })),
        "{waiting:?}"
    );
    assert_eq!(
        fixture.log.committed("g", &all).unwrap()[0]
            .as_ref()
            .unwrap()
            .offset,
        3
    );
    producer.commit().unwrap();
    let committed = Some(Committed {
        offset: 5,
        metadata: "new".into(),
    });
    assert_eq!(first.committed(&all).unwrap(), [committed, None]);
}

/// A member as a worker would be one: it answers what it is told, and remembers what it has.
struct Worker {
    consumer: Box<dyn Consumer>,
    held: BTreeSet<TopicPartition>,
    asked: Vec<TopicPartition>,
}

impl Worker {
    fn new(consumer: Box<dyn Consumer>) -> Self {
        Self {
            consumer,
            held: BTreeSet::new(),
            asked: Vec::new(),
        }
    }

    fn poll(&mut self) {
        match self.consumer.poll(NOW, 1).unwrap() {
            Some(Event::Assigned(partitions)) => {
                let starts: Vec<_> = partitions
                    .iter()
                    .map(|partition| (partition.clone(), 0))
                    .collect();
                self.consumer.assign(&starts).unwrap();
                for partition in partitions {
                    assert!(self.held.insert(partition), "given twice");
                }
            }
            Some(Event::Revoked(partitions)) => {
                assert!(
                    partitions
                        .iter()
                        .all(|partition| self.held.contains(partition)),
                    "asked for what it has not"
                );
                self.asked = partitions;
            }
            Some(Event::Lost(partitions)) => {
                assert_eq!(
                    partitions.iter().cloned().collect::<BTreeSet<_>>(),
                    self.held
                );
                self.consumer.unassign(&partitions).unwrap();
                self.held.clear();
                self.asked.clear();
            }
            _ => {}
        }
    }

    fn answer(&mut self) {
        self.consumer.unassign(&self.asked).unwrap();
        for partition in self.asked.drain(..) {
            self.held.remove(&partition);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn no_partition_has_two_owners_and_in_the_end_each_has_one(
        partitions in 1..6_i32,
        steps in prop::collection::vec((0..4_usize, 0..10_u8), 1..60),
    ) {
        let fixture = Fixture::new();
        fixture.topic("t", partitions);
        let mut workers: BTreeMap<usize, Worker> = BTreeMap::new();
        for (number, action) in steps {
            match (workers.get_mut(&number), action) {
                (None, _) => {
                    workers.insert(number, Worker::new(fixture.member("g", &["t"])));
                }
                (Some(worker), 0..=4) => worker.poll(),
                (Some(worker), 5..=6) => worker.answer(),
                (Some(_), 7) => {
                    workers.remove(&number).unwrap().consumer.close(NOW).unwrap();
                }
                (Some(_), 8) => {
                    workers.remove(&number);
                }
                (Some(_), _) => fixture.clock.advance(Duration::from_secs(6)),
            }
            // Who may commit holds what nobody else who may commit holds.
            let mut seen = BTreeSet::new();
            for worker in workers.values_mut().filter(|worker| !worker.held.is_empty()) {
                match worker.consumer.commit(&[]) {
                    Ok(()) => for partition in &worker.held {
                        prop_assert!(seen.insert(partition.clone()), "{} has two owners", partition);
                    },
                    Err(LogError::StaleGeneration { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
        }
        if workers.is_empty() {
            workers.insert(0, Worker::new(fixture.member("g", &["t"])));
        }
        fixture.clock.advance(Duration::from_secs(11));
        for _ in 0..12 {
            for worker in workers.values_mut() {
                worker.poll();
                worker.answer();
            }
        }
        let shares: Vec<usize> = workers.values().map(|worker| worker.held.len()).collect();
        prop_assert_eq!(shares.iter().sum::<usize>(), partitions as usize);
        prop_assert!(shares.iter().max().unwrap() - shares.iter().min().unwrap() <= 1, "{:?}", shares);
    }
}

#[test]
fn a_dropped_or_forgotten_member_keeps_its_place_until_its_session_is_over() {
    for forget in [false, true] {
        let fixture = Fixture::new();
        fixture.topic("t", 1);
        let mut first = Worker::new(fixture.member("g", &["t"]));
        first.poll();
        let proof = first.consumer.group_metadata().unwrap();
        if forget {
            std::mem::forget(first);
        } else {
            drop(first);
        }
        let mut second = Worker::new(fixture.member("g", &["t"]));
        second.poll();
        fixture.clock.advance(Duration::from_millis(9_999));
        second.poll();
        assert!(second.held.is_empty());
        fixture.clock.advance(Duration::from_millis(1));
        second.poll();
        assert_eq!(second.held.len(), 1);
        let mut producer = fixture.transactional("a");
        producer.begin().unwrap();
        let refused = producer.send_offsets(&[commit_of(&tp("t", 0), 1, "")], &proof);
        assert!(
            matches!(refused, Err(LogError::StaleGeneration { .. })),
            "{refused:?}"
        );
    }
}

#[test]
fn a_silent_member_learns_that_it_lost_its_partitions_and_joins_again() {
    let fixture = Fixture::new();
    fixture.topic("t", 2);
    let mut first = Worker::new(fixture.member("g", &["t"]));
    first.poll();
    let mut second = Worker::new(fixture.member("g", &["t"]));
    fixture.clock.advance(Duration::from_secs(10));
    second.poll();
    assert_eq!(second.held.len(), 2);
    let refused = first.consumer.commit(&[commit_of(&tp("t", 0), 1, "")]);
    assert!(
        matches!(refused, Err(LogError::StaleGeneration { .. })),
        "{refused:?}"
    );
    for _ in 0..4 {
        for worker in [&mut first, &mut second] {
            worker.poll();
            worker.answer();
        }
    }
    assert_eq!((first.held.len(), second.held.len()), (1, 1));
    first
        .consumer
        .commit(&[commit_of(&tp("t", 0), 1, "")])
        .unwrap();
}

#[test]
fn a_live_member_that_works_for_long_keeps_its_place_where_life_is_the_heartbeat() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(0));
    let log = EmbeddedLog::open(
        dir.path(),
        EmbeddedOptions {
            heartbeats: Heartbeats::ByLife,
            ..options(&clock)
        },
    );
    let log = log.unwrap();
    log.create_topic(&TopicSpec::new("t", 1)).unwrap();
    let member = || {
        let mut consumer = log.consumer(&ConsumerOptions::new("g")).unwrap();
        consumer.subscribe(&["t"]).unwrap();
        Worker::new(consumer)
    };
    let (mut first, mut second) = (member(), member());
    first.poll();
    clock.advance(Duration::from_secs(60));
    second.poll();
    first
        .consumer
        .commit(&[commit_of(&tp("t", 0), 1, "")])
        .unwrap();
    clock.advance(Duration::from_secs(300));
    second.poll();
    assert_eq!(second.held.len(), 1, "but not beyond its max_poll_interval");
}

#[test]
fn a_static_member_that_comes_back_takes_its_place_at_once_and_fences_the_old_one() {
    let fixture = Fixture::new();
    fixture.topic("t", 2);
    let member = || {
        let options = ConsumerOptions {
            instance_id: Some("i".into()),
            ..ConsumerOptions::new("g")
        };
        let mut consumer = fixture.log.consumer(&options).unwrap();
        consumer.subscribe(&["t"]).unwrap();
        Worker::new(consumer)
    };
    let (mut old, mut other) = (member(), Worker::new(fixture.member("g", &["t"])));
    for _ in 0..4 {
        for worker in [&mut old, &mut other] {
            worker.poll();
            worker.answer();
        }
    }
    let others = other.held.clone();
    let proof = old.consumer.group_metadata().unwrap();
    let mut new = member();
    new.poll();
    assert_eq!(new.held, old.held);
    other.poll();
    assert_eq!(other.held, others, "nobody else is disturbed");
    let offsets = [commit_of(&tp("t", 0), 1, "")];
    for refused in [
        old.consumer.commit(&offsets),
        old.consumer.poll(NOW, 1).map(|_| ()),
    ] {
        assert!(
            matches!(refused, Err(LogError::InstanceFenced { .. })),
            "{refused:?}"
        );
    }
    let mut producer = fixture.transactional("a");
    producer.begin().unwrap();
    let refused = producer.send_offsets(&offsets, &proof);
    assert!(
        matches!(refused, Err(LogError::InstanceFenced { .. })),
        "{refused:?}"
    );
    new.consumer.commit(&offsets).unwrap();
    new.consumer.close_for_a_moment(NOW).unwrap();
    other.poll();
    assert_eq!(
        other.held, others,
        "its place is kept until its session is over"
    );
    fixture.clock.advance(Duration::from_secs(10));
    other.poll();
    assert_eq!(other.held.len(), 2);
}

#[test]
fn a_producer_whose_id_was_taken_can_do_nothing_more() {
    let fixture = Fixture::new();
    fixture.topic("t", 1);
    let mut old = fixture.transactional("a");
    old.begin().unwrap();
    send(&mut *old, "t", 0, "k", "old");
    old.flush().unwrap();
    send(&mut *old, "t", 0, "k", "old, not yet written");
    let mut new = fixture.transactional("a");
    let record = NewRecord {
        topic: "t",
        partition: None,
        key: None,
        value: None,
        headers: &[],
        timestamp_ms: None,
    };
    let calls = [
        old.send(record),
        old.flush().map(|_| ()),
        old.commit(),
        old.abort(),
        old.begin(),
    ];
    for refused in calls {
        assert!(
            matches!(refused, Err(LogError::Fenced { .. })),
            "{refused:?}"
        );
    }
    new.begin().unwrap();
    send(&mut *new, "t", 0, "k", "new");
    new.commit().unwrap();
    assert_eq!(read(&*fixture.log, &tp("t", 0)).0, [(2, "new".into())]);
}

#[test]
fn a_transaction_open_for_too_long_is_aborted_and_lets_go_of_its_offsets() {
    let fixture = Fixture::new();
    fixture.topic("t", 1);
    let partitions = [tp("t", 0)];
    let mut producer = fixture.transactional("a");
    let mut consumer = fixture.log.consumer(&ConsumerOptions::new("g")).unwrap();
    producer.begin().unwrap();
    fixture.clock.advance(Duration::from_secs(60));
    send(&mut *producer, "t", 0, "k", "late");
    producer.flush().unwrap();
    producer
        .send_offsets(
            &[commit_of(&tp("t", 0), 1, "")],
            &consumer.group_metadata().unwrap(),
        )
        .unwrap();
    fixture.clock.advance(Duration::from_millis(29_999));
    assert!(consumer.committed(&partitions).is_err());
    fixture.clock.advance(Duration::from_millis(1));
    assert_eq!(consumer.committed(&partitions).unwrap(), [None]);
    assert_eq!(read(&*fixture.log, &tp("t", 0)), (vec![], 2));
    assert!(matches!(producer.commit(), Err(LogError::Fenced { .. })));
}

#[test]
fn paused_partitions_lose_nothing_and_seeks_go_where_they_are_told() {
    let fixture = Fixture::new();
    fixture.topic("t", 1);
    let partition = tp("t", 0);
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("p"))
        .unwrap();
    for number in 0..9 {
        send(&mut *producer, "t", 0, "k", &number.to_string());
    }
    producer.flush().unwrap();
    let mut consumer = fixture.log.consumer(&ConsumerOptions::new("r")).unwrap();
    consumer.assign(&[(partition.clone(), 2)]).unwrap();
    let first = |consumer: &mut dyn Consumer| match consumer.poll(NOW, 2).unwrap() {
        Some(Event::Records(batch)) => Some(batch.get(0).offset),
        _ => None,
    };
    assert_eq!(first(&mut *consumer), Some(2));
    consumer.pause(std::slice::from_ref(&partition)).unwrap();
    assert_eq!(first(&mut *consumer), None);
    consumer.resume(std::slice::from_ref(&partition)).unwrap();
    assert_eq!(first(&mut *consumer), Some(4));
    consumer.seek(&partition, 8).unwrap();
    assert_eq!(first(&mut *consumer), Some(8));
    fixture.log.delete_records(&partition, 5).unwrap();
    for offset in [4, 10] {
        consumer.seek(&partition, offset).unwrap();
        let refused = consumer.poll(NOW, 2);
        assert!(
            matches!(
                refused,
                Err(LogError::OffsetOutOfRange {
                    start: 5,
                    end: 9,
                    ..
                })
            ),
            "{refused:?}"
        );
    }
    consumer.unassign(&[partition]).unwrap();
    assert!(consumer.poll(NOW, 2).unwrap().is_none());
}

#[test]
fn one_that_was_put_out_commits_nothing_even_if_the_group_is_empty() {
    let fixture = Fixture::new();
    fixture.topic("t", 1);
    let mut first = Worker::new(fixture.member("g", &["t"]));
    first.poll();
    let mut second = Worker::new(fixture.member("g", &["t"]));
    fixture.clock.advance(Duration::from_secs(10));
    second.poll();
    second.consumer.close(NOW).unwrap();
    assert!(matches!(
        first.consumer.poll(NOW, 1).unwrap(),
        Some(Event::Lost(_))
    ));
    let offsets = [commit_of(&tp("t", 0), 1, "")];
    let refused = first.consumer.commit(&offsets);
    assert!(
        matches!(refused, Err(LogError::StaleGeneration { .. })),
        "{refused:?}"
    );
    let mut stranger = fixture.log.consumer(&ConsumerOptions::new("g")).unwrap();
    stranger.commit(&offsets).unwrap();
}

#[test]
fn a_partition_that_is_put_aside_unasked_stays_its_owners() {
    let fixture = Fixture::new();
    fixture.topic("t", 1);
    let mut first = Worker::new(fixture.member("g", &["t"]));
    first.poll();
    first.consumer.unassign(&[tp("t", 0)]).unwrap();
    assert!(first.consumer.poll(NOW, 1).unwrap().is_none());
    first.consumer.assign(&[(tp("t", 0), 0)]).unwrap();
    assert!(matches!(
        first.consumer.poll(NOW, 1).unwrap(),
        Some(Event::End { .. })
    ));
}
