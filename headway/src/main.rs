//! `headway`: the whole pipeline in one process, and the tools around it.

mod audit;
mod demo;
mod generate;
mod job;
mod setup;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use runtime::cli::{Completions, Flags, finish};
use runtime::config::{Config, ConfigArgs};

/// Streaming analytics around any Kafka-protocol log: demo, set-up, generator and audit
///
/// Exit codes: 0 done, 1 failed or not balanced, 2 the command line or the configuration can't be used.
#[derive(Parser)]
#[command(name = "headway", version)]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Demo(demo::DemoArgs),
    Generate(generate::GenerateArgs),
    Audit(audit::AuditArgs),
    Setup(setup::SetupArgs),
    /// Print a shell's completion script
    Completions(Completions),
}

/// What is logged unless the user asks for more: the progress line is what people look at.
const QUIET: &str = "warn,runtime::cli=info";

fn main() -> ExitCode {
    let cli = Cli::parse();
    finish(start(&cli))
}

fn start(cli: &Cli) -> anyhow::Result<runtime::cli::Exit> {
    if let Command::Completions(completions) = &cli.command {
        completions.print::<Cli>()?;
        return Ok(runtime::cli::Exit::Done);
    }
    let flags = match &cli.command {
        Command::Audit(args) => Flags::of("processor")
            .set("job", args.job.as_deref())
            .table(),
        Command::Setup(args) => args.flags(),
        _ => Default::default(),
    };
    let mut config = Config::load(&cli.config, &flags)?;
    if cli.config.print_config {
        config.print()?;
        return Ok(runtime::cli::Exit::Done);
    }
    if std::env::var_os("HEADWAY_TELEMETRY_LOG_LEVEL").is_none() {
        config.telemetry.log_level = QUIET.into();
    }
    runtime::telemetry::init_logs(&config.telemetry)?;
    match &cli.command {
        Command::Demo(args) => demo::run(args),
        Command::Generate(args) => generate::run(args),
        Command::Audit(args) => audit::run(args, &config),
        Command::Setup(args) => setup::run(args, &config),
        Command::Completions(_) => Ok(runtime::cli::Exit::Done),
    }
}
