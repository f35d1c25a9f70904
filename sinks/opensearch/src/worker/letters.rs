//! Dead letters: kept in hand until the log has them, and flushed before the offsets behind them are committed.

use std::sync::Arc;

use runtime::dead_letter::{DeadLetterError, DeadLetterWriter, Origin, Refused, dlq_wanted};
use runtime::log::{Batch, Log, LogError, Offset, Producer, ProducerOptions, TopicPartition};
use runtime::topics::Durability;
use schemas::{SchemaId, wire};

use super::Options;
use crate::document::Document;

/// What the dead letters' `stage` says.
const STAGE: &str = "sink-opensearch";
/// The most bytes of a rejected document that its dead letter's detail shows; the record itself is kept beside it.
const SHOWN_DOCUMENT_BYTES: usize = 16 << 10;

/// A record that makes no document, with why.
#[derive(Clone, Debug)]
pub(super) struct Letter {
    pub partition: TopicPartition,
    offset: Offset,
    reason: &'static str,
    detail: String,
    column: Option<String>,
    schema_id: Option<SchemaId>,
    raw: Vec<u8>,
}

impl Letter {
    /// For one record of a batch.
    pub fn of(batch: &Batch, place: usize, reason: &'static str, detail: String) -> Self {
        let record = batch.get(place);
        let value = record.value.unwrap_or_default();
        let schema_id = wire::unframe(value).ok().map(|(id, _)| id);
        let raw = value.to_vec();
        Self {
            partition: batch.partition.clone(),
            offset: record.offset,
            reason,
            detail,
            column: None,
            schema_id,
            raw,
        }
    }

    /// For a record whose document the target rejects.
    pub fn rejected(batch: &Batch, place: usize, document: &Document, reason: &str) -> Self {
        let source = String::from_utf8_lossy(&document.source);
        let mut end = source.len().min(SHOWN_DOCUMENT_BYTES);
        while !source.is_char_boundary(end) {
            end -= 1;
        }
        let (index, id, version) = (&document.index, &document.id, document.version);
        let detail = format!(
            "{reason}; document {id} of index {index}, version {version}: {}",
            &source[..end]
        );
        Self::of(batch, place, "rejected", detail)
    }

    /// The same, with the field at fault.
    pub fn at(mut self, column: String) -> Self {
        self.column = Some(column).filter(|column| !column.is_empty());
        self
    }
}

/// Writes dead letters, making the topics for them.
pub(super) struct DeadLetters {
    log: Arc<dyn Log>,
    options: ProducerOptions,
    durability: Durability,
    writer: DeadLetterWriter,
    producer: Option<Box<dyn Producer>>,
}

impl DeadLetters {
    pub fn new(options: &Options) -> Self {
        let writer = DeadLetterWriter::new(
            STAGE,
            Arc::clone(&options.registry),
            options.edge_metrics.clone(),
        );
        Self {
            log: Arc::clone(&options.log),
            options: options.producer.clone(),
            durability: options.durability,
            writer,
            producer: None,
        }
    }

    /// Makes a topic's dead letter topic if it is not there.
    pub fn prepare(&self, topic: &str) -> Result<(), LogError> {
        let wanted = dlq_wanted(topic).durable(self.durability);
        let name = &wanted.spec.name;
        if self.log.topic(name)?.is_none() {
            self.log.create_topic(&wanted.spec)?;
            tracing::info!(topic = name, "made the topic for dead letters");
        }
        Ok(())
    }

    /// Writes letters, and waits until the log has them all. After a failure all are to be written again: a reader
    /// tells copies by their origin.
    pub fn write(&mut self, letters: &[Letter]) -> Result<(), DeadLetterError> {
        let written = self.try_write(letters);
        if written.is_err() {
            // what it still holds is written again by the next one
            self.producer = None;
        }
        written
    }

    fn try_write(&mut self, letters: &[Letter]) -> Result<(), DeadLetterError> {
        let producer = match &mut self.producer {
            Some(producer) => producer,
            none => none.insert(self.log.producer(&self.options)?),
        };
        for letter in letters {
            let topic = &*letter.partition.topic;
            let refused = Refused {
                reason: letter.reason,
                detail: letter.detail.clone(),
                origin: Origin::Record {
                    topic,
                    partition: letter.partition.partition,
                    offset: letter.offset,
                },
                column: letter.column.as_deref(),
                schema_id: letter.schema_id,
                raw: &letter.raw,
            };
            self.writer.send(producer.as_mut(), topic, &refused)?;
        }
        producer.flush()?;
        Ok(())
    }
}
