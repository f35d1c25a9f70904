//! The committed offsets of groups, and those that stand in open transactions.

use std::collections::BTreeMap;

use super::{Catalog, GroupOffsets};
use crate::log::embedded::journal::{Entry, OffsetEntry};
use crate::log::{Committed, LogError, OffsetCommit, TopicPartition};

impl Catalog {
    /// Commits offsets outside any transaction.
    pub fn commit(&mut self, group: &str, offsets: &[OffsetCommit]) -> Result<(), LogError> {
        self.usable()?;
        let entries: Vec<OffsetEntry> = offsets.iter().map(OffsetEntry::from).collect();
        self.append(&Entry::Offsets {
            group: group.into(),
            offsets: entries.clone(),
        })?;
        self.apply(group, entries);
        Ok(())
    }

    /// Forgets a group's committed offsets.
    pub fn delete_group(&mut self, group: &str) -> Result<(), LogError> {
        self.usable()?;
        if self.offsets.contains_key(group) {
            self.append(&Entry::GroupDeleted {
                group: group.into(),
            })?;
            self.offsets.remove(group);
        }
        Ok(())
    }

    /// A group's committed offset.
    pub fn committed(&self, group: &str, partition: &TopicPartition) -> Option<Committed> {
        self.offsets.get(group)?.get(partition).cloned()
    }

    /// Whether an open transaction holds an offset of the group for one of these partitions.
    pub fn unstable(&self, group: &str, partitions: &[TopicPartition]) -> bool {
        partitions.iter().any(|partition| {
            let from = (group.to_string(), partition.clone(), 0);
            let to = (group.to_string(), partition.clone(), u64::MAX);
            self.pending.range(from..=to).next().is_some()
        })
    }

    /// Notes offsets that stand in an open transaction.
    pub fn hold(&mut self, txn: u64, group: &str, offsets: &[OffsetCommit]) {
        self.pending.extend(
            offsets
                .iter()
                .map(|commit| (group.to_string(), commit.partition.clone(), txn)),
        );
    }

    /// Decides that a transaction is committed, and its offsets with it.
    pub fn decide(&mut self, txn: u64, offsets: GroupOffsets) -> Result<(), LogError> {
        self.usable()?;
        let entries = |offsets: &BTreeMap<TopicPartition, Committed>| {
            offsets
                .iter()
                .map(|(partition, committed)| OffsetEntry::new(partition, committed))
                .collect::<Vec<_>>()
        };
        let groups: Vec<_> = offsets
            .iter()
            .map(|(group, offsets)| (group.clone(), entries(offsets)))
            .collect();
        self.append(&Entry::Decision {
            txn,
            groups: groups.clone(),
        })?;
        self.decided.insert(txn);
        for (group, offsets) in groups {
            self.apply(&group, offsets);
        }
        self.pending.retain(|(_, _, pending)| *pending != txn);
        Ok(())
    }

    /// Forgets a decision that every partition has by now.
    pub fn carried_out(&mut self, txn: u64) -> Result<(), LogError> {
        self.decided.remove(&txn);
        if self.journal.outgrown(self.options.journal_bytes) {
            self.rewrite()
        } else {
            Ok(())
        }
    }

    /// Lets go of the offsets of a transaction that is not committed.
    pub fn release(&mut self, txn: u64) {
        self.pending.retain(|(_, _, pending)| *pending != txn);
    }

    pub(super) fn apply(&mut self, group: &str, offsets: Vec<OffsetEntry>) {
        let held = self.offsets.entry(group.into()).or_default();
        for entry in offsets {
            let partition = TopicPartition::new(entry.topic, entry.partition);
            held.insert(
                partition,
                Committed {
                    offset: entry.offset,
                    metadata: entry.metadata,
                },
            );
        }
    }

    pub(super) fn forget_offsets(&mut self, topic: &str) {
        for offsets in self.offsets.values_mut() {
            offsets.retain(|partition, _| *partition.topic != *topic);
        }
        self.offsets.retain(|_, offsets| !offsets.is_empty());
    }
}

impl OffsetEntry {
    pub(super) fn new(partition: &TopicPartition, committed: &Committed) -> Self {
        Self {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            offset: committed.offset,
            metadata: committed.metadata.clone(),
        }
    }
}

impl From<&OffsetCommit> for OffsetEntry {
    fn from(commit: &OffsetCommit) -> Self {
        let committed = Committed {
            offset: commit.offset,
            metadata: commit.metadata.clone(),
        };
        Self::new(&commit.partition, &committed)
    }
}
