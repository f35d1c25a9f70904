//! Groups: who is in, who has which partition, and who is to have it.
//!
//! ```text
//!   owners: partition ─▶ the member that has it     (until it gives it back, leaves, or falls silent)
//!   target: partition ─▶ the member that shall have it
//! ```
//! A member that owns what another shall have is asked to give it back; only then does the other one get it. All
//! others go on undisturbed. Members are in memory alone: a process begins with empty groups.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::super::{ConsumerOptions, GroupMember, LogError, TopicPartition};
use super::{Heartbeats, Shared, assignment};

/// What a member shows when it commits offsets.
#[derive(Clone, Debug)]
pub(super) struct Membership {
    pub group: String,
    pub instance: Option<String>,
    /// The member and its generation; none for one that only assigns partitions by itself.
    pub member: Option<(u64, u64)>,
}

/// No member has this id.
pub(super) const NO_MEMBER: u64 = 0;

/// A group.
#[derive(Debug, Default)]
pub(super) struct Group {
    name: String,
    generation: u64,
    members: BTreeMap<u64, Member>,
    instances: HashMap<String, u64>,
    owners: BTreeMap<TopicPartition, u64>,
    target: BTreeMap<TopicPartition, u64>,
}

#[derive(Debug)]
struct Member {
    client_id: String,
    instance: Option<String>,
    topics: Vec<Arc<str>>,
    session_timeout: Duration,
    max_poll_interval: Duration,
    heard_ms: i64,
    /// Whether its consumer was not dropped.
    alive: bool,
    generation: u64,
    /// What it was told that it has.
    announced: BTreeSet<TopicPartition>,
    /// What it was asked to give back.
    revoking: BTreeSet<TopicPartition>,
    /// Whether it has yet to answer what it was told.
    unanswered: bool,
}

/// What a member learns when it polls.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum News {
    Nothing,
    Assigned(Vec<TopicPartition>),
    Revoked(Vec<TopicPartition>),
    /// It has no place in the group any more.
    Expelled,
}

impl Group {
    /// A group without members.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Takes a member in. One that comes under a static id takes the place of the one that had it.
    pub fn join(&mut self, options: &ConsumerOptions, topics: &[Arc<str>], shared: &Shared) -> u64 {
        self.expire(shared, None);
        let id = shared.numbers.next();
        let mut member = Member {
            client_id: options.client_id.clone(),
            instance: options.instance_id.clone(),
            topics: topics.to_vec(),
            session_timeout: options.session_timeout,
            max_poll_interval: options.max_poll_interval,
            heard_ms: shared.now_ms(),
            alive: true,
            generation: self.generation,
            announced: BTreeSet::new(),
            revoking: BTreeSet::new(),
            unanswered: false,
        };
        let before = options
            .instance_id
            .as_ref()
            .and_then(|instance| self.instances.insert(instance.clone(), id));
        if let Some((before, old)) =
            before.and_then(|before| Some((before, self.members.remove(&before)?)))
        {
            for owner in self
                .owners
                .values_mut()
                .chain(self.target.values_mut())
                .filter(|owner| **owner == before)
            {
                *owner = id;
            }
            member.generation = old.generation;
            let same = old.topics == member.topics;
            self.members.insert(id, member);
            if !same {
                self.rebalance(shared);
            }
        } else {
            self.members.insert(id, member);
            self.rebalance(shared);
        }
        shared.signal.raise();
        id
    }

    /// A member says that it is there, and learns what changed.
    pub fn poll(
        &mut self,
        id: u64,
        instance: Option<&str>,
        shared: &Shared,
    ) -> Result<News, LogError> {
        self.expire(shared, Some(id));
        self.check_instance(id, instance)?;
        let generation = self.generation;
        let Some(member) = self.members.get_mut(&id) else {
            return Ok(News::Expelled);
        };
        member.heard_ms = shared.now_ms();
        if member.unanswered || !member.revoking.is_empty() {
            return Ok(News::Nothing);
        }
        member.generation = generation;
        let target = |partition: &TopicPartition| self.target.get(partition);
        let lost: Vec<_> = member
            .announced
            .iter()
            .filter(|held| target(held) != Some(&id))
            .cloned()
            .collect();
        if !lost.is_empty() {
            member.revoking.extend(lost.iter().cloned());
            return Ok(News::Revoked(lost));
        }
        let mut gained = Vec::new();
        for (partition, _) in self.target.iter().filter(|(_, wanted)| **wanted == id) {
            if !member.announced.contains(partition)
                && self.owners.get(partition).is_none_or(|owner| *owner == id)
            {
                gained.push(partition.clone());
            }
        }
        if gained.is_empty() {
            return Ok(News::Nothing);
        }
        for partition in &gained {
            self.owners.insert(partition.clone(), id);
            member.announced.insert(partition.clone());
        }
        member.unanswered = true;
        Ok(News::Assigned(gained))
    }

    /// Who is in the group.
    pub fn members(&mut self, shared: &Shared) -> Vec<GroupMember> {
        self.expire(shared, None);
        let members = self.members.iter();
        members
            .map(|(id, member)| GroupMember {
                client_id: member.client_id.clone(),
                host: String::new(),
                partitions: self
                    .target
                    .iter()
                    .filter(|(_, wanted)| *wanted == id)
                    .map(|(partition, _)| partition.clone())
                    .collect(),
            })
            .collect()
    }

