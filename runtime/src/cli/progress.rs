//! How far a run has come, for whoever watches it.

use std::io::{self, IsTerminal};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

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
                "{bar:24} {percent:>3}% {wide_msg}"
            } else {
                "{spinner} {wide_msg}"
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
