//! That an application takes over another one, or was handed over itself: parts of the record of its job.

use engine::window::Window;
use runtime::log::{GroupMetadata, Log, Offset, OffsetCommit};
use serde::{Deserialize, Serialize};

use super::{JobRecord, QueryRecord, RecordError, patiently, value, write};

/// The application whose queries an application takes over, as it was when that began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakesOver {
    /// Its application id.
    pub application_id: String,
    /// How many shards it has.
    pub shards: u32,
    /// Its queries that are taken over.
    pub queries: Vec<TakenQuery>,
    /// What it has handed over, once it has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handed_over: Option<HandedOver>,
}

/// A query that is taken over by the one of its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakenQuery {
    /// Its name.
    pub query: String,
    /// The topic that it reads.
    pub topic: String,
    /// What its results are of.
    pub kind: Kind,
    /// How long its windows stay open behind their ends, in milliseconds.
    pub grace_ms: i64,
    /// Whether both put rows into the same windows and groups, so that no result of one has the key of another's.
    pub same_groups: bool,
}

/// What a query's results are of, as far as it decides how it is taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Windows: by their ends.
    Windows,
    /// Groups without windows: all of them are told anew.
    Groups,
    /// Rows: by their offsets.
    Rows,
}

impl Kind {
    /// That of a planned query.
    pub fn of(window: Option<Window>) -> Self {
        match window {
            None => Self::Rows,
            Some(window) if window.is_bounded() => Self::Windows,
            Some(_) => Self::Groups,
        }
    }

    /// That of a query on record.
    pub fn on_record(record: &QueryRecord) -> Self {
        match value(&record.text, "windows") {
            _ if !record.state => Self::Rows,
            Some(text) if text.starts_with("none") => Self::Groups,
            _ => Self::Windows,
        }
    }

    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::Windows => "results of windows",
            Self::Groups => "results of groups without windows",
            Self::Rows => "results of rows",
        }
    }
}

/// That an application was handed over, and where its successor goes on. Written in the transaction that marks all of its
/// committed offsets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandedOver {
    /// The successor's application id.
    pub to: String,
    /// What each query has given.
    pub queries: Vec<HandedQuery>,
    /// How far each source is read.
    pub sources: Vec<HandedSource>,
}

/// What a query had given when it was handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandedQuery {
    /// Its name.
    pub query: String,
    /// The topic of its results.
    pub sink: String,
    /// Windows that end here or before are given, by every shard, and no others; milliseconds since 1970. `None`: none.
    pub given_to: Option<i64>,
    /// All versions of its results are below this one.
    pub versions_from: i64,
    /// How many final results were written, those of applications that it took over included; `None` if that is not known.
    pub results: Option<u64>,
    /// The same of results that may still change.
    pub changes: Option<u64>,
}

/// How far a source was read when its reader was handed over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandedSource {
    /// The topic.
    pub topic: String,
    /// Its id.
    pub topic_id: String,
    /// By partition, the first offset that was not taken.
    pub offsets: Vec<Offset>,
}

/// Writes down that an application was handed over, and commits these offsets of its group in the same transaction.
///
/// # Errors
/// It was handed over to another one, or is being reset; or the log failed, which may have to be tried again.
pub(crate) fn hand_over(
    log: &dyn Log,
    application_id: &str,
    handed_over: &HandedOver,
    offsets: &[OffsetCommit],
    group: &GroupMetadata,
) -> Result<(), RecordError> {
    write(log, application_id, Some((offsets, group)), &mut |known| {
        let known = known.unwrap_or_else(|| JobRecord::new(0, []));
        if known.resetting {
            return Err(RecordError::Resetting {
                application_id: application_id.into(),
            });
        }
        match &known.handed_over {
            Some(before) if before.to == handed_over.to => Ok(None),
            Some(before) => Err(RecordError::HandedOver {
                application_id: application_id.into(),
                to: before.to.clone(),
            }),
            None => Ok(Some(JobRecord {
                handed_over: Some(handed_over.clone()),
                ..known
            })),
        }
    })
}

/// Writes down beside what an application takes over that it was handed over, unless that stands there already.
///
/// # Errors
/// The log failed.
pub(crate) fn keep_handed_over(
    log: &dyn Log,
    application_id: &str,
    handed_over: &HandedOver,
) -> Result<(), RecordError> {
    patiently(&mut || {
        write(log, application_id, None, &mut |known| {
            let Some(mut known) = known else {
                return Ok(None);
            };
            match &mut known.takes_over {
                Some(takes_over) if takes_over.handed_over.is_none() => {
                    takes_over.handed_over = Some(handed_over.clone());
                }
                _ => return Ok(None),
            }
            Ok(Some(known))
        })
    })
}
