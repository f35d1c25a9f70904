//! `processor cutover`: an application is handed over to its successor.

use std::path::PathBuf;

use processor::cutover::Cutover;
use processor::record::{HandedOver, Kind};
use processor::takeover::Behind;
use runtime::cli::{Exit, Usage};
use runtime::config::Config;
use runtime::connect::{connect_log, connect_registry};

use super::ask::{agreed, done, print, script};
use crate::options;

/// Hand an application over to its successor: from one transaction on the one gives nothing more, and the other goes on
///
/// The successor runs beside it, with processor.takes_over set to it since its first start, and has caught up: `processor
/// offsets show` says how far it is. Then the members of the old one are stopped, and this is run with the old job's file.
/// What is left of its partials is folded, its shards are brought to one watermark, and all of its offsets are marked in one
/// transaction; it starts no more. The successor, running or started later, gives exactly what ends later, into the same
/// topics without a hole or a double.
///
/// Exits with 1 if it is refused: then nothing is decided, and the old one can go on. It can be run again at any time.
#[derive(clap::Args, Clone, Debug)]
pub struct CutoverArgs {
    /// The job of the application that is handed over [default: that of --job, or the configured one, processor.job]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The application that is handed over [default: the configured processor.takes_over]
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// Its successor [default: the configured processor.application_id]
    #[arg(long, value_name = "NAME")]
    to: Option<String>,
    /// Hand over although the successor has not caught up: results are late until it has, none is missing
    #[arg(long)]
    even_if_behind: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Runs it.
pub fn run_cutover(args: &CutoverArgs, config: &Config) -> anyhow::Result<Exit> {
    let settings = &config.processor;
    let from = args.from.as_ref().unwrap_or(&settings.takes_over).clone();
    let to = args.to.as_ref().unwrap_or(&settings.application_id).clone();
    if from.is_empty() {
        return Err(Usage::new(
            "which application is to be handed over? Pass --from NAME, or set processor.takes_over",
        )
        .into());
    }
    let file = args.file.as_ref().unwrap_or(&settings.job);
    let Some(script) = script(Some(file), config)? else {
        return Ok(Exit::Failed);
    };
    let log = connect_log(&config.log)?;
    let cutover = Cutover::plan(log.as_ref(), &from, &to, &script)?;
    print(&said(&cutover))?;
    if cutover.done {
        return done("It was done before: start the successor, if it does not run.\n");
    }
    if args.dry_run {
        return done("Nothing was done (--dry-run).\n");
    }
    if !cutover.behind.caught_up() && !args.even_if_behind {
        print(&format!(
            "Refused, nothing was done: {to} is behind. Let it run until it has caught up (processor offsets show), or pass --even-if-behind.\n"
        ))?;
        return Ok(Exit::Failed);
    }
    if !agreed(args.yes)? {
        return Ok(Exit::Failed);
    }
    let registry = connect_registry(&config.registry)?;
    let handed_over = cutover.run(&options::of_predecessor(
        config,
        file,
        &cutover,
        (log, registry),
    )?)?;
    done(&decided(&from, &handed_over))
}

fn said(cutover: &Cutover) -> String {
    let Cutover { from, to, .. } = cutover;
    let mut out = format!("cutover from application {from} to {to}\n");
    let mut line = |what: String| {
        out.push_str("  ");
        out.push_str(&what);
        out.push('\n');
    };
    for taken in &cutover.takes_over.queries {
        let where_from = match taken.kind {
            Kind::Windows => "goes on with the first window that ends behind the last ones given",
            Kind::Groups => "tells all groups anew, with higher versions",
            Kind::Rows => "goes on with the first row that was not read",
        };
        line(format!("{}: {where_from}", taken.query));
    }
    for query in &cutover.ending {
        line(format!("{query}: ends, {to} has no query of that name"));
    }
    line(behind(to, &cutover.behind));
    out
}

/// How far an application is behind the one that it takes over, in a sentence.
pub(super) fn behind(application_id: &str, behind: &Behind) -> String {
    let of = &behind.takes_over;
    if behind.handed_over {
        return format!("{application_id} has taken over {of}");
    }
    if behind.caught_up() {
        return format!(
            "{application_id} has caught up with {of}, and gives nothing before {of} is handed over"
        );
    }
    let lag: i64 = behind.shards.iter().map(|shard| shard.lag).sum();
    format!(
        "{application_id} has read {:.1} % of what {of} has read, {} offsets are left; {} of its shards have partials to fold, {lag} in all",
        behind.percent,
        behind.offsets,
        behind.shards.len()
    )
}

fn decided(from: &str, handed_over: &HandedOver) -> String {
    let mut out = String::new();
    for query in &handed_over.queries {
        if let Some(given_to) = query.given_to {
            let to = processor::instant(given_to);
            out.push_str(&format!(
                "  {}: {from} has given all windows up to {to}\n",
                query.query
            ));
        }
    }
    out.push_str(&format!(
        "Done: {from} is handed over to {}, which goes on. {from} starts no more.\n",
        handed_over.to
    ));
    out
}
