//! A processor that runs until it is killed or stopped, asked over HTTP how it is.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::cost;

/// How often it is asked whether it is ready.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// How long it may take to get ready.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);

/// A child process with an HTTP edge of its own. Dropped, it is killed.
pub struct Running {
    child: Child,
    address: SocketAddr,
    started: Instant,
    said: File,
}

/// How a start went: seconds since the process was started.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    /// Until its consumer group had given it partitions.
    pub joined_s: f64,
    /// Until `/ready` answered with 200.
    pub ready_s: f64,
}

impl Running {
    /// Starts it, with its HTTP edge at a free port.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(mut command: Command) -> anyhow::Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let name = command.get_program().to_string_lossy().into_owned();
        let said = tempfile::tempfile()?;
        command
            .env("HEADWAY_TELEMETRY_HTTP_ADDRESS", address.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(said.try_clone()?);
        let started = Instant::now();
        let child = command.spawn().with_context(|| {
            format!("{name} can't be started: build it first, or pass --binaries")
        })?;
        Ok(Self {
            child,
            address,
            started,
            said,
        })
    }

    /// Waits until `/ready` answers with 200.
    ///
    /// # Errors
    /// It ends before, or does not get ready in two minutes: with the end of what it said.
    pub fn until_ready(&mut self) -> anyhow::Result<Start> {
        let mut joined_s = None;
        loop {
            // Before the edge is open there is no answer.
            let (status, body) = self.get("/ready").unwrap_or_default();
            let now_s = self.started.elapsed().as_secs_f64();
            let is_ready = status == 200;
            if is_ready || body.contains("being restored") {
                joined_s = joined_s.or(Some(now_s));
            }
            if is_ready {
                return Ok(Start {
                    joined_s: joined_s.unwrap_or(now_s),
                    ready_s: now_s,
                });
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the processor ended: {status}\n{}", self.last_lines()?);
            }
            if self.started.elapsed() > PATIENCE {
                bail!("it is not ready: {body}\n{}", self.last_lines()?);
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Kills it (SIGKILL): it can't end anything in order.
    ///
    /// # Errors
    /// It had ended before: with the end of what it said.
    pub fn kill(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the processor had ended: {status}\n{}", self.last_lines()?);
        }
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it in order (SIGTERM).
    ///
    /// # Errors
    /// It had ended before, does not end in two minutes, or fails: with the end of what it said.
    pub fn stop(mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the processor had ended: {status}\n{}", self.last_lines()?);
        }
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        ensure!(
            sent.context("the command kill can't be run")?.success(),
            "the processor can't be stopped"
        );
        let asked = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if asked.elapsed() > PATIENCE {
                bail!("it does not stop\n{}", self.last_lines()?);
            }
            std::thread::sleep(ASK_EVERY);
        };
        if !status.success() {
            bail!("the processor failed: {status}\n{}", self.last_lines()?);
        }
        Ok(())
    }

    fn last_lines(&mut self) -> anyhow::Result<String> {
        Ok(cost::last_lines(&mut self.said)?)
    }

    /// The status and the body of an answer.
    fn get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address, ANSWER)?;
        stream.set_read_timeout(Some(ANSWER))?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n",
            self.address
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status.unwrap_or(0), body.to_owned()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that was killed, or has ended, is none any more.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
