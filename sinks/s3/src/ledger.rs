//! What the sink has written, as its committed offsets say.

use std::collections::BTreeMap;

use runtime::log::{Log, LogError, Offset, TopicPartition};

use crate::plan::{Note, NoteError};

/// What was written of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PartitionLedger {
    /// The first offset that was read.
    pub from: Offset,
    /// The first offset that is not written yet.
    pub offset: Offset,
    /// Rows in files, of the offsets between.
    pub rows: u64,
    /// Dead letters, of the offsets between.
    pub dead: u64,
    /// Files, of the offsets between.
    pub files: u64,
    /// Whether a flush is half done, beginning at `offset`.
    pub pending: bool,
}

/// A ledger that can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The log.
    #[error("the committed offsets can't be read")]
    Log(#[from] LogError),
    /// Metadata that is not ours.
    #[error("the committed offset of {partition} can't be read")]
    Note {
        /// Which partition.
        partition: TopicPartition,
        /// Why.
        #[source]
        source: NoteError,
    },
}

/// What the group has written of these topics. Partitions of which nothing is committed are left out.
///
/// # Errors
/// [`LedgerError`]
pub fn read_ledger(
    log: &dyn Log,
    group: &str,
    topics: &[&str],
) -> Result<BTreeMap<TopicPartition, PartitionLedger>, LedgerError> {
    let mut partitions = Vec::new();
    for name in topics {
        let topic = log.topic(name)?.ok_or_else(|| LogError::UnknownTopic {
            name: (*name).into(),
        })?;
        partitions
            .extend((0..topic.partitions).map(|partition| TopicPartition::new(*name, partition)));
    }
    let mut ledger = BTreeMap::new();
    for (partition, committed) in partitions.iter().zip(log.committed(group, &partitions)?) {
        let Some(committed) = committed else { continue };
        let note = Note::parse(&committed.metadata).map_err(|source| LedgerError::Note {
            partition: partition.clone(),
            source,
        })?;
        let totals = note.totals;
        let entry = PartitionLedger {
            from: totals.from,
            offset: committed.offset,
            rows: totals.rows,
            dead: totals.dead,
            files: totals.files,
            pending: note.plan.is_some(),
        };
        ledger.insert(partition.clone(), entry);
    }
    Ok(ledger)
}
