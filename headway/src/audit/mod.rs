//! The audit: adds up what every part counted in its own transactions, and checks that no row is missing or twice.
//!
//! ```text
//!   producer         rows read = delivered + rejected
//!
//!   per query        delivered (or the results of the query that it reads) = taken + waiting
//!                    taken = kept + filtered + dead                          rows, at the scan
//!                    assigned = merged + late + in flight                    row × window pairs, at the merge
//!
//!   its documents    results = documents + dead + waiting                    emit = 'final'
//!                    changes + final results = stored + dead + waiting       emit = 'changes'
//!                    final results = final documents                         … of windows, once nothing waits
//!                    groups = documents                                      … without windows, once nothing waits
//!
//!   sink-s3          delivered = rows in Parquet files + dead + waiting
//! ```
//!
//! Where offsets were given up by hand, these become bounds: no more may be missing than lay there.
//!
//! What is still waiting is counted by reading the log itself, from each part's committed offset to the end. What counts
//! alone can't tell is named as unchecked, and no check is printed for it.

mod command;
mod documents;
mod lake;
mod ledger;
mod print;
mod queries;
mod tail;

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use runtime::log::{Log, LogError, TopicPartition};
use schemas::Registry;

pub use command::{AuditArgs, exit, report, run};
pub use documents::Documents;
use ledger::{LakeLedger, ProducerLedger};
pub use ledger::{Ledger, ResultsOf};
pub use print::{print, thousands};
pub use queries::Query;

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
    /// The job's queries, all of them.
    pub queries: Vec<Query>,
    /// The group of sink-s3, and the lake that it writes: the store, and the folder in it.
    pub lake: Option<(String, Arc<dyn ObjectStore>, Path)>,
    /// The documents of sink-opensearch.
    pub documents: Option<Documents>,
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
    /// Partial rows without a column that all have.
    #[error(
        "the partials that are in flight have no column {name} of whole numbers: another program wrote them"
    )]
    PartialColumn {
        /// Which.
        name: String,
    },
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
    ledger.equal(
        "rows read = delivered + rejected",
        read,
        delivered + rejected,
    );
    queries::add(&mut ledger, subject)?;
    if let Some(documents) = &subject.documents {
        documents::add(&mut ledger, subject, documents)?;
    }
    if let Some((group, store, prefix)) = &subject.lake {
        let part = lake_part(subject.log.as_ref(), group, (store, prefix), &subject.topic)?;
        ledger.equal(
            "delivered = rows in Parquet files + dead + waiting",
            delivered,
            part.rows_in_files + part.dead + part.waiting,
        );
        ledger.lake = Some(part);
    }
    ledger.balanced = ledger.checks.iter().all(|check| check.holds);
    Ok(ledger)
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

fn partitions(log: &dyn Log, topic: &str) -> Result<Vec<TopicPartition>, LogError> {
    let found = log.topic(topic)?;
    Ok((0..found.map_or(0, |found| found.partitions))
        .map(|partition| TopicPartition::new(topic, partition))
        .collect())
}
