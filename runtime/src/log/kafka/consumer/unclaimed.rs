//! Partitions that no member of a group has.
//!
//! A static member that comes back takes its place without a rebalance (KIP-345). If it is the one that assigns partitions, and
//! a topic has got more of them meanwhile, nobody gets those: to itself nothing has changed since it began, and brokers answer
//! the others' wish for a rebalance with the assignment that is (KAFKA-13435; KIP-814 mends it for clients that know it, which
//! librdkafka does not). So a static member that has joined looks whether each partition is somebody's, and otherwise leaves
//! its group and joins it again.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError;

use super::super::groups::assigned;
use super::super::native;
use super::{KafkaConsumer, TopicPartition};

/// How long until it is looked again. By then a rebalance has given partitions from one member to the next.
const LOOK: Duration = Duration::from_secs(3);
/// How long a question may take, as nothing is read meanwhile.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many looks one after the other have to find the same, before the first of the members acts on it; each next one takes
/// one more.
const LOOKS: usize = 2;

/// What a member knows of unclaimed partitions.
#[derive(Debug, Default)]
pub(super) enum Unclaimed {
    /// There are none, or others look after them.
    #[default]
    None,
    /// It is to be looked.
    Look {
        at: Instant,
        /// How many looks have found some.
        found: usize,
    },
    /// It leaves the group to join it again.
    Leaving,
}

impl Unclaimed {
    /// A static member joins.
    pub(super) fn look() -> Self {
        Self::Look {
            at: Instant::now(),
            found: 0,
        }
    }
}

impl KafkaConsumer {
    /// Looks for unclaimed partitions where that is due, and leaves and joins for them.
    pub(super) fn claim(&mut self) {
        match self.unclaimed {
            Unclaimed::None => {}
            Unclaimed::Look { at, found } => {
                let joined = self.base().client().context().joined.load(Ordering::SeqCst);
                if joined && Instant::now() >= at {
                    self.unclaimed = self.look(found);
                }
            }
            Unclaimed::Leaving => {
                if native::member_id(self.base()).is_none() {
                    self.unclaimed = Unclaimed::None;
                    let topics: Vec<_> = self.topics.iter().map(String::as_str).collect();
                    if let Err(error) = self.base().subscribe(&topics) {
                        let error = self.doing("join the group again").of(&error);
                        self.errors.push_back(error);
                    }
                }
            }
        }
    }

    fn look(&self, found: usize) -> Unclaimed {
        let again = |found| Unclaimed::Look {
            at: Instant::now() + LOOK,
            found,
        };
        match self.found() {
            Err(error) => {
                tracing::debug!(group = self.group, %error, "who has which partition can't be asked now");
                again(found)
            }
            Ok(None) => again(found),
            Ok(Some((partitions, _))) if partitions.is_empty() => Unclaimed::None,
            Ok(Some((partitions, before))) if found + 1 >= LOOKS + before => {
                tracing::info!(
                    group = self.group,
                    ?partitions,
                    "no member of the group has these partitions; joining it anew"
                );
                self.base().unsubscribe();
                Unclaimed::Leaving
            }
            Ok(Some(_)) => again(found + 1),
        }
    }

    /// The partitions that nobody has, and how many members' ids come before this one's; `None` while the group rebalances.
    fn found(&self) -> Result<Option<(BTreeSet<TopicPartition>, usize)>, KafkaError> {
        let mut partitions = BTreeSet::new();
        for topic in &self.topics {
            let metadata = self.base().fetch_metadata(Some(topic), PATIENCE)?;
            let found = metadata
                .topics()
                .iter()
                .filter(|found| found.name() == topic);
            partitions.extend(
                found
                    .flat_map(|found| found.partitions())
                    .map(|partition| TopicPartition::new(topic.as_str(), partition.id())),
            );
        }
        let groups = self.base().fetch_group_list(Some(&self.group), PATIENCE)?;
        let group = groups
            .groups()
            .iter()
            .find(|group| group.name() == self.group);
        let Some(group) = group.filter(|group| group.state() == "Stable") else {
            return Ok(None);
        };
        for member in group.members() {
            for partition in member.assignment().map(assigned).unwrap_or_default() {
                partitions.remove(&partition);
            }
        }
        let own = native::member_id(self.base()).unwrap_or_default();
        let before = group
            .members()
            .iter()
            .filter(|member| member.id() < own.as_str());
        Ok(Some((partitions, before.count())))
    }
}
