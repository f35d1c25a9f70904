//! The metadata of a committed offset.

use runtime::log::{MAX_METADATA_BYTES, Offset};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::layout::Layout;

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
