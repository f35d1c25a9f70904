//! The log in this process: the same semantics as a Kafka broker's, in files under a folder.
//!
//! ```text
//!   lock, format
//!   journal                               topics, starts of partitions, committed offsets, decisions of transactions
//!   topics/<name>+<id>/<partition>/       segments of frames: records as they were sent, and control records
//!
//!   Producer ─frame─▶ Partition ─▶ Segment            Consumer ◀─borrowed records─ Cursor ◀─chunk─ Segment
//!      └─ Hold ─decision─▶ Catalog ─▶ Journal            └─ Group: generations, owners, targets
//! ```
//!
//! - Everything acknowledged was handed to the operating system before: it survives the death of the process at any
//!   moment. It survives the loss of power only with [`EmbeddedOptions::fsync`]. A write that the death of the process
//!   tore apart is cut off when the folder is opened again.
//! - One process uses a folder at a time. When the [`EmbeddedLog`] is dropped, its consumers and producers find it
//!   closed.
//! - Group members, and who holds a transactional id, are in memory: whoever held them died with the process.
//! - Records are never deleted by age or size: `retention.ms` and `retention.bytes` are not acted on.
//!
//! Locks are taken in this order, and those to the right are held for one look-up or one write at most:
//! transactional id → group → catalogue → partition → signal. No lock is held while records are read.

mod assignment;
mod catalog;
mod compaction;
mod consumer;
mod fetch;
mod frame;
mod group;
mod journal;
mod partition;
mod producer;
mod segment;
mod settings;
mod signal;
#[cfg(test)]
mod tests;
mod topic;
mod transaction;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use self::catalog::Catalog;
use self::consumer::EmbeddedConsumer;
use self::group::Group;
use self::partition::Partition;
use self::producer::EmbeddedProducer;
use self::signal::{Signal, lock};
use self::topic::Topic;
use self::transaction::{Numbers, Transactions};
use super::{
    Bounds, Committed, Consumer, ConsumerOptions, GroupMember, Log, LogError, MAX_METADATA_BYTES,
    Offset, OffsetCommit, Producer, ProducerOptions, TopicDescription, TopicPartition, TopicSpec,
};
use crate::clock::{Clock, SystemClock};

const FORMAT: &str = "headway embedded log, format 1\n";

/// How an embedded log works.
#[derive(Clone)]
pub struct EmbeddedOptions {
    /// Tells the time: for records without a timestamp, silent group members and transactions that stand open too long.
    pub clock: Arc<dyn Clock>,
    /// How large a segment may become, unless its topic says otherwise (`segment.bytes`).
    pub segment_bytes: u64,
    /// How much is read at once from a partition: a consumer holds so much in memory for each partition it reads, or
    /// one record if that is larger.
    pub fetch_bytes: usize,
    /// The journal is rewritten when it is larger than this, and four times as large as it must be.
    pub journal_bytes: u64,
    /// Waits for the disk at each write, so that what was acknowledged survives the loss of power.
    pub fsync: bool,
    /// How long [`Consumer::committed`] waits for open transactions that hold offsets.
    pub stable_offsets_wait: Duration,
    /// What keeps a group member in its place.
    pub heartbeats: Heartbeats,
}

/// What keeps a group member in its place. One whose consumer was dropped without [`Consumer::close`] always loses it
/// when its session timeout has passed on the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeats {
    /// It polls, or makes another call that the group answers, at least once in its session timeout.
    ByPoll,
    /// Its consumer exists, and polls at least once in `max_poll_interval`: as with a Kafka client, which sends
    /// heartbeats in the background.
    ByLife,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            segment_bytes: 64 << 20,
            fetch_bytes: 256 << 10,
            journal_bytes: 4 << 20,
            fsync: false,
            stable_offsets_wait: Duration::from_secs(5),
            heartbeats: Heartbeats::ByPoll,
        }
    }
}

/// A log in this process, on disk under a folder.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
}

/// What the log's consumers and producers share.
struct Shared {
    options: EmbeddedOptions,
    catalog: Mutex<Catalog>,
    groups: Mutex<HashMap<String, Arc<Mutex<Group>>>>,
    transactions: Transactions,
    numbers: Numbers,
    signal: Signal,
    closed: AtomicBool,
    folder_lock: Mutex<Option<File>>,
}

