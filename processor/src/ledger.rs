//! A job's part of the ledger: what its committed offsets say was taken and given, added up.

use runtime::log::{Log, LogError, Offset, TopicPartition};

use crate::offsets::{self, MetadataError, ShardState, SourceState};
use crate::record::{self, RecordError, TakesOver};
use crate::topics;

/// What one query took and gave, up to its committed offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct QueryLedger {
    /// The query's name.
    pub query: String,
    /// Records taken from the source.
    pub rows_in: u64,
    /// Records that could not be decoded.
    pub undecodable: u64,
    /// Rows that the WHERE left out.
    pub filtered: u64,
    /// Rows without a usable event time.
    pub dead: u64,
    /// Rows that are in at least one window.
    pub kept: u64,
    /// Row × window pairs sent on to shards.
    pub assigned: u64,
    /// Row × window pairs merged.
    pub merged: u64,
    /// Row × window pairs that were late.
    pub late: u64,
    /// Windows closed, over all shards.
    pub closed: u64,
    /// Result rows emitted as final.
    pub emitted: u64,
    /// Result rows emitted that may still change.
    pub changes: u64,
    /// Groups held, of a query without windows.
    pub groups: u64,
    /// Whether every shard has seen the end of the input.
    pub ended: bool,
    /// Offsets of the source that are taken, by partition.
    pub source_offsets: Vec<Offset>,
    /// What was given up by hand: rows that lay there are in no count.
    pub gaps: Vec<LedgerGap>,
    /// Row × window pairs merged into windows that an earlier application gave, which this one takes over; of a query
    /// without windows, rows. They are in none of this one's results.
    pub given_before: u64,
    /// Those windows.
    pub windows_before: u64,
    /// What that application gave.
    pub predecessor: Option<LedgerPredecessor>,
    /// To whom this application was handed over: it gives nothing more.
    pub handed_over_to: Option<String>,
}

/// The query of an earlier application that this one takes over.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LedgerPredecessor {
    /// The application.
    pub application_id: String,
    /// Whether it was handed over.
    pub handed_over: bool,
    /// The topic of its results.
    pub sink: Option<String>,
    /// How many final results it wrote, with those of applications before it; `None` if that is not known.
    pub results: Option<u64>,
    /// The same of results that may still change.
    pub changes: Option<u64>,
    /// Whether both put rows into the same windows and groups.
    pub same_groups: bool,
}

/// Something that was given up by hand ([`crate::gaps`]).
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct LedgerGap {
    /// The source topic.
    pub topic: String,
    /// Its partition.
    pub partition: i32,
    /// The shard that lost it; `None`: it was not read, so that it is missing in all.
    pub shard: Option<i32>,
    /// The first offset.
    pub from: Offset,
    /// The first behind.
    pub to: Offset,
}

impl std::fmt::Display for LedgerGap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            topic,
            partition,
            from,
            to,
            ..
        } = self;
        write!(f, "offsets {from} to {to} of {topic}-{partition}")?;
        match self.shard {
            None => write!(f, " were given up"),
            Some(shard) => write!(f, " were given up for shard {shard}"),
        }
    }
}

/// Why a ledger can't be had.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The log failed.
    #[error("the committed offsets of group {group} can't be read")]
    Log {
        /// The group.
        group: String,
        /// Why.
        #[source]
        source: LogError,
    },
    /// The record of the job can't be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A committed offset's metadata can't be used.
    #[error("the metadata of {partition}'s committed offset can't be used")]
    Metadata {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        #[source]
        source: MetadataError,
    },
}

/// The ledger of one query: which reads `source_topic`, and stands at `place` among the job's queries of that source.
pub fn read(
    log: &dyn Log,
    application_id: &str,
    query: &str,
    source_topic: &str,
    place: usize,
) -> Result<QueryLedger, LedgerError> {
    let mut ledger = QueryLedger {
        query: query.into(),
        ..QueryLedger::default()
    };
    for (partition, offset, state) in committed::<SourceState>(log, application_id, source_topic)? {
        ledger.source_offsets.push(offset);
        ledger.gaps.extend(state.gaps.iter().map(|gap| LedgerGap {
            topic: source_topic.into(),
            partition: partition.partition,
            shard: None,
            from: gap.from,
            to: gap.to,
        }));
        ledger.rows_in += state.rows_in;
        ledger.undecodable += state.undecodable;
        ledger.given_before += state.left_out(place);
        if let Some(counts) = state.queries.get(place) {
            ledger.filtered += counts.filtered;
            ledger.dead += counts.dead;
            ledger.kept += counts.kept;
            ledger.assigned += counts.assigned;
        }
    }
    let shards = committed::<ShardState>(
        log,
        application_id,
        &topics::partials(application_id, query),
    )?;
    ledger.ended = !shards.is_empty() && shards.iter().all(|(_, _, state)| state.ended);
    for (partition, _, state) in shards {
        ledger.gaps.extend(state.gaps.iter().map(|gap| LedgerGap {
            topic: source_topic.into(),
            partition: gap.partition,
            shard: Some(partition.partition),
            from: gap.from,
            to: gap.to,
        }));
        let left_out = state.succession.unwrap_or_default();
        ledger.given_before += left_out.pairs;
        ledger.windows_before += left_out.windows;
        ledger.merged += state.merged;
        ledger.late += state.late;
        ledger.closed += state.closed;
        ledger.emitted += state.emitted;
        ledger.changes += state.changes;
        ledger.groups += state.groups;
    }
    if let Some(known) = record::read(log, application_id)? {
        ledger.handed_over_to = known.handed_over.map(|of| of.to);
        ledger.predecessor = known.takes_over.and_then(|of| predecessor(of, query));
    }
    Ok(ledger)
}

fn predecessor(takes_over: TakesOver, query: &str) -> Option<LedgerPredecessor> {
    let taken = takes_over.queries.iter().find(|of| of.query == query)?;
    let handed = takes_over.handed_over.as_ref().and_then(|of| {
        let mut queries = of.queries.iter();
        queries.find(|of| of.query == query)
    });
    Some(LedgerPredecessor {
        handed_over: takes_over.handed_over.is_some(),
        sink: handed.map(|of| of.sink.clone()),
        results: handed.and_then(|of| of.results),
        changes: handed.and_then(|of| of.changes),
        same_groups: taken.same_groups,
        application_id: takes_over.application_id,
    })
}

fn committed<T: serde::de::DeserializeOwned + Default>(
    log: &dyn Log,
    group: &str,
    topic: &str,
) -> Result<Vec<(TopicPartition, Offset, T)>, LedgerError> {
    let failed = |source| LedgerError::Log {
        group: group.into(),
        source,
    };
    let partitions = log
        .topic(topic)
        .map_err(failed)?
        .map_or(0, |found| found.partitions);
    let partitions: Vec<_> = (0..partitions)
        .map(|partition| TopicPartition::new(topic, partition))
        .collect();
    let offsets = log.committed(group, &partitions).map_err(failed)?;
    partitions
        .into_iter()
        .zip(offsets)
        .map(|(partition, committed)| match committed {
            None => Ok((partition, 0, T::default())),
            Some(committed) => match offsets::decode(&committed.metadata) {
                Ok(state) => Ok((partition, committed.offset, state)),
                Err(source) => Err(LedgerError::Metadata { partition, source }),
            },
        })
        .collect()
}
