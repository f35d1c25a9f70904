//! Why an application can't be taken over.

use runtime::log::{LogError, TopicPartition};

use crate::offsets::MetadataError;
use crate::record::RecordError;

/// Why an application can't be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// It is the application itself.
    #[error(
        "application {application_id} can't take over itself: processor.takes_over names another one"
    )]
    Itself {
        /// The application.
        application_id: String,
    },
    /// There is no such application.
    #[error(
        "there is no application {application_id} to be taken over: correct processor.takes_over, or leave it empty to give everything"
    )]
    Unknown {
        /// Its id.
        application_id: String,
    },
    /// It is another one's by now.
    #[error("application {application_id} was handed over to {to}: take over that one instead")]
    HandedToOther {
        /// Its id.
        application_id: String,
        /// Its successor.
        to: String,
    },
    /// No query has a counterpart.
    #[error(
        "no query of this job has the name of one of application {application_id} ({queries}), so that there is nothing to take over: leave processor.takes_over empty"
    )]
    Nothing {
        /// Its id.
        application_id: String,
        /// Its queries.
        queries: String,
    },
    /// A query is not what its counterpart was.
    #[error(
        "query {query} can't take over that of application {application_id}: {detail}; give it another name, so that it begins as a new query"
    )]
    Misfit {
        /// The query.
        query: String,
        /// The application that is taken over.
        application_id: String,
        /// How they differ.
        detail: String,
    },
    /// The results that a query reads would not go on.
    #[error(
        "topic {topic}, which a query of this job reads, must be written by the same queries as in application {application_id}, whose results this job goes on with: {detail}"
    )]
    Chain {
        /// The topic between queries.
        topic: String,
        /// The application that is taken over.
        application_id: String,
        /// How they differ, and what to do.
        detail: String,
    },
    /// A new query would write to what the application reads.
    #[error(
        "query {query} is new, and would write to topic {topic} at once, which application {application_id} reads until it is handed over: let it write to another topic"
    )]
    Beside {
        /// The query.
        query: String,
        /// The topic.
        topic: String,
        /// The application that is taken over.
        application_id: String,
    },
    /// It is not known which topics are written.
    #[error(
        "the record of application {application_id} does not say to which topics its queries write, and so not whose results queries read: finalize its upgrade if there is one (processor upgrade), start it once with this release, and try again"
    )]
    Sinks {
        /// The application.
        application_id: String,
    },
    /// A source is another topic than the one that was read.
    #[error(
        "the topic {topic} was deleted and created again since application {application_id} was handed over: offsets say nothing of it"
    )]
    Source {
        /// The application that is taken over.
        application_id: String,
        /// The topic.
        topic: String,
    },
    /// What it says of a query is missing.
    #[error("application {application_id} was handed over without a word of query {query}")]
    Missing {
        /// The application that is taken over.
        application_id: String,
        /// The query.
        query: String,
    },
    /// Its metadata can't be used.
    #[error("how far application {application_id} is with {partition} can't be read")]
    Metadata {
        /// The application that is taken over.
        application_id: String,
        /// The partition.
        partition: TopicPartition,
        /// Why.
        #[source]
        source: MetadataError,
    },
    /// Its record can't be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The log failed.
    #[error("how far application {application_id} is can't be read")]
    Log {
        /// The application that is taken over.
        application_id: String,
        /// Why.
        #[source]
        source: LogError,
    },
}

impl TakeoverError {
    /// The log's failure, if that is what it is.
    pub fn log(&self) -> Option<&LogError> {
        match self {
            Self::Log { source, .. } | Self::Record(RecordError::Log { source, .. }) => {
                Some(source)
            }
            _ => None,
        }
    }
}
