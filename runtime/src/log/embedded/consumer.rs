//! The consumer of the embedded log.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::super::{
    Batch, Committed, Consumer, ConsumerOptions, Event, GroupMetadata, LogError, Offset,
    OffsetCommit, TopicPartition,
};
use super::Shared;
use super::fetch::{Cursor, Found};
use super::group::{Group, Membership, NO_MEMBER, News};
use super::partition::Partition;
use super::signal::lock;
use super::transaction::Transactions;

pub(super) struct EmbeddedConsumer {
    shared: Arc<Shared>,
    options: ConsumerOptions,
    group: Arc<Mutex<Group>>,
    topics: Vec<Arc<str>>,
    /// The member that it is at present.
    member: Option<u64>,
    /// What the group gave it.
    granted: BTreeSet<TopicPartition>,
    /// What it lost and did not give up yet.
    lost: BTreeSet<TopicPartition>,
    readings: Vec<Reading>,
    /// Whose turn it is.
    turn: usize,
}

struct Reading {
    partition: Arc<Partition>,
    cursor: Cursor,
    paused: bool,
    /// The group wants it back: nothing more is delivered.
    revoking: bool,
    /// Where its end was reported last.
    ended: Option<Offset>,
}

impl EmbeddedConsumer {
    pub fn new(shared: Arc<Shared>, options: &ConsumerOptions) -> Self {
        let group = shared.group(&options.group);
        Self {
            shared,
            options: options.clone(),
            group,
            topics: Vec::new(),
            member: None,
            granted: BTreeSet::new(),
            lost: BTreeSet::new(),
            readings: Vec::new(),
            turn: 0,
        }
    }

    fn membership(&self) -> Membership {
        // A member that was put out, or has yet to join, is no stranger: it may not commit to a group without members.
        let known = self.member.unwrap_or(NO_MEMBER);
        let generation = lock(&self.group).generation(known).unwrap_or(0);
        Membership {
            group: self.options.group.clone(),
            instance: self.options.instance_id.clone(),
            member: (!self.topics.is_empty()).then_some((known, generation)),
        }
    }

    /// What the group wants to be answered.
    fn group_event(&mut self) -> Result<Option<Event>, LogError> {
        if self.topics.is_empty() || !self.lost.is_empty() {
            return Ok(None);
        }
        let group = Arc::clone(&self.group);
        let mut group = lock(&group);
        let id = match self.member {
            Some(id) => id,
            None => {
                let id = group.join(&self.options, &self.topics, &self.shared);
                self.member = Some(id);
                id
            }
        };
        Ok(
            match group.poll(id, self.options.instance_id.as_deref(), &self.shared)? {
                News::Nothing => None,
                News::Assigned(partitions) => {
                    self.granted.extend(partitions.iter().cloned());
                    Some(Event::Assigned(partitions))
                }
                News::Revoked(partitions) => {
                    for reading in &mut self.readings {
                        reading.revoking |= partitions.contains(&reading.partition.name);
                    }
                    Some(Event::Revoked(partitions))
                }
                News::Expelled => {
                    self.member = None;
                    self.lost = std::mem::take(&mut self.granted);
                    let lost: Vec<_> = self.lost.iter().cloned().collect();
                    self.readings
                        .retain(|reading| !lost.contains(&reading.partition.name));
                    // One that had nothing joins again at its next poll.
                    (!lost.is_empty()).then_some(Event::Lost(lost))
                }
            },
        )
    }

    /// What the partitions bring, each in its turn.
    fn next_event(&mut self, max_records: usize) -> Result<Option<Event>, LogError> {
        for step in 0..self.readings.len() {
            let number = (self.turn + step) % self.readings.len();
            let reading = &mut self.readings[number];
            if reading.paused || reading.revoking {
                continue;
            }
            let found = reading.cursor.next(
                &reading.partition,
                max_records,
                self.shared.options.fetch_bytes,
            );
            let event = match found {
                Err(error) => Err(error),
                Ok(Found::Records(records)) => Ok(Event::Records(Batch::new(
                    reading.partition.name.clone(),
                    records,
                ))),
                Ok(Found::End(position)) if reading.ended == Some(position) => continue,
                Ok(Found::End(position)) => {
                    reading.ended = Some(position);
                    Ok(Event::End {
                        partition: reading.partition.name.clone(),
                        position,
                    })
                }
            };
            self.turn = number + 1;
            return event.map(Some);
        }
        Ok(None)
    }

    fn reading(&mut self, partition: &TopicPartition) -> Result<&mut Reading, LogError> {
        self.readings
            .iter_mut()
            .find(|reading| reading.partition.name == *partition)
            .ok_or_else(|| LogError::State {
                detail: format!("{partition} is not being read by this consumer"),
            })
    }

