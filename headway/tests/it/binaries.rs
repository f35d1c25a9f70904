//! Producer, processor and sinks as processes of their own, one after another over one embedded log.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
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

/// Runs a process to its good end.
fn run(mut command: Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}",
        output.status,
        text(&output.stderr)
    );
}

/// A process that runs until it is stopped, and shows its metrics.
pub struct Running {
    child: Child,
    /// Where it serves them.
    address: String,
    /// What it goes on to log.
    log: JoinHandle<String>,
}

impl Running {
    /// Starts it, and waits until it serves.
    pub fn start(mut command: Command) -> Self {
        let mut child = command
            .env("HEADWAY_TELEMETRY_HTTP_ADDRESS", "127.0.0.1:0")
            .env("NO_COLOR", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
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
        let log = std::thread::spawn(move || {
            log.read_to_string(&mut said).unwrap();
            said
        });
        Self {
            child,
            address,
            log,
        }
    }

    /// One of its metrics; 0 if it does not show it yet.
    fn metric(&self, name: &str) -> u64 {
        let Ok(mut stream) = TcpStream::connect(&self.address) else {
            return 0;
        };
        let request = "GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        let mut answer = String::new();
        let asked = stream.write_all(request.as_bytes());
        if asked
            .and_then(|()| stream.read_to_string(&mut answer))
            .is_err()
        {
            return 0;
        }
        let mut lines = answer.lines();
        let value = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse::<f64>().unwrap() as u64)
    }

    /// Waits until a metric has come so far.
    pub fn until(&mut self, name: &str, at_least: u64) {
        while self.metric(name) < at_least {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "it ended before {name} was {at_least}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The most memory that it has had resident, in MiB.
    fn peak(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let mut lines = status.lines();
        let kib = lines.find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let kib = kib.trim().strip_suffix("kB").unwrap().trim();
        kib.parse::<u64>().unwrap() / 1024
    }

    /// Stops it in order.
    pub fn stop(mut self) {
        let stopped = Command::new("kill")
            .args(["-TERM", &self.child.id().to_string()])
            .status();
        assert!(stopped.unwrap().success());
        let status = self.child.wait().unwrap();
        let said = self.log.join().unwrap();
        assert!(status.success(), "{said}");
    }
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
        let mut processor = Running::start(binary("processor", &dir));
        let good = oracle::read(&csv).good.len() as u64;
        processor.until("headway_processor_records_in_total", good);
        let peak = processor.peak();
        processor.stop();
        peak
    });
    eprintln!(
        "{} MiB after 60,000 rows, {} MiB after 960,000",
        peaks[0], peaks[1]
    );
    assert!(peaks[1] <= peaks[0] + 24, "{peaks:?} MiB");
}
