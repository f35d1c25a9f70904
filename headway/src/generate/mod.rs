//! Taxi trips from a seed, in the layout of the `headway` mapping: as lifelike as a test of the pipeline needs.
//!
//! ```text
//!   Clock (trips come faster at rush hours) ──▶ Trip (hot spots, traffic) ──▶ Disorder ──▶ Row, or a bad row
//! ```
//!
//! The same seed and settings give the same bytes on every machine.

mod command;
mod trip;

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io::{self, Write};

use chrono::{DateTime, Utc};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

pub use command::{GenerateArgs, run};
pub use trip::Trip;
use trip::{TripMaker, arrivals_per_hour};

/// The first line of a file.
pub const HEADER: &str = "id,vendorId,pickupDate,dropoffDate,passengerCount,pickupLongitude,pickupLatitude,dropoffLongitude,dropoffLatitude,storeAndFwdFlag,gcDistance,tripDuration,googleDistance,googleDuration";

/// What to generate.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The seed.
    pub seed: u64,
    /// The first trip's time.
    pub start: DateTime<Utc>,
    /// How many trips an average day has.
    pub trips_per_day: f64,
    /// The most by which a row may come after others of later pick-up, in seconds.
    pub disorder_s: f64,
    /// The share of rows that can't be used, from 0 to 1.
    pub bad_share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            seed: 7,
            start: default_start(),
            trips_per_day: 30_000.0,
            disorder_s: 60.0,
            bad_share: 0.001,
        }
    }
}

/// 2016-01-01, midnight in New York.
fn default_start() -> DateTime<Utc> {
    DateTime::from_timestamp(1_451_624_400, 0).unwrap_or_default()
}

/// An endless sequence of rows.
pub struct Generator {
    settings: Settings,
    rng: ChaCha8Rng,
    maker: TripMaker,
    /// Seconds since 1970 of the next trip's pick-up.
    now_s: f64,
    made: u64,
    waiting: BinaryHeap<Reverse<Waiting>>,
}

/// A trip that is not reported yet.
struct Waiting {
    report_ms: i64,
    trip: Trip,
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Waiting {}

impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.report_ms, self.trip.number).cmp(&(other.report_ms, other.trip.number))
    }
}

/// Whether a row that was written can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It can.
    Good,
    /// It was spoiled on purpose.
    Bad,
}

