//! `headway setup`: the topics and schemas of a pipeline, created where they are missing, compared where they are there.
//!
//! ```text
//!   configuration, job ──Plan──▶ topics, each with its use ──▶ create, or compare ──┐
//!                              └▶ schemas                  ──▶ register, or compare ┴─▶ table, exit code
//! ```

mod plan;
mod schemas;
mod topics;

use std::path::Path;

use runtime::cli::{Exit, Flags, Usage, table};
use runtime::config::Config;
use runtime::connect::{connect_log, connect_registry_admin};
use runtime::topics::Durability;
use toml::Table;

use crate::job;
use plan::Plan;

/// Creates the topics of a pipeline and registers its schemas; what is there is compared, and left as it is
///
/// The producer's topics, those of the processor's job, and the ones for dead letters, at the log and the registry that the
/// configuration names. The same command again changes nothing. Settings that would lose data are named.
///
/// Exits with 0 if everything is there and as it should be, and with 1 if something is missing or different.
#[derive(Debug, clap::Args)]
pub struct SetupArgs {
    /// Only compare: create and register nothing
    #[arg(long)]
    check: bool,
    /// The processor's job [key: processor.job]; without one, its topics are left out
    #[arg(long, value_name = "FILE")]
    job: Option<String>,
    /// How many partitions the topics of rows and results get [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=10_000))]
    partitions: Option<i32>,
    /// How many copies of each topic the brokers keep [key: log.replication]
    #[arg(long, value_name = "N")]
    replication: Option<i32>,
    /// How many of the copies must have a record before it counts as written [key: log.min_insync_replicas]
    #[arg(long, value_name = "N")]
    min_insync_replicas: Option<i32>,
    /// How many shards the job has [key: processor.shards]
    #[arg(long, value_name = "N")]
    shards: Option<u16>,
    /// A schema to register, for a pipeline other than the shipped one; can be repeated
    #[arg(long, value_name = "FILE|DIR|TOPIC=FILE")]
    schema: Vec<String>,
}

impl SetupArgs {
    /// The flags as the keys that they stand for.
    pub fn flags(&self) -> Table {
        let mut keys = Flags::of("log")
            .set("replication", self.replication)
            .set("min_insync_replicas", self.min_insync_replicas)
            .table();
        keys.extend(
            Flags::of("processor")
                .set("job", self.job.as_deref())
                .set("shards", self.shards.map(u32::from))
                .table(),
        );
        keys
    }
}

/// How something that a pipeline needs is found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    /// It was not there, and is now.
    Created(String),
    /// It is there, and fits. With what is worth saying.
    Exists(String),
    /// It is not there.
    Missing,
    /// It is there, and does not fit: why, and what to do.
    Differs(String),
}

impl State {
    fn good(&self) -> bool {
        matches!(self, Self::Created(_) | Self::Exists(_))
    }

    /// For a table; what takes more words is said below it.
    fn in_words(&self) -> String {
        let with = |word: &str, note: &str| match note {
            "" => word.to_owned(),
            note => format!("{word}: {note}"),
        };
        match self {
            Self::Created(note) => with("created", note),
            Self::Exists(note) => with("exists", note),
            Self::Missing => "MISSING".to_owned(),
            Self::Differs(_) => "DIFFERS (see below)".to_owned(),
        }
    }
}

/// Sets a pipeline up.
pub fn run(args: &SetupArgs, config: &Config) -> anyhow::Result<Exit> {
    let script = match config.processor.job.as_path() {
        none if none == Path::new("") => None,
        path => Some(job::read(path)?),
    };
    let named = schemas_tool::named(&args.schema, config).map_err(|error| Usage(error.into()))?;
    let log = connect_log(&config.log)?;
    let registry = connect_registry_admin(&config.registry).map_err(|error| Usage(error.into()))?;

    let durability = Durability::of(&config.log);
    let plan = Plan::new(log.as_ref(), config, script.as_ref(), args.partitions)?;
    let mut found = Vec::new();
    let mut rows = Vec::new();
    for topic in &plan.topics {
        let (state, partitions) = topics::settle(log.as_ref(), topic, durability, args.check)?;
        rows.push([
            topic.wanted.spec.name.clone(),
            partitions.to_string(),
            topic.purpose.to_owned(),
            state.in_words(),
        ]);
        found.push((format!("topic {}", topic.wanted.spec.name), state));
    }
    print!("{}", table(["topic", "partitions", "for", "state"], &rows));
    println!();

    let mut rows = Vec::new();
    for contract in plan.contracts(&named) {
        let state = schemas::settle(registry.as_ref(), &contract, args.check)?;
        let subject = contract.contract.subject();
        rows.push([
            subject.clone(),
            contract.contract.origin.clone(),
            state.in_words(),
        ]);
        found.push((format!("subject {subject}"), state));
    }
    print!("{}", table(["subject", "schema", "state"], &rows));
    if script.is_none() {
        println!("\nno job is named (--job FILE): the processor's topics are left out");
    }
    Ok(verdict(&found, args.check))
}

/// Says what is not as it should be.
fn verdict(found: &[(String, State)], check: bool) -> Exit {
    for (what, state) in found {
        match state {
            State::Differs(why) => eprintln!("differs: {what}: {why}"),
            State::Missing => eprintln!("missing: {what}"),
            State::Created(_) | State::Exists(_) => {}
        }
    }
    if found.iter().all(|(_, state)| state.good()) {
        return Exit::Done;
    }
    if check && found.iter().any(|(_, state)| *state == State::Missing) {
        eprintln!("what is missing is created by the same command without --check");
    }
    Exit::Failed
}
