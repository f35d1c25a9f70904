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

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::sql::Script;
use runtime::log::{
    Committed, ConsumerOptions, Event, Log, LogError, Offset, OffsetCommit, TopicPartition,
};
use serde::Serialize;

use crate::format::NEWEST;
use crate::offsets::{
    self, Gap, MAX_GAPS, MAX_RANGE_GAPS, MetadataError, RangeGap, ShardState, SourceState,
};
use crate::partial::{self, PartialError};
use crate::record::{self, RecordError};
use crate::topics;

/// For how long a partials partition may stay silent before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);
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

/// The last range of a source partition, as the partials have it.
#[derive(Clone, Copy)]
struct LastRange {
    end: Offset,
    watermark: Option<i64>,
}

fn source_finding(
    partition: &TopicPartition,
    committed: &Committed,
    (start, end): (Offset, Offset),
    last: Option<LastRange>,
    (out_of_orderness_ms, format): (i64, u32),
) -> Result<Option<Finding>, GapError> {
    let finding = |what: String, way: Way| {
        Ok(Some(Finding {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            what,
            way,
        }))
    };
    let anew = "run the job under a new application id, or begin anew (`processor reset`)";
    match offsets::decode::<SourceState>(&committed.metadata) {
        Ok(_) if committed.offset > end => finding(
            format!(
                "it ends at {end}, before the committed offset {}: it lost records, or was deleted and created again",
                committed.offset
            ),
            Way::Not {
                instead: format!(
                    "what it has from now on would be taken for what was read already: {anew}"
                ),
            },
        ),
        Ok(mut state) if committed.offset < start => {
            let gap = Gap {
                from: committed.offset,
                to: start,
            };
            state.range_from = state.range_from.or(Some(committed.offset));
            let loses = format!("the rows from offset {} to {start}", committed.offset);
            let way = at(partition, start, (state, format), gap, loses)?;
            finding(
                format!(
                    "records from the committed offset {} to {start} are gone, and were not read",
                    committed.offset
                ),
                way,
            )
        }
        Ok(_) => Ok(None),
        Err(error) => {
            let what = format!("its committed offset {}: {error}", committed.offset);
            let Some(last) = last else {
                return finding(
                    what,
                    Way::Not {
                        instead: format!("how far it was read stands nowhere else: {anew}"),
                    },
                );
            };
            // Backwards, ranges would overlap: what was read is not read again.
            let offset = committed.offset.max(last.end).max(start);
            let state = SourceState {
                max_event_ms: last
                    .watermark
                    .map(|at| at.saturating_add(out_of_orderness_ms)),
                range_from: (offset > last.end).then_some(last.end),
                ..SourceState::default()
            };
            let loses = match offset > last.end {
                true => format!(
                    "the rows from offset {} to {offset}; and what was counted below",
                    last.end
                ),
                false => "what was counted below; no row".to_owned(),
            };
            let gap = Gap {
                from: 0,
                to: offset,
            };
            let way = at(partition, offset, (state, format), gap, loses)?;
            finding(what, way)
        }
    }
}

fn at(
    partition: &TopicPartition,
    offset: Offset,
    (mut state, format): (SourceState, u32),
    gap: Gap,
    loses: String,
) -> Result<Way, GapError> {
    if state.gaps.len() >= MAX_GAPS {
        return Err(GapError::Many {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            most: MAX_GAPS,
        });
    }
    state.gaps.push(gap);
    Ok(Way::At {
        offset,
        loses,
        metadata: offsets::encode(&state, format)?,
    })
}

