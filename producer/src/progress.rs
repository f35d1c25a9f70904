//! How far a run is, for whoever watches it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use schemas::record::Position;

/// How far a run is. Everything but [`Progress::in_hand`] counts what is committed, over all runs of the input set.
#[derive(Debug, Default)]
pub struct Progress {
    read: AtomicU64,
    rejected: AtomicU64,
    delivered: AtomicU64,
    bytes: AtomicU64,
    total_bytes: AtomicU64,
    in_hand: AtomicU64,
    place: Mutex<(String, u64)>,
}

impl Progress {
    /// Rows taken.
    pub fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// Rows that became dead letters.
    pub fn rejected(&self) -> u64 {
        self.rejected.load(Ordering::Relaxed)
    }

    /// Rows sent to the topic.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// Bytes of input taken.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Bytes of input in all; 0 where that is not known.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    /// Rows that were read and are not committed: a process that ends now leaves them to the next start.
    pub fn in_hand(&self) -> u64 {
        self.in_hand.load(Ordering::Relaxed)
    }

    /// The file that committed rows end in, and how many of its lines they take.
    pub fn place(&self) -> (String, u64) {
        self.place
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub(crate) fn set_total_bytes(&self, bytes: u64) {
        self.total_bytes.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn set_in_hand(&self, rows: u64) {
        self.in_hand.store(rows, Ordering::Relaxed);
    }

    pub(crate) fn committed(&self, position: &Position, bytes_before: u64) {
        self.read
            .store(position.rows_read.cast_unsigned(), Ordering::Relaxed);
        self.rejected
            .store(position.rows_rejected.cast_unsigned(), Ordering::Relaxed);
        self.delivered
            .store(position.rows_delivered.cast_unsigned(), Ordering::Relaxed);
        self.bytes.store(
            bytes_before + position.byte.cast_unsigned(),
            Ordering::Relaxed,
        );
        self.in_hand.store(0, Ordering::Relaxed);
        let place = (position.file.clone(), position.line.cast_unsigned());
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}
