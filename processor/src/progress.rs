//! What can be seen of a running processor: by the demo's progress line, by its page of windows, and by its workers of each
//! other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::fold::OpenWindow;
use engine::watermark::{PartitionTime, Watermark};

use crate::query::views::Views;

/// What the workers of a process last said of their tasks.
#[derive(Debug, Default)]
pub struct Progress {
    inner: Mutex<Inner>,
    /// How often open windows were asked for.
    asked: AtomicU64,
    /// State, for those who ask for it.
    pub views: Views,
}

#[derive(Debug, Default)]
struct Inner {
    scans: BTreeMap<(String, i32), ScanProgress>,
    shards: BTreeMap<(String, i32), ShardProgress>,
    /// The source partitions that this process reads.
    here: BTreeMap<(String, i32), Reading>,
    /// What shards heard of source partitions.
    heard: BTreeMap<(String, i32), Heard>,
    windows: BTreeMap<(String, i32), ShardWindows>,
    /// Since when, by the clock, state has been restored without a break.
    restoring_since_ms: Option<i64>,
    /// Workers that their group has not given partitions yet, nor said that there are none for them.
    joining: BTreeSet<String>,
}

/// A source partition that a worker of this process reads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Its watermark, in milliseconds since 1970.
    pub watermark: Option<i64>,
    /// Whether all that there was has been read.
    pub at_end: bool,
    /// Whether it has brought nothing for the idle timeout.
    pub idle: bool,
    /// Whether it is paused because it is too far ahead of others.
    pub paused: bool,
}

/// What the partials say of a source partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Its time.
    pub time: PartitionTime,
    /// Up to which position of the source.
    pub position: i64,
    /// When that was news, by the clock.
    pub changed_ms: i64,
}

/// A shard's open windows, and what holds them open.
#[derive(Clone, Debug, Default)]
pub struct ShardWindows {
    /// The source topic.
    pub topic: String,
    /// Which question this answers; 0 is none.
    pub answers: u64,
    /// The windows that close first, in order of their ends.
    pub open: Vec<OpenWindow>,
    /// How many are open in all.
    pub open_count: usize,
    /// How far event time has come, and by which partitions.
    pub watermark: Watermark,
    /// How long a window stays open behind its end, in milliseconds.
    pub grace_ms: i64,
    /// How far the shard's state is restored, from 0 to 1.
    pub restored: f64,
    /// When this was so, by the clock.
    pub at_ms: i64,
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

    /// Takes in how far a source partition is that is read here.
    pub fn reading(&self, topic: &str, partition: i32, reading: Reading) {
        self.lock().here.insert((topic.into(), partition), reading);
    }

    /// Forgets a source partition, or a shard, that is no longer here.
    pub fn gone(&self, topic: &str, query: Option<&str>, partition: i32) {
        let mut inner = self.lock();
        match query {
            None => {
                inner.here.remove(&(topic.to_owned(), partition));
            }
            Some(query) => {
                let shard = (query.to_owned(), partition);
                inner.windows.remove(&shard);
                // Whoever has it now restores it.
                if let Some(shard) = inner.shards.get_mut(&shard) {
                    shard.restored = 1.0;
                }
                self.views.gone(query, partition);
            }
        }
    }

    /// The source partitions that are read here, by topic and number.
    pub fn here(&self) -> BTreeMap<(String, i32), Reading> {
        self.lock().here.clone()
    }

    /// Takes in what a shard heard of a source partition, unless another one here has heard later things.
    pub fn hear(
        &self,
        topic: &str,
        partition: i32,
        time: PartitionTime,
        position: i64,
        now_ms: i64,
    ) {
        let mut inner = self.lock();
        let heard = inner
            .heard
            .entry((topic.into(), partition))
            .or_insert(Heard {
                time,
                position,
                changed_ms: now_ms,
            });
        // At one position a mark can still follow: that the partition is idle, or has ended.
        let later = position > heard.position
            || (position == heard.position
                && (time.idle, time.ended) > (heard.time.idle, heard.time.ended));
        if later {
            *heard = Heard {
                time,
                position,
                changed_ms: now_ms,
            };
        }
    }

    /// What shards here heard of source partitions, by topic and number.
    pub fn heard(&self) -> BTreeMap<(String, i32), Heard> {
        self.lock().heard.clone()
    }

    /// Asks the workers for their open windows: there may be too many to show them all the time.
    pub fn ask_windows(&self) -> u64 {
        self.asked.fetch_add(1, Ordering::SeqCst) + 1
    }

    /// The last question for open windows.
    pub fn windows_asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Takes in a shard's open windows.
    pub fn show_windows(&self, query: &str, shard: i32, windows: ShardWindows) {
        self.lock().windows.insert((query.into(), shard), windows);
    }

    /// The open windows of the shards that are here, by query and number.
    pub fn windows(&self) -> BTreeMap<(String, i32), ShardWindows> {
        self.lock().windows.clone()
    }

    /// The shards that are here, by query and number.
    pub fn shards_here(&self) -> Vec<(String, i32)> {
        self.lock().windows.keys().cloned().collect()
    }

    /// What was last heard of all shards that have ever been here, by query and number.
    pub fn shards(&self) -> BTreeMap<(String, i32), ShardProgress> {
        self.lock().shards.clone()
    }

    /// Notes that a worker, by its slot, waits for its group: until it has joined, nobody knows what there is to be restored.
    pub fn joins(&self, slot: &str) {
        self.lock().joining.insert(slot.into());
    }

    /// Notes that a worker's group has answered, and that what it gave is under way.
    pub fn joined(&self, slot: &str) {
        self.lock().joining.remove(slot);
    }

    /// Whether a worker still waits for its group.
    pub fn joining(&self) -> bool {
        !self.lock().joining.is_empty()
    }

    /// How far restoring is, as of now by the clock: the least share, from 0 to 1, and how many milliseconds it will go on
    /// at its pace so far. `None` while nothing is restored.
    pub fn restoring(&self, now_ms: i64) -> Option<(f64, Option<i64>)> {
        let restored = self.totals().restored;
        let mut inner = self.lock();
        if restored >= 1.0 {
            inner.restoring_since_ms = None;
            return None;
        }
        let since = *inner.restoring_since_ms.get_or_insert(now_ms);
        let taken = now_ms.saturating_sub(since) as f64;
        let to_go = (restored > 0.0).then(|| (taken * (1.0 - restored) / restored) as i64);
        Some((restored, to_go))
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
