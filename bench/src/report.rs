//! Medians, ratios, a table or JSON.

use std::fs;

use runtime::cli::table;
use serde::Serialize;

use crate::Common;
use crate::cost::Cost;

/// One run of one contestant.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    who: &'static str,
    run: u32,
    #[serde(flatten)]
    cost: Cost,
}

impl Run {
    /// Of this contestant.
    pub fn new(who: &'static str, run: u32, cost: Cost) -> Self {
        Self { who, run, cost }
    }
}

/// What a contestant comes to: the median of each figure over its runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Median {
    who: &'static str,
    rows_per_s: f64,
    rows_per_cpu_s: f64,
    cpu_us_per_row: f64,
    wall_s: f64,
    cpu_s: f64,
    peak_rss_bytes: f64,
}

/// How much more ours does than another.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Ratio {
    against: &'static str,
    rows_per_s: f64,
    rows_per_cpu_s: f64,
}

impl Median {
    fn over(&self, other: &Self) -> Ratio {
        Ratio {
            against: other.who,
            rows_per_s: self.rows_per_s / other.rows_per_s,
            rows_per_cpu_s: self.rows_per_cpu_s / other.rows_per_cpu_s,
        }
    }
}

/// A benchmark's outcome.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    bench: &'static str,
    machine: Machine,
    /// Whether the binaries' overflow and debug assertions are on: as in this one.
    assertions: bool,
    rows: u64,
    /// The mean size of a record's value.
    bytes_per_row: f64,
    partitions: i32,
    seed: u64,
    runs: Vec<Run>,
    checks: Vec<String>,
    others: Vec<&'static str>,
    ours: &'static str,
}

/// What it was measured on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    cpu: String,
    cores: usize,
    memory_gib: u64,
    /// The load average of the last minute, at the start.
    load: f64,
}

impl Machine {
    /// This one, now.
    pub fn this() -> Self {
        let find = |file: &str, name: &str| {
            let text = fs::read_to_string(file).unwrap_or_default();
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.split_once(':'))
                .map(|(_, value)| value.trim().to_owned())
        };
        let kib = find("/proc/meminfo", "MemTotal")
            .and_then(|memory| memory.split(' ').next()?.parse::<u64>().ok());
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        Self {
            cpu: find("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown CPU".into()),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            memory_gib: kib.unwrap_or(0).div_ceil(1 << 20),
            load: load
                .split(' ')
                .next()
                .and_then(|load| load.parse().ok())
                .unwrap_or(f64::NAN),
        }
    }
}

impl Machine {
    /// It in a line; and what is to be said where overflow and debug assertions are on.
    pub fn line(&self, assertions: bool) -> String {
        let Self {
            cpu,
            cores,
            memory_gib,
            load,
        } = self;
        let warning = match assertions {
            true => {
                "; overflow and debug assertions are on: build with --profile dist for figures to be published"
            }
            false => "",
        };
        format!("{cores} cores {cpu}, {memory_gib} GiB, load {load} at the start{warning}")
    }
}

impl Report {
    /// None yet of `ours` against the others.
    pub fn new(
        bench: &'static str,
        args: &Common,
        others: &[&'static str],
        ours: &'static str,
        bytes: u64,
    ) -> Self {
        Self {
            bench,
            machine: Machine::this(),
            assertions: cfg!(debug_assertions),
            rows: args.rows,
            bytes_per_row: bytes as f64 / args.rows.max(1) as f64,
            partitions: args.partitions,
            seed: args.seed,
            runs: Vec::new(),
            checks: Vec::new(),
            others: others.to_vec(),
            ours,
        }
    }

    /// Takes a run, and says so on standard error.
    pub fn add(&mut self, run: Run) {
        let rate = self.rows as f64 / run.cost.wall_s;
        eprintln!(
            "{} {}: {rate:.0} rows/s, {:.2} s, {:.2} s CPU",
            run.who,
            run.run,
            run.cost.wall_s,
            run.cost.cpu_s()
        );
        self.runs.push(run);
    }

    /// Takes what a check found.
    pub fn check(&mut self, found: String) {
        self.checks.push(found);
    }

    fn median(&self, who: &'static str) -> Median {
        let of = |figure: fn(&Cost) -> f64| {
            let runs = self.runs.iter().filter(|run| run.who == who);
            median(runs.map(|run| figure(&run.cost)).collect())
        };
        let (wall_s, cpu_s) = (of(|cost| cost.wall_s), of(Cost::cpu_s));
        let rows = self.rows as f64;
        Median {
            who,
            rows_per_s: rows / wall_s,
            rows_per_cpu_s: rows / cpu_s,
            cpu_us_per_row: cpu_s / rows * 1e6,
            wall_s,
            cpu_s,
            peak_rss_bytes: of(|cost| cost.peak_rss_bytes as f64),
        }
    }

    /// Prints it on standard output.
    pub fn print(&self, json: bool) -> anyhow::Result<()> {
        let ours = self.median(self.ours);
        let others: Vec<Median> = self.others.iter().map(|who| self.median(who)).collect();
        let ratios: Vec<Ratio> = others.iter().map(|other| ours.over(other)).collect();
        if json {
            let mut value = serde_json::to_value(self)?;
            let medians: Vec<&Median> = others.iter().chain([&ours]).collect();
            value["medians"] = serde_json::to_value(medians)?;
            value["ratios"] = serde_json::to_value(&ratios)?;
            println!("{value:#}");
            return Ok(());
        }
        println!(
            "{} rows of {:.0} bytes, {} partitions, seed {}; median of {} runs each\n{}\n",
            self.rows,
            self.bytes_per_row,
            self.partitions,
            self.seed,
            self.checks.len(),
            self.machine.line(self.assertions)
        );
        let line = |median: &Median| {
            [
                median.who.to_owned(),
                format!("{:.2} M", median.rows_per_s / 1e6),
                format!("{:.2} M", median.rows_per_cpu_s / 1e6),
                format!("{:.2} µs", median.cpu_us_per_row),
                format!("{:.2} s", median.cpu_s),
                format!("{:.0} MiB", median.peak_rss_bytes / f64::from(1 << 20)),
            ]
        };
        let head = ["", "rows/s", "rows/CPU-s", "CPU/row", "CPU", "peak RSS"];
        let lines: Vec<_> = others.iter().chain([&ours]).map(line).collect();
        println!("{}", table(head, &lines));
        for ratio in &ratios {
            println!(
                "{} / {}: {:.2} times by time, {:.2} times by CPU time",
                self.ours, ratio.against, ratio.rows_per_s, ratio.rows_per_cpu_s
            );
        }
        for check in &self.checks {
            println!("ok {check}");
        }
        Ok(())
    }
}

/// The middle one; the mean of the middle two where there is none.
pub fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    let middle = figures.len() / 2;
    match figures.as_slice() {
        [] => f64::NAN,
        of if of.len() % 2 == 1 => of[middle],
        of => (of[middle - 1] + of[middle]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_the_middle_of_the_figures_in_order() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }
}
