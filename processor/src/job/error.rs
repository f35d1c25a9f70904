//! Why a job can't run.

use engine::sql::JobError;
use schemas::RegistryError;

use crate::record::RecordError;
use crate::takeover::TakeoverError;
use crate::topics::TopicError;

/// Why a job can't run.
#[derive(Debug, thiserror::Error)]
pub enum JobLoadError {
    /// Its text is wrong.
    #[error("the job can't run as it is written:\n{}", list(.0))]
    Sql(Vec<JobError>),
    /// Its topics can't be used.
    #[error(transparent)]
    Topic(#[from] TopicError),
    /// The registry failed.
    #[error("schemas of topic {topic} can't be had")]
    Registry {
        /// Which topic.
        topic: String,
        /// Why.
        #[source]
        source: RegistryError,
    },
    /// There is no schema for a source.
    #[error(
        "the registry has no schema for topic {topic} (subject {topic}-value): run the producer first, or register it"
    )]
    NoSchema {
        /// Which topic.
        topic: String,
    },
    /// A schema can't be used as an Arrow schema, or projected.
    #[error("the schema of topic {topic} can't be used: {detail}")]
    Schema {
        /// Which topic.
        topic: String,
        /// Why.
        detail: String,
    },
    /// What is counted of so many queries has no room beside an offset.
    #[error(
        "{queries} queries read topic {topic}, and at most {most} can in one job: put the others into a second one, with an application id of its own"
    )]
    TooManyQueries {
        /// Which topic.
        topic: String,
        /// How many read it.
        queries: usize,
        /// How many can.
        most: usize,
    },
    /// There is no topic for a reference table.
    #[error(
        "the topic {topic} of the reference table {table} does not exist: create it with `headway setup`, or correct its name"
    )]
    NoTable {
        /// Which table.
        table: String,
        /// Its topic.
        topic: String,
    },
    /// Its application id is another job's.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The application that it is to take over can't be.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// The registered schema of a sink does not fit the query's results.
    #[error(
        "query {query} does not fit the schema registered for its sink topic {topic}: {detail}"
    )]
    Output {
        /// Which query.
        query: String,
        /// Its sink's topic.
        topic: String,
        /// What does not fit.
        detail: String,
    },
}

fn list(errors: &[JobError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}
