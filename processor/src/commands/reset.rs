//! `processor reset`: an application begins anew.

use std::path::PathBuf;

use processor::reset::Reset;
use runtime::cli::{Exit, Usage};
use runtime::config::Config;
use runtime::connect::connect_log;

use super::ask::{agreed, done, print, script};

/// Begin an application anew under its id: delete its offsets and its topics of partials, state and late rows
///
/// Says first exactly what is deleted. All members must be stopped. The next start reads the sources from their beginnings.
#[derive(clap::Args, Clone, Debug)]
pub struct ResetArgs {
    /// The job, whose queries are reset beside those on record [default: that of --job, or the configured one,
    /// processor.job]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Delete the topics of results as well
    #[arg(long)]
    results: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Runs it.
pub fn run_reset(args: &ResetArgs, config: &Config) -> anyhow::Result<Exit> {
    let Some(script) = script(args.file.as_deref(), config)? else {
        return Ok(Exit::Failed);
    };
    let log = connect_log(&config.log)?;
    let application_id = &config.processor.application_id;
    if application_id.is_empty() {
        return Err(Usage::new("processor.application_id is empty").into());
    }
    let queries = script.inserts.iter().filter_map(|insert| {
        let sink = script.sinks.get(&insert.sink)?;
        Some((sink.name.as_str(), sink.topic.as_str()))
    });
    let reset = Reset::plan(log.as_ref(), application_id, queries)?;
    print(&said(&reset, args.results))?;
    if args.dry_run {
        return done("Nothing was done (--dry-run).\n");
    }
    if !agreed(args.yes)? {
        return Ok(Exit::Failed);
    }
    reset.run(log.as_ref(), args.results)?;
    done("Done: the next start begins anew.\n")
}

fn said(reset: &Reset, with_results: bool) -> String {
    let mut out = format!("reset of application {}\n", reset.application_id);
    if reset.begun {
        out.push_str("  a reset was begun before, and is brought to its end\n");
    }
    let mut line = |what: &str| {
        out.push_str("  ");
        out.push_str(what);
        out.push('\n');
    };
    if let Some(to) = &reset.handed_over_to {
        line(&format!(
            "WARNING: it was handed over to {to}, which goes on; begun anew, it gives everything again beside {to}"
        ));
    }
    if let Some(of) = &reset.took_over {
        line(&format!(
            "WARNING: it has taken over {of}; begun anew with processor.takes_over = \"{of}\" it gives again what ends later than {of} gave, without it everything, what {of} gave among it"
        ));
    }
    for topic in &reset.deletes {
        line(&format!("deletes topic {topic}, with all that is in it"));
    }
    line(&format!(
        "deletes the committed offsets of group {}, and with them its part of the ledger",
        reset.application_id
    ));
    for topic in &reset.results {
        line(&match with_results {
            true => format!("deletes topic {topic}, with the results in it"),
            false => format!(
                "keeps topic {topic}: results are written there again, with lower versions, so that readers that keep the highest version of a key keep the old ones (--results deletes it)"
            ),
        });
    }
    line(
        "keeps the sources, which the next start reads from their beginnings, and their dead letters, which are written again",
    );
    out
}
