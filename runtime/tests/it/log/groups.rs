//! Groups: sharing, leaving, crashing, fencing.

use std::collections::BTreeSet;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use runtime::log::{Class, ConsumerOptions, Event, LogError, Offset, TopicPartition};

use super::support::*;
use super::targets::{Target, broker_target};

fn ends(target: &Target, partitions: &[TopicPartition]) -> Vec<(TopicPartition, Offset)> {
    partitions
        .iter()
        .map(|p| (p.clone(), target.log.bounds(p).expect("bounds").end))
        .collect()
}

pub fn members_share_and_no_record_is_lost_when_they_join_and_leave(target: &Target) {
    let partitions = target.topic(4);
    let topic = partitions[0].topic.to_string();
    let mut producer = writer(target);
    let mut written = 0;
    let mut more = |count: usize| {
        for partition in &partitions {
            put_numbers(&mut *producer, partition, written..written + count);
        }
        written += count;
    };
    let options = ConsumerOptions::new(target.unique("group"));
    more(300);
    let mut first = Member::join(target, &options, &topic);
    drive(
        target,
        "the first has all partitions",
        &mut [&mut first],
        |m| m[0].owned.len() == 4 && m[0].seen.len() > 200,
    );
    let mut second = Member::join(target, &options, &topic);
    more(100);
    drive(
        target,
        "two share four partitions",
        &mut [&mut first, &mut second],
        |m| m[0].owned.len() == 2 && m[1].owned.len() == 2,
    );
    let both: BTreeSet<_> = first
        .owned
        .keys()
        .chain(second.owned.keys())
        .cloned()
        .collect();
    assert_eq!(both.len(), 4, "each partition has one owner");
    more(100);
    drive(
        target,
        "the second reads",
        &mut [&mut first, &mut second],
        |m| m[1].seen.len() > 50,
    );

    // the first leaves in order: it commits, closes, and the other goes on where it stopped
    first.commit_all().expect("committed");
    let mut ranges = first.ranges;
    let first_seen = first.seen;
    close(first.consumer);
    more(50);
    let end = ends(target, &partitions);
    drive(
        target,
        "the second has read everything",
        &mut [&mut second],
        |m| {
            m[0].owned.len() == 4
                && end
                    .iter()
                    .all(|(partition, end)| m[0].owned[partition] == *end)
        },
    );
    second.commit_all().expect("committed");
    ranges.extend(second.ranges);
    expect_each_offset_committed_once(&ranges, &end);
    let read: BTreeSet<_> = first_seen
        .iter()
        .chain(&second.seen)
        .map(|record| (record.partition.clone(), record.offset))
        .collect();
    assert_eq!(read.len(), 4 * 550);
    close(second.consumer);
}

/// A member that will crash. A Kafka client leaves its group even when it is dropped, so that there it is another process,
/// which is killed.
enum Doomed {
    Here(Member),
    Process(Child),
}

impl Doomed {
    fn join(target: &Target, group: &str, topic: &str) -> Self {
        let Some(address) = &target.address else {
            return Self::Here(Member::join(target, &target.impatient_member(group), topic));
        };
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["--exact", "log::member_process"])
            .env(MEMBER, format!("{address} {group} {topic}"))
            .stdout(Stdio::null())
            .spawn();
        Self::Process(child.expect("another process"))
    }

    fn step(&mut self) {
        if let Self::Here(member) = self {
            member.step();
            member.commit_all().expect("committed");
        }
    }

    fn crash(self) {
        match self {
            Self::Here(member) => drop(member),
            Self::Process(mut child) => {
                child.kill().expect("killed");
                child.wait().expect("ended");
            }
        }
    }
}

/// What another process is told to be a member of.
const MEMBER: &str = "HEADWAY_TEST_MEMBER";

/// The other process: a member that commits all that it reads, until it is killed.
pub fn member_process() {
    let Ok(what) = std::env::var(MEMBER) else {
        return;
    };
    let what: Vec<&str> = what.split(' ').collect();
    let target = broker_target("process".into(), what[0]);
    let mut member = Member::join(&target, &target.impatient_member(what[1]), what[2]);
    let start = Instant::now();
    while start.elapsed() < target.patience {
        member.step();
        member.commit_all().expect("committed");
    }
}

