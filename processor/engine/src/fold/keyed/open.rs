//! What is open, to be looked at.

use super::gather::{Under, gather};
use super::{Interval, Keyed, SLACK_ROWS};
use crate::fold::closed::{ClosedWindow, Source};
use crate::fold::{FoldError, OpenWindow};
use crate::window::Window;

impl Keyed {
    /// The open windows, in order of end. Groups without windows are none.
    pub(in crate::fold) fn open(&self) -> Vec<OpenWindow> {
        if !self.window.is_bounded() {
            return Vec::new();
        }
        if let Some(size_ms) = self.window.size_ms() {
            let window = |start: i64| OpenWindow {
                start,
                end: start.saturating_add(size_ms),
                partial_rows: self
                    .panes
                    .range(start..start.saturating_add(size_ms))
                    .map(|(_, n)| n)
                    .sum(),
            };
            return self.open_starts().into_iter().map(window).collect();
        }
        let mut open: Vec<OpenWindow> = self
            .groups
            .values()
            .flat_map(|intervals| intervals.iter())
            .map(|interval| OpenWindow {
                start: interval.start,
                end: interval.end,
                partial_rows: interval.pieces.len(),
            })
            .collect();
        open.sort_by_key(|window| (window.end, window.start));
        open
    }

    pub(in crate::fold) fn open_count(&self) -> usize {
        match self.window {
            Window::Tumbling { .. } => self.panes.len(),
            Window::Hopping { .. } => self.open_starts().len(),
            Window::Session { .. } | Window::Unbounded { .. } => self.intervals,
        }
    }

    /// What is open now: windows in order of their ends; of sessions and of groups without windows some thousand groups
    /// at a time, in the order of their keys.
    pub(in crate::fold) fn as_closed(
        &self,
        block_rows: usize,
    ) -> Box<dyn Iterator<Item = Result<ClosedWindow, FoldError>> + '_> {
        if let Some(size_ms) = self.window.size_ms() {
            return Box::new(
                self.open_starts()
                    .into_iter()
                    .map(move |start| self.whole(start, start.saturating_add(size_ms), block_rows)),
            );
        }
        let mut groups = self.groups.values();
        Box::new(std::iter::from_fn(move || {
            let some: Vec<Under<'_>> = groups
                .by_ref()
                .take(SLACK_ROWS)
                .flat_map(|group| group.iter().map(Interval::own))
                .collect();
            let start = some.iter().map(|under| under.start).min()?;
            let ends = some.iter().map(|under| under.interval.end);
            let closed = |rows| ClosedWindow {
                start,
                end: ends.max().unwrap_or(start),
                windows: some.len() as u64,
                source: Source::Rows(vec![rows]),
            };
            let gathered = gather(&some).transpose()?;
            Some(gathered.map(closed))
        }))
    }
}
