//! `producer`: CSV files to Avro records on the log, exactly once.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use producer::{Mapping, Metrics, Options, ProducerError, Source, Summary, run, setup_topics};
use runtime::cli::{
    Command, Exit, Flags, Progress, Service, Usage, configure, finish, print_error,
};
use runtime::config::{ConfigArgs, ProducerConfig};
use runtime::dead_letter::dlq_topic;
use runtime::shutdown::on_signals;
use runtime::topics::Durability;

/// Send CSV files to a topic: standardised, as Avro, each row exactly once.
///
/// Rows that can't be standardised go to TOPIC.dlq with file, line, column and reason; they never stop a run. The
/// position is committed with the rows: after a stop or a crash, start the same command again and it goes on where it
/// was. Files that grew since are read on.
#[derive(Parser, Debug)]
#[command(name = "producer", version, args_conflicts_with_subcommands = true)]
#[command(after_help = "Examples:
  producer trips.csv --create-topics 4
  producer january.csv february.csv --mapping aws --rate 5000
  producer --show-mapping kaggle > my-mapping.toml; producer mine.csv --mapping my-mapping.toml --schema mine.avsc

Exit codes: 0 all rows are sent, or it was stopped and committed what it had read; 1 something failed; 2 files, mapping,
flags or configuration can't be used, and nothing was sent; 130 and 143 a second signal ended it at once.")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// The CSV files, read in this order
    #[arg(value_name = "FILES")]
    files: Vec<PathBuf>,
    /// How columns become fields: aws, kaggle, headway, the path of a mapping file, or auto (by the first file's header)
    #[arg(long, value_name = "NAME|FILE|auto")]
    mapping: Option<String>,
    /// The topic that rows go to
    #[arg(long)]
    topic: Option<String>,
    /// The most rows a second, evenly spread
    #[arg(long, value_name = "ROWS")]
    rate: Option<f64>,
    /// The rows' Avro schema; otherwise the newest one that the registry has for the topic, or the shipped taxi trips
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Go on with the input set of this id: to add files behind those that it had
    #[arg(long, value_name = "ID")]
    input_set: Option<String>,
    /// Create the topics that are missing, the rows' one with this many partitions
    #[arg(long, value_name = "PARTITIONS", value_parser = clap::value_parser!(i32).range(1..))]
    create_topics: Option<i32>,
    /// Print a shipped mapping, to write one's own after it, and exit
    #[arg(long, value_name = "NAME")]
    show_mapping: Option<String>,
    #[command(flatten)]
    config: ConfigArgs,
}

impl Cli {
    fn flags(&self) -> Flags {
        Flags::of("producer")
            .set("mapping", self.mapping.as_deref())
            .set("topic", self.topic.as_deref())
            .set("rate", self.rate)
    }
}

fn main() -> ExitCode {
    finish(start(&Cli::parse()))
}

fn start(cli: &Cli) -> anyhow::Result<Exit> {
    if let Some(name) = &cli.show_mapping {
        return Ok(show_mapping(name)?);
    }
    let completions = Command::completions(&cli.command);
    let Some(config) = configure::<Cli>(&cli.config, cli.flags(), completions)? else {
        return Ok(Exit::Done);
    };
    let mapping = mapping(&config.producer)?;
    let schema = schema(cli)?;
    let service = Service::start(&config)?;
    let (log, registry) = service.connect(&config)?;
    let durability = Durability::of(&config.log);
    if let Some(partitions) = cli.create_topics {
        setup_topics(log.as_ref(), &config.producer.topic, partitions, durability)
            .context("the topics can't be created")?;
    }
    let rate = (config.producer.rate != 0.0).then_some(config.producer.rate);
    let options = Options {
        mapping,
        schema,
        rate,
        commit_interval: config.producer.commit_interval_ms.duration(),
        commit_rows: config.producer.commit_rows,
        transaction_timeout: config.log.transaction_timeout_ms.duration(),
        durability,
        delivery_timeout: config.log.delivery_timeout_ms.duration(),
        linger: config.log.linger_ms.duration(),
        input_set: cli.input_set.clone(),
        ..Options::new(
            log,
            registry,
            config.producer.topic.as_str(),
            Source::Files(cli.files.clone()),
            Metrics::new(&service.metrics)?,
            service.edge_metrics.clone(),
        )
    };
    report(options)
}

