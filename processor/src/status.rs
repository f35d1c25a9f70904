//! How far an application is, as the log has it: committed offsets, how far they are behind, and what stands beside them.
//! Of all members together, whether they run or not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use runtime::log::{Class, ConsumerOptions, Event, Log, LogError, Offset, TopicPartition};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::offsets::{self, ShardState, SourceState};
use crate::topics;

/// Up to how many offsets are looked at one by one.
const FEW: Offset = 64;
/// For how long.
const COUNTING: Duration = Duration::from_secs(2);

/// How far an application is.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// The partitions of its source topics.
    pub sources: Vec<SourcePartition>,
    /// The shards of its queries.
    pub shards: Vec<Shard>,
}

/// A partition of a source topic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourcePartition {
    /// The topic.
    pub topic: String,
    /// How far it is read.
    #[serde(flatten)]
    pub place: Place<SourceState>,
}

/// A shard of a query: a partition of its partials topic.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shard {
    /// The query's name.
    pub query: String,
    /// The partials topic.
    pub topic: String,
    /// How far it is folded.
    #[serde(flatten)]
    pub place: Place<ShardState>,
}

/// How far a partition is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Place<T> {
    /// Its number.
    pub partition: i32,
    /// The committed offset; `None` if nothing is committed yet.
    pub committed: Option<Offset>,
    /// The first offset that is still there.
    pub start: Offset,
    /// The offset behind the last one that can be read now.
    pub end: Offset,
    /// How much is left to read: records, if it is little; otherwise offsets, some of which are control records of
    /// transactions.
    pub lag: Offset,
    /// What stands beside the committed offset.
    pub state: Option<T>,
    /// Why the partition could not go on from here, if that can be seen.
    pub problem: Option<String>,
}

/// The log can't be asked.
#[derive(Debug, thiserror::Error)]
#[error("how far {what} is can't be read")]
pub struct StatusError {
    /// Which group or topic.
    pub what: String,
    /// Why.
    #[source]
    pub source: LogError,
}

impl StatusError {
    /// Whether it may go better later.
    pub fn class(&self) -> Class {
        self.source.class()
    }
}

/// How far an application is with its source topics and with its queries that have state.
///
/// # Errors
/// The log can't be asked. A topic that is not there has no partitions.
pub fn read<'a>(
    log: &dyn Log,
    application_id: &str,
    sources: impl IntoIterator<Item = &'a str>,
    queries: impl IntoIterator<Item = &'a str>,
) -> Result<Status, StatusError> {
    let mut status = Status::default();
    for topic in sources {
        for place in places(log, application_id, topic)? {
            status.sources.push(SourcePartition {
                topic: topic.into(),
                place,
            });
        }
    }
    for query in queries {
        let topic = topics::partials(application_id, query);
        for place in places(log, application_id, &topic)? {
            status.shards.push(Shard {
                query: query.into(),
                topic: topic.clone(),
                place,
            });
        }
    }
    count_few(log, application_id, &mut status)?;
    Ok(status)
}

/// Counts the records where little is left: what lies behind the last record is a transaction's end, and no lag.
fn count_few(log: &dyn Log, application_id: &str, status: &mut Status) -> Result<(), StatusError> {
    let sources = status.sources.iter_mut().map(|source| {
        let place = &mut source.place;
        let from = place.committed.unwrap_or(place.start);
        (&source.topic, place.partition, from, &mut place.lag)
    });
    let shards = status.shards.iter_mut().map(|shard| {
        let place = &mut shard.place;
        let from = place.committed.unwrap_or(place.start);
        (&shard.topic, place.partition, from, &mut place.lag)
    });
    let mut few: BTreeMap<TopicPartition, (Offset, &mut Offset)> = sources
        .chain(shards)
        .filter(|(.., lag)| (1..=FEW).contains(*lag))
        .map(|(topic, partition, from, lag)| {
            let partition = TopicPartition::new(topic.as_str(), partition);
            (partition, (from, lag))
        })
        .collect();
    if few.is_empty() {
        return Ok(());
    }
    let failed = |source| StatusError {
        what: application_id.into(),
        source,
    };
    // A reader of no group: its name is for its requests.
    let mut reader = log
        .consumer(&ConsumerOptions::new(format!("{application_id}-status")))
        .map_err(failed)?;
    let starts: Vec<_> = few
        .iter()
        .map(|(partition, (from, _))| (partition.clone(), *from))
        .collect();
    reader.assign(&starts).map_err(failed)?;
    let mut counts: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    let deadline = Instant::now() + COUNTING;
    while !few.is_empty() && Instant::now() < deadline {
        match reader.poll(COUNTING / 4, 1_000) {
            Ok(Some(Event::Records(batch))) => {
                let count = counts.entry(batch.partition.clone()).or_default();
                *count += Offset::try_from(batch.len()).unwrap_or(Offset::MAX);
            }
            Ok(Some(Event::End { partition, .. })) => {
                if let Some((_, lag)) = few.remove(&partition) {
                    *lag = counts.remove(&partition).unwrap_or(0);
                }
            }
            Ok(_) => {}
            // What is not counted stays as offsets: records that are gone are named already.
            Err(_) => break,
        }
    }
    Ok(())
}

fn places<T: DeserializeOwned>(
    log: &dyn Log,
    group: &str,
    topic: &str,
) -> Result<Vec<Place<T>>, StatusError> {
    let failed = |source| StatusError {
        what: format!("{group} with topic {topic}"),
        source,
    };
    let partitions = log
        .topic(topic)
        .map_err(failed)?
        .map_or(0, |found| found.partitions);
    let partitions: Vec<_> = (0..partitions)
        .map(|partition| TopicPartition::new(topic, partition))
        .collect();
    let committed = log.committed(group, &partitions).map_err(failed)?;
    partitions
        .iter()
        .zip(committed)
        .map(|(partition, committed)| {
            let bounds = log.bounds(partition).map_err(failed)?;
            let mut problem = None;
            let mut state = None;
            if let Some(committed) = &committed {
                match offsets::decode::<T>(&committed.metadata) {
                    Ok(found) => state = Some(found),
                    Err(error) => problem = Some(format!("its metadata can't be used: {error}")),
                }
                if committed.offset < bounds.start {
                    problem = Some(format!(
                        "records from {} to {} are gone, and were not read",
                        committed.offset, bounds.start
                    ));
                } else if committed.offset > bounds.end {
                    problem = Some(format!(
                        "the topic ends at {}, before what is committed: it lost records, or was created again",
                        bounds.end
                    ));
                }
            }
            let committed = committed.map(|committed| committed.offset);
            Ok(Place {
                partition: partition.partition,
                committed,
                start: bounds.start,
                end: bounds.stable,
                lag: (bounds.stable - committed.unwrap_or(bounds.start)).max(0),
                state,
                problem,
            })
        })
        .collect()
}
