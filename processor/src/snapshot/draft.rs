//! A snapshot that is being written: which records, in which order, and the manifest behind them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use engine::fold::{Block, Fold, Image};

use super::SnapshotError;
use super::manifest::{self, HISTORY, Manifest, Slice};
use super::shelf::{Part, Shelf, Shelved};
use crate::format;
use crate::partial::MAX_BYTES;

/// About how many bytes of rows, before compression, go into one record.
const RECORD_BYTES: usize = 1024 * 1024;

/// A snapshot on its way into the log. Its records are encoded when they are asked for, as often as they are.
#[derive(Debug)]
pub struct Draft {
    image: Image,
    offset: i64,
    partials_topic_id: String,
    /// What is still to be written, in order.
    planned: Vec<Planned>,
    /// What the state topic will hold once all that is written.
    shelf: Shelf,
    /// What it then no longer needs.
    gone: Vec<Arc<str>>,
}

#[derive(Debug)]
struct Planned {
    key: Arc<str>,
    cuts: Vec<Cut>,
}

/// A part of a batch.
#[derive(Debug)]
struct Cut {
    of: Rows,
    from: usize,
    rows: usize,
}

#[derive(Debug)]
enum Rows {
    Block(Block),
    History(RecordBatch),
}

impl Cut {
    fn load(&self) -> Result<RecordBatch, SnapshotError> {
        let rows = match &self.of {
            Rows::Block(block) => block.load().map_err(engine::fold::ImageError::from)?,
            Rows::History(rows) => rows.clone(),
        };
        Ok(rows.slice(self.from, self.rows))
    }
}

/// A record to be sent.
#[derive(Debug)]
pub struct Outgoing {
    /// Its key.
    pub key: String,
    /// Its headers.
    pub headers: Vec<(&'static str, Vec<u8>)>,
    /// Its value; `None` deletes what has the key.
    pub value: Option<Vec<u8>>,
}

impl Draft {
    /// Plans a snapshot of this state, which is the one after all partials below `offset`; `before` is what the state topic
    /// holds already.
    pub fn new(fold: &Fold, offset: i64, partials_topic_id: &str, before: &Shelf) -> Self {
        let image = fold.image();
        let live: BTreeSet<u64> = image.runs.iter().map(|run| run.block.number).collect();
        let mut shelf = before.clone();
        let mut gone = std::mem::take(&mut shelf.strays);

        // A record is kept while at least half of its rows are of batches that are still there.
        let mut kept_rows: BTreeMap<Arc<str>, u64> = BTreeMap::new();
        let parts = shelf
            .runs
            .iter()
            .filter(|(number, _)| live.contains(number));
        for part in parts.flat_map(|(_, parts)| parts) {
            *kept_rows.entry(Arc::clone(&part.record)).or_default() += part.rows;
        }
        let is_history_new = image.history.is_none()
            || shelf.history_at != Some(image.head.counts.closed)
            || shelf.history.is_empty();
        if !is_history_new {
            for part in &shelf.history {
                *kept_rows.entry(Arc::clone(&part.record)).or_default() += part.rows;
            }
        } else {
            shelf.history.clear();
        }
        let is_kept = |key: &Arc<str>, record: &Shelved| {
            let kept = kept_rows.get(key).copied().unwrap_or(0);
            kept > 0 && kept.saturating_mul(2) >= record.rows
        };
        gone.extend(
            shelf
                .records
                .iter()
                .filter(|(key, record)| !is_kept(key, record))
                .map(|(key, _)| Arc::clone(key)),
        );
        for key in &gone {
            shelf.records.remove(key);
        }
        let records = &shelf.records;
        shelf.runs.retain(|number, parts| {
            live.contains(number) && parts.iter().all(|part| records.contains_key(&part.record))
        });

        let mut draft = Self {
            offset,
            partials_topic_id: partials_topic_id.to_owned(),
            planned: Vec::new(),
            gone,
            shelf,
            image,
        };
        draft.plan(is_history_new);
        draft
    }

    /// Puts the batches that are not there yet into records, each in one or several parts.
    fn plan(&mut self, with_history: bool) {
        let new: Vec<Block> = self
            .image
            .runs
            .iter()
            .filter(|run| !self.shelf.runs.contains_key(&run.block.number))
            .map(|run| run.block.clone())
            .collect();
        let mut filling: Option<Planned> = None;
        let mut bytes = 0;
        for block in new {
            let mut parts = Vec::new();
            for (from, rows) in cuts(block.rows, block.bytes) {
                if bytes >= RECORD_BYTES {
                    self.planned.extend(filling.take());
                    bytes = 0;
                }
                let record = filling.get_or_insert_with(|| Planned {
                    key: self.shelf.next_key(),
                    cuts: Vec::new(),
                });
                bytes += block.bytes * rows / block.rows.max(1);
                parts.push(Part {
                    record: Arc::clone(&record.key),
                    batch: record.cuts.len(),
                    rows: rows as u64,
                });
                record.cuts.push(Cut {
                    of: Rows::Block(block.clone()),
                    from,
                    rows,
                });
            }
            self.shelf.runs.insert(block.number, parts);
        }
        self.planned.extend(filling);
        let Some(history) = self.image.history.take().filter(|_| with_history) else {
            return;
        };
        self.shelf.history_at = Some(self.image.head.counts.closed);
        for (from, rows) in cuts(history.num_rows(), history.get_array_memory_size()) {
            let record = self.shelf.next_key();
            self.shelf.history.push(Part {
                record: Arc::clone(&record),
                batch: 0,
                rows: rows as u64,
            });
            self.planned.push(Planned {
                key: record,
                cuts: vec![Cut {
                    of: Rows::History(history.clone()),
                    from,
                    rows,
                }],
            });
        }
    }

