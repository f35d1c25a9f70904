//! What every binary's command line has in common: exit codes, errors, completions, progress.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::CommandFactory;
use clap_complete::Shell;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::config::ConfigErrors;
use crate::telemetry::colour;

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

/// Turns what `main` comes to into an exit code, printing an error's whole chain once.
pub fn finish(result: anyhow::Result<Exit>) -> ExitCode {
    match result {
        Ok(exit) => exit.into(),
        Err(error) => {
            print_error(error.as_ref());
            let usage = error.chain().any(|cause| cause.is::<ConfigErrors>());
            if usage {
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

/// The `completions` subcommand.
#[derive(clap::Args, Clone, Debug)]
pub struct Completions {
    /// For which shell
    shell: Shell,
}

impl Completions {
    /// Writes the completion script of a parser on standard output.
    pub fn print<Cli: CommandFactory>(&self) -> io::Result<()> {
        let mut command = Cli::command();
        let name = command.get_name().to_owned();
        // clap_complete panics when its writer fails, as a closed pipe does.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, name, &mut script);
        io::stdout().lock().write_all(&script)
    }
}

/// How far a run has come: one moving line on a terminal, log lines elsewhere.
pub struct Progress {
    bar: Option<ProgressBar>,
    every: Duration,
    last: Option<Instant>,
}

impl Progress {
    /// The least time between two log lines.
    const LOG_EVERY: Duration = Duration::from_secs(10);

    /// A progress line; with a `total` (in any unit) it has a bar.
    pub fn new(total: Option<u64>) -> Self {
        let bar = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr_with_hz(8));
            let template = if total.is_some() {
                "{bar:24} {percent:>3}% {msg}"
            } else {
                "{spinner} {msg}"
            };
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar
        });
        Self {
            bar,
            every: Self::LOG_EVERY,
            last: None,
        }
    }

    /// Says how far it has come. Cheap enough to be called once a batch; off a terminal a line is logged at most every
    /// ten seconds.
    pub fn update(&mut self, position: u64, message: impl FnOnce() -> String) {
        match &self.bar {
            Some(bar) => {
                bar.set_position(position);
                bar.set_message(message());
            }
            None if self.last.is_none_or(|last| last.elapsed() >= self.every) => {
                self.last = Some(Instant::now());
                tracing::info!(progress = message(), "running");
            }
            None => {}
        }
    }

    /// Prints a line above the moving one.
    pub fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => eprintln!("{text}"),
        }
    }

    /// Takes the moving line away, leaving its last message.
    pub fn finish(self, message: String) {
        match &self.bar {
            Some(bar) => {
                bar.finish_and_clear();
                eprintln!("{message}");
            }
            None => tracing::info!(progress = message, "finished"),
        }
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
        assert_eq!(
            code(anyhow::Error::new(Cause)),
            format!("{:?}", ExitCode::from(1))
        );
    }
}
