//! From one application to the next, as a user does it: binaries, one after another, over one embedded log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

use crate::binaries::{Running, binary, configure};
use crate::oracle;
use crate::run::{assert_complete, generate, headway, ledger, text};

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

/// Runs a processor until it has taken this many rows, and stops it in order.
fn take(dir: &Path, arguments: &[&str], rows: u64) {
    take_until(dir, arguments, "headway_processor_records_in_total", rows);
}

/// The same, until a metric has come to this.
fn take_until(dir: &Path, arguments: &[&str], name: &str, least: u64) {
    let mut command = binary("processor", dir);
    command.args(arguments);
    let mut processor = Running::start(command);
    processor.until(name, least);
    processor.stop();
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

const SLOT_MS: i64 = 300_000;
const HOUR_MS: i64 = 3_600_000;

/// How many trips began in each window of this length, by its start and vendor.
fn by_start(trips: &[oracle::Trip], length_ms: i64) -> BTreeMap<(i64, i64), i64> {
    let mut counts = BTreeMap::new();
    for trip in trips {
        let start = trip.pickup_ms.div_euclid(length_ms) * length_ms;
        *counts.entry((start, i64::from(trip.vendor))).or_default() += 1;
    }
    counts
}

/// A job whose second query reads the results of its first, and how they become documents.
const CHAINED: &str = "
    CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '5 minutes');
    CREATE SINK slots WITH (topic = 'slots', key = 'slot, vendor_id');
    INSERT INTO slots SELECT window_start AS slot, vendor_id, count(*) AS trips
    FROM TUMBLE(trips, pickup_at, INTERVAL '5 minutes') GROUP BY window_start, vendor_id;
    CREATE SOURCE of_slots WITH (topic = 'slots', event_time = 'slot', out_of_orderness = INTERVAL '5 minutes');
    CREATE SINK hours WITH (topic = 'hours', key = 'window_start, vendor_id');
    INSERT INTO hours SELECT window_start, vendor_id, sum(trips) AS trips, count(*) AS slots
    FROM TUMBLE(of_slots, slot, INTERVAL '1 hour') GROUP BY window_start, vendor_id;";
const DOCUMENTS: &str = r#"
    [[topic]]
    topic = "slots"
    keys = ["slot", "vendor_id"]
    version = "version"
    time = "slot"

    [[topic]]
    topic = "hours"
    keys = ["window_start", "vendor_id"]
    version = "version"
    time = "window_start"
"#;

/// What the documents of a topic count, by the column of their time and vendor; panics if two have the same.
fn counted(dir: &Path, topic: &str, time: &str) -> BTreeMap<(i64, i64), i64> {
    let connection = rusqlite::Connection::open(dir.join("documents.sqlite")).unwrap();
    let mut statement = connection
        .prepare("SELECT body FROM documents WHERE index_name = ?1 OR index_name LIKE ?1 || '-%'")
        .unwrap();
    let bodies = statement.query_map([topic], |row| row.get::<_, String>(0));
    let mut counted = BTreeMap::new();
    for body in bodies.unwrap() {
        let body: Value = serde_json::from_str(&body.unwrap()).unwrap();
        let start = chrono::DateTime::parse_from_rfc3339(body[time].as_str().unwrap()).unwrap();
        let key = (
            start.timestamp_millis(),
            body["vendor_id"].as_i64().unwrap(),
        );
        let before = counted.insert(key, body["trips"].as_i64().unwrap());
        assert_eq!(before, None, "{key:?} twice");
    }
    counted
}

#[test]
fn queries_over_the_results_of_others_go_on_and_the_audit_balances() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path();
    let csv = generate(dir, 60_000, 24);
    let [first, second] = halves(&csv);
    for (name, text) in [("chained.sql", CHAINED), ("documents.toml", DOCUMENTS)] {
        std::fs::write(dir.join(name), text).unwrap();
    }
    produce(dir, &first);
    let read = oracle::read(&first).good;
    let of_slots = by_start(&read, SLOT_MS).len() as u64;
    let job = ["--job", "chained.sql"];
    let successor = [
        "--application-id",
        "taxi-2",
        "--takes-over",
        "taxi",
        "--set",
        "processor.shards=3",
    ];
    // A few of the slots are still open: so many results are not of the first query alone.
    take_until(
        dir,
        &job,
        "headway_processor_results_out_total",
        of_slots + 1,
    );
    take(dir, &[&job[..], &successor].concat(), read.len() as u64);
    // What is under way in the topic between the queries is the successor's to take.
    produce(dir, &second);
    let audit = |application: &str, arguments: &[&str]| {
        let mut audit = headway();
        configure(&mut audit, dir);
        audit
            .env("HEADWAY_PROCESSOR_JOB", dir.join("chained.sql"))
            .env("HEADWAY_PROCESSOR_APPLICATION_ID", application)
            .env(
                "HEADWAY_SINK_OPENSEARCH_DOCUMENTS",
                dir.join("documents.toml"),
            )
            .env("HEADWAY_SINK_OPENSEARCH_TOPICS", "slots,hours")
            .args(arguments)
            .output()
            .unwrap()
    };
    let mut cutover = binary("processor", dir);
    cutover
        .args(successor)
        .args(["cutover", "chained.sql", "--yes", "--even-if-behind"]);
    let output = done(cutover);
    let said = text(&output.stdout);
    assert!(
        said.contains("slots: taxi has given all windows up to"),
        "{said}"
    );
    assert!(
        said.contains("Done: taxi is handed over to taxi-2"),
        "{said}"
    );
    let mut new = binary("processor", dir);
    new.args(job)
        .args(&successor[..4])
        .args(["--set", "processor.shards=3", "--once"]);
    done(new);
    let mut sink = binary("sink-s3", dir);
    sink.arg("--once");
    done(sink);
    let mut sink = binary("sink-opensearch", dir);
    sink.arg("--once")
        .env(
            "HEADWAY_SINK_OPENSEARCH_DOCUMENTS",
            dir.join("documents.toml"),
        )
        .env("HEADWAY_SINK_OPENSEARCH_TOPICS", "slots,hours");
    done(sink);

    let all = oracle::read(&csv).good;
    let (slots, hours) = (by_start(&all, SLOT_MS), by_start(&all, HOUR_MS));
    assert_eq!(counted(dir, "slots", "slot"), slots);
    assert_eq!(counted(dir, "hours", "window_start"), hours);

    let balance = ledger(&audit("taxi-2", &["audit", "--json"]));
    assert_eq!(balance["balanced"], true, "{balance:#}");
    let number = |value: &Value| value.as_u64().unwrap();
    for (query, expected) in balance["queries"]
        .as_array()
        .unwrap()
        .iter()
        .zip([&slots, &hours])
    {
        let (before, own) = (
            number(&query["predecessor"]["results"]),
            number(&query["emitted"]),
        );
        assert!(before > 0 && own > 0, "{query:#}");
        assert_eq!(before + own, expected.len() as u64, "{query:#}");
        assert_eq!(query["late"], 0, "{query:#}");
    }
    assert_eq!(balance["queries"][1]["rows_in"], slots.len(), "{balance:#}");
    let shown = text(&audit("taxi-2", &["audit"]).stdout);
    assert!(
        shown.contains("hours: results of slots + those of taxi = taken + waiting"),
        "{shown}"
    );
    // Of what was handed over it is not known what came to the topic since.
    let old = audit("taxi", &["audit", "--json"]);
    let old: Value = serde_json::from_slice(&old.stdout).unwrap();
    assert_eq!(old["balanced"], true, "{old:#}");
}
