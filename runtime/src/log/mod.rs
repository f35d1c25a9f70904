//! The log port: all that producer, processor and sinks know of a broker.
//!
//! ```text
//!   worker ──poll──▶ Consumer ──▶ Event::Records(Batch) / End / Assigned / Revoked / Lost
//!   worker ──begin, send, send_offsets, commit──▶ Producer
//!   setup, audit ──create_topic, topic, bounds, committed, delete_records──▶ Log
//! ```
//!
//! Two implementations: [`kafka`] (any Kafka-protocol broker, through librdkafka) and [`embedded`] (in this process,
//! segments on disk under a folder). They have the same semantics, held together by one conformance suite.
//!
//! - Consumers always read committed transactions only, and stop at the last stable offset.
//! - There is no default start: a worker says at which offset it begins ([`Consumer::assign`]), or it gets an error.
//! - A rebalance is an event that the worker answers when it is ready: [`Event::Assigned`] with [`Consumer::assign`],
//!   [`Event::Revoked`] and [`Event::Lost`] with [`Consumer::unassign`]. Until it answers, the rebalance waits.
//! - All calls block the calling thread, up to a deadline; workers own a thread of their own.

pub mod embedded;
mod error;
pub mod fault;
pub mod kafka;
mod leftovers;
mod partitioner;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use error::{Class, LogError};
pub use leftovers::abort_leftovers;
pub use partitioner::partition_for_key;

/// An offset in a partition: the position of a record, counted from 0. Control records of transactions use offsets up,
/// so that the offsets of records have holes.
pub type Offset = i64;

/// A partition of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicPartition {
    /// The topic's name.
    pub topic: Arc<str>,
    /// The partition's number, from 0.
    pub partition: i32,
}

impl TopicPartition {
    /// A partition by topic name and number.
    pub fn new(topic: impl Into<Arc<str>>, partition: i32) -> Self {
        Self {
            topic: topic.into(),
            partition,
        }
    }
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

/// A broker, or what stands in for one.
pub trait Log: Send + Sync {
    /// A new consumer. Nothing is read before it subscribes or is assigned partitions.
    fn consumer(&self, options: &ConsumerOptions) -> Result<Box<dyn Consumer>, LogError>;

    /// A new idempotent producer; transactional if the options name a transactional id.
    fn producer(&self, options: &ProducerOptions) -> Result<Box<dyn Producer>, LogError>;

    /// Creates a topic, or finds that it is there already (its settings are then left alone; compare them with
    /// [`Log::topic`]). Returns whether it was created.
    fn create_topic(&self, spec: &TopicSpec) -> Result<bool, LogError>;

    /// Gives a topic more partitions, `total` in all (Kafka's CreatePartitions, KIP-195). Its id stays; members of groups
    /// that subscribe to it are given the new ones.
    ///
    /// # Errors
    /// It has more already.
    fn add_partitions(&self, name: &str, total: i32) -> Result<(), LogError>;

    /// Deletes a topic and all its records; no error when there is none of that name.
    fn delete_topic(&self, name: &str) -> Result<(), LogError>;

    /// What the broker says of a topic; `None` when there is none of that name.
    fn topic(&self, name: &str) -> Result<Option<TopicDescription>, LogError>;

    /// The offsets at which a partition starts and ends now.
    fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError>;

    /// The committed offsets of a group, with their metadata, without joining it. One answer per partition, in order.
    fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError>;

    /// Who is in a group: in no particular order; nobody where there is no such group. A member that died is in it until
    /// its session timeout.
    fn members(&self, group: &str) -> Result<Vec<GroupMember>, LogError>;

    /// Deletes a group, and with it the offsets that it has committed; no error when there is none of that name.
    ///
    /// # Errors
    /// [`LogError::State`] while it has members.
    fn delete_group(&self, group: &str) -> Result<(), LogError>;

