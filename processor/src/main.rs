//! The binary: the processor as a process of its own.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use processor::job::JobOptions;
use processor::metrics::Metrics;
use processor::worker::WorkerOptions;
use processor::{Options, run};
use runtime::cli::{Completions, Exit, finish};
use runtime::clock::SystemClock;
use runtime::config::{Config, ConfigArgs};
use runtime::connect::{connect_log, connect_registry};
use runtime::lifecycle::Lifecycle;
use runtime::telemetry::{self, Readiness};
use toml::{Table, Value};

/// Runs a job of SQL over event-time windows, exactly once, with its state in the log.
///
/// Exit codes: 0 done, 1 someone must act, 2 the command line or the configuration can't be used.
#[derive(Parser)]
#[command(name = "processor", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    /// The job: a file of SQL statements
    #[arg(long, value_name = "FILE")]
    job: Option<String>,
    /// The name under which the job runs; a changed job needs another one
    #[arg(long, value_name = "NAME")]
    application_id: Option<String>,
    /// How many workers this process runs
    #[arg(long, value_name = "N")]
    workers: Option<u16>,
    /// This process's name among those of the application, the same after a restart; each needs its own
    #[arg(long, value_name = "NAME", default_value = "0")]
    instance: String,
    /// Go to the end of what is on the log now, close every window, and exit
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
        let values = [
            ("job", self.job.clone().map(Value::String)),
            (
                "application_id",
                self.application_id.clone().map(Value::String),
            ),
            (
                "workers",
                self.workers.map(|workers| Value::Integer(workers.into())),
            ),
        ];
        let section: Table = values
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect();
        if section.is_empty() {
            return Table::new();
        }
        Table::from_iter([("processor".to_owned(), Value::Table(section))])
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
    let settings = &config.processor;
    anyhow::ensure!(
        !settings.job.as_os_str().is_empty(),
        "no job is named: pass --job FILE, or set processor.job"
    );
    let sql = std::fs::read_to_string(&settings.job)
        .with_context(|| format!("the job {} can't be read", settings.job.display()))?;

    let metrics = prometheus::Registry::new();
    let edge_metrics = runtime::metrics::Metrics::new(&metrics)?;
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

    let options = Options {
        job: JobOptions {
            sql,
            application_id: settings.application_id.clone(),
            shards: settings.shards.into(),
            mask_salt: settings.mask_salt.expose().as_bytes().to_vec(),
            replication: config.log.replication,
        },
        workers: settings.workers.into(),
        instance: cli.instance.clone(),
        worker: WorkerOptions {
            commit_interval: settings.commit_interval_ms.duration(),
            session_timeout: config.log.session_timeout_ms.duration(),
            transaction_timeout: config.log.transaction_timeout_ms.duration(),
            idle_marks: !cli.once,
            ..WorkerOptions::default()
        },
        log,
        registry,
        lifecycle: Lifecycle::new(),
        clock: Arc::new(SystemClock),
        metrics: Arc::new(Metrics::new(&metrics)?),
        edge_metrics,
        progress: Arc::default(),
    };
    if cli.once {
        options.lifecycle.drain();
    }
    runtime::shutdown::on_signals(options.lifecycle.clone(), || {
        eprintln!("left at once: what is not committed will be done again by the next start");
    })
    .context("signals can't be listened for")?;
    run(&options)?;
    let totals = options.progress.totals();
    tracing::info!(
        rows = totals.rows_in,
        merged = totals.merged,
        late = totals.late,
        closed = totals.closed,
        results = totals.emitted,
        "finished"
    );
    Ok(Exit::Done)
}
