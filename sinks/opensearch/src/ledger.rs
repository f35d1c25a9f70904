//! What each partition's records became, counted in the metadata of the committed offset: it is always as old as the
//! offset that it stands beside.

use std::collections::BTreeMap;

use runtime::log::{Log, LogError, Offset, TopicPartition};
use serde::{Deserialize, Serialize};

/// The format of [`Ledger`] that this version writes.
const FORMAT: u32 = 1;

/// What became of the records of one partition, from [`Ledger::from`] up to the committed offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// The format's number.
    v: u32,
    /// The topic's id: a topic made anew under an old name has another one.
    pub topic_id: String,
    /// The offset at which the count began: 0 or the log's start, unless the group's offsets were reset by hand.
    pub from: Offset,
    /// How many records became documents.
    pub docs: u64,
    /// How many became dead letters.
    pub dead: u64,
}

/// Metadata of a committed offset that is not ours.
#[derive(Debug, thiserror::Error)]
#[error(
    "the offset that group {group} has committed for {partition} carries {metadata:?}, which is no ledger of this version: another program uses this group, or a newer sink-opensearch did; give this one a group of its own"
)]
pub struct LedgerError {
    /// The group.
    pub group: String,
    /// The partition.
    pub partition: TopicPartition,
    /// What was found.
    pub metadata: String,
}

impl Ledger {
    /// Nothing counted yet.
    pub fn starting_at(topic_id: &str, from: Offset) -> Self {
        Self {
            v: FORMAT,
            topic_id: topic_id.to_owned(),
            from,
            docs: 0,
            dead: 0,
        }
    }

    /// With so many more.
    pub(crate) fn plus(&self, docs: u64, dead: u64) -> Self {
        Self {
            docs: self.docs + docs,
            dead: self.dead + dead,
            ..self.clone()
        }
    }

    /// As it stands in an offset's metadata.
    pub(crate) fn to_metadata(&self) -> String {
        // five scalar fields always have a JSON
        #[allow(clippy::expect_used)]
        serde_json::to_string(self).expect("a ledger has a JSON")
    }

    /// Reads an offset's metadata; `None` when there is none, as after a reset by hand.
    pub(crate) fn from_metadata(
        group: &str,
        partition: &TopicPartition,
        metadata: &str,
    ) -> Result<Option<Self>, LedgerError> {
        if metadata.is_empty() {
            return Ok(None);
        }
        match serde_json::from_str::<Self>(metadata) {
            Ok(ledger) if ledger.v == FORMAT => Ok(Some(ledger)),
            _ => Err(LedgerError {
                group: group.to_owned(),
                partition: partition.clone(),
                metadata: metadata.chars().take(200).collect(),
            }),
        }
    }
}

/// A partition's ledger, and the offset up to which it counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The committed offset.
    pub offset: Offset,
    /// What was counted; `None` when the offset was reset by hand and nothing was committed since.
    pub ledger: Option<Ledger>,
}

/// A failure to read ledgers.
#[derive(Debug, thiserror::Error)]
pub enum ReadLedgerError {
    /// The log failed.
    #[error("the sink's ledger can't be read from the log")]
    Log(#[from] LogError),
    /// The metadata is not ours.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
}

/// The ledgers that a group has committed, of every partition of these topics that has a committed offset.
pub fn read_ledger(
    log: &dyn Log,
    group: &str,
    topics: &[&str],
) -> Result<BTreeMap<TopicPartition, Counted>, ReadLedgerError> {
    let mut ledgers = BTreeMap::new();
    for name in topics {
        let Some(topic) = log.topic(name)? else {
            return Err(LogError::UnknownTopic {
                name: (*name).to_owned(),
            }
            .into());
        };
        let partitions: Vec<_> = (0..topic.partitions)
            .map(|number| TopicPartition::new(*name, number))
            .collect();
        for (partition, committed) in partitions.iter().zip(log.committed(group, &partitions)?) {
            let Some(committed) = committed else { continue };
            let ledger = Ledger::from_metadata(group, partition, &committed.metadata)?;
            ledgers.insert(
                partition.clone(),
                Counted {
                    offset: committed.offset,
                    ledger,
                },
            );
        }
    }
    Ok(ledgers)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn a_ledger_reads_back_and_foreign_metadata_is_refused() {
        let partition = TopicPartition::new("trips", 2);
        let ledger = Ledger {
            docs: 7,
            dead: 1,
            ..Ledger::starting_at("AAAAAAAAAAAAAAAAAAAAAA", 3)
        };
        let read = |metadata: &str| Ledger::from_metadata("g", &partition, metadata);
        assert_eq!(read(&ledger.to_metadata()).unwrap(), Some(ledger));
        assert_eq!(read("").unwrap(), None);
        for foreign in [
            "x",
            "{}",
            r#"{"v":2,"topic_id":"","from":0,"docs":0,"dead":0}"#,
        ] {
            let error = read(foreign).unwrap_err().to_string();
            assert!(error.contains("a group of its own"), "{error}");
        }
    }
}
