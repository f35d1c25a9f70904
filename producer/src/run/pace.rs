//! Rows per second, evenly.

use std::time::{Duration, Instant};

/// Says when the next row is due.
#[derive(Debug)]
pub struct Pace {
    interval: Option<Duration>,
    next: Option<Instant>,
}

impl Pace {
    /// How far behind it may fall and still catch up: a pause of the log's is made good, an outage is not.
    const MOST_BEHIND: Duration = Duration::from_secs(1);

    /// A pace of `rate` rows a second; as fast as possible without one.
    pub fn new(rate: Option<f64>) -> Self {
        Self {
            interval: rate.map(|rate| Duration::from_secs_f64((1.0 / rate).min(86_400.0))),
            next: None,
        }
    }

    /// How long until the next row is due; zero if it is.
    pub fn wait(&mut self) -> Duration {
        self.wait_at(Instant::now)
    }

    fn wait_at(&mut self, now: impl FnOnce() -> Instant) -> Duration {
        if self.interval.is_none() {
            return Duration::ZERO;
        }
        let now = now();
        let next = *self.next.get_or_insert(now);
        if let Some(earliest) = now.checked_sub(Self::MOST_BEHIND)
            && next < earliest
        {
            self.next = Some(earliest);
        }
        next.saturating_duration_since(now)
    }

    /// A row was taken.
    pub fn taken(&mut self) {
        if let (Some(interval), Some(next)) = (self.interval, &mut self.next) {
            *next += interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_due_evenly_and_an_outage_is_not_made_good_in_a_burst() {
        let start = Instant::now();
        let mut pace = Pace::new(Some(100.0));
        for row in 0..50 {
            let wait = pace.wait_at(|| start);
            assert_eq!(wait, Duration::from_millis(10) * row);
            pace.taken();
        }
        let later = start + Duration::from_secs(60);
        let mut burst = 0;
        while pace.wait_at(|| later).is_zero() {
            pace.taken();
            burst += 1;
        }
        assert_eq!(burst, 101);
    }
}
