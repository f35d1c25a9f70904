//! What a fold says of itself: what a record did, what was taken, and which windows are open.

use serde::{Deserialize, Serialize};

use super::ClosedWindow;

/// A window that is not closed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenWindow {
    /// Its start, in milliseconds since 1970.
    pub start: i64,
    /// The first millisecond behind it.
    pub end: i64,
    /// How many partial rows it holds, an upper bound for its groups.
    pub partial_rows: usize,
}

/// What a shard has taken, since the query's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// Row × window pairs merged into windows.
    pub merged: u64,
    /// Row × window pairs that came after their window was closed.
    pub late: u64,
    /// Windows closed.
    pub closed: u64,
    /// Partials skipped because their range had been taken before.
    pub duplicates: u64,
}

/// Rows that came after their window was closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateRows {
    /// The window's start, in milliseconds since 1970.
    pub window_start: i64,
    /// The first millisecond behind it.
    pub window_end: i64,
    /// How many source rows.
    pub rows: u64,
}

/// What one partials record did.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Its rows that were late, by window, in order of window.
    pub late: Vec<LateRows>,
    /// The windows that it closed and that another job gave ([`Fold::go_on_from`](super::Fold::go_on_from)), in order of end,
    /// before all others.
    pub given_before: Vec<ClosedWindow>,
    /// The windows that it closed, in order of end.
    pub closed: Vec<ClosedWindow>,
    /// Whether its range had been taken before, so that it was skipped.
    pub duplicate: bool,
}
