#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, StringArray};
use arrow::datatypes::{Int32Type, Int64Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;

use bytes::Bytes;
use parquet::basic::Compression;

use super::*;

fn origin() -> Origin {
    Origin {
        topic: "t".into(),
        topic_id: "I".into(),
        partition: 1,
        start: 10,
        end: 99,
    }
}

fn batch(rows: &[(i32, i64)]) -> RecordBatch {
    let folders = Int32Array::from_iter_values(rows.iter().map(|row| row.0));
    let values = Int64Array::from_iter_values(rows.iter().map(|row| row.1));
    let texts = StringArray::from_iter(
        rows.iter()
            .map(|row| (row.1 % 3 != 0).then(|| format!("v{}", row.1 % 5))),
    );
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("folder", Arc::new(folders)),
        ("value", Arc::new(values)),
        ("text", Arc::new(texts)),
    ];
    RecordBatch::try_from_iter_with_nullable(
        columns
            .into_iter()
            .map(|(name, array)| (name, array, name == "text")),
    )
    .unwrap()
}

/// Writes rows that come in batches of these sizes; the files by folder, and how many row groups were spilled.
fn write(rows: &[(i32, i64)], sizes: &[usize], group: usize) -> BTreeMap<String, Bytes> {
    let layout = Layout::new().by_column("folder").unwrap();
    let spill_dir = std::env::temp_dir();
    let options = WriterOptions {
        row_group_rows: group,
        spill_dir,
    };
    let mut writer = FlushWriter::new(&layout, batch(&[]).schema(), options).unwrap();
    let mut rest = rows;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let (head, tail) = rest.split_at((*sizes.next().unwrap()).clamp(1, rest.len()));
        writer.push(&batch(head)).unwrap();
        rest = tail;
    }
    assert_eq!(writer.rows(), rows.len() as u64);
    let files = writer.finish().unwrap();
    files
        .into_iter()
        .map(|file| (file.folder.clone(), file.encode(&origin()).unwrap()))
        .collect()
}

fn read(file: Bytes) -> (Vec<(i32, i64)>, Vec<usize>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let groups = builder
        .metadata()
        .row_groups()
        .iter()
        .map(|group| group.num_rows() as usize)
        .collect();
    let mut rows = Vec::new();
    for batch in builder.build().unwrap() {
        let batch = batch.unwrap();
        let folders = batch.column(0).as_primitive::<Int32Type>();
        let values = batch.column(1).as_primitive::<Int64Type>();
        rows.extend((0..batch.num_rows()).map(|row| (folders.value(row), values.value(row))));
    }
    (rows, groups)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn each_partition_has_its_rows_in_order_whatever_the_batches(
        folders in prop::collection::vec(0..6_i32, 1..400),
        sizes in prop::collection::vec(1..60_usize, 1..6),
        other_sizes in prop::collection::vec(1..60_usize, 1..6),
        group in 1..50_usize,
    ) {
        let rows: Vec<(i32, i64)> = folders.iter().zip(0..).map(|(folder, value)| (*folder, value)).collect();
        let files = write(&rows, &sizes, group);
        prop_assert_eq!(&files, &write(&rows, &other_sizes, group));
        let mut expected: BTreeMap<String, Vec<(i32, i64)>> = BTreeMap::new();
        for row in rows {
            expected.entry(format!("folder={}", row.0)).or_default().push(row);
        }
        prop_assert_eq!(files.len(), expected.len());
        for (folder, rows) in expected {
            let (found, groups) = read(files[&folder].clone());
            prop_assert_eq!(found, rows);
            prop_assert!(groups[..groups.len() - 1].iter().all(|rows| *rows == group));
            prop_assert!(groups[groups.len() - 1] <= group);
        }
    }
}

#[test]
fn a_file_says_where_its_rows_come_from_and_is_compressed_with_snappy() {
    let rows: Vec<(i32, i64)> = (0..7).map(|value| (1, value)).collect();
    let file = write(&rows, &[7], 3).remove("folder=1").unwrap();
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
    let metadata = builder.metadata();
    let pairs: BTreeMap<&str, &str> = metadata
        .file_metadata()
        .key_value_metadata()
        .unwrap()
        .iter()
        .map(|pair| (pair.key.as_str(), pair.value.as_deref().unwrap()))
        .collect();
    let expected = [
        ("headway.end", "99"),
        ("headway.partition", "1"),
        ("headway.rows", "7"),
        ("headway.start", "10"),
        ("headway.topic", "t"),
        ("headway.topic_id", "I"),
        ("headway.writer", "1"),
    ];
    assert_eq!(pairs, BTreeMap::from(expected));
    for group in metadata.row_groups() {
        assert!(
            group
                .columns()
                .iter()
                .all(|column| column.compression() == Compression::SNAPPY)
        );
    }
}

#[test]
fn finished_row_groups_leave_memory() {
    let layout = Layout::new().by_column("folder").unwrap();
    let options = WriterOptions {
        row_group_rows: 1000,
        spill_dir: std::env::temp_dir(),
    };
    let mut writer = FlushWriter::new(&layout, batch(&[]).schema(), options).unwrap();
    let rows: Vec<(i32, i64)> = (0..1000).map(|value| (1, value)).collect();
    let mut most = 0;
    for _ in 0..100 {
        writer.push(&batch(&rows)).unwrap();
        most = most.max(writer.memory_bytes());
    }
    let ten_groups = 10 * batch(&rows).get_array_memory_size();
    assert!(
        most < ten_groups,
        "{most} bytes, and ten row groups are {ten_groups}"
    );
    let file = writer.finish().unwrap().remove(0);
    assert_eq!(file.rows, 100_000);
    assert_eq!(read(file.encode(&origin()).unwrap()).1, vec![1000; 100]);
}

#[test]
fn a_temporary_folder_that_is_not_there_is_an_error_that_says_so() {
    let layout = Layout::new().by_column("folder").unwrap();
    let options = WriterOptions {
        row_group_rows: 1,
        spill_dir: "/nowhere/at/all".into(),
    };
    let mut writer = FlushWriter::new(&layout, batch(&[]).schema(), options).unwrap();
    let error = writer.push(&batch(&[(1, 1)])).unwrap_err();
    assert!(error.to_string().contains("/nowhere/at/all"), "{error}");
}
