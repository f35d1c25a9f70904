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

mod file;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use arrow::array::RecordBatch;
use arrow::compute::interleave_record_batch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use parquet::errors::ParquetError;

pub use self::file::{Origin, PendingFile};
use self::file::{Spill, new_writer};
use crate::layout::{Layout, LayoutError, Partitioner};

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
    #[error(
        "a temporary file in {folder} can't be used: free space there, or set sink_s3.spill_dir to another one"
    )]
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