    /// Deletes the records below an offset (Kafka's DeleteRecords, KIP-107): the partition then starts there.
    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError>;
}

/// How a consumer takes part in its group.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// The consumer group; for a consumer that only assigns partitions by itself, a name for its requests.
    pub group: String,
    /// What the broker's logs call this client.
    pub client_id: String,
    /// The static member id (KIP-345): a member that comes back under it within the session timeout keeps its partitions.
    pub instance_id: Option<String>,
    /// How long the group waits for a silent member before it gives its partitions to others.
    pub session_timeout: Duration,
    /// How long the group waits for a member that does not poll.
    pub max_poll_interval: Duration,
}

impl ConsumerOptions {
    /// A member of `group` with the usual timeouts: 10 s of silence, 5 minutes without a poll.
    pub fn new(group: impl Into<String>) -> Self {
        let group = group.into();
        Self {
            client_id: group.clone(),
            group,
            instance_id: None,
            session_timeout: Duration::from_secs(10),
            max_poll_interval: Duration::from_secs(300),
        }
    }
}

/// How a producer writes.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// What the broker's logs call this client.
    pub client_id: String,
    /// The transactional id: a later producer with the same id fences this one. `None`: idempotent, no transactions.
    pub transactional_id: Option<String>,
    /// How long the broker lets a transaction stand open before it aborts it.
    pub transaction_timeout: Duration,
    /// How long a record may wait for its delivery, retries included.
    pub delivery_timeout: Duration,
    /// How long a record waits for others to share its batch.
    pub linger: Duration,
    /// Whether [`Producer::flush`] says how many records went where. Without that only failures are told, which costs less;
    /// a flush then lets no record wait for others.
    pub counts: bool,
}

impl ProducerOptions {
    /// An idempotent producer without transactions.
    pub fn idempotent(client_id: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            transactional_id: None,
            transaction_timeout: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(120),
            linger: Duration::from_millis(20),
            counts: true,
        }
    }

    /// A transactional producer.
    pub fn transactional(transactional_id: impl Into<String>) -> Self {
        let id = transactional_id.into();
        Self {
            client_id: id.clone(),
            transactional_id: Some(id),
            ..Self::idempotent("")
        }
    }
}

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many brokers keep a copy (`-1`: the broker's default). The embedded log keeps one whatever this says.
    pub replication: i32,
    /// Topic settings under Kafka's names, such as `cleanup.policy`.
    pub config: BTreeMap<String, String>,
}

impl TopicSpec {
    /// A topic with the broker's own replication and settings.
    pub fn new(name: impl Into<String>, partitions: i32) -> Self {
        Self {
            name: name.into(),
            partitions,
            replication: -1,
            config: BTreeMap::new(),
        }
    }

    /// The same with one more setting.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }
}

/// What a broker says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// Its id (KIP-516): a topic deleted and created again under its old name has another one. 22 characters of
    /// unpadded URL-safe base64, as Kafka's own tools print it.
    pub id: String,
    /// How many partitions it has now.
    pub partitions: i32,
    /// How many copies of it the brokers keep: of the partition that has the fewest. 1 for the embedded log.
    pub replication: i32,
    /// Its settings under Kafka's names, defaults included where the broker tells them.
    pub config: BTreeMap<String, String>,
}

/// Where a partition starts and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// The offset of the first record that is still there.
    pub start: Offset,
    /// The last stable offset: nothing at or above it may be read by a consumer of committed transactions.
    pub stable: Offset,
    /// The high watermark: the offset that the next record will get.
    pub end: Offset,
}

/// A member of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMember {
    /// What it calls itself ([`ConsumerOptions::client_id`]).
    pub client_id: String,
    /// From where it is connected, as the broker says it; empty for the embedded log.
    pub host: String,
    /// Which partitions it has, or is to have once the group has come to rest, in order.
    pub partitions: Vec<TopicPartition>,
}

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The offset to go on from.
    pub offset: Offset,
    /// The string committed with it; empty if none was.
    pub metadata: String,
}

/// An offset to be committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetCommit {
    /// Which partition.
    pub partition: TopicPartition,
    /// The offset to go on from.
    pub offset: Offset,
    /// At most 4,096 bytes.
    pub metadata: String,
}

