//! Reads an Arrow IPC stream of plain columns, as partials records hold it, without trusting it.
//!
//! ```text
//!   FF FF FF FF │ length │ metadata: schema                │
//!   FF FF FF FF │ length │ metadata: nodes, buffers        │ body: the buffers, each LZ4 behind its length
//!   FF FF FF FF │ 0      │
//! ```
//!
//! Arrow's own reader allocates what a buffer says of itself, takes nested types and dictionaries, and panics on some
//! types that are none. Here every length is checked before it is used: a value of n bytes takes at most
//! [`MAX_ROWS_BYTES`] and 255 × n, whatever it says. The arrays are then validated as Arrow does.

mod types;

use std::io::Read;
use std::sync::Arc;

use arrow::array::{ArrayData, ArrayRef, make_array};
use arrow::buffer::Buffer;
use arrow::datatypes::{DataType, Field, Schema};
use arrow::record_batch::RecordBatch;
use arrow_ipc::{CompressionType, Endianness, Message, MetadataVersion, root_as_message_with_opts};
use flatbuffers::VerifierOptions;
use lz4_flex::frame::FrameDecoder;

use super::PartialError;
use types::data_type;

/// The most bytes that the columns of one record's rows may have in memory.
pub const MAX_ROWS_BYTES: usize = 256 * 1024 * 1024;

/// The most bytes of a message's metadata: a schema of some thousand columns.
const MAX_METADATA_BYTES: usize = 1024 * 1024;
/// What stands in front of each message's length.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// What stands in front of a buffer that is not compressed.
const NOT_COMPRESSED: i64 = -1;
/// A byte of LZ4 can stand for 255 bytes at most.
const LZ4_RATIO: usize = 255;

/// The batches of a stream.
///
/// # Errors
/// It is not a stream of plain columns, or its batches would take more than [`MAX_ROWS_BYTES`].
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<RecordBatch>, PartialError> {
    let mut stream = Stream::new(bytes);
    let columns = stream.columns()?;
    let schema = Arc::new(Schema::new(columns.clone()));
    let mut batches = Vec::new();
    while let Some(batch) = stream.batch(&columns)? {
        let mut buffers = batch.buffers.into_iter();
        let mut arrays = Vec::with_capacity(columns.len());
        for (field, has_nulls) in columns.iter().zip(batch.has_nulls) {
            arrays.push(array(
                field.data_type(),
                batch.rows,
                has_nulls,
                &mut buffers,
            )?);
        }
        batches.push(RecordBatch::try_new(Arc::clone(&schema), arrays)?);
    }
    Ok(batches)
}

/// Whether [`read`] would take this stream, as far as the lengths in it tell.
pub(crate) fn check(bytes: &[u8]) -> Result<(), PartialError> {
    let mut stream = Stream::new(bytes);
    let columns = stream.columns()?;
    while stream.batch(&columns)?.is_some() {}
    Ok(())
}

fn refused(detail: &'static str) -> PartialError {
    PartialError::Stream { detail }
}

struct Stream<'a> {
    rest: &'a [u8],
    /// How many bytes the columns of its batches have in memory, so far.
    in_memory: usize,
}

/// A batch's buffers where they stand.
struct Batch<'a> {
    rows: usize,
    /// Whether each column has nulls.
    has_nulls: Vec<bool>,
    buffers: Vec<Stored<'a>>,
}

/// A buffer in a message's body.
struct Stored<'a> {
    bytes: &'a [u8],
    is_compressed: bool,
    /// Its length in memory.
    length: usize,
}

