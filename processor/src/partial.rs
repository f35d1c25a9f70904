//! A record of the partials topic: the header as JSON in a record header, the rows as an Arrow IPC stream in the value.
//!
//! A mark has no rows, and then no value either.

use std::io::Cursor;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use arrow_ipc::reader::StreamReader;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_ipc::{CompressionType, MetadataVersion};
use engine::partial::Header;

/// The record header that holds the partial's header.
pub const HEADER: &str = "headway-partial";

/// The most bytes a partials record may have; the topic's `max.message.bytes` is set to it.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// Why a record of the partials topic can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PartialError {
    /// It has no header, or one that can't be read.
    #[error(
        "the record has no readable `{HEADER}` header: something else writes to the partials topic"
    )]
    Header(#[source] Option<serde_json::Error>),
    /// Its rows can't be read or written.
    #[error("the partial rows can't be read or written as Arrow IPC")]
    Rows(#[from] arrow::error::ArrowError),
    /// It has more than one batch.
    #[error("the record holds more than one batch: something else writes to the partials topic")]
    Batches,
    /// It is larger than the topic takes.
    #[error(
        "one range's partial rows for one shard take {bytes} bytes, more than {MAX_BYTES}: lower processor.max_range_rows"
    )]
    TooLarge {
        /// The size.
        bytes: usize,
    },
}

/// The header's bytes.
pub fn encode_header(header: &Header) -> Result<Vec<u8>, PartialError> {
    serde_json::to_vec(header).map_err(|source| PartialError::Header(Some(source)))
}

/// The rows' bytes, compressed.
pub fn encode_rows(rows: &RecordBatch) -> Result<Vec<u8>, PartialError> {
    let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?
        .try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &rows.schema(), options)?;
    writer.write(rows)?;
    let bytes = writer.into_inner()?;
    if bytes.len() > MAX_BYTES {
        return Err(PartialError::TooLarge { bytes: bytes.len() });
    }
    Ok(bytes)
}

/// The header of a record.
pub fn decode_header(bytes: Option<&[u8]>) -> Result<Header, PartialError> {
    let bytes = bytes.ok_or(PartialError::Header(None))?;
    serde_json::from_slice(bytes).map_err(|source| PartialError::Header(Some(source)))
}

/// The rows of a record; `None` for a mark.
pub fn decode_rows(value: Option<&[u8]>) -> Result<Option<RecordBatch>, PartialError> {
    let Some(value) = value else { return Ok(None) };
    let mut reader = StreamReader::try_new(Cursor::new(value), None)?;
    let Some(batch) = reader.next().transpose()? else {
        return Ok(None);
    };
    if reader.next().is_some() {
        return Err(PartialError::Batches);
    }
    // Schema metadata plays no part: rows are compared by their columns.
    let schema = Arc::new(
        batch
            .schema()
            .as_ref()
            .clone()
            .with_metadata(std::collections::HashMap::new()),
    );
    Ok(Some(RecordBatch::try_new(
        schema,
        batch.columns().to_vec(),
    )?))
}
