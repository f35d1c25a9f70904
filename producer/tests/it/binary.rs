//! The binary as a process: exit codes, signals, what it prints.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::pipeline::{HEADER, rows};

fn command(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_producer"));
    command
        .current_dir(dir)
        .args(arguments)
        .args(["--set", "log.kind=embedded", "--set", "log.dir=log"])
        .args([
            "--set",
            "registry.kind=embedded",
            "--set",
            "registry.file=registry.json",
        ])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn producer(dir: &Path, arguments: &[&str]) -> (Option<i32>, String) {
    told(&command(dir, arguments).output().unwrap())
}

fn told(output: &Output) -> (Option<i32>, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (
        output.status.code(),
        text(&output.stdout) + &text(&output.stderr),
    )
}

fn csv(dir: &TempDir, name: &str, count: usize, bad: &[usize]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, format!("{HEADER}{}", rows(0, count, bad))).unwrap();
    path
}

fn signal(child: &Child, name: &str) {
    assert!(
        Command::new("kill")
            .args([name, &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_run_sends_and_the_same_command_finds_that_everything_was_sent() {
    let dir = TempDir::new().unwrap();
    csv(&dir, "a.csv", 50, &[7]);
    let (code, text) = producer(dir.path(), &["a.csv"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("--create-topics"), "{text}");
    let (code, text) = producer(dir.path(), &["a.csv", "--create-topics", "3"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("49 delivered to trips, 1 rejected (trips.dlq says why)"),
        "{text}"
    );
    let (code, text) = producer(dir.path(), &["a.csv"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("everything was sent already"), "{text}");
}

#[test]
fn what_cannot_be_used_is_a_usage_error_that_says_what_to_do() {
    let dir = TempDir::new().unwrap();
    csv(&dir, "a.csv", 5, &[]);
    std::fs::write(dir.path().join("wrong.toml"), "name = \"x\"\ncolour = 1\n").unwrap();
    std::fs::write(dir.path().join("other.csv"), "a,b\n1,2\n").unwrap();
    for (arguments, part) in [
        (&["missing.csv"][..], "there is no such file"),
        (&["."][..], "it is a directory"),
        (&[][..], "no input files are named"),
        (
            &["other.csv"][..],
            "pass --mapping with one of aws, kaggle, headway",
        ),
        (
            &["a.csv", "--mapping", "wrong.toml"][..],
            "line 2: unknown key `colour`",
        ),
        (
            &["a.csv", "--mapping", "nothing.toml"][..],
            "neither shipped (aws, kaggle, headway) nor a file",
        ),
        (
            &["a.csv", "--mapping", "headway"][..],
            "no column `vendorId`",
        ),
        (&["a.csv", "--rate=-1"][..], "rate"),
        (&["a.csv", "--schema", "missing.avsc"][..], "missing.avsc"),
        (&["--show-mapping", "x"][..], "no shipped mapping x"),
    ] {
        let (code, text) = producer(dir.path(), &[arguments, &["--create-topics", "1"]].concat());
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
    let (code, text) = producer(dir.path(), &["--show-mapping", "kaggle"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("haversine_km"), "{text}");
}

/// A producer that has committed rows and is at work on more, with what it has logged so far.
fn at_work(dir: &Path) -> (Child, BufReader<ChildStderr>, String) {
    let arguments = ["a.csv", "--create-topics", "2", "--rate", "100"];
    let mut child = command(dir, &arguments)
        .args(["--set", "telemetry.http_address=127.0.0.1:0"])
        .env("NO_COLOR", "1")
        .spawn()
        .unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    let address = loop {
        let before = said.len();
        assert!(log.read_line(&mut said).unwrap() > 0, "it ended: {said}");
        let line = &said[before..];
        if line.contains("serving /metrics") {
            let (_, address) = line.split_once("address=").unwrap();
            break address.split_whitespace().next().unwrap().to_owned();
        }
    };
    while committed(&address) == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended: {said}");
        std::thread::sleep(Duration::from_millis(5));
    }
    (child, log, said)
}

/// How many rows a running producer has read and committed.
fn committed(address: &str) -> u64 {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(
        stream,
        "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let mut lines = answer.lines();
    let rows = lines.find_map(|line| line.strip_prefix("producer_rows_read_total "));
    rows.map_or(0, |rows| rows.parse().unwrap())
}

#[test]
fn a_stopped_and_a_killed_process_leave_the_rest_to_the_next_start() {
    let dir = TempDir::new().unwrap();
    // So slow that the input lasts for both.
    csv(&dir, "a.csv", 30_000, &[]);
    let (mut child, mut log, mut text) = at_work(dir.path());
    signal(&child, "-TERM");
    log.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
    assert!(
        text.contains("stopped: ") && text.contains("goes on from here"),
        "{text}"
    );
    // killed between two commits: the rows in hand are sent by the next start
    let (mut child, ..) = at_work(dir.path());
    signal(&child, "-KILL");
    child.wait().unwrap();
    let (code, text) = producer(dir.path(), &["a.csv"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(
        text.contains("30000 rows of input set") && text.contains("30000 delivered"),
        "{text}"
    );
}
