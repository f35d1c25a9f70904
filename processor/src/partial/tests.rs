#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::HashMap;
use std::io::Cursor;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::Buffer;
use arrow::datatypes::*;
use arrow_ipc::reader::StreamReader;
use engine::partial::is_plain;
use proptest::prelude::*;

use super::*;

/// Every type that partial rows can have.
fn plain_types() -> Vec<DataType> {
    use DataType::*;
    use arrow::datatypes::TimeUnit::*;
    let mut types = vec![
        Boolean,
        Utf8,
        LargeUtf8,
        Binary,
        LargeBinary,
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float16,
        Float32,
        Float64,
        Date32,
        Date64,
        Time32(Second),
        Time32(Millisecond),
        Time64(Microsecond),
        Time64(Nanosecond),
        Interval(IntervalUnit::YearMonth),
        Interval(IntervalUnit::DayTime),
        Interval(IntervalUnit::MonthDayNano),
        Decimal32(7, 2),
        Decimal64(17, 3),
        Decimal128(30, -2),
        Decimal256(70, 5),
    ];
    for unit in [Second, Millisecond, Microsecond, Nanosecond] {
        types.push(Timestamp(unit, None));
        types.push(Timestamp(unit, Some("+00:00".into())));
        types.push(Duration(unit));
    }
    types
}

/// A column of a type from some bytes, with nulls where `nulls` says so.
fn column(kind: &DataType, rows: usize, bytes: &[u8], nulls: Option<&[bool]>) -> ArrayRef {
    let nulls = nulls.map(|nulls| nulls.iter().map(|null| !null).collect());
    let text: Vec<String> = (0..rows)
        .map(|row| "ж".repeat(usize::from(bytes[row % bytes.len()]) % 5))
        .collect();
    let texts = || text.iter().map(String::as_str);
    let with = |array: ArrayRef| {
        let data = array.to_data().into_builder().nulls(nulls.clone());
        make_array(data.build().unwrap())
    };
    with(match kind {
        DataType::Utf8 => Arc::new(StringArray::from_iter_values(texts())),
        DataType::LargeUtf8 => Arc::new(LargeStringArray::from_iter_values(texts())),
        DataType::Binary => Arc::new(BinaryArray::from_iter_values(texts())),
        DataType::LargeBinary => Arc::new(LargeBinaryArray::from_iter_values(texts())),
        DataType::Boolean => Arc::new(BooleanArray::from_iter(
            (0..rows).map(|row| Some(bytes[row % bytes.len()].is_multiple_of(2))),
        )),
        kind => {
            let width = kind.primitive_width().unwrap();
            // Small numbers, so that they are decimals of every precision too.
            let values: Vec<u8> = (0..rows * width)
                .map(|at| match at % width {
                    0 => bytes[at / width % bytes.len()] % 100,
                    _ => 0,
                })
                .collect();
            let data = ArrayData::builder(kind.clone())
                .len(rows)
                .add_buffer(Buffer::from(values))
                .align_buffers(true);
            make_array(data.build().unwrap())
        }
    })
}

fn arrows_own(bytes: &[u8]) -> RecordBatch {
    let mut reader = StreamReader::try_new(Cursor::new(bytes), None).unwrap();
    reader.next().unwrap().unwrap()
}

proptest! {
    #[test]
    fn rows_of_every_plain_type_are_read_as_arrows_own_reader_reads_them(
        rows in 0_usize..200,
        bytes in prop::collection::vec(any::<u8>(), 1..64),
        some_nulls in any::<bool>(),
        from in 0_usize..20,
    ) {
        let nulls: Vec<bool> = (0..rows).map(|row| bytes[row % bytes.len()] % 3 == 0).collect();
        let nulls = some_nulls.then_some(nulls.as_slice());
        let types = plain_types();
        let fields: Vec<Field> = types.iter().enumerate()
            .map(|(at, kind)| Field::new(format!("c{at}"), kind.clone(), some_nulls)).collect();
        let columns = types.iter().map(|kind| column(kind, rows, &bytes, nulls)).collect();
        let batch = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
        let from = from.min(rows);
        let batch = batch.slice(from, rows - from);
        prop_assert!(types.iter().all(is_plain));
        let encoded = encode_rows(&batch).unwrap();
        let decoded = decode_rows(Some(&encoded)).unwrap().unwrap();
        prop_assert_eq!(&decoded, &arrows_own(&encoded));
        prop_assert_eq!(decoded, batch);
    }

    #[test]
    fn rows_with_some_bytes_changed_are_rows_or_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut encoded = encode_rows(&some_rows()).unwrap();
        for (at, byte) in changes {
            let at = at.index(encoded.len());
            encoded[at] = byte;
        }
        if is_cut {
            encoded.truncate(cut.index(encoded.len()));
        }
        if let Ok(Some(rows)) = decode_rows(Some(&encoded)) {
            // What came through can be worked with.
            prop_assert!(rows.get_array_memory_size() <= MAX_ROWS_BYTES);
            let _ = format!("{rows:?}");
        }
    }
}