/// The most bytes that the metadata of a committed offset may have (Kafka's `offset.metadata.max.bytes`).
pub const MAX_METADATA_BYTES: usize = 4096;

/// What a poll brings.
#[derive(Debug)]
pub enum Event {
    /// Records of one partition, in offset order.
    Records(Batch),
    /// The end of a partition was reached: nothing can be read at `position` now. Reported once each time it is
    /// reached. `position` lies behind control records, so that it equals the last stable offset.
    End {
        /// Which partition.
        partition: TopicPartition,
        /// The offset at which the next record can come.
        position: Offset,
    },
    /// The group gave these partitions to this member, in addition to those that it has. Answer with [`Consumer::assign`].
    Assigned(Vec<TopicPartition>),
    /// The group wants these partitions back. They are still ours until [`Consumer::unassign`] answers.
    Revoked(Vec<TopicPartition>),
    /// These partitions are no longer ours: others may have them already, and commits for them fail.
    /// Answer with [`Consumer::unassign`].
    Lost(Vec<TopicPartition>),
}

/// Records of one partition, in offset order, never empty. They are borrowed from the client's own buffers.
pub struct Batch {
    /// The partition they come from.
    pub partition: TopicPartition,
    records: Box<dyn Records>,
}

impl Batch {
    /// A batch over an implementation's buffers, which must hold at least one record.
    pub fn new(partition: TopicPartition, records: Box<dyn Records>) -> Self {
        debug_assert!(records.len() > 0, "a batch is never empty");
        Self { partition, records }
    }

    /// How many records there are.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// One record.
    pub fn get(&self, index: usize) -> Record<'_> {
        self.records.get(index)
    }

    /// The value of one header of one record, the last of that name.
    pub fn header(&self, index: usize, name: &str) -> Option<&[u8]> {
        self.records.header(index, name)
    }

    /// All records in order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        (0..self.records.len()).map(|index| self.records.get(index))
    }

    /// The position behind the last record: its offset plus one.
    pub fn next_position(&self) -> Offset {
        self.records.get(self.records.len() - 1).offset + 1
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({}, {} records)", self.partition, self.len())
    }
}

/// Where a batch's records live.
#[allow(clippy::len_without_is_empty)]
pub trait Records: Send {
    /// How many there are: at least one.
    fn len(&self) -> usize;
    /// One of them.
    fn get(&self, index: usize) -> Record<'_>;
    /// The value of one header of one of them, the last of that name; `None` if it has none, or one without a value.
    fn header(&self, index: usize, name: &str) -> Option<&[u8]>;
}

/// A record as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its timestamp in milliseconds since 1970 (UTC), or −1.
    pub timestamp_ms: i64,
    /// Its key, if it has one.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
}

