//! What stands in the metadata of a committed offset: how much has been written so far, and the plan of the flush that
//! is under way, if one is.
//!
//! ```text
//!   commit (start, plan) ──▶ upload one file per Hive partition ──▶ dead letters ──▶ commit (end, no plan)
//!                  └── whoever starts here reads [start, end) again and writes the same names again
//! ```
//!
//! Everything in this file is pure: observed facts go in, a decision comes out.

use runtime::log::{Bounds, Committed, MAX_METADATA_BYTES, Offset, TopicPartition};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::layout::Layout;

/// The format of the metadata. A later version of this program reads this one too.
const FORMAT: u32 = 1;

/// Which rows go into which file, and in which order. It changes whenever the same records under the same layout and
/// schema could come to lie in another file or be another row; a plan of another writer can't be finished by this one.
pub const WRITER_VERSION: u32 = 1;

/// What the sink has done with a partition up to its committed offset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Where the sink began to read the partition.
    pub from: Offset,
    /// Rows in Parquet files.
    pub rows: u64,
    /// Records that became dead letters.
    pub dead: u64,
    /// Parquet files.
    pub files: u64,
}

/// A flush that was decided: whoever finds it writes exactly these files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlushPlan {
    /// The first offset behind the flush, which begins at the committed offset.
    pub end: Offset,
    /// How many rows its files hold together.
    pub rows: u64,
    /// How many of its records are dead letters.
    pub dead: u64,
    /// How many files it has.
    pub files: u64,
    /// The number of the reader's schema in the registry.
    pub schema_id: u32,
    /// Where rows go.
    pub layout: Layout,
    /// How many rows a row group has at most.
    pub row_group_rows: usize,
    /// The [`WRITER_VERSION`] that made the plan.
    pub writer: u32,
    /// [`fingerprint`] of layout, schema and writer.
    pub fingerprint: String,
}

/// The metadata of a committed offset.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    v: u32,
    /// The id of the topic whose offsets these are.
    pub topic_id: String,
    /// What was done below the committed offset.
    pub totals: Totals,
    /// The flush that begins at the committed offset, if it was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<FlushPlan>,
}

/// Metadata that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoteError {
    /// It is not ours.
    #[error("the metadata of the committed offset is not this sink's: {detail}")]
    Foreign {
        /// Why not.
        detail: String,
    },
    /// It has a format that this version doesn't know.
    #[error(
        "the metadata of the committed offset has format {found}, and this version knows {FORMAT}"
    )]
    Newer {
        /// The format found.
        found: u32,
    },
    /// It does not fit.
    #[error(
        "the metadata would have {bytes} bytes, more than the {MAX_METADATA_BYTES} that an offset takes"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
}

impl Note {
    /// A note for a topic.
    pub fn new(topic_id: impl Into<String>, totals: Totals, plan: Option<FlushPlan>) -> Self {
        Self {
            v: FORMAT,
            topic_id: topic_id.into(),
            totals,
            plan,
        }
    }

    /// As metadata.
    ///
    /// # Errors
    /// [`NoteError::TooLarge`] when it would have more than 4,096 bytes: a layout with very many columns.
    pub fn encode(&self) -> Result<String, NoteError> {
        let text = serde_json::to_string(self).map_err(|error| NoteError::Foreign {
            detail: error.to_string(),
        })?;
        if text.len() > MAX_METADATA_BYTES {
            return Err(NoteError::TooLarge { bytes: text.len() });
        }
        Ok(text)
    }

    /// From metadata.
    ///
    /// # Errors
    /// [`NoteError::Foreign`] and [`NoteError::Newer`].
    pub fn parse(text: &str) -> Result<Self, NoteError> {
        #[derive(Deserialize)]
        struct Format {
            v: u32,
        }
        if text.is_empty() {
            return Err(NoteError::Foreign {
                detail: "it is empty".into(),
            });
        }
        let foreign = |error: serde_json::Error| NoteError::Foreign {
            detail: error.to_string(),
        };
        let Format { v } = serde_json::from_str(text).map_err(foreign)?;
        if v != FORMAT {
            return Err(NoteError::Newer { found: v });
        }
        serde_json::from_str(text).map_err(foreign)
    }
}

