//! One row to one document.

use std::io::Write;

use arrow::record_batch::RecordBatch;
use runtime::log::{Offset, TopicPartition};

use super::json::{self, Cells};
use super::{Document, Layout, MAX_ID_BYTES, Refusal};

impl Layout {
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