impl EmbeddedLog {
    /// Opens the log in a folder, which is created if it is missing, and ends what an earlier process left open:
    /// transactions that were not decided are aborted.
    ///
    /// # Errors
    /// [`LogError::Storage`] when another process uses the folder, when it holds something else or a log of another
    /// format, and when it can't be read or written.
    pub fn open(dir: &Path, options: EmbeddedOptions) -> Result<Arc<Self>, LogError> {
        fs::create_dir_all(dir.join("topics"))
            .map_err(storage_error(dir, "the folder can't be created"))?;
        let folder_lock = lock_folder(dir)?;
        check_format(dir)?;
        let (catalog, highest) = Catalog::open(dir, &options)?;
        let shared = Shared {
            options,
            catalog: Mutex::new(catalog),
            groups: Mutex::default(),
            transactions: Transactions::new(),
            numbers: Numbers::after(highest),
            signal: Signal::default(),
            closed: AtomicBool::new(false),
            folder_lock: Mutex::new(Some(folder_lock)),
        };
        Ok(Arc::new(Self {
            shared: Arc::new(shared),
        }))
    }

    /// Ends the use of the folder as the death of the process would: open transactions stay undecided, group members
    /// do not leave. From now on every call fails with [`LogError::Closed`]; the folder can be opened again.
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        lock(&self.shared.catalog).close();
        lock(&self.shared.folder_lock).take();
        self.shared.signal.raise();
    }

    /// Compacts all topics whose `cleanup.policy` says so, up to the last stable offset, without waiting until enough
    /// was written for that.
    pub fn compact_now(&self) -> Result<(), LogError> {
        let topics: Vec<_> = lock(&self.shared.catalog)
            .topics
            .values()
            .cloned()
            .collect();
        for topic in topics.iter().filter(|topic| topic.settings.compact) {
            for partition in &topic.partitions {
                partition.compact(self.shared.now_ms())?;
            }
        }
        Ok(())
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        self.close();
    }
}

impl Log for EmbeddedLog {
    fn consumer(&self, options: &ConsumerOptions) -> Result<Box<dyn Consumer>, LogError> {
        self.shared.usable()?;
        Ok(Box::new(EmbeddedConsumer::new(
            Arc::clone(&self.shared),
            options,
        )))
    }

    fn producer(&self, options: &ProducerOptions) -> Result<Box<dyn Producer>, LogError> {
        self.shared.usable()?;
        Ok(Box::new(EmbeddedProducer::new(
            Arc::clone(&self.shared),
            options,
        )))
    }

    fn create_topic(&self, spec: &TopicSpec) -> Result<bool, LogError> {
        lock(&self.shared.catalog).create_topic(spec)
    }

    fn add_partitions(&self, name: &str, total: i32) -> Result<(), LogError> {
        lock(&self.shared.catalog).add_partitions(name, total)?;
        let groups: Vec<_> = lock(&self.shared.groups).values().cloned().collect();
        for group in groups {
            lock(&group).rebalance(&self.shared);
        }
        Ok(())
    }

    fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        lock(&self.shared.catalog).delete_topic(name)?;
        self.shared.signal.raise();
        Ok(())
    }

    fn topic(&self, name: &str) -> Result<Option<TopicDescription>, LogError> {
        match self.shared.topic(name) {
            Ok(topic) => Ok(Some(topic.describe())),
            Err(LogError::UnknownTopic { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        Transactions::expire(&self.shared)?;
        self.shared.partition(partition)?.bounds()
    }

    fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        let catalog = lock(&self.shared.catalog);
        catalog.usable()?;
        Ok(partitions
            .iter()
            .map(|partition| catalog.committed(group, partition))
            .collect())
    }

    fn members(&self, group: &str) -> Result<Vec<GroupMember>, LogError> {
        self.shared.usable()?;
        let group = self.shared.group(group);
        let members = lock(&group).members(&self.shared);
        Ok(members)
    }

    fn delete_group(&self, name: &str) -> Result<(), LogError> {
        let group = self.shared.group(name);
        // Held, so that nobody joins meanwhile.
        let mut group = lock(&group);
        if !group.members(&self.shared).is_empty() {
            return Err(LogError::State {
                detail: format!("group {name} has members: stop them first"),
            });
        }
        lock(&self.shared.catalog).delete_group(name)
    }

    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError> {
        lock(&self.shared.catalog).delete_records(partition, before)
    }
}

impl Shared {
    fn now_ms(&self) -> i64 {
        self.options.clock.now_ms()
    }

    fn usable(&self) -> Result<(), LogError> {
        if self.closed.load(Ordering::SeqCst) {
            Err(LogError::Closed)
        } else {
            Ok(())
        }
    }

    fn group(&self, name: &str) -> Arc<Mutex<Group>> {
        let mut groups = lock(&self.groups);
        Arc::clone(
            groups
                .entry(name.into())
                .or_insert_with(|| Arc::new(Mutex::new(Group::new(name)))),
        )
    }

    fn topic(&self, name: &str) -> Result<Arc<Topic>, LogError> {
        lock(&self.catalog).topic(name).cloned()
    }

    fn partition(&self, name: &TopicPartition) -> Result<Arc<Partition>, LogError> {
        Ok(Arc::clone(
            lock(&self.catalog)
                .topic(&name.topic)?
                .partition(name.partition)?,
        ))
    }
}

/// Refuses offsets that a broker would refuse.
fn check_offsets(offsets: &[OffsetCommit]) -> Result<(), LogError> {
    for commit in offsets {
        let bytes = commit.metadata.len();
        if bytes > MAX_METADATA_BYTES {
            let what = format!("the metadata of the offset for {}", commit.partition);
            return Err(LogError::TooLarge { what, bytes });
        }
        if commit.offset < 0 {
            let detail = format!(
                "{} can't be committed as an offset of {}",
                commit.offset, commit.partition
            );
            return Err(LogError::State { detail });
        }
    }
    Ok(())
}

fn lock_folder(dir: &Path) -> Result<File, LogError> {
    let path = dir.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = file.map_err(storage_error(&path, "the lock can't be created"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(LogError::Storage {
            path: dir.into(),
            detail: "it is in use by another process: stop that one, or use another folder".into(),
            source: None,
        }),
        Err(TryLockError::Error(error)) => {
            Err(storage_error(&path, "the lock can't be taken")(error))
        }
    }
}

/// Writes the format's name into a new folder, and checks it in an old one.
fn check_format(dir: &Path) -> Result<(), LogError> {
    let path = dir.join("format");
    let refused = |detail: String| {
        Err(LogError::Storage {
            path: dir.into(),
            detail,
            source: None,
        })
    };
    match fs::read_to_string(&path) {
        Ok(found) if found == FORMAT => Ok(()),
        Ok(found) => refused(format!(
            "it holds {:?}, and this program reads {:?}: use the program that wrote it, or another folder",
            found.trim_end(),
            FORMAT.trim_end()
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            for entry in
                fs::read_dir(dir).map_err(storage_error(dir, "the folder can't be read"))?
            {
                let name = entry
                    .map_err(storage_error(dir, "the folder can't be read"))?
                    .file_name();
                if !["lock", "topics", "format.tmp"]
                    .iter()
                    .any(|ours| name == *ours)
                {
                    return refused(format!(
                        "it holds {name:?}, which is no part of a log: use another folder"
                    ));
                }
            }
            let next = path.with_extension("tmp");
            fs::write(&next, FORMAT)
                .and_then(|()| fs::rename(&next, &path))
                .map_err(storage_error(&path, "the file can't be written"))
        }
        Err(error) => Err(storage_error(&path, "the file can't be read")(error)),
    }
}

/// Tells what could not be done with a file.
fn storage_error(path: &Path, what: &'static str) -> impl Fn(io::Error) -> LogError + use<> {
    let path = path.to_path_buf();
    move |source| LogError::Storage {
        path: path.clone(),
        detail: what.into(),
        source: Some(source),
    }
}
