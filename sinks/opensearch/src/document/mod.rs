//! From a row of an Arrow batch to a document: its index, id, version and JSON.
//!
//! ```text
//!   {window_start, vendor_id, …, version}  ──Layout──▶  trip_statistics-2016.01 / 2016-01-01T00:00:00.000Z+1 / v 85 / {…}
//! ```
//!
//! All four derive from the record alone, so that a replay makes the same document again. What can't become a document
//! is refused with a reason, and goes to the dead letters.

mod index;
mod json;
mod layout;
mod row;

use std::sync::Arc;

pub use index::{IndexPattern, PatternError};
pub(crate) use json::put as put_json;
pub use layout::Layout;

use crate::settings::{SettingsError, TopicSettings};

/// OpenSearch takes ids of at most this many bytes.
pub const MAX_ID_BYTES: usize = 512;

/// A document, ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The name of its index.
    pub index: Arc<str>,
    /// Its id within the index.
    pub id: String,
    /// Its version: only a higher one replaces it.
    pub version: i64,
    /// The JSON object.
    pub source: Vec<u8>,
}

impl Document {
    /// About how many bytes it takes in a request.
    pub fn bytes(&self) -> usize {
        self.source.len() + self.index.len() + self.id.len() + 96
    }
}

/// Why a record can't become a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A short code, the same for all of a kind.
    pub reason: &'static str,
    /// The field at fault.
    pub column: String,
    /// What exactly is wrong.
    pub detail: String,
}

impl Refusal {
    pub(crate) fn new(reason: &'static str, column: &str, detail: String) -> Self {
        Self {
            reason,
            column: column.to_owned(),
            detail,
        }
    }
}

/// The pattern of a topic's index names.
pub(crate) fn index_pattern(settings: &TopicSettings) -> Result<IndexPattern, SettingsError> {
    IndexPattern::parse(settings.pattern(), &settings.topic, settings.zone).map_err(|source| {
        SettingsError::Pattern {
            topic: settings.topic.clone(),
            source,
        }
    })
}

#[cfg(test)]
mod tests;
