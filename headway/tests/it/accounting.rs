//! The audit of a job of several queries: that it balances, and that it sees what is planted.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use runtime::log::embedded::{EmbeddedLog, EmbeddedOptions};
use runtime::log::{ConsumerOptions, Event, Log, OffsetCommit, TopicPartition};
use rusqlite::Connection;
use serde_json::Value;

use crate::oracle;
use crate::run::{demo, generate, headway, ledger, text};

/// A query of each kind: windows and none, final results and changes.
const JOB: &str = "
CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '5 minutes');

CREATE SINK hourly  WITH (topic = 'hourly', key = 'window_start, vendor_id');
CREATE SINK sliding WITH (topic = 'sliding', key = 'window_start, vendor_id');
CREATE SINK live    WITH (topic = 'live', key = 'window_start, vendor_id', emit = 'changes');
CREATE SINK totals  WITH (topic = 'totals', key = 'vendor_id, passenger_count', emit = 'changes');

INSERT INTO hourly SELECT window_start, vendor_id, count(*) AS trips
FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') WHERE passenger_count > 1 GROUP BY window_start, vendor_id;

INSERT INTO sliding SELECT window_start, vendor_id, count(*) AS trips
FROM HOP(trips, pickup_at, INTERVAL '20 minutes', INTERVAL '1 hour') WHERE passenger_count > 1
GROUP BY window_start, vendor_id;

INSERT INTO live SELECT window_start, vendor_id, count(*) AS trips
FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') GROUP BY window_start, vendor_id;

INSERT INTO totals SELECT vendor_id, passenger_count, count(*) AS trips
FROM trips GROUP BY vendor_id, passenger_count;
";

/// How many hopping windows a row is in.
const OVER_A_ROW: u64 = 3;

fn write_job(folder: &Path, sql: &str) -> PathBuf {
    let path = folder.join("queries.sql");
    fs::write(&path, sql).unwrap();
    path
}

/// The audit of a folder: its exit code, and the ledger.
fn audit(dir: &Path) -> (Option<i32>, Value) {
    let output = headway()
        .args(["audit", "--json", "--dir"])
        .arg(dir)
        .output()
        .unwrap();
    let ledger = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", text(&output.stderr)));
    (output.status.code(), ledger)
}

/// What does not hold, each as `says: left = right`.
pub fn wrong(ledger: &Value) -> Vec<String> {
    let checks = ledger["checks"].as_array().unwrap().iter();
    checks
        .filter(|check| check["holds"] == false)
        .map(|check| {
            format!(
                "{}: {} {} {}",
                text_of(&check["says"]),
                check["left"],
                text_of(&check["relation"]),
                check["right"]
            )
        })
        .collect()
}

