//! What an application's state depends on, in words, in a topic of its own: a start that does not agree with it says what
//! differs, before it reads or writes anything else.
//!
//! ```text
//!   <app>.job, compacted, one partition, one key      written once, by whoever starts first
//!     {"v": 2, "shards": 4, "queries": [{"query", "topic", "state", "text"}], "takes_over", "handed_over"}
//! ```
//!
//! `v` is the version in which all of the application is written (see [`crate::format`]): so a program that can't read it
//! is refused before it reads anything else.
//!
//! Two members that start at once can't write two: to write, one takes the transactional id `<app>-job`, which ends
//! whatever another one has open, reads the topic to its end, and writes only if nothing is there; who was overtaken is
//! fenced, and reads again.

mod differences;
mod format;
mod handover;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use engine::plan::Query;
use runtime::log::{
    Class, ConsumerOptions, Event, GroupMetadata, Log, LogError, NewRecord, OffsetCommit, Producer,
    ProducerOptions, TopicPartition, abort_leftovers,
};
use serde::{Deserialize, Serialize};

pub use differences::differences;
pub(crate) use differences::{same_groups, value};
pub(crate) use format::written;
pub use format::{Reading, Upgrade};
pub use handover::{HandedOver, HandedQuery, HandedSource, Kind, TakenQuery, TakesOver};
pub(crate) use handover::{hand_over, keep_handed_over};

use crate::format::{FormatError, NEWEST, OLDEST, check as check_format};
use crate::partial::{self, PartialError};
use crate::topics;

/// The key of the record.
const KEY: &[u8] = b"job";
/// For how long it is tried to write it, while others start or the brokers are away.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it is waited until it is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// What a job's state depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JobRecord {
    v: u32,
    /// Over how many shards each query's groups are spread.
    pub shards: u32,
    /// The queries, in the job's order.
    pub queries: Vec<QueryRecord>,
    /// Whether a reset has begun, which must come to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub resetting: bool,
    /// The application whose queries it takes over ([`crate::cutover`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub takes_over: Option<TakesOver>,
    /// To whom it was handed over: it gives nothing more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over: Option<HandedOver>,
}

/// What a query's state depends on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueryRecord {
    /// Its name.
    pub query: String,
    /// The topic that it reads.
    pub topic: String,
    /// Whether it has state.
    pub state: bool,
    /// Its fingerprint, a line for each thing that its state depends on.
    pub text: String,
}

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

impl JobRecord {
    /// What the state of these queries depends on.
    pub fn new<'a>(shards: u32, queries: impl IntoIterator<Item = &'a Query>) -> Self {
        let queries = queries.into_iter().map(|query| QueryRecord {
            query: query.name.clone(),
            topic: query.source.topic.clone(),
            state: query.window.is_some(),
            text: query.fingerprint.clone(),
        });
        Self {
            v: NEWEST,
            shards,
            queries: queries.collect(),
            resetting: false,
            takes_over: None,
            handed_over: None,
        }
    }

    /// The same, by a program that reads up to this version.
    #[must_use]
    pub fn reading_to(mut self, newest: u32) -> Self {
        self.v = newest;
        self
    }

    /// The version in which all of the application is written.
    pub fn version(&self) -> u32 {
        self.v
    }
    /// The same, of an application that takes over another one.
    #[must_use]
    pub fn taking_over(mut self, takes_over: Option<TakesOver>) -> Self {
        self.takes_over = takes_over;
        self
    }
}

/// What stands on the log; `None` if no job has run under this application id.
///
/// # Errors
/// The log failed, or what stands there can't be read.
pub fn read(log: &dyn Log, application_id: &str) -> Result<Option<JobRecord>, RecordError> {
    read_to(log, application_id, NEWEST)
}

/// The same, where versions beyond `newest` are not read.
pub(crate) fn read_to(
    log: &dyn Log,
    application_id: &str,
    newest: u32,
) -> Result<Option<JobRecord>, RecordError> {
    let topic = topics::job(application_id);
    let failed = |source| RecordError::Log {
        topic: topic.clone(),
        source,
    };
    if log.topic(&topic).map_err(failed)?.is_none() {
        return Ok(None);
    }
    let mut found = None;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let group = format!("{application_id}-job");
    each(log, &group, &partition, &mut |key, value, _| {
        if key == Some(KEY) {
            found = value.map(<[u8]>::to_vec);
        }
        true
    })
    .map_err(failed)?;
    let Some(found) = found else { return Ok(None) };
    let unreadable = |detail: String| RecordError::Unreadable {
        topic: topic.clone(),
        detail,
    };
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let Version { v } =
        serde_json::from_slice(&found).map_err(|error| unreadable(error.to_string()))?;
    check_format(v, newest).map_err(|source| RecordError::Format {
        application_id: application_id.into(),
        source,
    })?;
    serde_json::from_slice(&found)
        .map(Some)
        .map_err(|error| unreadable(error.to_string()))
}

