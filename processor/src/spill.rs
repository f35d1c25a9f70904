//! Batches of the state that memory has no room for go to local disk.
//!
//! ```text
//!   budget ─▶ in memory, counted, until it is full
//!        ├──▶ segment 0   unlinked temporary file, appended to up to 64 MiB; gone when none of its batches is needed
//!        └──▶ segment 1   …
//! ```
//!
//! The files have no names: what a process leaves behind when it is killed, the system takes away. Nothing in them is
//! needed after a restart, which reads its state from the log.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::record_batch::RecordBatch;
use engine::spill::{Kept, Spill, SpillError, bytes_of};
use prometheus::IntGauge;

use crate::snapshot::manifest::{decode_batches, encode_batches};

/// Up to which size a file is appended to.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// What is smaller stays in memory: it will soon be merged with others.
const SMALL_BYTES: usize = 32 * 1024;
/// About what stands beside a column's values.
const COLUMN_BYTES: usize = 128;

/// Keeps batches in memory up to a budget, and others on disk.
#[derive(Debug)]
pub struct DiskSpill {
    folder: PathBuf,
    budget_bytes: usize,
    memory: Arc<Used>,
    disk: Arc<Used>,
    open: Mutex<Option<(Arc<File>, u64)>>,
}

/// How many bytes are in use somewhere.
#[derive(Debug)]
struct Used {
    bytes: AtomicUsize,
    shown: IntGauge,
}

impl Used {
    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.shown.add(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    fn remove(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.shown.sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }
}

#[derive(Debug)]
struct InMemory {
    rows: RecordBatch,
    bytes: usize,
    used: Arc<Used>,
}

impl Kept for InMemory {
    fn rows(&self) -> Result<RecordBatch, SpillError> {
        Ok(self.rows.clone())
    }
}

impl Drop for InMemory {
    fn drop(&mut self) {
        self.used.remove(self.bytes);
    }
}

#[derive(Debug)]
struct OnDisk {
    segment: Arc<File>,
    at: u64,
    bytes: usize,
    used: Arc<Used>,
}

impl Kept for OnDisk {
    fn rows(&self) -> Result<RecordBatch, SpillError> {
        let mut bytes = vec![0; self.bytes];
        self.segment
            .read_exact_at(&mut bytes, self.at)
            .map_err(|error| failed("a temporary file can't be read", error))?;
        let batches =
            decode_batches(&bytes).map_err(|error| failed("a temporary file is damaged", error))?;
        match <[RecordBatch; 1]>::try_from(batches) {
            Ok([rows]) => Ok(rows),
            Err(_) => Err(SpillError {
                detail: "a temporary file is damaged".into(),
                source: None,
            }),
        }
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        self.used.remove(self.bytes);
    }
}

fn failed(
    detail: impl Into<String>,
    source: impl std::error::Error + Send + Sync + 'static,
) -> SpillError {
    SpillError {
        detail: detail.into(),
        source: Some(Box::new(source)),
    }
}

impl DiskSpill {
    /// In memory up to `budget_bytes`; then in files without names in `folder`. The gauges show how many bytes are where.
    pub fn new(folder: PathBuf, budget_bytes: usize, memory: IntGauge, disk: IntGauge) -> Self {
        let used = |shown| {
            Arc::new(Used {
                bytes: AtomicUsize::new(0),
                shown,
            })
        };
        Self {
            folder,
            budget_bytes,
            memory: used(memory),
            disk: used(disk),
            open: Mutex::new(None),
        }
    }

    fn write(&self, rows: &RecordBatch) -> Result<OnDisk, SpillError> {
        let value = encode_batches(std::slice::from_ref(rows))
            .map_err(|error| failed("rows can't be encoded", error))?;
        let bad_folder = |error| {
            let folder = self.folder.display();
            failed(
                format!(
                    "a temporary file in {folder} can't be used: free space there, or name another folder with processor.spill_dir"
                ),
                error,
            )
        };
        // Whoever panicked holding it has left a segment whose end is unknown; the next one begins a new one.
        let mut open = self.open.lock().unwrap_or_else(|poisoned| {
            let mut open = PoisonError::into_inner(poisoned);
            *open = None;
            open
        });
        let (segment, at) = match open.take().filter(|(_, end)| *end < SEGMENT_BYTES) {
            Some(open) => open,
            None => (
                Arc::new(tempfile::tempfile_in(&self.folder).map_err(bad_folder)?),
                0,
            ),
        };
        segment.write_all_at(&value, at).map_err(bad_folder)?;
        *open = Some((Arc::clone(&segment), at + value.len() as u64));
        self.disk.add(value.len());
        Ok(OnDisk {
            segment,
            at,
            bytes: value.len(),
            used: Arc::clone(&self.disk),
        })
    }
}

impl Spill for DiskSpill {
    fn keep(&self, rows: RecordBatch) -> Result<Arc<dyn Kept>, SpillError> {
        let bytes = bytes_of(&rows) + rows.num_columns() * COLUMN_BYTES;
        let full = self.memory.bytes.load(Ordering::Relaxed) + bytes > self.budget_bytes;
        if full && bytes > SMALL_BYTES {
            return Ok(Arc::new(self.write(&rows)?));
        }
        self.memory.add(bytes);
        Ok(Arc::new(InMemory {
            rows,
            bytes,
            used: Arc::clone(&self.memory),
        }))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    use arrow::array::{ArrayRef, Int64Array};

    fn rows(from: i64) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + 65_536));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    }

    #[test]
    fn what_memory_has_no_room_for_comes_back_from_disk_and_goes_with_its_last_copy() {
        let folder = tempfile::tempdir().unwrap();
        let gauge = |name| IntGauge::new(name, "bytes").unwrap();
        let (memory, disk) = (gauge("memory"), gauge("disk"));
        let budget = 2 * rows(0).get_array_memory_size() + 100;
        let spill = DiskSpill::new(folder.path().into(), budget, memory.clone(), disk.clone());
        let kept: Vec<_> = (0..8).map(|n| spill.keep(rows(n)).unwrap()).collect();
        assert!(memory.get() as usize <= budget);
        assert!(disk.get() > 0);
        for (kept, n) in kept.iter().zip(0..) {
            assert_eq!(kept.rows().unwrap(), rows(n));
        }
        // The files have no names.
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        drop(kept);
        assert_eq!((memory.get(), disk.get()), (0, 0));
    }

    #[test]
    fn a_folder_that_can_not_be_written_is_named() {
        let gauge = |name| IntGauge::new(name, "bytes").unwrap();
        let spill = DiskSpill::new("/no/such/folder".into(), 0, gauge("m"), gauge("d"));
        let error = spill.keep(rows(0)).unwrap_err();
        assert!(error.detail.contains("/no/such/folder"), "{error}");
        assert!(error.detail.contains("processor.spill_dir"), "{error}");
    }
}