pub fn a_crashed_members_partitions_move_after_its_session_timeout(target: &Target) {
    let partitions = target.topic(2);
    let topic = partitions[0].topic.to_string();
    let mut producer = writer(target);
    for partition in &partitions {
        put_numbers(&mut *producer, partition, 0..20);
    }
    let group = target.unique("group");
    let options = target.impatient_member(&group);
    let mut first = Doomed::join(target, &group, &topic);
    let committed = |of: &[TopicPartition]| -> Vec<Option<Offset>> {
        let committed = target.log.committed(&group, of).expect("an answer");
        committed.into_iter().map(|c| c.map(|c| c.offset)).collect()
    };
    until(
        target,
        "the first has read and committed everything",
        || {
            first.step();
            committed(&partitions) == [Some(20), Some(20)]
        },
    );
    let mut second = Member::join(target, &options, &topic);
    until(target, "they share", || {
        first.step();
        second.step();
        second.owned.len() == 1
    });
    let moved = partitions
        .iter()
        .find(|partition| !second.owned.contains_key(partition))
        .unwrap()
        .clone();
    put_numbers(&mut *producer, &moved, 20..25);
    until(target, "the first has read and committed its share", || {
        first.step();
        second.step();
        committed(std::slice::from_ref(&moved)) == [Some(25)]
    });
    for partition in &partitions {
        put_numbers(&mut *producer, partition, 25..30);
    }
    let crash = Instant::now();
    first.crash();
    drive(
        target,
        "the survivor has all partitions",
        &mut [&mut second],
        |m| m[0].owned.len() == 2,
    );
    let waited = crash.elapsed();
    assert!(
        waited >= target.session / 2,
        "they moved after {waited:?}: it left instead of crashing"
    );
    let end = ends(target, &partitions);
    drive(
        target,
        "the survivor has read everything",
        &mut [&mut second],
        |m| {
            end.iter()
                .all(|(partition, end)| m[0].owned[partition] == *end)
        },
    );
    second.commit_all().expect("committed");
    // What lies before the survivor's first range was committed by the first.
    let mut ranges = second.ranges.clone();
    for partition in &partitions {
        let of = second.ranges.iter().filter(|(of, ..)| of == partition);
        let end = end.iter().find(|(of, _)| of == partition).unwrap().1;
        let from = of.map(|(_, from, _)| *from).min().unwrap_or(end);
        let read = second
            .seen
            .iter()
            .filter(|seen| seen.partition == *partition);
        let first_read = read.map(|seen| seen.offset).min().unwrap_or(end);
        assert_eq!(first_read, from, "{partition}");
        assert!(
            *partition != moved || from >= 25,
            "{moved} goes on at {from}"
        );
        if from > 0 {
            ranges.push((partition.clone(), 0, from));
        }
    }
    expect_each_offset_committed_once(&ranges, &end);
    close(second.consumer);
}

/// As clients have it where they are told nothing else.
const SESSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Two static members of a group, each with one of a topic's two partitions.
struct Pair {
    first: Member,
    second: Member,
    /// What the first one joined with.
    options: ConsumerOptions,
    topic: String,
}

impl Pair {
    fn join(target: &Target, session_timeout: Duration) -> Self {
        let topic = target.topic(2)[0].topic.to_string();
        let group = target.unique("group");
        let named = |name: &str| ConsumerOptions {
            instance_id: Some(name.into()),
            session_timeout,
            ..ConsumerOptions::new(&group)
        };
        let mut first = Member::join(target, &named("one"), &topic);
        let mut second = Member::join(target, &named("two"), &topic);
        drive(
            target,
            "both have one",
            &mut [&mut first, &mut second],
            |m| m.iter().all(|member| member.owned.len() == 1),
        );
        Self {
            first,
            second,
            options: named("one"),
            topic,
        }
    }

    /// Ends the first one so that it keeps its place: it has it again when it is back, and the other is not disturbed.
    fn expect_place_kept(self, target: &Target, end: impl FnOnce(Member)) {
        let mut second = self.second;
        let of_first: BTreeSet<_> = self.first.owned.keys().cloned().collect();
        let rounds = second.assigned;
        end(self.first);
        let mut again = Member::join(target, &self.options, &self.topic);
        drive(
            target,
            "it has its partition again",
            &mut [&mut again, &mut second],
            |m| !m[0].owned.is_empty(),
        );
        assert_eq!(
            again.owned.keys().cloned().collect::<BTreeSet<_>>(),
            of_first
        );
        assert_eq!(
            (second.owned.len(), second.assigned, second.lost),
            (1, rounds, 0),
            "the other was disturbed"
        );
        close(again.consumer);
        close(second.consumer);
    }
}

