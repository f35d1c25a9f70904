//! Ctrl-C and SIGTERM: the first one asks for a clean end, the second one is obeyed at once.

use std::io;
use std::process;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};

use crate::lifecycle::Lifecycle;

/// How long the report of what was not delivered may take before the process leaves without it.
const REPORT_DEADLINE: Duration = Duration::from_secs(2);

/// Signals can't be listened for: the operating system refuses a thread or a handler.
#[derive(Debug, thiserror::Error)]
#[error("signals can't be listened for, so that the process could not be stopped cleanly")]
pub struct SignalError(#[from] io::Error);

/// Listens for SIGINT and SIGTERM for the rest of the process's life, on a thread of its own.
///
/// The first of them says [`Lifecycle::stop`]. The second one runs `undelivered`, which says on standard error what was
/// not delivered, and leaves with exit code 130 (SIGINT) or 143 (SIGTERM). `undelivered` must not wait for the workers:
/// after two seconds the process leaves without it.
///
/// # Errors
/// When the operating system refuses a thread or a handler.
pub fn on_signals(
    lifecycle: Lifecycle,
    undelivered: impl FnOnce() + Send + 'static,
) -> Result<(), SignalError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        )
    };
    let listen = move || {
        let mut next = || {
            runtime.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => ("SIGINT", 130),
                    _ = terminate.recv() => ("SIGTERM", 143),
                }
            })
        };
        let (signal, _) = next();
        tracing::info!(signal, "stopping; a second signal leaves at once");
        lifecycle.stop();
        let (signal, code) = next();
        tracing::warn!(
            signal,
            "leaving at once: what was not committed will be done again by the next start"
        );
        let (done, wait) = mpsc::channel();
        let report = move || {
            undelivered();
            // The receiver may have given up.
            let _ = done.send(());
        };
        if thread::Builder::new()
            .name("undelivered".into())
            .spawn(report)
            .is_ok()
        {
            let _ = wait.recv_timeout(REPORT_DEADLINE);
        }
        process::exit(code);
    };
    thread::Builder::new()
        .name("signals".into())
        .spawn(listen)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::io::{BufRead, BufReader, Read};
    use std::process::{Child, Command, Stdio};

    use super::*;

    const ROLE: &str = "HEADWAY_TEST_SIGNALS";

    /// Not a test by itself: what the tests below run as a child process and send signals to.
    #[test]
    fn child() {
        let Ok(role) = std::env::var(ROLE) else {
            return;
        };
        let lifecycle = Lifecycle::new();
        let report = move || {
            eprintln!("undelivered: 3 rows");
            if role == "stuck" {
                thread::sleep(Duration::from_secs(60));
            }
        };
        on_signals(lifecycle.clone(), report).unwrap();
        eprintln!("listening");
        while !lifecycle.stopping() {
            thread::sleep(Duration::from_millis(5));
        }
        eprintln!("stopping");
        if std::env::var(ROLE).unwrap() == "clean" {
            process::exit(7);
        }
        thread::sleep(Duration::from_secs(60));
    }

    fn start(role: &str) -> (Child, BufReader<process::ChildStderr>) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "shutdown::tests::child", "--nocapture"])
            .env(ROLE, role)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap());
        wait_for(&mut lines, "listening");
        (child, lines)
    }

    fn wait_for(lines: &mut impl BufRead, wanted: &str) {
        let mut line = String::new();
        while line.trim() != wanted {
            line.clear();
            assert!(
                lines.read_line(&mut line).unwrap() > 0,
                "the child ended before it said {wanted}"
            );
        }
    }

    fn kill(child: &Child, signal: &str) {
        assert!(
            Command::new("kill")
                .args([signal, &child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    #[test]
    fn the_first_signal_asks_for_a_clean_end() {
        for signal in ["-INT", "-TERM"] {
            let (mut child, mut lines) = start("clean");
            kill(&child, signal);
            wait_for(&mut lines, "stopping");
            assert_eq!(child.wait().unwrap().code(), Some(7));
        }
    }

    #[test]
    fn the_second_signal_says_what_is_undelivered_and_leaves_with_its_code() {
        for (signal, code, role) in [("-INT", 130, "slow"), ("-TERM", 143, "stuck")] {
            let (mut child, mut lines) = start(role);
            kill(&child, signal);
            wait_for(&mut lines, "stopping");
            kill(&child, signal);
            let mut rest = String::new();
            lines.read_to_string(&mut rest).unwrap();
            assert!(rest.contains("undelivered: 3 rows"), "{rest}");
            assert_eq!(child.wait().unwrap().code(), Some(code));
        }
    }
}
