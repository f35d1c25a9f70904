//! The binary `sink-s3`: configuration in, exit code out. What it does is in the library.

use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use clap::Parser;
use runtime::cli::{Command, Exit, Flags, Progress as ProgressLine, Service, configure, finish};
use runtime::config::ConfigArgs;
use runtime::shutdown::on_signals;
use sink_s3::{Counts, Metrics, Options};

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

impl Cli {
    fn flags(&self) -> Flags {
        Flags::of("sink_s3")
            .list("topics", &self.topic)
            .set("url", self.lake.as_deref())
            .set("group", self.group.as_deref())
    }
}

fn main() -> ExitCode {
    finish(run(&Cli::parse()))
}

fn run(cli: &Cli) -> anyhow::Result<Exit> {
    let completions = Command::completions(&cli.command);
    let Some(config) = configure::<Cli>(&cli.config, cli.flags(), completions)? else {
        return Ok(Exit::Done);
    };
    let service = Service::start(&config)?;
    let metrics = Arc::new(Metrics::new(&service.metrics)?);
    let (log, registry) = service.connect(&config)?;
    let edge_metrics = service.edge_metrics.clone();
    let options = Options::from_config(&config, log, registry, metrics, edge_metrics)?;
    let (lifecycle, progress) = (options.lifecycle.clone(), options.progress.clone());
    if cli.once {
        lifecycle.drain();
    }
    on_signals(lifecycle, || {
        eprintln!("flushes that were not committed will be done again by the next start");
    })?;
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
            cli.flags().table().to_string().trim(),
            "[sink_s3]\ntopics = [\"a\", \"b\"]\nurl = \"s3://x/y\""
        );
    }
}
