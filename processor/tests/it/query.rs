//! SQL over a running processor's state: it says what a naive count over the same rows says, and only what is committed.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use processor::pages::pages;
use processor::progress::Progress;
use processor::query::recent::RecentBounds;
use processor::query::{Limits, page};
use processor::{Options, ProcessorError};
use runtime::log::fault::{At, Fault, FaultLog};
use runtime::telemetry::{HttpEdge, Readiness};
use serde_json::Value;

use crate::fixture::{Expected, Fixture, MINUTE_MS, Trip, job_sql, naive, trips};

const LIMITS: Limits = Limits {
    rows: 10_000,
    timeout: Duration::from_secs(60),
    memory_bytes: 64 << 20,
};

const ALL: &str =
    "SELECT window_start, vendor_id, trips, passengers, mean_distance, is_final FROM per_minute";

fn asked(progress: &Progress, limits: Limits, sql: &str) -> (u16, Value) {
    let asked = BTreeMap::from([("sql".to_owned(), sql.to_owned())]);
    let answer = page(progress, &limits, &asked);
    (answer.status, serde_json::from_str(&answer.body).unwrap())
}

fn ask(progress: &Progress, sql: &str) -> Value {
    let (status, answer) = asked(progress, LIMITS, sql);
    assert_eq!(status, 200, "{sql}: {answer}");
    answer
}

fn refused(progress: &Progress, sql: &str) -> String {
    let (status, answer) = asked(progress, LIMITS, sql);
    assert_eq!(status, 400, "{sql}: {answer}");
    answer["error"].as_str().unwrap().into()
}

fn rows(answer: &Value) -> &Vec<Value> {
    answer["rows"].as_array().unwrap()
}

/// A job that runs until it is told to stop.
struct Running {
    progress: Arc<Progress>,
    lifecycle: runtime::lifecycle::Lifecycle,
    thread: std::thread::JoinHandle<Result<(), ProcessorError>>,
}

impl Running {
    fn new(options: Options) -> Self {
        Self {
            progress: Arc::clone(&options.progress),
            lifecycle: options.lifecycle.clone(),
            thread: std::thread::spawn(move || processor::run(&options)),
        }
    }

