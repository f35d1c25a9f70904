//! The topics of a job: their names and settings.

use runtime::log::{Log, LogError, TopicDescription, TopicSpec};

use crate::partial::MAX_BYTES;

/// Where a query's partial rows go: `<application id>.<query>.partials`, one partition per shard.
pub fn partials(application_id: &str, query: &str) -> String {
    format!("{application_id}.{query}.partials")
}

/// Where a query's late rows are reported: `<application id>.<query>.late`.
pub fn late(application_id: &str, query: &str) -> String {
    format!("{application_id}.{query}.late")
}

/// The partials topic's settings: nothing is ever deleted from it but what a snapshot covers.
pub fn partials_spec(
    application_id: &str,
    query: &str,
    shards: u32,
    replication: i32,
) -> TopicSpec {
    let mut spec = TopicSpec::new(
        partials(application_id, query),
        i32::try_from(shards).unwrap_or(i32::MAX),
    )
    .with("cleanup.policy", "delete")
    .with("retention.ms", "-1")
    .with("retention.bytes", "-1")
    .with("max.message.bytes", &MAX_BYTES.to_string());
    spec.replication = replication;
    spec
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
    /// The partials topic has another number of partitions than the job has shards.
    #[error(
        "topic {topic} has {partitions} partitions, but the job has {shards} shards, which are fixed when it first runs: set processor.shards to {partitions}, or run the changed job under a new application id"
    )]
    Shards {
        /// Which.
        topic: String,
        /// How many it has.
        partitions: i32,
        /// How many it should have.
        shards: u32,
    },
    /// The partials topic forgets, so that state could not be restored.
    #[error(
        "topic {topic} has {setting} = {value}: partials are the job's state and must be kept; set it to {wanted}"
    )]
    Retention {
        /// Which.
        topic: String,
        /// The setting.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What it must be.
        wanted: &'static str,
    },
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

/// Creates the partials topic, or checks that the one that is there keeps everything and has the job's shards.
pub fn ensure_partials(log: &dyn Log, spec: &TopicSpec, shards: u32) -> Result<(), TopicError> {
    ensure(log, spec)?;
    let found = existing_source(log, &spec.name)?;
    if i64::from(found.partitions) != i64::from(shards) {
        return Err(TopicError::Shards {
            topic: found.name,
            partitions: found.partitions,
            shards,
        });
    }
    for (setting, wanted) in [
        ("cleanup.policy", "delete"),
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
    ] {
        match found.config.get(setting) {
            Some(value) if value != wanted => {
                return Err(TopicError::Retention {
                    topic: found.name,
                    setting,
                    value: value.clone(),
                    wanted,
                });
            }
            _ => {}
        }
    }
    Ok(())
}