/// A record to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// To which topic.
    pub topic: &'a str,
    /// To which partition; `None`: by the hash of the key, as [`partition_for_key`] says, or spread if there is no key.
    pub partition: Option<i32>,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value; `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    /// Its headers, in order.
    pub headers: &'a [(&'a str, &'a [u8])],
    /// Its timestamp in milliseconds since 1970 (UTC); `None`: the clock's.
    pub timestamp_ms: Option<i64>,
}

/// Proof of membership in a group at one moment, for [`Producer::send_offsets`]. Only its log can read it.
pub struct GroupMetadata(pub Box<dyn Any + Send>);

/// A reader. Used by one thread.
///
/// To drop one without [`Consumer::close`] is to crash: it does not leave its group, where the implementation can
/// help it (`embedded`).
pub trait Consumer: Send {
    /// Joins the group for these topics. Assignments come as events of [`Consumer::poll`].
    fn subscribe(&mut self, topics: &[&str]) -> Result<(), LogError>;

    /// Begins to read these partitions at these offsets, in addition to those being read: the answer to
    /// [`Event::Assigned`], or on its own for a reader without a group.
    fn assign(&mut self, starts: &[(TopicPartition, Offset)]) -> Result<(), LogError>;

    /// Stops reading these partitions: the answer to [`Event::Revoked`] and [`Event::Lost`], or on its own for a reader
    /// without a group. Paused ones are forgotten as paused.
    fn unassign(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Goes on at another offset of a partition being read.
    fn seek(&mut self, partition: &TopicPartition, offset: Offset) -> Result<(), LogError>;

    /// Delivers no records of these partitions until [`Consumer::resume`]. Membership goes on; so must polling.
    fn pause(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Delivers records of these partitions again, from where they were paused: none is skipped.
    fn resume(&mut self, partitions: &[TopicPartition]) -> Result<(), LogError>;

    /// Waits up to `wait` for something to happen; `None` when nothing did. At most `max_records` in a batch.
    /// Partitions take turns.
    ///
    /// # Errors
    /// [`LogError::OffsetOutOfRange`] when a partition no longer has (or never had) the offset to read next.
    /// Errors of class [`Class::Retry`] leave the consumer usable.
    fn poll(&mut self, wait: Duration, max_records: usize) -> Result<Option<Event>, LogError>;

    /// The group's committed offsets, stable ones only: it waits for open transactions that hold commits for these
    /// partitions (KIP-447). One answer per partition, in order.
    fn committed(
        &mut self,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError>;

    /// Commits offsets outside any transaction, and waits for the broker's answer. A consumer that has not subscribed
    /// commits for its group from outside: that is allowed only while the group has no members.
    ///
    /// # Errors
    /// [`LogError::StaleGeneration`] when the member no longer has its place in the group;
    /// [`LogError::UnknownOutcome`] when no answer came in time.
    fn commit(&mut self, offsets: &[OffsetCommit]) -> Result<(), LogError>;

    /// Whether the group has said, since this consumer subscribed, which partitions are its own: there may be none.
    fn in_group(&self) -> bool;

    /// Proof of the present membership.
    fn group_metadata(&self) -> Result<GroupMetadata, LogError>;

    /// Leaves the group. What was not committed will be read again by others.
    fn close(self: Box<Self>, deadline: Duration) -> Result<(), LogError>;
}

/// A writer. Used by one thread.
pub trait Producer: Send {
    /// Takes the transactional id: aborts or completes what an earlier holder left open, and fences it.
    /// Once, before the first transaction.
    fn init_transactions(&mut self) -> Result<(), LogError>;

    /// Begins a transaction. The first [`Producer::send`] in it makes it real at the broker.
    fn begin(&mut self) -> Result<(), LogError>;

    /// Hands a record over for delivery, waiting while the queue is full: back-pressure, not an error.
    /// The record's bytes are copied.
    fn send(&mut self, record: NewRecord<'_>) -> Result<(), LogError>;

    /// Hands records of one topic over, each with its key and value, as [`Producer::send`] does each of them. After an error
    /// some of them may have been handed over.
    fn send_all<'a>(
        &mut self,
        topic: &str,
        records: &mut dyn Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), LogError> {
        for (key, value) in records {
            self.send(NewRecord {
                topic,
                partition: None,
                key: Some(key),
                value: Some(value),
                headers: &[],
                timestamp_ms: None,
            })?;
        }
        Ok(())
    }

    /// Waits until everything sent is delivered, and says how much went where since the last flush, unless the producer
    /// was made without [`ProducerOptions::counts`].
    ///
    /// # Errors
    /// The first failed delivery's, if one failed.
    fn flush(&mut self) -> Result<Delivered, LogError>;

    /// Adds a group's offsets to the open transaction (KIP-447: the metadata fences members of an older generation).
    fn send_offsets(
        &mut self,
        offsets: &[OffsetCommit],
        group: &GroupMetadata,
    ) -> Result<(), LogError>;

    /// Commits the open transaction, flushing first.
    ///
    /// # Errors
    /// [`LogError::UnknownOutcome`]: it may or may not have been committed. A new producer with the same transactional
    /// id must settle that before anything else.
    fn commit(&mut self) -> Result<(), LogError>;

    /// Aborts the open transaction: what was sent in it will never be read.
    fn abort(&mut self) -> Result<(), LogError>;
}

/// How many records each partition took since the last flush.
pub type Delivered = BTreeMap<TopicPartition, u64>;
