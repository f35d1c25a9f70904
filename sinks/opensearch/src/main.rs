//! The binary: sink-opensearch as a process of its own.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use runtime::cli::{Command, Exit, Flags, Service, Usage, configure, finish};
use runtime::config::{ConfigArgs, SinkOpenSearchConfig};
use runtime::shutdown::on_signals;
use sink_opensearch::{
    BulkOptions, BulkTarget, Credentials, DocumentsFile, Options, SqliteTarget, Target,
    TargetError, TopicSettings, run,
};

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

impl Cli {
    fn flags(&self) -> Flags {
        Flags::of("sink_opensearch")
            .set("url", self.url.as_deref())
            .list("topics", &self.topic)
            .set("documents", self.documents.as_deref())
            .set("group", self.group.as_deref())
    }
}

fn main() -> ExitCode {
    finish(start(&Cli::parse()))
}

fn start(cli: &Cli) -> anyhow::Result<Exit> {
    let completions = Command::completions(&cli.command);
    let Some(config) = configure::<Cli>(&cli.config, cli.flags(), completions)? else {
        return Ok(Exit::Done);
    };
    let sink = &config.sink_opensearch;
    let topics = topics(sink).map_err(Usage)?;
    let target = target(sink)?;
    let service = Service::start(&config)?;
    let (log, registry) = service.connect(&config)?;
    let (metrics, edges) = (&service.metrics, service.edge_metrics.clone());
    let mut options = Options::new(log, registry, target, &sink.group, topics, metrics, edges)?;
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
    on_signals(options.lifecycle.clone(), undelivered)?;
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
