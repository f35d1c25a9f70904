//! What every binary's command line has in common: flags as keys, start-up, exit codes, errors, completions, progress.
//!
//! ```text
//!   clap ──▶ Flags ──▶ configure (completions, --print-config, log lines) ──▶ Service (metrics, HTTP edge) ──▶ connect
//!                                                                             what the binary does ──▶ Exit ──▶ finish
//! ```

mod flags;
mod progress;
mod service;
mod table;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::config::ConfigErrors;
use crate::telemetry::colour;

pub use flags::Flags;
pub use progress::Progress;
pub use service::{Service, configure};
pub use table::table;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Everything was done, and the ledger balances: 0.
    Done,
    /// Something failed, or the ledger does not balance: 1.
    Failed,
    /// The command line or the configuration can't be used: 2 (as clap has it).
    Usage,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(match exit {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
        })
    }
}

/// An error of the command line, or of a file that it names: nothing was done, and the exit code is [`Exit::Usage`].
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Usage(#[from] pub anyhow::Error);

impl Usage {
    /// An error with this text.
    pub fn new(text: impl std::fmt::Display) -> Self {
        Self(anyhow::anyhow!("{text}"))
    }
}

/// Turns what `main` comes to into an exit code, printing an error's whole chain once.
pub fn finish(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            print_error(error.as_ref());
            let usage =
                |cause: &(dyn Error + 'static)| cause.is::<ConfigErrors>() || cause.is::<Usage>();
            if error.chain().any(usage) {
                Exit::Usage.into()
            } else {
                Exit::Failed.into()
            }
        }
    }
}

/// Prints an error and its causes on standard error, with colour only on a terminal.
pub fn print_error(error: &(dyn Error + 'static)) {
    // Nothing can be done when even standard error is closed.
    let _ = io::stderr()
        .lock()
        .write_all(error_text(error, colour()).as_bytes());
}

/// An error and its causes, one a line.
fn error_text(error: &(dyn Error + 'static), colour: bool) -> String {
    let paint = |text: &str| {
        if colour {
            format!("\x1b[1;31m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    };
    let mut text = format!("{} {error}\n", paint("error:"));
    let mut said = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let what = error.to_string();
        // Some errors repeat their cause, some wrap it without a word of their own.
        if !said.contains(&what) {
            text.push_str(&format!("  caused by: {}\n", what.replace('\n', "\n    ")));
        }
        said = what;
        cause = error.source();
    }
    text
}

/// The subcommands of a binary that has none of its own.
#[derive(clap::Subcommand, Clone, Debug)]
pub enum Command {
    /// Print a shell's completion script
    Completions(Completions),
}

impl Command {
    /// The completion script that is asked for, if one is.
    pub fn completions(command: &Option<Self>) -> Option<&Completions> {
        command.as_ref().map(|Self::Completions(asked)| asked)
    }
}

/// The `completions` subcommand.
#[derive(clap::Args, Clone, Debug)]
pub struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    /// Writes the completion script of a parser on standard output.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn print<Cli: CommandFactory>(&self) -> anyhow::Result<()> {
        let mut command = Cli::command();
        let name = command.get_name().to_owned();
        // clap_complete panics when its writer fails, as a closed pipe does.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        io::stdout()
            .lock()
            .write_all(&script)
            .context("the completion script can't be written")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("the disk is full")]
    struct Cause;

    #[derive(Debug, thiserror::Error)]
    #[error("can't write the file")]
    struct Outer(#[source] Cause);

    #[test]
    fn an_error_is_printed_once_with_its_causes() {
        let error = anyhow::Error::new(Outer(Cause)).context("the run failed");
        let expected = "error: the run failed\n  caused by: can't write the file\n  caused by: the disk is full\n";
        assert_eq!(error_text(error.as_ref(), false), expected);
        assert!(error_text(&Cause, true).starts_with("\x1b[1;31merror:\x1b[0m the disk is full"));
    }

    #[test]
    fn a_wrong_configuration_is_a_usage_error_and_others_are_failures() {
        let code = |error: anyhow::Error| format!("{:?}", finish(Err(error)));
        assert_eq!(
            code(anyhow::Error::new(ConfigErrors(Vec::new())).context("x")),
            format!("{:?}", ExitCode::from(2))
        );
        let usage = Usage(anyhow::Error::new(Cause).context("no such file"));
        assert_eq!(
            error_text(&usage, false),
            "error: no such file\n  caused by: the disk is full\n"
        );
        assert_eq!(code(usage.into()), format!("{:?}", ExitCode::from(2)));
        assert_eq!(
            code(anyhow::Error::new(Cause)),
            format!("{:?}", ExitCode::from(1))
        );
    }
}
