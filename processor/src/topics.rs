//! The topics of a job: their names and settings.

use runtime::log::{Log, LogError, TopicDescription, TopicSpec};
use runtime::topics::{self, Durability, Unfit, Use, Wanted};

use crate::partial::MAX_BYTES;

/// Where a query's partial rows go: `<application id>.<query>.partials`, one partition per shard.
pub fn partials(application_id: &str, query: &str) -> String {
    format!("{application_id}.{query}.partials")
}

/// Where a query's late rows are reported: `<application id>.<query>.late`.
pub fn late(application_id: &str, query: &str) -> String {
    format!("{application_id}.{query}.late")
}

/// Where a query's state is written down: `<application id>.<query>.state`, one partition per shard.
pub fn state(application_id: &str, query: &str) -> String {
    format!("{application_id}.{query}.state")
}

/// Where it stands what an application's state depends on: `<application id>.job`.
pub fn job(application_id: &str) -> String {
    format!("{application_id}.job")
}

/// The same, as it is created.
pub fn job_wanted(application_id: &str) -> Wanted {
    Wanted::new(job(application_id), 1, Use::Latest).fixed()
}

/// A query's own topics, as they are created.
#[derive(Clone, Debug)]
pub struct QueryTopics {
    /// Its partial rows: nothing is ever deleted from it but what a snapshot covers.
    pub partials: Wanted,
    /// Snapshots of its state: compacted.
    pub state: Wanted,
    /// Reports of its late rows.
    pub late: Wanted,
    /// Its results.
    pub output: Wanted,
}

impl QueryTopics {
    /// Of a query whose results go to `output`, with as many partitions as its source has.
    pub fn new(
        application_id: &str,
        query: &str,
        output: &str,
        shards: u32,
        source_partitions: i32,
    ) -> Self {
        let shards = i32::try_from(shards).unwrap_or(i32::MAX);
        Self {
            partials: Wanted::new(partials(application_id, query), shards, Use::State)
                .with("max.message.bytes", &MAX_BYTES.to_string())
                .fixed(),
            state: Wanted::new(state(application_id, query), shards, Use::Latest)
                .with("max.message.bytes", &MAX_BYTES.to_string())
                .fixed(),
            late: Wanted::new(late(application_id, query), 1, Use::Records),
            output: Wanted::new(output, source_partitions, Use::Any),
        }
    }
}

/// Why a job's topics can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TopicError {
    /// The log refused.
    #[error("topic {topic} can't be looked at or created")]
    Log {
        /// Which.
        topic: String,
        /// Why.
        #[source]
        source: LogError,
    },
    /// There is no source topic.
    #[error(
        "the source topic {topic} does not exist: run the producer first, or create it with `headway setup`"
    )]
    NoSource {
        /// Which.
        topic: String,
    },
    /// The partials topic, or that of the state, has another number of partitions than the job has shards.
    #[error(
        "topic {topic} has {partitions} partitions, but the job has {shards} shards, which are fixed when it first runs: set processor.shards to {partitions}, or run the changed job under a new application id"
    )]
    Shards {
        /// Which.
        topic: String,
        /// How many it has.
        partitions: i32,
        /// How many it should have.
        shards: i32,
    },
    /// A topic's settings would lose data.
    #[error(transparent)]
    Unfit(#[from] Unfit),
}

/// What the log says of a topic that must be there.
pub fn existing_source(log: &dyn Log, topic: &str) -> Result<TopicDescription, TopicError> {
    log.topic(topic)
        .map_err(|source| TopicError::Log {
            topic: topic.into(),
            source,
        })?
        .ok_or_else(|| TopicError::NoSource {
            topic: topic.into(),
        })
}

/// Creates a topic unless it is there.
pub fn ensure(log: &dyn Log, spec: &TopicSpec) -> Result<(), TopicError> {
    log.create_topic(spec)
        .map(|_| ())
        .map_err(|source| TopicError::Log {
            topic: spec.name.clone(),
            source,
        })
}

/// Creates the topic of partials or of state, or checks that the one that is there keeps what it must and has the job's
/// shards.
pub fn ensure_sharded(
    log: &dyn Log,
    wanted: &Wanted,
    durability: Durability,
) -> Result<TopicDescription, TopicError> {
    ensure(log, &wanted.spec)?;
    let found = existing_source(log, &wanted.spec.name)?;
    if found.partitions != wanted.spec.partitions {
        return Err(TopicError::Shards {
            topic: found.name,
            partitions: found.partitions,
            shards: wanted.spec.partitions,
        });
    }
    topics::check(&found, wanted.role, durability)?;
    Ok(found)
}