fn text_of(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// The audit finds exactly this, and exits with 1.
#[track_caller]
fn finds(dir: &Path, expected: &[String]) {
    let (code, ledger) = audit(dir);
    assert_eq!(wrong(&ledger), expected, "{ledger:#}");
    assert_eq!((code, &ledger["balanced"]), (Some(1), &Value::Bool(false)));
}

/// The sum of a topic's documents' counts, by vendor.
fn counted(dir: &Path, topic: &str) -> BTreeMap<i64, u64> {
    let connection = Connection::open(dir.join("documents.sqlite")).unwrap();
    let mut statement = connection
        .prepare("SELECT body FROM documents WHERE index_name = ?1 OR index_name GLOB ?1 || '-*'")
        .unwrap();
    let bodies = statement
        .query_map([topic], |row| row.get::<_, String>(0))
        .unwrap();
    let mut sums = BTreeMap::new();
    for body in bodies {
        let body: Value = serde_json::from_str(&body.unwrap()).unwrap();
        *sums.entry(body["vendor_id"].as_i64().unwrap()).or_default() +=
            body["trips"].as_u64().unwrap();
    }
    sums
}

#[test]
fn a_job_of_four_queries_balances_and_every_planted_fault_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let csv = generate(folder.path(), 20_000, 31);
    let job = write_job(folder.path(), JOB);
    let dir = folder.path().join("run");
    // Slow enough for several commits, so that there are changes before the final results.
    let output = demo(
        &csv,
        &dir,
        &["--rate", "15000", "--job", job.to_str().unwrap()],
    )
    .output()
    .unwrap();
    let found = ledger(&output);
    assert_eq!(found["unchecked"], serde_json::json!([]), "{found:#}");

    let rows = oracle::read(&csv);
    let mut all: BTreeMap<i64, u64> = BTreeMap::new();
    let mut shared: BTreeMap<i64, u64> = BTreeMap::new();
    let mut groups = std::collections::BTreeSet::new();
    for trip in &rows.good {
        let vendor = i64::from(trip.vendor);
        groups.insert((vendor, trip.passengers));
        *all.entry(vendor).or_default() += 1;
        if trip.passengers > 1 {
            *shared.entry(vendor).or_default() += 1;
        }
    }
    let good = rows.good.len() as u64;
    let kept: u64 = shared.values().sum();
    assert!(kept > 1000 && good > kept + 1000);
    let query = |place: usize| &found["queries"][place];
    let counts = |place: usize| {
        [
            "query", "taken", "kept", "filtered", "assigned", "merged", "late",
        ]
        .map(|name| query(place)[if name == "taken" { "rows_in" } else { name }].to_string())
    };
    let expected = |name: &str, kept: u64, pairs: u64| {
        let numbers = [good, kept, good - kept, pairs, pairs, 0].map(|number| number.to_string());
        std::iter::once(format!("\"{name}\""))
            .chain(numbers)
            .collect::<Vec<_>>()
    };
    assert_eq!(counts(0).to_vec(), expected("hourly", kept, kept));
    assert_eq!(
        counts(1).to_vec(),
        expected("sliding", kept, OVER_A_ROW * kept)
    );
    assert_eq!(counts(2).to_vec(), expected("live", good, good));
    assert_eq!(counts(3).to_vec(), expected("totals", good, good));
    assert_eq!(query(3)["groups"], groups.len());
    let number = |place: usize, name: &str| query(place)[name].as_u64().unwrap();
    assert!(
        number(2, "changes") > number(2, "emitted") / 10,
        "{found:#}"
    );
    assert_eq!((number(3, "emitted"), number(3, "closed")), (0, 0));

    assert_eq!(counted(&dir, "hourly"), shared);
    let over: BTreeMap<i64, u64> = shared
        .iter()
        .map(|(vendor, trips)| (*vendor, trips * OVER_A_ROW))
        .collect();
    assert_eq!(counted(&dir, "sliding"), over);
    assert_eq!(counted(&dir, "live"), all);
    assert_eq!(counted(&dir, "totals"), all);

    documents_that_are_gone_are_missed(&dir, &found);
    a_parquet_file_that_is_gone_is_missed(&dir, &found);
    partials_in_flight_are_pairs_and_a_dropped_one_is_missed(&dir);
    assert_eq!(audit(&dir).0, Some(0), "everything is as it was");
}

const CHAINED: &str = "
CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '5 minutes');
CREATE SINK hourly WITH (topic = 'hourly', key = 'hour, vendor_id');
INSERT INTO hourly SELECT window_start AS hour, vendor_id, count(*) AS trips
FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') GROUP BY window_start, vendor_id;

CREATE SOURCE hours WITH (topic = 'hourly', event_time = 'hour', out_of_orderness = INTERVAL '1 hour');
CREATE SINK daily WITH (topic = 'daily', key = 'window_start, vendor_id');
INSERT INTO daily SELECT window_start, vendor_id, sum(trips) AS trips
FROM TUMBLE(hours, hour, INTERVAL '1 day') GROUP BY window_start, vendor_id;

CREATE SINK shared WITH (topic = 'shared', key = 'id');
INSERT INTO shared SELECT id, vendor_id, 1 AS trips FROM trips WHERE passenger_count > 1;
";

