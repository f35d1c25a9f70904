//! `bench`: how fast producer and processor are on a real broker, beside bare clients of the same log, and beside its peers.
//!
//! ```text
//!   main ──▶ world: addresses, binaries, a topic of generated trips
//!     │        │
//!     ├──▶ processor, producer: runs in turn ──▶ cost: a child process, its CPU time and memory
//!     │      │                             └──▶ bare: the same transport without the work, in a child as well
//!     │      └──▶ comparison: one job for the processor and its peers ──▶ peers: Kafka Streams, Flink SQL
//!     ├──▶ restart, lag ──▶ running: a processor that is killed some time
//!     │      └──▶ replay: a topic's records, sent again at a steady rate
//!     └──▶ report: medians, ratios; delays: medians, the slowest: a table or JSON
//! ```
//!
//! A contestant is a process of its own, so that its CPU time and memory are its own. A run counts only when what came out
//! of it is right.

mod bare;
mod comparison;
mod cost;
mod delays;
mod lag;
mod peers;
mod processor;
mod producer;
mod replay;
mod report;
mod restart;
mod running;
mod world;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use runtime::cli::{Exit, finish};

use comparison::Groups;
use delays::Delays;
use peers::Peer;
use report::Report;
use world::World;

/// How fast producer and processor are on a real broker, beside bare clients of the same log
///
/// Start the servers with `deploy/local up kafka4 registry`. What has no flag here is set by HEADWAY_… variables, or in the
/// file that HEADWAY_CONFIG names, as for the binaries themselves.
#[derive(Parser)]
#[command(name = "bench", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The processor with the taxi job, against a consumer that only reads the same topic; with --against or --groups, a
    /// smaller job that its peers can do as well
    Processor(ProcessorArgs),
    /// The producer from a CSV file, against a client that only sends the same records
    Producer(Common),
    /// How long a killed processor takes to be ready again, with a group of state for each row
    #[command(mut_arg("rows", |rows| rows.default_value("1000000")))]
    Restart(Common),
    /// How long a window's result takes to be readable, from the record that closes the window, at a steady rate
    #[command(mut_arg("rows", |rows| rows.default_value("3000000")), mut_arg("runs", |runs| runs.default_value("1")))]
    Lag(LagArgs),
    /// Read a topic to its end (a contestant)
    #[command(hide = true)]
    BareConsumer(bare::ConsumerArgs),
    /// Send the records of one topic to another (a contestant)
    #[command(hide = true)]
    BareProducer(bare::ProducerArgs),
}

/// What the benchmarks have in common.
#[derive(Args, Clone, Debug)]
struct Common {
    #[command(flatten)]
    servers: Servers,
    /// How many trips
    #[arg(long, value_name = "N", default_value_t = 2_000_000)]
    rows: u64,
    /// How many partitions their topic has
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..))]
    partitions: i32,
    /// How often each contestant runs
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// The seed of the trips
    #[arg(long, default_value_t = 7)]
    seed: u64,
    /// Where the binaries producer, processor and headway are (default: beside this one)
    #[arg(long, value_name = "DIR")]
    binaries: Option<std::path::PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// What the processor's benchmark has more.
#[derive(Args, Clone, Debug)]
struct ProcessorArgs {
    #[command(flatten)]
    common: Common,
    /// A peer to run beside it; several, if given more than once. Maven builds it, from its packages
    #[arg(long, value_name = "PEER", value_enum)]
    against: Vec<Peer>,
    /// What the trips are grouped by (default with --against: few)
    #[arg(long, value_enum)]
    groups: Option<Groups>,
    /// Where the peers' programs are (default: bench/peers of the source tree that this binary was built from)
    #[arg(long, value_name = "DIR")]
    peers: Option<std::path::PathBuf>,
}

/// What the benchmark of the results' lag has more.
#[derive(Args, Clone, Debug)]
struct LagArgs {
    #[command(flatten)]
    common: Common,
    /// How many rows are sent in a second
    #[arg(long, value_name = "N", default_value_t = 50_000.0)]
    rate: f64,
}

/// Where the servers are.
#[derive(Args, Clone, Debug)]
struct Servers {
    /// The brokers, host:port, several separated by commas (log.brokers)
    #[arg(long, value_name = "ADDRESSES")]
    brokers: Option<String>,
    /// The schema registry's URL (registry.url)
    #[arg(long, value_name = "URL")]
    registry: Option<String>,
}

fn main() -> ExitCode {
    finish(start(&Cli::parse()))
}

fn start(cli: &Cli) -> anyhow::Result<Exit> {
    match &cli.command {
        Command::Processor(args) if args.against.is_empty() && args.groups.is_none() => {
            report(&args.common, processor::run)
        }
        Command::Processor(args) => report(&args.common, |world, _| comparison::run(world, args)),
        Command::Producer(args) => report(args, producer::run),
        Command::Restart(args) => delays(args, restart::run),
        Command::Lag(args) => delays(&args.common, |world, _| lag::run(world, args)),
        Command::BareConsumer(args) => bare::consumer(args).map(|()| Exit::Done),
        Command::BareProducer(args) => bare::producer(args).map(|()| Exit::Done),
    }
}

fn report(
    args: &Common,
    run: impl FnOnce(&World, &Common) -> anyhow::Result<Report>,
) -> anyhow::Result<Exit> {
    let world = World::new(args)?;
    run(&world, args)?.print(args.json)?;
    Ok(Exit::Done)
}

fn delays(
    args: &Common,
    run: impl FnOnce(&World, &Common) -> anyhow::Result<Delays>,
) -> anyhow::Result<Exit> {
    let world = World::new(args)?;
    run(&world, args)?.print(args.json)?;
    Ok(Exit::Done)
}