    /// How many records of rows there are to be written.
    pub fn len(&self) -> usize {
        self.planned.len()
    }

    /// Whether only the manifest is to be written.
    pub fn is_empty(&self) -> bool {
        self.planned.is_empty()
    }

    /// The partials offset whose state this is.
    pub fn offset(&self) -> i64 {
        self.offset
    }

    /// One of the records of rows.
    ///
    /// # Errors
    /// It can't be encoded, or is too large.
    pub fn record(&mut self, place: usize) -> Result<Option<Outgoing>, SnapshotError> {
        let Some(planned) = self.planned.get(place) else {
            return Ok(None);
        };
        let batches = planned
            .cuts
            .iter()
            .map(Cut::load)
            .collect::<Result<Vec<_>, _>>()?;
        let value = manifest::encode_batches(&batches)?;
        if value.len() > MAX_BYTES {
            return Err(SnapshotError::TooLarge { bytes: value.len() });
        }
        let rows = planned.cuts.iter().map(|cut| cut.rows as u64);
        self.shelf.records.insert(
            Arc::clone(&planned.key),
            Shelved {
                crc32: crc32fast::hash(&value),
                rows: rows.sum(),
            },
        );
        Ok(Some(Outgoing {
            key: planned.key.to_string(),
            headers: Vec::new(),
            value: Some(value),
        }))
    }

    /// What ends the snapshot, once every record of rows has been asked for: the manifest in this version (see
    /// [`crate::format`]), and the tombstones of what it does not name.
    ///
    /// # Errors
    /// The manifest is too large.
    pub fn end(&self, version: u32) -> Result<Vec<Outgoing>, SnapshotError> {
        let (records, places) = self.shelf.named();
        let mut slices = Vec::new();
        let mut list = |number: i64, place: i64, (part, parts), at: &[Part], live: Option<_>| {
            let mut live = live;
            for found in at {
                slices.push(Slice {
                    number,
                    place,
                    part,
                    parts,
                    // Every part's record was kept, or planned and asked for.
                    record: places.get(&found.record).copied().unwrap_or(usize::MAX),
                    batch: found.batch,
                    live: live.take(),
                });
            }
        };
        for run in &self.image.runs {
            let at = self.shelf.runs.get(&run.block.number);
            let number = i64::try_from(run.block.number).unwrap_or(i64::MAX);
            let parts = (run.part, run.parts);
            list(
                number,
                run.place,
                parts,
                at.map_or(&[][..], Vec::as_slice),
                run.live.clone(),
            );
        }
        list(HISTORY, 0, (0, 1), &self.shelf.history, None);
        let manifest = Manifest {
            version,
            offset: self.offset,
            partials_topic_id: self.partials_topic_id.clone(),
            head: self.image.head.clone(),
            records,
        };
        let (header, value) = manifest::encode(&manifest, &slices)?;
        let checksum = format::checksum(version, &header, Some(&value));
        let checksum = checksum.map(|bytes| (format::CHECKSUM, bytes.to_vec()));
        let mut outgoing = vec![Outgoing {
            key: manifest::key(self.shelf.shard()),
            headers: [(manifest::HEADER, header)]
                .into_iter()
                .chain(checksum)
                .collect(),
            value: Some(value),
        }];
        outgoing.extend(self.gone.iter().map(|key| Outgoing {
            key: key.to_string(),
            headers: Vec::new(),
            value: None,
        }));
        Ok(outgoing)
    }

    /// What the state topic holds once the snapshot is committed.
    pub fn into_shelf(self) -> Shelf {
        self.shelf
    }
}

/// Rows in parts of about a record's size: the first row of each, and how many.
fn cuts(rows: usize, bytes: usize) -> impl Iterator<Item = (usize, usize)> {
    let parts = bytes.div_ceil(RECORD_BYTES).clamp(1, rows.max(1));
    let step = rows.div_ceil(parts).max(1);
    // A batch without rows is written too: it is a part of its run.
    (0..rows.max(1))
        .step_by(step)
        .map(move |from| (from, step.min(rows - from)))
}
