//! Reads a shard's state topic, and makes the fold that its manifest describes.
//!
//! It reads up to the high watermark that it found at its start, which it can reach only when every transaction that was
//! open then is over: nobody's half-written snapshot is taken for none.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use engine::fold::{Fold, Image, ImageRun};
use engine::plan::Query;
use runtime::log::{Consumer, ConsumerOptions, Event, Log, LogError, Offset, TopicPartition};

use super::SnapshotError;
use super::manifest::{self, HISTORY, Slice};
use super::shelf::{Part, Shelf, Shelved};

/// The most records in one poll.
const POLL_RECORDS: usize = 64;

/// A state topic's partition that is being read.
pub struct Restore {
    consumer: Option<Box<dyn Consumer>>,
    start: Offset,
    position: Offset,
    target: Offset,
    shard: i32,
    rows: HashMap<Vec<u8>, Vec<u8>>,
    manifest: Option<(Vec<u8>, Vec<u8>)>,
}

/// What was restored.
pub struct Restored {
    /// The state after all partials below [`Restored::offset`].
    pub fold: Fold,
    /// Where to go on reading partials.
    pub offset: Offset,
}

impl Restore {
    /// Begins to read. `client_id` is what the broker's logs call the reader.
    ///
    /// # Errors
    /// The log's.
    pub fn begin(
        log: &dyn Log,
        client_id: &str,
        partition: &TopicPartition,
    ) -> Result<Self, LogError> {
        let bounds = log.bounds(partition)?;
        let consumer = if bounds.start < bounds.end {
            let mut consumer = log.consumer(&ConsumerOptions {
                client_id: client_id.to_owned(),
                ..ConsumerOptions::new(format!("{client_id}-state"))
            })?;
            consumer.assign(&[(partition.clone(), bounds.start)])?;
            Some(consumer)
        } else {
            None
        };
        Ok(Self {
            consumer,
            start: bounds.start,
            position: bounds.start,
            target: bounds.end,
            shard: partition.partition,
            rows: HashMap::new(),
            manifest: None,
        })
    }

    /// Reads what is there, waiting up to `wait` for it. Whether all has been read.
    ///
    /// # Errors
    /// The log's. Those of class [`runtime::log::Class::Retry`] leave it usable.
    pub fn step(&mut self, wait: Duration) -> Result<bool, LogError> {
        let Some(consumer) = &mut self.consumer else {
            return Ok(true);
        };
        match consumer.poll(wait, POLL_RECORDS)? {
            Some(Event::Records(batch)) => {
                let manifest_key = manifest::key(self.shard);
                for (index, record) in batch.iter().enumerate() {
                    self.position = record.offset + 1;
                    let Some(key) = record.key else { continue };
                    if key == manifest_key.as_bytes() {
                        let header = batch.header(index, manifest::HEADER).unwrap_or_default();
                        self.manifest = record.value.map(|value| (header.to_vec(), value.to_vec()));
                        continue;
                    }
                    match record.value {
                        Some(value) => self.rows.insert(key.to_vec(), value.to_vec()),
                        None => self.rows.remove(key),
                    };
                }
            }
            Some(Event::End { position, .. }) => self.position = self.position.max(position),
            _ => {}
        }
        if self.position < self.target {
            return Ok(false);
        }
        if let Some(consumer) = self.consumer.take() {
            consumer.close(Duration::from_secs(1))?;
        }
        Ok(true)
    }

    /// How much of the topic has been read, from 0 to 1.
    pub fn fraction(&self) -> f64 {
        match self.target - self.start {
            0 => 1.0,
            all => (self.position.min(self.target) - self.start) as f64 / all as f64,
        }
    }