/// The fingerprint of what decides which row lies in which file: 32 hexadecimal digits.
pub fn fingerprint(layout: &Layout, schema: &str, row_group_rows: usize, writer: u32) -> String {
    let mut hash = Sha256::new();
    let layout = layout.canonical();
    for part in [
        writer.to_string().as_str(),
        &row_group_rows.to_string(),
        &layout,
        schema,
    ] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize()[..16]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

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

/// Why a partition can't be taken up, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Compaction removes records, so that a flush could not be read again.
    #[error(
        "the topic is compacted, so that records of a flush may be gone when it must be read again; \
         set cleanup.policy=delete on it, or read a topic that keeps every record"
    )]
    Compacted,
    /// Nothing is committed, but the lake has files.
    #[error(
        "the group has no committed offset, but the lake already holds files of this topic: reading from the start would \
         write every row twice. Restore the group's offsets or use its old name; to build the lake anew, remove the topic's folder first"
    )]
    FilesWithoutOffset,
    /// Someone else committed the offset.
    #[error(
        "offset {offset} was committed by something else ({detail}), so that nobody knows which rows are in the lake. \
         Restore the offset with its metadata; to build the lake anew, delete the group's offsets and remove the topic's folder"
    )]
    ForeignOffset {
        /// The committed offset.
        offset: Offset,
        /// What is wrong with its metadata.
        detail: String,
    },
    /// A newer version wrote the metadata.
    #[error("{0}: run the version that wrote it, or a newer one")]
    Newer(NoteError),
    /// The topic was deleted and created again.
    #[error(
        "the committed offset belongs to a topic with id {committed}, but the topic of this name has id {found}: it was deleted and \
         created again. Delete the group's offsets for it to begin with the new topic; the old topic's files stay as they are"
    )]
    OtherTopic {
        /// The id in the metadata.
        committed: String,
        /// The id now.
        found: String,
    },
    /// Retention overtook the sink.
    #[error(
        "the log begins at offset {log_start}, but the sink got only to {offset}: records were deleted before they were written. \
         Raise the topic's retention; to go on without them, delete the group's offsets and begin under a new prefix"
    )]
    Overtaken {
        /// The committed offset.
        offset: Offset,
        /// The first offset that is still there.
        log_start: Offset,
    },
    /// The log ends before what was committed.
    #[error(
        "the log ends at offset {log_end}, but offset {needed} was already reached: records were lost at the broker, or its data was \
         replaced. Bring the log back, or delete the group's offsets and begin under a new prefix"
    )]
    Truncated {
        /// The offset that must be there.
        needed: Offset,
        /// The end of the log.
        log_end: Offset,
    },
    /// The plan can't be finished under its own rules.
    #[error(
        "a flush of offsets {start} to {end} is half done and can't be finished as it was begun: {detail}. \
         Finish it with the version, registry and settings that began it"
    )]
    OtherFingerprint {
        /// The flush's first offset.
        start: Offset,
        /// The first offset behind it.
        end: Offset,
        /// What differs.
        detail: String,
    },
    /// The flush, read again, is not what the plan says.
    #[error(
        "a flush of offsets {start} to {end} is half done, and reading it again does not give the same rows: {detail}. \
         The log or the registry has changed since; bring them back to what they were"
    )]
    OtherRecords {
        /// The flush's first offset.
        start: Offset,
        /// The first offset behind it.
        end: Offset,
        /// What differs.
        detail: String,
    },
}

/// A partition that was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{partition}: {refusal}")]
pub struct Refused {
    /// Which partition.
    pub partition: TopicPartition,
    /// Why, and what to do.
    pub refusal: Refusal,
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn plan() -> FlushPlan {
        let layout = Layout::new()
            .by_hour("pickup_at", "America/New_York")
            .unwrap()
            .by_column("vendor_id")
            .unwrap();
        FlushPlan {
            end: 200,
            rows: 99,
            dead: 1,
            files: 3,
            schema_id: 7,
            row_group_rows: 1000,
            writer: WRITER_VERSION,
            fingerprint: fingerprint(&layout, "\"long\"", 1000, WRITER_VERSION),
            layout,
        }
    }

