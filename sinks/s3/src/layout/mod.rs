//! Where in the lake a row lies: Hive partitions from its event time, in a stated zone, and from columns.
//!
//! ```text
//!   pickup_at 2016-01-01T05:07Z, vendor_id 2 ──▶ year=2016/month=01/day=01/hour=05/vendor_id=2
//! ```
//!
//! - Local hours that occur twice, when a summer time ends, share one folder.
//! - Null, an empty text, and an instant outside the years 1 to 9999 go to `__HIVE_DEFAULT_PARTITION__`, as Hive has it.
//! - Values are escaped as Hive does (`%2F` for a slash).
//! - The columns stay in the file.

mod folder;
mod partitioner;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

pub use self::folder::DEFAULT_PARTITION;
pub use self::partitioner::Partitioner;

const TIME_COLUMNS: [&str; 4] = ["year", "month", "day", "hour"];

/// Which folders rows go to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The event time that `year`, `month`, `day` and `hour` come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<EventTime>,
    /// Further columns, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<String>,
}

/// An event time, and the zone whose hours count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EventTime {
    column: String,
    zone: String,
}

/// A layout that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// There is no such zone.
    #[error(
        "{zone} is no time zone: use a name of the IANA database, such as UTC or America/New_York"
    )]
    Zone {
        /// The name given.
        zone: String,
    },
    /// The name is taken.
    #[error("the layout has two partition columns of the name {name}")]
    Twice {
        /// The name.
        name: String,
    },
    /// The schema has no such column.
    #[error("the schema has no field {column}, by which the layout partitions; it has {known}")]
    NoColumn {
        /// The column asked for.
        column: String,
        /// The fields that there are.
        known: String,
    },
    /// A column whose type can't name a folder.
    #[error("field {column} is of type {found}, and the layout needs {needed}")]
    Type {
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// Which types will do.
        needed: &'static str,
    },
    /// Values that could not be read.
    #[error("the values of field {column} can't be read: {detail}")]
    Values {
        /// The column.
        column: String,
        /// What Arrow says.
        detail: String,
    },
}

impl Layout {
    /// One folder for all rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `year=/month=/day=/hour=` of an event time, in a zone of the IANA database. A field of a local time
    /// (`local-timestamp-millis`) is taken as it stands, whatever the zone.
    ///
    /// # Errors
    /// [`LayoutError::Zone`] and [`LayoutError::Twice`].
    pub fn by_hour(mut self, column: &str, zone: &str) -> Result<Self, LayoutError> {
        zone.parse::<Tz>()
            .map_err(|_| LayoutError::Zone { zone: zone.into() })?;
        self.time = Some(EventTime {
            column: column.into(),
            zone: zone.into(),
        });
        self.check()
    }

    /// Adds `column=value`.
    ///
    /// # Errors
    /// [`LayoutError::Twice`].
    pub fn by_column(mut self, column: &str) -> Result<Self, LayoutError> {
        self.columns.push(column.into());
        self.check()
    }

    fn check(self) -> Result<Self, LayoutError> {
        let names: Vec<&str> = self.names().collect();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                return Err(LayoutError::Twice {
                    name: (*name).into(),
                });
            }
        }
        Ok(self)
    }

    /// The names of the partition columns, in the order of the folders.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let time = if self.time.is_some() {
            &TIME_COLUMNS[..]
        } else {
            &[]
        };
        time.iter()
            .copied()
            .chain(self.columns.iter().map(String::as_str))
    }

    /// A text that is the same for equal layouts and differs for others.
    pub(crate) fn canonical(&self) -> String {
        let mut text = String::new();
        if let Some(time) = &self.time {
            let _ = write!(
                text,
                "{}:{}@{}:{};",
                time.column.len(),
                time.column,
                time.zone.len(),
                time.zone
            );
        }
        for column in &self.columns {
            let _ = write!(text, "{}:{};", column.len(), column);
        }
        text
    }
}
