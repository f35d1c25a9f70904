//! How long something takes, each time: medians, the slowest, a table or JSON.

use runtime::cli::table;
use serde::Serialize;

use crate::Common;
use crate::report::{Machine, median};

/// A benchmark's outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Delays {
    bench: &'static str,
    machine: Machine,
    /// Whether the binaries' overflow and debug assertions are on: as in this one.
    assertions: bool,
    rows: u64,
    partitions: i32,
    seed: u64,
    delays: Vec<Delay>,
    checks: Vec<String>,
}

/// What was measured several times.
#[derive(Clone, Debug, Serialize)]
struct Delay {
    what: &'static str,
    count: usize,
    median_s: f64,
    p99_s: f64,
    max_s: f64,
    #[serde(skip)]
    all_s: Vec<f64>,
}

impl Delays {
    /// None yet.
    pub fn new(bench: &'static str, args: &Common) -> Self {
        Self {
            bench,
            machine: Machine::this(),
            assertions: cfg!(debug_assertions),
            rows: args.rows,
            partitions: args.partitions,
            seed: args.seed,
            delays: Vec::new(),
            checks: Vec::new(),
        }
    }

    /// Takes some more of `what`, in seconds.
    pub fn add(&mut self, what: &'static str, seconds: impl IntoIterator<Item = f64>) {
        let place = self.delays.iter().position(|delay| delay.what == what);
        let place = place.unwrap_or_else(|| {
            self.delays.push(Delay {
                what,
                count: 0,
                median_s: f64::NAN,
                p99_s: f64::NAN,
                max_s: f64::NAN,
                all_s: Vec::new(),
            });
            self.delays.len() - 1
        });
        let delay = &mut self.delays[place];
        delay.all_s.extend(seconds);
        delay.all_s.sort_by(f64::total_cmp);
        delay.count = delay.all_s.len();
        delay.median_s = median(delay.all_s.clone());
        delay.p99_s = percentile(&delay.all_s, 0.99);
        delay.max_s = delay.all_s.last().copied().unwrap_or(f64::NAN);
    }

    /// Takes what a check found.
    pub fn check(&mut self, found: String) {
        self.checks.push(found);
    }

    /// Prints it on standard output.
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        if json {
            println!("{:#}", serde_json::to_value(self)?);
            return Ok(());
        }
        println!(
            "{} rows, {} partitions, seed {}\n{}\n",
            self.rows,
            self.partitions,
            self.seed,
            self.machine.line(self.assertions)
        );
        let seconds = |seconds: f64| format!("{seconds:.3} s");
        let lines: Vec<_> = self
            .delays
            .iter()
            .map(|delay| {
                [
                    delay.what.to_owned(),
                    delay.count.to_string(),
                    seconds(delay.median_s),
                    seconds(delay.p99_s),
                    seconds(delay.max_s),
                ]
            })
            .collect();
        println!("{}", table(["", "times", "median", "p99", "max"], &lines));
        for check in &self.checks {
            println!("ok {check}");
        }
        Ok(())
    }
}

/// The least of the sorted figures that this share of them does not exceed (nearest rank).
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil().max(1.0) as usize;
    sorted.get(rank - 1).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::percentile;

    #[test]
    fn a_percentile_is_one_of_the_figures() {
        let sorted: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(percentile(&sorted, 0.99), 198.0);
        assert_eq!(percentile(&sorted[..3], 0.99), 3.0);
        assert_eq!(percentile(&sorted[..1], 0.5), 1.0);
        assert!(percentile(&[], 0.99).is_nan());
    }
}
