//! Producer, processor and sinks as processes of their own, one after another over one embedded log.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::oracle;
use crate::run::{assert_complete, generate, headway, ledger, text};

/// A binary with all its settings in the environment; everything that it leaves is under `dir`.
pub fn binary(name: &str, dir: &Path) -> Command {
    let mut command = crate::run::binary(name);
    configure(&mut command, dir);
    command
}

/// Puts a binary's settings into its environment.
pub fn configure(command: &mut Command, dir: &Path) {
    let documents = format!("sqlite:{}", dir.join("documents.sqlite").display());
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    command
        .stdin(Stdio::null())
        .current_dir(dir)
        .env("HEADWAY_LOG_KIND", "embedded")
        .env("HEADWAY_LOG_DIR", dir.join("log"))
        .env("HEADWAY_REGISTRY_KIND", "embedded")
        .env("HEADWAY_REGISTRY_FILE", dir.join("registry.json"))
        .env("HEADWAY_PRODUCER_MAPPING", "headway")
        .env(
            "HEADWAY_PROCESSOR_JOB",
            format!("{root}/processor/jobs/taxi.sql"),
        )
        .env("HEADWAY_PROCESSOR_MASK_SALT", "headway-demo")
        .env("HEADWAY_SINK_S3_URL", dir.join("lake"))
        .env("HEADWAY_SINK_OPENSEARCH_URL", documents)
        .env(
            "HEADWAY_SINK_OPENSEARCH_DOCUMENTS",
            format!("{root}/sinks/opensearch/documents/taxi.toml"),
        );
}

/// Runs a process to its good end; returns the most memory that it had resident, in MiB, sampled every few milliseconds.
fn run(mut command: Command) -> u64 {
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", child.id());
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&status).unwrap_or_default();
        let kib = text
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        peak = peak.max(kib.unwrap_or(0) / 1024);
        std::thread::sleep(Duration::from_millis(2));
    }
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        text(&output.stderr)
    );
    peak
}

#[test]
fn the_binaries_one_after_another_come_to_what_a_batch_comes_to() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let csv = generate(dir, 60_000, 21);
    let mut producer = binary("producer", dir);
    producer.arg(&csv).args(["--create-topics", "4"]);
    run(producer);
    for name in ["processor", "sink-s3", "sink-opensearch"] {
        let mut part = binary(name, dir);
        part.arg("--once");
        run(part);
    }
    let mut audit = headway();
    configure(&mut audit, dir);
    let ledger = ledger(&audit.args(["audit", "--json"]).output().unwrap());
    assert_complete(dir, &oracle::read(&csv), &ledger, "separate binaries");
}

/// Sixteen times the rows, as densely in time: more windows pass, but as many are open at once.
#[test]
fn the_processors_memory_does_not_grow_with_the_rows_that_it_has_read() {
    let folder = tempfile::tempdir().unwrap();
    let peaks = [60_000_u64, 960_000].map(|rows| {
        let dir = folder.path().join(rows.to_string());
        std::fs::create_dir(&dir).unwrap();
        let csv = dir.join("trips.csv");
        let mut generate = headway();
        generate
            .args(["generate", "--seed", "4", "--trips-per-day", "200000"])
            .args(["--rows", &rows.to_string(), "--out"])
            .arg(&csv);
        run(generate);
        let mut producer = binary("producer", &dir);
        producer.arg(&csv).args(["--create-topics", "4"]);
        run(producer);
        let mut processor = binary("processor", &dir);
        processor.arg("--once");
        run(processor)
    });
    eprintln!(
        "{} MiB after 60,000 rows, {} MiB after 960,000",
        peaks[0], peaks[1]
    );
    assert!(peaks[1] <= peaks[0] + 24, "{peaks:?} MiB");
}
