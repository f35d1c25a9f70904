//! The audit of an application that went on without what was lost: it balances, names what was given up, and still sees
//! what else is missing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use processor::job::JobOptions;
use processor::metrics::Metrics;
use processor::offsets::SourceState;
use processor::progress::Progress;
use processor::worker::WorkerOptions;
use runtime::lifecycle::Lifecycle;
use runtime::log::embedded::{EmbeddedLog, EmbeddedOptions};
use runtime::log::{ConsumerOptions, Event, Log, Offset, OffsetCommit, TopicPartition};
use runtime::telemetry::Readiness;
use rusqlite::Connection;
use schemas::EmbeddedRegistry;
use serde_json::Value;

use crate::accounting::wrong;
use crate::run::{binary, generate, headway, text};

/// Windows that each row is in once, and some that it is in three times.
const JOB: &str = "
CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '5 minutes');
CREATE SINK hourly  WITH (topic = 'hourly', key = 'window_start, vendor_id');
CREATE SINK sliding WITH (topic = 'sliding', key = 'window_start, vendor_id');

INSERT INTO hourly SELECT window_start, vendor_id, count(*) AS trips
FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') GROUP BY window_start, vendor_id;
INSERT INTO sliding SELECT window_start, vendor_id, count(*) AS trips
FROM HOP(trips, pickup_at, INTERVAL '20 minutes', INTERVAL '1 hour') GROUP BY window_start, vendor_id;
";
const DOCUMENTS: &str = r#"
[[topic]]
topic = "hourly"
keys = ["window_start", "vendor_id"]
version = "version"
index = "{topic}"

[[topic]]
topic = "sliding"
keys = ["window_start", "vendor_id"]
version = "version"
index = "{topic}"
"#;
const APPLICATION: &str = "taxi";
const ROWS: u64 = 20_000;

/// A pipeline whose processor has taken a part of the rows, and whose lake has all of them.
struct Pipeline {
    folder: tempfile::TempDir,
}

fn source() -> TopicPartition {
    TopicPartition::new("trips", 0)
}

impl Pipeline {
    fn begun(seed: u64) -> Self {
        let pipeline = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        fs::write(pipeline.job(), JOB).unwrap();
        fs::write(pipeline.dir().join("documents.toml"), DOCUMENTS).unwrap();
        let csv = fs::read(generate(pipeline.dir(), ROWS, seed)).unwrap();
        let lines: Vec<&[u8]> = csv.split_inclusive(|byte| *byte == b'\n').collect();
        let (header, rows) = lines.split_first().unwrap();
        let (taken, left) = rows.split_at(rows.len() / 3);
        pipeline.write("taken.csv", header, taken);
        pipeline.take();
        pipeline.write("left.csv", header, left);
        let mut lake = pipeline.part("sink-s3");
        lake.arg("--once");
        succeeds(lake);
        pipeline
    }

    /// Sends rows as a file.
    fn write(&self, name: &str, header: &[u8], rows: &[&[u8]]) {
        let file = self.dir().join(name);
        fs::write(&file, [header, &rows.concat()].concat()).unwrap();
        let mut producer = self.part("producer");
        producer.arg(file).args(["--create-topics", "2"]);
        succeeds(producer);
    }

    fn dir(&self) -> &Path {
        self.folder.path()
    }

    fn job(&self) -> PathBuf {
        self.dir().join("job.sql")
    }

    fn part(&self, name: &str) -> Command {
        let mut command = binary(name);
        self.configure(&mut command);
        command
    }

    fn configure(&self, command: &mut Command) {
        let dir = self.dir();
        let documents = format!("sqlite:{}", dir.join("documents.sqlite").display());
        command
            .current_dir(dir)
            .env("HEADWAY_LOG_KIND", "embedded")
            .env("HEADWAY_LOG_DIR", dir.join("log"))
            .env("HEADWAY_REGISTRY_KIND", "embedded")
            .env("HEADWAY_REGISTRY_FILE", dir.join("registry.json"))
            .env("HEADWAY_PRODUCER_MAPPING", "headway")
            .env("HEADWAY_PROCESSOR_JOB", self.job())
            .env("HEADWAY_PROCESSOR_APPLICATION_ID", APPLICATION)
            .env("HEADWAY_PROCESSOR_SHARDS", "2")
            .env("HEADWAY_PROCESSOR_MASK_SALT", "headway-demo")
            .env("HEADWAY_SINK_S3_URL", dir.join("lake"))
            .env("HEADWAY_SINK_OPENSEARCH_URL", documents)
            .env("HEADWAY_SINK_OPENSEARCH_TOPICS", "hourly,sliding")
            .env(
                "HEADWAY_SINK_OPENSEARCH_DOCUMENTS",
                dir.join("documents.toml"),
            );
    }

