//! Dead letters: rows and records that could not be processed, written where they can be found, shown and replayed.
//!
//! ```text
//!   Refused { reason, origin, raw, … } ──Avro, framed──▶ <topic>.dlq, in the caller's transaction, keyed by the origin
//! ```
//!
//! The key is the origin, so that a letter that a crash made us write again can be told from another one.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use schemas::record::{Codec, CodecError, DeadLetter};
use schemas::{Registry, RegistryError, SchemaId, value_subject};

use crate::log::{Class, LogError, NewRecord, Producer};
use crate::metrics::Metrics;
use crate::topics::{Use, Wanted};

/// The topic for what is refused of `topic`.
pub fn dlq_topic(topic: &str) -> String {
    format!("{topic}.dlq")
}

/// The topic for dead letters of `topic`, as it is created: kept for 30 days.
pub fn dlq_wanted(topic: &str) -> Wanted {
    Wanted::new(dlq_topic(topic), 1, Use::Records).with("retention.ms", "2592000000")
}

/// Where something refused comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin<'a> {
    /// A row of a file.
    Row {
        /// The file, as it was given.
        file: &'a str,
        /// The line on which the row begins, from 1.
        line: u64,
    },
    /// A record of the log.
    Record {
        /// Its topic.
        topic: &'a str,
        /// Its partition.
        partition: i32,
        /// Its offset.
        offset: i64,
    },
}

/// As keys have it: `file:line`, or `topic-partition-offset`.
impl fmt::Display for Origin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Row { file, line } => write!(f, "{file}:{line}"),
            Self::Record {
                topic,
                partition,
                offset,
            } => write!(f, "{topic}-{partition}-{offset}"),
        }
    }
}

/// A row or record that could not be processed.
#[derive(Clone, Debug)]
pub struct Refused<'a> {
    /// A short code, the same for all of a kind, such as `bad_date`: a metric's label.
    pub reason: &'static str,
    /// What exactly is wrong, for people.
    pub detail: String,
    /// Where it comes from.
    pub origin: Origin<'a>,
    /// The column or field at fault, where one is.
    pub column: Option<&'a str>,
    /// The writer's schema, where the framing could be read.
    pub schema_id: Option<SchemaId>,
    /// Its own bytes; only the first [`DeadLetter::MAX_RAW_BYTES`] are kept.
    pub raw: &'a [u8],
}