    /// Asks until the answer is as wanted.
    fn until(&self, sql: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        for _ in 0..2_000 {
            let (status, answer) = asked(&self.progress, LIMITS, sql);
            if status == 200 && wanted(&answer) {
                return answer;
            }
            assert!(!self.thread.is_finished(), "the job ended: {answer}");
            last = answer;
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{sql} never came to what is wanted: {last}");
    }

    fn stop(self) {
        self.lifecycle.stop();
        self.thread.join().unwrap().unwrap();
    }
}

/// The rows of [`ALL`] by window and vendor, and which of them are final; panics if one comes twice.
fn figures(answer: &Value) -> (Expected, BTreeSet<(i64, i32)>) {
    let (mut found, mut finals) = (Expected::new(), BTreeSet::new());
    for row in rows(answer) {
        let key = (
            millis(row[0].as_str().unwrap()),
            row[1].as_i64().unwrap() as i32,
        );
        let trips = row[2].as_i64().unwrap();
        let figures = (
            trips,
            row[3].as_i64().unwrap(),
            row[4].as_f64().unwrap() * trips as f64,
        );
        assert_eq!(found.insert(key, figures), None, "{key:?} comes twice");
        if row[5].as_bool().unwrap() {
            finals.insert(key);
        }
    }
    (found, finals)
}

/// The milliseconds since 1970 of an instant of January 2016, or of the day before.
fn millis(text: &str) -> i64 {
    let number = |from: usize, to: usize| text[from..to].parse::<i64>().unwrap();
    let day = match &text[..8] {
        "2015-12-" => number(8, 10) - 32,
        "2016-01-" => number(8, 10) - 1,
        _ => panic!("{text}"),
    };
    assert!(text.ends_with('Z'), "{text}");
    let (hour, minute, second) = (number(11, 13), number(14, 16), number(17, 19));
    1_451_606_400_000
        + ((day * 24 + hour) * 60 + minute) * MINUTE_MS
        + second * 1_000
        + number(20, 23)
}

fn kept(rows: &[Trip]) -> i64 {
    rows.iter().filter(|trip| trip.passengers > 0).count() as i64
}

fn total(answer: &Value) -> i64 {
    rows(answer)
        .iter()
        .map(|row| row[2].as_i64().unwrap())
        .sum()
}

#[test]
fn open_and_closed_windows_say_what_a_naive_count_says_also_after_a_restart() {
    for seed in [1, 2] {
        let trips = trips(seed, 600, 30_000);
        let fixture = Fixture::new(2);
        fixture.write(&trips);
        let sql = job_sql("1 minute", "");
        let running = Running::new(fixture.options(sql.clone()));
        running.until(ALL, |answer| total(answer) == kept(&trips));
        // What closes no more than windows may be behind the last rows.
        while !fixture.folded() {
            std::thread::sleep(Duration::from_millis(2));
        }
        let answer = running.until(ALL, |answer| total(answer) == kept(&trips));
        let (found, finals) = figures(&answer);
        crate::fixture::assert_same(&found, &naive(&trips), &format!("seed {seed}"));
        // Final are those that went out, and no others.
        let written: BTreeSet<_> = fixture.results().into_keys().collect();
        assert!(!written.is_empty() && written.len() < found.len());
        assert_eq!(finals, written);
        let about = &answer["tables"]["per_minute"];
        assert_eq!(about["final_rows"], finals.len());
        assert_eq!(about["provisional_rows"], found.len() - finals.len());
        assert_eq!(about["shards_in_all"], 2);
        for shard in about["shards"].as_array().unwrap() {
            assert_eq!(
                (&shard["answered"], &shard["restoring"], &shard["ended"]),
                (&true.into(), &false.into(), &false.into()),
                "{about}"
            );
            // All windows up to the watermark are final, and none behind it.
            let watermark = shard["watermark_ms"].as_i64().unwrap();
            assert!(
                finals
                    .iter()
                    .all(|(start, _)| start + MINUTE_MS <= watermark)
            );
        }
        // SQL is SQL: the same by hand, from a join of the table with itself.
        let sums = ask(
            &running.progress,
            "SELECT a.vendor_id, sum(a.trips) FROM per_minute a JOIN per_minute b USING (window_start, vendor_id)
             WHERE a.shard = b.shard AND a.watermark IS NOT NULL GROUP BY 1 ORDER BY 1",
        );
        let mut by_vendor: BTreeMap<i32, i64> = BTreeMap::new();
        for ((_, vendor), (count, ..)) in naive(&trips) {
            *by_vendor.entry(vendor).or_default() += count;
        }
        let expected: Vec<Value> = by_vendor
            .into_iter()
            .map(|row| serde_json::json!(row))
            .collect();
        assert_eq!(rows(&sums), &expected);
        running.stop();

        // What is open is restored from the log; the last results were the other process's.
        let open: BTreeSet<_> = found.keys().filter(|key| !finals.contains(key)).collect();
        let running = Running::new(fixture.options(sql));
        // Until it is restored, less is shown, or what has been closed since.
        let restored = |answer: &Value| {
            let shards = answer["tables"]["per_minute"]["shards"].as_array().unwrap();
            let whole = |shard: &Value| shard["answered"] == true && shard["restoring"] == false;
            shards.len() == 2 && shards.iter().all(whole)
        };
        let answer = running.until(ALL, restored);
        let (again, finals) = figures(&answer);
        assert_eq!(again.keys().collect::<BTreeSet<_>>(), open);
        assert!(finals.is_empty());
        for (key, figures) in again {
            assert_eq!(figures, found[&key]);
        }
        running.stop();
    }
}

#[test]
fn what_is_shown_is_committed_and_in_one_piece_while_rows_come_and_transactions_are_refused() {
    let trips = trips(7, 1_500, 30_000);
    let fixture = Fixture::new(2);
    let sql = job_sql("1 minute", "");
    let refusals = (3..400)
        .step_by(3)
        .map(|nth| (At::Call("producer.commit", nth), Fault::MustAbort))
        .collect();
    let log = FaultLog::with_plan(Arc::clone(&fixture.log) as _, refusals);
    let running = Running::new(fixture.options_over(log as _, sql));
    let committed = || fixture.ledger().merged as i64;
    let mut last = 0;
    let mut seen = BTreeSet::new();
    for part in trips.chunks(100) {
        fixture.write(part);
        // Several times, and until some of it is seen.
        let (mut times, so_far) = (0, last);
        while times < 6 || last == so_far {
            times += 1;
            assert!(!running.thread.is_finished(), "the job ended");
            let before = if running.progress.shards_here().len() == 2 {
                committed()
            } else {
                0
            };
            let (status, answer) = asked(&running.progress, LIMITS, ALL);
            if status == 503 {
                continue;
            }
            let (found, _) = figures(&answer);
            let shown: i64 = found.values().map(|figures| figures.0).sum();
            let after = committed();
            assert!(
                before <= shown && shown <= after,
                "{before} <= {shown} <= {after}"
            );
            assert!(last <= shown);
            last = shown;
            seen.insert(shown);
        }
    }
    let answer = running.until(ALL, |answer| total(answer) == kept(&trips));
    crate::fixture::assert_same(&figures(&answer).0, &naive(&trips), "at the end");
    assert!(
        seen.len() > 5,
        "the state was never caught under way: {seen:?}"
    );
    running.stop();
}

/// The last version of each key of a topic whose values are the query's columns.
fn latest(fixture: &Fixture, topic: &str) -> BTreeMap<Vec<u8>, i64> {
    let (_, text) = fixture
        .registry
        .latest(&schemas::value_subject(topic))
        .unwrap()
        .unwrap();
    let schema = apache_avro::Schema::parse_str(&text).unwrap();
    let mut versions = BTreeMap::new();
    for (key, value) in fixture.records(topic) {
        let (_, body) = schemas::wire::unframe(&value).unwrap();
        let apache_avro::types::Value::Record(fields) =
            apache_avro::reader::datum::GenericDatumReader::builder(&schema)
                .build()
                .unwrap()
                .read_value(&mut &body[..])
                .unwrap()
        else {
            panic!()
        };
        let version = fields.iter().find(|(name, _)| name == "version").unwrap();
        let apache_avro::types::Value::Long(version) = version.1 else {
            panic!("{version:?}")
        };
        let last = versions.entry(key).or_insert(version);
        *last = version.max(*last);
    }
    versions
}

#[test]
fn groups_sessions_and_hopping_windows_are_as_their_changes_say() {
    let trips = trips(9, 500, 20_000);
    let fixture = Fixture::new(2);
    fixture.write(&trips);
    let sql = "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
         CREATE SINK per_vendor WITH (topic = 'per_vendor', key = 'vendor_id', emit = 'changes');
         CREATE SINK sliding WITH (topic = 'sliding', key = 'window_start, vendor_id', emit = 'changes');
         CREATE SINK visits WITH (topic = 'visits', key = 'window_start, vendor_id');
         CREATE SINK far WITH (topic = 'far', key = 'id');
         INSERT INTO per_vendor SELECT vendor_id, count(*) AS trips FROM trips GROUP BY vendor_id;
         INSERT INTO sliding SELECT window_start, vendor_id, count(*) AS trips
             FROM HOP(trips, pickup_at, INTERVAL '1 minute', INTERVAL '3 minutes') GROUP BY window_start, vendor_id;
         INSERT INTO visits SELECT window_start, window_end, vendor_id, count(*) AS trips
             FROM SESSION(trips, pickup_at, INTERVAL '9 seconds') GROUP BY window_start, window_end, vendor_id;
         INSERT INTO far SELECT id, pickup_at, distance FROM trips WHERE distance > 10.0;";
    let running = Running::new(fixture.options(sql.into()));
    let all = trips.len() as i64;
    let total = |sql: &str, wanted: i64| {
        running.until(sql, |answer| rows(answer)[0][0] == wanted);
    };
    total("SELECT sum(trips) FROM per_vendor", all);
    // Each row is in three windows, less those of the first windows, which no row is before.
    total("SELECT sum(trips) FROM sliding", 3 * all);
    total("SELECT sum(trips) FROM visits", all);
    let far = trips.iter().filter(|trip| trip.distance > 10.0).count();
    total(
        "SELECT count(*) FROM far WHERE is_final AND shard IS NULL",
        far as i64,
    );

    let versions = |sql: &str| -> BTreeMap<Vec<u8>, i64> {
        rows(&ask(&running.progress, sql))
            .iter()
            .map(|row| {
                let mut key = match row[0].as_str() {
                    Some(instant) => format!("{}|", millis(instant)),
                    None => String::new(),
                };
                key += &row[1].to_string();
                (key.into_bytes(), row[2].as_i64().unwrap())
            })
            .collect()
    };
    assert_eq!(
        versions("SELECT NULL, vendor_id, version FROM per_vendor"),
        latest(&fixture, "per_vendor")
    );
    assert_eq!(
        versions("SELECT window_start, vendor_id, version FROM sliding"),
        latest(&fixture, "sliding")
    );
    let mut sessions: BTreeSet<(i64, i64, i64)> = BTreeSet::new();
    for vendor in 0..3 {
        let mut times: Vec<i64> = trips
            .iter()
            .filter(|trip| trip.vendor == vendor)
            .map(|trip| trip.pickup_ms)
            .collect();
        times.sort_unstable();
        sessions.extend(times.chunk_by(|a, b| b - a < 9_000).map(|session| {
            (
                session[0],
                session[session.len() - 1] + 9_000,
                session.len() as i64,
            )
        }));
    }
    let found: BTreeSet<(i64, i64, i64)> = rows(&ask(
        &running.progress,
        "SELECT window_start, window_end, trips FROM visits",
    ))
    .iter()
    .map(|row| {
        let at = |place: usize| millis(row[place].as_str().unwrap());
        (at(0), at(1), row[2].as_i64().unwrap())
    })
    .collect();
    assert_eq!(found, sessions);
    running.stop();
}

#[test]
fn bounds_are_kept_and_said() {
    let trips = trips(3, 2_000, 30_000);
    let fixture = Fixture::new(1);
    fixture.write(&trips);
    let mut options = fixture.options(job_sql("1 minute", ""));
    options.worker.recent = RecentBounds {
        rows: 7,
        bytes: usize::MAX,
    };
    let running = Running::new(options);
    let open = "SELECT count(*) FROM per_minute WHERE NOT is_final";
    let written = || fixture.results().len();
    // Everything but the last two minutes is closed.
    let closed = naive(&trips)
        .keys()
        .filter(|(start, _)| {
            start + 2 * MINUTE_MS <= trips.iter().map(|trip| trip.pickup_ms).max().unwrap()
        })
        .count();
    running.until(open, |_| written() == closed);
    let answer = ask(
        &running.progress,
        "SELECT count(*) FROM per_minute WHERE is_final",
    );
    assert_eq!(rows(&answer)[0][0], 7);
    let about = &answer["tables"]["per_minute"];
    assert_eq!(
        (&about["final_cut_off"], &about["state_cut_off"]),
        (&true.into(), &false.into())
    );
    assert_eq!(answer["rows_cut_off"], false);

    let few = Limits { rows: 3, ..LIMITS };
    let (status, answer) = asked(&running.progress, few, ALL);
    assert_eq!((status, rows(&answer).len()), (200, 3));
    assert_eq!(answer["rows_cut_off"], true);

    let small = Limits {
        memory_bytes: 1_000,
        ..LIMITS
    };
    let (status, answer) = asked(&running.progress, small, "SELECT count(*) FROM per_minute");
    assert_eq!(status, 200);
    let about = &answer["tables"]["per_minute"];
    assert_eq!(about["state_cut_off"], true, "{about}");

    let short = Limits {
        timeout: Duration::from_millis(300),
        ..LIMITS
    };
    let endless =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    let (status, answer) = asked(&running.progress, short, endless);
    assert_eq!(status, 503);
    assert!(
        answer["error"]
            .as_str()
            .unwrap()
            .contains("query_timeout_ms"),
        "{answer}"
    );
    let (status, answer) = asked(&running.progress, small, "SELECT hex(zeroblob(3000000))");
    assert_eq!((status, &answer["rows_cut_off"]), (200, &true.into()));
    let (status, answer) = asked(&running.progress, LIMITS, "SELECT hex(zeroblob(30000000))");
    assert_eq!(status, 400, "{answer}");
    running.stop();
}

#[test]
fn only_reading_is_allowed_and_mistakes_are_named() {
    let fixture = Fixture::new(1);
    let trips = trips(3, 50, 30_000);
    fixture.write(&trips);
    let progress = Arc::new(Progress::default());
    let (status, answer) = asked(&progress, LIMITS, "SELECT 1");
    assert_eq!(
        (status, &answer["error"]),
        (
            503,
            &"the job is being loaded: there is no state yet".into()
        )
    );
    let mut options = fixture.options(job_sql("1 minute", ""));
    options.progress = progress;
    let running = Running::new(options);
    running.until(ALL, |answer| total(answer) == kept(&trips));
    for write in [
        "INSERT INTO per_minute (trips) VALUES (1)",
        "UPDATE per_minute SET trips = 0",
        "DELETE FROM per_minute",
        "DROP TABLE per_minute",
        "CREATE TABLE t (a)",
        "CREATE TEMP TABLE t (a)",
        "CREATE VIEW v AS SELECT 1",
        "ATTACH DATABASE '/tmp/headway-never' AS x",
        "VACUUM INTO '/tmp/headway-never'",
        "PRAGMA max_page_count = 1000000",
        "SELECT * FROM pragma_database_list",
        "BEGIN",
        "SAVEPOINT a",
        "SELECT load_extension('x')",
    ] {
        let error = refused(&running.progress, write);
        assert!(
            error.contains("only SELECT can be asked") || error.contains("not authorized"),
            "{write}: {error}"
        );
    }
    assert!(!std::path::Path::new("/tmp/headway-never").exists());
    assert_eq!(
        refused(&running.progress, "SELECT 1; SELECT 2"),
        "it has more than one statement"
    );
    assert_eq!(
        refused(&running.progress, " -- nothing"),
        "there is no statement in it"
    );
    assert_eq!(
        refused(&running.progress, "SELECT ?"),
        "it has a parameter, for which there is no value"
    );
    assert_eq!(
        refused(&running.progress, "SELECT *\nFORM per_minute"),
        "near \"FORM\": syntax error (line 2, column 1)"
    );
    assert_eq!(
        refused(&running.progress, "SELECT vendor FROM per_minute"),
        "no such column: vendor (line 1, column 8)"
    );
    assert!(refused(&running.progress, "SELECT * FROM trips").contains("no such table: trips"));
    running.stop();
}

#[test]
fn the_page_lists_tables_with_an_example_that_works() {
    let fixture = Fixture::new(1);
    let trips = trips(4, 80, 30_000);
    fixture.write(&trips);
    let running = Running::new(fixture.options(job_sql("1 minute", "")));
    running.until(ALL, |answer| total(answer) == kept(&trips));
    let edge = HttpEdge::start(
        "127.0.0.1:0",
        prometheus::Registry::new(),
        Readiness::new(),
        pages(&running.progress, Some(LIMITS)),
    )
    .unwrap();
    let get = |path: &str| -> (String, Value) {
        let mut stream = TcpStream::connect(edge.address()).unwrap();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (
            head[9..12].into(),
            serde_json::from_str(body).unwrap_or_else(|_| panic!("{body}")),
        )
    };
    let (status, listed) = get("/query");
    assert_eq!(status, "200");
    assert_eq!(listed["tables"][0]["table"], "per_minute");
    let columns: Vec<String> = listed["tables"][0]["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| {
            format!(
                "{} {}",
                column["name"].as_str().unwrap(),
                column["type"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        columns,
        [
            "window_start TIMESTAMP",
            "window_end TIMESTAMP",
            "vendor_id INT",
            "trips BIGINT",
            "passengers BIGINT",
            "mean_distance DOUBLE",
            "version BIGINT",
            "is_final BOOLEAN",
            "shard INT",
            "watermark TIMESTAMP"
        ]
    );
    let (status, answer) = get(listed["example_url"].as_str().unwrap());
    assert_eq!(status, "200", "{answer}");
    let names: Vec<&str> = answer["columns"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap())
        .collect();
    assert_eq!(
        names.join(" "),
        columns
            .iter()
            .map(|column| column.split(' ').next().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    );
    assert!(!rows(&answer).is_empty());
    let (status, answer) = get("/query?sql=SELEC%20x");
    assert_eq!(
        (status.as_str(), &answer["error"]),
        (
            "400",
            &"near \"SELEC\": syntax error (line 1, column 1)".into()
        )
    );
    // Without limits there is nothing to ask.
    let closed = HttpEdge::start(
        "127.0.0.1:0",
        prometheus::Registry::new(),
        Readiness::new(),
        pages(&running.progress, None),
    )
    .unwrap();
    let mut stream = TcpStream::connect(closed.address()).unwrap();
    write!(
        stream,
        "GET /query HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 404"), "{answer}");
    running.stop();
}