#[test]
fn a_query_over_the_results_of_another_and_one_of_rows_balance_and_faults_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let csv = generate(folder.path(), 20_000, 47);
    let job = write_job(folder.path(), CHAINED);
    let dir = folder.path().join("run");
    let output = demo(&csv, &dir, &["--job", job.to_str().unwrap()])
        .output()
        .unwrap();
    let found = ledger(&output);
    let mut all: BTreeMap<i64, u64> = BTreeMap::new();
    let mut shared: BTreeMap<i64, u64> = BTreeMap::new();
    for trip in &oracle::read(&csv).good {
        let vendor = i64::from(trip.vendor);
        *all.entry(vendor).or_default() += 1;
        if trip.passengers > 1 {
            *shared.entry(vendor).or_default() += 1;
        }
    }
    assert_eq!(counted(&dir, "hourly"), all);
    assert_eq!(counted(&dir, "daily"), all);
    assert_eq!(counted(&dir, "shared"), shared);
    let number = |place: usize, name: &str| found["queries"][place][name].as_u64().unwrap();
    assert_eq!(number(1, "rows_in"), number(0, "emitted"));
    assert_eq!(number(1, "late"), 0);
    let kept: u64 = shared.values().sum();
    assert_eq!((number(2, "kept"), number(2, "emitted")), (kept, kept));

    let connection = Connection::open(dir.join("documents.sqlite")).unwrap();
    connection
        .execute_batch("DELETE FROM documents WHERE index_name GLOB 'daily*'")
        .unwrap();
    let days = number(1, "emitted");
    finds(
        &dir,
        &[format!(
            "daily: results = documents + dead + waiting: {days} = 0"
        )],
    );
}

fn documents_that_are_gone_are_missed(dir: &Path, found: &Value) {
    let connection = Connection::open(dir.join("documents.sqlite")).unwrap();
    let emitted = |place: usize| found["queries"][place]["emitted"].as_u64().unwrap();
    let groups = found["queries"][3]["groups"].as_u64().unwrap();
    for (topic, missed) in [
        (
            "hourly",
            format!(
                "hourly: results = documents + dead + waiting: {} = {}",
                emitted(0),
                emitted(0) - 1
            ),
        ),
        (
            "sliding",
            format!(
                "sliding: results = documents + dead + waiting: {} = {}",
                emitted(1),
                emitted(1) - 1
            ),
        ),
        (
            "live",
            format!(
                "live: final results = final documents: {} = {}",
                emitted(2),
                emitted(2) - 1
            ),
        ),
        (
            "totals",
            format!("totals: documents = groups: {} = {groups}", groups - 1),
        ),
    ] {
        let sql = "CREATE TEMP TABLE gone AS SELECT * FROM documents WHERE index_name GLOB ?1 || '*' LIMIT 1";
        connection.execute(sql, [topic]).unwrap();
        let deleted = connection
            .execute(
                "DELETE FROM documents WHERE (index_name, id) IN (SELECT index_name, id FROM gone)",
                [],
            )
            .unwrap();
        assert_eq!(deleted, 1, "{topic}");
        finds(dir, &[missed]);
        connection
            .execute_batch("INSERT INTO documents SELECT * FROM gone; DROP TABLE gone")
            .unwrap();
    }
    // A window's last result that was replaced by an earlier one is seen as well.
    let spoil = |from: &str, to: &str| {
        let sql = "UPDATE documents SET body = replace(body, ?1, ?2) WHERE (index_name, id) IN
            (SELECT index_name, id FROM documents WHERE index_name GLOB 'live*' AND instr(body, ?1) ORDER BY id LIMIT 1)";
        assert_eq!(connection.execute(sql, [from, to]).unwrap(), 1);
    };
    spoil("\"is_final\":true", "\"is_final\":false");
    finds(
        dir,
        &[format!(
            "live: final results = final documents: {} = {}",
            emitted(2),
            emitted(2) - 1
        )],
    );
    spoil("\"is_final\":false", "\"is_final\":true");
}

