//! What is in hand between two commits: batches, their documents on the way to the target, and dead letters.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use runtime::log::{Batch, TopicPartition};

use super::letters::Letter;
use super::topic::Decoded;
use crate::document::Document;

/// What a document takes in memory besides its text.
const DOCUMENT_OVERHEAD_BYTES: usize = 128;

/// A document that is neither stored nor rejected.
pub(super) struct Item {
    chunk: u64,
    /// The place of its record in its batch.
    place: usize,
    pub document: Document,
}

/// A batch as it was read, kept for the bytes of its records.
struct Chunk {
    batch: Batch,
    /// How many documents wait.
    waiting: usize,
    bytes: usize,
    docs: u64,
    dead: u64,
}

/// What became of a partition's records in this round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub docs: u64,
    pub dead: u64,
}

#[derive(Default)]
pub(super) struct Round {
    chunks: BTreeMap<u64, Chunk>,
    next: u64,
    queue: VecDeque<Item>,
    letters: Vec<Letter>,
    bytes: usize,
    opened: Option<Instant>,
}

impl Round {
    pub fn add(&mut self, batch: Batch, decoded: Decoded, now: Instant) {
        let id = self.next;
        self.next += 1;
        self.opened.get_or_insert(now);
        let raw: usize = batch
            .iter()
            .map(|record| record.value.map_or(0, <[u8]>::len))
            .sum();
        let made: usize = decoded
            .documents
            .iter()
            .map(|(_, document)| document.bytes() + DOCUMENT_OVERHEAD_BYTES)
            .sum();
        let chunk = Chunk {
            waiting: decoded.documents.len(),
            bytes: raw + made,
            docs: 0,
            dead: decoded.letters.len() as u64,
            batch,
        };
        self.bytes += chunk.bytes;
        self.chunks.insert(id, chunk);
        self.letters.extend(decoded.letters);
        let items = decoded.documents.into_iter().map(|(place, document)| Item {
            chunk: id,
            place,
            document,
        });
        self.queue.extend(items);
    }

    /// The documents for the next bulk: at least one if any waits.
    pub fn next_bulk(&mut self, max_bytes: usize, max_documents: usize) -> Vec<Item> {
        let mut bulk = Vec::new();
        let mut bytes = 0;
        while let Some(item) = self.queue.front() {
            bytes += item.document.bytes();
            if !bulk.is_empty() && (bytes > max_bytes || bulk.len() >= max_documents) {
                break;
            }
            bulk.extend(self.queue.pop_front());
        }
        bulk
    }

    /// Documents that must be sent again, before the others.
    pub fn put_back(&mut self, items: Vec<Item>) {
        for item in items.into_iter().rev() {
            self.queue.push_front(item);
        }
    }

    /// A document that must be sent again, behind the others.
    pub fn again(&mut self, item: Item) {
        self.queue.push_back(item);
    }

    /// A document is stored.
    pub fn settle(&mut self, item: &Item) {
        if let Some(chunk) = self.chunks.get_mut(&item.chunk) {
            chunk.waiting -= 1;
            chunk.docs += 1;
        }
    }

    /// A document can't be stored.
    pub fn reject(&mut self, item: &Item, reason: &str) {
        if let Some(chunk) = self.chunks.get_mut(&item.chunk) {
            chunk.waiting -= 1;
            chunk.dead += 1;
            self.letters.push(Letter::rejected(
                &chunk.batch,
                item.place,
                &item.document,
                reason,
            ));
        }
    }

    /// Forgets what is in hand of these partitions.
    pub fn forget(&mut self, partitions: &BTreeSet<TopicPartition>) {
        self.chunks
            .retain(|_, chunk| !partitions.contains(&chunk.batch.partition));
        let chunks = &self.chunks;
        self.queue.retain(|item| chunks.contains_key(&item.chunk));
        self.letters
            .retain(|letter| !partitions.contains(&letter.partition));
        self.bytes = self.chunks.values().map(|chunk| chunk.bytes).sum();
        if self.chunks.is_empty() {
            self.opened = None;
        }
    }

    /// Everything is committed.
    pub fn clear(&mut self) {
        *self = Self {
            next: self.next,
            ..Self::default()
        };
    }

    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// How many documents wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// When its first batch came.
    pub fn opened(&self) -> Option<Instant> {
        self.opened
    }

    pub fn letters(&self) -> &[Letter] {
        &self.letters
    }

    /// The dead letters are written.
    pub fn letters_sent(&mut self) {
        self.letters.clear();
    }

    /// What became of each partition's records. Nothing waits.
    pub fn counts(&self) -> BTreeMap<TopicPartition, Count> {
        debug_assert!(
            self.queue.is_empty(),
            "counts are taken when every document is settled"
        );
        let mut counts: BTreeMap<TopicPartition, Count> = BTreeMap::new();
        for chunk in self.chunks.values() {
            debug_assert_eq!(chunk.waiting, 0, "an empty queue means that nothing waits");
            let count = counts.entry(chunk.batch.partition.clone()).or_default();
            count.docs += chunk.docs;
            count.dead += chunk.dead;
        }
        counts
    }
}
