//! JSON objects, one a record, → Arrow batches of declared columns.
//!
//! ```text
//!   record ──object's fields──▶ cells, one per column ──all of them good──▶ columns ──flush──▶ RecordBatch
//!                                     └── not JSON, a wrong type, nothing for NOT NULL ──▶ BadRecord
//! ```
//!
//! A record is read once, without a tree: fields that no column names are skipped. Its cells reach the columns only when
//! all of it is good, so that a bad record leaves nothing behind.

mod cell;
mod column;

use std::collections::HashMap;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use serde::Deserializer as _;
use serde_json::error::Category;

use self::cell::{Cells, Object};
use self::column::{Column, Kind};
use super::{BadRecord, DecodeError, MAX_BYTES, MAX_ROWS, PushError, with_schema};

/// Decodes the JSON values of one topic into Arrow batches.
///
/// BOOLEAN takes `true` and `false`; INT and BIGINT take whole numbers; REAL and DOUBLE any number; TEXT a string; DATE a
/// string such as `2026-01-31`; TIMESTAMP a whole number of milliseconds since 1970, or a string as of ISO 8601, in UTC if it
/// names no zone. A field that is missing is null, and so is `null`.
#[derive(Debug)]
pub struct JsonDecoder {
    schema: SchemaRef,
    places: HashMap<String, usize>,
    kinds: Vec<Kind>,
    columns: Vec<Column>,
    cells: Cells,
    rows: usize,
    bytes: usize,
}

impl JsonDecoder {
    /// A decoder to these columns.
    ///
    /// # Errors
    /// [`DecodeError::ReaderSchema`] when a column has a type that JSON is not decoded to.
    pub fn new(schema: SchemaRef) -> Result<Self, DecodeError> {
        let mut kinds = Vec::with_capacity(schema.fields().len());
        let mut places = HashMap::new();
        for (place, field) in schema.fields().iter().enumerate() {
            let kind = Kind::of(field.data_type()).ok_or_else(|| DecodeError::ReaderSchema {
                detail: format!(
                    "column {} is of type {}, which JSON is not decoded to",
                    field.name(),
                    field.data_type()
                ),
            })?;
            kinds.push(kind);
            places.insert(field.name().clone(), place);
        }
        Ok(Self {
            columns: kinds.iter().map(|kind| kind.column()).collect(),
            cells: Cells::new(kinds.len()),
            schema,
            places,
            kinds,
            rows: 0,
            bytes: 0,
        })
    }

    /// The schema of every batch.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// Takes one record's value.
    ///
    /// # Errors
    /// [`PushError`] says whether the record is bad, or must be pushed again; in each case nothing of it was taken.
    pub fn push(&mut self, value: &[u8]) -> Result<(), PushError> {
        if value.len() > MAX_BYTES {
            return Err(bad(
                "too_large",
                format!(
                    "the record has {} bytes; {MAX_BYTES} are the most",
                    value.len()
                ),
            ));
        }
        if self.rows >= MAX_ROWS || self.bytes + value.len() > MAX_BYTES {
            return Err(PushError::Full);
        }
        self.cells.clear();
        let mut reader = serde_json::Deserializer::from_slice(value);
        let object = Object {
            places: &self.places,
            kinds: &self.kinds,
            cells: &mut self.cells,
        };
        reader
            .deserialize_map(object)
            .and_then(|()| reader.end())
            .map_err(|error| self.refused(&error))?;
        for (field, place) in self.schema.fields().iter().zip(0..) {
            if !field.is_nullable() && self.cells.is_null(place) {
                let detail = format!(
                    "field `{}`: it is missing or null, and declared NOT NULL",
                    field.name()
                );
                return Err(bad("missing_field", detail));
            }
        }
        for (place, column) in self.columns.iter_mut().enumerate() {
            column.push(&self.cells, place);
        }
        self.rows += 1;
        self.bytes += value.len();
        Ok(())
    }

    /// The rows pushed since the last flush, in the order in which they were pushed; `None` when there are none.
    ///
    /// # Errors
    /// [`DecodeError::Build`] when Arrow refuses them, which no record can bring about.
    pub fn flush(&mut self) -> Result<Option<RecordBatch>, DecodeError> {
        let rows = std::mem::take(&mut self.rows);
        self.bytes = 0;
        if rows == 0 {
            return Ok(None);
        }
        let arrays = self.columns.iter_mut().map(Column::take).collect();
        with_schema(&self.schema, arrays, rows)
            .map(Some)
            .map_err(|error| DecodeError::Build {
                detail: error.to_string(),
            })
    }

    fn refused(&self, error: &serde_json::Error) -> PushError {
        let text = error.to_string();
        match (error.classify(), self.cells.at()) {
            (Category::Data, Some(place)) => {
                let name = self.schema.field(place).name();
                bad("wrong_type", format!("field `{name}`: {text}"))
            }
            _ => bad("not_json", format!("the value is no JSON object: {text}")),
        }
    }
}

fn bad(reason: &'static str, detail: String) -> PushError {
    PushError::Bad(BadRecord {
        reason,
        detail,
        schema_id: None,
    })
}
