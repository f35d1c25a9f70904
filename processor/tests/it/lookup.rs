//! Reference tables: files and topics that rows are joined with, against a naive join.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use arrow::array::{Int32Array, Int64Array, LargeStringArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use parquet::arrow::ArrowWriter;
use processor::{Options, ProcessorError};
use runtime::log::fault::{At, Fault, FaultLog};
use runtime::log::{Log, NewRecord, ProducerOptions, TopicSpec};
use schemas::value_subject;
use serde_json::json;

use crate::fixture::{Expected, Fixture, Trip, assert_same, naive, trips};
use crate::foreign::Away;

/// The table of vendors: under which number a vendor's trips are counted.
type Vendors = BTreeMap<i32, i32>;

const CSV: &str =
    "(vendor INT NOT NULL, as_vendor INT, name TEXT) WITH (path = 'vendors.csv', key = 'vendor')";
const PARQUET: &str = "WITH (path = 'vendors.parquet', key = 'vendor')";
const JSON: &str =
    "(vendor INT, as_vendor INT) WITH (topic = 'vendors', key = 'vendor', format = 'json')";
const AVRO: &str = "WITH (topic = 'vendors', key = 'vendor')";
const VENDOR: &str = r#"{"type": "record", "name": "Vendor", "fields": [
    {"name": "name", "type": ["null", "string"], "default": null},
    {"name": "vendor", "type": "int"},
    {"name": "as_vendor", "type": ["null", "int"], "default": null}
]}"#;

/// The job of the other tests, by the number that the table gives a vendor; −1 where it gives none.
fn job(table: &str, join: &str) -> String {
    format!(
        "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
         CREATE REFERENCE TABLE vendors {table};
         CREATE SINK per_minute WITH (topic = 'per_minute', key = 'window_start, vendor_id', emit = 'final');
         INSERT INTO per_minute
         SELECT window_start, window_end, coalesce(v.as_vendor, -1) AS vendor_id, count(*) AS trips,
                sum(passenger_count) AS passengers, avg(distance) AS mean_distance
         FROM TUMBLE(trips, pickup_at, INTERVAL '1 minute') AS t
         {join} vendors AS v ON t.vendor_id = v.vendor
         WHERE passenger_count > 0
         GROUP BY window_start, window_end, coalesce(v.as_vendor, -1);"
    )
}

/// The trips as the table names their vendors.
fn joined(trips: &[Trip], vendors: &Vendors) -> Vec<Trip> {
    let vendor = |trip: &Trip| vendors.get(&trip.vendor).copied().unwrap_or(-1);
    trips
        .iter()
        .map(|trip| Trip {
            vendor: vendor(trip),
            ..trip.clone()
        })
        .collect()
}

fn expected(parts: &[(&[Trip], &Vendors)]) -> Expected {
    let all: Vec<Trip> = parts
        .iter()
        .flat_map(|(trips, vendors)| joined(trips, vendors))
        .collect();
    naive(&all)
}

fn refusal(fixture: &Fixture, sql: &str) -> String {
    let refused = fixture.drain(Arc::clone(&fixture.log) as _, sql);
    let mut text = String::new();
    let error = refused.unwrap_err();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        text.push_str(&format!("{error}\n"));
        cause = error.source();
    }
    text
}

