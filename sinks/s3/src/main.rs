//! The binary `sink-s3`: configuration in, exit code out. What it does is in the library.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use runtime::cli::{Completions, Exit, Progress as ProgressLine, finish};
use runtime::config::{Config, ConfigArgs};
use runtime::connect::{connect_log, connect_registry};
use runtime::shutdown;
use runtime::telemetry::{Readiness, init_logs, serve};
use sink_s3::{Counts, Metrics, Options};
use toml::{Table, Value};

/// Write topics to a lake as Snappy Parquet in Hive partitions, each row exactly once.
///
/// Exit codes: 0 done, 1 someone must act, 2 the command line or the configuration can't be used.
#[derive(Parser, Debug)]
#[command(name = "sink-s3", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    /// A topic to write; can be repeated [key: sink_s3.topics]
    #[arg(long, value_name = "NAME")]
    topic: Vec<String>,
    /// The lake: s3://bucket/prefix, or a folder [key: sink_s3.url]
    #[arg(long, value_name = "URL")]
    lake: Option<String>,
    /// The consumer group [key: sink_s3.group]
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Write what is on the log now, and exit
    #[arg(long)]
    once: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Print a completion script
    Completions(Completions),
}

impl Cli {
    /// The flags as the keys that they stand for.
    fn keys(&self) -> Table {
        let mut section = Table::new();
        if !self.topic.is_empty() {
            let topics = self.topic.iter().cloned().map(Value::String).collect();
            section.insert("topics".into(), Value::Array(topics));
        }
        for (key, value) in [("url", &self.lake), ("group", &self.group)] {
            if let Some(value) = value {
                section.insert(key.into(), Value::String(value.clone()));
            }
        }
        let mut keys = Table::new();
        keys.insert("sink_s3".into(), Value::Table(section));
        keys
    }
}

fn main() -> ExitCode {
    finish(run(&Cli::parse()))
}

fn run(cli: &Cli) -> anyhow::Result<Exit> {
    if let Some(Command::Completions(completions)) = &cli.command {
        completions
            .print::<Cli>()
            .context("the completion script can't be written")?;
        return Ok(Exit::Done);
    }
    let config = Config::load(&cli.config, &cli.keys())?;
    if cli.config.print_config {
        config
            .print()
            .context("the configuration can't be printed")?;
        return Ok(Exit::Done);
    }
    init_logs(&config.telemetry)?;
    let numbers = prometheus::Registry::new();
    let metrics = Arc::new(Metrics::new(&numbers)?);
    let edge_metrics = runtime::metrics::Metrics::new(&numbers)?;
    let readiness = Readiness::new();
    let reading = readiness.condition("reading");
    let _edge = serve(&config.telemetry, numbers, readiness, axum::Router::new())?;

    let log = connect_log(&config.log)?;
    let registry = connect_registry(&config.registry)?;
    let options = Options::from_config(&config, log, registry, metrics, edge_metrics)?;
    let (lifecycle, progress) = (options.lifecycle.clone(), options.progress.clone());
    if cli.once {
        lifecycle.drain();
    }
    shutdown::on_signals(lifecycle, || {
        eprintln!("flushes that were not committed will be done again by the next start");
    })?;
    reading.ready();
    let running = thread::Builder::new()
        .name("sink-s3".into())
        .spawn(move || sink_s3::run(options))?;
    let mut line = ProgressLine::new(None);
    while !running.is_finished() {
        let counts = progress.counts();
        line.update(counts.rows, || in_words(&counts));
        thread::sleep(Duration::from_millis(200));
    }
    let summary = running
        .join()
        .map_err(|_| anyhow::anyhow!("the sink's thread panicked"))??;
    line.finish(in_words(&summary.counts));
    Ok(Exit::Done)
}

fn in_words(counts: &Counts) -> String {
    let Counts {
        read,
        rows,
        dead,
        files,
        bytes,
        ..
    } = counts;
    let megabytes = bytes / 1_000_000;
    format!(
        "{read} records read, {rows} rows in {files} files ({megabytes} MB), {dead} dead letters"
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_stand_for_keys() {
        let cli = Cli::parse_from([
            "sink-s3", "--topic", "a", "--topic", "b", "--lake", "s3://x/y",
        ]);
        assert_eq!(
            cli.keys().to_string().trim(),
            "[sink_s3]\ntopics = [\"a\", \"b\"]\nurl = \"s3://x/y\""
        );
    }
}
