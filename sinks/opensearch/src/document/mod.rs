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

use std::io::Write;
use std::sync::Arc;

use arrow::datatypes::{DataType, Schema};
use arrow::record_batch::RecordBatch;
use runtime::log::{Offset, TopicPartition};

pub(crate) use index::IndexNames;
pub use index::{IndexPattern, PatternError};
use json::Cells;
pub(crate) use json::put as put_json;

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

/// How the batches of one topic become documents: its settings, held against its schema.
#[derive(Debug)]
pub struct Layout {
    keys: Vec<usize>,
    version: Option<usize>,
    time: Option<usize>,
    names: IndexNames,
    points: Vec<Point>,
    /// `"name":` of each column.
    members: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Point {
    name: String,
    member: Vec<u8>,
    latitude: usize,
    longitude: usize,
}

impl Layout {
    /// Holds a topic's settings against the schema of its batches.
    ///
    /// # Errors
    /// When a named field is missing or of the wrong type, when the schema has a field that documents can't hold, or
    /// when versions of one document could land in several indices.
    pub fn new(settings: &TopicSettings, schema: &Schema) -> Result<Self, SettingsError> {
        let topic = || settings.topic.clone();
        let find = |role: &'static str, name: &str| {
            schema.index_of(name).map_err(|_| SettingsError::NoField {
                topic: topic(),
                role,
                field: name.to_owned(),
                fields: schema
                    .fields()
                    .iter()
                    .map(|field| field.name().as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
        };
        let wrong =
            |role: &'static str, at: usize, wanted: &'static str| SettingsError::WrongType {
                topic: topic(),
                role,
                field: schema.field(at).name().clone(),
                found: schema.field(at).data_type().to_string(),
                wanted,
            };
        for field in schema.fields() {
            json::supported(field).map_err(|field| SettingsError::Unsupported {
                topic: topic(),
                field,
            })?;
        }

        let mut keys = Vec::new();
        for name in &settings.keys {
            let at = find("a key", name)?;
            if !json::can_be_key(schema.field(at)) {
                return Err(wrong(
                    "a key",
                    at,
                    "a whole number, text, enum, boolean, uuid, date or timestamp",
                ));
            }
            keys.push(at);
        }
        let whole = |at: usize| {
            matches!(
                schema.field(at).data_type(),
                DataType::Int32 | DataType::Int64
            )
        };
        let version = match &settings.version {
            Some(name) => {
                let at = find("the version", name)?;
                if !whole(at) {
                    return Err(wrong("the version", at, "an int or long"));
                }
                Some(at)
            }
            None => schema.index_of("version").ok().filter(|at| whole(*at)),
        };
        let pattern = index_pattern(settings)?;
        let time = match (&settings.time, pattern.dated()) {
            (Some(name), true) => {
                let at = find("the time", name)?;
                if !matches!(
                    schema.field(at).data_type(),
                    DataType::Timestamp(_, _) | DataType::Date32
                ) {
                    return Err(wrong("the time", at, "a timestamp or date"));
                }
                if !keys.is_empty() && !keys.contains(&at) {
                    return Err(SettingsError::TimeNotInKey {
                        topic: topic(),
                        time: name.clone(),
                    });
                }
                Some(at)
            }
            (Some(name), false) => {
                find("the time", name)?;
                None
            }
            (None, true) => {
                return Err(SettingsError::NoTime {
                    topic: topic(),
                    pattern: settings.pattern().to_owned(),
                });
            }
            (None, false) => None,
        };
        let mut points: Vec<Point> = Vec::new();
        for point in &settings.geo_points {
            let coordinate = |role, name: &str| {
                let at = find(role, name)?;
                match schema.field(at).data_type() {
                    DataType::Float32 | DataType::Float64 => Ok(at),
                    _ => Err(wrong(role, at, "a float or double")),
                }
            };
            let (latitude, longitude) = (
                coordinate("a latitude", &point.latitude)?,
                coordinate("a longitude", &point.longitude)?,
            );
            if schema.index_of(&point.name).is_ok()
                || points.iter().any(|other| other.name == point.name)
            {
                return Err(SettingsError::NameTaken {
                    topic: topic(),
                    name: point.name.clone(),
                });
            }
            let member = json::member_name(&point.name);
            points.push(Point {
                name: point.name.clone(),
                member,
                latitude,
                longitude,
            });
        }
        let members = schema
            .fields()
            .iter()
            .map(|field| json::member_name(field.name()))
            .collect();
        Ok(Self {
            keys,
            version,
            time,
            names: IndexNames::new(pattern),
            points,
            members,
        })
    }

    /// The documents of a batch's rows, in order. `offsets` has the offset of each row's record.
    pub fn documents(
        &mut self,
        batch: &RecordBatch,
        partition: &TopicPartition,
        offsets: &[Offset],
    ) -> Vec<Result<Document, Refusal>> {
        debug_assert_eq!(
            batch.num_rows(),
            offsets.len(),
            "each row has the offset of its record"
        );
        let schema = batch.schema_ref();
        let columns: Vec<Column<'_>> = schema
            .fields()
            .iter()
            .zip(batch.columns())
            .map(|(field, array)| Column {
                name: field.name(),
                cells: Cells::new(field, array),
            })
            .collect();
        offsets
            .iter()
            .enumerate()
            .map(|(row, offset)| self.document(&columns, row, partition, *offset))
            .collect()
    }

    fn document(
        &mut self,
        columns: &[Column<'_>],
        row: usize,
        partition: &TopicPartition,
        offset: Offset,
    ) -> Result<Document, Refusal> {
        let time_ms = match self.time {
            None => 0,
            Some(at) => columns[at]
                .value(row)?
                .instant_ms(row)
                .ok_or_else(|| columns[at].out_of_range())?,
        };
        let index = self.names.at(time_ms).ok_or_else(|| match self.time {
            Some(at) => columns[at].out_of_range(),
            None => Refusal::new(
                "time_out_of_range",
                "",
                "no index name can be made".to_owned(),
            ),
        })?;
        let version = match self.version {
            None => offset,
            Some(at) => columns[at].value(row)?.integer(row).unwrap_or(-1),
        };
        if version < 0 {
            let column = self.version.map_or("", |at| columns[at].name);
            return Err(Refusal::new(
                "bad_version",
                column,
                format!("a version is a number from 0, not {version}"),
            ));
        }
        let id = self.id(columns, row, partition, offset)?;
        let source = self.source(columns, row)?;
        Ok(Document {
            index,
            id,
            version,
            source,
        })
    }

    /// Key values joined by `+`. Within a value, `\` and `+` are escaped by `\`; an empty value is `\e`: so that two
    /// documents have the same id only if all their key values are equal.
    fn id(
        &self,
        columns: &[Column<'_>],
        row: usize,
        partition: &TopicPartition,
        offset: Offset,
    ) -> Result<String, Refusal> {
        if self.keys.is_empty() {
            return Ok(format!(
                "{}+{}+{offset}",
                partition.topic, partition.partition
            ));
        }
        let mut id = Vec::with_capacity(40);
        let mut text = Vec::with_capacity(40);
        for (place, at) in self.keys.iter().enumerate() {
            if place > 0 {
                id.push(b'+');
            }
            text.clear();
            columns[*at]
                .value(row)?
                .write_text(row, columns[*at].name, &mut text)?;
            if text.is_empty() {
                id.extend_from_slice(b"\\e");
            }
            for byte in &text {
                if matches!(byte, b'+' | b'\\') {
                    id.push(b'\\');
                }
                id.push(*byte);
            }
        }
        let column = columns[self.keys[0]].name;
        if id.len() > MAX_ID_BYTES {
            let detail = format!("the id has {} bytes, more than {MAX_ID_BYTES}", id.len());
            return Err(Refusal::new("id_too_long", column, detail));
        }
        String::from_utf8(id).map_err(|error| Refusal::new("bad_id", column, error.to_string()))
    }

    fn source(&self, columns: &[Column<'_>], row: usize) -> Result<Vec<u8>, Refusal> {
        let mut out = Vec::with_capacity(columns.len() * 32);
        out.push(b'{');
        let mut first = true;
        for (column, member) in columns.iter().zip(&self.members) {
            let cells = column.cells()?;
            if cells.is_null(row) {
                continue;
            }
            json::separate(&mut first, &mut out);
            out.extend_from_slice(member);
            cells.write(row, column.name, &mut out)?;
        }
        for point in &self.points {
            let (latitude, longitude) = (
                columns[point.latitude].cells()?,
                columns[point.longitude].cells()?,
            );
            if latitude.is_null(row) || longitude.is_null(row) {
                continue;
            }
            let (lat, lon) = (
                latitude.float(row).unwrap_or(f64::NAN),
                longitude.float(row).unwrap_or(f64::NAN),
            );
            if !(-90.0..=90.0).contains(&lat) || !(-180.0..=180.0).contains(&lon) {
                return Err(Refusal::new(
                    "not_on_earth",
                    &point.name,
                    format!("latitude {lat}, longitude {lon}"),
                ));
            }
            json::separate(&mut first, &mut out);
            out.extend_from_slice(&point.member);
            // a Vec takes every write
            let _ = write!(out, "{{\"lat\":{lat:?},\"lon\":{lon:?}}}");
        }
        out.push(b'}');
        Ok(out)
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

struct Column<'a> {
    name: &'a str,
    cells: Option<Cells<'a>>,
}

impl Column<'_> {
    fn cells(&self) -> Result<&Cells<'_>, Refusal> {
        // Layout::new has looked at every column's type; a batch of another schema is refused here, not a panic
        self.cells.as_ref().ok_or_else(|| {
            Refusal::new(
                "unsupported",
                self.name,
                "a type documents can't hold".into(),
            )
        })
    }

    /// The cells, where this row must have a value.
    fn value(&self, row: usize) -> Result<&Cells<'_>, Refusal> {
        let cells = self.cells()?;
        if cells.is_null(row) {
            return Err(Refusal::new(
                "null",
                self.name,
                "no value, where the id, version or index needs one".into(),
            ));
        }
        Ok(cells)
    }

    fn out_of_range(&self) -> Refusal {
        Refusal::new(
            "time_out_of_range",
            self.name,
            "a time that has no year from 1 to 9999".into(),
        )
    }
}

#[cfg(test)]
mod tests;