pub fn a_static_member_that_comes_back_in_time_keeps_its_partitions(target: &Target) {
    Pair::join(target, SESSION_TIMEOUT).expect_place_kept(target, drop);
}

pub fn a_static_member_that_closes_for_a_moment_keeps_its_place(target: &Target) {
    Pair::join(target, SESSION_TIMEOUT).expect_place_kept(target, |first| {
        first
            .consumer
            .close_for_a_moment(Duration::from_secs(10))
            .expect("it closes");
    });
}

pub fn a_static_member_that_leaves_gives_its_partitions_to_others_at_once(target: &Target) {
    // none of them is found silent while this runs
    let pair = Pair::join(target, Duration::from_secs(300));
    let mut second = pair.second;
    close(pair.first.consumer);
    drive(target, "the other has both", &mut [&mut second], |m| {
        m[0].owned.len() == 2
    });
    // its name is free for it to come back
    let mut again = Member::join(target, &pair.options, &pair.topic);
    drive(
        target,
        "both have one again",
        &mut [&mut again, &mut second],
        |m| m.iter().all(|member| member.owned.len() == 1),
    );
    close(again.consumer);
    close(second.consumer);
    // and a group without members is empty
    let group = &pair.options.group;
    assert!(target.log.members(group).expect("an answer").is_empty());
}

pub fn partitions_that_came_while_a_static_member_was_away_are_given(target: &Target) {
    let partitions = target.topic(1);
    let topic = partitions[0].topic.to_string();
    let options = ConsumerOptions {
        instance_id: Some("one".into()),
        ..ConsumerOptions::new(target.unique("group"))
    };
    let mut first = Member::join(target, &options, &topic);
    drive(target, "it has the one", &mut [&mut first], |m| {
        m[0].owned.len() == 1
    });
    drop(first);
    target.log.add_partitions(&topic, 2).expect("added");
    let mut again = Member::join(target, &options, &topic);
    drive(target, "it has both", &mut [&mut again], |m| {
        m[0].owned.len() == 2
    });
    close(again.consumer);
}

pub fn a_member_knows_when_its_group_has_answered(target: &Target) {
    let partitions = target.topic(1);
    let topic = partitions[0].topic.to_string();
    let options = ConsumerOptions::new(target.unique("group"));
    let mut first = Member::join(target, &options, &topic);
    assert!(!first.consumer.in_group(), "it has not polled yet");
    drive(target, "the first has it", &mut [&mut first], |m| {
        !m[0].owned.is_empty()
    });
    assert!(first.consumer.in_group());
    let mut second = Member::join(target, &options, &topic);
    drive(
        target,
        "the second knows that there is none for it",
        &mut [&mut first, &mut second],
        |m| m[1].consumer.in_group(),
    );
    assert_eq!((first.owned.len(), second.owned.len()), (1, 0));
    close(first.consumer);
    close(second.consumer);
}

pub fn a_static_member_is_fenced_by_its_successor(target: &Target) {
    let partitions = target.topic(1);
    let group = target.unique("group");
    let options = ConsumerOptions {
        instance_id: Some("one".into()),
        ..ConsumerOptions::new(&group)
    };
    let mut first = Member::join(target, &options, &partitions[0].topic);
    drive(target, "the first has it", &mut [&mut first], |m| {
        !m[0].owned.is_empty()
    });
    let mut second = Member::join(target, &options, &partitions[0].topic);
    drive(target, "the second has it", &mut [&mut second], |m| {
        !m[0].owned.is_empty()
    });
    let error = first
        .consumer
        .commit(&[commit_of(&partitions[0], 1, "zombie")])
        .expect_err("fenced");
    assert_eq!(error.class(), Class::Fenced, "{error}");
    assert!(matches!(error, LogError::InstanceFenced { .. }), "{error}");
    let mut error = None;
    until(target, "the first hears of it", || {
        match first.consumer.poll(TICK, 10) {
            Ok(Some(Event::Lost(partitions))) => {
                first.consumer.unassign(&partitions).expect("given back")
            }
            Ok(_) => {}
            Err(e) => error = Some(e),
        }
        error.is_some()
    });
    assert_eq!(error.unwrap().class(), Class::Fenced);
    assert_eq!(
        target
            .log
            .committed(&group, &partitions)
            .expect("an answer"),
        [None]
    );
    second
        .consumer
        .commit(&[commit_of(&partitions[0], 2, "")])
        .expect("the second commits");
    drop(first);
    close(second.consumer);
}

