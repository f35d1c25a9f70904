//! Mappings: for each Avro field, which CSV column it comes from, how it is converted, and what must hold of it.
//!
//! ```text
//!   mapping file ─┐
//!                 ├─compile─▶ RowEncoder ──bind(header)──▶ encode(row) ──▶ Avro binary, or a rejection
//!   Avro schema ──┘
//! ```
//!
//! A mapping file is TOML:
//!
//! | key | meaning |
//! |---|---|
//! | `name` | the mapping's name |
//! | `key` | the field whose text keys the records; without it they are spread over the partitions |
//! | `columns` | only for files without a header: how many columns they have |
//! | `formats`, `zone` | how times are written, tried in order, and the IANA zone of local ones; a field may have its own |
//! | `[fields.NAME]` | one table for each field of the schema; a field that may be null can be left out |
//!
//! and a field's table:
//!
//! | key | meaning |
//! |---|---|
//! | `column` | the column: its name in the header, or its position from 1 |
//! | `constant` | instead: the same value for every row |
//! | `haversine_km` | instead: the great-circle distance of four fields (latitude, longitude, latitude, longitude) |
//! | `unit` | a conversion such as `"miles to km"` |
//! | `required` | `true`: an empty column is a dead letter although the schema allows null |
//! | `min`, `max` | the range of a number, ends included |
//! | `regex` | what the whole text must match |
//! | `not_before` | another field that this one must not be less than |
//! | `not_zero_with` | another field: both may not be 0 in one row |
//!
//! Spaces around numbers and times are ignored. An empty column is null where the schema allows null, else the row is
//! a dead letter.

mod compile;
mod encoder;
mod field;
mod file;
mod time;
mod units;

pub use encoder::{BindError, Rejection, RowEncoder};
pub use file::Problem;
pub use time::{TimeError, TimeFormat, Times};

use std::fmt;

use file::{MappingFile, Origin};

/// Everything that is wrong with a mapping, alone or with the schema that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MappingError {
    /// The mapping file's path, or its name for a shipped one.
    pub origin: String,
    /// What is wrong, by line.
    pub problems: Vec<Problem>,
}

impl fmt::Display for MappingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the mapping {} can't be used:", self.origin)?;
        for Problem { line, what } in &self.problems {
            match line {
                0 => write!(f, "\n  {what}")?,
                line => write!(f, "\n  line {line}: {what}")?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for MappingError {}

/// A mapping file.
#[derive(Clone, Debug)]
pub struct Mapping {
    origin: String,
    file: MappingFile,
}

/// The shipped mappings, by name.
const SHIPPED: [(&str, &str); 3] = [
    ("aws", include_str!("../../mappings/aws.toml")),
    ("kaggle", include_str!("../../mappings/kaggle.toml")),
    ("headway", include_str!("../../mappings/headway.toml")),
];

impl Mapping {
    /// Reads a mapping's text. What is wrong with it is reported by [`RowEncoder::compile`], with what does not fit the
    /// schema. `origin` is its path or name, for messages.
    pub fn read(text: &str, origin: impl Into<String>) -> Self {
        Self {
            origin: origin.into(),
            file: MappingFile::read(text),
        }
    }

    /// A shipped mapping: `aws`, `kaggle` or `headway`.
    pub fn shipped(name: &str) -> Option<Self> {
        Self::shipped_text(name).map(|text| Self::read(text, name))
    }

    /// A shipped mapping's text, for users to start from.
    pub fn shipped_text(name: &str) -> Option<&'static str> {
        SHIPPED
            .iter()
            .find(|(shipped, _)| *shipped == name)
            .map(|(_, text)| *text)
    }

    /// The names of the shipped mappings.
    pub fn shipped_names() -> impl Iterator<Item = &'static str> {
        SHIPPED.iter().map(|(name, _)| *name)
    }

    /// The shipped mapping that reads exactly the columns of this header.
    pub fn for_header(header: &[String]) -> Option<Self> {
        Self::shipped_names()
            .filter_map(Self::shipped)
            .find(|mapping| mapping.reads_exactly(header))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.file.name
    }

    /// Whether the files that it is for begin with a header.
    pub fn has_header(&self) -> bool {
        self.file.columns.is_none()
    }

    fn reads_exactly(&self, header: &[String]) -> bool {
        let mut read: Vec<&str> = self
            .file
            .fields
            .iter()
            .filter_map(|field| match field.origin.as_ref().map(|at| &at.value) {
                Some(Origin::Named(name)) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        let mut header: Vec<&str> = header.iter().map(String::as_str).collect();
        read.sort_unstable();
        header.sort_unstable();
        self.has_header() && read == header
    }
}
