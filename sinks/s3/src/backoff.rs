//! Waiting longer each time.

use std::time::Duration;

/// How long to wait between attempts: the first pause, and the longest that doubling leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// The first pause.
    pub first: Duration,
    /// The longest pause.
    pub most: Duration,
}

impl Default for Backoff {
    /// From 200 ms to 30 s.
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            most: Duration::from_secs(30),
        }
    }
}

impl Backoff {
    /// The pause after this many failures (from 1).
    pub fn pause(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(20);
        self.first.saturating_mul(1 << doublings).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let backoff = Backoff {
            first: Duration::from_millis(100),
            most: Duration::from_secs(1),
        };
        let pauses: Vec<u128> = [1, 2, 3, 4, 5, 400]
            .map(|n| backoff.pause(n).as_millis())
            .to_vec();
        assert_eq!(pauses, [100, 200, 400, 800, 1000, 1000]);
    }
}
