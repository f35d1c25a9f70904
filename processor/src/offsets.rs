//! What stands in the metadata of the committed offsets: a task's state that is not in the log, and its part of the
//! ledger. Committed in the transaction of the data that it counts.

use engine::fold::Handover;
use runtime::log::MAX_METADATA_BYTES;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::format::{self, FormatError};

/// Beside a source partition's offset: how far its event time has come, and what was taken from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceState {
    /// The latest event time so far, in milliseconds since 1970.
    pub max_event_ms: Option<i64>,
    /// Whether the end of the input was announced.
    pub ended: bool,
    /// How many records were taken.
    pub rows_in: u64,
    /// How many of them could not be decoded.
    pub undecodable: u64,
    /// By query, in the job's order.
    pub queries: Vec<ScanCounts>,
    /// Where the next range begins, if it is to cover what was given up in front of the offset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_from: Option<i64>,
    /// What was given up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<Gap>,
    /// What was left to an earlier application, where queries without state take its queries over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succession: Option<SourceSuccession>,
    /// Whether the application was handed over to another one: it goes on from here no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handed_over: bool,
}

impl SourceState {
    /// How many results a query without state has given, at this place among the source's.
    pub fn results(&self, place: usize) -> u64 {
        let kept = self.queries.get(place).map_or(0, |counts| counts.kept);
        kept.saturating_sub(self.left_out(place))
    }

    /// How many of its results were left out, since an earlier application gave them.
    pub fn left_out(&self, place: usize) -> u64 {
        let known = self.succession.as_ref();
        let left_out = known.and_then(|known| known.left_out.get(place));
        left_out.copied().unwrap_or(0)
    }
}

/// What queries without state left to the application that they take over, of one source partition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceSuccession {
    /// Results that were left out since that application gave them: by query, in the job's order.
    pub left_out: Vec<u64>,
    /// Once that one is handed over: the first offset whose results are this one's to give.
    pub from: Option<i64>,
}

/// What a shard left to the application that its query takes over, and where it goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Succession {
    /// Row × window pairs in windows that were left out since that application gave them.
    pub pairs: u64,
    /// Those windows.
    pub windows: u64,
    /// Whether the next record would close windows that that one may still give.
    pub waits: bool,
    /// Once that one is handed over: where this one goes on.
    pub from: Option<Handover>,
    /// Whether all that is open has been told since then.
    pub told: bool,
}

/// Offsets of a source partition that were given up by hand: what lay there is not counted, and may not be in any result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gap {
    /// The first of them.
    pub from: i64,
    /// The first behind them.
    pub to: i64,
}

/// A [`Gap`] in the ranges of a source partition, as a shard sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RangeGap {
    /// The source partition.
    pub partition: i32,
    /// Where the last range before it ended.
    pub from: i64,
    /// Where the next one begins.
    pub to: i64,
}

/// The most gaps of a source partition that are accepted: they stand in metadata, which has little room.
pub const MAX_GAPS: usize = 4;
/// The most gaps that are accepted in the ranges of a shard: several source partitions may have some.
pub const MAX_RANGE_GAPS: usize = 32;

/// What one query's scan did with the rows of a source partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "StoredCounts", into = "[u64; 4]")]
pub struct ScanCounts {
    /// Rows that its WHERE left out.
    pub filtered: u64,
    /// Rows without a usable event time.
    pub dead: u64,
    /// Rows that are in at least one window.
    pub kept: u64,
    /// Row × window pairs sent on as partial rows.
    pub assigned: u64,
}

impl From<ScanCounts> for [u64; 4] {
    fn from(counts: ScanCounts) -> Self {
        [counts.filtered, counts.dead, counts.kept, counts.assigned]
    }
}

