//! The catalogue: topics, committed offsets and decisions of transactions, all of it in the journal.

mod offsets;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use crate::log::embedded::EmbeddedOptions;
use crate::log::embedded::journal::{Entry, Journal, OffsetEntry};
use crate::log::embedded::partition::{Gone, Partition};
use crate::log::embedded::settings::Settings;
use crate::log::embedded::storage_error;
use crate::log::embedded::topic::{Topic, topic_id};
use crate::log::error::fewer;
use crate::log::{Committed, LogError, Offset, TopicPartition, TopicSpec};

/// Offsets of several groups.
pub(super) type GroupOffsets = BTreeMap<String, BTreeMap<TopicPartition, Committed>>;

/// What the journal says. Its lock is taken after those of transactions and groups, before those of partitions.
pub(super) struct Catalog {
    dir: PathBuf,
    options: EmbeddedOptions,
    journal: Journal,
    pub topics: BTreeMap<Arc<str>, Arc<Topic>>,
    starts: BTreeMap<(String, i32), Offset>,
    offsets: GroupOffsets,
    /// Offsets that stand in open transactions.
    pending: BTreeSet<(String, TopicPartition, u64)>,
    /// Transactions that are committed, but not yet so marked in every partition.
    decided: BTreeSet<u64>,
    closed: bool,
}

impl Catalog {
    /// Opens what an earlier process left, and ends the transactions that it left open. Returns the highest number
    /// that a transaction has.
    pub fn open(dir: &Path, options: &EmbeddedOptions) -> Result<(Self, u64), LogError> {
        let (journal, entries) = Journal::open(dir, options.fsync)?;
        let mut catalog = Self {
            dir: dir.join("topics"),
            options: options.clone(),
            journal,
            topics: BTreeMap::new(),
            starts: BTreeMap::new(),
            offsets: BTreeMap::new(),
            pending: BTreeSet::new(),
            decided: BTreeSet::new(),
            closed: false,
        };
        let mut specs = BTreeMap::new();
        for entry in entries {
            match entry {
                Entry::Topic {
                    name,
                    id,
                    partitions,
                    config,
                } => {
                    specs.insert(name, (id, partitions, config));
                }
                Entry::TopicDeleted { name } => {
                    specs.remove(&name);
                    catalog.starts.retain(|(topic, _), _| *topic != name);
                    catalog.forget_offsets(&name);
                }
                Entry::Start {
                    topic,
                    partition,
                    offset,
                } => {
                    catalog.starts.insert((topic, partition), offset);
                }
                Entry::Offsets { group, offsets } => catalog.apply(&group, offsets),
                Entry::GroupDeleted { group } => {
                    catalog.offsets.remove(&group);
                }
                Entry::Decision { txn, groups } => {
                    for (group, offsets) in groups {
                        catalog.apply(&group, offsets);
                    }
                    catalog.decided.insert(txn);
                }
            }
        }
        let mut highest = catalog.decided.last().copied().unwrap_or(0);
        for (name, (id, partitions, config)) in specs {
            highest = highest.max(catalog.open_topic(&name, id, partitions, config)?);
        }
        catalog.remove_left_overs()?;
        for partition in catalog.topics.values().flat_map(|topic| &topic.partitions) {
            for txn in partition.open_transactions() {
                partition.end_transaction(txn, catalog.decided.contains(&txn))?;
            }
        }
        if !catalog.decided.is_empty() || catalog.journal.outgrown(options.journal_bytes) {
            catalog.decided.clear();
            catalog.rewrite()?;
        }
        Ok((catalog, highest))
    }

