//! Compaction: of records with the same key only the last is kept.
//!
//! Only completed segments below the last stable offset are compacted. What is left of them is written to new files,
//! oldest first, each of which takes the place of one or more old ones by a rename: after a crash at any moment every
//! record that must be there is there, at its offset. What is left belongs to no transaction any more, since it is
//! committed; records of aborted transactions, and control records, are left out.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, TryLockError};

use super::super::{LogError, Offset};
use super::frame::{self, Builder, HEADER_BYTES, Header, Kind};
use super::partition::Partition;
use super::segment::{Segment, fill};
use super::signal::lock;
use super::storage_error;

/// A completed segment.
struct Source {
    uid: u64,
    base: Offset,
    path: PathBuf,
    file: Arc<File>,
    len: u64,
}

/// What is compacted, and by which rules.
struct Job {
    sources: Vec<Source>,
    start: Offset,
    aborted: Arc<BTreeMap<u64, Offset>>,
    now_ms: i64,
    retention_ms: i64,
    fsync: bool,
}

impl Partition {
    /// Compacts if enough was written since the last time, unless that is under way.
    pub fn compact_if_dirty(&self, now_ms: i64) -> Result<(), LogError> {
        if !self.settings.compact {
            return Ok(());
        }
        let guard = match self.compacting.try_lock() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        let (mut clean, mut dirty) = (0, 0);
        {
            let state = lock(&self.state);
            let completed = state.segments.split_last().map(|(_, completed)| completed);
            for segment in completed.unwrap_or_default() {
                *(if segment.base < state.clean_to {
                    &mut clean
                } else {
                    &mut dirty
                }) += segment.len;
            }
        }
        let ratio = dirty as f64 / (clean + dirty).max(1) as f64;
        if dirty > 0 && ratio >= self.settings.dirty_ratio {
            self.compact_locked(now_ms)?;
        }
        drop(guard);
        Ok(())
    }

    /// Compacts all that is below the last stable offset now.
    pub fn compact(&self, now_ms: i64) -> Result<(), LogError> {
        let guard = self
            .compacting
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        {
            let mut state = lock(&self.state);
            self.usable(&state)?;
            if state.segments.last().is_some_and(|active| active.len > 0) {
                self.roll(&mut state)?;
            }
        }
        self.compact_locked(now_ms)?;
        drop(guard);
        Ok(())
    }

    fn compact_locked(&self, now_ms: i64) -> Result<(), LogError> {
        let (job, limit) = {
            let state = lock(&self.state);
            self.usable(&state)?;
            let stable = state.stable();
            let completed = state
                .segments
                .windows(2)
                .take_while(|pair| pair[1].base <= stable)
                .count();
            let sources = state.segments[..completed].iter().map(|segment| Source {
                uid: segment.uid,
                base: segment.base,
                path: segment.path.clone(),
                file: Arc::clone(&segment.file),
                len: segment.len,
            });
            let job = Job {
                sources: sources.collect(),
                start: state.start,
                aborted: Arc::clone(&state.aborted),
                now_ms,
                retention_ms: self.settings.delete_retention_ms,
                fsync: self.fsync,
            };
            (job, state.segments[completed].base)
        };
        let latest = job.latest()?;
        let mut from = 0;
        while from < job.sources.len() {
            let (next, to) = job.merge(from, &latest, self.settings.segment_bytes)?;
            if !self.replace(&job.sources[from..to], next)? {
                return Ok(());
            }
            from = to;
        }
        let mut state = lock(&self.state);
        state.clean_to = limit;
        if state.aborted.values().any(|marker| *marker < limit) {
            Arc::make_mut(&mut state.aborted).retain(|_, marker| *marker >= limit);
        }
        Ok(())
    }

    /// Puts a compacted segment in the place of others. False if those are no longer there.
    fn replace(&self, sources: &[Source], mut next: Segment) -> Result<bool, LogError> {
        let mut state = lock(&self.state);
        let first = state
            .segments
            .iter()
            .position(|segment| segment.uid == sources[0].uid);
        let there = first.filter(|_| state.gone.is_none()).filter(|first| {
            let present = state.segments[*first..].iter().map(|segment| segment.uid);
            present
                .take(sources.len())
                .eq(sources.iter().map(|source| source.uid))
        });
        let Some(first) = there else {
            fs::remove_file(&next.path)
                .map_err(storage_error(&next.path, "the file can't be removed"))?;
            return Ok(false);
        };
        let kept = next.len > 0;
        let place = &sources[0].path;
        fs::rename(&next.path, place).map_err(storage_error(
            place,
            "the compacted segment can't take its place",
        ))?;
        for source in sources.iter().skip(usize::from(kept)) {
            fs::remove_file(&source.path)
                .map_err(storage_error(&source.path, "the segment can't be removed"))?;
        }
        next.path = place.clone();
        state
            .segments
            .splice(first..first + sources.len(), kept.then_some(next));
        Ok(true)
    }
}

