//! Begins an application anew under the same id: deletes its topics and offsets, in an order in which nothing can go on with
//! a part of them.
//!
//! ```text
//!   1. the record of the job says that a reset has begun ─▶ whoever starts now is refused
//!   2. partials, state, late rows    3. the group's offsets    4. the record itself ─▶ whoever starts now begins anew
//! ```
//!
//! It can be run again wherever it was interrupted.

use std::collections::BTreeSet;

use runtime::log::{Log, LogError};
use serde::Serialize;

use crate::record::{self, JobRecord, RecordError};
use crate::topics;

/// What a reset does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Reset {
    /// The application.
    pub application_id: String,
    /// The topics that are deleted, in this order.
    pub deletes: Vec<String>,
    /// The topics of results, which are deleted only if that is asked for: what is written anew has lower versions.
    pub results: Vec<String>,
    /// Whether a reset was begun before.
    pub begun: bool,
    /// To whom the application was handed over: begun anew, both give results.
    pub handed_over_to: Option<String>,
    /// The application whose queries it has taken over: begun anew, it begins with what that one gave last if it is still told
    /// to take it over, and gives everything if not.
    pub took_over: Option<String>,
    /// The topics of results among `results` in which that one's results stand as well.
    pub shared: Vec<String>,
    /// The topics of results among `results` that the application writes to which it was handed over.
    pub in_use: Vec<String>,
}

/// Why an application can't begin anew.
#[derive(Debug, thiserror::Error)]
pub enum ResetError {
    /// The log failed.
    #[error("{what} failed; run it again to go on")]
    Log {
        /// What was being done.
        what: String,
        /// Why.
        #[source]
        source: LogError,
    },
    /// Its successor needs it.
    #[error(
        "application {application_id} was handed over to {to}, but {to} has not taken over yet, and needs to know where {application_id} stopped: start {to} first"
    )]
    Needed {
        /// The application.
        application_id: String,
        /// Its successor.
        to: String,
    },
    /// Results of an application that gives nothing more would be deleted.
    #[error(
        "topic {topic} holds the results of application {of} too, which {application_id} took over and which nobody would give again: reset without --results, or delete the topic by hand"
    )]
    Shared {
        /// The application.
        application_id: String,
        /// The topic.
        topic: String,
        /// Whose results.
        of: String,
    },
    /// Its successor writes there.
    #[error(
        "application {to}, to which {application_id} was handed over, goes on in topic {topic}: reset without --results"
    )]
    InUse {
        /// The application.
        application_id: String,
        /// The topic.
        topic: String,
        /// Its successor.
        to: String,
    },
    /// The record of the job can't be read or written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// It is running.
    #[error("application {application_id} has members: {members}. Stop them first")]
    Members {
        /// The application.
        application_id: String,
        /// Who they are.
        members: String,
    },
}

