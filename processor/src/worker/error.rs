//! Why a worker stops, and what that asks for.

use runtime::dead_letter::DeadLetterError;
use runtime::log::{Class, LogError, TopicPartition};

use schemas::RegistryError;

use crate::offsets::MetadataError;
use crate::partial::PartialError;
use crate::record::RecordError;
use crate::snapshot::SnapshotError;
use crate::takeover::TakeoverError;
use crate::task::merge::MergeError;
use crate::task::scan::ScanError;

/// A worker's failure.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// The log failed.
    #[error("{action}")]
    Log {
        /// What the worker was doing.
        action: &'static str,
        /// Why it failed.
        #[source]
        source: LogError,
    },
    /// The record of the job can't be had, or is of another release.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A source partition can't be scanned.
    #[error("{partition} can't be scanned")]
    Scan {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        #[source]
        source: ScanError,
    },
    /// A shard can't be merged.
    #[error(transparent)]
    Merge(#[from] MergeError),
    /// A partials record can't be written.
    #[error("partial rows can't be written")]
    Partial(#[from] PartialError),
    /// Results can't be encoded.
    #[error("results of query {query} can't be encoded: {detail}")]
    Encode {
        /// The query.
        query: String,
        /// Why.
        detail: String,
    },
    /// A dead letter can't be written.
    #[error(transparent)]
    DeadLetter(#[from] DeadLetterError),
    /// The registry did not give a schema's number.
    #[error("the schema of topic {topic} can't be registered")]
    Registry {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// The metadata of a committed offset can't be used.
    #[error(
        "the committed offset of {partition} has metadata that can't be used; to begin anew, run the job under a new application id"
    )]
    Metadata {
        /// The partition.
        partition: TopicPartition,
        /// Why.
        #[source]
        source: MetadataError,
    },
    /// The application was handed over to another one.
    #[error(
        "the committed offset of {partition} is marked as handed over: another application goes on from there (the topic {record} says which)"
    )]
    HandedOver {
        /// The partition.
        partition: TopicPartition,
        /// Where it stands which.
        record: String,
    },
    /// The application that this one takes over can't be followed.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// Another member came while the application was to be handed over.
    #[error("another member has joined the group: stop it, and run `processor cutover` again")]
    Joined,
    /// What is left of the partials could not be folded.
    #[error(
        "what is left of the partials could not be folded to the end: nothing moves any more, or the command was stopped; run `processor cutover` again"
    )]
    NotFolded,
    /// Partials that the state needs are gone.
    #[error(
        "{partition} begins at offset {start}, but {}: partials that this job's state is made of were deleted; run the job under a new application id",
        match .snapshot {
            Some(offset) => format!("the last snapshot is of offset {offset}"),
            None => "there is no snapshot of the state".to_owned(),
        }
    )]
    PartialsGone {
        /// The partition.
        partition: TopicPartition,
        /// Where it begins.
        start: i64,
        /// Up to which offset the last snapshot holds the state.
        snapshot: Option<i64>,
    },
    /// A snapshot is of more than was committed.
    #[error(
        "the snapshot of {partition} is of offset {snapshot}, but {}: the group's offsets were reset by hand; set them back, or run the job under a new application id",
        match .committed {
            Some(offset) => format!("offset {offset} is committed"),
            None => "no offset is committed".to_owned(),
        }
    )]
    SnapshotAhead {
        /// The partition.
        partition: TopicPartition,
        /// The snapshot's offset.
        snapshot: i64,
        /// What the group has committed.
        committed: Option<i64>,
    },
    /// A shard's state can't be restored.
    #[error(
        "the state of {partition} can't be restored; to begin anew, run the job under a new application id"
    )]
    Snapshot {
        /// The partials partition.
        partition: TopicPartition,
        /// Why.
        #[source]
        source: SnapshotError,
    },
    /// The committed offset lies behind the end: the topic was deleted and created again.
    #[error(
        "{partition} ends at {end}, but offset {committed} was committed: the topic was deleted and created again; run the job under a new application id"
    )]
    BehindEnd {
        /// The partition.
        partition: TopicPartition,
        /// The committed offset.
        committed: i64,
        /// The partition's end.
        end: i64,
    },
}

impl WorkerError {
    /// Whether "fenced" may mean no more than that a transaction was open for too long.
    pub(super) fn may_be_a_timeout(&self) -> bool {
        matches!(
            self,
            Self::Log {
                source: LogError::Fenced { .. },
                ..
            } | Self::DeadLetter(DeadLetterError::Log(LogError::Fenced { .. }))
        )
    }

