//! How far an application is behind the one that it takes over, as the log has it.

use runtime::log::{Log, Offset, TopicPartition};
use serde::Serialize;

use crate::record::{Kind, TakesOver};
use crate::status::{self, StatusError};

/// How far an application is behind the one that it takes over.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Behind {
    /// The application that is taken over.
    pub takes_over: String,
    /// Whether it was handed over.
    pub handed_over: bool,
    /// How many offsets of the sources that one has read and this one has not, over the queries that are taken over.
    pub offsets: Offset,
    /// How much of what that one has read this one has, in percent.
    pub percent: f64,
    /// The shards of these queries that are not as far as they can go before the other one is handed over.
    pub shards: Vec<ShardBehind>,
}

/// A shard that has partials to fold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShardBehind {
    /// The query.
    pub query: String,
    /// The shard.
    pub shard: i32,
    /// How many partials, about.
    pub lag: Offset,
}

impl Behind {
    /// Whether there is nothing to catch up with.
    pub fn caught_up(&self) -> bool {
        self.offsets == 0 && self.shards.is_empty()
    }
}

/// How far `successor` is behind the application that it takes over.
///
/// # Errors
/// The log failed.
pub fn behind(
    log: &dyn Log,
    successor: &str,
    takes_over: &TakesOver,
) -> Result<Behind, StatusError> {
    let of = takes_over.application_id.as_str();
    let mut topics: Vec<&str> = takes_over.queries.iter().map(|of| &*of.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    let (mut offsets, mut read, mut all) = (0, 0, 0);
    for topic in topics {
        let failed = |source| StatusError {
            what: format!("{of} with topic {topic}"),
            source,
        };
        let partitions = log.topic(topic).map_err(failed)?;
        let partitions = partitions.map_or(0, |found| found.partitions);
        let partitions: Vec<_> = (0..partitions)
            .map(|partition| TopicPartition::new(topic, partition))
            .collect();
        let theirs = log.committed(of, &partitions).map_err(failed)?;
        let ours = log.committed(successor, &partitions).map_err(failed)?;
        for (theirs, ours) in theirs.iter().zip(&ours) {
            let theirs = theirs.as_ref().map_or(0, |at| at.offset);
            let ours = ours.as_ref().map_or(0, |at| at.offset).min(theirs);
            offsets += theirs - ours;
            read += ours;
            all += theirs;
        }
    }
    let queries = takes_over.queries.iter();
    let folded = queries
        .filter(|of| of.kind != Kind::Rows)
        .map(|of| &*of.query);
    let status = status::read(log, successor, [], folded)?;
    let shards = status.shards.into_iter().filter_map(|shard| {
        let succession = shard
            .place
            .state
            .as_ref()
            .and_then(|state| state.succession);
        let waits = succession.is_some_and(|succession| succession.waits);
        let unread = shard.place.committed.is_none() || shard.place.lag > 0;
        (unread && !waits).then_some(ShardBehind {
            query: shard.query,
            shard: shard.place.partition,
            lag: shard.place.lag,
        })
    });
    Ok(Behind {
        takes_over: of.into(),
        handed_over: takes_over.handed_over.is_some(),
        offsets,
        percent: match all {
            0 => 100.0,
            all => 100.0 * read as f64 / all as f64,
        },
        shards: shards.collect(),
    })
}
