//! How to begin with a partition.

use runtime::log::{Bounds, Committed, Offset};

use super::note::{FlushPlan, Note, NoteError, Totals, WRITER_VERSION, fingerprint};
use super::refusal::Refusal;

/// What was observed of a partition before a worker begins with it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The topic's id now.
    pub topic_id: &'a str,
    /// The topic's `cleanup.policy`.
    pub cleanup_policy: &'a str,
    /// Where the partition starts and ends now.
    pub bounds: Bounds,
    /// What the group committed.
    pub committed: Option<&'a Committed>,
    /// Whether the lake holds files of this topic id and partition. Asked only when nothing is committed.
    pub files_exist: bool,
}

/// How a worker begins with a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Nothing was committed: read from the start of the log.
    Begin {
        /// The first offset to read.
        at: Offset,
    },
    /// Go on where the last flush ended.
    GoOn {
        /// The first offset to read.
        at: Offset,
        /// What was done below it.
        totals: Totals,
    },
    /// A flush was decided and may be half done: do it again.
    Finish {
        /// The flush's first offset.
        start: Offset,
        /// What was done below it.
        totals: Totals,
        /// The flush.
        plan: FlushPlan,
    },
    /// Stop, because rows would be lost or written twice.
    Refuse(Refusal),
}

/// How to begin with a partition.
pub fn decide(facts: &Facts<'_>) -> Decision {
    if facts
        .cleanup_policy
        .split(',')
        .any(|policy| policy.trim() == "compact")
    {
        return Decision::Refuse(Refusal::Compacted);
    }
    let Some(committed) = facts.committed else {
        if facts.files_exist {
            return Decision::Refuse(Refusal::FilesWithoutOffset);
        }
        return Decision::Begin {
            at: facts.bounds.start,
        };
    };
    let offset = committed.offset;
    let note = match Note::parse(&committed.metadata) {
        Ok(note) => note,
        Err(newer @ NoteError::Newer { .. }) => return Decision::Refuse(Refusal::Newer(newer)),
        Err(error) => {
            return Decision::Refuse(Refusal::ForeignOffset {
                offset,
                detail: error.to_string(),
            });
        }
    };
    if note.topic_id != facts.topic_id {
        let (committed, found) = (note.topic_id, facts.topic_id.to_owned());
        return Decision::Refuse(Refusal::OtherTopic { committed, found });
    }
    if facts.bounds.start > offset {
        return Decision::Refuse(Refusal::Overtaken {
            offset,
            log_start: facts.bounds.start,
        });
    }
    let needed = note.plan.as_ref().map_or(offset, |plan| plan.end);
    if needed > facts.bounds.end {
        return Decision::Refuse(Refusal::Truncated {
            needed,
            log_end: facts.bounds.end,
        });
    }
    match note.plan {
        None => Decision::GoOn {
            at: offset,
            totals: note.totals,
        },
        Some(plan) if plan.writer != WRITER_VERSION => {
            Decision::Refuse(Refusal::OtherFingerprint {
                start: offset,
                end: plan.end,
                detail: format!(
                    "writer {} began it, and this is writer {WRITER_VERSION}",
                    plan.writer
                ),
            })
        }
        Some(plan) => Decision::Finish {
            start: offset,
            totals: note.totals,
            plan,
        },
    }
}

/// Whether a plan can be finished with the schema that the registry now gives for its number.
///
/// # Errors
/// [`Refusal::OtherFingerprint`] when the fingerprint says that it is another schema, or another layout.
pub fn check_schema(start: Offset, plan: &FlushPlan, schema: &str) -> Result<(), Refusal> {
    let found = fingerprint(&plan.layout, schema, plan.row_group_rows, plan.writer);
    if found == plan.fingerprint {
        return Ok(());
    }
    Err(Refusal::OtherFingerprint {
        start,
        end: plan.end,
        detail: format!(
            "the registry's schema number {} is another one now",
            plan.schema_id
        ),
    })
}

/// Whether a flush that was read again is what its plan says.
///
/// # Errors
/// [`Refusal::OtherRecords`] when the counts differ.
pub fn check_counts(
    start: Offset,
    plan: &FlushPlan,
    rows: u64,
    dead: u64,
    files: u64,
) -> Result<(), Refusal> {
    if (rows, dead, files) == (plan.rows, plan.dead, plan.files) {
        return Ok(());
    }
    Err(Refusal::OtherRecords {
        start,
        end: plan.end,
        detail: format!(
            "{rows} rows, {dead} dead letters and {files} files instead of {}, {} and {}",
            plan.rows, plan.dead, plan.files
        ),
    })
}
