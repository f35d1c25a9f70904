//! Queries that read the results of others, in a job that takes over another one.
//!
//! ```text
//!   OLD   q1 ──▶ T ──▶ q2 ──▶ R       until the handover, T holds what OLD's q1 gives, and both q2 read it
//!   NEW   q1 ┄┄▶ T ──▶ q2 ┄┄▶ R       from then on NEW's q1 goes on in T, and NEW's q2 reads on
//! ```
//!
//! So T must be one topic, which the same queries write in both. Then nothing more is needed: the shards of NEW's q1 stay
//! behind those of OLD's, and so does the event time of T, which is told by their watermarks: all that they have closed, OLD
//! has written.

use std::collections::BTreeSet;

use runtime::log::Log;

use super::{Predecessor, TakeoverError};
use crate::record::{self, JobRecord, QueryRecord, TakesOver, value};

/// Fails if queries of a job that takes over another one could not go on with what that one's queries wrote for each other,
/// as far as the records of both know.
///
/// # Errors
/// What does not fit; or that one's record can't be read.
pub(crate) fn fits_on_record(
    log: &dyn Log,
    predecessor: &Predecessor,
    job: &JobRecord,
) -> Result<(), TakeoverError> {
    if predecessor.takes_over.handed_over.is_some() {
        return Ok(());
    }
    let Predecessor {
        takes_over,
        successor,
        ..
    } = predecessor;
    match record::read(log, predecessor.application_id())? {
        Some(known) => fits(takes_over, &known.queries, successor, &job.queries),
        None => Ok(()),
    }
}

/// The same, of the queries of the application that is taken over, and those of its successor.
///
/// # Errors
/// What does not fit.
pub(crate) fn fits(
    takes_over: &TakesOver,
    old: &[QueryRecord],
    successor: &str,
    new: &[QueryRecord],
) -> Result<(), TakeoverError> {
    let id = takes_over.application_id.as_str();
    let is_taken = |query: &QueryRecord| {
        let mut taken = takes_over.queries.iter();
        taken.any(|of| of.query == query.query)
    };
    for query in new.iter().filter(|query| !is_taken(query)) {
        let sink = query.sink.as_ref();
        if let Some(sink) = sink.filter(|sink| old.iter().any(|of| of.topic == **sink)) {
            return Err(TakeoverError::Beside {
                query: query.query.clone(),
                topic: sink.clone(),
                application_id: id.into(),
            });
        }
    }
    let read: BTreeSet<&str> = new.iter().map(|query| &*query.topic).collect();
    for topic in read {
        let writing = |queries: &'_ [QueryRecord]| -> Vec<QueryRecord> {
            let to = queries
                .iter()
                .filter(|query| query.sink.as_deref() == Some(topic));
            to.cloned().collect()
        };
        let unknown = |queries: &[QueryRecord]| queries.iter().any(|query| query.sink.is_none());
        let (was, is) = (writing(old), writing(new));
        for (seen, of, application_id) in [(&is, old, id), (&was, new, successor)] {
            if !seen.is_empty() && unknown(of) {
                return Err(TakeoverError::Sinks {
                    application_id: application_id.into(),
                });
            }
        }
        // Written by new queries only, the topic is theirs alone.
        if was.is_empty() && !is.iter().any(is_taken) {
            continue;
        }
        let differs = is
            .iter()
            .find_map(|query| differs(query, old, topic, id))
            .or_else(|| {
                let missing = |query: &&QueryRecord| !is.iter().any(|of| of.query == query.query);
                let query = &was.iter().find(missing)?.query;
                Some(format!(
                    "query {query} of {id} writes to it, and none of that name does here: keep it"
                ))
            });
        if let Some(detail) = differs {
            return Err(TakeoverError::Chain {
                topic: topic.into(),
                application_id: id.into(),
                detail,
            });
        }
    }
    Ok(())
}

/// How a query that writes to a topic which others read differs from the one of its name.
fn differs(query: &QueryRecord, old: &[QueryRecord], topic: &str, id: &str) -> Option<String> {
    let name = &query.query;
    let Some(was) = old.iter().find(|was| was.query == *name) else {
        return Some(format!(
            "query {name} is new, and writes to it too: let it write to another topic"
        ));
    };
    const ANEW: &str = "or give it, its topic and those that read it other names, so that they begin as new queries";
    if let Some(sink) = was.sink.as_ref().filter(|sink| *sink != topic) {
        return Some(format!(
            "query {name} writes to it, and the one of {id} to {sink}, so that it would lack what that one gave: let both write to {sink}, and read that, {ANEW}"
        ));
    }
    for (line, what) in [
        ("windows", "other windows"),
        ("event time", "another event time"),
    ] {
        let (before, now) = (value(&was.text, line), value(&query.text, line));
        if before != now {
            return Some(format!(
                "query {name} has {what} ({}, and was {}), so that rows around the handover would count twice or not at all: leave it, {ANEW}",
                now.unwrap_or("none"),
                before.unwrap_or("none"),
            ));
        }
    }
    None
}
