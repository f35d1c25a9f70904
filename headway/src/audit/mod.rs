//! The audit: adds up what every part counted in its own transactions, and checks that no row is missing or twice.
//!
//! ```text
//!   rows read = delivered + rejected                                   producer
//!   delivered = in + waiting                                           processor, per query
//!   in = assigned + filtered + dead                                    processor, scan
//!   assigned = merged + late + in flight                               processor, merge
//!   emitted = documents + dead + waiting                               sink-opensearch
//!   delivered = rows in Parquet files + dead + waiting                 sink-s3
//! ```
//!
//! What is still waiting is counted by reading the log itself, from each part's committed offset to the end.

mod command;
mod lake;
mod print;
mod tail;

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use runtime::log::{Log, LogError, TopicPartition};
use schemas::Registry;
use serde::Serialize;
use sink_opensearch::Target;

pub use command::{AuditArgs, exit, report, run};
pub use print::{print, thousands};

/// What is audited.
pub struct Subject {
    /// The log.
    pub log: Arc<dyn Log>,
    /// The registry.
    pub registry: Arc<dyn Registry>,
    /// The topic of the input rows.
    pub topic: String,
    /// The processor's application id.
    pub application_id: String,
    /// The queries, with the topics of their results: each the only one of its source, in the job's order.
    pub queries: Vec<(String, String)>,
    /// The group of sink-s3, and the lake that it writes: the store, and the folder in it.
    pub lake: Option<(String, Arc<dyn ObjectStore>, Path)>,
    /// The group of sink-opensearch, and where it stores documents.
    pub documents: Option<(String, Arc<dyn Target>)>,
}

/// The whole ledger.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Ledger {
    /// Whether every check holds.
    pub balanced: bool,
    /// The producer's part, over all input sets.
    pub producer: ProducerLedger,
    /// The processor's part, by query.
    pub queries: Vec<QueryLedger>,
    /// The lake's part.
    pub lake: Option<LakeLedger>,
    /// The documents' part.
    pub documents: Option<DocumentsLedger>,
    /// The equations.
    pub checks: Vec<Check>,
}

/// What the producer took and gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ProducerLedger {
    /// Rows read.
    pub read: u64,
    /// Rows that became dead letters.
    pub rejected: u64,
    /// Rows on the topic.
    pub delivered: u64,
    /// Whether every file was read to its end.
    pub finished: bool,
}

/// What one query took and gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct QueryLedger {
    /// The processor's own counts.
    #[serde(flatten)]
    pub counts: processor::ledger::QueryLedger,
    /// Records on the topic that it has not taken yet.
    pub waiting: u64,
    /// Row × window pairs in partials that its shards have not taken yet, read from the log.
    pub in_flight: u64,
}

/// What sink-s3 took and gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LakeLedger {
    /// Rows written, as its committed offsets say.
    pub rows: u64,
    /// Dead letters.
    pub dead: u64,
    /// Files written, as its committed offsets say.
    pub files: u64,
    /// Rows in the lake's files, by their footers.
    pub rows_in_files: u64,
    /// Files in the lake.
    pub files_found: u64,
    /// Records on the topic that it has not taken yet.
    pub waiting: u64,
}

/// What sink-opensearch took and gave.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct DocumentsLedger {
    /// Records taken.
    pub taken: u64,
    /// Dead letters.
    pub dead: u64,
    /// Documents in the index.
    pub documents: u64,
    /// Records on the topic that it has not taken yet.
    pub waiting: u64,
}

/// One equation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Check {
    /// In words.
    pub says: String,
    /// Its left side.
    pub left: u64,
    /// Its right side.
    pub right: u64,
    /// Whether they are equal.
    pub holds: bool,
}

