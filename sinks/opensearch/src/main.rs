//! The binary: sink-opensearch as a process of its own.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use runtime::cli::{Completions, Exit, Flags, Service, Usage, configure, finish};
use runtime::config::{Config, ConfigArgs, SinkOpenSearchConfig};
use runtime::connect::connect_registry;
use runtime::shutdown::on_signals;
use runtime::topics::Durability;
use sink_opensearch::{
    Access, BulkTarget, DocumentsFile, Options, Template, TopicSettings, check_start, open_target,
    run, schema_of, wait_for,
};

/// Topics of Avro records to documents in OpenSearch, or in a SQLite file.
///
/// OpenSearch needs `sink-opensearch setup` once, and again when a topic's schema gets new fields. User, password and
/// certificates are settings without a flag (--print-config shows all): a password is best given in
/// HEADWAY_SINK_OPENSEARCH_PASSWORD, or in a file that HEADWAY_SINK_OPENSEARCH_PASSWORD_FILE names.
///
/// Exit codes: 0 done, 1 someone must act, 2 the command line or the configuration can't be used.
#[derive(Parser)]
#[command(name = "sink-opensearch", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    /// Where documents go: http://host:port, https://host:port, or sqlite:FILE
    #[arg(long, value_name = "URL", global = true)]
    url: Option<String>,
    /// A topic to write; can be repeated
    #[arg(long, value_name = "TOPIC", global = true)]
    topic: Vec<String>,
    /// How topics become documents: a TOML file, or the shipped one, taxi
    #[arg(long, value_name = "FILE", global = true)]
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

#[derive(clap::Subcommand)]
enum Command {
    /// Put the topics' index templates into OpenSearch, and add to their indices what they lack
    ///
    /// The mappings are made from the schemas in the registry, and are strict: OpenSearch guesses nothing. What is as it
    /// should be is left alone, so that it can be run any number of times. What a topic's documents are (ids, index
    /// names, points, settings of the indices) stands in the documents file.
    Setup {
        /// Change nothing; exit with 1 if something would be changed
        #[arg(long)]
        check: bool,
        /// Print the templates as JSON, without asking OpenSearch
        #[arg(long, conflicts_with = "check")]
        print: bool,
    },
    /// Print a shell's completion script
    Completions(Completions),
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
    let completions = match &cli.command {
        Some(Command::Completions(asked)) => Some(asked),
        Some(Command::Setup { .. }) | None => None,
    };
    let Some(config) = configure::<Cli>(&cli.config, cli.flags(), completions)? else {
        return Ok(Exit::Done);
    };
    match cli.command {
        Some(Command::Setup { print: true, .. }) => print_templates(&config),
        Some(Command::Setup { check, .. }) => setup(&config, !check),
        Some(Command::Completions(_)) | None => write_documents(&config, cli.once),
    }
}

fn write_documents(config: &Config, once: bool) -> anyhow::Result<Exit> {
    let sink = &config.sink_opensearch;
    let topics = topics(sink).map_err(Usage)?;
    let target = open_target(sink, Access::Write).map_err(|error| Usage(error.into()))?;
    let service = Service::start(config)?;
    let condition = service.condition("documents");
    let (log, registry) = service.connect(config)?;
    let patience = sink.connect_timeout_ms.duration();
    check_start(&topics, &*registry, &*target, patience)?;
    let (metrics, edges) = (&service.metrics, service.edge_metrics.clone());
    let mut options = Options::new(log, registry, target, &sink.group, topics, metrics, edges)?;
    options.consumer = config.log.consumer_options(&sink.group, "sink-opensearch");
    options.producer = config
        .log
        .producer_options(None, "sink-opensearch-dead-letters");
    options.condition = condition;
    options.durability = Durability::of(&config.log);
    options.flush_interval = sink.flush_interval_ms.duration();
    let bulk_bytes = usize::try_from(sink.bulk_bytes).unwrap_or(usize::MAX);
    options.flush_bytes = bulk_bytes;
    options.pacing.max_bulk_bytes = bulk_bytes;
    options.pacing.min_bulk_bytes = options.pacing.min_bulk_bytes.min(bulk_bytes);
    if once {
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

/// Brings OpenSearch to what the topics' schemas ask for, if `apply`, and says what is changed.
fn setup(config: &Config, apply: bool) -> anyhow::Result<Exit> {
    let sink = &config.sink_opensearch;
    if sink.url.starts_with("sqlite:") {
        println!("a SQLite file needs no setup");
        return Ok(Exit::Done);
    }
    let topics = topics(sink).map_err(Usage)?;
    let target = BulkTarget::from_config(sink).map_err(|error| Usage(error.into()))?;
    let registry = connect_registry(&config.registry)?;
    let patience = sink.connect_timeout_ms.duration();
    wait_for(&target, patience)?;
    let (mut changes, mut conflicts) = (0, 0);
    for settings in &topics {
        let schema = schema_of(settings, &*registry)?;
        let done = target.setup(settings, &schema, apply)?;
        for change in &done.changes {
            println!("{change}");
        }
        for conflict in &done.conflicts {
            eprintln!("conflict: {conflict}");
        }
        changes += done.changes.len();
        conflicts += done.conflicts.len();
    }
    match (changes, apply) {
        (0, _) if conflicts > 0 => {}
        (0, _) => println!("nothing to change"),
        (_, true) => {}
        (_, false) => println!("not changed: run `sink-opensearch setup` without --check"),
    }
    Ok(match conflicts > 0 || (changes > 0 && !apply) {
        true => Exit::Failed,
        false => Exit::Done,
    })
}

/// Prints what `setup` would put there, by name, for those who put it there by other means.
fn print_templates(config: &Config) -> anyhow::Result<Exit> {
    let registry = connect_registry(&config.registry)?;
    let mut templates = serde_json::Map::new();
    for settings in topics(&config.sink_opensearch).map_err(Usage)? {
        let schema = schema_of(&settings, &*registry)?;
        let template = Template::new(&settings, &schema)
            .with_context(|| format!("topic {} can't have an index", settings.topic))?;
        templates.insert(template.name, template.body);
    }
    println!("{}", serde_json::to_string_pretty(&templates)?);
    Ok(Exit::Done)
}

/// The settings of the topics to write.
fn topics(sink: &SinkOpenSearchConfig) -> anyhow::Result<Vec<TopicSettings>> {
    let file = DocumentsFile::from_config(sink)?;
    Ok(sink.topics.iter().map(|name| file.settings(name)).collect())
}
