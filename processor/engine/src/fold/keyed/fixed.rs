//! Windows that lie fast in time: each of their panes is an interval of a key.

use std::collections::BTreeSet;
use std::ops::Bound;

use super::gather::{Under, gather_in_parts};
use super::{Key, Keyed};
use crate::fold::FoldError;
use crate::fold::closed::{ClosedWindow, Source};

impl Keyed {
    /// The starts of open windows that lie fast in time.
    pub(super) fn open_starts(&self) -> BTreeSet<i64> {
        self.panes
            .keys()
            .flat_map(|pane| self.window.starts_over(*pane))
            .filter(|start| self.is_open(*start))
            .collect()
    }

    /// Whether a window that lies fast in time is open.
    pub(super) fn is_open(&self, start: i64) -> bool {
        start.saturating_add(self.window.size_ms().unwrap_or(0)) > self.closed_to
    }

    /// The same for windows that lie fast in time.
    pub(super) fn close_panes(
        &mut self,
        closes: i64,
        size_ms: i64,
        block_rows: usize,
    ) -> Result<Vec<ClosedWindow>, FoldError> {
        let mut closed = Vec::new();
        let ending = |start: &i64| start.saturating_add(size_ms) <= closes;
        for start in self.open_starts().into_iter().filter(ending) {
            let end = start.saturating_add(size_ms);
            closed.push(self.whole(start, end, block_rows)?);
        }
        self.closed_to = closes;
        while let Some((pane, key)) = self.times.first().cloned() {
            let last = self.window.starts_over(pane).last();
            if last.is_some_and(|start| start.saturating_add(size_ms) > closes) {
                break;
            }
            self.take_out(&key, |interval| interval.start == pane);
            self.dirty.remove(&(key, pane));
        }
        Ok(closed)
    }

    /// A window that lies fast in time, as it is now.
    pub(super) fn whole(
        &self,
        start: i64,
        end: i64,
        block_rows: usize,
    ) -> Result<ClosedWindow, FoldError> {
        let mut keys: BTreeSet<&Key> = BTreeSet::new();
        let from = (start, Key::from(&[][..]));
        let to = (end, Key::from(&[][..]));
        let range = (Bound::Included(&from), Bound::Excluded(&to));
        keys.extend(self.times.range(range).map(|(_, key)| key));
        let groups: Vec<Vec<Under<'_>>> = keys
            .into_iter()
            .map(|key| self.of_window(key, start))
            .collect();
        Ok(ClosedWindow {
            start,
            end,
            windows: 1,
            source: Source::Rows(gather_in_parts(&groups, block_rows)?),
        })
    }

    /// What a key has in a window that lies fast in time.
    pub(super) fn of_window(&self, key: &Key, start: i64) -> Vec<Under<'_>> {
        let end = start.saturating_add(self.window.size_ms().unwrap_or(0));
        let intervals = self
            .groups
            .get(key)
            .into_iter()
            .flat_map(|group| group.iter());
        intervals
            .filter(|interval| interval.start >= start && interval.start < end)
            .map(|interval| Under { start, interval })
            .collect()
    }
}