/// Fails if what is `known` on the log is of another job.
///
/// # Errors
/// [`RecordError::Changed`], which says what differs; or it was handed over, or is being reset.
pub(crate) fn agree(
    application_id: &str,
    known: &JobRecord,
    job: &JobRecord,
) -> Result<(), RecordError> {
    if known.resetting {
        return Err(RecordError::Resetting {
            application_id: application_id.into(),
        });
    }
    if let Some(handed_over) = &known.handed_over {
        return Err(RecordError::HandedOver {
            application_id: application_id.into(),
            to: handed_over.to.clone(),
        });
    }
    // Who has begun to take over goes on with it, whether it is still asked to or not.
    let of = |record: &JobRecord| {
        let takes_over = record.takes_over.as_ref();
        takes_over.map(|of| of.application_id.clone())
    };
    if let Some(wanted) = of(job).filter(|wanted| of(known).as_ref() != Some(wanted)) {
        return Err(RecordError::TakesOver {
            application_id: application_id.into(),
            wanted,
            known: of(known),
        });
    }
    let differences = differences(known, job);
    if differences.is_empty() {
        return Ok(());
    }
    Err(RecordError::Changed {
        application_id: application_id.into(),
        differences,
    })
}

/// Writes down what the job's state depends on, unless that stands there already: then it must agree. `fingerprints` are
/// those of the queries with state, by name: an application of before there was a record must have begun with them. The
/// version in which the application is written: a new one is in the newest that this program reads.
///
/// # Errors
/// What stands there is of another job (as those of [`read`] and [`RecordError::Changed`]); or the log failed.
pub fn keep(
    log: &dyn Log,
    application_id: &str,
    job: &JobRecord,
    fingerprints: &BTreeMap<&str, u64>,
) -> Result<u32, RecordError> {
    let mut version = job.v;
    patiently(&mut || {
        if let Some(known) = read_to(log, application_id, job.v)? {
            version = known.v;
            return agree(application_id, &known, job);
        }
        write(log, application_id, None, &mut |known| {
            if let Some(known) = known {
                version = known.v;
                return agree(application_id, &known, job).map(|()| None);
            }
            let begun = begun_with(log, application_id, fingerprints)?;
            version = if begun { OLDEST } else { job.v };
            Ok(Some(job.clone().reading_to(version)))
        })
    })?;
    check_format(version, job.v).map_err(|source| RecordError::Format {
        application_id: application_id.into(),
        source,
    })?;
    Ok(version)
}

/// Writes down that a reset has begun: no job starts under the application id until it has come to its end.
///
/// # Errors
/// The log failed.
pub fn begin_reset(log: &dyn Log, application_id: &str) -> Result<(), RecordError> {
    let wanted = topics::job_wanted(application_id);
    log.create_topic(&wanted.spec)
        .map_err(|source| RecordError::Log {
            topic: wanted.spec.name.clone(),
            source,
        })?;
    patiently(&mut || {
        write(log, application_id, None, &mut |known| {
            let known = known.unwrap_or_else(|| JobRecord::new(0, []));
            Ok((!known.resetting).then_some(JobRecord {
                resetting: true,
                ..known
            }))
        })
    })
}

/// Does something at the log again as long as that may help.
fn patiently(attempt: &mut dyn FnMut() -> Result<(), RecordError>) -> Result<(), RecordError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match attempt() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let class = match &error {
            RecordError::Log { source, .. } => source.class(),
            _ => Class::Fatal,
        };
        match class {
            // Another one that starts has overtaken this one, or nobody knows what was written: it is read again.
            Class::Retry | Class::Abort | Class::Restart | Class::Fenced
                if Instant::now() < deadline =>
            {
                tracing::info!(error = %crate::worker::chain(&error), "trying again");
                std::thread::sleep(PAUSE);
            }
            _ => return Err(error),
        }
    }
}

/// Settles what whoever wrote to the record last has left open.
///
/// # Errors
/// The log failed.
pub(crate) fn settle(log: &dyn Log, application_id: &str) -> Result<(), RecordError> {
    writer(log, application_id).map(|_| ())
}

