//! `schemas`: contracts into a registry, compared with what is there.

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Parser, Subcommand};
use runtime::cli::{Completions, Exit, Flags, Usage, configure, finish, table};
use runtime::config::{Config, ConfigArgs};
use runtime::connect::connect_registry_admin;
use schemas::{Admin, Refused, can_replace};
use schemas_tool::{Contract, Verdict, check, in_words, named, register, shipped};

/// The schemas of topics: into a registry, and compared with what is there.
///
/// A topic's schema stands in the registry under the subject TOPIC-value. A new version must be able to read what was written
/// with the last one (BACKWARD): fields may go, may come with a default, and numbers may become wider.
#[derive(Parser, Debug)]
#[command(name = "schemas", version)]
#[command(after_help = "Examples:
  schemas register                                 the schemas that are shipped, for the configuration's topics
  schemas check rides.avsc                         would it be taken as the next version of topic rides?
  schemas register rides=my-schema.avsc --registry http://registry:8081
  schemas check --offline old.avsc new.avsc        no registry needed

Exit codes: 0 done; 1 a schema is refused, or the registry can't be reached; 2 files, flags or configuration can't be used.")]
struct Cli {
    #[command(flatten)]
    config: ConfigArgs,
    /// The registry's address, with the path of its Confluent API where that is not the root [key: registry.url]
    #[arg(long, value_name = "URL", global = true)]
    registry: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Register schemas, and set their subjects' rule to BACKWARD unless it is a stricter one
    ///
    /// They are compared first; where one is refused, none is registered. The same command again changes nothing.
    Register {
        /// .avsc files (the topic is the file's name), folders of such files, or TOPIC=FILE. None: those that are shipped
        #[arg(value_name = "FILE|DIR|TOPIC=FILE")]
        what: Vec<String>,
    },
    /// Say whether schemas could be registered, and where not, which field is at fault. Changes nothing
    Check {
        /// .avsc files (the topic is the file's name), folders of such files, or TOPIC=FILE. None: those that are shipped
        #[arg(value_name = "FILE|DIR|TOPIC=FILE")]
        what: Vec<String>,
        /// Compare two files, an old version and a new one, without a registry
        #[arg(long, num_args = 2, value_names = ["OLD", "NEW"], conflicts_with = "what")]
        offline: Option<Vec<String>>,
    },
    /// List subjects with their versions, rules and schemas
    List,
    /// Print a shell's completion script
    Completions(Completions),
}

impl Cli {
    fn flags(&self) -> Flags {
        Flags::of("registry")
            .set("url", self.registry.as_deref())
            .set("kind", self.registry.as_ref().map(|_| "http"))
    }
}

fn main() -> ExitCode {
    finish(start(&Cli::parse()))
}

fn start(cli: &Cli) -> anyhow::Result<Exit> {
    let completions = match &cli.command {
        Some(Command::Completions(completions)) => Some(completions),
        _ => None,
    };
    let Some(config) = configure::<Cli>(&cli.config, cli.flags(), completions)? else {
        return Ok(Exit::Done);
    };
    match &cli.command {
        Some(Command::Register { what }) => registered(&config, &contracts(what, &config)?),
        Some(Command::Check {
            offline: Some(files),
            ..
        }) => offline(files),
        Some(Command::Check { what, .. }) => {
            let contracts = contracts(what, &config)?;
            let registry = registry(&config)?;
            let refused = checked(registry.as_ref(), &contracts, true)?;
            Ok(if refused { Exit::Failed } else { Exit::Done })
        }
        Some(Command::List) => list(&config),
        Some(Command::Completions(_)) | None => {
            Err(Usage::new("say what to do: register, check or list; --help explains").into())
        }
    }
}

fn contracts(what: &[String], config: &Config) -> Result<Vec<Contract>, Usage> {
    if what.is_empty() {
        return Ok(shipped(config));
    }
    named(what, config).map_err(|error| Usage(error.into()))
}

fn registry(config: &Config) -> Result<Arc<dyn Admin>, Usage> {
    connect_registry_admin(&config.registry).map_err(|error| Usage(error.into()))
}

/// Compares, and says so: each contract, or only those that are refused. Whether one is.
fn checked(registry: &dyn Admin, contracts: &[Contract], all: bool) -> anyhow::Result<bool> {
    let verdicts = check(registry, contracts)?;
    let mut rows = Vec::new();
    let mut refused = false;
    for (contract, verdict) in contracts.iter().zip(verdicts) {
        let words = match verdict {
            Verdict::First => "can be registered: there is no version yet".to_owned(),
            Verdict::Fits(id) => format!("can follow schema {id}"),
            Verdict::Refused(id, why) => {
                refused = true;
                eprintln!(
                    "refused: {} ({}) can't follow schema {id}: {why}",
                    contract.subject(),
                    contract.origin
                );
                "REFUSED".to_owned()
            }
        };
        rows.push([contract.subject(), words, contract.origin.clone()]);
    }
    if all {
        print!("{}", table(["subject", "schema", "from"], &rows));
    }
    Ok(refused)
}

fn registered(config: &Config, contracts: &[Contract]) -> anyhow::Result<Exit> {
    let registry = registry(config)?;
    if checked(registry.as_ref(), contracts, false)? {
        eprintln!("nothing is registered");
        return Ok(Exit::Failed);
    }
    let evolved = register(registry.as_ref(), contracts)?;
    let rows: Vec<_> = contracts
        .iter()
        .zip(&evolved)
        .map(|(contract, evolved)| {
            [
                contract.subject(),
                in_words(evolved),
                contract.origin.clone(),
            ]
        })
        .collect();
    print!("{}", table(["subject", "schema", "from"], &rows));
    Ok(Exit::Done)
}

fn offline(files: &[String]) -> anyhow::Result<Exit> {
    let read = |file: &String| {
        std::fs::read_to_string(file)
            .with_context(|| format!("{file} can't be read"))
            .map_err(Usage)
    };
    let [old, new] = files else {
        return Err(Usage::new("--offline takes two files: OLD NEW").into());
    };
    match can_replace(&read(old)?, &read(new)?) {
        Ok(()) => {
            println!("{new} can follow {old}");
            Ok(Exit::Done)
        }
        Err(Refused::Incompatible(why)) => {
            eprintln!("refused: {new} can't follow {old}: {why}");
            Ok(Exit::Failed)
        }
        Err(Refused::Old(why)) => Err(Usage::new(format!("{old} is no Avro schema: {why}")).into()),
        Err(Refused::New(why)) => Err(Usage::new(format!("{new} is no Avro schema: {why}")).into()),
    }
}

fn list(config: &Config) -> anyhow::Result<Exit> {
    let registry = registry(config)?;
    let mut rows = Vec::new();
    for subject in registry.subjects()? {
        let versions = registry.versions(&subject)?;
        let rule = registry.compatibility(&subject)?;
        let id = match registry.latest(&subject) {
            Ok(Some((id, _))) => id.to_string(),
            Ok(None) => "-".to_owned(),
            // Others may keep schemas there that are not ours to read.
            Err(schemas::RegistryError::Invalid { detail }) => detail,
            Err(other) => return Err(other.into()),
        };
        rows.push([subject, versions.len().to_string(), rule, id]);
    }
    print!(
        "{}",
        table(["subject", "versions", "rule", "last schema"], &rows)
    );
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
