//! `processor offsets`: how far an application is, and how it goes on where something is lost.

use std::path::PathBuf;

use engine::sql::Script;
use processor::gaps::{self, Finding, Way};
use processor::status::{self, Status};
use processor::{record, takeover};
use runtime::cli::{Exit, table};
use runtime::config::Config;
use runtime::connect::connect_log;
use runtime::log::GroupMember;
use serde_json::json;

use super::ask::{agreed, done, print, script};

/// Show how far an application is, or let it go on where something is lost
#[derive(clap::Subcommand, Clone, Debug)]
pub enum OffsetsCommand {
    Show(ShowArgs),
    AcceptGap(AcceptArgs),
}

/// Print committed offset, end and lag of each source partition and shard, with what the metadata says
///
/// Of all members together, whether they run or not. Exits with 1 if a partition can't go on from where it stands.
#[derive(clap::Args, Clone, Debug)]
pub struct ShowArgs {
    /// The job [default: that of --job, or the configured one, processor.job]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Let partitions go on, without what is lost, where records are gone, offsets were reset by hand, or ranges are missing
///
/// Says first what is wrong and what is given up. What is given up stands in the committed offsets, and the audit's ledger
/// names it. All members must be stopped.
#[derive(clap::Args, Clone, Debug)]
pub struct AcceptArgs {
    /// The job [default: that of --job, or the configured one, processor.job]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Runs one of them.
pub fn run_offsets(command: &OffsetsCommand, config: &Config) -> anyhow::Result<Exit> {
    match command {
        OffsetsCommand::Show(args) => show(args, config),
        OffsetsCommand::AcceptGap(args) => accept(args, config),
    }
}

fn show(args: &ShowArgs, config: &Config) -> anyhow::Result<Exit> {
    let Some(script) = script(args.file.as_deref(), config)? else {
        return Ok(Exit::Failed);
    };
    let log = connect_log(&config.log)?;
    let application_id = &config.processor.application_id;
    let status = status::read(
        log.as_ref(),
        application_id,
        topics(&script),
        queries(&script),
    )?;
    let members = log.members(application_id)?;
    let record = record::read(log.as_ref(), application_id)?;
    let handed_over = record
        .as_ref()
        .and_then(|record| record.handed_over.clone());
    let takes_over = record.and_then(|record| record.takes_over);
    let behind = takes_over.map(|of| takeover::behind(log.as_ref(), application_id, &of));
    let behind = behind.transpose()?;
    if args.json {
        let members: Vec<_> = members
            .iter()
            .map(|member| {
                let partitions: Vec<_> = member.partitions.iter().map(ToString::to_string).collect();
                json!({"client_id": member.client_id, "host": member.host, "partitions": partitions})
            })
            .collect();
        let answer = json!({
            "application_id": application_id,
            "members": members,
            "status": status,
            "takes_over": behind,
            "handed_over": handed_over,
        });
        print(&format!("{answer:#}\n"))?;
    } else {
        let mut notes = Vec::new();
        notes.extend(behind.map(|behind| super::cutover::behind(application_id, &behind)));
        notes.extend(handed_over.map(|of| {
            format!(
                "{application_id} was handed over to {}: it gives nothing more, and starts no more",
                of.to
            )
        }));
        print(&text(application_id, &members, &notes, &status))?;
    }
    let sources = status.sources.iter().map(|source| &source.place.problem);
    let shards = status.shards.iter().map(|shard| &shard.place.problem);
    match sources.chain(shards).any(Option::is_some) {
        true => Ok(Exit::Failed),
        false => Ok(Exit::Done),
    }
}

/// The topics that a job reads, each once.
fn topics(script: &Script) -> Vec<&str> {
    let mut topics: Vec<&str> = script
        .inserts
        .iter()
        .filter_map(|insert| script.sources.get(&insert.source))
        .map(|source| source.topic.as_str())
        .collect();
    topics.sort_unstable();
    topics.dedup();
    topics
}

/// The queries that have state.
fn queries(script: &Script) -> Vec<&str> {
    let inserts = script.inserts.iter();
    let stateful = inserts.filter(|insert| insert.window.is_some());
    stateful.map(|insert| insert.sink.as_str()).collect()
}

fn text(
    application_id: &str,
    members: &[GroupMember],
    notes: &[String],
    status: &Status,
) -> String {
    let mut out = match members {
        [] => format!("application {application_id}: nobody runs it\n"),
        members => {
            let lines: String = members
                .iter()
                .map(|member| {
                    let host = match member.host.as_str() {
                        "" => String::new(),
                        host => format!(" at {host}"),
                    };
                    let partitions = member.partitions.len();
                    format!("  {}{host}: {partitions} partitions\n", member.client_id)
                })
                .collect();
            format!(
                "application {application_id}: {} members\n{lines}",
                members.len()
            )
        }
    };
    for note in notes {
        out.push_str(note);
        out.push('\n');
    }
    let offset =
        |offset: Option<i64>| offset.map_or("none".to_owned(), |offset| offset.to_string());
    let rows: Vec<[String; 7]> = status
        .sources
        .iter()
        .map(|source| {
            let place = &source.place;
            let state = place.state.clone().unwrap_or_default();
            [
                format!("{}-{}", source.topic, place.partition),
                offset(place.committed),
                place.end.to_string(),
                place.lag.to_string(),
                state.rows_in.to_string(),
                state
                    .max_event_ms
                    .map(processor::instant)
                    .unwrap_or_default(),
                noted(
                    place.problem.as_deref(),
                    state.ended,
                    false,
                    state.gaps.len(),
                ),
            ]
        })
        .collect();
    out.push('\n');
    out.push_str(&table(
        [
            "source",
            "committed",
            "end",
            "lag",
            "rows in",
            "latest event",
            "",
        ],
        &rows,
    ));
    let rows: Vec<[String; 9]> = status
        .shards
        .iter()
        .map(|shard| {
            let place = &shard.place;
            let state = place.state.clone().unwrap_or_default();
            let watermark = state.watermark.filter(|_| !state.ended);
            let succession = state.succession.filter(|of| of.from.is_none());
            let waits = succession.is_some_and(|of| of.waits);
            [
                format!("{}-{}", shard.query, place.partition),
                offset(place.committed),
                place.end.to_string(),
                place.lag.to_string(),
                state.merged.to_string(),
                state.late.to_string(),
                state.emitted.to_string(),
                watermark.map(processor::instant).unwrap_or_default(),
                noted(
                    place.problem.as_deref(),
                    state.ended,
                    waits,
                    state.gaps.len(),
                ),
            ]
        })
        .collect();
    if !rows.is_empty() {
        out.push('\n');
        out.push_str(&table(
            [
                "shard",
                "committed",
                "end",
                "lag",
                "merged",
                "late",
                "results",
                "watermark",
                "",
            ],
            &rows,
        ));
    }
    out
}

fn noted(problem: Option<&str>, ended: bool, waits: bool, gaps: usize) -> String {
    let mut notes = Vec::new();
    notes.extend(problem.map(|problem| format!("STUCK: {problem}")));
    notes.extend(ended.then(|| "ended".to_owned()));
    notes.extend(waits.then(|| "as far as it goes before the handover".to_owned()));
    notes.extend((gaps > 0).then(|| format!("{gaps} given up")));
    notes.join("; ")
}

fn accept(args: &AcceptArgs, config: &Config) -> anyhow::Result<Exit> {
    let Some(script) = script(args.file.as_deref(), config)? else {
        return Ok(Exit::Failed);
    };
    let log = connect_log(&config.log)?;
    let application_id = &config.processor.application_id;
    let findings = gaps::find(log.as_ref(), application_id, &script)?;
    if findings.is_empty() {
        return done("nothing keeps a partition from going on\n");
    }
    print(&findings.iter().map(said).collect::<String>())?;
    let hopeless = findings
        .iter()
        .any(|finding| matches!(finding.way, Way::Not { .. }));
    if hopeless {
        print("\nNot all of it can be accepted, and nothing was done.\n")?;
        return Ok(Exit::Failed);
    }
    if args.dry_run {
        return done("\nNothing was done (--dry-run).\n");
    }
    print("\nWhat is given up will be missing in the results, and stand in the ledger.\n")?;
    if !agreed(args.yes)? {
        return Ok(Exit::Failed);
    }
    gaps::accept(log.as_ref(), application_id, &findings)?;
    done("Accepted: start the processor.\n")
}

fn said(finding: &Finding) -> String {
    let way = match &finding.way {
        Way::At { offset, loses, .. } => format!("it can go on at {offset}, without {loses}"),
        Way::Not { instead } => format!("it can't go on: {instead}"),
    };
    format!(
        "{}-{}: {}\n  {way}\n",
        finding.topic, finding.partition, finding.what
    )
}
