//! The subcommands: those that look at a job without running it, and those that look at an application's offsets and
//! topics, change them, or hand it over.

mod ask;
mod cutover;
mod offsets;
mod reset;
mod upgrade;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use processor::check::{CheckError, Checked, check, explain, render};
use runtime::cli::{Exit, Usage};
use runtime::config::Config;
use runtime::connect::{connect_log, connect_registry};
use runtime::telemetry::colour;
use schemas::{Registry, RegistryError, value_subject};

use crate::{folder, job};
pub use cutover::{CutoverArgs, run_cutover};
pub use offsets::{OffsetsCommand, run_offsets};
pub use reset::{ResetArgs, run_reset};
pub use upgrade::{UpgradeArgs, run_upgrade};

/// Say whether a job can run, and where not, what to write instead
///
/// Only schemas are needed: from the registry that the configuration names, or from files.
///
/// Exits with 0 if the job can run, with 1 if it is refused, and with 2 if a file can't be read.
#[derive(clap::Args, Clone, Debug)]
pub struct CheckArgs {
    /// The job [default: that of --job, or the configured one, processor.job]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// A topic's Avro schema from a file: without a registry if there is one for each source. Can be repeated
    #[arg(long = "schema", value_name = "TOPIC=FILE")]
    schemas: Vec<String>,
}

/// Print what a job's queries do: fragments, topics, state and time
///
/// Exits as check does.
#[derive(clap::Args, Clone, Debug)]
pub struct ExplainArgs {
    #[command(flatten)]
    check: CheckArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Ask the log how many partitions the topics have
    #[arg(long)]
    ask_log: bool,
}

/// Checks a job.
pub fn run_check(args: &CheckArgs, config: &Config) -> anyhow::Result<Exit> {
    let Some((name, checked)) = args.checked(config)? else {
        return Ok(Exit::Failed);
    };
    let queries = checked.queries.len();
    let s = if queries == 1 { "y" } else { "ies" };
    writeln!(std::io::stdout(), "{name}: can run; {queries} quer{s}")
        .context("the answer can't be printed")?;
    Ok(Exit::Done)
}

/// Explains a job.
pub fn run_explain(args: &ExplainArgs, config: &Config) -> anyhow::Result<Exit> {
    let Some((_, checked)) = args.check.checked(config)? else {
        return Ok(Exit::Failed);
    };
    let settings = &config.processor;
    let log = args.ask_log.then(|| connect_log(&config.log)).transpose()?;
    let mut counted = BTreeMap::new();
    if let Some(log) = &log {
        let shards = settings.shards.into();
        let every = explain(&checked, &settings.application_id, shards, &|_| None);
        for topic in every.queries.iter().flat_map(|query| &query.topics) {
            if let Some(found) = log.topic(&topic.topic)? {
                counted.insert(found.name, found.partitions);
            }
        }
    }
    let explained = explain(
        &checked,
        &settings.application_id,
        settings.shards.into(),
        &|topic| counted.get(topic).copied(),
    );
    let text = if args.json {
        format!("{}\n", serde_json::to_string_pretty(&explained)?)
    } else {
        explained.to_string()
    };
    std::io::stdout()
        .lock()
        .write_all(text.as_bytes())
        .context("the explanation can't be printed")?;
    Ok(Exit::Done)
}

impl CheckArgs {
    /// The job's name for people, and the job; `None` if it was refused, which is said then.
    fn checked(&self, config: &Config) -> anyhow::Result<Option<(String, Checked)>> {
        let path = self.file.as_deref().unwrap_or(&config.processor.job);
        let sql = job(path)?;
        let name = path.display().to_string();
        let given = self.given()?;
        let registry: OnceCell<Arc<dyn Registry>> = OnceCell::new();
        let offline = !given.is_empty();
        let mut find = |topic: &str| -> Result<Option<String>, RegistryError> {
            if let Some(text) = given.get(topic) {
                return Ok(Some(text.clone()));
            }
            if offline {
                // Whoever gives schemas has no server; the check says which one is missing.
                return Ok(None);
            }
            let registry = match registry.get() {
                Some(registry) => registry,
                None => {
                    let connected = connect_registry(&config.registry).map_err(|error| {
                        RegistryError::Unavailable {
                            address: config.registry.url.clone(),
                            detail: error.to_string(),
                        }
                    })?;
                    registry.get_or_init(|| connected)
                }
            };
            let latest = registry.latest(&value_subject(topic))?;
            Ok(latest.map(|(_, text)| text.to_string()))
        };
        let salt = config.processor.mask_salt.expose().as_bytes();
        match check(&sql, &folder(path), salt, &mut find) {
            Ok(checked) => {
                let warnings = render("warning", &name, &sql, &checked.warnings, colour());
                eprint!("{warnings}");
                Ok(Some((name, checked)))
            }
            Err(CheckError::Refused(errors)) => {
                refuse(&name, &sql, &errors);
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    fn given(&self) -> Result<BTreeMap<String, String>, Usage> {
        let mut given = BTreeMap::new();
        for argument in &self.schemas {
            let (topic, path) = argument
                .split_once('=')
                .filter(|(topic, path)| !topic.is_empty() && !path.is_empty())
                .ok_or_else(|| {
                    Usage::new(format!(
                        "--schema {argument}: write --schema TOPIC=FILE, such as --schema trips=schemas/taxi_trip.avsc"
                    ))
                })?;
            let text = std::fs::read_to_string(Path::new(path))
                .with_context(|| format!("the schema {path} of topic {topic} can't be read"))?;
            given.insert(topic.to_owned(), text);
        }
        Ok(given)
    }
}

/// Prints what is wrong with a job on standard error.
pub fn refuse(name: &str, sql: &str, errors: &[engine::sql::JobError]) {
    let text = render("error", name, sql, errors, colour());
    let count = match errors.len() {
        1 => "1 error".to_owned(),
        several => format!("{several} errors"),
    };
    eprintln!("{text}{name}: can't run; {count}");
}