    fn log(&self) -> Arc<EmbeddedLog> {
        EmbeddedLog::open(&self.dir().join("log"), EmbeddedOptions::default()).unwrap()
    }

    /// Lets the processor take what is there, and stops it before the input is said to have ended.
    fn take(&self) {
        let registry = EmbeddedRegistry::open(&self.dir().join("registry.json")).unwrap();
        let (log, metrics) = (self.log(), prometheus::Registry::new());
        let rows: usize = [0, 1]
            .map(|partition| offsets(&*log, &TopicPartition::new("trips", partition)).len())
            .iter()
            .sum();
        let rows = rows as u64;
        let options = processor::Options {
            job: JobOptions {
                sql: JOB.into(),
                folder: self.dir().into(),
                application_id: APPLICATION.into(),
                shards: 2,
                mask_salt: b"headway-demo".to_vec(),
                durability: Default::default(),
                newest_format: processor::format::NEWEST,
                takes_over: None,
            },
            workers: 1,
            instance: "0".into(),
            worker: WorkerOptions {
                commit_interval: Duration::from_millis(1),
                ..WorkerOptions::default()
            },
            log: Arc::clone(&log) as _,
            registry: Arc::new(registry),
            lifecycle: Lifecycle::new(),
            clock: Arc::new(runtime::clock::SystemClock),
            metrics: Arc::new(Metrics::new(&metrics).unwrap()),
            edge_metrics: runtime::metrics::Metrics::new(&metrics).unwrap(),
            progress: Arc::new(Progress::default()),
            ready: Readiness::new().condition("state"),
            state_memory_bytes: 256 * 1024 * 1024,
            spill_dir: std::env::temp_dir(),
            tables_ready: Readiness::new().condition("reference tables"),
        };
        let lifecycle = options.lifecycle.clone();
        let running = std::thread::spawn(move || processor::run(&options));
        let read = |place, query| {
            processor::ledger::read(log.as_ref(), APPLICATION, query, "trips", place).unwrap()
        };
        let is_behind = || {
            [read(0, "hourly"), read(1, "sliding")]
                .iter()
                .any(|counts| counts.rows_in < rows || counts.merged < counts.assigned)
        };
        while is_behind() && !running.is_finished() {
            std::thread::yield_now();
        }
        lifecycle.stop();
        running.join().unwrap().unwrap();
    }

    fn committed(&self) -> (Offset, String) {
        let committed = self.log().committed(APPLICATION, &[source()]).unwrap();
        let committed = committed[0].clone().unwrap();
        (committed.offset, committed.metadata)
    }

    fn commit(&self, partition: TopicPartition, offset: Offset, metadata: String) {
        let log = self.log();
        let mut outside = log.consumer(&ConsumerOptions::new(APPLICATION)).unwrap();
        outside
            .commit(&[OffsetCommit {
                partition,
                offset,
                metadata,
            }])
            .unwrap();
        outside.close(Duration::from_secs(1)).unwrap();
    }

