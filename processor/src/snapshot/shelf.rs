//! What stands in the state topic of a shard, as its owner knows it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::manifest::Named;

/// The records of a shard's state that the manifest names, and where its batches are in them.
#[derive(Clone, Debug)]
pub struct Shelf {
    shard: i32,
    /// A name that no other writer has.
    writer: Arc<str>,
    /// The number of the next record.
    next: u64,
    pub(super) records: BTreeMap<Arc<str>, Shelved>,
    /// By batch.
    pub(super) runs: BTreeMap<u64, Vec<Part>>,
    pub(super) history: Vec<Part>,
    /// How many windows were closed when the history was written: it changes with each of them.
    pub(super) history_at: Option<u64>,
    /// Records that no manifest names: a writer died before it came to one.
    pub(super) strays: Vec<Arc<str>>,
}

/// A record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shelved {
    pub(super) crc32: u32,
    pub(super) rows: u64,
}

/// Where a part of a batch is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) record: Arc<str>,
    pub(super) batch: usize,
    pub(super) rows: u64,
}

impl Shelf {
    /// An empty one, of a writer whose name nobody else has or had.
    pub fn new(shard: i32, writer: &str) -> Self {
        Self {
            shard,
            writer: writer.into(),
            next: 0,
            records: BTreeMap::new(),
            runs: BTreeMap::new(),
            history: Vec::new(),
            history_at: None,
            strays: Vec::new(),
        }
    }

    /// The key of the next record of rows.
    pub(super) fn next_key(&mut self) -> Arc<str> {
        let key = format!("rows/{}/{}/{}", self.shard, self.writer, self.next);
        self.next += 1;
        key.into()
    }

    /// The shard.
    pub(super) fn shard(&self) -> i32 {
        self.shard
    }

    /// How many records there are, and how many rows in them.
    pub fn size(&self) -> (usize, u64) {
        let rows = self.records.values().map(|record| record.rows).sum();
        (self.records.len(), rows)
    }

    /// The records in the order of a manifest, and the place there of each.
    pub(super) fn named(&self) -> (Vec<Named>, BTreeMap<Arc<str>, usize>) {
        let places = self.records.keys().cloned().zip(0..).collect();
        let named = self
            .records
            .iter()
            .map(|(key, record)| Named {
                key: key.to_string(),
                crc32: record.crc32,
                rows: record.rows,
            })
            .collect();
        (named, places)
    }
}