    /// The state that the topic holds, `None` if there is none; and what stands in it, for `writer` to go on with.
    ///
    /// # Errors
    /// The state is damaged, or is of another job or of another partials topic.
    pub fn finish(
        mut self,
        query: &Arc<Query>,
        fingerprint: u64,
        partials_topic_id: &str,
        writer: &str,
    ) -> Result<(Option<Restored>, Shelf), SnapshotError> {
        let mut shelf = Shelf::new(self.shard, writer);
        let Some((header, value)) = self.manifest.take() else {
            shelf.strays = self.strays();
            return Ok((None, shelf));
        };
        let (manifest, slices) = manifest::decode(&header, &value)?;
        if manifest.partials_topic_id != partials_topic_id {
            return Err(SnapshotError::PartialsTopic {
                was: manifest.partials_topic_id,
                is: partials_topic_id.to_owned(),
            });
        }
        let mut records = Vec::with_capacity(manifest.records.len());
        for named in &manifest.records {
            let value = self.rows.remove(named.key.as_bytes());
            let value = value.filter(|value| crc32fast::hash(value) == named.crc32);
            let value = value.ok_or_else(|| SnapshotError::Record {
                key: named.key.clone(),
            })?;
            let key: Arc<str> = named.key.as_str().into();
            let shelved = Shelved {
                crc32: named.crc32,
                rows: named.rows,
            };
            shelf.records.insert(Arc::clone(&key), shelved);
            records.push((key, manifest::decode_batches(&value)?));
        }
        let mut image = Image {
            head: manifest.head,
            runs: Vec::new(),
            history: None,
        };
        for (number, found) in by_number(slices) {
            let mut parts = Vec::with_capacity(found.len());
            let mut batches = Vec::with_capacity(found.len());
            for slice in &found {
                let (key, held) = &records[slice.record];
                let batch = held.get(slice.batch).ok_or_else(|| SnapshotError::Record {
                    key: key.to_string(),
                })?;
                parts.push(Part {
                    record: Arc::clone(key),
                    batch: slice.batch,
                    rows: batch.num_rows() as u64,
                });
                batches.push(batch);
            }
            let rows = whole(&batches)?;
            let first = found.into_iter().next();
            match (u64::try_from(number), first) {
                (Ok(number), Some(first)) => {
                    shelf.runs.insert(number, parts);
                    image.runs.push(ImageRun {
                        number,
                        place: first.place,
                        live: first.live,
                        rows,
                    });
                }
                _ if number == HISTORY => {
                    shelf.history = parts;
                    shelf.history_at = Some(image.head.counts.closed);
                    image.history = Some(rows);
                }
                _ => {
                    return Err(SnapshotError::Manifest {
                        detail: format!("it names batch {number}"),
                    });
                }
            }
        }
        shelf.strays = self.strays();
        let fold = Fold::restore(Arc::clone(query), fingerprint, image)?;
        let restored = Restored {
            fold,
            offset: manifest.offset,
        };
        Ok((Some(restored), shelf))
    }

    /// The records that no manifest names.
    fn strays(&self) -> Vec<Arc<str>> {
        let mut keys: Vec<Arc<str>> = self
            .rows
            .keys()
            .filter_map(|key| Some(std::str::from_utf8(key).ok()?.into()))
            .collect();
        keys.sort();
        keys
    }
}

/// The parts of each batch, in the order of their rows.
fn by_number(slices: Vec<Slice>) -> BTreeMap<i64, Vec<Slice>> {
    let mut by_number: BTreeMap<i64, Vec<Slice>> = BTreeMap::new();
    for slice in slices {
        by_number.entry(slice.number).or_default().push(slice);
    }
    by_number
}

fn whole(batches: &[&RecordBatch]) -> Result<RecordBatch, SnapshotError> {
    match batches {
        [one] => Ok((*one).clone()),
        several => {
            let schema = several.first().map(|first| first.schema());
            let schema = schema.ok_or_else(|| SnapshotError::Manifest {
                detail: "a batch has no parts".into(),
            })?;
            Ok(concat_batches(&schema, several.iter().copied())?)
        }
    }
}
