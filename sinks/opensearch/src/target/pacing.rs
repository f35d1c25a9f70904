//! How large bulks are, and how long to wait after a failure. It reads no clock and draws no lots, so that the same
//! outcomes lead to the same schedule.
//!
//! - A bulk that went through lets the next one be an eighth larger, up to the most.
//! - A target that asks for less halves the size; one that can't be reached leaves it.
//! - Each failure in a row doubles the pause; a bulk of which something was stored ends the row.

use std::time::Duration;

/// Bounds on sizes and pauses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacingOptions {
    /// The most bytes in a bulk, and the size to begin with.
    pub max_bulk_bytes: usize,
    /// Bulks are not made smaller than this for a target that asks for less.
    pub min_bulk_bytes: usize,
    /// The first pause.
    pub first_pause: Duration,
    /// The longest pause.
    pub max_pause: Duration,
}

impl Default for PacingOptions {
    fn default() -> Self {
        Self {
            max_bulk_bytes: 5 << 20,
            min_bulk_bytes: 64 << 10,
            first_pause: Duration::from_millis(250),
            max_pause: Duration::from_secs(60),
        }
    }
}

/// The present size and pause.
#[derive(Clone, Debug)]
pub struct Pacing {
    options: PacingOptions,
    bytes: usize,
    /// What the target has taken no request above.
    ceiling: usize,
    documents: usize,
    failures: u32,
}

impl Pacing {
    /// Bulks of the most bytes, and no failure yet.
    pub fn new(options: PacingOptions) -> Self {
        let bytes = options.max_bulk_bytes.max(1);
        Self {
            options,
            bytes,
            ceiling: bytes,
            documents: usize::MAX,
            failures: 0,
        }
    }

    /// The most bytes for the next bulk.
    pub fn bulk_bytes(&self) -> usize {
        self.bytes
    }

    /// The most documents for the next bulk.
    pub fn bulk_documents(&self) -> usize {
        self.documents
    }

    /// How many calls in a row have failed.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Every document of a bulk was settled.
    pub fn settled(&mut self) {
        self.failures = 0;
        self.documents = self.documents.saturating_mul(2);
        self.bytes = self
            .bytes
            .saturating_add((self.bytes / 8).max(1))
            .min(self.ceiling);
    }

    /// Some documents of a bulk were settled, others must be sent again: the row of failures ends, but the pause is
    /// still the first one. Returns the pause.
    pub fn progressed(&mut self, overloaded: bool) -> Duration {
        self.failures = 0;
        self.failed(overloaded, None)
    }

    /// A call came to nothing. Returns how long to wait.
    pub fn failed(&mut self, overloaded: bool, after: Option<Duration>) -> Duration {
        if overloaded {
            self.bytes = (self.bytes / 2)
                .max(self.options.min_bulk_bytes)
                .min(self.ceiling);
        }
        let doubled = self
            .options
            .first_pause
            .saturating_mul(1_u32.checked_shl(self.failures).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        let pause = doubled.min(self.options.max_pause);
        // a target that names a time is believed, but not for longer than the longest pause
        after.map_or(pause, |after| after.max(pause).min(self.options.max_pause))
    }

    /// A bulk of this many documents and bytes was refused as a whole; there were two or more.
    pub fn split(&mut self, documents: usize, bytes: usize, too_large: bool) {
        self.documents = (documents / 2).max(1);
        if too_large {
            self.ceiling = (bytes / 2).max(1).min(self.ceiling);
            self.bytes = self.bytes.min(self.ceiling);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacing() -> Pacing {
        Pacing::new(PacingOptions {
            max_bulk_bytes: 1_000,
            min_bulk_bytes: 100,
            first_pause: Duration::from_millis(10),
            max_pause: Duration::from_millis(75),
        })
    }

    #[test]
    fn a_target_that_asks_for_less_gets_half_and_is_tried_with_more_later() {
        let mut pacing = pacing();
        for expected in [500, 250, 125, 100, 100] {
            pacing.failed(true, None);
            assert_eq!(pacing.bulk_bytes(), expected);
        }
        let mut sizes = Vec::new();
        while pacing.bulk_bytes() < 1_000 {
            pacing.settled();
            sizes.push(pacing.bulk_bytes());
        }
        assert!(sizes.windows(2).all(|pair| pair[0] < pair[1]), "{sizes:?}");
        assert!(sizes.len() > 10, "it grows gently: {sizes:?}");
        pacing.settled();
        assert_eq!(pacing.bulk_bytes(), 1_000);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_a_success_ends_the_row() {
        let mut pacing = pacing();
        let pauses: Vec<u128> = (0..5)
            .map(|_| pacing.failed(false, None).as_millis())
            .collect();
        assert_eq!(pauses, [10, 20, 40, 75, 75]);
        assert_eq!(pacing.bulk_bytes(), 1_000, "an outage leaves the size");
        assert_eq!(pacing.progressed(false).as_millis(), 10);
        assert_eq!(pacing.failed(false, None).as_millis(), 20);
        for _ in 0..100 {
            pacing.failed(false, None);
        }
        assert_eq!(pacing.failed(false, None).as_millis(), 75);
        pacing.settled();
        assert_eq!(
            pacing
                .failed(false, Some(Duration::from_millis(33)))
                .as_millis(),
            33
        );
        assert_eq!(
            pacing
                .failed(false, Some(Duration::from_secs(9)))
                .as_millis(),
            75
        );
    }

    #[test]
    fn a_bulk_that_is_too_large_sets_a_lasting_ceiling() {
        let mut pacing = pacing();
        pacing.split(8, 900, true);
        assert_eq!((pacing.bulk_documents(), pacing.bulk_bytes()), (4, 450));
        for _ in 0..100 {
            pacing.settled();
        }
        assert_eq!(
            (pacing.bulk_documents(), pacing.bulk_bytes()),
            (usize::MAX, 450)
        );
        pacing.split(3, 100, false);
        assert_eq!((pacing.bulk_documents(), pacing.bulk_bytes()), (1, 450));
    }
}