    fn open_topic(
        &mut self,
        name: &str,
        id: String,
        partitions: i32,
        config: BTreeMap<String, String>,
    ) -> Result<u64, LogError> {
        let settings = Settings::read(&config, self.options.segment_bytes)?;
        let (name, dir) = (
            Arc::<str>::from(name),
            self.dir.join(format!("{name}+{id}")),
        );
        let (mut opened, mut highest) = (Vec::new(), 0);
        for number in 0..partitions {
            let start = self
                .starts
                .get(&(name.to_string(), number))
                .copied()
                .unwrap_or(0);
            let partition = TopicPartition::new(Arc::clone(&name), number);
            let dir = dir.join(number.to_string());
            let (partition, txn) =
                Partition::open(dir, partition, settings.clone(), self.options.fsync, start)?;
            highest = highest.max(txn);
            opened.push(Arc::new(partition));
        }
        let topic = Topic {
            name: Arc::clone(&name),
            id,
            settings,
            partitions: opened,
            turn: AtomicUsize::new(0),
            config,
            dir,
        };
        self.topics.insert(name, Arc::new(topic));
        Ok(highest)
    }

    /// Removes the folders of topics whose creation or deletion was not finished.
    fn remove_left_overs(&self) -> Result<(), LogError> {
        let unreadable = || storage_error(&self.dir, "the folder can't be read");
        for entry in fs::read_dir(&self.dir).map_err(unreadable())? {
            let path = entry.map_err(unreadable())?.path();
            if !self.topics.values().any(|topic| topic.dir == path) {
                fs::remove_dir_all(&path)
                    .map_err(storage_error(&path, "a left-over folder can't be removed"))?;
            }
        }
        Ok(())
    }

    /// A topic by its name.
    pub fn topic(&self, name: &str) -> Result<&Arc<Topic>, LogError> {
        self.usable()?;
        self.topics
            .get(name)
            .ok_or_else(|| LogError::UnknownTopic { name: name.into() })
    }

    /// An error once the log is closed.
    pub fn usable(&self) -> Result<(), LogError> {
        if self.closed {
            Err(LogError::Closed)
        } else {
            Ok(())
        }
    }

    /// Refuses everything from now on.
    pub fn close(&mut self) {
        self.closed = true;
        for partition in self.topics.values().flat_map(|topic| &topic.partitions) {
            partition.retire(Gone::Closed);
        }
    }

    /// Creates a topic, unless it is there.
    pub fn create_topic(&mut self, spec: &TopicSpec) -> Result<bool, LogError> {
        self.usable()?;
        let config = |detail: String| Err(LogError::Config { detail });
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if spec.name.is_empty()
            || spec.name.len() > 249
            || !spec.name.bytes().all(legal)
            || spec.name.starts_with("..")
        {
            return config(format!(
                "{:?} can't name a topic: letters, digits, '.', '_' and '-' can",
                spec.name
            ));
        }
        if self.topics.contains_key(spec.name.as_str()) {
            return Ok(false);
        }
        if !(1..=100_000).contains(&spec.partitions) {
            return config(format!(
                "topic {} can't have {} partitions",
                spec.name, spec.partitions
            ));
        }
        let settings = Settings::read(&spec.config, self.options.segment_bytes)?;
        let (name, id) = (Arc::<str>::from(spec.name.as_str()), topic_id());
        let dir = self.dir.join(format!("{name}+{id}"));
        let mut partitions = Vec::new();
        for number in 0..spec.partitions {
            let partition = TopicPartition::new(Arc::clone(&name), number);
            let dir = dir.join(number.to_string());
            partitions.push(Arc::new(Partition::create(
                dir,
                partition,
                settings.clone(),
                self.options.fsync,
            )?));
        }
        self.append(&Entry::Topic {
            name: spec.name.clone(),
            id: id.clone(),
            partitions: spec.partitions,
            config: spec.config.clone(),
        })?;
        let config = spec.config.clone();
        let topic = Topic {
            name: Arc::clone(&name),
            id,
            settings,
            partitions,
            turn: AtomicUsize::new(0),
            config,
            dir,
        };
        self.topics.insert(name, Arc::new(topic));
        Ok(true)
    }

