//! From one application to the next, as a user does it: binaries, one after another, over one embedded log.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::binaries::{binary, configure};
use crate::oracle;
use crate::run::{assert_complete, generate, headway, ledger, text};

const PATIENCE: Duration = Duration::from_secs(60);

/// The lines of a file in two files, each with the header.
fn halves(csv: &Path) -> [PathBuf; 2] {
    // Spoiled rows need not be UTF-8.
    let bytes = std::fs::read(csv).unwrap();
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let header = lines.next().unwrap();
    let rows: Vec<&[u8]> = lines.collect();
    let (first, second) = rows.split_at(rows.len() / 2);
    [("first", first), ("second", second)].map(|(name, rows)| {
        let path = csv.with_file_name(format!("{name}.csv"));
        std::fs::write(&path, [header, &rows.concat()].concat()).unwrap();
        path
    })
}

fn done(mut command: Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

fn get(address: SocketAddr, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A metric of a running processor.
fn metric(address: SocketAddr, name: &str) -> Option<u64> {
    let answer = get(address, "/metrics")?;
    let mut lines = answer.lines();
    let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(value.parse::<f64>().ok()? as u64)
}

/// Runs a processor until it has taken this many rows, and stops it in order.
fn take(dir: &Path, arguments: &[&str], rows: u64) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut command = binary("processor", dir);
    let mut child = command
        .args(arguments)
        .env("HEADWAY_TELEMETRY_HTTP_ADDRESS", address.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + PATIENCE;
    while metric(address, "headway_processor_records_in_total") < Some(rows) {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
    let stopped = Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status();
    assert!(stopped.unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn produce(dir: &Path, csv: &Path) {
    let mut producer = binary("producer", dir);
    producer.arg(csv).args(["--create-topics", "4"]);
    done(producer);
}

#[test]
fn a_changed_job_goes_on_where_the_old_one_stopped_and_the_audit_balances() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let csv = generate(dir, 60_000, 23);
    let [first, second] = halves(&csv);
    produce(dir, &first);
    let rows = oracle::read(&first).good.len() as u64;
    take(dir, &[], rows);
    let successor = ["--application-id", "taxi-2", "--takes-over", "taxi"];
    let cutover = |more: &[&str]| {
        let mut command = binary("processor", dir);
        let job = concat!(env!("CARGO_MANIFEST_DIR"), "/../processor/jobs/taxi.sql");
        command
            .args(successor)
            .args(["cutover", job, "--yes"])
            .args(more);
        command
    };
    // There is nobody to go on.
    let refused = cutover(&[]).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("start it first"),
        "{refused:?}"
    );
    take(
        dir,
        &[&successor[..], &["--set", "processor.shards=3"]].concat(),
        rows,
    );

    let mut show = binary("processor", dir);
    show.args(successor).args(["offsets", "show", "--json"]);
    let shown: Value = serde_json::from_slice(&done(show).stdout).unwrap();
    assert_eq!(shown["takes_over"]["takes_over"], "taxi", "{shown:#}");
    assert_eq!(shown["takes_over"]["offsets"], 0, "{shown:#}");
    // What is on the topic meanwhile is the successor's to give.
    produce(dir, &second);
    let dry = done(cutover(&["--dry-run"]));
    assert!(text(&dry.stdout).contains("Nothing was done"), "{dry:?}");
    let output = done(cutover(&["--even-if-behind"]));
    assert!(
        text(&output.stdout).contains("Done: taxi is handed over to taxi-2"),
        "{output:?}"
    );
    let again = done(cutover(&[]));
    assert!(
        text(&again.stdout).contains("It was done before"),
        "{again:?}"
    );
    let mut old = binary("processor", dir);
    let refused = old.arg("--once").output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        text(&refused.stderr).contains("was handed over to taxi-2"),
        "{refused:?}"
    );

    let mut new = binary("processor", dir);
    // The setting stands on record.
    new.args([
        "--application-id",
        "taxi-2",
        "--set",
        "processor.shards=3",
        "--once",
    ]);
    done(new);
    for name in ["sink-s3", "sink-opensearch"] {
        let mut sink = binary(name, dir);
        sink.arg("--once");
        done(sink);
    }
    let audit = |application: &str| {
        let mut audit = headway();
        configure(&mut audit, dir);
        audit.env("HEADWAY_PROCESSOR_APPLICATION_ID", application);
        audit
    };
    let ledger = ledger(&audit("taxi-2").args(["audit", "--json"]).output().unwrap());
    assert_complete(dir, &oracle::read(&csv), &ledger, "taken over");
    let query = &ledger["queries"][0];
    let number = |value: &Value| value.as_u64().unwrap();
    let (given, own) = (
        number(&query["predecessor"]["results"]),
        number(&query["emitted"]),
    );
    assert!(given > 0 && own > 0, "{query:#}");
    assert_eq!(
        given + own,
        number(&query["documents"]["documents"]),
        "{query:#}"
    );
    assert!(
        number(&query["given_before"]) > 0
            && number(&query["given_before"]) < number(&query["merged"])
    );
    let shown = done({
        let mut audit = audit("taxi-2");
        audit.arg("audit");
        audit
    });
    let shown = text(&shown.stdout).to_string();
    assert!(shown.contains("given by taxi:"), "{shown}");
    assert!(
        shown.contains("results and those of taxi = documents + dead + waiting"),
        "{shown}"
    );
    // What was handed over balances too, as far as it is its own.
    let old = audit("taxi").args(["audit", "--json"]).output().unwrap();
    let old: Value = serde_json::from_slice(&old.stdout).unwrap();
    assert_eq!(old["balanced"], true, "{old:#}");
    assert_eq!(old["queries"][0]["handed_over_to"], "taxi-2");
}
