//! Why a job can't go on under its application id, or its record can't be had.

use runtime::log::{Class, LogError};

use crate::format::FormatError;
use crate::partial::PartialError;

/// Why a job can't go on under its application id, or the record can't be had.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// It is not the job that the state is of.
    #[error(
        "application {application_id} can't go on with this job, which is not the one that its state is of:\n{}\nPut back what was changed; or run the changed job under a new application id; or begin anew, without what there is (`processor reset`)",
        listed(.differences)
    )]
    Changed {
        /// The application.
        application_id: String,
        /// What differs, a sentence for each.
        differences: Vec<String>,
    },
    /// A reset has begun.
    #[error(
        "application {application_id} is being reset, and has only a part of its topics: run `processor reset` to its end"
    )]
    Resetting {
        /// The application.
        application_id: String,
    },
    /// It was handed over.
    #[error(
        "application {application_id} was handed over to {to}, which goes on with its queries: start that one; or begin this one anew (`processor reset`)"
    )]
    HandedOver {
        /// The application.
        application_id: String,
        /// Its successor.
        to: String,
    },
    /// It takes over another application than it began with, or began without one.
    #[error(
        "application {application_id} can't take over {wanted}: {}. Put processor.takes_over back, or run this job under a new application id",
        match .known {
            Some(known) => format!("it began with {known}"),
            None => "it began without anything to take over".to_owned(),
        }
    )]
    TakesOver {
        /// The application.
        application_id: String,
        /// What it is to take over.
        wanted: String,
        /// What it began with.
        known: Option<String>,
    },
    /// There is state of another job, and nothing says which.
    #[error(
        "application {application_id} can't go on: the partials of query {query} were written by a job with another fingerprint, and {topic} does not say which; run this job under a new application id, or begin anew (`processor reset`)"
    )]
    Unknown {
        /// The application.
        application_id: String,
        /// The query.
        query: String,
        /// The topic of the record.
        topic: String,
    },
    /// The record can't be read.
    #[error("the record in {topic} can't be read: {detail}")]
    Unreadable {
        /// The topic.
        topic: String,
        /// Why.
        detail: String,
    },
    /// It is in a version that is not read.
    #[error("application {application_id} can't be run or looked at by this release")]
    Format {
        /// The application.
        application_id: String,
        /// Why.
        #[source]
        source: FormatError,
    },
    /// There is no record.
    #[error("no job has run under the application id {application_id}")]
    None {
        /// The application.
        application_id: String,
    },
    /// The members of its group can't be had.
    #[error("the members of group {application_id} can't be looked at")]
    Members {
        /// The application.
        application_id: String,
        /// Why.
        #[source]
        source: LogError,
    },
    /// A partials record can't be read.
    #[error("the first record of {topic} can't be read")]
    Partials {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: PartialError,
    },
    /// The log failed.
    #[error("the record of the job in {topic} can't be read or written")]
    Log {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: LogError,
    },
}

impl RecordError {
    /// What this failure asks for.
    pub fn class(&self) -> Class {
        match self {
            Self::Log { source, .. } | Self::Members { source, .. } => source.class(),
            Self::Changed { .. }
            | Self::HandedOver { .. }
            | Self::TakesOver { .. }
            | Self::Resetting { .. }
            | Self::Unknown { .. }
            | Self::Unreadable { .. }
            | Self::Format { .. }
            | Self::None { .. }
            | Self::Partials { .. } => Class::Fatal,
        }
    }
}

fn listed(differences: &[String]) -> String {
    let lines: Vec<_> = differences
        .iter()
        .map(|difference| format!("  - {difference}"))
        .collect();
    lines.join("\n")
}
