//! The log at a broker of the Kafka protocol, through librdkafka.
//!
//! ```text
//!   Consumer ─▶ consumer.rs ─▶ one queue per partition ─▶ batch.rs: whole batches of borrowed records
//!                    └──────▶ the main queue: rebalances, errors (context.rs records them; a poll hands them out)
//!                    └──────▶ member.rs: leaving the group; offsets.rs: commits
//!   Producer ─▶ producer.rs ─▶ delivery reports (context.rs counts them)
//!                    └──────▶ guard.rs: transactional calls on a thread of their own, under deadlines
//!   Log ──────▶ admin.rs ────▶ topics, bounds, offsets, deletion; groups.rs: members (native.rs: what rust-rdkafka does not offer)
//! ```
//!
//! - No callback acts: it records, and the worker's own call acts.
//! - A client is destroyed on a thread of its own, because librdkafka may block there.
//! - Each error code of librdkafka is classified once, in errors.rs.
//! - `unsafe` stands in batch.rs and native.rs alone.

mod admin;
mod batch;
mod consumer;
mod context;
mod errors;
mod greeting;
mod groups;
mod guard;
mod member;
mod native;
mod offsets;
mod options;
mod producer;

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};

pub use options::KafkaOptions;

use super::{
    Bounds, Committed, Consumer, ConsumerOptions, GroupMember, Log, LogError, Offset, Producer,
    ProducerOptions, TopicDescription, TopicPartition, TopicSpec,
};
use admin::Admin;
use consumer::KafkaConsumer;
use context::{ClientNotes, ReaderContext};
use errors::Doing;
use producer::KafkaProducer;

/// A cluster of brokers of the Kafka protocol.
pub struct KafkaLog {
    options: KafkaOptions,
    admin: Admin,
}

impl KafkaLog {
    /// Connects to the cluster and waits for its first answer.
    ///
    /// # Errors
    /// [`LogError::Config`] for settings that librdkafka does not take; [`LogError::Unreachable`] when no broker answers
    /// within [`KafkaOptions::connect_timeout`]; [`LogError::NotAllowed`] when they refuse this client.
    pub fn connect(options: KafkaOptions) -> Result<Arc<Self>, LogError> {
        options.check()?;
        let notes = Arc::new(ClientNotes::default());
        let probe: BaseConsumer<ReaderContext> = options
            .reader(true)
            .create_with_context(ReaderContext::new(Arc::clone(&notes)))
            .map_err(|error| errors::of_creation(&error))?;
        wait_for_answer(&options, &probe, &notes)?;
        let admin = Admin::new(&options, probe)?;
        Ok(Arc::new(Self { options, admin }))
    }
}

/// Waits for the cluster's first answer; ends early when waiting longer can't help.
fn wait_for_answer(
    options: &KafkaOptions,
    probe: &BaseConsumer<ReaderContext>,
    notes: &ClientNotes,
) -> Result<(), LogError> {
    let deadline = Instant::now() + options.connect_timeout;
    loop {
        let slice =
            Duration::from_millis(500).min(deadline.saturating_duration_since(Instant::now()));
        let Err(_) = probe.fetch_metadata(None, slice.max(Duration::from_millis(1))) else {
            return Ok(());
        };
        // Serves the log and error events, which say more than the call's own code.
        while probe.poll(Duration::ZERO).is_some() {}
        if let Some(refusal) = notes.refusal() {
            return Err(LogError::NotAllowed {
                action: "connect",
                detail: greeting::refused(&options.brokers, &refusal),
            });
        }
        if Instant::now() >= deadline {
            return Err(LogError::Unreachable {
                action: "connect",
                detail: greeting::unanswered(
                    &options.brokers,
                    options.connect_timeout,
                    notes.last().as_deref(),
                ),
            });
        }
    }
}

impl Log for KafkaLog {
    fn consumer(&self, options: &ConsumerOptions) -> Result<Box<dyn Consumer>, LogError> {
        Ok(Box::new(KafkaConsumer::new(&self.options, options)?))
    }

    fn producer(&self, options: &ProducerOptions) -> Result<Box<dyn Producer>, LogError> {
        Ok(Box::new(KafkaProducer::new(&self.options, options)?))
    }

    fn create_topic(&self, spec: &TopicSpec) -> Result<bool, LogError> {
        self.admin.create_topic(spec)
    }

    fn add_partitions(&self, name: &str, total: i32) -> Result<(), LogError> {
        self.admin.add_partitions(name, total)
    }

    fn delete_topic(&self, name: &str) -> Result<(), LogError> {
        self.admin.delete_topic(name)
    }

    fn topic(&self, name: &str) -> Result<Option<TopicDescription>, LogError> {
        self.admin.topic(name)
    }

    fn bounds(&self, partition: &TopicPartition) -> Result<Bounds, LogError> {
        self.admin.bounds(partition)
    }

    fn committed(
        &self,
        group: &str,
        partitions: &[TopicPartition],
    ) -> Result<Vec<Option<Committed>>, LogError> {
        let client: BaseConsumer<ReaderContext> = self
            .options
            .reader(false)
            .set("group.id", group)
            .create_with_context(ReaderContext::new(Arc::default()))
            .map_err(|error| errors::of_creation(&error))?;
        let doing = Doing::new("read a group's offsets").group(group);
        let answer = offsets::committed(&client, partitions, self.options.request_timeout, &doing);
        native::destroy(client);
        answer
    }

    fn members(&self, group: &str) -> Result<Vec<GroupMember>, LogError> {
        self.admin.members(group)
    }

    fn delete_group(&self, group: &str) -> Result<(), LogError> {
        self.admin.delete_group(group)
    }

    fn delete_records(&self, partition: &TopicPartition, before: Offset) -> Result<(), LogError> {
        self.admin.delete_records(partition, before)
    }
}