impl<'a> Stream<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            in_memory: 0,
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], PartialError> {
        let (taken, rest) = self
            .rest
            .split_at_checked(length)
            .ok_or_else(|| refused("it is cut off"))?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next message and its body; `None` at the end.
    fn message(&mut self) -> Result<Option<(Message<'a>, &'a [u8])>, PartialError> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        if self.take(4)? != CONTINUATION {
            return Err(refused("a message does not begin as messages do"));
        }
        let mut length = [0; 4];
        length.copy_from_slice(self.take(4)?);
        let length = usize::try_from(i32::from_le_bytes(length))
            .ok()
            .filter(|length| *length <= MAX_METADATA_BYTES)
            .ok_or_else(|| refused("a message's metadata is too long"))?;
        if length == 0 {
            return Ok(None);
        }
        let options = VerifierOptions {
            max_depth: 16,
            max_tables: 1 << 18,
            max_apparent_size: 16 * MAX_METADATA_BYTES,
            ..VerifierOptions::default()
        };
        let message = root_as_message_with_opts(&options, self.take(length)?)
            .map_err(|_| refused("a message's metadata is no flatbuffer"))?;
        if message.version() != MetadataVersion::V5 {
            return Err(refused("its metadata is of another version than 5"));
        }
        let body = usize::try_from(message.bodyLength())
            .map_err(|_| refused("a message's body has no length"))?;
        Ok(Some((message, self.take(body)?)))
    }

    /// The schema's columns.
    fn columns(&mut self) -> Result<Vec<Field>, PartialError> {
        let Some((message, _)) = self.message()? else {
            return Err(refused("it has no schema"));
        };
        let schema = message
            .header_as_schema()
            .filter(|schema| schema.endianness() == Endianness::Little)
            .ok_or_else(|| refused("it does not begin with a schema in little-endian order"))?;
        let mut columns = Vec::new();
        for field in schema.fields().into_iter().flatten() {
            let name = field
                .name()
                .ok_or_else(|| refused("a column has no name"))?;
            let kind = data_type(&field)
                .ok_or_else(|| refused("a column's type is not one that partial rows have"))?;
            columns.push(Field::new(name, kind, field.nullable()));
        }
        if columns.is_empty() {
            return Err(refused("it has no columns"));
        }
        Ok(columns)
    }

    /// The next batch, of these columns.
    fn batch(&mut self, columns: &[Field]) -> Result<Option<Batch<'a>>, PartialError> {
        let Some((message, body)) = self.message()? else {
            return Ok(None);
        };
        let batch = message
            .header_as_record_batch()
            .ok_or_else(|| refused("behind its schema stands something else than a batch"))?;
        let is_compressed = match batch.compression() {
            None => false,
            Some(compression) if compression.codec() == CompressionType::LZ4_FRAME => true,
            Some(_) => return Err(refused("its buffers are compressed, but not by LZ4")),
        };
        let rows = usize::try_from(batch.length())
            .ok()
            .filter(|rows| *rows <= MAX_ROWS_BYTES * 8)
            .ok_or_else(|| refused("it cannot have that many rows"))?;
        let nodes = batch.nodes().into_iter().flatten();
        let mut has_nulls = Vec::with_capacity(columns.len());
        for node in nodes.take(columns.len() + 1) {
            if node.length() != batch.length() {
                return Err(refused("its columns are not of one length"));
            }
            has_nulls.push(node.null_count() != 0);
        }
        let wanted: usize = columns
            .iter()
            .map(|column| buffers_of(column.data_type()))
            .sum();
        let given = batch.buffers().map_or(0, |buffers| buffers.len());
        if has_nulls.len() != columns.len() || given != wanted {
            return Err(refused("its batch does not have the columns of its schema"));
        }
        let mut buffers = Vec::with_capacity(wanted);
        for buffer in batch.buffers().into_iter().flatten() {
            let place = usize::try_from(buffer.offset())
                .ok()
                .zip(usize::try_from(buffer.length()).ok())
                .and_then(|(offset, length)| body.get(offset..)?.get(..length));
            let bytes = place.ok_or_else(|| refused("a buffer lies outside of its message"))?;
            let stored = Stored::new(bytes, is_compressed)?;
            self.in_memory = self.in_memory.saturating_add(stored.length);
            buffers.push(stored);
        }
        if self.in_memory > MAX_ROWS_BYTES {
            return Err(PartialError::TooLargeInMemory {
                bytes: self.in_memory,
            });
        }
        Ok(Some(Batch {
            rows,
            has_nulls,
            buffers,
        }))
    }
}

impl<'a> Stored<'a> {
    fn new(bytes: &'a [u8], is_compressed: bool) -> Result<Self, PartialError> {
        if !is_compressed || bytes.is_empty() {
            return Ok(Self {
                length: bytes.len(),
                bytes,
                is_compressed: false,
            });
        }
        let (length, bytes) = bytes
            .split_first_chunk()
            .ok_or_else(|| refused("a buffer's length is cut off"))?;
        let length = i64::from_le_bytes(*length);
        if length == NOT_COMPRESSED {
            return Ok(Self {
                length: bytes.len(),
                bytes,
                is_compressed: false,
            });
        }
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= bytes.len().saturating_mul(LZ4_RATIO))
            .ok_or_else(|| refused("a buffer cannot have the length that it says"))?;
        Ok(Self {
            bytes,
            is_compressed: length > 0,
            length,
        })
    }

    fn read(self) -> Result<Buffer, PartialError> {
        if self.length == 0 {
            return Ok(Buffer::from([]));
        }
        if !self.is_compressed {
            return Ok(Buffer::from(self.bytes));
        }
        let mut bytes = Vec::with_capacity(self.length + 1);
        // One byte more than it says shows that it says too little.
        let read = FrameDecoder::new(self.bytes)
            .take(self.length as u64 + 1)
            .read_to_end(&mut bytes);
        if read.is_err() || bytes.len() != self.length {
            return Err(refused(
                "a buffer is no LZ4 frame of the length that it says",
            ));
        }
        Ok(Buffer::from_vec(bytes))
    }
}

/// How many buffers a column has.
fn buffers_of(kind: &DataType) -> usize {
    match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Binary | DataType::LargeBinary => 3,
        _ => 2,
    }
}

/// The bytes of one value in a column's buffer of this number.
fn width_of(kind: &DataType, number: usize) -> usize {
    match (kind, number) {
        (DataType::Utf8 | DataType::Binary, 1) => size_of::<i32>(),
        (DataType::LargeUtf8 | DataType::LargeBinary, 1) => size_of::<i64>(),
        _ => kind.primitive_width().unwrap_or(1),
    }
}

/// A column from its next buffers: which values there are, offsets if it has any, and values.
fn array<'a>(
    kind: &DataType,
    rows: usize,
    has_nulls: bool,
    buffers: &mut impl Iterator<Item = Stored<'a>>,
) -> Result<ArrayRef, PartialError> {
    let mut next = || {
        buffers
            .next()
            .ok_or_else(|| refused("it has too few buffers"))?
            .read()
    };
    let validity = next()?;
    if has_nulls && validity.len() < rows.div_ceil(8) {
        return Err(refused(
            "a column does not say of each value whether it is null",
        ));
    }
    let mut data = ArrayData::builder(kind.clone())
        .len(rows)
        .null_bit_buffer(has_nulls.then_some(validity))
        .align_buffers(true);
    for number in 1..buffers_of(kind) {
        let buffer = next()?;
        // Arrow panics on a buffer that ends in the midst of a value.
        if !buffer.len().is_multiple_of(width_of(kind, number)) {
            return Err(refused("a buffer ends in the midst of a value"));
        }
        data = data.add_buffer(buffer);
    }
    Ok(make_array(data.build()?))
}
