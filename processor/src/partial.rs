//! A record of the partials topic: the header as JSON in a record header, the rows as an Arrow IPC stream in the value.
//!
//! A mark has no rows, and then no value either. What is read is not trusted: whatever the bytes are, the answer is rows
//! or an error, within the bounds that are named here.

pub(crate) mod ipc;

use arrow::record_batch::RecordBatch;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_ipc::{CompressionType, MetadataVersion};
use engine::partial::Header;

/// The record header that holds the partial's header.
pub const HEADER: &str = "headway-partial";

/// The most bytes a partials record may have; the topic's `max.message.bytes` is set to it.
pub const MAX_BYTES: usize = 16 * 1024 * 1024;

/// The most bytes that a header may have.
pub const MAX_HEADER_BYTES: usize = 64 * 1024;

/// The most partitions that a source topic can have.
pub const MAX_PARTITIONS: i32 = 1_000_000;

pub use ipc::MAX_ROWS_BYTES;

/// Why a record of the partials topic can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum PartialError {
    /// It has no header, or one that can't be read.
    #[error(
        "the record has no readable `{HEADER}` header: something else writes to the partials topic"
    )]
    Header(#[source] Option<serde_json::Error>),
    /// Its header says something that cannot be.
    #[error("the record's `{HEADER}` header names partition {partition} of {partitions}")]
    Partition {
        /// The source partition.
        partition: i32,
        /// How many there are.
        partitions: i32,
    },
    /// Its value is not what this program writes.
    #[error("the record's value is no Arrow IPC stream of plain columns: {detail}")]
    Stream {
        /// How it differs.
        detail: &'static str,
    },
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
    /// Its rows are larger than a reader takes.
    #[error(
        "one range's partial rows for one shard take {bytes} bytes in memory, more than {MAX_ROWS_BYTES}: lower processor.max_range_rows"
    )]
    TooLargeInMemory {
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
    ipc::check(&bytes)?;
    Ok(bytes)
}

/// The header of a record.
///
/// # Errors
/// There is none, it is longer than [`MAX_HEADER_BYTES`], it can't be read, or it names a partition that cannot be.
pub fn decode_header(bytes: Option<&[u8]>) -> Result<Header, PartialError> {
    let bytes = bytes
        .filter(|bytes| bytes.len() <= MAX_HEADER_BYTES)
        .ok_or(PartialError::Header(None))?;
    let header: Header =
        serde_json::from_slice(bytes).map_err(|source| PartialError::Header(Some(source)))?;
    if header.partition < 0 || header.partitions > MAX_PARTITIONS {
        return Err(PartialError::Partition {
            partition: header.partition,
            partitions: header.partitions,
        });
    }
    Ok(header)
}

/// The rows of a record; `None` for a mark. Whether they have a query's columns is for [`engine::fold::Fold::apply`] to
/// say.
///
/// # Errors
/// The value is longer than [`MAX_BYTES`], its rows would take more than [`MAX_ROWS_BYTES`], or it is not an Arrow IPC
/// stream of at most one batch of plain columns (see [`engine::partial::is_plain`]).
pub fn decode_rows(value: Option<&[u8]>) -> Result<Option<RecordBatch>, PartialError> {
    let Some(value) = value else { return Ok(None) };
    if value.len() > MAX_BYTES {
        return Err(PartialError::TooLarge { bytes: value.len() });
    }
    let mut batches = ipc::read(value)?;
    match batches.len() {
        0 | 1 => Ok(batches.pop()),
        _ => Err(PartialError::Batches),
    }
}

#[cfg(test)]
mod tests;
