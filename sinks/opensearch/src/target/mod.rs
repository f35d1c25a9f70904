//! Where documents are stored. A target says for each document what became of it; when and how often to try again is
//! the worker's part.

mod bulk;
mod open;
mod pacing;
mod sqlite;

use std::path::PathBuf;
use std::time::Duration;

pub use bulk::{BulkOptions, BulkTarget, Change, Credentials, Setup};
pub use open::{Access, open_target};
pub use pacing::{Pacing, PacingOptions};
pub use sqlite::{SqliteTarget, StoredDocument};

use crate::document::Document;
use crate::mapping::MappingError;
use crate::settings::TopicSettings;

/// What became of one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is stored.
    Stored,
    /// This version or a higher one was there already: the purpose is reached.
    Conflict,
    /// It can't be stored, now or later.
    Rejected {
        /// Why, as the target says.
        reason: String,
    },
    /// Not now: send this document again, after a pause.
    Retry {
        /// Why, as the target says.
        reason: String,
        /// Whether the target asks for less at once.
        overloaded: bool,
    },
}

/// What a failure of a whole call asks of the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// The same call again, after a growing pause, for hours if need be.
    Wait,
    /// Again after a pause, with less at once.
    Ease,
    /// The documents in smaller bulks; one that fails alone is rejected.
    Split,
    /// Someone must act.
    Stop,
}

/// A call of which no document's outcome is known. All its documents may be sent again: versions make that harmless.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// It can't be reached, did not answer in time, or fails within.
    #[error("{target} can't be reached: {detail}")]
    Unreachable {
        /// Its address or path, without credentials.
        target: String,
        /// What is known.
        detail: String,
    },
    /// It asks for less.
    #[error("{target} has too much to do: {detail}")]
    Overloaded {
        /// Its address.
        target: String,
        /// What it says.
        detail: String,
        /// How long it asks to be left alone.
        after: Option<Duration>,
    },
    /// The request is larger than it takes.
    #[error("{target} takes no request of {bytes} bytes: {detail}")]
    TooLarge {
        /// Its address.
        target: String,
        /// The request's size.
        bytes: usize,
        /// What it says.
        detail: String,
    },
    /// It refuses the request as a whole for what stands in it.
    #[error("{target} refuses the request: {detail}")]
    Malformed {
        /// Its address.
        target: String,
        /// What it says.
        detail: String,
    },
    /// It refuses this client.
    #[error("{target} refuses this client (HTTP {status}: {detail}); {}", advice(*.status))]
    NotAllowed {
        /// Its address.
        target: String,
        /// The HTTP status.
        status: u16,
        /// What it says.
        detail: String,
    },
    /// It is not what it should be, or not set up.
    #[error("{target} can't be used: {detail}")]
    Unusable {
        /// Its address or path.
        target: String,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// No index can be made for the records of a topic.
    #[error("topic {topic} can't have an index")]
    Mapping {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: Box<MappingError>,
    },
    /// The document file can't be used.
    #[error("the document file {path} can't be used: {detail}")]
    Storage {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        detail: String,
    },
}

impl TargetError {
    /// What this failure asks of the worker.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unreachable { .. } => Remedy::Wait,
            Self::Overloaded { .. } => Remedy::Ease,
            Self::TooLarge { .. } | Self::Malformed { .. } => Remedy::Split,
            Self::NotAllowed { .. }
            | Self::Unusable { .. }
            | Self::Mapping { .. }
            | Self::Storage { .. } => Remedy::Stop,
        }
    }
}

/// What to do about a refusal.
fn advice(status: u16) -> &'static str {
    match status {
        401 => {
            "check the user and the password (sink_opensearch.username, sink_opensearch.password)"
        }
        _ => {
            "give the user a role that may read index templates, make the topic's indices, read their mappings and write to them (and, for setup, put index templates)"
        }
    }
}

/// A place for documents. Calls block the calling thread up to a deadline.
pub trait Target: Send + Sync {
    /// Whether it answers at all.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn reach(&self) -> Result<(), TargetError> {
        Ok(())
    }

    /// Whether documents of a topic with this Avro schema can go there; called before the first of them.
    ///
    /// # Errors
    /// When it is not set up for them, or as [`write`](Self::write).
    fn prepare(&self, _settings: &TopicSettings, _schema: &str) -> Result<(), TargetError> {
        Ok(())
    }

    /// Stores documents, each only if no version as high is there; says for each, in order, what became of it.
    ///
    /// # Errors
    /// When nothing is known of the documents. [`TargetError::remedy`] says what to do.
    fn write(&self, documents: &[&Document]) -> Result<Vec<Outcome>, TargetError>;

    /// How many documents there are in the indices whose names match `pattern`, in which `*` stands for any text; with
    /// `only`, those in which the boolean field of this name is true. Everything stored before the call is counted.
    fn count(&self, pattern: &str, only: Option<&str>) -> Result<u64, TargetError>;

    /// Its address or path, without credentials, for people.
    fn name(&self) -> &str;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_a_call_has_its_remedy() {
        let (target, detail) = (String::new, String::new);
        for (error, remedy) in [
            (
                TargetError::Unreachable {
                    target: target(),
                    detail: detail(),
                },
                Remedy::Wait,
            ),
            (
                TargetError::Overloaded {
                    target: target(),
                    detail: detail(),
                    after: None,
                },
                Remedy::Ease,
            ),
            (
                TargetError::TooLarge {
                    target: target(),
                    bytes: 1,
                    detail: detail(),
                },
                Remedy::Split,
            ),
            (
                TargetError::Malformed {
                    target: target(),
                    detail: detail(),
                },
                Remedy::Split,
            ),
            (
                TargetError::NotAllowed {
                    target: target(),
                    status: 401,
                    detail: detail(),
                },
                Remedy::Stop,
            ),
            (
                TargetError::Unusable {
                    target: target(),
                    detail: detail(),
                },
                Remedy::Stop,
            ),
            (
                TargetError::Mapping {
                    topic: target(),
                    source: Box::new(MappingError::Schema { detail: detail() }),
                },
                Remedy::Stop,
            ),
            (
                TargetError::Storage {
                    path: PathBuf::new(),
                    detail: detail(),
                },
                Remedy::Stop,
            ),
        ] {
            assert_eq!(error.remedy(), remedy, "{error}");
        }
    }
}
