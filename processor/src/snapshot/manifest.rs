//! The record that says what a shard's state is made of: its head as JSON in a record header, the list of batches as an
//! Arrow IPC stream in the value.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryBuilder, Int32Array, Int64Array};
use arrow::buffer::{BooleanBuffer, Buffer};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_ipc::{CompressionType, MetadataVersion};
use engine::fold::Head;
use serde::{Deserialize, Serialize};

use super::SnapshotError;
use crate::format;
use crate::partial::{MAX_BYTES, ipc};

/// The record header that holds a manifest's head.
pub const HEADER: &str = "headway-manifest";

/// The number of the batches of history, which is not part of any pane or group.
pub const HISTORY: i64 = -1;

/// What a manifest says beside its list of batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version that it is written in (see [`crate::format`]).
    pub version: u32,
    /// The state is the one after all partials below this offset.
    pub offset: i64,
    /// The id of the partials topic.
    pub partials_topic_id: String,
    /// What the state holds beside batches.
    pub head: Head,
    /// The records that hold its batches.
    pub records: Vec<Named>,
}

/// A record that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// Its key.
    pub key: String,
    /// The CRC-32 (IEEE) of its value.
    pub crc32: u32,
    /// How many rows it holds, over all batches.
    pub rows: u64,
}

/// A part of a batch, and where it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice {
    /// The batch's number, or [`HISTORY`].
    pub number: i64,
    /// See [`engine::fold::ImageRun::place`].
    pub place: i64,
    /// See [`engine::fold::ImageRun::part`].
    pub part: u32,
    /// See [`engine::fold::ImageRun::parts`].
    pub parts: u32,
    /// Which of the manifest's records, by its place there.
    pub record: usize,
    /// Which batch of that record's stream.
    pub batch: usize,
    /// On the first part of a batch: which of the batch's rows live, unless all do.
    pub live: Option<BooleanBuffer>,
}

/// The key of a shard's manifest.
pub fn key(shard: i32) -> String {
    format!("manifest/{shard}")
}

fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("number", DataType::Int64, false),
        Field::new("place", DataType::Int64, false),
        Field::new("part", DataType::Int32, false),
        Field::new("parts", DataType::Int32, false),
        Field::new("record", DataType::Int32, false),
        Field::new("batch", DataType::Int32, false),
        Field::new("live_rows", DataType::Int64, true),
        Field::new("live", DataType::Binary, true),
    ]))
}

/// The header's and the value's bytes. The parts of a batch stand in the order of its rows.
///
/// # Errors
/// They would be larger than a record may be.
pub fn encode(manifest: &Manifest, slices: &[Slice]) -> Result<(Vec<u8>, Vec<u8>), SnapshotError> {
    let header = serde_json::to_vec(manifest).map_err(|error| SnapshotError::Manifest {
        detail: error.to_string(),
    })?;
    let longs = |of: &dyn Fn(&Slice) -> i64| -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(slices.iter().map(of)))
    };
    let ints = |of: &dyn Fn(&Slice) -> usize| -> ArrayRef {
        // A manifest larger than this is refused below.
        let value = |slice| i32::try_from(of(slice)).unwrap_or(i32::MAX);
        Arc::new(Int32Array::from_iter_values(slices.iter().map(value)))
    };
    let mut live = BinaryBuilder::new();
    for slice in slices {
        live.append_option(slice.live.as_ref().map(packed));
    }
    let live_rows: Int64Array = slices
        .iter()
        .map(|slice| slice.live.as_ref().map(|live| live.len() as i64))
        .collect();
    let rows = RecordBatch::try_new(
        schema(),
        vec![
            longs(&|slice| slice.number),
            longs(&|slice| slice.place),
            ints(&|slice| slice.part as usize),
            ints(&|slice| slice.parts as usize),
            ints(&|slice| slice.record),
            ints(&|slice| slice.batch),
            Arc::new(live_rows),
            Arc::new(live.finish()),
        ],
    )?;
    let value = encode_batches(std::slice::from_ref(&rows))?;
    match header.len() + value.len() {
        bytes if bytes > MAX_BYTES => Err(SnapshotError::TooLarge { bytes }),
        _ => Ok((header, value)),
    }
}

/// The bits from the first one on, in bytes.
fn packed(live: &BooleanBuffer) -> Vec<u8> {
    let bits = live.sliced();
    bits.as_slice()[..live.len().div_ceil(8)].to_vec()
}

