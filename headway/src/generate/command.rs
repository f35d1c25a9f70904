//! `headway generate`: trips to a file.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::Context;
use chrono::{NaiveDate, TimeZone};
use runtime::cli::{Exit, Progress};

use super::{Generator, HEADER, Settings, Written};
use crate::audit::thousands;

/// Writes taxi trips from a seed, in the layout of the `headway` mapping
///
/// The same seed and settings give the same bytes. Trips come in nearly the order of their pick-up, with the rhythm of a
/// week in New York, and a share of rows that can't be used.
#[derive(Debug, clap::Args)]
pub struct GenerateArgs {
    /// How many rows
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    rows: u64,
    /// The seed
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Where to write: a file, or - for standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    out: PathBuf,
    /// The first trip's date (New York time, from midnight)
    #[arg(long, value_name = "YYYY-MM-DD", default_value = "2016-01-01")]
    start: NaiveDate,
    /// How many trips an average day has
    #[arg(long, value_name = "N", default_value_t = 30_000.0)]
    trips_per_day: f64,
    /// The most seconds by which a row may come after one of later pick-up
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0)]
    disorder: f64,
    /// The share of rows that can't be used, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.001)]
    bad_share: f64,
}

/// Writes the rows.
pub fn run(args: &GenerateArgs) -> anyhow::Result<Exit> {
    anyhow::ensure!(
        args.trips_per_day > 0.0,
        "--trips-per-day must be more than 0"
    );
    anyhow::ensure!(
        (0.0..=1.0).contains(&args.bad_share),
        "--bad-share must be from 0 to 1"
    );
    let midnight = args
        .start
        .and_hms_opt(0, 0, 0)
        .context("--start has no midnight")?;
    let start = chrono_tz::America::New_York
        .from_local_datetime(&midnight)
        .earliest()
        .context("--start has no midnight")?;
    let mut generator = Generator::new(Settings {
        seed: args.seed,
        start: start.to_utc(),
        trips_per_day: args.trips_per_day,
        disorder_s: args.disorder,
        bad_share: args.bad_share,
    });
    let to_file = args.out.as_os_str() != "-";
    let out: Box<dyn Write> = if to_file {
        Box::new(
            File::create(&args.out)
                .with_context(|| format!("{} can't be written", args.out.display()))?,
        )
    } else {
        Box::new(io::stdout().lock())
    };
    match write(
        &mut generator,
        args.rows,
        BufWriter::with_capacity(1 << 20, out),
    ) {
        Ok(bad) => {
            if to_file {
                let (rows, bad) = (thousands(args.rows), thousands(bad));
                eprintln!(
                    "wrote {rows} rows, {bad} of them spoiled, to {}",
                    args.out.display()
                );
            }
            Ok(Exit::Done)
        }
        // Whoever read the rows has had enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Exit::Done),
        Err(error) => {
            Err(error).with_context(|| format!("{} can't be written", args.out.display()))
        }
    }
}

fn write(generator: &mut Generator, rows: u64, mut out: impl Write) -> io::Result<u64> {
    let mut progress = Progress::new(Some(rows));
    writeln!(out, "{HEADER}")?;
    let mut bad = 0;
    for row in 0..rows {
        bad += u64::from(generator.write_row(&mut out)? == Written::Bad);
        if row % 16_384 == 0 {
            progress.update(row, || format!("{} rows", thousands(row)));
        }
    }
    out.flush()?;
    Ok(bad)
}