    /// The processor refuses to go on; what is lost is accepted; processor and documents run to the end.
    fn go_on(&self) -> String {
        let refused = self.part("processor").arg("--once").output().unwrap();
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused.stderr));
        let mut accept = self.part("processor");
        accept.args(["offsets", "accept-gap", "--yes"]);
        let said = succeeds(accept);
        for name in ["processor", "sink-opensearch"] {
            let mut part = self.part(name);
            part.arg("--once");
            succeeds(part);
        }
        said
    }

    fn audit(&self) -> (Option<i32>, Value) {
        let mut audit = headway();
        self.configure(&mut audit);
        let output = audit.args(["audit", "--json"]).output().unwrap();
        let ledger = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
        (output.status.code(), ledger)
    }

    /// The audit balances, with these gaps named of each query.
    #[track_caller]
    fn balances(&self, gaps: &[String]) -> Value {
        let (code, ledger) = self.audit();
        assert_eq!(wrong(&ledger), [""; 0], "{ledger:#}");
        assert_eq!((code, &ledger["balanced"]), (Some(0), &Value::Bool(true)));
        let unchecked = ledger["unchecked"].to_string();
        for query in ["hourly", "sliding"] {
            for gap in gaps {
                let named = format!("{query}: {gap} (processor offsets accept-gap)");
                assert!(unchecked.contains(&named), "{named}: {unchecked}");
            }
        }
        ledger
    }

    /// It does not, and says so of exactly this.
    #[track_caller]
    fn misses(&self, expected: &[&str]) {
        let (code, ledger) = self.audit();
        let found = wrong(&ledger);
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (found, expected) in found.iter().zip(expected) {
            assert!(found.starts_with(expected), "{found} and {expected}");
        }
        assert_eq!((code, &ledger["balanced"]), (Some(1), &Value::Bool(false)));
    }

    fn documents(&self) -> Connection {
        Connection::open(self.dir().join("documents.sqlite")).unwrap()
    }
}

/// The offsets of a partition's records.
fn offsets(log: &dyn Log, partition: &TopicPartition) -> Vec<Offset> {
    let mut consumer = log.consumer(&ConsumerOptions::new("look")).unwrap();
    let start = log.bounds(partition).unwrap().start;
    consumer.assign(&[(partition.clone(), start)]).unwrap();
    let mut offsets = Vec::new();
    loop {
        match consumer.poll(Duration::from_secs(5), 10_000).unwrap() {
            Some(Event::Records(batch)) => offsets.extend(batch.iter().map(|record| record.offset)),
            Some(Event::End { .. }) => return offsets,
            other => panic!("{other:?}"),
        }
    }
}