    /// What this failure asks for.
    pub fn class(&self) -> Class {
        match self {
            Self::Log { source, .. } => source.class(),
            Self::DeadLetter(error) => error.class(),
            Self::Record(error) => error.class(),
            Self::Takeover(error) => error.log().map_or(Class::Fatal, LogError::class),
            Self::Registry {
                source: RegistryError::Unavailable { .. },
                ..
            } => Class::Retry,
            Self::Registry {
                source:
                    RegistryError::Unknown { .. }
                    | RegistryError::Incompatible { .. }
                    | RegistryError::Invalid { .. }
                    | RegistryError::NotAllowed { .. }
                    | RegistryError::Storage { .. },
                ..
            }
            | Self::Scan { .. }
            | Self::Merge(_)
            | Self::Partial(_)
            | Self::Encode { .. }
            | Self::Metadata { .. }
            | Self::HandedOver { .. }
            | Self::Joined
            | Self::NotFolded
            | Self::PartialsGone { .. }
            | Self::SnapshotAhead { .. }
            | Self::Snapshot { .. }
            | Self::BehindEnd { .. } => Class::Fatal,
        }
    }
}

/// Puts what was being done beside a failure of the log.
pub(super) trait Doing<T> {
    fn doing(self, action: &'static str) -> Result<T, WorkerError>;
}

impl<T> Doing<T> for Result<T, LogError> {
    fn doing(self, action: &'static str) -> Result<T, WorkerError> {
        self.map_err(|source| WorkerError::Log { action, source })
    }
}

/// An error and its causes in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(source: LogError) -> WorkerError {
        WorkerError::Log {
            action: "x",
            source,
        }
    }

    fn registry(source: RegistryError) -> WorkerError {
        WorkerError::Registry {
            topic: "t".into(),
            source,
        }
    }

    #[test]
    fn only_what_can_heal_is_tried_again() {
        let text = || "x".to_owned();
        let partition = TopicPartition::new("t", 0);
        let unavailable = || RegistryError::Unavailable {
            address: text(),
            detail: text(),
        };
        let unknown = || RegistryError::Unknown { id: 7 };
        let table = [
            (log(LogError::TimedOut { action: "x" }), Class::Retry),
            (log(LogError::MustAbort { detail: text() }), Class::Abort),
            (
                log(LogError::UnknownOutcome { action: "x" }),
                Class::Restart,
            ),
            (
                log(LogError::Fenced {
                    transactional_id: text(),
                }),
                Class::Fenced,
            ),
            (log(LogError::Closed), Class::Fatal),
            (registry(unavailable()), Class::Retry),
            (registry(unknown()), Class::Fatal),
            (
                WorkerError::DeadLetter(DeadLetterError::Registry(unavailable())),
                Class::Retry,
            ),
            (
                WorkerError::DeadLetter(DeadLetterError::Registry(unknown())),
                Class::Fatal,
            ),
            (
                WorkerError::DeadLetter(DeadLetterError::Log(LogError::MustAbort {
                    detail: text(),
                })),
                Class::Abort,
            ),
            (
                WorkerError::Partial(PartialError::Header(None)),
                Class::Fatal,
            ),
            (
                WorkerError::Encode {
                    query: text(),
                    detail: text(),
                },
                Class::Fatal,
            ),
            (
                WorkerError::Metadata {
                    partition: partition.clone(),
                    source: MetadataError::Missing,
                },
                Class::Fatal,
            ),
            (
                WorkerError::HandedOver {
                    partition: partition.clone(),
                    record: text(),
                },
                Class::Fatal,
            ),
            (
                WorkerError::Takeover(TakeoverError::Unknown {
                    application_id: text(),
                }),
                Class::Fatal,
            ),
            (
                WorkerError::Takeover(TakeoverError::Log {
                    application_id: text(),
                    source: LogError::TimedOut { action: "x" },
                }),
                Class::Retry,
            ),
            (WorkerError::Joined, Class::Fatal),
            (WorkerError::NotFolded, Class::Fatal),
            (
                WorkerError::Record(RecordError::Resetting {
                    application_id: text(),
                }),
                Class::Fatal,
            ),
            (
                WorkerError::Record(RecordError::Log {
                    topic: text(),
                    source: LogError::UnknownOutcome { action: "x" },
                }),
                Class::Restart,
            ),
            (
                WorkerError::PartialsGone {
                    partition: partition.clone(),
                    start: 1,
                    snapshot: None,
                },
                Class::Fatal,
            ),
            (
                WorkerError::SnapshotAhead {
                    partition: partition.clone(),
                    snapshot: 2,
                    committed: Some(1),
                },
                Class::Fatal,
            ),
            (
                WorkerError::Snapshot {
                    partition: partition.clone(),
                    source: SnapshotError::Damaged,
                },
                Class::Fatal,
            ),
            (
                WorkerError::Record(RecordError::None {
                    application_id: text(),
                }),
                Class::Fatal,
            ),
            (
                WorkerError::Record(RecordError::Log {
                    topic: text(),
                    source: LogError::TimedOut { action: "x" },
                }),
                Class::Retry,
            ),
            (
                WorkerError::BehindEnd {
                    partition,
                    committed: 2,
                    end: 1,
                },
                Class::Fatal,
            ),
        ];
        for (error, class) in table {
            assert_eq!(error.class(), class, "{error}");
        }
    }
}
