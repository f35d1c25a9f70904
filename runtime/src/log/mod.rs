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
mod options;
mod partitioner;
mod records;

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use error::{Class, LogError};
pub use leftovers::abort_leftovers;
pub use options::{ConsumerOptions, ProducerOptions, TopicSpec};
pub use partitioner::partition_for_key;
pub use records::{Batch, NewRecord, Record, Records};

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

/// Proof of membership in a group at one moment, for [`Producer::send_offsets`]. Only its log can read it.
pub struct GroupMetadata(pub Box<dyn Any + Send>);

/// A reader. Used by one thread.
///
/// To drop one without [`Consumer::close`] is to crash: it does not leave its group, where the implementation can
/// help it (`embedded`, and static members everywhere).
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

    /// Leaves the group, static members too: others have its partitions at once, and read again what was not committed.
    fn close(self: Box<Self>, deadline: Duration) -> Result<(), LogError>;

    /// Ends; a static member's place is kept for it until its session timeout (KIP-345), others leave the group.
    fn close_for_a_moment(self: Box<Self>, deadline: Duration) -> Result<(), LogError>;
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
