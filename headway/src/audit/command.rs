//! `headway audit`: the ledger of a pipeline on servers, or of a demo that is not running.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use runtime::cli::{Exit, Usage};
use runtime::config::{Config, LogKind};
use runtime::connect::{connect_log, connect_registry};
use sink_opensearch::{Access, DocumentsFile, open_target};

use super::{Documents, Ledger, Query, Subject};

/// Adds up what every part took and gave, and checks that no row is missing or twice
///
/// Audits the pipeline that the configuration names: the log, the registry, the producer's topic, the processor's job
/// and application, the lake of sink-s3 and the documents of sink-opensearch; or, with --dir, a demo that is not running.
/// While parts still run, what is in motion between two reads may not balance.
///
/// Exits with 0 if the ledger balances, and with 1 if it does not.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// The folder of a demo, to be audited instead
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The processor's job, whose queries are audited (processor.job)
    #[arg(long, value_name = "FILE", conflicts_with = "dir")]
    pub job: Option<String>,
    /// Leave the lake out
    #[arg(long, conflicts_with = "dir")]
    no_lake: bool,
    /// Leave the documents out
    #[arg(long, conflicts_with = "dir")]
    no_documents: bool,
    /// Print the ledger as JSON
    #[arg(long)]
    json: bool,
}

/// Makes the audit and prints it.
pub fn run(args: &AuditArgs, config: &Config) -> anyhow::Result<Exit> {
    if let Some(dir) = &args.dir {
        return crate::demo::audit_folder(dir, args.json);
    }
    let ledger = super::audit(&subject(args, config)?)?;
    report(&ledger, args.json, &places(args, config))?;
    Ok(exit(&ledger))
}

/// What the ledger comes to.
pub fn exit(ledger: &Ledger) -> Exit {
    if ledger.balanced {
        Exit::Done
    } else {
        Exit::Failed
    }
}

/// Prints the ledger on standard output, and below it where things lie.
pub fn report(ledger: &Ledger, json: bool, places: &[(&str, String)]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, ledger)?;
        writeln!(out)?;
        return Ok(());
    }
    let colour =
        out.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    super::print(ledger, colour, &mut out)?;
    writeln!(out)?;
    for (what, place) in places {
        writeln!(out, "  {what:<10} {place}")?;
    }
    Ok(())
}

fn places(args: &AuditArgs, config: &Config) -> Vec<(&'static str, String)> {
    let log = match config.log.kind {
        LogKind::Kafka => config.log.brokers.clone(),
        LogKind::Embedded => config.log.dir.display().to_string(),
    };
    let mut places = vec![("log", log)];
    if !args.no_lake {
        places.push(("lake", config.sink_s3.url.clone()));
    }
    if !args.no_documents {
        places.push(("documents", config.sink_opensearch.url.clone()));
    }
    places
}

fn subject(args: &AuditArgs, config: &Config) -> anyhow::Result<Subject> {
    let processor = &config.processor;
    if processor.job.as_os_str().is_empty() {
        return Err(Usage::new(
            "no job is named: pass --job FILE with the processor's SQL, or set processor.job; a demo is audited with --dir DIR",
        )
        .into());
    }
    let queries = Query::all(&crate::job::read(&processor.job)?);
    let log = connect_log(&config.log)?;
    let registry = connect_registry(&config.registry)?;
    let lake = if args.no_lake {
        None
    } else {
        let (store, prefix) = sink_s3::Location::from_config(&config.sink_s3).store()?;
        Some((config.sink_s3.group.clone(), store, prefix))
    };
    let documents = if args.no_documents {
        None
    } else {
        let sink = &config.sink_opensearch;
        let file = DocumentsFile::from_config(sink).map_err(|error| Usage(error.into()))?;
        Some(Documents {
            group: sink.group.clone(),
            target: open_target(sink, Access::Read)?,
            topics: sink.topics.iter().map(|name| file.settings(name)).collect(),
        })
    };
    Ok(Subject {
        log,
        registry,
        topic: config.producer.topic.clone(),
        application_id: processor.application_id.clone(),
        queries,
        lake,
        documents,
    })
}