impl Job {
    /// The offset of the last record of each key.
    fn latest(&self) -> Result<HashMap<Vec<u8>, Offset>, LogError> {
        let mut latest = HashMap::new();
        for source in &self.sources {
            self.read(source, |buffer, _, entries| {
                for entry in entries {
                    if let Some(key) = frame::record(buffer, *entry).key {
                        match latest.get_mut(key) {
                            Some(offset) => *offset = entry.offset,
                            None => {
                                latest.insert(key.to_vec(), entry.offset);
                            }
                        }
                    }
                }
                Ok(())
            })?;
        }
        Ok(latest)
    }

    /// Writes what is left of the segments from `from` on to one file, as many of them as fit. Returns the number of
    /// the first that did not.
    fn merge(
        &self,
        from: usize,
        latest: &HashMap<Vec<u8>, Offset>,
        segment_bytes: u64,
    ) -> Result<(Segment, usize), LogError> {
        let first = &self.sources[from];
        let path = first.path.with_extension("tmp");
        let broken = || storage_error(&path, "the compacted segment can't be written");
        File::create(&path).map_err(broken())?;
        let mut next = Segment::open(path.clone(), first.base).map_err(broken())?;
        let mut to = from;
        let mut frame = Builder::new();
        while to < self.sources.len()
            && (to == from || next.len + self.sources[to].len <= segment_bytes)
        {
            self.read(&self.sources[to], |buffer, header, entries| {
                frame.clear();
                let expired = header.horizon_ms != 0 && self.now_ms > header.horizon_ms;
                let mut horizon_ms = 0;
                for entry in entries {
                    let record = frame::record(buffer, *entry);
                    if record
                        .key
                        .is_some_and(|key| latest.get(key) != Some(&entry.offset))
                    {
                        continue;
                    }
                    if record.value.is_none() {
                        if expired {
                            continue;
                        }
                        let from_now = self.now_ms.saturating_add(self.retention_ms);
                        horizon_ms = if header.horizon_ms != 0 {
                            header.horizon_ms
                        } else {
                            from_now
                        };
                    }
                    frame.copy(buffer, *entry, header.base);
                }
                if frame.records() > 0 {
                    let bytes = frame.seal(Kind::Data, header.base, header.span, 0, horizon_ms);
                    next.append(bytes, header.base, false).map_err(broken())?;
                }
                Ok(())
            })?;
            to += 1;
        }
        if self.fsync {
            next.file.sync_data().map_err(broken())?;
        }
        Ok((next, to))
    }

    /// Reads the committed records of a segment, frame by frame.
    fn read(
        &self,
        source: &Source,
        mut each: impl FnMut(&[u8], &Header, &[frame::Entry]) -> Result<(), LogError>,
    ) -> Result<(), LogError> {
        let (mut at, mut buffer, mut entries) = (0_u64, Vec::new(), Vec::new());
        while at < source.len {
            let damaged = || LogError::Storage {
                path: source.path.clone(),
                detail: format!("the segment is damaged at byte {at}: restore it from a copy"),
                source: None,
            };
            let unreadable = || storage_error(&source.path, "the segment can't be read");
            buffer.resize(buffer.len().max(HEADER_BYTES), 0);
            fill(&source.file, &mut buffer[..HEADER_BYTES], at).map_err(unreadable())?;
            let header = Header::parse(&buffer).ok_or_else(damaged)?;
            buffer.resize(buffer.len().max(header.len), 0);
            let filled = fill(&source.file, &mut buffer[..header.len], at).map_err(unreadable())?;
            if filled < header.len || !frame::intact(&buffer[..header.len]) {
                return Err(damaged());
            }
            let aborted = header.txn != 0 && self.aborted.contains_key(&header.txn);
            if header.kind == Kind::Data && !aborted {
                entries.clear();
                frame::index(&buffer, 0, &header, self.start, &mut entries).ok_or_else(damaged)?;
                each(&buffer, &header, &entries)?;
            }
            at += header.len as u64;
        }
        Ok(())
    }
}
