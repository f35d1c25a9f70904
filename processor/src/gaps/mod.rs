//! What keeps an application from going on where its committed offsets stand, and how it may go on all the same, without
//! what is lost.
//!
//! ```text
//!   source      ──O──────S──▶    records from the committed offset O to the start S are gone    ─▶ go on at S
//!               ──E──────X──▶    reset by hand to X, without metadata; partials end at E        ─▶ go on at X, or at E
//!   partials    [a, b) [c, d)    the range b to c is missing                                    ─▶ the shard goes on at c
//! ```
//!
//! What is given up stands in the metadata of the committed offsets, and so in the ledger: it is never silently missing.
//! The next range of the source covers it, so that the shards' ranges join as ever.

mod findings;
mod ranges;

use std::collections::BTreeMap;
use std::time::Duration;

use engine::sql::Script;
use runtime::log::{
    Committed, ConsumerOptions, Log, LogError, Offset, OffsetCommit, TopicPartition,
};
use serde::Serialize;

use crate::offsets::MetadataError;
use crate::partial::PartialError;
use crate::record::{self, RecordError};
use crate::topics;
use findings::{shard_finding, source_finding};
use ranges::last_ranges;

/// How long the group is waited for.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);

/// Something that keeps a partition from going on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The partition: of a source, or of a query's partials.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// What is wrong.
    pub what: String,
    /// How it can go on.
    pub way: Way,
}

/// How a partition can go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// At this offset, and what it costs.
    At {
        /// The offset to be committed.
        offset: Offset,
        /// What is lost, in a sentence.
        loses: String,
        /// The metadata to be committed.
        #[serde(skip)]
        metadata: String,
    },
    /// It can't, and what can be done instead.
    Not {
        /// In a sentence.
        instead: String,
    },
}

/// Why it can't be found out, or not be accepted.
#[derive(Debug, thiserror::Error)]
pub enum GapError {
    /// The log failed.
    #[error("{what} can't be looked at")]
    Log {
        /// The partition, or the group.
        what: String,
        /// Why.
        #[source]
        source: LogError,
    },
    /// A partials record can't be read.
    #[error("a record of {partition} can't be read")]
    Partials {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        #[source]
        source: PartialError,
    },
    /// The record of the job can't be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Metadata can't be written.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// There are members, which would not take notice.
    #[error("application {application_id} has members: stop them first")]
    Members {
        /// The application.
        application_id: String,
    },
    /// Metadata has no room for more.
    #[error(
        "{topic}-{partition} would have more than {most} gaps; run the job under a new application id, or begin anew (`processor reset`)"
    )]
    Many {
        /// The topic.
        topic: String,
        /// The partition.
        partition: i32,
        /// How many it may have.
        most: usize,
    },
}

/// Everything that keeps the partitions of an application from going on.
///
/// # Errors
/// The log failed, or what stands there can't be read.
pub fn find(
    log: &dyn Log,
    application_id: &str,
    script: &Script,
) -> Result<Vec<Finding>, GapError> {
    let format = record::written(log, application_id)?;
    let mut findings = Vec::new();
    let mut topics_read = BTreeMap::new();
    for insert in &script.inserts {
        if let Some(source) = script.sources.get(&insert.source) {
            let partials = insert.window.is_some();
            let queries: &mut Vec<&str> = topics_read
                .entry(&source.topic)
                .or_insert((source, vec![]))
                .1
                .as_mut();
            if partials {
                queries.push(&insert.sink);
            }
        }
    }
    for (topic, (source, queries)) in &topics_read {
        let ooo = i64::try_from(source.out_of_orderness.as_millis()).unwrap_or(i64::MAX);
        // Every shard of every query has the ranges of all source partitions: one is enough.
        let ranges = match queries.first() {
            Some(query) => {
                let partials = TopicPartition::new(topics::partials(application_id, query), 0);
                last_ranges(log, application_id, &partials)?
            }
            None => BTreeMap::new(),
        };
        for (partition, committed) in committed(log, application_id, topic)? {
            let bounds = bounds(log, &partition)?;
            let last = ranges.get(&partition.partition).copied();
            if let Some(committed) = committed {
                let found = source_finding(&partition, &committed, bounds, last, (ooo, format))?;
                findings.extend(found);
            }
        }
        for query in queries {
            let partials = topics::partials(application_id, query);
            for (partition, committed) in committed(log, application_id, &partials)? {
                findings.extend(shard_finding(
                    log,
                    application_id,
                    &partition,
                    committed,
                    format,
                )?);
            }
        }
    }
    Ok(findings)
}

/// Accepts what can be: commits the offsets at which partitions go on, from outside the group.
///
/// # Errors
/// The application has members, or the log failed.
pub fn accept(log: &dyn Log, application_id: &str, findings: &[Finding]) -> Result<(), GapError> {
    let commits: Vec<OffsetCommit> = findings
        .iter()
        .filter_map(|finding| match &finding.way {
            Way::At {
                offset, metadata, ..
            } => Some(OffsetCommit {
                partition: TopicPartition::new(finding.topic.as_str(), finding.partition),
                offset: *offset,
                metadata: metadata.clone(),
            }),
            Way::Not { .. } => None,
        })
        .collect();
    commit_from_outside(log, application_id, &commits)
}

/// Commits offsets for a group that has no members: the broker refuses them while it has.
pub(crate) fn commit_from_outside(
    log: &dyn Log,
    application_id: &str,
    commits: &[OffsetCommit],
) -> Result<(), GapError> {
    let failed = |source| match source {
        LogError::StaleGeneration { .. } => GapError::Members {
            application_id: application_id.into(),
        },
        source => GapError::Log {
            what: format!("group {application_id}"),
            source,
        },
    };
    let mut outside = log
        .consumer(&ConsumerOptions::new(application_id))
        .map_err(failed)?;
    outside.commit(commits).map_err(failed)?;
    outside.close(LEAVE_DEADLINE).map_err(failed)
}

fn committed(
    log: &dyn Log,
    group: &str,
    topic: &str,
) -> Result<Vec<(TopicPartition, Option<Committed>)>, GapError> {
    let failed = |source| GapError::Log {
        what: format!("group {group} with topic {topic}"),
        source,
    };
    let partitions = log.topic(topic).map_err(failed)?;
    let partitions = partitions.map_or(0, |found| found.partitions);
    let partitions: Vec<_> = (0..partitions)
        .map(|partition| TopicPartition::new(topic, partition))
        .collect();
    let committed = log.committed(group, &partitions).map_err(failed)?;
    Ok(partitions.into_iter().zip(committed).collect())
}

fn bounds(log: &dyn Log, partition: &TopicPartition) -> Result<(Offset, Offset), GapError> {
    let bounds = log.bounds(partition).map_err(|source| GapError::Log {
        what: partition.to_string(),
        source,
    })?;
    Ok((bounds.start, bounds.end))
}
