//! `processor upgrade`: in which version an application is written, and the end of a rolling upgrade.

use processor::format::{NEWEST, OLDEST};
use processor::record::Upgrade;
use runtime::cli::{Exit, Usage};
use runtime::config::Config;
use runtime::connect::connect_log;

use super::ask::{agreed, done, print};

/// Show in which format an application is written and what its members read, or end a rolling upgrade
///
/// A new release goes on writing what the one before reads, so that members are replaced one by one, and may go back. Once
/// all of them are of the new release, --finalize lets them write the newer format, within seconds and without a restart.
#[derive(clap::Args, Clone, Debug)]
pub struct UpgradeArgs {
    /// Write the newest format from now on: members of older releases stop, and can't come back
    #[arg(long)]
    finalize: bool,
    /// Although a member looks as if it were of an older release: brokers may keep what a static member once called itself
    #[arg(long, requires = "finalize")]
    force: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Runs it.
pub fn run_upgrade(args: &UpgradeArgs, config: &Config) -> anyhow::Result<Exit> {
    let log = connect_log(&config.log)?;
    let application_id = &config.processor.application_id;
    if application_id.is_empty() {
        return Err(Usage::new("processor.application_id is empty").into());
    }
    let upgrade = Upgrade::of(log.as_ref(), application_id)?;
    print(&said(&upgrade))?;
    if upgrade.is_done() {
        return done("Nothing is left to finalize.\n");
    }
    if !args.finalize {
        return done("--finalize lets it be written in the newest format.\n");
    }
    if upgrade.behind().next().is_some() && !args.force {
        print("Refused: members of an older release would stop. Replace them first.\n")?;
        return Ok(Exit::Failed);
    }
    if !agreed(args.yes)? {
        return Ok(Exit::Failed);
    }
    upgrade.finalize(log.as_ref())?;
    done("Done: members take it up within seconds.\n")
}

fn said(upgrade: &Upgrade) -> String {
    let mut out = format!(
        "application {} is written in format {}; this program reads formats {OLDEST} to {NEWEST}\n",
        upgrade.application_id, upgrade.written
    );
    if upgrade.members.is_empty() {
        out.push_str("  nobody runs it\n");
    }
    for reading in &upgrade.members {
        let host = match reading.member.host.as_str() {
            "" => String::new(),
            host => format!(" at {host}"),
        };
        out.push_str(&format!(
            "  {}{host}: reads up to format {}\n",
            reading.member.client_id, reading.newest
        ));
    }
    out
}