/// Why an audit can't be made.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log failed.
    #[error("the log can't be read for the audit")]
    Log(#[from] LogError),
    /// The positions can't be read.
    #[error("the producer's positions can't be read: {detail}")]
    Positions {
        /// Why.
        detail: String,
    },
    /// The processor's ledger can't be read.
    #[error(transparent)]
    Processor(#[from] processor::ledger::LedgerError),
    /// A partials record can't be read.
    #[error("the partials that are in flight can't be read")]
    Partials(#[from] processor::partial::PartialError),
    /// sink-s3's ledger can't be read.
    #[error(transparent)]
    SinkS3(#[from] sink_s3::LedgerError),
    /// The lake's files can't be read.
    #[error("the lake can't be read: {detail}")]
    Lake {
        /// Which file, and why.
        detail: String,
    },
    /// The documents' ledger or the documents can't be read.
    #[error("the documents can't be counted: {detail}")]
    Documents {
        /// Why.
        detail: String,
    },
}

/// Makes the audit. Parts that still run go on counting: what is in motion between two reads may then not balance.
pub fn audit(subject: &Subject) -> Result<Ledger, AuditError> {
    let log = subject.log.as_ref();
    let mut ledger = Ledger {
        producer: producer_part(subject)?,
        ..Ledger::default()
    };
    let ProducerLedger {
        read,
        rejected,
        delivered,
        ..
    } = ledger.producer;
    check(
        &mut ledger,
        "rows read = delivered + rejected",
        read,
        delivered + rejected,
    );

    for (place, (query, sink_topic)) in subject.queries.iter().enumerate() {
        let counts =
            processor::ledger::read(log, &subject.application_id, query, &subject.topic, place)?;
        let source = partitions(log, &subject.topic)?;
        let starts = source.iter().zip(
            counts
                .source_offsets
                .iter()
                .copied()
                .chain(std::iter::repeat(0)),
        );
        let waiting = tail::records(
            log,
            starts.map(|(partition, offset)| (partition.clone(), offset)),
        )?;
        let in_flight = tail::partial_rows(log, &subject.application_id, query)?;
        let lost = counts.filtered + counts.dead + counts.undecodable;
        check(
            &mut ledger,
            &format!("{query}: delivered = taken + waiting"),
            delivered,
            counts.rows_in + waiting,
        );
        check(
            &mut ledger,
            &format!("{query}: taken = assigned + filtered + dead"),
            counts.rows_in,
            counts.assigned + lost,
        );
        check(
            &mut ledger,
            &format!("{query}: assigned = merged + late + in flight"),
            counts.assigned,
            counts.merged + counts.late + in_flight,
        );
        if let Some((group, target)) = &subject.documents {
            let part = documents_part(log, group, target.as_ref(), sink_topic)?;
            check(
                &mut ledger,
                &format!("{query}: emitted = documents + dead + waiting"),
                counts.emitted,
                part.documents + part.dead + part.waiting,
            );
            ledger.documents = Some(part);
        }
        ledger.queries.push(QueryLedger {
            counts,
            waiting,
            in_flight,
        });
    }

    if let Some((group, store, prefix)) = &subject.lake {
        let part = lake_part(log, group, (store, prefix), &subject.topic)?;
        check(
            &mut ledger,
            "delivered = rows in Parquet files + dead + waiting",
            delivered,
            part.rows_in_files + part.dead + part.waiting,
        );
        ledger.lake = Some(part);
    }
    ledger.balanced = ledger.checks.iter().all(|check| check.holds);
    Ok(ledger)
}

fn check(ledger: &mut Ledger, says: &str, left: u64, right: u64) {
    ledger.checks.push(Check {
        says: says.into(),
        left,
        right,
        holds: left == right,
    });
}

fn producer_part(subject: &Subject) -> Result<ProducerLedger, AuditError> {
    let positions = tail::positions(subject.log.as_ref(), &subject.registry)?;
    let mut part = ProducerLedger {
        finished: true,
        ..ProducerLedger::default()
    };
    for position in positions
        .values()
        .filter(|position| position.topic == subject.topic)
    {
        let count = |value: i64| u64::try_from(value).unwrap_or(0);
        part.read += count(position.rows_read);
        part.rejected += count(position.rows_rejected);
        part.delivered += count(position.rows_delivered);
        part.finished &= position.finished;
    }
    Ok(part)
}

fn lake_part(
    log: &dyn Log,
    group: &str,
    lake: (&Arc<dyn ObjectStore>, &Path),
    topic: &str,
) -> Result<LakeLedger, AuditError> {
    let written = sink_s3::read_ledger(log, group, &[topic])?;
    let mut part = LakeLedger::default();
    let mut starts = Vec::new();
    for partition in partitions(log, topic)? {
        let of = written.get(&partition).cloned().unwrap_or_default();
        part.rows += of.rows;
        part.dead += of.dead;
        part.files += of.files;
        starts.push((partition, of.offset));
    }
    part.waiting = tail::records(log, starts.into_iter())?;
    (part.files_found, part.rows_in_files) = lake::count(lake.0, lake.1, topic)?;
    Ok(part)
}

fn documents_part(
    log: &dyn Log,
    group: &str,
    target: &dyn Target,
    topic: &str,
) -> Result<DocumentsLedger, AuditError> {
    let failed = |detail: String| AuditError::Documents { detail };
    let taken = sink_opensearch::read_ledger(log, group, &[topic])
        .map_err(|error| failed(error.to_string()))?;
    let mut part = DocumentsLedger::default();
    let mut starts = Vec::new();
    for partition in partitions(log, topic)? {
        let (offset, of) = taken
            .get(&partition)
            .cloned()
            .map_or((0, None), |of| (of.offset, of.ledger));
        if let Some(of) = of {
            part.taken += of.docs + of.dead;
            part.dead += of.dead;
        }
        starts.push((partition, offset));
    }
    part.waiting = tail::records(log, starts.into_iter())?;
    part.documents = target
        .count(&format!("{topic}-*"))
        .map_err(|error| failed(error.to_string()))?;
    Ok(part)
}

fn partitions(log: &dyn Log, topic: &str) -> Result<Vec<TopicPartition>, LogError> {
    let found = log.topic(topic)?;
    Ok((0..found.map_or(0, |found| found.partitions))
        .map(|partition| TopicPartition::new(topic, partition))
        .collect())
}