/// [`ScanCounts`] as they are read: four numbers, or what was committed before, with names. What was committed before rows
/// and pairs were told apart has each row in one window.
#[derive(Deserialize)]
#[serde(untagged)]
enum StoredCounts {
    Numbers([u64; 4]),
    Named(NamedCounts),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NamedCounts {
    filtered: u64,
    dead: u64,
    kept: Option<u64>,
    assigned: u64,
}

impl From<StoredCounts> for ScanCounts {
    fn from(stored: StoredCounts) -> Self {
        let (filtered, dead, kept, assigned) = match stored {
            StoredCounts::Numbers([filtered, dead, kept, assigned]) => {
                (filtered, dead, kept, assigned)
            }
            StoredCounts::Named(named) => {
                let kept = named.kept.unwrap_or(named.assigned);
                (named.filtered, named.dead, kept, named.assigned)
            }
        };
        Self {
            filtered,
            dead,
            kept,
            assigned,
        }
    }
}

/// How many queries can read one source: as many as have room in the metadata of an offset, whatever they count. Fewer
/// where they take over those of an earlier application, since more is counted then.
pub fn most_queries(take_over: bool) -> usize {
    let bytes = |queries| {
        let most = u64::MAX;
        let state = SourceState {
            max_event_ms: Some(i64::MIN),
            ended: false,
            rows_in: most,
            undecodable: most,
            queries: vec![ScanCounts::from(StoredCounts::Numbers([most; 4])); queries],
            range_from: Some(i64::MAX),
            gaps: vec![
                Gap {
                    from: i64::MAX,
                    to: i64::MAX
                };
                MAX_GAPS
            ],
            succession: take_over.then(|| SourceSuccession {
                left_out: vec![most; queries],
                from: Some(i64::MAX),
            }),
            handed_over: true,
        };
        // Numbers can always be written.
        encode(&state, format::NEWEST).map_or(usize::MAX, |text| text.len())
    };
    (0..)
        .take_while(|queries| bytes(*queries) <= MAX_METADATA_BYTES)
        .count()
        - 1
}

/// Beside a partials partition's offset: what the shard has taken and given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ShardState {
    /// Row × window pairs merged.
    pub merged: u64,
    /// Row × window pairs that were late.
    pub late: u64,
    /// Windows closed.
    pub closed: u64,
    /// Result rows emitted as final.
    pub emitted: u64,
    /// Result rows emitted that may still change.
    #[serde(default)]
    pub changes: u64,
    /// Groups held, of a query without windows.
    #[serde(default)]
    pub groups: u64,
    /// Ranges that were taken before and skipped.
    pub duplicates: u64,
    /// How far event time has come, in milliseconds since 1970: results up to there are written.
    #[serde(default)]
    pub watermark: Option<i64>,
    /// Whether every source partition has ended, and so every window is closed.
    pub ended: bool,
    /// What is out already of the results that the record at the committed offset gives, if they are too many for one
    /// transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<Cursor>,
    /// Gaps in the ranges of its partials that were accepted by hand.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gaps: Vec<RangeGap>,
    /// What was left to an earlier application, where its query takes one of it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succession: Option<Succession>,
    /// Whether the application was handed over to another one: it goes on from here no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handed_over: bool,
}

/// How far the results of one partials record are out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// How many of the windows that it closes.
    #[serde(rename = "w")]
    pub windows: usize,
    /// How many pieces of the next one.
    #[serde(rename = "p")]
    pub pieces: usize,
}

/// Why committed metadata can't be used.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    /// There is none.
    #[error("it has none: it was not committed by this processor, or was reset by hand")]
    Missing,
    /// It is in a version that is not read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It can't be read.
    #[error("it can't be read: it was not committed by this processor")]
    Unreadable(#[from] serde_json::Error),
}

#[derive(Serialize, Deserialize)]
struct Versioned<T> {
    v: u32,
    #[serde(rename = "s")]
    state: T,
}

/// The metadata string of a state, in the version that the application is written in.
pub fn encode<T: Serialize>(state: &T, version: u32) -> Result<String, MetadataError> {
    Ok(serde_json::to_string(&Versioned { v: version, state })?)
}

/// The state in a metadata string.
///
/// # Errors
/// There is none, it can't be read, or it is in a version that is not read.
pub fn decode<T: DeserializeOwned>(metadata: &str) -> Result<T, MetadataError> {
    decode_to(metadata, format::NEWEST)
}

/// The same, where versions beyond `newest` are not read.
pub(crate) fn decode_to<T: DeserializeOwned>(
    metadata: &str,
    newest: u32,
) -> Result<T, MetadataError> {
    if metadata.is_empty() {
        return Err(MetadataError::Missing);
    }
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let Version { v } = serde_json::from_str(metadata)?;
    format::check(v, newest)?;
    Ok(serde_json::from_str::<Versioned<T>>(metadata)?.state)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn counts_of_before_rows_and_pairs_were_told_apart_read_as_one_pair_per_row() {
        let old = r#"{"v":1,"s":{"filtered":1,"dead":2,"assigned":3}}"#;
        let counts: ScanCounts = decode(old).unwrap();
        assert_eq!((counts.kept, counts.assigned), (3, 3));
        let named = r#"{"v":1,"s":{"filtered":1,"dead":2,"kept":3,"assigned":9}}"#;
        assert_eq!(decode::<ScanCounts>(named).unwrap().assigned, 9);
        let counts = ScanCounts { kept: 1, ..counts };
        for version in format::OLDEST..=format::NEWEST {
            let text = encode(&counts, version).unwrap();
            assert_eq!(decode::<ScanCounts>(&text).unwrap(), counts);
            assert_eq!(
                decode_to::<ScanCounts>(&text, 1).is_ok(),
                version == 1,
                "a release that reads version 1 alone"
            );
        }
        assert!(decode::<ScanCounts>(&old.replace("dead", "lost")).is_err());
    }

    #[test]
    fn as_many_queries_as_have_room_in_an_offsets_metadata() {
        let most = most_queries(false);
        assert!((40..60).contains(&most), "{most}");
        let fewer = most_queries(true);
        assert!((30..most).contains(&fewer), "{fewer}");
    }
}
