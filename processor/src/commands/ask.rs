//! What a command that changes something needs: the job's statements, and a yes.

use std::io::{BufRead, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use engine::sql::Script;
use runtime::cli::{Exit, Usage};
use runtime::config::Config;

use crate::job;

/// The statements of a job; of the configured one unless a file is named. `None` if it is refused, which is said then.
pub(super) fn script(file: Option<&Path>, config: &Config) -> anyhow::Result<Option<Script>> {
    let path = file.map_or_else(|| config.processor.job.clone(), PathBuf::from);
    let sql = job(&path)?;
    match engine::sql::parse(&sql) {
        Ok(script) => Ok(Some(script)),
        Err(errors) => {
            super::refuse(&path.display().to_string(), &sql, &errors);
            Ok(None)
        }
    }
}

/// Whether somebody says yes; `given` on the command line, or at the terminal.
pub(super) fn agreed(given: bool) -> anyhow::Result<bool> {
    if given {
        return Ok(true);
    }
    if !std::io::stdin().is_terminal() {
        return Err(Usage::new(
            "nobody is there to be asked: look at it with --dry-run, and pass --yes",
        )
        .into());
    }
    print("Go on? [y/N] ")?;
    let mut answer = String::new();
    std::io::stdin()
        .lock()
        .read_line(&mut answer)
        .context("the answer can't be read")?;
    let yes = ["y", "yes"].contains(&answer.trim().to_lowercase().as_str());
    if !yes {
        print("Nothing was done.\n")?;
    }
    Ok(yes)
}

/// Prints text for people.
pub(super) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .context("the answer can't be printed")
}

/// Prints text, and ends well.
pub(super) fn done(text: &str) -> anyhow::Result<Exit> {
    print(text)?;
    Ok(Exit::Done)
}
