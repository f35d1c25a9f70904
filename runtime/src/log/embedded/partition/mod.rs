//! A partition: its segments, its bounds, and which transactions stand open or were aborted in it.

mod open;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use crate::log::embedded::frame::{Builder, Kind};
use crate::log::embedded::segment::Segment;
use crate::log::embedded::settings::Settings;
use crate::log::embedded::signal::lock;
use crate::log::embedded::storage_error;
use crate::log::{Bounds, LogError, Offset, TopicPartition};

/// A partition. Its lock is held for one write or one look-up, never while records are read.
#[derive(Debug)]
pub(super) struct Partition {
    pub name: TopicPartition,
    pub(super) dir: PathBuf,
    pub(super) settings: Settings,
    pub(super) fsync: bool,
    pub(super) state: Mutex<State>,
    /// Held by the one that compacts.
    pub(super) compacting: Mutex<()>,
}

#[derive(Debug)]
pub(super) struct State {
    /// In offset order, never empty before it is gone; the last one is written to.
    pub segments: Vec<Segment>,
    pub start: Offset,
    pub end: Offset,
    /// The first offset of each open transaction.
    pub open: BTreeMap<u64, Offset>,
    /// The offset of each aborted transaction's control record.
    pub aborted: Arc<BTreeMap<u64, Offset>>,
    /// Everything below was compacted.
    pub clean_to: Offset,
    /// When the last segment's first records were written, as far as that is known.
    pub begun_ms: Option<i64>,
    /// Why nothing may be written or read any more.
    pub gone: Option<Gone>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gone {
    /// The topic was deleted.
    Deleted,
    /// The log was closed.
    Closed,
}

impl State {
    /// The last stable offset.
    pub fn stable(&self) -> Offset {
        self.open.values().min().copied().unwrap_or(self.end)
    }
}

/// What a write changed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// Whether the last stable offset moved, so that readers may have something to read.
    pub stable_moved: bool,
    /// Whether a segment was completed.
    pub rolled: bool,
}

/// Where a reader finds the frame that reaches an offset.
#[derive(Debug)]
pub(super) struct Place {
    pub file: Arc<File>,
    pub path: PathBuf,
    pub uid: u64,
    /// From here on.
    pub from: u64,
    /// Whole frames up to here.
    pub to: u64,
    pub stable: Offset,
    /// Transactions whose records are to be skipped.
    pub aborted: Arc<BTreeMap<u64, Offset>>,
}

impl Partition {
    /// A new, empty partition in a new folder.
    pub fn create(
        dir: PathBuf,
        name: TopicPartition,
        settings: Settings,
        fsync: bool,
    ) -> Result<Self, LogError> {
        fs::create_dir_all(&dir).map_err(storage_error(&dir, "the folder can't be created"))?;
        let first =
            Segment::create(&dir, 0).map_err(storage_error(&dir, "a segment can't be created"))?;
        Ok(Self::over(dir, name, settings, fsync, vec![first], 0, 0))
    }

    fn over(
        dir: PathBuf,
        name: TopicPartition,
        settings: Settings,
        fsync: bool,
        segments: Vec<Segment>,
        start: Offset,
        end: Offset,
    ) -> Self {
        let state = State {
            segments,
            start,
            end,
            open: BTreeMap::new(),
            aborted: Arc::default(),
            clean_to: 0,
            begun_ms: None,
            gone: None,
        };
        Self {
            name,
            dir,
            settings,
            fsync,
            state: Mutex::new(state),
            compacting: Mutex::new(()),
        }
    }

    /// An error if nothing may be written or read any more.
    pub fn usable(&self, state: &State) -> Result<(), LogError> {
        match state.gone {
            None => Ok(()),
            Some(Gone::Closed) => Err(LogError::Closed),
            Some(Gone::Deleted) => Err(LogError::UnknownTopic {
                name: self.name.to_string(),
            }),
        }
    }

    /// Refuses everything from now on, and waits for a write that is under way. Its files are closed, whoever holds it still.
    pub fn retire(&self, why: Gone) {
        let mut state = lock(&self.state);
        state.gone.get_or_insert(why);
        state.segments.clear();
    }

    /// Writes the records of a frame, in a transaction if `txn` is not 0.
    pub fn append(
        &self,
        records: &mut Builder,
        txn: u64,
        now_ms: i64,
    ) -> Result<Written, LogError> {
        let mut state = lock(&self.state);
        self.usable(&state)?;
        if self.settings.append_time {
            records.stamp(now_ms);
        }
        let before = state.stable();
        let base = state.end;
        let old = state
            .begun_ms
            .is_some_and(|begun| now_ms.saturating_sub(begun) >= self.settings.segment_ms);
        if old && self.active(&mut state).len > 0 {
            self.roll(&mut state)?;
        }
        let rolled = old | self.write(&mut state, records, Kind::Data, records.records(), txn)?;
        if rolled || state.begun_ms.is_none() {
            state.begun_ms = Some(now_ms);
        }
        if txn != 0 {
            state.open.entry(txn).or_insert(base);
        }
        Ok(Written {
            stable_moved: state.stable() != before,
            rolled,
        })
    }

