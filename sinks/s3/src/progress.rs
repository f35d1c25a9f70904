//! How far the sink is, for those who watch.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counts of what this run has committed, readable while it goes on.
#[derive(Debug, Default)]
pub struct Progress {
    pub(crate) read: AtomicU64,
    pub(crate) rows: AtomicU64,
    pub(crate) dead: AtomicU64,
    pub(crate) files: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) flushes: AtomicU64,
}

/// [`Progress`] at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records read, those read again included.
    pub read: u64,
    /// Rows in committed files.
    pub rows: u64,
    /// Committed dead letters.
    pub dead: u64,
    /// Committed files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Committed flushes.
    pub flushes: u64,
}

impl Progress {
    /// The counts now.
    pub fn counts(&self) -> Counts {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            read: load(&self.read),
            rows: load(&self.rows),
            dead: load(&self.dead),
            files: load(&self.files),
            bytes: load(&self.bytes),
            flushes: load(&self.flushes),
        }
    }
}

pub(crate) fn add(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}
