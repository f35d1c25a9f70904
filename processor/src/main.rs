//! The binary: the processor as a process of its own.

mod commands;
mod options;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use processor::job::JobLoadError;
use processor::pages::pages;
use processor::progress::Progress;
use processor::query::Limits;
use processor::{ProcessorError, run};
use runtime::cli::{Completions, Exit, Flags, Service, Usage, configure, finish};
use runtime::config::{Config, ConfigArgs, ProcessorConfig};
use runtime::shutdown::on_signals;

/// Runs a job of SQL over event-time windows, exactly once, with its state in the log.
///
/// Exit codes: 0 done, 1 someone must act, 2 the command line or the configuration can't be used.
#[derive(Parser)]
#[command(name = "processor", version)]
#[command(after_help = "Examples:
  processor                                                  run the configured job
  processor check job.sql                                    can it run? what to write instead?
  processor check job.sql --schema trips=taxi_trip.avsc      the same without a registry
  processor explain job.sql                                  fragments, topics, state and time of its queries
  processor offsets show                                     how far is the configured application?
  processor offsets show --job new.sql --application-id b    how far is another one?
  processor cutover old.sql --from taxi --to taxi-2          the changed job goes on where the old one stops
  processor reset --dry-run                                  what would it take to begin anew?
  processor upgrade                                          in which format is it written, and who reads which?")]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    /// The job: a file of SQL statements
    #[arg(long, value_name = "FILE", global = true)]
    job: Option<String>,
    /// The name under which the job runs; a changed job needs another one
    #[arg(long, value_name = "NAME", global = true)]
    application_id: Option<String>,
    /// The application whose queries this one takes over, once `processor cutover` hands it over
    #[arg(long, value_name = "NAME", global = true)]
    takes_over: Option<String>,
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

#[derive(Subcommand, Clone, Debug)]
enum Command {
    Check(commands::CheckArgs),
    Explain(commands::ExplainArgs),
    #[command(subcommand)]
    Offsets(commands::OffsetsCommand),
    Reset(commands::ResetArgs),
    Upgrade(commands::UpgradeArgs),
    Cutover(commands::CutoverArgs),
    /// Print a shell's completion script
    Completions(Completions),
}

/// What is logged of a command unless the user asks for more: its answer is what people look at.
const QUIET: &str = "warn";

impl Cli {
    fn flags(&self) -> Flags {
        Flags::of("processor")
            .set("job", self.job.as_deref())
            .set("application_id", self.application_id.as_deref())
            .set("takes_over", self.takes_over.as_deref())
            .set("workers", self.workers.map(u32::from))
    }
}

fn main() -> ExitCode {
    finish(start(&Cli::parse()))
}

fn start(cli: &Cli) -> anyhow::Result<Exit> {
    let completions = match &cli.command {
        Some(Command::Completions(completions)) => Some(completions),
        Some(_) => return look(cli),
        None => None,
    };
    let Some(config) = configure::<Cli>(&cli.config, cli.flags(), completions)? else {
        return Ok(Exit::Done);
    };
    let settings = &config.processor;
    // Before anything is served: a job that can't be read is the user's mistake.
    job(&settings.job)?;
    let progress = Arc::new(Progress::default());
    let service = Service::start_with(&config, pages(&progress, limits(settings)))?;
    let options = options::of_service(&config, &cli.instance, cli.once, &service, progress)?;
    if cli.once {
        options.lifecycle.drain();
    }
    on_signals(options.lifecycle.clone(), || {
        eprintln!("left at once: what is not committed will be done again by the next start");
    })?;
    if let Err(error) = run(&options) {
        if let ProcessorError::Job(JobLoadError::Sql(errors)) = &error {
            let name = settings.job.display().to_string();
            commands::refuse(&name, &options.job.sql, errors);
            return Ok(Exit::Failed);
        }
        return Err(error.into());
    }
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

/// What bounds queries of state; `None` if there are to be none.
fn limits(settings: &ProcessorConfig) -> Option<Limits> {
    settings.query_enabled.then(|| Limits {
        rows: settings.query_rows,
        timeout: settings.query_timeout_ms.duration(),
        memory_bytes: settings.query_memory_bytes,
    })
}

/// Looks at a job or an application without running it.
fn look(cli: &Cli) -> anyhow::Result<Exit> {
    let mut config = Config::load(&cli.config, &cli.flags().table())?;
    if cli.config.print_config {
        config.print()?;
        return Ok(Exit::Done);
    }
    if std::env::var_os("HEADWAY_TELEMETRY_LOG_LEVEL").is_none() {
        config.telemetry.log_level = QUIET.into();
    }
    runtime::telemetry::init_logs(&config.telemetry)?;
    match &cli.command {
        Some(Command::Check(args)) => commands::run_check(args, &config),
        Some(Command::Explain(args)) => commands::run_explain(args, &config),
        Some(Command::Offsets(command)) => commands::run_offsets(command, &config),
        Some(Command::Reset(args)) => commands::run_reset(args, &config),
        Some(Command::Upgrade(args)) => commands::run_upgrade(args, &config),
        Some(Command::Cutover(args)) => commands::run_cutover(args, &config),
        Some(Command::Completions(_)) | None => Ok(Exit::Done),
    }
}

/// Where the paths that a job names begin.
fn folder(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
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