    fn totals() -> Totals {
        Totals {
            from: 5,
            rows: 90,
            dead: 5,
            files: 2,
        }
    }

    fn committed(note: &Note) -> Committed {
        Committed {
            offset: 100,
            metadata: note.encode().unwrap(),
        }
    }

    const OPEN: Bounds = Bounds {
        start: 5,
        stable: 300,
        end: 300,
    };

    fn facts(committed: Option<&Committed>) -> Facts<'_> {
        Facts {
            topic_id: "T",
            cleanup_policy: "delete",
            bounds: OPEN,
            committed,
            files_exist: false,
        }
    }

    #[test]
    fn each_observation_has_its_one_decision() {
        let settled = committed(&Note::new("T", totals(), None));
        let pending = committed(&Note::new("T", totals(), Some(plan())));
        let empty = Committed {
            offset: 100,
            metadata: String::new(),
        };
        let foreign = Committed {
            offset: 100,
            metadata: "{\"watermark\":3}".into(),
        };
        let newer = Committed {
            offset: 100,
            metadata: "{\"v\":2,\"other\":true}".into(),
        };
        let other_writer = committed(&Note::new(
            "T",
            totals(),
            Some(FlushPlan {
                writer: 0,
                ..plan()
            }),
        ));
        let other_topic = committed(&Note::new("U", totals(), None));

        assert_eq!(decide(&facts(None)), Decision::Begin { at: 5 });
        assert_eq!(
            decide(&facts(Some(&settled))),
            Decision::GoOn {
                at: 100,
                totals: totals()
            }
        );
        assert_eq!(
            decide(&facts(Some(&pending))),
            Decision::Finish {
                start: 100,
                totals: totals(),
                plan: plan()
            }
        );

        let refusal = |facts: &Facts<'_>| match decide(facts) {
            Decision::Refuse(refusal) => refusal,
            other => panic!("not refused: {other:?}"),
        };
        for policy in ["compact", "compact,delete", "delete, compact"] {
            assert_eq!(
                refusal(&Facts {
                    cleanup_policy: policy,
                    ..facts(Some(&settled))
                }),
                Refusal::Compacted
            );
        }
        assert_eq!(
            refusal(&Facts {
                files_exist: true,
                ..facts(None)
            }),
            Refusal::FilesWithoutOffset
        );
        for strange in [&empty, &foreign] {
            assert!(matches!(
                refusal(&facts(Some(strange))),
                Refusal::ForeignOffset { offset: 100, .. }
            ));
        }
        assert_eq!(
            refusal(&facts(Some(&newer))),
            Refusal::Newer(NoteError::Newer { found: 2 })
        );
        assert_eq!(
            refusal(&facts(Some(&other_topic))),
            Refusal::OtherTopic {
                committed: "U".into(),
                found: "T".into()
            }
        );
        for standing in [&settled, &pending] {
            let bounds = Bounds { start: 101, ..OPEN };
            assert_eq!(
                refusal(&Facts {
                    bounds,
                    ..facts(Some(standing))
                }),
                Refusal::Overtaken {
                    offset: 100,
                    log_start: 101
                }
            );
        }
        let short = Bounds {
            end: 199,
            stable: 199,
            ..OPEN
        };
        assert_eq!(
            refusal(&Facts {
                bounds: short,
                ..facts(Some(&pending))
            }),
            Refusal::Truncated {
                needed: 200,
                log_end: 199
            }
        );
        assert_eq!(
            decide(&Facts {
                bounds: short,
                ..facts(Some(&settled))
            }),
            Decision::GoOn {
                at: 100,
                totals: totals()
            }
        );
        let empty_log = Bounds {
            start: 0,
            end: 99,
            stable: 99,
        };
        assert_eq!(
            refusal(&Facts {
                bounds: empty_log,
                ..facts(Some(&settled))
            }),
            Refusal::Truncated {
                needed: 100,
                log_end: 99
            }
        );
        assert!(matches!(
            refusal(&facts(Some(&other_writer))),
            Refusal::OtherFingerprint {
                start: 100,
                end: 200,
                ..
            }
        ));
    }

    #[test]
    fn every_refusal_says_what_to_do() {
        for refusal in [
            Refusal::Compacted,
            Refusal::FilesWithoutOffset,
            Refusal::ForeignOffset {
                offset: 1,
                detail: "x".into(),
            },
            Refusal::Newer(NoteError::Newer { found: 2 }),
            Refusal::OtherTopic {
                committed: "a".into(),
                found: "b".into(),
            },
            Refusal::Overtaken {
                offset: 1,
                log_start: 2,
            },
            Refusal::Truncated {
                needed: 1,
                log_end: 0,
            },
            Refusal::OtherFingerprint {
                start: 0,
                end: 1,
                detail: "x".into(),
            },
            Refusal::OtherRecords {
                start: 0,
                end: 1,
                detail: "x".into(),
            },
        ] {
            let text = refusal.to_string().to_lowercase();
            let verbs = [
                "restore", "set ", "run ", "delete ", "raise ", "bring ", "finish ",
            ];
            assert!(verbs.iter().any(|verb| text.contains(verb)), "{text}");
        }
    }

    #[test]
    fn a_note_survives_the_metadata_string() {
        for note in [
            Note::new("T", totals(), None),
            Note::new("T", totals(), Some(plan())),
        ] {
            assert_eq!(Note::parse(&note.encode().unwrap()).unwrap(), note);
        }
    }

    #[test]
    fn a_plan_with_the_largest_numbers_fits() {
        let mut layout = Layout::new()
            .by_hour("pickup_at", "America/Argentina/ComodRivadavia")
            .unwrap();
        for column in 0..16 {
            layout = layout.by_column(&format!("{column:032}")).unwrap();
        }
        let plan = FlushPlan {
            end: i64::MAX,
            rows: u64::MAX,
            dead: u64::MAX,
            files: u64::MAX,
            schema_id: u32::MAX,
            row_group_rows: usize::MAX,
            fingerprint: fingerprint(&layout, "", 1, 1),
            layout,
            ..plan()
        };
        let totals = Totals {
            from: i64::MAX,
            rows: u64::MAX,
            dead: u64::MAX,
            files: u64::MAX,
        };
        assert!(
            Note::new("0123456789012345678901", totals, Some(plan))
                .encode()
                .unwrap()
                .len()
                < 2048
        );
    }

    #[test]
    fn a_note_that_does_not_fit_is_an_error() {
        let layout = Layout::new()
            .by_column(&"c".repeat(MAX_METADATA_BYTES))
            .unwrap();
        let note = Note::new("T", totals(), Some(FlushPlan { layout, ..plan() }));
        assert!(
            matches!(note.encode(), Err(NoteError::TooLarge { bytes }) if bytes > MAX_METADATA_BYTES)
        );
    }

    #[test]
    fn the_fingerprint_tells_layout_schema_and_writer_apart() {
        let layout = plan().layout;
        let base = fingerprint(&layout, "s", 10, 1);
        assert_eq!(base, fingerprint(&layout.clone(), "s", 10, 1));
        let other = Layout::new()
            .by_hour("pickup_at", "UTC")
            .unwrap()
            .by_column("vendor_id")
            .unwrap();
        for differs in [
            fingerprint(&other, "s", 10, 1),
            fingerprint(&layout, "t", 10, 1),
            fingerprint(&layout, "s", 11, 1),
            fingerprint(&layout, "s", 10, 2),
        ] {
            assert_ne!(base, differs);
        }
        assert!(check_schema(100, &plan(), "\"long\"").is_ok());
        assert!(matches!(
            check_schema(100, &plan(), "\"int\""),
            Err(Refusal::OtherFingerprint { .. })
        ));
        assert!(check_counts(100, &plan(), 99, 1, 3).is_ok());
        for (rows, dead, files) in [(98, 1, 3), (99, 2, 3), (99, 1, 4)] {
            assert!(matches!(
                check_counts(100, &plan(), rows, dead, files),
                Err(Refusal::OtherRecords { .. })
            ));
        }
    }
}