    fn set_paused(&mut self, partitions: &[TopicPartition], paused: bool) -> Result<(), LogError> {
        for partition in partitions {
            let reading = self.reading(partition)?;
            reading.paused = paused;
            // Who goes on is told again when there is nothing more.
            reading.ended = reading.ended.filter(|_| paused);
        }
        Ok(())
    }
}

impl Consumer for EmbeddedConsumer {
    fn subscribe(&mut self, topics: &[&str]) -> Result<(), LogError> {
        let catalog = lock(&self.shared.catalog);
        let topics: Result<Vec<_>, _> = topics
            .iter()
            .map(|name| catalog.topic(name).map(|topic| Arc::clone(&topic.name)))
            .collect();
        drop(catalog);
        self.topics = topics?;
        if let Some(id) = self.member {
            lock(&self.group).subscribe(id, &self.topics, &self.shared);
        }
        Ok(())
    }

    fn assign(&mut self, starts: &[(TopicPartition, Offset)]) -> Result<(), LogError> {
        let mut found = Vec::new();
        for (name, start) in starts {
            found.push((self.shared.partition(name)?, *start));
        }
        for (partition, start) in found {
            self.readings
                .retain(|reading| reading.partition.name != partition.name);
            let cursor = Cursor::at(start);
            self.readings.push(Reading {
                partition,
                cursor,
                paused: false,
                revoking: false,
                ended: None,
            });
        }
        if let Some(id) = self.member {
            lock(&self.group).answered(id);
        }
        Ok(())
    }

    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.shared.usable()?;
        self.readings
            .retain(|reading| !partitions.contains(&reading.partition.name));
        for partition in partitions {
            self.lost.remove(partition);
        }
        if let Some(id) = self.member {
            let given_back = lock(&self.group).given_back(id, partitions, &self.shared);
            for partition in given_back {
                self.granted.remove(&partition);
            }
        }
        Ok(())
    }

    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), LogError> {
        let reading = self.reading(partition)?;
        reading.cursor = Cursor::at(offset);
        reading.ended = None;
        Ok(())
    }

    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.set_paused(partitions, true)
    }

    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError> {
        self.set_paused(partitions, false)
    }

    fn poll(&mut self, wait: Duration, max_records: usize) -> Result<Option<Event>, LogError> {
        let until = Instant::now().checked_add(wait);
        loop {
            let seen = self.shared.signal.now();
            self.shared.usable()?;
            Transactions::expire(&self.shared)?;
            if let Some(event) = self.group_event()? {
                return Ok(Some(event));
            }
            if let Some(event) = self.next_event(max_records)? {
                return Ok(Some(event));
            }
            if !self.shared.signal.wait(seen, until) {
                return Ok(None);
            }
        }
    }

    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        let until = Instant::now().checked_add(self.shared.options.stable_offsets_wait);
        loop {
            let seen = self.shared.signal.now();
            self.shared.usable()?;
            Transactions::expire(&self.shared)?;
            if let Some(id) = self.member {
                lock(&self.group).heard(id, &self.shared);
            }
            let catalog = lock(&self.shared.catalog);
            if !catalog.unstable(&self.options.group, partitions) {
                return Ok(partitions
                    .iter()
                    .map(|name| catalog.committed(&self.options.group, name))
                    .collect());
            }
            drop(catalog);
            if !self.shared.signal.wait(seen, until) {
                return Err(LogError::TimedOut {
                    action: "read offsets that an open transaction holds",
                });
            }
        }
    }

    fn commit(&mut self, offsets: &[OffsetCommit]) -> Result<(), LogError> {
        super::check_offsets(offsets)?;
        let membership = self.membership();
        let mut group = lock(&self.group);
        group.validate(&membership, &self.shared)?;
        for commit in offsets {
            self.shared.partition(&commit.partition)?;
        }
        lock(&self.shared.catalog).commit(&self.options.group, offsets)
    }

    fn in_group(&self) -> bool {
        self.member.is_some()
    }

    fn group_metadata(&self) -> Result<GroupMetadata, LogError> {
        self.shared.usable()?;
        Ok(GroupMetadata(Box::new(self.membership())))
    }

    fn close(mut self: Box<Self>, _deadline: Duration) -> Result<(), LogError> {
        if let Some(id) = self.member.take() {
            lock(&self.group).leave(id, &self.shared);
        }
        Ok(())
    }

    fn close_for_a_moment(self: Box<Self>, deadline: Duration) -> Result<(), LogError> {
        match self.options.instance_id {
            // its end is that of one that was dropped
            Some(_) => Ok(()),
            None => self.close(deadline),
        }
    }
}

impl Drop for EmbeddedConsumer {
    fn drop(&mut self) {
        if let Some(id) = self.member {
            lock(&self.group).abandoned(id);
        }
    }
}