pub fn a_revoke_is_acknowledged_only_by_unassign(target: &Target) {
    let partitions = target.topic(2);
    let topic = partitions[0].topic.to_string();
    put_numbers(&mut *writer(target), &partitions[0], 0..5);
    put_numbers(&mut *writer(target), &partitions[1], 0..5);
    let group = target.unique("group");
    let options = ConsumerOptions::new(&group);
    let mut first = Member::join(target, &options, &topic);
    drive(target, "the first has both", &mut [&mut first], |m| {
        m[0].owned.len() == 2
    });
    let mut second = Member::join(target, &options, &topic);
    let mut revoked = Vec::new();
    until(target, "a partition is to be given back", || {
        match poll(&mut *first.consumer, 10) {
            Some(Event::Revoked(partitions)) => revoked = partitions,
            Some(Event::Records(batch)) => {
                first
                    .owned
                    .insert(batch.partition.clone(), batch.next_position());
            }
            _ => {}
        }
        second.step();
        !revoked.is_empty()
    });
    // Until it answers they are its own: the other does not get them, and it may commit.
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1500) {
        assert!(!matches!(
            poll(&mut *first.consumer, 10),
            Some(Event::Assigned(_) | Event::Lost(_))
        ));
        second.step();
        assert!(
            revoked
                .iter()
                .all(|partition| !second.owned.contains_key(partition)),
            "given away unanswered"
        );
    }
    first
        .consumer
        .commit(&[commit_of(&revoked[0], 3, "late")])
        .expect("the owner commits");
    first.give(&revoked);
    drive(
        target,
        "the other has them",
        &mut [&mut first, &mut second],
        |m| {
            revoked
                .iter()
                .all(|partition| m[1].owned.contains_key(partition))
        },
    );
    drive(
        target,
        "it has read on",
        &mut [&mut first, &mut second],
        |m| m[1].seen.len() >= 2,
    );
    assert_eq!(second.seen[0].offset, 3, "it goes on at the late commit");
    close(first.consumer);
    close(second.consumer);
}

pub fn an_assignment_may_be_answered_late(target: &Target) {
    let partitions = target.topic(1);
    put_numbers(&mut *writer(target), &partitions[0], 0..10);
    let group = target.unique("group");
    let mut member = target
        .log
        .consumer(&ConsumerOptions::new(&group))
        .expect("a consumer");
    member
        .subscribe(&[&partitions[0].topic])
        .expect("a subscription");
    let mut assigned = Vec::new();
    until(target, "it is assigned", || {
        if let Some(Event::Assigned(partitions)) = poll(&mut *member, 10) {
            assigned = partitions;
        }
        !assigned.is_empty()
    });
    expect_silence(target, &mut *member, Duration::from_millis(1500));
    member
        .assign(&[(assigned[0].clone(), 2)])
        .expect("assigned late");
    assert_eq!(read(target, &mut *member, 8)[0].offset, 2);
    member
        .commit(&[commit_of(&assigned[0], 10, "")])
        .expect("committed");
    close(member);
}

