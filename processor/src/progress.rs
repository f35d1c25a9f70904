//! What can be seen of a running processor: by the demo's progress line, and later by its pages.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the workers of a process last said of their tasks.
#[derive(Debug, Default)]
pub struct Progress {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    scans: BTreeMap<(String, i32), ScanProgress>,
    shards: BTreeMap<(String, i32), ShardProgress>,
}

/// One source partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScanProgress {
    /// Records taken so far.
    pub rows_in: u64,
    /// Dead letters among them.
    pub dead: u64,
    /// The partition's watermark, in milliseconds since 1970.
    pub watermark: Option<i64>,
}

/// One shard of one query.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ShardProgress {
    /// Row × window pairs merged.
    pub merged: u64,
    /// Row × window pairs that were late.
    pub late: u64,
    /// Windows closed.
    pub closed: u64,
    /// Windows open now.
    pub open: u64,
    /// Result rows emitted.
    pub emitted: u64,
    /// The shard's watermark, in milliseconds since 1970.
    pub watermark: Option<i64>,
    /// How far its state is restored, from 0 to 1.
    pub restored: f64,
}

/// All of it, added up.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Totals {
    /// Records taken from sources.
    pub rows_in: u64,
    /// Dead letters among them.
    pub dead: u64,
    /// Row × window pairs merged.
    pub merged: u64,
    /// Row × window pairs that were late.
    pub late: u64,
    /// Windows closed, over all shards.
    pub closed: u64,
    /// Windows open now, over all shards.
    pub open: u64,
    /// Result rows emitted.
    pub emitted: u64,
    /// The least watermark of the shards; `None` while one has none.
    pub watermark: Option<i64>,
    /// The least restored share.
    pub restored: f64,
}

impl Progress {
    /// Takes in what a scan says.
    pub fn scan(&self, topic: &str, partition: i32, progress: ScanProgress) {
        self.lock()
            .scans
            .insert((topic.into(), partition), progress);
    }

    /// Takes in what a shard says.
    pub fn shard(&self, query: &str, shard: i32, progress: ShardProgress) {
        self.lock().shards.insert((query.into(), shard), progress);
    }

    /// All shards, by query and number.
    pub fn shards(&self) -> BTreeMap<(String, i32), ShardProgress> {
        self.lock().shards.clone()
    }

    /// All of it, added up.
    pub fn totals(&self) -> Totals {
        let inner = self.lock();
        let mut totals = Totals {
            restored: 1.0,
            ..Totals::default()
        };
        for scan in inner.scans.values() {
            totals.rows_in += scan.rows_in;
            totals.dead += scan.dead;
        }
        for shard in inner.shards.values() {
            totals.merged += shard.merged;
            totals.late += shard.late;
            totals.closed += shard.closed;
            totals.open += shard.open;
            totals.emitted += shard.emitted;
            totals.restored = totals.restored.min(shard.restored);
        }
        totals.watermark = inner
            .shards
            .values()
            .map(|shard| shard.watermark)
            .min()
            .flatten();
        totals
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The maps are whole after every statement, so that a panic elsewhere leaves them usable.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