#[test]
fn rows_with_any_one_byte_changed_are_rows_or_an_error() {
    let rows = some_rows().slice(0, 5);
    let good = encode_rows(&rows).unwrap();
    let plain = stream(std::slice::from_ref(&rows));
    for good in [good, plain] {
        for at in 0..good.len() {
            for change in [1, 2, 3, 4, 8, 0x40, 0x80, 0xff] {
                let mut encoded = good.clone();
                encoded[at] = encoded[at].wrapping_add(change);
                if let Ok(Some(rows)) = decode_rows(Some(&encoded)) {
                    let _ = format!("{rows:?}");
                }
            }
        }
    }
}

fn some_rows() -> RecordBatch {
    let texts: StringArray = (0..300)
        .map(|row| (row % 7 > 0).then(|| format!("a text {row}")))
        .collect();
    RecordBatch::try_from_iter([
        ("key", Arc::new(texts) as ArrayRef),
        (
            "sum",
            Arc::new(Int64Array::from_iter_values(0..300)) as ArrayRef,
        ),
        (
            "mean",
            Arc::new(Float64Array::from_value(2.5, 300)) as ArrayRef,
        ),
    ])
    .unwrap()
}

/// Where a buffer's length and LZ4 frame stand in a stream: the place of the length.
fn frames(encoded: &[u8]) -> Vec<usize> {
    const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
    let found = encoded.windows(4).enumerate();
    let found: Vec<usize> = found
        .filter(|(_, four)| *four == MAGIC)
        .map(|(at, _)| at - 8)
        .collect();
    assert!(!found.is_empty());
    found
}

#[test]
fn a_buffer_that_says_it_is_longer_than_it_can_be_is_refused_before_anything_is_allocated() {
    let good = encode_rows(&some_rows()).unwrap();
    for place in frames(&good) {
        for length in [1_i64 << 40, i64::MAX, i64::MIN, -2, 1, 100_000] {
            let mut encoded = good.clone();
            encoded[place..place + 8].copy_from_slice(&length.to_le_bytes());
            let error = decode_rows(Some(&encoded)).unwrap_err();
            assert!(
                matches!(error, PartialError::Stream { detail } if detail.contains("length")),
                "{length}: {error}"
            );
        }
    }
}

#[test]
fn rows_that_unpack_to_more_than_the_bound_are_refused_when_read_and_when_written() {
    // 30 columns of 9 MiB of zeros each, in some hundred thousand bytes.
    let zeros: ArrayRef = Arc::new(Int64Array::from_value(0, 9 * 1024 * 1024 / 8));
    let columns = (0..30).map(|at| (format!("c{at}"), Arc::clone(&zeros)));
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let bytes = match encode_rows(&batch) {
        Err(PartialError::TooLargeInMemory { bytes }) => bytes,
        other => panic!("{other:?}"),
    };
    assert_eq!(bytes, 30 * 9 * 1024 * 1024);
    let options = IpcWriteOptions::default()
        .try_with_compression(Some(CompressionType::LZ4_FRAME))
        .unwrap();
    let mut writer =
        StreamWriter::try_new_with_options(Vec::new(), &batch.schema(), options).unwrap();
    writer.write(&batch).unwrap();
    let encoded = writer.into_inner().unwrap();
    assert!(encoded.len() < MAX_BYTES / 8, "{}", encoded.len());
    assert!(decode_rows(Some(&encoded)).is_err());
}

/// A stream of these batches, as Arrow writes it.
fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    for batch in batches {
        writer.write(batch).unwrap();
    }
    writer.into_inner().unwrap()
}