fn a_parquet_file_that_is_gone_is_missed(dir: &Path, found: &Value) {
    let mut folder = dir.join("lake/trips");
    let file = loop {
        let first = fs::read_dir(&folder)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        if first.is_file() {
            break first;
        }
        folder = first;
    };
    let aside = dir.join("aside");
    fs::rename(&file, &aside).unwrap();
    let (code, ledger) = audit(dir);
    assert_eq!(code, Some(1));
    let delivered = found["producer"]["delivered"].as_u64().unwrap();
    let rows = ledger["lake"]["rows_in_files"].as_u64().unwrap();
    assert!(rows < delivered);
    assert_eq!(
        wrong(&ledger),
        [format!(
            "delivered = rows in Parquet files + dead + waiting: {delivered} = {rows}"
        )]
    );
    fs::rename(&aside, &file).unwrap();
}

/// Sets the shards of a query back to their beginning, so that all its partials are in flight; then one is left out.
fn partials_in_flight_are_pairs_and_a_dropped_one_is_missed(dir: &Path) {
    let nothing_folded =
        r#"{"v":1,"s":{"merged":0,"late":0,"closed":0,"emitted":0,"duplicates":0,"ended":false}}"#;
    for (place, query) in ["hourly", "sliding", "live", "totals"]
        .into_iter()
        .enumerate()
    {
        let topic = format!("taxi.{query}.partials");
        let partitions = [0, 1].map(|shard| TopicPartition::new(topic.as_str(), shard));
        let log = || -> Arc<dyn Log> {
            EmbeddedLog::open(&dir.join("log"), EmbeddedOptions::default()).unwrap()
        };
        let commit = |log: &dyn Log, offsets: &[(i64, String)]| {
            let mut consumer = log.consumer(&ConsumerOptions::new("taxi")).unwrap();
            let commits: Vec<OffsetCommit> = partitions
                .iter()
                .zip(offsets)
                .map(|(partition, (offset, metadata))| OffsetCommit {
                    partition: partition.clone(),
                    offset: *offset,
                    metadata: metadata.clone(),
                })
                .collect();
            consumer.commit(&commits).unwrap();
            consumer.close(Duration::from_secs(1)).unwrap();
        };
        let opened = log();
        let before: Vec<(i64, String)> = opened
            .committed("taxi", &partitions)
            .unwrap()
            .into_iter()
            .map(|committed| committed.unwrap())
            .map(|committed| (committed.offset, committed.metadata))
            .collect();
        let with_rows = first_with_rows(opened.as_ref(), &partitions[0]);
        let none = |first: i64| [first, 0].map(|offset| (offset, nothing_folded.to_owned()));
        commit(opened.as_ref(), &none(0));
        drop(opened);

        let (_, ledger) = audit(dir);
        let part = &ledger["queries"][place];
        let assigned = part["assigned"].as_u64().unwrap();
        assert_eq!(part["in_flight"], assigned, "{query}");
        let equation = format!("{query}: assigned = merged + late + in flight");
        assert!(
            !wrong(&ledger)
                .iter()
                .any(|wrong| wrong.starts_with(&equation)),
            "{ledger:#}"
        );

        commit(log().as_ref(), &none(with_rows + 1));
        let (code, ledger) = audit(dir);
        let in_flight = ledger["queries"][place]["in_flight"].as_u64().unwrap();
        assert!(in_flight < assigned, "{query}");
        let missed = format!("{equation}: {assigned} = {in_flight}");
        assert!(wrong(&ledger).contains(&missed), "{missed}: {ledger:#}");
        assert_eq!(code, Some(1));
        commit(log().as_ref(), &before);
    }
}

/// The offset of the first partials record that is no mark.
fn first_with_rows(log: &dyn Log, partition: &TopicPartition) -> i64 {
    let mut consumer = log.consumer(&ConsumerOptions::new("look")).unwrap();
    consumer.assign(&[(partition.clone(), 0)]).unwrap();
    loop {
        if let Some(Event::Records(batch)) = consumer.poll(Duration::from_secs(1), 1).unwrap() {
            let with_rows = batch.iter().find(|record| record.value.is_some());
            if let Some(record) = with_rows {
                return record.offset;
            }
        }
    }
}
