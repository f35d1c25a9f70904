//! Why a partition can't be taken up, and what to do.

use runtime::log::{Offset, TopicPartition};

use super::note::NoteError;

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
