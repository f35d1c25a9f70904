//! One Parquet file: its name, its metadata, its encoding.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::{WriteError, WriterOptions};
use crate::plan::WRITER_VERSION;

/// What stands in a file's metadata beside its rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The topic.
    pub topic: Arc<str>,
    /// Its id.
    pub topic_id: Arc<str>,
    /// The partition.
    pub partition: i32,
    /// The flush's first offset.
    pub start: i64,
    /// The first offset behind it.
    pub end: i64,
}

impl Origin {
    /// The stem of the names of the flush's objects: `<topic>-<topic id>+<partition>+<start>-<end>`.
    pub fn stem(&self) -> String {
        format!(
            "{}-{}+{}+{}-{}",
            self.topic, self.topic_id, self.partition, self.start, self.end
        )
    }

    fn key_values(&self, rows: usize) -> [KeyValue; 7] {
        let pair = |key: &str, value: String| KeyValue::new(format!("headway.{key}"), value);
        [
            pair("topic", self.topic.to_string()),
            pair("topic_id", self.topic_id.to_string()),
            pair("partition", self.partition.to_string()),
            pair("start", self.start.to_string()),
            pair("end", self.end.to_string()),
            pair("rows", rows.to_string()),
            pair("writer", WRITER_VERSION.to_string()),
        ]
    }
}

/// Row groups that were full, in a temporary file.
pub(super) struct Spill {
    pub(super) writer: ArrowWriter<File>,
    pub(super) rows: usize,
}

/// A file whose rows are known and which is not encoded yet.
pub struct PendingFile {
    /// The folders of its Hive partition.
    pub folder: String,
    /// How many rows it has.
    pub rows: usize,
    pub(super) schema: SchemaRef,
    pub(super) options: WriterOptions,
    pub(super) spill: Option<Spill>,
    pub(super) rest: Option<RecordBatch>,
}

impl PendingFile {
    /// The file's bytes.
    ///
    /// # Errors
    /// [`WriteError`]: the flush must be gathered again.
    pub fn encode(self, origin: &Origin) -> Result<Bytes, WriteError> {
        match self.spill {
            Some(spill) => {
                let mut file = complete(spill.writer, self.rest.as_ref(), origin, self.rows)?;
                let mut bytes = Vec::new();
                file.rewind()
                    .and_then(|()| file.read_to_end(&mut bytes))
                    .map_err(|source| WriteError::Spill {
                        folder: self.options.spill_dir,
                        source,
                    })?;
                Ok(bytes.into())
            }
            None => {
                let writer = new_writer(Vec::new(), &self.schema, self.options.row_group_rows)?;
                Ok(complete(writer, self.rest.as_ref(), origin, self.rows)?.into())
            }
        }
    }
}

fn complete<W: Write + Send>(
    mut writer: ArrowWriter<W>,
    rest: Option<&RecordBatch>,
    origin: &Origin,
    rows: usize,
) -> Result<W, WriteError> {
    if let Some(rest) = rest {
        writer.write(rest)?;
    }
    for pair in origin.key_values(rows) {
        writer.append_key_value_metadata(pair);
    }
    Ok(writer.into_inner()?)
}

pub(super) fn new_writer<W: Write + Send>(
    to: W,
    schema: &SchemaRef,
    group: usize,
) -> Result<ArrowWriter<W>, WriteError> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(group.max(1)))
        .set_created_by(format!("headway sink-s3 writer {WRITER_VERSION}"))
        .build();
    let options = ArrowWriterOptions::new()
        .with_properties(properties)
        .with_skip_arrow_metadata(true);
    Ok(ArrowWriter::try_new_with_options(
        to,
        schema.clone(),
        options,
    )?)
}
