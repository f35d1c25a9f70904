//! One topic: created, or compared.

use runtime::log::{Log, LogError, TopicDescription};
use runtime::topics::{Durability, misfits};

use super::State;
use super::plan::Topic;

/// Creates a topic unless it is there, or `check` says that nothing may change; compares one that is. With how many
/// partitions it has, or would have.
pub(super) fn settle(
    log: &dyn Log,
    topic: &Topic,
    durability: Durability,
    check: bool,
) -> Result<(State, i32), LogError> {
    let wanted = topic.wanted.clone().durable(durability);
    let name = &wanted.spec.name;
    if let Some(found) = log.topic(name)? {
        return Ok((compare(topic, &found, durability), found.partitions));
    }
    if check {
        return Ok((State::Missing, wanted.spec.partitions));
    }
    log.create_topic(&wanted.spec)?;
    // What the brokers made of it, as their own limits and defaults have a say.
    let state = match log.topic(name)? {
        Some(found) => match compare(topic, &found, durability) {
            State::Exists(note) => State::Created(note),
            other => other,
        },
        None => State::Missing,
    };
    Ok((state, wanted.spec.partitions))
}

fn compare(topic: &Topic, found: &TopicDescription, durability: Durability) -> State {
    let wanted = &topic.wanted;
    let (refused, dangerous): (Vec<_>, Vec<_>) = misfits(found, wanted.role, durability)
        .into_iter()
        .partition(|misfit| misfit.refused);
    let mut refused: Vec<String> = refused.into_iter().map(|misfit| misfit.what).collect();
    if wanted.fixed && found.partitions != wanted.spec.partitions {
        refused.push(format!(
            "it has {} partitions, and {} are asked for; it is left as it is, because keys would move to other partitions",
            found.partitions, wanted.spec.partitions
        ));
    }
    if refused.is_empty() {
        let notes: Vec<String> = dangerous.into_iter().map(|misfit| misfit.what).collect();
        return State::Exists(notes.join("; "));
    }
    State::Differs(format!(
        "{}. Change it with the brokers' tools, such as `kafka-configs.sh --alter` or `rpk topic alter-config`",
        refused.join("; ")
    ))
}
