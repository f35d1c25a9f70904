//! Being a member of the group: what it gives, takes back, and has committed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use runtime::log::{LogError, TopicPartition};

use super::{Ended, Held, Session};
use crate::ledger::Ledger;
use crate::worker::SinkError;

/// How often a draining run asks how far the group is.
const DRAIN_LOOK: Duration = Duration::from_millis(50);

impl Session<'_> {
    /// Answers what the group asked for.
    pub(super) fn answer(&mut self) -> Result<(), Ended> {
        if !self.leaving.is_empty() && !self.waiting() {
            if let Err(error) = self.consumer.unassign(&self.leaving) {
                return self.log_failure(error);
            }
            self.leaving.clear();
        }
        if self.joining.is_empty() || !self.leaving.is_empty() || self.waiting() {
            return Ok(());
        }
        match self.begin() {
            Ok(()) => Ok(()),
            Err(Ended::Failed(SinkError::Log(error))) => self.log_failure(error),
            Err(ended) => Err(ended),
        }
    }

    /// Begins to read the partitions given to this member, where the group stands.
    pub(super) fn begin(&mut self) -> Result<(), Ended> {
        let group = &self.options.consumer.group;
        let committed = self
            .consumer
            .committed(&self.joining)
            .map_err(SinkError::Log)?;
        let mut starts = Vec::new();
        for (partition, committed) in self.joining.iter().zip(committed) {
            let bounds = self.options.log.bounds(partition).map_err(SinkError::Log)?;
            let topic_id = self
                .topics
                .get(&partition.topic)
                .map_or("", |topic| topic.id.as_str());
            let (start, ledger) = match committed {
                None => (bounds.start, None),
                Some(found) => {
                    let ledger = Ledger::from_metadata(group, partition, &found.metadata)
                        .map_err(SinkError::Ledger)?;
                    (found.offset, ledger)
                }
            };
            let ledger = ledger.unwrap_or_else(|| Ledger::starting_at(topic_id, start));
            if !topic_id.is_empty() && !ledger.topic_id.is_empty() && ledger.topic_id != topic_id {
                return Err(Ended::Failed(SinkError::OtherTopic {
                    topic: partition.topic.to_string(),
                    group: group.clone(),
                    was: ledger.topic_id,
                    now: topic_id.to_owned(),
                }));
            }
            if start < bounds.start || start > bounds.end {
                return Err(Ended::Failed(SinkError::Gap {
                    partition: partition.clone(),
                    group: group.clone(),
                    committed: start,
                    start: bounds.start,
                    end: bounds.end,
                }));
            }
            starts.push((partition.clone(), start, ledger));
        }
        let assigned: Vec<_> = starts
            .iter()
            .map(|(partition, start, _)| (partition.clone(), *start))
            .collect();
        self.consumer.assign(&assigned).map_err(SinkError::Log)?;
        self.joining.clear();
        for (partition, start, ledger) in starts {
            tracing::info!(%partition, start, "reading");
            self.held.insert(
                partition,
                Held {
                    position: start,
                    committed: start,
                    ledger,
                },
            );
        }
        // if reading is paused, the new ones must be too: before the next poll, all are
        self.paused = false;
        Ok(())
    }

    /// The group wants partitions back: what is in hand is finished first, if that can be done now.
    pub(super) fn give_back(&mut self, partitions: Vec<TopicPartition>) -> Result<(), Ended> {
        self.finish_in_hand()?;
        self.forget(partitions);
        self.answer()
    }

    pub(super) fn forget(&mut self, partitions: Vec<TopicPartition>) {
        let gone: BTreeSet<TopicPartition> = partitions.iter().cloned().collect();
        self.round.forget(&gone);
        self.stalled = self
            .stalled
            .take()
            .filter(|batch| !gone.contains(&batch.partition));
        self.held.retain(|partition, _| !gone.contains(partition));
        self.joining.retain(|partition| !gone.contains(partition));
        for partition in &gone {
            tracing::info!(%partition, "no longer reading");
        }
        self.leaving.extend(partitions);
    }

    /// Whether the group has committed all that was on the log when draining began.
    pub(super) fn drained(&mut self) -> Result<bool, Ended> {
        let busy = !self.round.is_empty()
            || self.moved.is_some()
            || self.stalled.is_some()
            || self.waiting();
        if busy
            || self
                .looked
                .is_some_and(|looked| looked.elapsed() < DRAIN_LOOK)
        {
            return Ok(false);
        }
        self.looked = Some(Instant::now());
        match self.goal_reached() {
            Ok(reached) => Ok(reached),
            Err(error) => self.log_failure(error).map(|()| false),
        }
    }

    pub(super) fn goal_reached(&mut self) -> Result<bool, LogError> {
        let log = &self.options.log;
        if self.goal.is_none() {
            let mut goal = BTreeMap::new();
            for topic in self.topics.values() {
                for number in 0..topic.partitions {
                    let partition = TopicPartition::new(topic.name(), number);
                    goal.insert(partition.clone(), log.bounds(&partition)?);
                }
            }
            self.goal = Some(goal);
        }
        let Some(goal) = &self.goal else {
            return Ok(false);
        };
        let partitions: Vec<_> = goal.keys().cloned().collect();
        let committed = log.committed(&self.options.consumer.group, &partitions)?;
        Ok(goal
            .values()
            .zip(committed)
            .all(|(bounds, found)| match found {
                Some(found) => found.offset >= bounds.end,
                // a partition without records needs no commit
                None => bounds.start == bounds.end,
            }))
    }
}
