//! What a process costs: time, CPU time, memory.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Seek};
use std::mem::MaybeUninit;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

/// What a run cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// From start to end, in seconds.
    pub wall_s: f64,
    /// CPU time of all its threads in the program, in seconds.
    pub user_s: f64,
    /// CPU time of all its threads in the kernel, in seconds.
    pub system_s: f64,
    /// The most memory that was resident, in bytes.
    pub peak_rss_bytes: u64,
}

impl Cost {
    /// CPU time in the program and in the kernel, in seconds.
    pub fn cpu_s(&self) -> f64 {
        self.user_s + self.system_s
    }
}

/// Runs a command to its end, and says what it cost and what it printed on standard output.
///
/// # Errors
/// When it can't be started, or does not end with 0: with the end of what it said on standard error.
pub fn of(command: &mut Command) -> anyhow::Result<(Cost, String)> {
    let name = command.get_program().to_string_lossy().into_owned();
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?);
    give_memory_back();
    let start = Instant::now();
    let child = command
        .spawn()
        .with_context(|| format!("{name} can't be started: build it first, or pass --binaries"))?;
    let (status, usage) = wait(child.id()).with_context(|| format!("waiting for {name} failed"))?;
    let wall = start.elapsed();
    if status != 0 {
        let end = last_lines(&mut err)?;
        bail!("{name} ended with wait status {status}; its last lines:\n{end}");
    }
    Ok((cost(wall, &usage), text(&mut out)?))
}

/// Measures a part of this process, all its threads counted. The memory is that of the whole process.
pub fn measured<T>(part: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<(Cost, T)> {
    let before = of_this_process()?;
    let start = Instant::now();
    let value = part()?;
    let wall = start.elapsed();
    let after = cost(wall, &of_this_process()?);
    let before = cost(wall, &before);
    let cost = Cost {
        user_s: after.user_s - before.user_s,
        system_s: after.system_s - before.system_s,
        ..after
    };
    Ok((cost, value))
}

fn cost(wall: Duration, usage: &libc::rusage) -> Cost {
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    // Linux counts in KiB, macOS in bytes.
    let unit = if cfg!(target_os = "macos") { 1 } else { 1024 };
    Cost {
        wall_s: wall.as_secs_f64(),
        user_s: seconds(usage.ru_utime),
        system_s: seconds(usage.ru_stime),
        peak_rss_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) * unit,
    }
}

/// Gives the system back what was freed here, and lets it forget how much that was: until a child is another program, the most
/// that this one ever had counts as its own.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        // SAFETY: it takes no pointers, and any thread may call it at any time.
        unsafe { libc::malloc_trim(0) };
        // Resets the peak (proc_pid_clear_refs(5)). Where that is not allowed, a child's peak is at most too high.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
    }
}

/// Waits for a child, and says how it ended and what it used.
fn wait(pid: u32) -> io::Result<(i32, libc::rusage)> {
    let pid = libc::pid_t::try_from(pid).map_err(io::Error::other)?;
    let (mut status, mut usage) = (0, MaybeUninit::uninit());
    loop {
        // SAFETY: both places are valid for writes; the child is ours and nobody else waits for it.
        let ended = unsafe { libc::wait4(pid, &mut status, 0, usage.as_mut_ptr()) };
        if ended == pid {
            // SAFETY: the call has succeeded, and then it has written the usage.
            return Ok((status, unsafe { usage.assume_init() }));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

fn of_this_process() -> io::Result<libc::rusage> {
    let mut usage = MaybeUninit::uninit();
    // SAFETY: the place is valid for writes, and it is read only when the call has succeeded.
    unsafe {
        if libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(usage.assume_init())
    }
}

/// The end of what a child said.
pub fn last_lines(said: &mut File) -> io::Result<String> {
    let said = text(said)?;
    let lines: Vec<&str> = said.lines().collect();
    Ok(lines[lines.len().saturating_sub(20)..].join("\n"))
}

fn text(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn shell(script: &str) -> anyhow::Result<(Cost, String)> {
        of(Command::new("sh").args(["-c", script]))
    }

    #[test]
    fn a_child_that_works_costs_cpu_time_and_one_that_sleeps_costs_none() {
        let (busy, out) =
            shell("i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; echo $i").unwrap();
        assert_eq!(out, "200000\n");
        assert!(
            busy.cpu_s() > 0.02 && busy.peak_rss_bytes > 100_000,
            "{busy:?}"
        );
        let (idle, _) = shell("sleep 0.3").unwrap();
        assert!(idle.wall_s >= 0.3 && idle.cpu_s() < 0.1, "{idle:?}");
    }

    #[test]
    fn memory_that_was_freed_before_is_not_the_childs() {
        let blocks: Vec<Vec<u8>> = (0..200_000).map(|_| vec![1; 1000]).collect();
        drop(std::hint::black_box(blocks));
        let (cost, _) = shell("true").unwrap();
        assert!(cost.peak_rss_bytes < 100 << 20, "{cost:?}");
    }

    #[test]
    fn a_child_that_fails_is_an_error_with_what_it_said() {
        let error = shell("echo the disk is full >&2; exit 3").unwrap_err();
        assert!(error.to_string().contains("the disk is full"), "{error}");
    }

    #[test]
    fn only_the_measured_part_is_counted() {
        let spin = || {
            // Until it has had that much of the CPU, however busy the machine is.
            let used = || Ok::<_, io::Error>(cost(Duration::ZERO, &of_this_process()?).cpu_s());
            let before = used()?;
            while used()? - before < 0.1 {
                std::hint::spin_loop();
            }
            Ok(7)
        };
        spin().unwrap();
        let (cost, seven) = measured(spin).unwrap();
        assert_eq!(seven, 7);
        assert!(cost.cpu_s() > 0.09 && cost.wall_s > 0.01, "{cost:?}");
    }
}
