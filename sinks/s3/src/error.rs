//! Why the sink ends.

use runtime::dead_letter::DeadLetterError;
use runtime::log::{Class, LogError, TopicPartition};
use runtime::topics::Unfit;
use schemas::RegistryError;

use crate::lake::LakeError;
use crate::layout::LayoutError;
use crate::plan::{NoteError, Refused};
use crate::writer::WriteError;

/// Why a run of the sink ended. What was committed stays; a next run goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// A setting makes no sense.
    #[error("the sink can't run as configured: {detail}")]
    Options {
        /// What is wrong, and what to do.
        detail: String,
    },
    /// A partition can't be taken up without losing rows or writing some twice.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A topic's settings would lose rows.
    #[error(transparent)]
    Topic(#[from] Unfit),
    /// The log.
    #[error("the log failed while trying to {action}")]
    Log {
        /// What was being done.
        action: &'static str,
        /// What it says.
        #[source]
        source: LogError,
    },
    /// Another instance has taken this one's place.
    #[error("another sink has taken this one's place, which stops")]
    Fenced {
        /// What the log says.
        #[source]
        source: LogError,
    },
    /// The lake.
    #[error(transparent)]
    Lake(#[from] LakeError),
    /// A topic's schema can't be written.
    #[error("topic {topic} can't be written: {detail}")]
    Schema {
        /// The topic.
        topic: String,
        /// Why, and what to do.
        detail: String,
    },
    /// The layout does not fit a topic.
    #[error("the layout does not fit topic {topic}")]
    Layout {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: LayoutError,
    },
    /// The registry.
    #[error("the schema registry can't be used for topic {topic}")]
    Registry {
        /// The topic.
        topic: String,
        /// What it says.
        #[source]
        source: RegistryError,
    },
    /// Dead letters can't be sent.
    #[error("the dead letters of topic {topic} can't be sent")]
    DeadLetters {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: DeadLetterError,
    },
    /// Files can't be written locally.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A plan does not fit into an offset's metadata.
    #[error("{partition}: a flush can't be planned; partition by fewer columns")]
    Plan {
        /// Which partition.
        partition: TopicPartition,
        /// Why.
        #[source]
        source: NoteError,
    },
    /// It was told to stop, and the lake did not take the last files in time. Their plans stand: the next run finishes them.
    #[error("stopped with flushes half done, which the next run finishes: {partitions}")]
    Unfinished {
        /// Which partitions.
        partitions: String,
    },
    /// A thread of ours panicked: a fault in this program.
    #[error("a file could not be encoded: {detail}")]
    Panicked {
        /// What it said.
        detail: String,
    },
}

/// How a step ends that did not succeed.
#[derive(Debug)]
pub(crate) enum Stop {
    /// Drop everything that is open, leave the group, join it again and begin from what is committed.
    Rejoin(String),
    /// End the run.
    Fail(SinkError),
}

impl From<SinkError> for Stop {
    fn from(error: SinkError) -> Self {
        Self::Fail(error)
    }
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Fail(refused.into())
    }
}

/// A step of the worker.
pub(crate) type Step<T> = Result<T, Stop>;

/// What a failure at the log means here, once it can't be tried again in place.
pub(crate) fn at_log(action: &'static str, source: LogError) -> Stop {
    match source.class() {
        // an outage that outlasts its deadline; or a place in the group that is over, or a commit that nobody knows of
        Class::Retry | Class::Abort | Class::Restart => Stop::Rejoin(format!("{action}: {source}")),
        Class::Fenced => Stop::Fail(SinkError::Fenced { source }),
        Class::Fatal => Stop::Fail(SinkError::Log { action, source }),
    }
}

/// An error with its causes, in one line; what is said already is not said again.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.contains(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