impl Reset {
    /// What is to be done: for the queries on record, and for `queries`, each with the topic of its results.
    ///
    /// # Errors
    /// The application has members, or the log failed.
    pub fn plan<'a>(
        log: &dyn Log,
        application_id: &str,
        queries: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ResetError> {
        none_left(log, application_id)?;
        let mut names = BTreeSet::new();
        let mut results = BTreeSet::new();
        for (query, topic) in queries {
            names.insert(query.to_owned());
            results.insert(topic.to_owned());
        }
        let known = record::read(log, application_id)?;
        let begun = known.as_ref().is_some_and(|known| known.resetting);
        let handed_over = known.as_ref().and_then(|known| known.handed_over.clone());
        let mut in_use = Vec::new();
        if let Some(handed_over) = &handed_over {
            let successor = record::read(log, &handed_over.to)?;
            if !begun {
                has_taken_over(successor.as_ref(), application_id, &handed_over.to)?;
            }
            let queries = successor.into_iter().flat_map(|of| of.queries);
            let sinks = queries.filter_map(|query| query.sink);
            in_use.extend(sinks.filter(|sink| results.contains(sink)));
        }
        let takes_over = known.as_ref().and_then(|known| known.takes_over.clone());
        let took_over = takes_over.filter(|of| of.handed_over.is_some());
        let before = took_over.iter().filter_map(|of| of.handed_over.as_ref());
        let before = before.flat_map(|of| of.queries.iter().map(|query| query.sink.clone()));
        let shared = before.filter(|sink| results.contains(sink)).collect();
        let on_record = known.into_iter().flat_map(|known| known.queries);
        names.extend(on_record.map(|query| query.query));
        let mut deletes = Vec::new();
        for name in &names {
            for topic in [
                topics::partials(application_id, name),
                topics::state(application_id, name),
                topics::late(application_id, name),
            ] {
                let there = log.topic(&topic).map_err(|source| ResetError::Log {
                    what: format!("a look at topic {topic}"),
                    source,
                })?;
                deletes.extend(there.map(|_| topic));
            }
        }
        Ok(Self {
            application_id: application_id.into(),
            deletes,
            results: results.into_iter().collect(),
            begun,
            handed_over_to: handed_over.map(|of| of.to),
            took_over: took_over.map(|of| of.application_id),
            shared,
            in_use,
        })
    }

    /// Does it; the results' topics too, if asked.
    ///
    /// # Errors
    /// Somebody has joined meanwhile, or the log failed: it can be run again.
    pub fn run(&self, log: &dyn Log, with_results: bool) -> Result<(), ResetError> {
        if let (true, Some(topic), Some(of)) = (with_results, self.shared.first(), &self.took_over)
        {
            return Err(ResetError::Shared {
                application_id: self.application_id.clone(),
                topic: topic.clone(),
                of: of.clone(),
            });
        }
        if let (true, Some(topic), Some(to)) =
            (with_results, self.in_use.first(), &self.handed_over_to)
        {
            return Err(ResetError::InUse {
                application_id: self.application_id.clone(),
                topic: topic.clone(),
                to: to.clone(),
            });
        }
        record::begin_reset(log, &self.application_id)?;
        // Whoever started before the record said so is a member by now, or is refused.
        none_left(log, &self.application_id)?;
        let results = self.results.iter().filter(|_| with_results);
        for topic in self.deletes.iter().chain(results) {
            log.delete_topic(topic).map_err(|source| ResetError::Log {
                what: format!("the deletion of topic {topic}"),
                source,
            })?;
        }
        log.delete_group(&self.application_id)
            .map_err(|source| ResetError::Log {
                what: format!("the deletion of group {}", self.application_id),
                source,
            })?;
        let record = topics::job(&self.application_id);
        log.delete_topic(&record).map_err(|source| ResetError::Log {
            what: format!("the deletion of topic {record}"),
            source,
        })
    }
}

/// Fails if the successor of an application has not written down yet where it goes on.
fn has_taken_over(
    successor: Option<&JobRecord>,
    application_id: &str,
    to: &str,
) -> Result<(), ResetError> {
    let takes_over = successor.and_then(|record| record.takes_over.as_ref());
    match takes_over
        .is_some_and(|of| of.application_id == application_id && of.handed_over.is_none())
    {
        false => Ok(()),
        true => Err(ResetError::Needed {
            application_id: application_id.into(),
            to: to.into(),
        }),
    }
}

pub(crate) fn none_left(log: &dyn Log, application_id: &str) -> Result<(), ResetError> {
    let members = log
        .members(application_id)
        .map_err(|source| ResetError::Log {
            what: format!("a look at group {application_id}"),
            source,
        })?;
    if members.is_empty() {
        return Ok(());
    }
    let members: Vec<String> = members
        .into_iter()
        .map(|member| match member.host.is_empty() {
            true => member.client_id,
            false => format!("{} at {}", member.client_id, member.host),
        })
        .collect();
    Err(ResetError::Members {
        application_id: application_id.into(),
        members: members.join(", "),
    })
}
