//! The binary: sink-opensearch as a process of its own.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use runtime::cli::{Completions, Exit, finish};
use runtime::config::{Config, ConfigArgs, SinkOpenSearchConfig};
use runtime::connect::{connect_log, connect_registry};
use runtime::telemetry::{self, Readiness};
use sink_opensearch::{
    BulkOptions, BulkTarget, Credentials, DocumentsFile, Options, SqliteTarget, Target,
    TargetError, TopicSettings, run,
};
use toml::{Table, Value};

/// Topics of Avro records to documents in OpenSearch, or in a SQLite file.
///
/// Exit codes: 0 done, 1 someone must act, 2 the command line or the configuration can't be used.
#[derive(Parser)]
#[command(name = "sink-opensearch", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where documents go: http://host:port, https://host:port, or sqlite:FILE
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    /// A topic to write; can be repeated
    #[arg(long, value_name = "TOPIC")]
    topic: Vec<String>,
    /// How topics become documents (TOML)
    #[arg(long, value_name = "FILE")]
    documents: Option<String>,
    /// The consumer group
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Go to the end of what is on the log now, and exit
    #[arg(long)]
    once: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Print a shell's completion script
    Completions(Completions),
}

impl Cli {
    fn flags(&self) -> Table {
        let mut section = Table::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                section.insert(key.to_owned(), value);
            }
        };
        set("url", self.url.clone().map(Value::String));
        set("documents", self.documents.clone().map(Value::String));
        set("group", self.group.clone().map(Value::String));
        let topics = self
            .topic
            .iter()
            .cloned()
            .map(Value::String)
            .collect::<Vec<_>>();
        set(
            "topics",
            Some(Value::Array(topics)).filter(|_| !self.topic.is_empty()),
        );
        if section.is_empty() {
            return Table::new();
        }
        Table::from_iter([("sink_opensearch".to_owned(), Value::Table(section))])
    }
}

fn main() -> ExitCode {
    finish(start(&Cli::parse()))
}

fn start(cli: &Cli) -> anyhow::Result<Exit> {
    if let Some(Command::Completions(completions)) = &cli.command {
        completions.print::<Cli>()?;
        return Ok(Exit::Done);
    }
    let config = Config::load(&cli.config, &cli.flags())?;
    if cli.config.print_config {
        config.print()?;
        return Ok(Exit::Done);
    }
    telemetry::init_logs(&config.telemetry)?;
    let sink = &config.sink_opensearch;
    let topics = topics(sink)?;
    let target = target(sink)?;

    let metrics = prometheus::Registry::new();
    let edges = runtime::metrics::Metrics::new(&metrics)?;
    let readiness = Readiness::new();
    let ready = readiness.condition("log and registry");
    let _edge = telemetry::serve(
        &config.telemetry,
        metrics.clone(),
        readiness,
        Default::default(),
    )?;
    let log = connect_log(&config.log)?;
    let registry = connect_registry(&config.registry)?;
    ready.ready();

    let mut options = Options::new(log, registry, target, &sink.group, topics, &metrics, edges)?;
    options.consumer = config.log.consumer_options(&sink.group, "sink-opensearch");
    options.producer = config
        .log
        .producer_options(None, "sink-opensearch-dead-letters");
    options.flush_interval = sink.flush_interval_ms.duration();
    let bulk_bytes = usize::try_from(sink.bulk_bytes).unwrap_or(usize::MAX);
    options.flush_bytes = bulk_bytes;
    options.pacing.max_bulk_bytes = bulk_bytes;
    options.pacing.min_bulk_bytes = options.pacing.min_bulk_bytes.min(bulk_bytes);
    if cli.once {
        options.lifecycle.drain();
    }
    let progress = Arc::clone(&options.progress);
    let undelivered = move || {
        let so_far = progress.snapshot();
        eprintln!(
            "stored {}; what is not committed will be read again by the next start",
            so_far.stored
        );
    };
    runtime::shutdown::on_signals(options.lifecycle.clone(), undelivered)
        .context("signals can't be listened for")?;
    let summary = run(options)?;
    tracing::info!(
        stored = summary.stored,
        conflicts = summary.conflicts,
        dead = summary.dead,
        retried = summary.retried,
        unfinished = summary.unfinished,
        "finished"
    );
    Ok(Exit::Done)
}

/// The settings of the topics to write.
fn topics(sink: &SinkOpenSearchConfig) -> anyhow::Result<Vec<TopicSettings>> {
    let file = match sink.documents.as_os_str().is_empty() {
        true => DocumentsFile::default(),
        false => read(&sink.documents).with_context(|| {
            format!(
                "sink_opensearch.documents: the file {} can't be used",
                sink.documents.display()
            )
        })?,
    };
    Ok(sink.topics.iter().map(|name| file.settings(name)).collect())
}

fn read(path: &Path) -> anyhow::Result<DocumentsFile> {
    Ok(toml::from_str(&std::fs::read_to_string(path)?)?)
}

fn target(sink: &SinkOpenSearchConfig) -> Result<Arc<dyn Target>, TargetError> {
    if let Some(file) = sink.url.strip_prefix("sqlite:") {
        return Ok(Arc::new(SqliteTarget::open(file)?));
    }
    let mut options = BulkOptions::new(&sink.url);
    if !sink.username.is_empty() {
        options.credentials = Some(Credentials::Basic {
            user: sink.username.clone(),
            password: sink.password.expose().to_owned(),
        });
    }
    Ok(Arc::new(BulkTarget::new(options)?))
}