    /// Gives a topic more partitions.
    pub fn add_partitions(&mut self, name: &str, total: i32) -> Result<(), LogError> {
        let topic = Arc::clone(self.topic(name)?);
        let before = topic.partitions.len() as i32;
        if before > total {
            return Err(fewer(name, before, total));
        }
        let mut partitions = topic.partitions.clone();
        for number in before..total {
            let partition = TopicPartition::new(Arc::clone(&topic.name), number);
            let dir = topic.dir.join(number.to_string());
            // What a crash before the entry has left is empty, and no part of the topic.
            if dir.exists() {
                fs::remove_dir_all(&dir)
                    .map_err(storage_error(&dir, "a left-over folder can't be removed"))?;
            }
            let settings = topic.settings.clone();
            let created = Partition::create(dir, partition, settings, self.options.fsync)?;
            partitions.push(Arc::new(created));
        }
        self.append(&Entry::Topic {
            name: name.into(),
            id: topic.id.clone(),
            partitions: total,
            config: topic.config.clone(),
        })?;
        let more = Topic {
            name: Arc::clone(&topic.name),
            id: topic.id.clone(),
            settings: topic.settings.clone(),
            partitions,
            turn: AtomicUsize::new(0),
            config: topic.config.clone(),
            dir: topic.dir.clone(),
        };
        self.topics.insert(Arc::clone(&topic.name), Arc::new(more));
        Ok(())
    }

    /// Deletes a topic, if it is there.
    pub fn delete_topic(&mut self, name: &str) -> Result<(), LogError> {
        self.usable()?;
        if !self.topics.contains_key(name) {
            return Ok(());
        }
        self.append(&Entry::TopicDeleted { name: name.into() })?;
        self.starts.retain(|(topic, _), _| topic != name);
        self.forget_offsets(name);
        if let Some(topic) = self.topics.remove(name) {
            for partition in &topic.partitions {
                partition.retire(Gone::Deleted);
            }
            fs::remove_dir_all(&topic.dir)
                .map_err(storage_error(&topic.dir, "the folder can't be removed"))?;
        }
        Ok(())
    }

    /// Deletes the records of a partition below an offset.
    pub fn delete_records(
        &mut self,
        name: &TopicPartition,
        before: Offset,
    ) -> Result<(), LogError> {
        let partition = Arc::clone(self.topic(&name.topic)?.partition(name.partition)?);
        let bounds = partition.bounds()?;
        if before < 0 || before > bounds.end {
            let (start, end) = (bounds.start, bounds.end);
            return Err(LogError::OffsetOutOfRange {
                partition: name.clone(),
                offset: before,
                start,
                end,
            });
        }
        if before <= bounds.start {
            return Ok(());
        }
        let key = (name.topic.to_string(), name.partition);
        self.append(&Entry::Start {
            topic: key.0.clone(),
            partition: key.1,
            offset: before,
        })?;
        self.starts.insert(key, before);
        partition.delete_before(before)
    }

    fn append(&mut self, entry: &Entry) -> Result<(), LogError> {
        if self.journal.outgrown(self.options.journal_bytes) {
            self.rewrite()?;
        }
        self.journal.append(entry)
    }

    fn rewrite(&mut self) -> Result<(), LogError> {
        let topics = self.topics.values().map(|topic| Entry::Topic {
            name: topic.name.to_string(),
            id: topic.id.clone(),
            partitions: topic.partitions.len() as i32,
            config: topic.config.clone(),
        });
        let starts = self
            .starts
            .iter()
            .map(|((topic, partition), offset)| Entry::Start {
                topic: topic.clone(),
                partition: *partition,
                offset: *offset,
            });
        let offsets = self.offsets.iter().map(|(group, offsets)| Entry::Offsets {
            group: group.clone(),
            offsets: offsets
                .iter()
                .map(|(partition, held)| OffsetEntry::new(partition, held))
                .collect(),
        });
        let decided = self.decided.iter().map(|txn| Entry::Decision {
            txn: *txn,
            groups: Vec::new(),
        });
        self.journal
            .rewrite(topics.chain(starts).chain(offsets).chain(decided))
    }
}
