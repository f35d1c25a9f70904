//! What stands beside the partial rows of one record of the partials topic.

use arrow::datatypes::DataType;
use serde::{Deserialize, Serialize};

/// The newest version of the partials format that this code knows.
pub const FORMAT_VERSION: u32 = 2;
/// The oldest one. Both have the same header and rows: what has changed is how a record is guarded in the log.
pub const OLDEST_FORMAT: u32 = FORMAT_VERSION - 1;

/// Which part of the source a partials record covers, and what its partition knew of time.
///
/// Every shard gets one for every range, rows or not, so that each knows how far each source partition is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Which version it is written in, from [`OLDEST_FORMAT`] to [`FORMAT_VERSION`].
    pub version: u32,
    /// The job's fingerprint, hashed (see [`fingerprint_hash`]).
    pub fingerprint: u64,
    /// The source topic's id: a topic that was deleted and created again is another one.
    pub topic_id: String,
    /// The source partition.
    pub partition: i32,
    /// How many partitions the source topic has: added ones are announced here before they are read.
    pub partitions: i32,
    /// The first position of the range.
    pub start: i64,
    /// The first position behind it. Equal to `start` in a mark, which says something of time only.
    pub end: i64,
    /// How many rows were read in the range.
    pub rows_in: u64,
    /// How many of them the job's WHERE left out.
    pub filtered: u64,
    /// How many of them became dead letters.
    pub dead: u64,
    /// The partition's watermark behind the range, in milliseconds since 1970; absent before its first row.
    pub watermark: Option<i64>,
    /// Whether the partition has nothing to read and no longer holds the watermark back.
    pub idle: bool,
    /// While it is idle: where its event time would be by the clock.
    pub advance_to: Option<i64>,
    /// Whether no more input will come.
    pub ended: bool,
}

/// Whether partial rows can have a column of this type: those that need no other columns within them.
pub fn is_plain(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Boolean
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Binary
            | DataType::LargeBinary
    ) || kind.is_primitive()
}

/// FNV-1a, 64 bits, of a fingerprint's text: frozen, as it stands in the log.
pub fn fingerprint_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}