/// Takes the right to write: whoever had it is fenced.
fn writer(log: &dyn Log, application_id: &str) -> Result<Box<dyn Producer>, RecordError> {
    let topic = topics::job(application_id);
    let failed = |source| RecordError::Log {
        topic: topic.clone(),
        source,
    };
    let mut producer = log
        .producer(&ProducerOptions {
            linger: Duration::ZERO,
            ..ProducerOptions::transactional(format!("{application_id}-job"))
        })
        .map_err(failed)?;
    producer.init_transactions().map_err(failed)?;
    abort_leftovers(log, producer.as_mut(), [topic.as_str()]).map_err(failed)?;
    Ok(producer)
}

/// Takes the right to write, reads what stands there, and writes what `next` makes of it, if anything, together with
/// offsets.
fn write(
    log: &dyn Log,
    application_id: &str,
    offsets: Option<(&[OffsetCommit], &GroupMetadata)>,
    next: &mut dyn FnMut(Option<JobRecord>) -> Result<Option<JobRecord>, RecordError>,
) -> Result<(), RecordError> {
    let topic = topics::job(application_id);
    let failed = |source| RecordError::Log {
        topic: topic.clone(),
        source,
    };
    let mut producer = writer(log, application_id)?;
    // Whatever others have written is to be seen now, and nobody can write without fencing this producer.
    let Some(record) = next(read(log, application_id)?)? else {
        return Ok(());
    };
    let value = serde_json::to_vec(&record).map_err(|error| RecordError::Unreadable {
        topic: topic.clone(),
        detail: error.to_string(),
    })?;
    let mut send = || {
        producer.begin()?;
        producer.send(NewRecord {
            topic: &topic,
            partition: Some(0),
            key: Some(KEY),
            value: Some(&value),
            headers: &[],
            timestamp_ms: None,
        })?;
        producer.flush()?;
        if let Some((offsets, group)) = offsets {
            producer.send_offsets(offsets, group)?;
        }
        producer.commit()
    };
    send().map_err(failed)
}

/// Whether there are partials; fails if they were written by another job than that of these fingerprints.
fn begun_with(
    log: &dyn Log,
    application_id: &str,
    fingerprints: &BTreeMap<&str, u64>,
) -> Result<bool, RecordError> {
    let mut begun = false;
    for (query, fingerprint) in fingerprints {
        let found = first_fingerprint(log, application_id, query)?;
        begun |= found.is_some();
        if found.is_some_and(|found| found != *fingerprint) {
            return Err(RecordError::Unknown {
                application_id: application_id.into(),
                query: (*query).into(),
                topic: topics::job(application_id),
            });
        }
    }
    Ok(begun)
}

/// The fingerprint in the first partials record that is still there.
fn first_fingerprint(
    log: &dyn Log,
    application_id: &str,
    query: &str,
) -> Result<Option<u64>, RecordError> {
    let topic = topics::partials(application_id, query);
    let failed = |source| RecordError::Log {
        topic: topic.clone(),
        source,
    };
    let partitions = log
        .topic(&topic)
        .map_err(failed)?
        .map_or(0, |found| found.partitions);
    let group = format!("{application_id}-job");
    for partition in 0..partitions {
        let partition = TopicPartition::new(topic.as_str(), partition);
        let mut first = None;
        each(log, &group, &partition, &mut |_, _, header| {
            first = Some(partial::decode_header(header));
            false
        })
        .map_err(failed)?;
        if let Some(header) = first {
            let header = header.map_err(|source| RecordError::Partials {
                topic: topic.clone(),
                source,
            })?;
            return Ok(Some(header.fingerprint));
        }
    }
    Ok(None)
}

/// Takes a record's key, value and header of partials, and says whether it wants more.
type Take<'a> = dyn FnMut(Option<&[u8]>, Option<&[u8]>, Option<&[u8]>) -> bool + 'a;

/// Reads a partition from its start to where it ends now, as long as `take` wants more: key, value and the header of
/// partials.
fn each(
    log: &dyn Log,
    group: &str,
    partition: &TopicPartition,
    take: &mut Take<'_>,
) -> Result<(), LogError> {
    let bounds = log.bounds(partition)?;
    if bounds.start >= bounds.stable {
        return Ok(());
    }
    let mut reader = log.consumer(&ConsumerOptions::new(group))?;
    reader.assign(&[(partition.clone(), bounds.start)])?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match reader.poll(Duration::from_millis(500), 100)? {
            Some(Event::Records(batch)) => {
                for (index, record) in batch.iter().enumerate() {
                    let header = batch.header(index, partial::HEADER);
                    if !take(record.key, record.value, header) {
                        return Ok(());
                    }
                }
            }
            Some(Event::End { position, .. }) if position >= bounds.stable => return Ok(()),
            _ => {}
        }
    }
    Err(LogError::TimedOut {
        action: "read a topic to its end",
    })
}