impl Generator {
    /// A sequence from its beginning.
    pub fn new(settings: Settings) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let now_s = settings.start.timestamp() as f64;
        Self {
            settings,
            rng,
            maker: TripMaker,
            now_s,
            made: 0,
            waiting: BinaryHeap::new(),
        }
    }

    /// Writes the next row, its end of line included.
    ///
    /// # Errors
    /// The writer's.
    pub fn write_row(&mut self, out: &mut impl Write) -> io::Result<Written> {
        let trip = self.next_trip();
        if self
            .rng
            .random_bool(self.settings.bad_share.clamp(0.0, 1.0))
        {
            self.write_bad(&trip, out)?;
            return Ok(Written::Bad);
        }
        trip.write(out)?;
        Ok(Written::Good)
    }

    /// Leaves out rows, as if they had been written.
    pub fn skip(&mut self, rows: u64) {
        for _ in 0..rows {
            // A sink takes every byte.
            let _ = self.write_row(&mut io::sink());
        }
    }

    fn next_trip(&mut self) -> Trip {
        loop {
            // Nothing that is still to be made can be reported before the next pick-up.
            if self
                .waiting
                .peek()
                .is_some_and(|Reverse(first)| first.report_ms as f64 <= self.now_s * 1000.0)
                && let Some(Reverse(first)) = self.waiting.pop()
            {
                return first.trip;
            }
            let trip = self.maker.make(&mut self.rng, self.made, self.now_s as i64);
            self.made += 1;
            let delay_s = self.delay();
            let report_ms = ((self.now_s + delay_s) * 1000.0) as i64;
            self.waiting.push(Reverse(Waiting { report_ms, trip }));
            let per_second =
                arrivals_per_hour(self.now_s as i64, self.settings.trips_per_day) / 3600.0;
            let uniform: f64 = self.rng.random_range(f64::EPSILON..1.0);
            self.now_s += -uniform.ln() / per_second;
        }
    }

    /// How long a row is under way: mostly little, never more than the disorder allows.
    fn delay(&mut self) -> f64 {
        let uniform: f64 = self.rng.random_range(0.0..1.0);
        // One second less: pick-up times are cut to whole seconds.
        uniform.powi(4) * (self.settings.disorder_s - 1.0).max(0.0)
    }

    fn write_bad(&mut self, trip: &Trip, out: &mut impl Write) -> io::Result<()> {
        let mut row = Vec::with_capacity(160);
        trip.write(&mut row)?;
        let row = String::from_utf8(row).map_err(io::Error::other)?;
        let mut fields: Vec<&str> = row.trim_end().split(',').collect();
        match self.rng.random_range(0..7) {
            0 => fields.truncate(9),
            1 => fields[4] = "two",
            2 => fields[2] = "2016-13-41 25:00:00",
            3 => fields[5..9].fill("0"),
            4 => fields.swap(2, 3),
            5 => fields[6] = "140.75",
            _ => {
                out.write_all(fields[..9].join(",").as_bytes())?;
                out.write_all(b",\xff\xfe,")?;
                out.write_all(fields[10..].join(",").as_bytes())?;
                return out.write_all(b"\n");
            }
        }
        out.write_all(fields.join(",").as_bytes())?;
        out.write_all(b"\n")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::collections::HashSet;

    use super::*;

    fn rows(settings: Settings, count: usize) -> (Vec<u8>, usize) {
        let mut generator = Generator::new(settings);
        let mut bytes = Vec::new();
        let bad = (0..count)
            .filter(|_| generator.write_row(&mut bytes).unwrap() == Written::Bad)
            .count();
        (bytes, bad)
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let settings = Settings {
            seed: 42,
            ..Settings::default()
        };
        assert_eq!(rows(settings.clone(), 2000), rows(settings.clone(), 2000));
        assert_ne!(rows(settings, 2000), rows(Settings::default(), 2000));
    }

    #[test]
    fn skipped_rows_are_as_if_written() {
        let (whole, _) = rows(Settings::default(), 300);
        let mut generator = Generator::new(Settings::default());
        let mut parts = Vec::new();
        for _ in 0..100 {
            generator.write_row(&mut parts).unwrap();
        }
        let mut generator = Generator::new(Settings::default());
        generator.skip(100);
        for _ in 100..300 {
            generator.write_row(&mut parts).unwrap();
        }
        assert_eq!(whole, parts);
    }

    #[test]
    fn ids_are_unique_and_disorder_stays_within_its_bound() {
        let settings = Settings {
            bad_share: 0.0,
            disorder_s: 30.0,
            ..Settings::default()
        };
        let (bytes, bad) = rows(settings, 20_000);
        assert_eq!(bad, 0);
        let text = String::from_utf8(bytes).unwrap();
        let mut ids = HashSet::new();
        let mut latest = String::new();
        let mut disordered = 0;
        let parse =
            |text: &str| chrono::NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").unwrap();
        for line in text.lines() {
            let fields: Vec<&str> = line.split(',').collect();
            assert_eq!(fields.len(), HEADER.split(',').count(), "{line}");
            assert!(ids.insert(fields[0].to_owned()));
            if fields[2] < latest.as_str() {
                disordered += 1;
                assert!(
                    (parse(&latest) - parse(fields[2])).num_seconds() <= 30,
                    "{line}"
                );
            } else {
                latest = fields[2].to_owned();
            }
            assert!(fields[3] >= fields[2], "{line}");
        }
        assert!(disordered > 100, "{disordered}");
    }

    #[test]
    fn the_share_of_bad_rows_is_as_asked() {
        let (_, bad) = rows(
            Settings {
                bad_share: 0.05,
                ..Settings::default()
            },
            20_000,
        );
        assert!((800..1200).contains(&bad), "{bad}");
    }
}
