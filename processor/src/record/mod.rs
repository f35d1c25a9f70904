//! What an application's state depends on, in words, in a topic of its own: a start that does not agree with it says what
//! differs, before it reads or writes anything else.
//!
//! ```text
//!   <app>.job, compacted, one partition, one key      written once, by whoever starts first
//!     {"v": 2, "shards": 4, "queries": [{"query", "topic", "state", "text", "sink"}], "takes_over", "handed_over"}
//! ```
//!
//! `v` is the version in which all of the application is written (see [`crate::format`]): so a program that can't read it
//! is refused before it reads anything else.
//!
//! Two members that start at once can't write two: to write, one takes the transactional id `<app>-job`, which ends
//! whatever another one has open, reads the topic to its end, and writes only if nothing is there; who was overtaken is
//! fenced, and reads again.

mod differences;
mod error;
mod format;
mod handover;
mod topic;

use std::collections::BTreeMap;

use engine::plan::Query;
use runtime::log::Log;
use serde::{Deserialize, Serialize};

pub use differences::differences;
pub(crate) use differences::{same_groups, value};
pub use error::RecordError;
pub(crate) use format::written;
pub use format::{Reading, Upgrade};
pub use handover::{HandedOver, HandedQuery, HandedSource, Kind, TakenQuery, TakesOver};
pub(crate) use handover::{hand_over, keep_handed_over};
pub use topic::read;
use topic::{begun_with, patiently, write};
pub(crate) use topic::{read_to, settle};

use crate::format::{NEWEST, OLDEST, check as check_format};
use crate::topics;

/// The first version whose records say to which topics queries write.
const WITH_SINKS: u32 = 2;

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
    /// The topic that it writes to, as of the last start: no state depends on it, but who takes the job over must know whose
    /// results its queries read. `None`: that is not known (in version 1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sink: Option<String>,
}

impl JobRecord {
    /// What the state of these queries depends on.
    pub fn new<'a>(shards: u32, queries: impl IntoIterator<Item = &'a Query>) -> Self {
        let queries = queries.into_iter().map(|query| QueryRecord {
            query: query.name.clone(),
            topic: query.source.topic.clone(),
            state: query.window.is_some(),
            text: query.fingerprint.clone(),
            sink: Some(query.sink.topic.clone()),
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
        if newest < WITH_SINKS {
            self.queries.iter_mut().for_each(|query| query.sink = None);
        }
        self
    }

    /// The same, where it does not say yet to which topics the queries of `job` write; `None` if it does.
    fn with_sinks_of(&self, job: &Self) -> Option<Self> {
        let mut known = self.clone().reading_to(self.v);
        if self.v >= WITH_SINKS {
            for query in &mut known.queries {
                let is = job.queries.iter().find(|is| is.query == query.query);
                query.sink = is.and_then(|is| is.sink.clone());
            }
        }
        (known != *self).then_some(known)
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
            agree(application_id, &known, job)?;
            if known.with_sinks_of(job).is_none() {
                return Ok(());
            }
        }
        write(log, application_id, None, &mut |known| {
            if let Some(known) = known {
                version = known.v;
                agree(application_id, &known, job)?;
                return Ok(known.with_sinks_of(job));
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