    /// Writes the control record that ends a transaction. Nothing if the transaction is not open here.
    pub fn end_transaction(&self, txn: u64, commit: bool) -> Result<Written, LogError> {
        let mut state = lock(&self.state);
        if state.gone == Some(Gone::Deleted) || !state.open.contains_key(&txn) {
            return Ok(Written::default());
        }
        self.usable(&state)?;
        let before = state.stable();
        let base = state.end;
        let kind = if commit { Kind::Commit } else { Kind::Abort };
        let rolled = self.write(&mut state, &mut Builder::new(), kind, 1, txn)?;
        state.open.remove(&txn);
        if !commit {
            Arc::make_mut(&mut state.aborted).insert(txn, base);
        }
        Ok(Written {
            stable_moved: state.stable() != before,
            rolled,
        })
    }

    fn write(
        &self,
        state: &mut State,
        frame: &mut Builder,
        kind: Kind,
        span: u32,
        txn: u64,
    ) -> Result<bool, LogError> {
        let base = state.end;
        let bytes = frame.seal(kind, base, span, txn, 0);
        let mut rolled = false;
        if self.active(state).len > 0
            && self.active(state).len + bytes.len() as u64 > self.settings.segment_bytes
        {
            self.roll(state)?;
            rolled = true;
        }
        let active = self.active(state);
        active
            .append(bytes, base, self.fsync)
            .map_err(storage_error(&active.path, "writing failed"))?;
        state.end = base + i64::from(span);
        Ok(rolled)
    }

    /// Completes the segment that is written to, and begins the next.
    pub fn roll(&self, state: &mut State) -> Result<(), LogError> {
        let next = Segment::create(&self.dir, state.end);
        state
            .segments
            .push(next.map_err(storage_error(&self.dir, "a segment can't be created"))?);
        Ok(())
    }

    #[allow(clippy::expect_used)]
    fn active<'a>(&self, state: &'a mut State) -> &'a mut Segment {
        // Segments are created with the partition, and only completed ones are removed before it is gone; whoever comes here
        // has looked whether it is usable.
        state
            .segments
            .last_mut()
            .expect("a partition has a segment")
    }

    /// Where the partition starts and ends.
    pub fn bounds(&self) -> Result<Bounds, LogError> {
        let state = lock(&self.state);
        self.usable(&state)?;
        Ok(Bounds {
            start: state.start,
            stable: state.stable(),
            end: state.end,
        })
    }

    /// The transactions that stand open.
    pub fn open_transactions(&self) -> Vec<u64> {
        lock(&self.state).open.keys().copied().collect()
    }

    /// Where to read on at `offset`. `hint` is where the last read ended: a segment's uid and a byte in it.
    /// `None` when everything below the last stable offset, which is given, was read.
    pub fn place(
        &self,
        offset: Offset,
        hint: Option<(u64, u64)>,
    ) -> Result<Result<Place, Offset>, LogError> {
        let state = lock(&self.state);
        self.usable(&state)?;
        if offset < state.start || offset > state.end {
            return Err(LogError::OffsetOutOfRange {
                partition: self.name.clone(),
                offset,
                start: state.start,
                end: state.end,
            });
        }
        let stable = state.stable();
        if offset >= stable {
            return Ok(Err(stable));
        }
        let hinted = hint.and_then(|(uid, from)| {
            let segment = state
                .segments
                .iter()
                .rposition(|segment| segment.uid == uid)?;
            Some((segment, from))
        });
        let (mut number, mut from) = hinted.unwrap_or_else(|| {
            let number = state
                .segments
                .partition_point(|segment| segment.base <= offset)
                .saturating_sub(1);
            (number, state.segments[number].locate(offset))
        });
        while from >= state.segments[number].len {
            if number + 1 == state.segments.len() {
                return Ok(Err(stable));
            }
            (number, from) = (number + 1, 0);
        }
        let segment = &state.segments[number];
        Ok(Ok(Place {
            file: Arc::clone(&segment.file),
            path: segment.path.clone(),
            uid: segment.uid,
            from,
            to: segment.len,
            stable,
            aborted: Arc::clone(&state.aborted),
        }))
    }

    /// Deletes the records below an offset, which must not be above the end.
    pub fn delete_before(&self, before: Offset) -> Result<(), LogError> {
        let mut state = lock(&self.state);
        self.usable(&state)?;
        self.drop_below(&mut state, before)
    }

    fn drop_below(&self, state: &mut State, start: Offset) -> Result<(), LogError> {
        state.start = state.start.max(start);
        let whole = state
            .segments
            .partition_point(|segment| segment.base <= state.start)
            .saturating_sub(1);
        for segment in state.segments.drain(..whole) {
            fs::remove_file(&segment.path)
                .map_err(storage_error(&segment.path, "the segment can't be removed"))?;
        }
        let first = state.segments[0].base;
        if state.aborted.values().any(|marker| *marker < first) {
            Arc::make_mut(&mut state.aborted).retain(|_, marker| *marker >= first);
        }
        Ok(())
    }
}
