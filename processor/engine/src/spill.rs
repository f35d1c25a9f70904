//! Where large batches of the state go: a port. Whoever runs a fold decides what stays in memory and what goes elsewhere;
//! nothing that a fold gives depends on it.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef};
use arrow::record_batch::RecordBatch;

/// Takes batches that will not change any more.
pub trait Spill: Debug + Send + Sync {
    /// Keeps a batch, in memory or elsewhere, until the last copy of what it returns is gone.
    ///
    /// # Errors
    /// There is no room for it.
    fn keep(&self, rows: RecordBatch) -> Result<Arc<dyn Kept>, SpillError>;
}

/// A batch that is kept.
pub trait Kept: Debug + Send + Sync {
    /// Its rows.
    ///
    /// # Errors
    /// They can't be read back.
    fn rows(&self) -> Result<RecordBatch, SpillError>;
}

/// A batch can't be kept, or not be read back.
#[derive(Debug, thiserror::Error)]
#[error("rows of the state can't be kept: {detail}")]
pub struct SpillError {
    /// Why, and what to do.
    pub detail: String,
    /// The cause.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Keeps everything in memory.
#[derive(Clone, Copy, Debug, Default)]
pub struct InMemory;

impl Spill for InMemory {
    fn keep(&self, rows: RecordBatch) -> Result<Arc<dyn Kept>, SpillError> {
        Ok(Arc::new(rows))
    }
}

impl Kept for RecordBatch {
    fn rows(&self) -> Result<RecordBatch, SpillError> {
        Ok(self.clone())
    }
}

/// What rows take in memory: of a batch that shares its buffers with others, its own part.
pub fn bytes_of(rows: &RecordBatch) -> usize {
    let count = rows.num_rows();
    let bytes = |column: &ArrayRef| {
        if let Some(width) = column.data_type().primitive_width() {
            return count * width + column.nulls().map_or(0, |_| count.div_ceil(8));
        }
        let data = column.to_data();
        data.get_slice_memory_size()
            .unwrap_or_else(|_| data.get_buffer_memory_size())
    };
    rows.columns().iter().map(bytes).sum()
}