    /// A member wants other topics.
    pub fn subscribe(&mut self, id: u64, topics: &[Arc<str>], shared: &Shared) {
        if let Some(member) = self.members.get_mut(&id) {
            member.topics = topics.to_vec();
            self.rebalance(shared);
        }
    }

    /// A member says that it is there.
    pub fn heard(&mut self, id: u64, shared: &Shared) {
        self.expire(shared, Some(id));
        if let Some(member) = self.members.get_mut(&id) {
            member.heard_ms = shared.now_ms();
        }
    }

    /// A member has begun to read what it was given.
    pub fn answered(&mut self, id: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.unanswered = false;
        }
    }

    /// A member has stopped to read these partitions: those that it was asked for are free for others.
    /// Returns those.
    pub fn given_back(
        &mut self,
        id: u64,
        partitions: &[TopicPartition],
        shared: &Shared,
    ) -> Vec<TopicPartition> {
        let Some(member) = self.members.get_mut(&id) else {
            return Vec::new();
        };
        member.unanswered = false;
        let mut given_back = partitions.to_vec();
        given_back.retain(|partition| member.revoking.remove(partition));
        for partition in &given_back {
            member.announced.remove(partition);
            self.owners.remove(partition);
        }
        shared.signal.raise();
        given_back
    }

    /// A member leaves.
    pub fn leave(&mut self, id: u64, shared: &Shared) {
        if self.members.contains_key(&id) {
            self.remove(id);
            self.rebalance(shared);
        }
    }

    /// A member's consumer was dropped: nobody will say any more that it is there. It keeps its place until its session
    /// timeout.
    pub fn abandoned(&mut self, id: u64) {
        if let Some(member) = self.members.get_mut(&id) {
            member.alive = false;
        }
    }

    /// An error if the member may not commit offsets.
    pub fn validate(&mut self, membership: &Membership, shared: &Shared) -> Result<(), LogError> {
        self.expire(shared, membership.member.map(|(id, _)| id));
        let stale = |detail: &str| {
            Err(LogError::StaleGeneration {
                group: self.name.clone(),
                detail: detail.into(),
            })
        };
        let Some((id, generation)) = membership.member else {
            if self.members.is_empty() {
                return Ok(());
            }
            return stale("the group has members, and this is none of them");
        };
        if id != NO_MEMBER {
            self.check_instance(id, membership.instance.as_deref())?;
        }
        match self.members.get_mut(&id) {
            None => stale("the group has gone on without it"),
            Some(member) if member.generation != generation => stale("its generation is over"),
            Some(member) => {
                member.heard_ms = shared.now_ms();
                Ok(())
            }
        }
    }

    /// The generation that a member has learnt of.
    pub fn generation(&self, id: u64) -> Option<u64> {
        self.members.get(&id).map(|member| member.generation)
    }

    fn check_instance(&self, id: u64, instance: Option<&str>) -> Result<(), LogError> {
        match instance.and_then(|instance| self.instances.get_key_value(instance)) {
            Some((instance, holder)) if *holder != id => Err(LogError::InstanceFenced {
                group: self.name.clone(),
                instance_id: instance.clone(),
            }),
            _ => Ok(()),
        }
    }

    /// Takes out members that were silent for too long. The one that calls is not.
    fn expire(&mut self, shared: &Shared, caller: Option<u64>) {
        let now = shared.now_ms();
        let silent: Vec<_> = self
            .members
            .iter()
            .filter(|(id, member)| {
                let beating = member.alive && shared.options.heartbeats == Heartbeats::ByLife;
                let limit = if beating {
                    member.max_poll_interval
                } else {
                    member.session_timeout
                };
                let limit = i64::try_from(limit.as_millis()).unwrap_or(i64::MAX);
                Some(**id) != caller && now.saturating_sub(member.heard_ms) >= limit
            })
            .map(|(id, _)| *id)
            .collect();
        for id in &silent {
            tracing::info!(
                group = self.name,
                member = id,
                "a silent member lost its place in the group"
            );
            self.remove(*id);
        }
        if !silent.is_empty() {
            self.rebalance(shared);
        }
    }

    fn remove(&mut self, id: u64) {
        let removed = self.members.remove(&id);
        self.owners.retain(|_, owner| *owner != id);
        if let Some(instance) = removed.and_then(|member| member.instance)
            && self.instances.get(&instance) == Some(&id)
        {
            self.instances.remove(&instance);
        }
    }

    /// Works out anew who shall have what, and begins a generation.
    pub fn rebalance(&mut self, shared: &Shared) {
        self.generation += 1;
        let mut topics: BTreeMap<Arc<str>, i32> = BTreeMap::new();
        for (name, topic) in &super::signal::lock(&shared.catalog).topics {
            topics.insert(Arc::clone(name), topic.partitions.len() as i32);
        }
        let members = self
            .members
            .iter()
            .map(|(id, member)| (*id, member.topics.as_slice()))
            .collect();
        // Where a partition is on its way from one member to another, it goes on to where it was sent.
        let mut present = self.owners.clone();
        present.extend(
            self.target
                .iter()
                .map(|(partition, member)| (partition.clone(), *member)),
        );
        self.target = assignment::assign(&topics, &members, &present);
        self.owners
            .retain(|partition, _| topics.contains_key(&partition.topic));
        shared.signal.raise();
    }
}