pub fn a_member_that_does_not_poll_loses_its_place_and_can_not_commit(target: &Target) {
    let partitions = target.topic(1);
    put_numbers(&mut *writer(target), &partitions[0], 0..10);
    let group = target.unique("group");
    let options = target.impatient_member(&group);
    let mut first = Member::join(target, &options, &partitions[0].topic);
    drive(target, "the first has read", &mut [&mut first], |m| {
        m[0].seen.len() == 10
    });
    // It hangs. Another takes over, and commits.
    let mut second = Member::join(target, &options, &partitions[0].topic);
    drive(target, "the second has read", &mut [&mut second], |m| {
        m[0].seen.len() == 10
    });
    second
        .consumer
        .commit(&[commit_of(&partitions[0], 4, "second")])
        .expect("committed");

    let error = first
        .consumer
        .commit(&[commit_of(&partitions[0], 10, "first")])
        .expect_err("its place is over");
    assert!(matches!(error, LogError::StaleGeneration { .. }), "{error}");
    assert_eq!(error.class(), Class::Abort);
    let committed = target
        .log
        .committed(&group, &partitions)
        .expect("an answer");
    assert_eq!(
        committed[0]
            .as_ref()
            .map(|c| (c.offset, c.metadata.as_str())),
        Some((4, "second"))
    );
    // It hears that it has lost the partition, and comes back as a member like any other.
    let mut lost = false;
    until(target, "the first hears of its loss", || {
        second.step();
        match first.consumer.poll(TICK, 10) {
            Ok(Some(Event::Lost(partitions))) => {
                first.give(&partitions);
                lost = true;
            }
            Ok(Some(Event::Records(batch))) => {
                panic!("{batch:?} came to a member that had lost it")
            }
            Ok(_) => {}
            Err(error) => assert_eq!(error.class(), Class::Retry, "{error}"),
        }
        lost
    });
    close(second.consumer);
    drive(target, "the first has it again", &mut [&mut first], |m| {
        m[0].owned.len() == 1
    });
    close(first.consumer);
}

pub fn a_stale_generation_can_not_commit_in_a_transaction(target: &Target) {
    let partitions = target.topic(2);
    let output = target.topic(1).remove(0);
    let topic = partitions[0].topic.to_string();
    let group = target.unique("group");
    let options = ConsumerOptions::new(&group);
    let mut first = Member::join(target, &options, &topic);
    drive(target, "the first has both", &mut [&mut first], |m| {
        m[0].owned.len() == 2
    });
    let stale = first.consumer.group_metadata().expect("a membership");
    let mut producer = transactional(target, &target.unique("tx"));
    producer.begin().expect("begun");
    put(&mut *producer, &output, "by a stale member");

    let mut second = Member::join(target, &options, &topic);
    drive(target, "they share", &mut [&mut first, &mut second], |m| {
        m.iter().all(|member| member.owned.len() == 1)
    });
    // Neither for what has moved, nor for what it still has: a generation that is over commits nothing.
    let moved = second.owned.keys().next().unwrap().clone();
    let kept = first.owned.keys().next().unwrap().clone();
    for partition in [&moved, &kept] {
        let failed = producer
            .send_offsets(&[commit_of(partition, 7, "stale")], &stale)
            .and_then(|()| producer.commit());
        let error = failed.expect_err("its generation is over");
        assert_eq!(error.class(), Class::Abort, "{error}");
        producer.abort().expect("aborted");
        assert_eq!(
            target
                .log
                .committed(&group, std::slice::from_ref(partition))
                .expect("an answer"),
            [None]
        );
        producer.begin().expect("begun");
        put(&mut *producer, &output, "by a stale member");
    }
    producer.abort().expect("aborted");

    // The same producer goes on with what is true now.
    let fresh = first.consumer.group_metadata().expect("a membership");
    producer.begin().expect("begun");
    put(&mut *producer, &output, "by a member");
    producer
        .send_offsets(&[commit_of(&kept, 8, "fresh")], &fresh)
        .expect("sent");
    producer.commit().expect("committed");
    let committed = target.log.committed(&group, &[kept]).expect("an answer");
    assert_eq!(committed[0].as_ref().map(|c| c.offset), Some(8));
    assert_eq!(texts(&all(target, &[output])), ["by a member"]);
    close(first.consumer);
    close(second.consumer);
}

pub fn members_are_given_partitions_that_a_topic_gets(target: &Target) {
    let partitions = target.topic(1);
    let topic = partitions[0].topic.to_string();
    let mut member = Member::join(
        target,
        &ConsumerOptions::new(target.unique("group")),
        &topic,
    );
    drive(target, "it has the one", &mut [&mut member], |m| {
        m[0].owned.len() == 1
    });
    target.log.add_partitions(&topic, 2).expect("added");
    let second = TopicPartition::new(topic.as_str(), 1);
    let mut producer = writer(target);
    put(&mut *producer, &second, "new");
    producer.flush().expect("flushed");
    drive(
        target,
        "it has both, and reads the new one",
        &mut [&mut member],
        |m| m[0].owned.len() == 2 && m[0].seen.len() == 1,
    );
}