fn shard_finding(
    log: &dyn Log,
    application_id: &str,
    partition: &TopicPartition,
    committed: Option<Committed>,
    format: u32,
) -> Result<Option<Finding>, GapError> {
    let finding = |what: String, way: Way| {
        Some(Finding {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            what,
            way,
        })
    };
    let (offset, mut state) = match &committed {
        None => (0, ShardState::default()),
        Some(committed) => match offsets::decode::<ShardState>(&committed.metadata) {
            Ok(state) => (committed.offset, state),
            Err(error) => {
                let instead = "which results are out stands nowhere else: run the job under a new application id, or begin anew (`processor reset`)";
                let what = format!("its committed offset {}: {error}", committed.offset);
                return Ok(finding(
                    what,
                    Way::Not {
                        instead: instead.into(),
                    },
                ));
            }
        },
    };
    let mut gaps = Vec::new();
    let mut ends: BTreeMap<i32, Offset> = BTreeMap::new();
    each_header(log, application_id, partition, &mut |header| {
        let expected = ends.get(&header.partition).copied();
        if let Some(from) = expected.filter(|from| header.start > *from) {
            gaps.push(RangeGap {
                partition: header.partition,
                from,
                to: header.start,
            });
        }
        // What was taken before does not go back.
        let end = ends.entry(header.partition).or_insert(header.end);
        *end = header.end.max(*end);
    })?;
    gaps.retain(|gap| !state.gaps.contains(gap));
    if gaps.is_empty() {
        return Ok(None);
    }
    let ranges: Vec<String> = gaps
        .iter()
        .map(|gap| {
            format!(
                "{} to {} of source partition {}",
                gap.from, gap.to, gap.partition
            )
        })
        .collect();
    let ranges = ranges.join(", ");
    if state.gaps.len() + gaps.len() > MAX_RANGE_GAPS {
        return Err(GapError::Many {
            topic: partition.topic.to_string(),
            partition: partition.partition,
            most: MAX_RANGE_GAPS,
        });
    }
    state.gaps.extend(gaps);
    Ok(finding(
        format!("its partials lack the ranges {ranges}"),
        Way::At {
            offset,
            loses: format!("this shard's rows from the ranges {ranges}"),
            metadata: offsets::encode(&state, format)?,
        },
    ))
}

/// The last range of each source partition in a shard's partials.
fn last_ranges(
    log: &dyn Log,
    application_id: &str,
    partition: &TopicPartition,
) -> Result<BTreeMap<i32, LastRange>, GapError> {
    let mut ranges: BTreeMap<i32, LastRange> = BTreeMap::new();
    each_header(log, application_id, partition, &mut |header| {
        let last = LastRange {
            end: header.end,
            watermark: header.watermark,
        };
        let known = ranges.entry(header.partition).or_insert(last);
        if header.end >= known.end {
            *known = last;
        }
    })?;
    Ok(ranges)
}

/// Reads the headers of a partials partition, from its start to where it ends now.
fn each_header(
    log: &dyn Log,
    application_id: &str,
    partition: &TopicPartition,
    take: &mut dyn FnMut(&engine::partial::Header),
) -> Result<(), GapError> {
    let failed = |source| GapError::Log {
        what: partition.to_string(),
        source,
    };
    if log.topic(&partition.topic).map_err(failed)?.is_none() {
        return Ok(());
    }
    let bounds = log.bounds(partition).map_err(failed)?;
    if bounds.start >= bounds.stable {
        return Ok(());
    }
    let mut reader = log
        .consumer(&ConsumerOptions::new(format!("{application_id}-offsets")))
        .map_err(failed)?;
    reader
        .assign(&[(partition.clone(), bounds.start)])
        .map_err(failed)?;
    let mut deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match reader
            .poll(Duration::from_millis(500), 1_000)
            .map_err(failed)?
        {
            Some(Event::Records(batch)) => {
                deadline = Instant::now() + PATIENCE;
                for index in 0..batch.len() {
                    let header = partial::header_of(&batch, index, NEWEST).map_err(|source| {
                        GapError::Partials {
                            partition: partition.clone(),
                            source,
                        }
                    })?;
                    take(&header);
                }
            }
            Some(Event::End { position, .. }) if position >= bounds.stable => return Ok(()),
            _ => {}
        }
    }
    Err(failed(LogError::TimedOut {
        action: "read a topic to its end",
    }))
}
