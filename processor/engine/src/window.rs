//! How event time is cut into windows.
//!
//! ```text
//!   TUMBLE   │────────│────────│────────│       each row is in one
//!   HOP      │────│────│────│────│────│         each row is in one pane; a window is some panes in a row
//!              └─── window ───┘
//!                   └─── window ───┘
//!   SESSION   ▪ ▪▪  ▪ ──gap──▶    ▪ ▪           as long as a key's rows are less than a gap apart
//!   none      ▪ ▪▪  ▪             ▪ ▪ ─────     one group per key, for ever or until it has been silent for its TTL
//! ```

/// How event time is cut into windows. All lengths are in milliseconds and positive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// `TUMBLE`: windows of this length, aligned to 1970-01-01T00:00:00Z.
    Tumbling {
        /// The length.
        size_ms: i64,
    },
    /// `HOP`: a window of this length begins at every multiple of the step, which is not longer than the length.
    Hopping {
        /// The length.
        size_ms: i64,
        /// From the start of one window to that of the next.
        step_ms: i64,
    },
    /// `SESSION`: two rows of a key that are less than the gap apart are in the same window; it ends a gap after its
    /// last row.
    Session {
        /// The gap.
        gap_ms: i64,
    },
    /// GROUP BY without a window: one group per key.
    Unbounded {
        /// A group is forgotten when event time is this far past its last row; `None`: never.
        ttl_ms: Option<i64>,
    },
}

impl Window {
    /// The length of the pieces that rows are put into, for windows that lie fast in time.
    pub(crate) fn pane_ms(self) -> Option<i64> {
        match self {
            Self::Tumbling { size_ms } => Some(size_ms),
            Self::Hopping { size_ms, step_ms } => Some(gcd(size_ms, step_ms)),
            Self::Session { .. } | Self::Unbounded { .. } => None,
        }
    }

    /// The length of windows that lie fast in time.
    pub(crate) fn size_ms(self) -> Option<i64> {
        match self {
            Self::Tumbling { size_ms } | Self::Hopping { size_ms, .. } => Some(size_ms),
            Self::Session { .. } | Self::Unbounded { .. } => None,
        }
    }

    /// Whether results say which window they are of.
    pub fn is_bounded(self) -> bool {
        !matches!(self, Self::Unbounded { .. })
    }

    /// How long after a row's event time its last window can end; 0 if none ends.
    pub fn longest_ms(self) -> i64 {
        match self {
            Self::Tumbling { size_ms } | Self::Hopping { size_ms, .. } => size_ms,
            Self::Session { gap_ms } => gap_ms,
            Self::Unbounded { .. } => 0,
        }
    }

    /// The starts of the windows that a pane is part of, in order. The pane is given by its own start. Empty for
    /// windows that do not lie fast in time.
    pub(crate) fn starts_over(self, pane: i64) -> impl Iterator<Item = i64> {
        let (first, last, step) = match self {
            Self::Tumbling { .. } => (pane, pane, 1),
            Self::Hopping { size_ms, step_ms } => {
                let last = pane - pane.rem_euclid(step_ms);
                // A window over the pane begins no earlier than its length before the pane's end.
                let earliest = pane + gcd(size_ms, step_ms) - size_ms;
                let first = earliest + (-earliest).rem_euclid(step_ms);
                (first, last, step_ms)
            }
            Self::Session { .. } | Self::Unbounded { .. } => (1, 0, 1),
        };
        std::iter::successors(Some(first), move |start| start.checked_add(step))
            .take_while(move |start| *start <= last)
    }

    /// How many row × window pairs rows make that are in these pieces of event time, each given by its own start, with
    /// the number of its rows: a row is in several hopping windows, and else in one.
    pub fn pairs(self, pieces: impl IntoIterator<Item = (i64, u64)>) -> u64 {
        let (mut pairs, mut last) = (0, None);
        for (start, rows) in pieces {
            let windows = match (self, last) {
                (Self::Hopping { .. }, Some((same, windows))) if same == start => windows,
                (Self::Hopping { .. }, _) => self.starts_over(start).count() as u64,
                _ => 1,
            };
            last = Some((start, windows));
            pairs += windows * rows;
        }
        pairs
    }

    /// The most windows that a row is in.
    pub fn most_windows(self) -> u64 {
        match self {
            Self::Hopping { size_ms, step_ms } => u64::try_from(size_ms)
                .unwrap_or(0)
                .div_ceil(step_ms.unsigned_abs().max(1)),
            Self::Tumbling { .. } | Self::Session { .. } | Self::Unbounded { .. } => 1,
        }
    }

    /// The window in one line, as it stands in a fingerprint.
    pub(crate) fn text(self) -> String {
        match self {
            Self::Tumbling { size_ms } => format!("tumbling, {size_ms} ms"),
            Self::Hopping { size_ms, step_ms } => {
                format!("hopping, {size_ms} ms every {step_ms} ms")
            }
            Self::Session { gap_ms } => format!("session, gap {gap_ms} ms"),
            Self::Unbounded { ttl_ms: None } => "none".to_owned(),
            Self::Unbounded { ttl_ms: Some(ttl) } => format!("none, ttl {ttl} ms"),
        }
    }
}

fn gcd(mut a: i64, mut b: i64) -> i64 {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_makes_a_pair_with_each_window_that_it_is_in() {
        let hourly = Window::Tumbling { size_ms: 60 };
        assert_eq!(hourly.pairs([(0, 3), (60, 4)]), 7);
        assert_eq!(Window::Session { gap_ms: 5 }.pairs([(17, 3)]), 3);
        let forever = Window::Unbounded { ttl_ms: None };
        assert_eq!(forever.pairs([(0, 2), (0, 9)]), 11);
        // Panes of 5: every second one is in three windows of 25, the others in two.
        let hopping = Window::Hopping {
            size_ms: 25,
            step_ms: 10,
        };
        assert_eq!(
            hopping.pairs([(0, 1), (0, 1), (5, 10), (10, 100)]),
            3 * 102 + 2 * 10
        );
    }

    #[test]
    fn a_pane_is_part_of_exactly_the_windows_that_cover_it() {
        for (size_ms, step_ms) in [(60, 60), (60, 20), (60, 25), (50, 30), (7, 3), (5, 1)] {
            let window = Window::Hopping { size_ms, step_ms };
            let pane_ms = gcd(size_ms, step_ms);
            let mut most = 0;
            for pane in (-200..200).map(|n| n * pane_ms) {
                let expected: Vec<i64> = (-100..100)
                    .map(|n| n * step_ms)
                    .filter(|start| *start <= pane && pane + pane_ms <= start + size_ms)
                    .collect();
                if (-90 * step_ms..90 * step_ms).contains(&pane) {
                    let found: Vec<i64> = window.starts_over(pane).collect();
                    assert_eq!(found, expected, "{window:?}, pane {pane}");
                    most = most.max(expected.len() as u64);
                }
            }
            assert_eq!(window.most_windows(), most, "{window:?}");
        }
    }
}
