//! Reads a shard's state topic, and makes the fold that its manifest describes.
//!
//! It reads up to the high watermark that it found at its start, which it can reach only when every transaction that was
//! open then is over: nobody's half-written snapshot is taken for none.

use std::collections::{HashMap, VecDeque};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;
use engine::fold::{Fold, Image, ImageRun};
use engine::spill::Spill;
use runtime::log::{Consumer, ConsumerOptions, Event, Log, LogError, Offset, TopicPartition};

use super::SnapshotError;
use super::manifest::{self, HISTORY, Slice};
use super::shelf::{Part, Shelf, Shelved};
use crate::format;
use crate::job::JobQuery;
use tempfile::SpooledTempFile;

/// The most records in one poll.
const POLL_RECORDS: usize = 64;
/// How much of the state topic is held in memory while it is read; more goes to disk.
const SPOOL_BYTES: usize = 32 * 1024 * 1024;

/// A state topic's partition that is being read.
pub struct Restore {
    consumer: Option<Box<dyn Consumer>>,
    start: Offset,
    position: Offset,
    target: Offset,
    shard: i32,
    /// Where the value of each key is in `spool`, and how long it is.
    rows: HashMap<Vec<u8>, (u64, usize)>,
    spool: SpooledTempFile,
    spooled: u64,
    manifest: Option<Written>,
}

/// A manifest as it was read.
struct Written {
    header: Vec<u8>,
    checksum: Option<Vec<u8>>,
    value: Vec<u8>,
}

/// Why reading can't go on.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What was read can't be kept.
    #[error(
        "a temporary file can't be written: free space there, or name another folder with processor.spill_dir"
    )]
    Spool(#[from] std::io::Error),
}

/// What was restored.
pub struct Restored {
    /// The state after all partials below [`Restored::offset`].
    pub fold: Fold,
    /// Where to go on reading partials.
    pub offset: Offset,
}