#[test]
fn what_is_no_batch_of_plain_columns_is_refused() {
    let one = |array: ArrayRef| stream(&[RecordBatch::try_from_iter([("c", array)]).unwrap()]);
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
    let dictionary: DictionaryArray<Int32Type> = ["a", "b", "a"].into_iter().collect();
    let map = {
        let mut builder = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
        builder.append(true).unwrap();
        builder.finish()
    };
    let nested: [ArrayRef; 6] = [
        Arc::new(list),
        Arc::new(dictionary),
        Arc::new(map),
        Arc::new(NullArray::new(5)),
        Arc::new(StringViewArray::from_iter_values([
            "a text longer than 12 bytes",
        ])),
        Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8, 2]].into_iter()).unwrap()),
    ];
    for array in nested {
        let kind = array.data_type().clone();
        assert!(!is_plain(&kind), "{kind}");
        let error = decode_rows(Some(&one(array))).unwrap_err();
        assert!(
            matches!(error, PartialError::Stream { detail } if detail.contains("type")),
            "{kind}: {error}"
        );
    }
    let rows = some_rows();
    let twice = stream(&[rows.clone(), rows.clone()]);
    assert!(matches!(
        decode_rows(Some(&twice)),
        Err(PartialError::Batches)
    ));
    assert_eq!(
        decode_rows(Some(&stream(std::slice::from_ref(&rows)))).unwrap(),
        Some(rows)
    );
    assert!(decode_rows(Some(b"")).is_err());
    let long = vec![0; MAX_BYTES + 1];
    assert!(matches!(
        decode_rows(Some(&long)),
        Err(PartialError::TooLarge { .. })
    ));
}

#[test]
fn a_schema_s_metadata_plays_no_part() {
    let rows = some_rows();
    let schema = rows.schema().as_ref().clone();
    let metadata = HashMap::from([("made by".to_owned(), "someone".to_owned())]);
    let named = rows
        .clone()
        .with_schema(Arc::new(schema.with_metadata(metadata)))
        .unwrap();
    assert_eq!(
        decode_rows(Some(&encode_rows(&named).unwrap())).unwrap(),
        Some(rows)
    );
}

fn header(version: u32) -> Header {
    Header {
        version,
        fingerprint: 7,
        topic_id: "id".to_owned(),
        partition: 3,
        partitions: 4,
        start: 0,
        end: 9,
        rows_in: 9,
        filtered: 0,
        dead: 0,
        watermark: None,
        idle: false,
        advance_to: None,
        ended: false,
    }
}

#[test]
fn a_record_with_any_one_bit_changed_is_refused() {
    let rows = some_rows();
    let encoded = encode(&header(2), Some(&rows)).unwrap();
    let checksum = encoded.checksum.unwrap();
    let read =
        |header: &[u8], value: &[u8]| whole_header(Some(header), Some(&checksum), Some(value), 2);
    let value = encoded.value.unwrap();
    assert_eq!(read(&encoded.header, &value).unwrap(), header(2));
    let flipped = |bytes: &[u8], bit: usize| {
        let mut bytes = bytes.to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        bytes
    };
    for bit in 0..8 * encoded.header.len() {
        let changed = flipped(&encoded.header, bit);
        assert!(read(&changed, &value).is_err(), "bit {bit} of the header");
    }
    for bit in 0..8 * value.len() {
        let error = read(&encoded.header, &flipped(&value, bit)).unwrap_err();
        assert!(matches!(error, PartialError::Damaged), "bit {bit}: {error}");
    }
    // In version 1 nobody could have known; from then on a checksum may not be left out.
    for (version, readable) in [(1, true), (2, false)] {
        let bytes = encode_header(&header(version)).unwrap();
        let read = whole_header(Some(&bytes), None, Some(&value), 2);
        assert_eq!(read.is_ok(), readable, "version {version}");
    }
}

#[test]
fn a_header_of_another_version_is_refused_whatever_else_it_says() {
    let of = |text: &str| decode_header(Some(text.as_bytes())).unwrap_err();
    let newer = of(r#"{"version": 3, "something": "new"}"#).to_string();
    assert!(
        newer.contains("in format 3, and this program reads formats 1 to 2"),
        "{newer}"
    );
    let bytes = encode_header(&header(2)).unwrap();
    let older = whole_header(Some(&bytes), None, None, 1)
        .unwrap_err()
        .to_string();
    assert!(
        older.contains("in format 2, and this program reads format 1: a newer"),
        "{older}"
    );
}

#[test]
fn a_header_that_names_what_cannot_be_is_refused() {
    let header = header(1);
    let decode = |header: &Header| decode_header(Some(&encode_header(header).unwrap()));
    assert_eq!(decode(&header).unwrap(), header);
    for (partition, partitions) in [
        (-1, 4),
        (i32::MIN, 4),
        (3, i32::MAX),
        (3, MAX_PARTITIONS + 1),
    ] {
        let header = Header {
            partition,
            partitions,
            ..header.clone()
        };
        assert!(
            matches!(decode(&header), Err(PartialError::Partition { .. })),
            "{partition} of {partitions}"
        );
    }
    let long = Header {
        topic_id: "x".repeat(MAX_HEADER_BYTES),
        ..header
    };
    assert!(decode(&long).is_err());
    assert!(decode_header(None).is_err());
}