fn succeeds(mut command: Command) -> String {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

fn number(ledger: &Value, place: usize, name: &str) -> u64 {
    ledger["queries"][place][name].as_u64().unwrap()
}

#[test]
fn records_that_are_gone_are_named_and_whatever_else_is_missing_is_found() {
    let pipeline = Pipeline::begun(71);
    let (from, _) = pipeline.committed();
    let offsets = offsets(pipeline.log().as_ref(), &source());
    let left = offsets.iter().filter(|offset| **offset >= from).count();
    let to = offsets[offsets.len() - left / 2];
    let lost = offsets
        .iter()
        .filter(|offset| (from..to).contains(offset))
        .count() as u64;
    assert!(lost > 500, "{lost}");
    pipeline.log().delete_records(&source(), to).unwrap();
    let said = pipeline.go_on();
    assert!(
        said.contains(&format!("the rows from offset {from} to {to}")),
        "{said}"
    );
    let ledger = pipeline.balances(&[format!("offsets {from} to {to} of trips-0 were given up")]);
    let delivered = ledger["producer"]["delivered"].as_u64().unwrap();
    for place in 0..2 {
        assert_eq!(number(&ledger, place, "rows_in"), delivered - lost);
        assert_eq!(
            number(&ledger, place, "assigned"),
            number(&ledger, place, "merged") + number(&ledger, place, "late")
        );
    }

    // A document.
    let documents = pipeline.documents();
    documents
        .execute_batch(
            "CREATE TABLE aside AS SELECT * FROM documents WHERE index_name GLOB 'hourly*' LIMIT 1;
             DELETE FROM documents WHERE (index_name, id) IN (SELECT index_name, id FROM aside)",
        )
        .unwrap();
    pipeline.misses(&["hourly: results = documents + dead + waiting"]);
    documents
        .execute_batch("INSERT INTO documents SELECT * FROM aside; DROP TABLE aside")
        .unwrap();
    drop(documents);

    // More rows of the source than were given up: as if those between two commits had never been read.
    let (offset, metadata) = pipeline.committed();
    let mut state: SourceState = processor::offsets::decode(&metadata).unwrap();
    let encode =
        |state: &SourceState| processor::offsets::encode(state, processor::format::NEWEST).unwrap();
    let more = (to - from) as u64 - lost + 1;
    state.rows_in -= more;
    state
        .queries
        .iter_mut()
        .for_each(|counts| counts.kept -= more);
    pipeline.commit(source(), offset, encode(&state));
    pipeline.misses(&[
        "hourly: delivered <= taken + waiting + offsets given up",
        "sliding: delivered <= taken + waiting + offsets given up",
    ]);
    pipeline.commit(source(), offset, metadata.clone());

    // Partials.
    let mut state: SourceState = processor::offsets::decode(&metadata).unwrap();
    state.queries[1].assigned += 1;
    pipeline.commit(source(), offset, encode(&state));
    pipeline.misses(&["sliding: assigned = merged + late + in flight"]);
    pipeline.commit(source(), offset, metadata);
    pipeline.balances(&[]);
}

#[test]
fn an_offset_that_was_reset_by_hand_has_lost_its_counts_and_the_rest_is_checked() {
    for forward in [true, false] {
        let pipeline = Pipeline::begun(73);
        let (end, _) = pipeline.committed();
        let offsets = offsets(pipeline.log().as_ref(), &source());
        let to = match forward {
            true => offsets[offsets.len() - 1000],
            false => 0,
        };
        assert!(!forward || to > end);
        pipeline.commit(source(), to, String::new());
        let said = pipeline.go_on();
        assert!(said.contains("what was counted below"), "{said}");
        let ledger = pipeline.balances(&[format!(
            "offsets 0 to {} of trips-0 were given up",
            to.max(end)
        )]);
        for place in 0..2 {
            assert!(number(&ledger, place, "merged") > number(&ledger, place, "assigned"));
        }
        let results = "DELETE FROM documents WHERE (index_name, id) IN (SELECT index_name, id FROM documents WHERE index_name GLOB 'sliding*' LIMIT 1)";
        pipeline.documents().execute_batch(results).unwrap();
        pipeline.misses(&["sliding: results = documents + dead + waiting"]);
    }
}

#[test]
fn a_range_that_is_missing_from_partials_is_named_and_more_than_that_is_found() {
    let pipeline = Pipeline::begun(79);
    let (from, metadata) = pipeline.committed();
    let offsets = offsets(pipeline.log().as_ref(), &source());
    let left: Vec<Offset> = offsets
        .iter()
        .copied()
        .filter(|offset| *offset >= from)
        .collect();
    let (to, rows) = (left[900], 900);
    // As if the source's offset had been committed without what was read below it.
    let mut state: SourceState = processor::offsets::decode(&metadata).unwrap();
    state.rows_in += rows;
    for (counts, windows) in state.queries.iter_mut().zip([1, 3]) {
        counts.kept += rows;
        counts.assigned += windows * rows;
    }
    let encode =
        |state: &SourceState| processor::offsets::encode(state, processor::format::NEWEST).unwrap();
    pipeline.commit(source(), to, encode(&state));
    pipeline.go_on();
    let ledger =
        pipeline.balances(&[0, 1].map(|shard| {
            format!("offsets {from} to {to} of trips-0 were given up for shard {shard}")
        }));
    assert_eq!(
        number(&ledger, 0, "assigned") - number(&ledger, 0, "merged") - number(&ledger, 0, "late"),
        rows
    );

    // More pairs than the range can have had.
    let (offset, metadata) = pipeline.committed();
    let mut state: SourceState = processor::offsets::decode(&metadata).unwrap();
    let spare = (to - from) as u64 - rows;
    state.queries[0].assigned += spare + 1;
    pipeline.commit(source(), offset, encode(&state));
    pipeline.misses(&["hourly: assigned <= merged + late + in flight + pairs given up"]);
    state.queries[0].assigned -= spare + 1;
    // A result without its rows.
    state.queries[0].assigned -= rows + 1;
    pipeline.commit(source(), offset, encode(&state));
    pipeline.misses(&["hourly: merged + late + in flight <= assigned"]);
    pipeline.commit(source(), offset, metadata);
    pipeline.balances(&[]);
}