impl Restore {
    /// Begins to read. `client_id` is what the broker's logs call the reader; what is read goes to a file without a name in
    /// `folder` when it gets large.
    ///
    /// # Errors
    /// The log's.
    pub fn begin(
        log: &dyn Log,
        client_id: &str,
        partition: &TopicPartition,
        folder: &Path,
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
            spool: tempfile::spooled_tempfile_in(SPOOL_BYTES, folder),
            spooled: 0,
            manifest: None,
        })
    }

    /// Reads what is there, waiting up to `wait` for it. Whether all has been read.
    ///
    /// # Errors
    /// The log's, of which those of class [`runtime::log::Class::Retry`] leave it usable; or there is no room on disk.
    pub fn step(&mut self, wait: Duration) -> Result<bool, RestoreError> {
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
                        let checksum = batch.header(index, format::CHECKSUM);
                        self.manifest = record.value.map(|value| Written {
                            header: header.to_vec(),
                            checksum: checksum.map(<[u8]>::to_vec),
                            value: value.to_vec(),
                        });
                        continue;
                    }
                    let Some(value) = record.value else {
                        self.rows.remove(key);
                        continue;
                    };
                    self.spool.write_all(value)?;
                    self.rows.insert(key.to_vec(), (self.spooled, value.len()));
                    self.spooled += value.len() as u64;
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
    /// The state is damaged, is of another job or of another partials topic, or is in a version that is not read.
    pub fn finish(
        mut self,
        query: &JobQuery,
        partials_topic_id: &str,
        writer: &str,
        spill: &Arc<dyn Spill>,
    ) -> Result<(Option<Restored>, Shelf), SnapshotError> {
        let mut shelf = Shelf::new(self.shard, writer);
        let Some(found) = self.manifest.take() else {
            shelf.strays = self.strays();
            return Ok((None, shelf));
        };
        let (manifest, slices) = manifest::decode(
            &found.header,
            found.checksum.as_deref(),
            &found.value,
            query.newest_format,
        )?;
        if manifest.partials_topic_id != partials_topic_id {
            return Err(SnapshotError::PartialsTopic {
                was: manifest.partials_topic_id,
                is: partials_topic_id.to_owned(),
            });
        }
        let mut records = Vec::with_capacity(manifest.records.len());
        for named in &manifest.records {
            let key: Arc<str> = named.key.as_str().into();
            let place = self.rows.remove(named.key.as_bytes());
            let place = place.ok_or_else(|| missing(&key))?;
            let shelved = Shelved {
                crc32: named.crc32,
                rows: named.rows,
            };
            shelf.records.insert(Arc::clone(&key), shelved);
            records.push((key, shelved.crc32, place));
        }
        shelf.strays = self.strays();
        let mut read = Records {
            spool: self.spool,
            records,
            recent: VecDeque::new(),
        };
        let mut image = Image {
            head: manifest.head,
            runs: Vec::new(),
            history: None,
        };
        for slices in slices.chunk_by(|one, next| one.number == next.number) {
            let mut parts = Vec::with_capacity(slices.len());
            let mut batches = Vec::with_capacity(slices.len());
            for slice in slices {
                let (key, batch) = read.batch(slice)?;
                parts.push(Part {
                    record: key,
                    batch: slice.batch,
                    rows: batch.num_rows() as u64,
                });
                batches.push(batch);
            }
            let rows = whole(&batches)?;
            let first = &slices[0];
            if first.number == HISTORY {
                shelf.history = parts;
                shelf.history_at = Some(image.head.counts.closed);
                image.history = Some(rows);
                continue;
            }
            let number = u64::try_from(first.number).map_err(|_| SnapshotError::Manifest {
                detail: format!("it names batch {}", first.number),
            })?;
            shelf.runs.insert(number, parts);
            image.runs.push(ImageRun::read(
                &query.plan,
                number,
                first.place,
                (first.part, first.parts),
                first.live.clone(),
                &rows,
                spill.as_ref(),
            )?);
        }
        let plan = Arc::clone(&query.plan);
        let fold = Fold::restore(plan, query.fingerprint, image, Arc::clone(spill))?;
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

fn missing(key: &str) -> SnapshotError {
    SnapshotError::Record {
        key: key.to_owned(),
    }
}

/// The records of a manifest, decoded as they are needed.
struct Records {
    spool: SpooledTempFile,
    /// By their place in the manifest: key, checksum, and where the value is.
    records: Vec<(Arc<str>, u32, (u64, usize))>,
    /// Those that were needed last.
    recent: VecDeque<(usize, Vec<RecordBatch>)>,
}

/// How many decoded records are kept at hand.
const RECENT: usize = 8;

impl Records {
    fn batch(&mut self, slice: &Slice) -> Result<(Arc<str>, RecordBatch), SnapshotError> {
        let (key, crc32, (at, length)) = &self.records[slice.record];
        let wrong = || missing(key);
        if !self
            .recent
            .iter()
            .any(|(record, _)| *record == slice.record)
        {
            let mut value = vec![0; *length];
            self.spool.seek(SeekFrom::Start(*at))?;
            self.spool.read_exact(&mut value)?;
            if crc32fast::hash(&value) != *crc32 {
                return Err(wrong());
            }
            self.recent.truncate(RECENT - 1);
            let batches = manifest::decode_batches(&value)?;
            self.recent.push_front((slice.record, batches));
        }
        let found = self
            .recent
            .iter()
            .find(|(record, _)| *record == slice.record);
        let batch = found.and_then(|(_, batches)| batches.get(slice.batch));
        Ok((Arc::clone(key), batch.ok_or_else(wrong)?.clone()))
    }
}

fn whole(batches: &[RecordBatch]) -> Result<RecordBatch, SnapshotError> {
    match batches {
        [one] => Ok(one.clone()),
        several => {
            let schema = several.first().map(RecordBatch::schema);
            let schema = schema.ok_or_else(|| SnapshotError::Manifest {
                detail: "a batch has no parts".into(),
            })?;
            Ok(concat_batches(&schema, several)?)
        }
    }
}