/// Why a dead letter could not be written.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The registry did not give the schema's number.
    #[error("the schema of dead letters can't be registered")]
    Registry(#[from] RegistryError),
    /// The letter can't be encoded: a fault in this program.
    #[error("the dead letter for {origin} can't be encoded")]
    Encoding {
        /// Where what was refused comes from.
        origin: String,
        /// Why.
        #[source]
        source: CodecError,
    },
    /// The log did not take it.
    #[error("the dead letter can't be sent")]
    Log(#[from] LogError),
}

impl DeadLetterError {
    /// What this failure asks of the caller.
    pub fn class(&self) -> Class {
        match self {
            Self::Registry(RegistryError::Unavailable { .. }) => Class::Retry,
            Self::Registry(
                RegistryError::Unknown { .. }
                | RegistryError::Incompatible { .. }
                | RegistryError::Invalid { .. }
                | RegistryError::NotAllowed { .. }
                | RegistryError::Storage { .. },
            )
            | Self::Encoding { .. } => Class::Fatal,
            Self::Log(error) => error.class(),
        }
    }
}

/// Writes the dead letters of one part.
pub struct DeadLetterWriter {
    stage: &'static str,
    registry: Arc<dyn Registry>,
    metrics: Metrics,
    /// By the topic of what was refused: the topic for its dead letters, and how they are encoded.
    topics: BTreeMap<String, (String, Codec<DeadLetter>)>,
}

impl DeadLetterWriter {
    /// For a part, by its name: producer, processor, sink-s3 or sink-opensearch. Nothing is asked of the registry before
    /// the first letter.
    pub fn new(stage: &'static str, registry: Arc<dyn Registry>, metrics: Metrics) -> Self {
        Self {
            stage,
            registry,
            metrics,
            topics: BTreeMap::new(),
        }
    }

    /// Sends a letter to the dead-letter topic of `topic` through the caller's producer, and so in the transaction that
    /// is open there; counts it.
    ///
    /// # Errors
    /// The registry's, at the first letter for a topic; the log's, as [`Producer::send`] has them.
    pub fn send(
        &mut self,
        producer: &mut dyn Producer,
        topic: &str,
        refused: &Refused<'_>,
    ) -> Result<(), DeadLetterError> {
        let origin = refused.origin.to_string();
        let letter = self.letter(refused);
        let (dlq, codec) = self.route(topic)?;
        let value = codec
            .encode(&letter)
            .map_err(|source| DeadLetterError::Encoding {
                origin: origin.clone(),
                source,
            })?;
        producer.send(NewRecord {
            topic: dlq,
            partition: None,
            key: Some(origin.as_bytes()),
            value: Some(&value),
            headers: &[],
            timestamp_ms: None,
        })?;
        self.metrics
            .dead_letters
            .with_label_values(&[self.stage, refused.reason])
            .inc();
        Ok(())
    }

    fn route(&mut self, topic: &str) -> Result<&(String, Codec<DeadLetter>), RegistryError> {
        if !self.topics.contains_key(topic) {
            let dlq = dlq_topic(topic);
            let codec = Codec::new(Arc::clone(&self.registry), &value_subject(&dlq))?;
            self.topics.insert(topic.to_owned(), (dlq, codec));
        }
        Ok(&self.topics[topic])
    }

    fn letter(&self, refused: &Refused<'_>) -> DeadLetter {
        let mut letter = DeadLetter {
            stage: self.stage.to_owned(),
            reason: refused.reason.to_owned(),
            detail: refused.detail.clone(),
            column: refused.column.map(str::to_owned),
            // Avro has no unsigned numbers; those above i32::MAX are negative there.
            schema_id: refused.schema_id.map(u32::cast_signed),
            raw: DeadLetter::cut(refused.raw),
            ..DeadLetter::default()
        };
        if letter.raw.len() < refused.raw.len() {
            letter.detail += &format!(
                " (the first {} of {} bytes are kept)",
                letter.raw.len(),
                refused.raw.len()
            );
        }
        match refused.origin {
            Origin::Row { file, line } => {
                letter.file = Some(file.to_owned());
                letter.line = Some(line.try_into().unwrap_or(i64::MAX));
            }
            Origin::Record {
                topic,
                partition,
                offset,
            } => {
                letter.topic = Some(topic.to_owned());
                letter.partition = Some(partition);
                letter.offset = Some(offset);
            }
        }
        letter
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::time::Duration;

    use schemas::EmbeddedRegistry;

    use super::*;
    use crate::log::embedded::{EmbeddedLog, EmbeddedOptions};
    use crate::log::{ConsumerOptions, Event, Log, ProducerOptions, TopicPartition, TopicSpec};

    /// Every key and letter that a reader of committed transactions sees.
    fn letters(log: &EmbeddedLog, registry: &Arc<dyn Registry>) -> Vec<(String, DeadLetter)> {
        let codec = Codec::<DeadLetter>::new(Arc::clone(registry), "trips.dlq-value").unwrap();
        let mut consumer = log.consumer(&ConsumerOptions::new("reader")).unwrap();
        consumer
            .assign(&[(TopicPartition::new("trips.dlq", 0), 0)])
            .unwrap();
        let mut found = Vec::new();
        loop {
            match consumer.poll(Duration::from_secs(5), 100).unwrap().unwrap() {
                Event::Records(batch) => found.extend(batch.iter().map(|record| {
                    let key = String::from_utf8(record.key.unwrap().to_vec()).unwrap();
                    (key, codec.decode(record.value.unwrap()).unwrap())
                })),
                Event::End { .. } => return found,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn a_letter_is_in_the_callers_transaction_with_its_reason_origin_and_bytes() {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), EmbeddedOptions::default()).unwrap();
        log.create_topic(&TopicSpec::new(dlq_topic("trips"), 1))
            .unwrap();
        let registry: Arc<dyn Registry> = Arc::new(EmbeddedRegistry::in_memory());
        let numbers = prometheus::Registry::new();
        let metrics = Metrics::new(&numbers).unwrap();
        let mut writer = DeadLetterWriter::new("producer", Arc::clone(&registry), metrics.clone());
        let mut producer = log
            .producer(&ProducerOptions::transactional("dead-letters"))
            .unwrap();
        producer.init_transactions().unwrap();

        let row = Refused {
            reason: "bad_date",
            detail: "not a date".into(),
            origin: Origin::Row {
                file: "trips.csv",
                line: 12,
            },
            column: Some("pickup_at"),
            schema_id: None,
            raw: b"1,soon\xff",
        };
        let long = vec![7; DeadLetter::MAX_RAW_BYTES + 1];
        let record = Refused {
            reason: "undecodable",
            detail: "cut short".into(),
            origin: Origin::Record {
                topic: "trips",
                partition: 3,
                offset: 99,
            },
            column: None,
            schema_id: Some(u32::MAX),
            raw: &long,
        };

        producer.begin().unwrap();
        writer.send(producer.as_mut(), "trips", &row).unwrap();
        producer.abort().unwrap();
        assert!(
            letters(&log, &registry).is_empty(),
            "an aborted letter is read"
        );

        producer.begin().unwrap();
        writer.send(producer.as_mut(), "trips", &row).unwrap();
        writer.send(producer.as_mut(), "trips", &record).unwrap();
        producer.commit().unwrap();
        let expected = [
            (
                "trips.csv:12".to_owned(),
                DeadLetter {
                    stage: "producer".into(),
                    reason: "bad_date".into(),
                    detail: "not a date".into(),
                    file: Some("trips.csv".into()),
                    line: Some(12),
                    column: Some("pickup_at".into()),
                    raw: b"1,soon\xff".to_vec(),
                    ..DeadLetter::default()
                },
            ),
            (
                "trips-3-99".to_owned(),
                DeadLetter {
                    stage: "producer".into(),
                    reason: "undecodable".into(),
                    detail: "cut short (the first 65536 of 65537 bytes are kept)".into(),
                    topic: Some("trips".into()),
                    partition: Some(3),
                    offset: Some(99),
                    schema_id: Some(-1),
                    raw: vec![7; DeadLetter::MAX_RAW_BYTES],
                    ..DeadLetter::default()
                },
            ),
        ];
        assert_eq!(letters(&log, &registry), expected);
        let count = |reason| {
            metrics
                .dead_letters
                .with_label_values(&["producer", reason])
                .get()
        };
        assert_eq!((count("bad_date"), count("undecodable")), (2, 1));
    }
}
