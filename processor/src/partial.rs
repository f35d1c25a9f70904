//! A record of the partials topic: the header as JSON in a record header, the rows as an Arrow IPC stream in the value.
//!
//! A mark has no rows, and then no value either. What is read is not trusted: whatever the bytes are, the answer is rows
//! or an error, within the bounds that are named here.

pub(crate) mod ipc;

use arrow::record_batch::RecordBatch;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_ipc::{CompressionType, MetadataVersion};
use engine::partial::Header;
use runtime::log::Batch;

use crate::format::{self, FormatError};

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
    /// It is in a version that is not read.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// It is not as it was written.
    #[error(
        "the record's checksum is missing or is not that of its header and rows: it was damaged in the log, or something else writes to the partials topic"
    )]
    Damaged,
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

/// A record of the partials topic, to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Encoded {
    header: Vec<u8>,
    checksum: Option<[u8; 4]>,
    /// The rows, unless it is a mark.
    pub value: Option<Vec<u8>>,
}

impl Encoded {
    /// The record's headers.
    pub fn headers(&self) -> Vec<(&'static str, &[u8])> {
        let checksum = self.checksum.as_ref();
        let checksum = checksum.map(|bytes| (format::CHECKSUM, bytes.as_slice()));
        [(HEADER, self.header.as_slice())]
            .into_iter()
            .chain(checksum)
            .collect()
    }
}

/// A record, in the version that its header names.
///
/// # Errors
/// It can't be written, or is larger than a record may be.
pub fn encode(header: &Header, rows: Option<&RecordBatch>) -> Result<Encoded, PartialError> {
    let value = rows.map(encode_rows).transpose()?;
    let bytes = encode_header(header)?;
    Ok(Encoded {
        checksum: format::checksum(header.version, &bytes, value.as_deref()),
        header: bytes,
        value,
    })
}

/// The header of a record in a batch of the partials topic, once it is sure that the record is as it was written. Versions
/// beyond `newest` are not read.
///
/// # Errors
/// As those of [`decode_header`]; or it was damaged.
pub fn header_of(batch: &Batch, index: usize, newest: u32) -> Result<Header, PartialError> {
    let checksum = batch.header(index, format::CHECKSUM);
    whole_header(
        batch.header(index, HEADER),
        checksum,
        batch.get(index).value,
        newest,
    )
}

fn whole_header(
    bytes: Option<&[u8]>,
    checksum: Option<&[u8]>,
    value: Option<&[u8]>,
    newest: u32,
) -> Result<Header, PartialError> {
    let header = decode_header_to(bytes, newest)?;
    match format::is_whole(header.version, checksum, bytes.unwrap_or_default(), value) {
        true => Ok(header),
        false => Err(PartialError::Damaged),
    }
}

/// Header and rows of a record in a batch of the partials topic; no rows: a mark.
///
/// # Errors
/// As those of [`header_of`] and [`decode_rows`].
pub fn decode(
    batch: &Batch,
    index: usize,
    newest: u32,
) -> Result<(Header, Option<RecordBatch>), PartialError> {
    let header = header_of(batch, index, newest)?;
    Ok((header, decode_rows(batch.get(index).value)?))
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
/// There is none, it is longer than [`MAX_HEADER_BYTES`], it can't be read, it is in a version that is not read, or it names
/// a partition that cannot be.
pub fn decode_header(bytes: Option<&[u8]>) -> Result<Header, PartialError> {
    decode_header_to(bytes, format::NEWEST)
}

fn decode_header_to(bytes: Option<&[u8]>, newest: u32) -> Result<Header, PartialError> {
    #[derive(serde::Deserialize)]
    struct Version {
        version: u32,
    }
    let bytes = bytes
        .filter(|bytes| bytes.len() <= MAX_HEADER_BYTES)
        .ok_or(PartialError::Header(None))?;
    let header: Header = match serde_json::from_slice(bytes) {
        Ok(header) => header,
        Err(source) => {
            // Another version may have another header.
            if let Ok(Version { version }) = serde_json::from_slice(bytes) {
                format::check(version, newest)?;
            }
            return Err(PartialError::Header(Some(source)));
        }
    };
    format::check(header.version, newest)?;
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
