//! Why partials can't be folded.

use crate::partial::{FORMAT_VERSION, OLDEST_FORMAT};
use crate::plan::FragmentError;
use crate::spill::SpillError;

/// Why a partials record can't be applied. None of these heals by itself: the log or the job is not what it was.
#[derive(Debug, thiserror::Error)]
pub enum FoldError {
    /// Written by another version of the program.
    #[error(
        "the partials are in format {found}; this program reads formats {OLDEST_FORMAT} to {FORMAT_VERSION}"
    )]
    Format {
        /// The record's format.
        found: u32,
    },
    /// Written by another job.
    #[error(
        "the partials were written by a job with another fingerprint than this one's; run the changed job under a new application id"
    )]
    Fingerprint,
    /// The source topic is not the one that was read before.
    #[error(
        "the source topic was deleted and created again: its id was {was}, and is {is}; run the job under a new application id"
    )]
    TopicId {
        /// The id so far.
        was: String,
        /// The record's.
        is: String,
    },
    /// A range does not begin where the last one ended.
    #[error(
        "source partition {partition}: the range {start} to {end} does not follow on {expected}, where the last one ended: rows would be lost or counted twice"
    )]
    Gap {
        /// The source partition.
        partition: i32,
        /// Where it should begin.
        expected: i64,
        /// Where it begins.
        start: i64,
        /// Where it ends.
        end: i64,
    },
    /// The rows do not have the columns of this query's partials.
    #[error("the partial rows do not have this job's columns")]
    Columns,
    /// A row's window or count of source rows is none.
    #[error(
        "the partial rows name windows or counts of rows that cannot be: something else writes to the partials topic"
    )]
    Rows,
    /// Merging failed.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// Rows can't be kept, or not be read back.
    #[error(transparent)]
    Spill(#[from] SpillError),
}