/// Runs, and shows how far it is.
fn report(options: Options) -> anyhow::Result<Exit> {
    let topic = options.topic.clone();
    let (lifecycle, progress) = (options.lifecycle.clone(), Arc::clone(&options.progress));
    let watched = Arc::clone(&progress);
    on_signals(lifecycle.clone(), move || {
        let (file, line) = watched.place();
        eprintln!(
            "{} rows that were read behind line {line} of {file} are not committed: the next start sends them",
            watched.in_hand()
        );
    })?;
    let start = Instant::now();
    let running = thread::Builder::new()
        .name("producer".into())
        .spawn(move || run(options))?;
    let mut line: Option<Progress> = None;
    while !running.is_finished() {
        thread::sleep(Duration::from_millis(50));
        let total = progress.total_bytes();
        if total > 0 || start.elapsed() > Duration::from_secs(1) {
            line.get_or_insert_with(|| Progress::new((total > 0).then_some(total)))
                .update(progress.bytes(), || {
                    format!(
                        "{} delivered, {} rejected",
                        progress.delivered(),
                        progress.rejected()
                    )
                });
        }
    }
    let outcome = match running.join() {
        Ok(outcome) => outcome,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    match outcome {
        Ok(summary) => {
            let text = summary_text(&summary, &topic, start.elapsed());
            match line {
                Some(line) => line.finish(text),
                None => tracing::info!(progress = text, "finished"),
            }
            Ok(Exit::Done)
        }
        Err(error) => {
            drop(line);
            print_error(&error);
            let usage = matches!(
                error,
                ProducerError::Input(_)
                    | ProducerError::Mapping(_)
                    | ProducerError::NoMapping { .. }
                    | ProducerError::Header { .. }
                    | ProducerError::Rate(_)
            ) && progress.read() == 0;
            Ok(if usage { Exit::Usage } else { Exit::Failed })
        }
    }
}

fn summary_text(summary: &Summary, topic: &str, took: Duration) -> String {
    let dead = match summary.rejected {
        0 => "none rejected".to_owned(),
        rejected => format!("{rejected} rejected ({} says why)", dlq_topic(topic)),
    };
    let totals = format!(
        "{} rows of input set {}: {} delivered to {topic}, {dead}",
        summary.read, summary.input_set, summary.delivered
    );
    let seconds = took.as_secs_f64().max(0.001);
    match (summary.finished, summary.read_now) {
        (true, 0) => format!("everything was sent already: {totals}"),
        (true, now) => format!(
            "{totals}; {now} rows in {seconds:.1} s, {:.0} a second",
            now as f64 / seconds
        ),
        (false, now) => format!(
            "stopped: {totals}; {now} rows now, committed. The same command goes on from here"
        ),
    }
}

fn show_mapping(name: &str) -> Result<Exit, Usage> {
    let text = Mapping::shipped_text(name).ok_or_else(|| {
        let names: Vec<_> = Mapping::shipped_names().collect();
        Usage::new(format!(
            "there is no shipped mapping {name}: they are {}",
            names.join(", ")
        ))
    })?;
    print!("{text}");
    Ok(Exit::Done)
}

/// The mapping that the configuration names; `None`: by the header.
fn mapping(config: &ProducerConfig) -> Result<Option<Mapping>, Usage> {
    let name = config.mapping.to_string_lossy();
    if name.is_empty() || name == "auto" {
        return Ok(None);
    }
    if let Some(mapping) = Mapping::shipped(&name) {
        return Ok(Some(mapping));
    }
    let text = std::fs::read_to_string(&config.mapping).with_context(|| {
        let names: Vec<_> = Mapping::shipped_names().collect();
        format!(
            "the mapping {name} is neither shipped ({}) nor a file that can be read",
            names.join(", ")
        )
    })?;
    Ok(Some(Mapping::read(&text, name)))
}

/// The schema that the command line names.
fn schema(cli: &Cli) -> Result<Option<String>, Usage> {
    let Some(path) = &cli.schema else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("the schema {} can't be read", path.display()))?;
    Ok(Some(text))
}
