//! Groups, looked at and changed from outside.

use runtime::log::{Committed, ConsumerOptions, GroupMember, LogError, TopicPartition};

use super::support::*;
use super::targets::Target;

fn members(target: &Target, group: &str) -> Vec<GroupMember> {
    let mut members = target.log.members(group).expect("an answer");
    members.sort_by(|a, b| a.client_id.cmp(&b.client_id));
    members
}

/// Joins a group, and polls until the first member has this many partitions.
fn joined(target: &Target, group: &str, topic: &str, partitions: usize) -> Member {
    let options = ConsumerOptions::new(group);
    let mut member = Member::join(target, &options, topic);
    drive(
        target,
        "the member has its partitions",
        &mut [&mut member],
        |m| m[0].owned.len() == partitions,
    );
    member
}

pub fn members_and_their_partitions_are_listed(target: &Target) {
    let partitions = target.topic(3);
    let topic = partitions[0].topic.to_string();
    let group = target.unique("group");
    assert_eq!(members(target, &group), []);
    let options = |name: &str| ConsumerOptions {
        client_id: name.into(),
        ..ConsumerOptions::new(&group)
    };
    let mut first = Member::join(target, &options("first"), &topic);
    drive(target, "the first has all", &mut [&mut first], |m| {
        m[0].owned.len() == 3
    });
    let found = members(target, &group);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].client_id, "first");
    assert_eq!(found[0].partitions, partitions);
    let mut second = Member::join(target, &options("second"), &topic);
    drive(
        target,
        "both have some",
        &mut [&mut first, &mut second],
        |m| m[0].owned.len() + m[1].owned.len() == 3 && !m[1].owned.is_empty(),
    );
    let found = members(target, &group);
    let names: Vec<&str> = found
        .iter()
        .map(|member| member.client_id.as_str())
        .collect();
    assert_eq!(names, ["first", "second"]);
    for (member, has) in found.iter().zip([&first, &second]) {
        let owned: Vec<TopicPartition> = has.owned.keys().cloned().collect();
        assert_eq!(member.partitions, owned);
    }
    close(first.consumer);
    close(second.consumer);
    until(target, "both have left", || {
        members(target, &group).is_empty()
    });
}

pub fn offsets_are_committed_from_outside_only_while_a_group_has_no_members(target: &Target) {
    let partitions = target.topic(2);
    let topic = partitions[0].topic.to_string();
    let group = target.unique("group");
    let outside = |offset: i64, metadata: &str| {
        let mut consumer = target
            .log
            .consumer(&ConsumerOptions::new(&group))
            .expect("a consumer");
        let committed = consumer.commit(&[commit_of(&partitions[0], offset, metadata)]);
        close(consumer);
        committed
    };
    let committed = || {
        target
            .log
            .committed(&group, &partitions)
            .expect("an answer")
    };
    let at = |offset: i64, metadata: &str| {
        let metadata = metadata.into();
        [Some(Committed { offset, metadata }), None]
    };
    outside(5, "before").expect("nobody is there");
    assert_eq!(committed(), at(5, "before"));
    let member = joined(target, &group, &topic, 2);
    let error = outside(9, "meanwhile").expect_err("somebody is there");
    assert!(
        matches!(error, LogError::StaleGeneration { .. }),
        "{error:?}"
    );
    assert_eq!(committed(), at(5, "before"));
    close(member.consumer);
    until(target, "the member has left", || {
        members(target, &group).is_empty()
    });
    outside(7, "after").expect("nobody is there");
    assert_eq!(committed(), at(7, "after"));
}

pub fn a_deleted_group_has_no_offsets_and_one_with_members_stays(target: &Target) {
    let partitions = target.topic(2);
    let topic = partitions[0].topic.to_string();
    let group = target.unique("group");
    target.log.delete_group(&group).expect("there is none");
    let mut member = joined(target, &group, &topic, 2);
    member
        .consumer
        .commit(&[commit_of(&partitions[0], 4, "kept")])
        .expect("committed");
    let committed = || {
        target
            .log
            .committed(&group, &partitions)
            .expect("an answer")
    };
    let error = target
        .log
        .delete_group(&group)
        .expect_err("it has a member");
    assert!(matches!(error, LogError::State { .. }), "{error:?}");
    assert!(error.to_string().contains(&group), "{error}");
    assert!(committed()[0].is_some());
    close(member.consumer);
    until(target, "the member has left", || {
        members(target, &group).is_empty()
    });
    target.log.delete_group(&group).expect("nobody is there");
    assert_eq!(committed(), [None, None]);
    target.log.delete_group(&group).expect("it is gone already");
}
