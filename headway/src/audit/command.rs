//! `headway audit`: the ledger of a demo that is not running.

use std::path::PathBuf;

use runtime::cli::Exit;

/// Adds up what every part of a demo took and gave, and checks that no row is missing or twice
///
/// Exits with 0 if the ledger balances, and with 1 if it does not.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// The demo's folder
    #[arg(long, value_name = "DIR", default_value = "headway-demo")]
    dir: PathBuf,
    /// Print the ledger as JSON
    #[arg(long)]
    json: bool,
}

/// Makes the audit and prints it.
pub fn run(args: &AuditArgs) -> anyhow::Result<Exit> {
    crate::demo::audit_folder(&args.dir, args.json)
}