fn write_parquet(path: &Path, vendors: &[(Option<i64>, Option<i32>)]) {
    let schema = Arc::new(Schema::new(vec![
        Field::new("name", DataType::LargeUtf8, true),
        Field::new("as_vendor", DataType::Int32, true),
        Field::new("vendor", DataType::Int64, true),
    ]));
    let batch = RecordBatch::try_new(
        Arc::clone(&schema),
        vec![
            Arc::new(LargeStringArray::from(vec![Some("x"); vendors.len()])),
            Arc::new(vendors.iter().map(|(_, to)| *to).collect::<Int32Array>()),
            Arc::new(
                vendors
                    .iter()
                    .map(|(from, _)| *from)
                    .collect::<Int64Array>(),
            ),
        ],
    )
    .unwrap();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn rows_are_joined_with_those_of_a_csv_file_or_of_a_parquet_file() {
    let files = tempfile::tempdir().unwrap();
    std::fs::write(
        files.path().join("vendors.csv"),
        "\u{feff}name,vendor,unused,as_vendor\nfirst,0,,7\n\"second\nof all\",2,x,\n",
    )
    .unwrap();
    write_parquet(
        &files.path().join("vendors.parquet"),
        &[(Some(0), Some(7)), (Some(2), None), (Some(12), Some(9))],
    );
    let rows = trips(51, 400, 20_000);
    let known = Vendors::from([(0, 7)]);
    for table in [
        CSV,
        PARQUET,
        &format!("(vendor BIGINT, as_vendor INT) {PARQUET}"),
    ] {
        for join in ["LEFT JOIN", "JOIN"] {
            let what = format!("{join} {table}");
            let mut fixture = Fixture::new(2);
            fixture.folder = files.path().into();
            fixture.write(&rows);
            fixture
                .drain(Arc::clone(&fixture.log) as _, &job(table, join))
                .unwrap();
            // Without a match the inner join leaves vendor 1 out; vendor 2 has one, without a number.
            let matched: Vec<Trip> = rows
                .iter()
                .filter(|trip| join == "LEFT JOIN" || trip.vendor != 1)
                .cloned()
                .collect();
            assert_same(&fixture.results(), &expected(&[(&matched, &known)]), &what);
            let ledger = fixture.ledger();
            assert_eq!(ledger.rows_in, ledger.assigned + ledger.filtered, "{what}");
        }
    }
}

#[test]
fn everything_that_is_wrong_with_a_file_is_said_at_once() {
    let files = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(1);
    fixture.folder = files.path().into();
    let path = files.path().join("vendors.csv");
    let sql = job(CSV, "JOIN");
    let missing = refusal(&fixture, &sql);
    assert!(
        missing.contains("vendors.csv can't be read") && missing.contains("job file's folder"),
        "{missing}"
    );
    std::fs::write(&path, "vendor,name\n1,x\n").unwrap();
    assert!(
        refusal(&fixture, &sql).contains("vendors.csv, line 1: the header has no column as_vendor")
    );
    std::fs::write(
        &path,
        "vendor,as_vendor,name\n1,1,a\nx,2,b\n1,3,c\n,4,d\n5,y,e\n6\n7,7,\"two\nlines\"\n8,z,f\n",
    )
    .unwrap();
    let text = refusal(&fixture, &sql);
    for part in [
        "vendors.csv, line 3, column vendor: \"x\" is not of type INT",
        "vendors.csv, line 4, column vendor: the key is that of line 2 too",
        "vendors.csv, line 5, column vendor: there is no value, and the column is NOT NULL",
        "vendors.csv, line 6, column as_vendor: \"y\" is not of type INT",
        "vendors.csv, line 7: it has 1 fields, and the header has 3",
        "vendors.csv, line 10, column as_vendor: \"z\" is not of type INT",
        "\n  help: correct the value",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    // Each is said where the file is named.
    let line = sql
        .lines()
        .position(|line| line.contains("vendors.csv"))
        .unwrap()
        + 1;
    let column = sql
        .lines()
        .nth(line - 1)
        .unwrap()
        .find("'vendors.csv'")
        .unwrap()
        + 1;
    assert!(text.contains(&format!("{line}:{column}: ")), "{text}");

    let many: String = (0..300).map(|row| format!("{row},q,r\n")).collect();
    std::fs::write(&path, format!("vendor,as_vendor,name\n{many}")).unwrap();
    let text = refusal(&fixture, &sql);
    assert_eq!(text.matches("is not of type INT").count(), 20);
    assert!(text.contains("280 more problems"), "{text}");
    assert!(fixture.records("per_minute").is_empty());

    write_parquet(
        &files.path().join("vendors.parquet"),
        &[(Some(1), Some(1)), (None, Some(1)), (Some(1), None)],
    );
    let text = refusal(&fixture, &job(PARQUET, "JOIN"));
    for part in [
        "vendors.parquet, row 2, column vendor: the key is null",
        "vendors.parquet, row 3, column vendor: the key is that of row 1 too",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let declared = format!("(vendor INT, colour TEXT) {PARQUET}");
    let text = refusal(&fixture, &job(&declared, "JOIN"));
    for part in [
        "column vendor: it is of type BIGINT, and declared as INT",
        "there is no column colour",
        "there are: name, as_vendor, vendor",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

fn create_vendors(fixture: &Fixture, partitions: i32) {
    let topic = TopicSpec::new("vendors", partitions).with("cleanup.policy", "compact");
    fixture.log.create_topic(&topic).unwrap();
}

/// A record of the table's topic: its key and its value.
type Record<'a> = (&'a str, Option<Vec<u8>>);

fn as_json(vendor: i32, to: i32) -> Option<Vec<u8>> {
    Some(
        json!({"vendor": vendor, "as_vendor": to, "more": [1]})
            .to_string()
            .into_bytes(),
    )
}

/// Writes records in a transaction of its own.
fn write(fixture: &Fixture, records: &[Record<'_>]) {
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::transactional("vendors"))
        .unwrap();
    producer.init_transactions().unwrap();
    producer.begin().unwrap();
    for (key, value) in records {
        producer.send(record(key, value.as_deref())).unwrap();
    }
    producer.commit().unwrap();
}

fn record<'a>(key: &'a str, value: Option<&'a [u8]>) -> NewRecord<'a> {
    NewRecord {
        topic: "vendors",
        partition: None,
        key: Some(key.as_bytes()),
        value,
        headers: &[],
        timestamp_ms: None,
    }
}

/// A processor on a thread of its own.
struct Running {
    options: Options,
    thread: JoinHandle<Result<(), ProcessorError>>,
}

impl Running {
    fn start(options: Options) -> Self {
        let of_thread = options.clone();
        let thread = std::thread::spawn(move || processor::run(&of_thread));
        Self { options, thread }
    }

    fn until(&self, done: impl Fn(&Options) -> bool) {
        while !done(&self.options) {
            assert!(!self.thread.is_finished(), "the processor has ended");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn until_taken(&self, rows: usize) {
        self.until(|options| options.progress.totals().rows_in >= rows as u64);
    }

    fn until_read(&self, records: u64) {
        self.until(|options| table_records(options) >= records);
    }

    fn drain(self) {
        self.options.lifecycle.drain();
        self.thread.join().unwrap().unwrap();
    }
}

fn table_records(options: &Options) -> u64 {
    options
        .metrics
        .table_records
        .with_label_values(&["vendors"])
        .get()
}

#[test]
fn rows_find_what_the_topic_said_last_before_they_were_read() {
    let rows = trips(61, 900, 20_000);
    let parts: Vec<&[Trip]> = rows.chunks(300).collect();
    let fixture = Fixture::new(2);
    create_vendors(&fixture, 3);
    let first = [
        ("a", as_json(0, 10)),
        ("b", as_json(1, 11)),
        ("c", as_json(2, 12)),
    ];
    write(&fixture, &first);
    let running = Running::start(fixture.options(job(JSON, "LEFT JOIN")));
    fixture.write(parts[0]);
    running.until_taken(300);

    // One changes, one goes, and one that can't be read changes nothing.
    let bad: Vec<Record<'_>> = vec![
        ("a", as_json(0, 20)),
        ("b", None),
        ("c", Some(b"{\"vendor\": \"two\"}".to_vec())),
        ("c", Some(b"{\"as_vendor\": 5}".to_vec())),
    ];
    write(&fixture, &bad);
    running.until_read(7);
    fixture.write(parts[1]);
    running.until_taken(600);

    // Under the record's key that vendor 0 had comes vendor 1; a tombstone of a key that was never there.
    write(&fixture, &[("a", as_json(1, 31)), ("nobody", None)]);
    running.until_read(9);
    fixture.write(parts[2]);
    let metrics = Arc::clone(&running.options.metrics);
    running.drain();
    let (old, new, last) = (
        Vendors::from([(0, 10), (1, 11), (2, 12)]),
        Vendors::from([(0, 20), (2, 12)]),
        Vendors::from([(1, 31), (2, 12)]),
    );
    let expected = expected(&[(parts[0], &old), (parts[1], &new), (parts[2], &last)]);
    assert_same(&fixture.results(), &expected, "a table that changes");
    let of_table = ["vendors"];
    assert_eq!(metrics.table_unusable.with_label_values(&of_table).get(), 2);
    assert_eq!(metrics.table_rows.with_label_values(&of_table).get(), 2);
    assert_eq!(metrics.table_sessions.with_label_values(&of_table).get(), 0);
}

#[test]
fn nothing_is_scanned_before_the_table_was_read_to_the_end_that_it_had() {
    let rows = trips(71, 200, 5_000);
    let fixture = Fixture::new(1);
    create_vendors(&fixture, 1);
    write(&fixture, &[("a", as_json(0, 10))]);
    fixture.write(&rows);
    // A transaction that is open when the processor starts: its records are below the end.
    let mut open = fixture
        .log
        .producer(&ProducerOptions::transactional("open"))
        .unwrap();
    open.init_transactions().unwrap();
    open.begin().unwrap();
    let value = as_json(1, 11);
    open.send(record("b", value.as_deref())).unwrap();
    open.flush().unwrap();
    let running = Running::start(fixture.options(job(JSON, "LEFT JOIN")));
    running.until_read(1);
    assert_eq!(running.options.progress.totals().rows_in, 0);
    open.commit().unwrap();
    running.drain();
    let known = Vendors::from([(0, 10), (1, 11)]);
    assert_same(
        &fixture.results(),
        &expected(&[(&rows, &known)]),
        "an open transaction",
    );
}

fn write_avro(fixture: &Fixture, vendors: &Vendors) {
    use apache_avro::Schema;
    use apache_avro::types::Value;
    use apache_avro::writer::datum::GenericDatumWriter;
    let id = fixture
        .registry
        .register(&value_subject("vendors"), VENDOR)
        .unwrap();
    let schema = Schema::parse_str(VENDOR).unwrap();
    let values: Vec<(String, Option<Vec<u8>>)> = vendors
        .iter()
        .map(|(from, to)| {
            let value = Value::Record(vec![
                ("name".into(), Value::Union(0, Box::new(Value::Null))),
                ("vendor".into(), Value::Int(*from)),
                (
                    "as_vendor".into(),
                    Value::Union(1, Box::new(Value::Int(*to))),
                ),
            ]);
            let mut bytes = Vec::new();
            schemas::wire::frame(id, &mut bytes);
            let writer = GenericDatumWriter::builder(&schema).build().unwrap();
            bytes.extend(writer.write_value_to_vec(value).unwrap());
            (format!("key {from}"), Some(bytes))
        })
        .collect();
    let records: Vec<Record<'_>> = values
        .iter()
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect();
    write(fixture, &records);
}

#[test]
fn a_crash_at_a_commit_leaves_no_trace_where_the_table_stays_as_it_is() {
    let rows = trips(81, 160, 30_000);
    let known = Vendors::from([(0, 5), (2, 6)]);
    let prepared = || {
        let fixture = Fixture::new(2);
        create_vendors(&fixture, 2);
        write_avro(&fixture, &known);
        fixture.write(&rows);
        fixture
    };
    let sql = job(AVRO, "LEFT JOIN");
    let expected = expected(&[(&rows, &known)]);
    let fixture = prepared();
    let log = FaultLog::new(Arc::clone(&fixture.log) as Arc<dyn Log>);
    fixture.drain(Arc::clone(&log) as _, &sql).unwrap();
    assert_same(&fixture.results(), &expected, "no crash");
    let calls = log.trace();
    let commits = calls
        .iter()
        .filter(|call| **call == "producer.commit")
        .count() as u64;
    assert!(commits > 3, "{commits} commits");
    let mut crashes = 0;
    for nth in 0..commits {
        for fault in [Fault::CrashBefore, Fault::CrashAfter, Fault::UnknownButDone] {
            let what = format!("{fault:?} at commit {nth}");
            let fixture = prepared();
            let at = At::Call("producer.commit", nth);
            let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, at, fault);
            if fixture.drain(Arc::clone(&log) as _, &sql).is_err() {
                assert!(log.crashed(), "{what}");
                crashes += 1;
                fixture.forget_members();
                fixture.drain(Arc::clone(&fixture.log) as _, &sql).unwrap();
            }
            assert_same(&fixture.results(), &expected, &what);
        }
    }
    assert!(crashes > 0);
}

#[test]
fn a_registry_that_is_away_is_waited_for() {
    let rows = trips(82, 120, 5_000);
    let known = Vendors::from([(0, 5), (2, 6)]);
    let fixture = Fixture::new(1);
    create_vendors(&fixture, 1);
    write_avro(&fixture, &known);
    fixture.write(&rows);
    let registry = Arc::new(Away {
        registry: Arc::clone(&fixture.registry),
        away: AtomicBool::new(true),
        asked: AtomicU64::new(0),
    });
    let running = Running::start(Options {
        registry: Arc::clone(&registry) as _,
        ..fixture.options(job(AVRO, "LEFT JOIN"))
    });
    running.until(|_| registry.asked.load(Ordering::SeqCst) > 1);
    assert_eq!(running.options.progress.totals().rows_in, 0);
    registry.away.store(false, Ordering::SeqCst);
    let metrics = Arc::clone(&running.options.metrics);
    running.drain();
    assert_eq!(
        metrics.table_unusable.with_label_values(&["vendors"]).get(),
        0
    );
    assert_same(
        &fixture.results(),
        &expected(&[(&rows, &known)]),
        "a registry that was away",
    );
}

#[test]
fn a_broker_that_is_away_for_a_moment_is_waited_for() {
    let rows = trips(83, 60, 5_000);
    let known = Vendors::from([(0, 5), (2, 6)]);
    let sql = job(AVRO, "LEFT JOIN");
    let drained = |fault: Option<u64>| {
        let fixture = Fixture::new(1);
        create_vendors(&fixture, 2);
        write_avro(&fixture, &known);
        fixture.write(&rows);
        let log = Arc::clone(&fixture.log) as Arc<dyn Log>;
        let log = match fault {
            Some(step) => FaultLog::with_fault(log, At::Step(step), Fault::Unreachable),
            None => FaultLog::new(log),
        };
        fixture.drain(Arc::clone(&log) as _, &sql).unwrap();
        let what = format!("unreachable at step {fault:?}");
        assert_same(&fixture.results(), &expected(&[(&rows, &known)]), &what);
        log.trace().len() as u64
    };
    for step in 0..drained(None) {
        drained(Some(step));
    }
}

#[test]
fn a_topic_that_is_made_anew_is_read_anew_and_ends_no_run() {
    let rows = trips(91, 600, 20_000);
    let (before, after) = rows.split_at(300);
    let fixture = Fixture::new(2);
    create_vendors(&fixture, 1);
    write(&fixture, &[("a", as_json(0, 10)), ("b", as_json(1, 11))]);
    let running = Running::start(Options {
        clock: Arc::clone(&fixture.clock) as _,
        ..fixture.options(job(JSON, "LEFT JOIN"))
    });
    let advancing = |done: &dyn Fn(&Options) -> bool| {
        running.until(|options| {
            fixture.clock.advance(Duration::from_millis(20));
            done(options)
        });
    };
    fixture.write(before);
    advancing(&|options| options.progress.totals().rows_in >= 300);
    fixture.log.delete_topic("vendors").unwrap();
    create_vendors(&fixture, 2);
    write(
        &fixture,
        &[
            ("c", as_json(2, 12)),
            ("a", as_json(0, 20)),
            ("d", as_json(7, 7)),
        ],
    );
    // All of it takes the place of the old one, in which vendor 1 was.
    advancing(&|options| {
        options
            .metrics
            .table_rows
            .with_label_values(&["vendors"])
            .get()
            == 3
    });
    fixture.write(after);
    running.options.lifecycle.drain();
    let mut running = Some(running);
    while !running.as_ref().unwrap().thread.is_finished() {
        fixture.clock.advance(Duration::from_millis(20));
        std::thread::sleep(Duration::from_millis(2));
    }
    running.take().unwrap().drain();
    let (old, new) = (
        Vendors::from([(0, 10), (1, 11)]),
        Vendors::from([(0, 20), (2, 12), (7, 7)]),
    );
    assert_same(
        &fixture.results(),
        &expected(&[(before, &old), (after, &new)]),
        "made anew",
    );
}

#[test]
fn topics_that_cannot_be_a_table_are_refused() {
    let fixture = Fixture::new(1);
    let text = refusal(&fixture, &job(JSON, "JOIN"));
    assert!(
        text.contains("the topic vendors of the reference table vendors does not exist"),
        "{text}"
    );
    let text = refusal(&fixture, &job(AVRO, "JOIN"));
    assert!(
        text.contains("the columns of the topic vendors are not known"),
        "{text}"
    );
    fixture
        .log
        .create_topic(&TopicSpec::new("vendors", 1).with("retention.ms", "3600000"))
        .unwrap();
    let text = refusal(&fixture, &job(JSON, "JOIN"));
    assert!(
        text.contains("cleanup.policy is delete and must be compact")
            && text.contains("retention.ms"),
        "{text}"
    );
}

#[test]
fn a_table_whose_topic_is_refused_from_the_first_ends_the_run_and_says_why() {
    let fixture = Fixture::new(1);
    fixture.write(&trips(1, 50, 1_000));
    fixture
        .log
        .create_topic(&TopicSpec::new("vendors", 1).with("cleanup.policy", "compact"))
        .unwrap();
    // Nothing else has anything to read before.
    let first = At::Call("consumer.poll", 0);
    let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, first, Fault::NotAllowed);
    let error = fixture.drain(log, &job(JSON, "LEFT JOIN")).unwrap_err();
    let text = format!("{error}: {:?}", std::error::Error::source(&error));
    assert!(
        text.contains("the reference table vendors can't be read") && text.contains("NotAllowed"),
        "{text}"
    );
    let sql = job(JSON, "LEFT JOIN");
    fixture.drain(Arc::clone(&fixture.log) as _, &sql).unwrap();
}

#[test]
fn a_join_that_changes_is_refused_over_old_partials_and_a_file_that_changes_is_not() {
    let files = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::new(1);
    fixture.folder = files.path().into();
    let table = |to: i32| {
        let text = format!("vendor,as_vendor,name\n0,{to},x\n");
        std::fs::write(files.path().join("vendors.csv"), text).unwrap();
    };
    table(5);
    fixture.write(&trips(1, 50, 1_000));
    fixture.begin(&job(CSV, "LEFT JOIN"));
    let text = refusal(&fixture, &job(CSV, "JOIN"));
    assert!(
        text.contains("lookup: no longer left vendors")
            && text.contains("lookup: new is inner vendors")
            && text.contains("new application id"),
        "{text}"
    );
    table(6);
    fixture
        .drain(Arc::clone(&fixture.log) as _, &job(CSV, "LEFT JOIN"))
        .unwrap();
}