/// What these bytes say: the header, what the record has of a [`format::CHECKSUM`], and the value. Versions beyond `newest`
/// are not read.
///
/// # Errors
/// They are not a manifest, or one in a version that is not read; they are not as they were written; or the manifest
/// contradicts itself.
pub fn decode(
    header: &[u8],
    checksum: Option<&[u8]>,
    value: &[u8],
    newest: u32,
) -> Result<(Manifest, Vec<Slice>), SnapshotError> {
    #[derive(Deserialize)]
    struct Version {
        version: u32,
    }
    let wrong = |detail: String| SnapshotError::Manifest { detail };
    let json = |error: serde_json::Error| wrong(error.to_string());
    let Version { version } = serde_json::from_slice(header).map_err(json)?;
    format::check(version, newest)?;
    if !format::is_whole(version, checksum, header, Some(value)) {
        return Err(SnapshotError::Damaged);
    }
    let manifest: Manifest = serde_json::from_slice(header).map_err(json)?;
    let batches = decode_batches(value)?;
    let [rows] = batches.as_slice() else {
        return Err(wrong(format!("it has {} lists of batches", batches.len())));
    };
    if rows.schema_ref().fields() != schema().fields() {
        return Err(wrong("its list of batches has other columns".into()));
    }
    let long = |at: usize| rows.column(at).as_primitive::<Int64Type>();
    let int = |at: usize| rows.column(at).as_primitive::<Int32Type>();
    let (numbers, places, parts_of) = (long(0), long(1), (int(2), int(3)));
    let (records, batches) = (int(4), int(5));
    let (live_rows, live) = (long(6), rows.column(7).as_binary::<i32>());
    let mut slices = Vec::with_capacity(rows.num_rows());
    for row in 0..rows.num_rows() {
        let place = |value: i32, what: &str| {
            usize::try_from(value).map_err(|_| wrong(format!("it names {what} {value}")))
        };
        let part = |value: i32| {
            u32::try_from(value).map_err(|_| wrong(format!("it names part {value} of a batch")))
        };
        let record = place(records.value(row), "record")?;
        if record >= manifest.records.len() {
            return Err(wrong(format!("it names record {record}, which it has not")));
        }
        let live = match (live_rows.is_valid(row), live.is_valid(row)) {
            (false, false) => None,
            (true, true) => {
                let bits = live.value(row);
                let length = usize::try_from(live_rows.value(row)).unwrap_or(usize::MAX);
                if length.div_ceil(8) != bits.len() {
                    return Err(wrong(format!(
                        "its batch {} has other rows",
                        numbers.value(row)
                    )));
                }
                Some(BooleanBuffer::new(Buffer::from(bits), 0, length))
            }
            _ => return Err(wrong("it says of rows that they live, not how many".into())),
        };
        slices.push(Slice {
            number: numbers.value(row),
            place: places.value(row),
            part: part(parts_of.0.value(row))?,
            parts: part(parts_of.1.value(row))?,
            record,
            batch: place(batches.value(row), "batch")?,
            live,
        });
    }
    Ok((manifest, slices))
}

/// Batches of one schema as an Arrow IPC stream, compressed.
pub fn encode_batches(batches: &[RecordBatch]) -> Result<Vec<u8>, SnapshotError> {
    let schema = batches.first().map_or_else(schema, RecordBatch::schema);
    let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?
        .try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options)?;
    for batch in batches {
        writer.write(batch)?;
    }
    writer.finish()?;
    let bytes = writer.into_inner()?;
    ipc::check(&bytes)?;
    Ok(bytes)
}

/// The batches of an Arrow IPC stream, which is not trusted (see [`crate::partial`]).
pub fn decode_batches(value: &[u8]) -> Result<Vec<RecordBatch>, SnapshotError> {
    Ok(ipc::read(value)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::format::NEWEST;

    #[test]
    fn a_part_of_a_batch_below_zero_is_refused() {
        let head = Head {
            version: engine::fold::IMAGE_VERSION,
            fingerprint: 1,
            topic_id: None,
            ranges: std::collections::BTreeMap::new(),
            watermark: engine::watermark::Watermark::default(),
            counts: engine::fold::Counts::default(),
            closed_to: 0,
            next_run: 1,
            held_rows: 1,
            block_rows: 1,
        };
        let record = Named {
            key: "rows/1".into(),
            crc32: 0,
            rows: 1,
        };
        let manifest = Manifest {
            version: NEWEST,
            offset: 7,
            partials_topic_id: "id".into(),
            head,
            records: vec![record],
        };
        let slice = Slice {
            number: 0,
            place: 0,
            part: 0,
            parts: 1,
            record: 0,
            batch: 0,
            live: None,
        };
        let (header, value) = encode(&manifest, std::slice::from_ref(&slice)).unwrap();
        let read = |value: &[u8]| {
            let checksum = format::checksum(NEWEST, &header, Some(value)).unwrap();
            decode(&header, Some(&checksum), value, NEWEST)
        };
        assert_eq!(read(&value).unwrap(), (manifest, vec![slice]));
        let rows = decode_batches(&value).unwrap().remove(0);
        for (column, below) in [(2, -1), (3, i32::MIN), (4, -1), (5, -1)] {
            let mut columns = rows.columns().to_vec();
            columns[column] = Arc::new(Int32Array::from(vec![below]));
            let rows = RecordBatch::try_new(rows.schema(), columns).unwrap();
            let refused = read(&encode_batches(&[rows]).unwrap()).unwrap_err();
            assert!(
                refused.to_string().contains(&below.to_string()),
                "column {column}: {refused}"
            );
        }
    }
}
