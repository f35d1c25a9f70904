//! The rows of one flush, on their way into Parquet files: one file for each Hive partition.
//!
//! ```text
//!   batches ──▶ fresh ──settle──▶ sorted by partition ─┬─ whole row groups ──▶ a temporary file per partition
//!                                                      └─ the rest ──▶ carried to the next settle
//!   finish ──▶ one PendingFile per partition ──encode──▶ bytes
//! ```
//!
//! - Nothing depends on time, memory or how records came in batches: the same rows in the same order give the same files,
//!   byte for byte. When a flush ends is decided elsewhere, for all its partitions together.
//! - A settle sorts what it carries again, so it waits until at least as much is fresh: each row is moved a few times only.
//! - Temporary files have no name, so that the system removes them even when the process is killed.

use std::fs::File;
use std::io::{Read as _, Seek as _, Write};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::Compression;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use crate::layout::{Layout, LayoutError, Partitioner};
use crate::plan::WRITER_VERSION;

/// A failure to write a flush locally.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The layout does not fit the schema.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Arrow can't sort the rows.
    #[error("rows can't be sorted into partitions: {0}")]
    Arrow(#[from] ArrowError),
    /// Parquet can't hold the rows.
    #[error("rows can't be written as Parquet: {0}")]
    Parquet(#[from] ParquetError),
    /// The folder for temporary files fails.
    #[error("a temporary file in {folder} can't be used: free space there, or set another folder")]
    Spill {
        /// The folder.
        folder: PathBuf,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
}

/// Where and how a flush is written.
#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// How many rows a row group has at most.
    pub row_group_rows: usize,
    /// The folder for temporary files.
    pub spill_dir: PathBuf,
}

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

/// Gathers the rows of one flush.
pub struct FlushWriter {
    options: WriterOptions,
    schema: SchemaRef,
    partitioner: Partitioner,
    fresh: Vec<(RecordBatch, Vec<u32>)>,
    fresh_rows: usize,
    fresh_bytes: usize,
    carried: Option<Sorted>,
    spilled: Vec<Option<Spill>>,
    rows: u64,
}

/// Rows sorted by partition: partition `p` has `ranges[p]` of the batch.
struct Sorted {
    batch: RecordBatch,
    ranges: Vec<std::ops::Range<usize>>,
}

struct Spill {
    writer: ArrowWriter<File>,
    rows: usize,
}

impl FlushWriter {
    /// A writer of rows of one schema.
    ///
    /// # Errors
    /// [`WriteError::Layout`] when the layout does not fit the schema, [`WriteError::Parquet`] when it has a type that
    /// Parquet lacks.
    pub fn new(
        layout: &Layout,
        schema: SchemaRef,
        options: WriterOptions,
    ) -> Result<Self, WriteError> {
        // an empty file tells whether Parquet can hold the schema
        drop(new_writer(Vec::new(), &schema, options.row_group_rows)?);
        Ok(Self {
            partitioner: Partitioner::new(layout, &schema)?,
            options,
            schema,
            fresh: Vec::new(),
            fresh_rows: 0,
            fresh_bytes: 0,
            carried: None,
            spilled: Vec::new(),
            rows: 0,
        })
    }

    /// Takes rows, in the order of their offsets.
    ///
    /// # Errors
    /// [`WriteError`]: the flush must be gathered again.
    pub fn push(&mut self, batch: &RecordBatch) -> Result<(), WriteError> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        let mut partitions = Vec::new();
        self.partitioner.assign(batch, &mut partitions)?;
        self.rows += batch.num_rows() as u64;
        self.fresh_rows += batch.num_rows();
        self.fresh_bytes += batch.get_array_memory_size();
        self.fresh.push((batch.clone(), partitions));
        let carried = self
            .carried
            .as_ref()
            .map_or(0, |carried| carried.batch.num_rows());
        if self.fresh_rows >= self.options.row_group_rows.max(carried) {
            self.settle()?;
        }
        Ok(())
    }

    /// How many rows were taken.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// How many Hive partitions they lie in so far.
    pub fn partitions(&self) -> usize {
        self.partitioner.len()
    }

    /// About how much memory the rows take that were not spilled.
    pub fn memory_bytes(&self) -> usize {
        let carried = self
            .carried
            .as_ref()
            .map_or(0, |carried| carried.batch.get_array_memory_size());
        let spilled: usize = self
            .spilled
            .iter()
            .flatten()
            .map(|spill| spill.writer.memory_size())
            .sum();
        // a partition's folder, its number and its range
        self.fresh_bytes + 4 * self.fresh_rows + carried + spilled + 200 * self.partitioner.len()
    }

    /// Sorts all rows in memory by partition and spills the whole row groups among them.
    fn settle(&mut self) -> Result<(), WriteError> {
        let carried = self.carried.take();
        let fresh = std::mem::take(&mut self.fresh);
        self.fresh_rows = 0;
        self.fresh_bytes = 0;

        // rows of each partition, in order: first the carried ones
        let mut rows: Vec<Vec<(usize, usize)>> = vec![Vec::new(); self.partitioner.len()];
        let mut batches = Vec::with_capacity(fresh.len() + 1);
        if let Some(Sorted { batch, ranges }) = &carried {
            for (partition, range) in ranges.iter().enumerate() {
                rows[partition].extend(range.clone().map(|row| (0, row)));
            }
            batches.push(batch);
        }
        for (batch, partitions) in &fresh {
            for (row, partition) in partitions.iter().enumerate() {
                rows[*partition as usize].push((batches.len(), row));
            }
            batches.push(batch);
        }

        let group = self.options.row_group_rows.max(1);
        let mut rest = Vec::new();
        let mut ranges = Vec::with_capacity(rows.len());
        for (partition, rows) in rows.iter().enumerate() {
            let whole = rows.len() / group * group;
            for rows in rows[..whole].chunks(group) {
                let batch = interleave_record_batch(&batches, rows)?;
                self.spill(partition, &batch)?;
            }
            let from = rest.len();
            rest.extend_from_slice(&rows[whole..]);
            ranges.push(from..rest.len());
        }
        if !rest.is_empty() {
            self.carried = Some(Sorted {
                batch: interleave_record_batch(&batches, &rest)?,
                ranges,
            });
        }
        Ok(())
    }

    fn spill(&mut self, partition: usize, batch: &RecordBatch) -> Result<(), WriteError> {
        if self.spilled.len() <= partition {
            self.spilled.resize_with(partition + 1, || None);
        }
        let spill = match &mut self.spilled[partition] {
            Some(spill) => spill,
            empty => {
                let folder = &self.options.spill_dir;
                let file = tempfile::tempfile_in(folder).map_err(|source| WriteError::Spill {
                    folder: folder.clone(),
                    source,
                })?;
                let writer = new_writer(file, &self.schema, self.options.row_group_rows)?;
                empty.insert(Spill { writer, rows: 0 })
            }
        };
        spill.writer.write(batch)?;
        spill.writer.flush()?;
        spill.rows += batch.num_rows();
        Ok(())
    }

    /// Ends the flush: one file for each partition, in the order of their folders.
    ///
    /// # Errors
    /// [`WriteError`]: the flush must be gathered again.
    pub fn finish(mut self) -> Result<Vec<PendingFile>, WriteError> {
        self.settle()?;
        self.spilled.resize_with(self.partitioner.len(), || None);
        let mut files = Vec::with_capacity(self.partitioner.len());
        for (partition, spill) in self.spilled.into_iter().enumerate() {
            let rest = self.carried.as_ref().and_then(|Sorted { batch, ranges }| {
                let range = ranges.get(partition)?;
                (!range.is_empty()).then(|| batch.slice(range.start, range.len()))
            });
            files.push(PendingFile {
                folder: self
                    .partitioner
                    .path(u32::try_from(partition).unwrap_or(u32::MAX))
                    .to_owned(),
                rows: spill.as_ref().map_or(0, |spill| spill.rows)
                    + rest.as_ref().map_or(0, RecordBatch::num_rows),
                schema: self.schema.clone(),
                options: self.options.clone(),
                spill,
                rest,
            });
        }
        files.sort_by(|a, b| a.folder.cmp(&b.folder));
        Ok(files)
    }
}

/// A file whose rows are known and which is not encoded yet.
pub struct PendingFile {
    /// The folders of its Hive partition.
    pub folder: String,
    /// How many rows it has.
    pub rows: usize,
    schema: SchemaRef,
    options: WriterOptions,
    spill: Option<Spill>,
    rest: Option<RecordBatch>,
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

fn new_writer<W: Write + Send>(
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::collections::BTreeMap;

    use arrow::array::{ArrayRef, AsArray, Int32Array, Int64Array, StringArray};
    use arrow::datatypes::{Int32Type, Int64Type};
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use proptest::prelude::*;

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
}
