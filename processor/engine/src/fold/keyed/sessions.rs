//! Sessions, which lie as far apart as their gap, and groups without a window: intervals that meet are one.

use std::sync::Arc;

use super::gather::{Under, gather, gather_in_parts};
use super::{Interval, Keyed};
use crate::fold::FoldError;
use crate::fold::closed::{ClosedWindow, Source};
use crate::window::Window;

impl Keyed {
    /// The same for sessions and for groups without a window.
    pub(super) fn close_intervals(
        &mut self,
        closes: i64,
        block_rows: usize,
    ) -> Result<Vec<ClosedWindow>, FoldError> {
        self.closed_to = closes;
        let mut over: Vec<Interval> = Vec::new();
        let mut unsaid: Vec<Interval> = Vec::new();
        while let Some((end, key)) = self
            .times
            .first()
            .filter(|(end, _)| *end <= closes)
            .cloned()
        {
            for interval in self.take_out(&key, |interval| interval.end == end) {
                if self.window.is_bounded() {
                    over.push(interval);
                } else if self.dirty.remove(&(Arc::clone(&key), 0)) {
                    unsaid.push(interval);
                }
            }
            // Nothing has that end any more, whatever the groups say.
            self.times.remove_mut(&(end, key));
        }
        let unsaid: Vec<Under<'_>> = unsaid.iter().map(Interval::own).collect();
        self.dropped.extend(gather(&unsaid)?);
        if over.is_empty() {
            return Ok(Vec::new());
        }
        let sessions: Vec<Vec<Under<'_>>> =
            over.iter().map(|interval| vec![interval.own()]).collect();
        Ok(vec![ClosedWindow {
            start: over
                .iter()
                .map(|interval| interval.start)
                .min()
                .unwrap_or(0),
            end: over.iter().map(|interval| interval.end).max().unwrap_or(0),
            windows: over.len() as u64,
            source: Source::Rows(gather_in_parts(&sessions, block_rows)?),
        }])
    }

    /// The intervals of a key that these pieces make up: those that meet are one.
    pub(super) fn unite(&self, mut pieces: Vec<Interval>) -> Vec<Interval> {
        pieces.sort_by_key(|piece| (piece.start, piece.end));
        let mut intervals: Vec<Interval> = Vec::with_capacity(1);
        for piece in pieces {
            match intervals.last_mut() {
                Some(last) if self.meet(last, &piece) => {
                    last.start = last.start.min(piece.start);
                    last.end = last.end.max(piece.end);
                    last.pieces.extend(piece.pieces);
                }
                _ => intervals.push(piece),
            }
        }
        for interval in &mut intervals {
            interval.pieces.sort_by_key(|(run, row)| (run.number, *row));
        }
        intervals
    }

    pub(super) fn meet(&self, one: &Interval, other: &Interval) -> bool {
        match self.window {
            Window::Unbounded { .. } => true,
            // Of panes, only the same one.
            _ => one.start < other.end && other.start < one.end,
        }
    }
}
