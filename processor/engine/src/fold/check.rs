//! Whether partial rows say what a scan can have said. The log may hold anything; arithmetic on windows may not overflow.

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;

use crate::plan::{FIRST_MS, LAST_MS};
use crate::window::Window;

/// The most source rows of one partial row: more than a range can have, and few enough to be added up.
const MAX_ROWS: i64 = 1 << 40;

/// Whether each row's window can be one of these windows, and its count of source rows a count.
pub(super) fn is_possible(window: Option<Window>, rows: &RecordBatch) -> bool {
    let column = |at: usize| rows.column(at).as_primitive::<Int64Type>().values();
    let last = rows.num_columns();
    let counts = column(last - 2);
    if !counts.iter().all(|count| (1..=MAX_ROWS).contains(count)) {
        return false;
    }
    let starts = column(0);
    let ends = || starts.iter().zip(column(last - 3));
    let is_time = |time: &i64| (FIRST_MS..=LAST_MS).contains(time);
    match window {
        None => true,
        Some(window @ (Window::Tumbling { .. } | Window::Hopping { .. })) => {
            let pane_ms = window.pane_ms().unwrap_or(1);
            let first = FIRST_MS - FIRST_MS.rem_euclid(pane_ms);
            starts
                .iter()
                .all(|start| (first..=LAST_MS).contains(start) && start.rem_euclid(pane_ms) == 0)
        }
        Some(Window::Session { gap_ms }) => ends().all(|(start, end)| {
            is_time(start) && start < end && *end <= LAST_MS.saturating_add(gap_ms)
        }),
        Some(Window::Unbounded { .. }) => {
            ends().all(|(start, end)| *start == 0 && *end >= FIRST_MS)
        }
    }
}
