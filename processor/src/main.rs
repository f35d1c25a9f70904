//! The binary: the processor as a process of its own.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use processor::job::JobOptions;
use processor::metrics::Metrics;
use processor::worker::WorkerOptions;
use processor::{Options, run};
use runtime::cli::{Command, Exit, Flags, Service, Usage, configure, finish};
use runtime::clock::SystemClock;
use runtime::config::ConfigArgs;
use runtime::lifecycle::Lifecycle;
use runtime::shutdown::on_signals;
use runtime::topics::Durability;

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

impl Cli {
    fn flags(&self) -> Flags {
        Flags::of("processor")
            .set("job", self.job.as_deref())
            .set("application_id", self.application_id.as_deref())
            .set("workers", self.workers.map(u32::from))
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
    let settings = &config.processor;
    let sql = job(&settings.job)?;
    let service = Service::start(&config)?;
    let (log, registry) = service.connect(&config)?;
    let options = Options {
        job: JobOptions {
            sql,
            application_id: settings.application_id.clone(),
            shards: settings.shards.into(),
            mask_salt: settings.mask_salt.expose().as_bytes().to_vec(),
            durability: Durability::of(&config.log),
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
        metrics: Arc::new(Metrics::new(&service.metrics)?),
        edge_metrics: service.edge_metrics.clone(),
        progress: Arc::default(),
    };
    if cli.once {
        options.lifecycle.drain();
    }
    on_signals(options.lifecycle.clone(), || {
        eprintln!("left at once: what is not committed will be done again by the next start");
    })?;
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

/// The job's text.
fn job(path: &Path) -> Result<String, Usage> {
    if path.as_os_str().is_empty() {
        return Err(Usage::new(
            "no job is named: pass --job FILE with the SQL to run (the taxi pipeline's is processor/jobs/taxi.sql), or set processor.job in the configuration",
        ));
    }
    let read = std::fs::read_to_string(path).with_context(|| {
        format!(
            "the job {} can't be read: --job, or processor.job, names a file of SQL, from the folder that this process runs in",
            path.display()
        )
    });
    Ok(read?)
}
