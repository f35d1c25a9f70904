//! `processor check` and `processor explain`: the binary, without a server.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const TAXI: &str = include_str!("../../jobs/taxi.sql");

struct Files(tempfile::TempDir);

impl Files {
    fn new() -> Self {
        let files = Self(tempfile::tempdir().unwrap());
        files.write("taxi.sql", TAXI);
        files.write("trip.avsc", schemas::shipped::TAXI_TRIP);
        files
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_processor"))
            .args(args)
            .current_dir(self.0.path())
            .env_clear()
            .output()
            .unwrap()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

const TRIPS: &str = "trips=trip.avsc";

#[test]
fn the_shipped_job_can_run_and_says_which_secret_is_missing() {
    let files = Files::new();
    let output = files.run(&["check", "taxi.sql", "--schema", TRIPS]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "taxi.sql: can run; 1 query\n");
    assert!(
        stderr(&output).contains("warning: mask_coordinate needs a secret salt"),
        "{}",
        stderr(&output)
    );
    files.write("salted.toml", "[processor]\nmask_salt = \"x\"\n");
    let with_salt = [
        "check",
        "taxi.sql",
        "--schema",
        TRIPS,
        "--config",
        "salted.toml",
    ];
    assert_eq!(stderr(&files.run(&with_salt)), "");
}

#[test]
fn every_error_is_printed_with_file_line_and_column_and_what_to_write() {
    let files = Files::new();
    let sql = TAXI
        .replace("sum(passenger_count)", "sum(passengers)")
        .replace("AND dropoff_latitude <> 0", "AND dropof_latitude <> 0");
    files.write("wrong.sql", &sql);
    let output = files.run(&["check", "wrong.sql", "--schema", TRIPS]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(stdout(&output), "");
    let text = stderr(&output);
    for (word, instead) in [
        ("passengers", "passenger_count"),
        ("dropof_latitude", "dropoff_latitude"),
    ] {
        let (line, column) = sql
            .lines()
            .zip(1..)
            .find_map(|(text, line)| Some((line, text.find(word)? + 1)))
            .unwrap();
        assert!(
            text.contains(&format!("there is no column {word}\n")),
            "{text}"
        );
        assert!(
            text.contains(&format!("--> wrong.sql:{line}:{column}\n")),
            "{text}"
        );
        assert!(text.contains(&"^".repeat(word.len())), "{text}");
        assert!(
            text.lines()
                .any(|line| line.contains("= help:") && line.contains(instead)),
            "{text}"
        );
    }
    assert!(text.ends_with("wrong.sql: can't run; 2 errors\n"), "{text}");
    assert!(!text.contains('\x1b'), "no colour into a pipe: {text}");
}

#[test]
fn a_source_without_a_schema_and_a_sink_that_does_not_fit_are_refused() {
    let files = Files::new();
    let output = files.run(&["check", "taxi.sql", "--schema", "others=trip.avsc"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("the columns of the topic trips are not known"),
        "{}",
        stderr(&output)
    );
    let sink = ["--schema", "trip_statistics=trip.avsc"];
    let output = files.run(&[["check", "taxi.sql", "--schema", TRIPS].as_slice(), &sink].concat());
    assert_eq!(output.status.code(), Some(1));
    assert!(
        stderr(&output).contains("do not fit"),
        "{}",
        stderr(&output)
    );
    let schema = files.write(
        "enum.avsc",
        r#"{"type": "enum", "name": "E", "symbols": ["A"]}"#,
    );
    let named = format!("trips={}", schema.display());
    let output = files.run(&["check", "taxi.sql", "--schema", &named]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        stderr(&output).matches("are not known").count(),
        1,
        "{}",
        stderr(&output)
    );
}

#[test]
fn files_that_are_not_there_are_a_usage_error() {
    let files = Files::new();
    for args in [
        &["check", "nothing.sql", "--schema", TRIPS] as &[&str],
        &["check", "taxi.sql", "--schema", "trips=nothing.avsc"],
        &["check", "taxi.sql", "--schema", "trips"],
        &["explain", "nothing.sql", "--schema", TRIPS],
    ] {
        let output = files.run(args);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{args:?}: {}",
            stderr(&output)
        );
        assert!(
            stderr(&output).starts_with("error: "),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn the_other_shipped_jobs_can_run() {
    let files = Files::new();
    files.write(
        "analytics.sql",
        include_str!("../../jobs/taxi_analytics.sql"),
    );
    let output = files.run(&["check", "analytics.sql", "--schema", TRIPS]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "analytics.sql: can run; 3 queries\n");
    files.write("zones.sql", include_str!("../../jobs/taxi_zones.sql"));
    files.write("zones.csv", "cell,zone,borough\n892a1072b5bffff,Midtown,\n");
    let output = files.run(&["check", "zones.sql", "--schema", TRIPS]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "zones.sql: can run; 2 queries\n");
}

#[test]
fn explain_names_fragments_topics_state_and_time() {
    let files = Files::new();
    let args = ["explain", "taxi.sql", "--schema", TRIPS];
    let output = files.run(&args);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = stdout(&output);
    for part in [
        "query trip_statistics",
        "tumbling, 1 hour",
        "pickup_longitude <> 0 AND",
        "count(*)",
        "avg(trip_duration)",
        "partials",
        "vendor_id",
        "trips.dlq",
        "out_of_orderness 5 minutes",
        "idle_timeout     30 seconds",
        "2 at a time",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    let output = files.run(&[args.as_slice(), &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let query = &json["queries"][0];
    assert_eq!(query["query"], "trip_statistics");
    assert_eq!(query["state"]["open_windows"], 2);
    assert_eq!(query["time"]["idle_timeout_ms"], 30_000);
    assert_eq!(query["scan"]["aggregates"][0], "count(*)");
    assert_eq!(query["topics"][1]["role"], "partials");
    assert!(query["topics"][1]["partitions"].as_i64().unwrap() > 0);
    assert_eq!(query["topics"][0]["partitions"], serde_json::Value::Null);
    assert!(Path::new(env!("CARGO_BIN_EXE_processor")).exists());
}

const JOINED: &str = "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at');
CREATE REFERENCE TABLE zones (cell TEXT NOT NULL, zone TEXT, borough TEXT) WITH (path = 'zones.csv', key = 'cell');
CREATE REFERENCE TABLE vendors WITH (topic = 'vendors', key = 'vendor_id');
CREATE SINK out WITH (topic = 'out', key = 'window_start, borough');
INSERT INTO out
SELECT window_start, z.borough AS borough, count(*) AS trips, max(v.name) AS vendor
FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') AS t
LEFT JOIN zones AS z ON z.cell = h3_cell(t.dropoff_latitude, t.dropoff_longitude, 8)
JOIN vendors AS v ON v.vendor_id = t.vendor_id
GROUP BY window_start, z.borough;
";

#[test]
fn reference_tables_are_checked_and_explained_without_servers() {
    let files = Files::new();
    std::fs::create_dir(files.0.path().join("jobs")).unwrap();
    files.write("jobs/joined.sql", JOINED);
    files.write("jobs/zones.csv", "cell,zone,borough\n88,East,Queens\n");
    files.write(
        "vendor.avsc",
        r#"{"type": "record", "name": "Vendor", "fields": [{"name": "vendor_id", "type": "int"}, {"name": "name", "type": "string"}]}"#,
    );
    let of_vendors = "vendors=vendor.avsc";
    let args = ["jobs/joined.sql", "--schema", TRIPS, "--schema", of_vendors];
    let output = files.run(&[["check"].as_slice(), &args].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));

    let output = files.run(&[["explain"].as_slice(), &args].concat());
    let text = stdout(&output);
    for part in [
        "reference table  vendors, key: of its row; values in Avro",
        "lookup           zones as z on z.cell = h3_cell(t.dropoff_latitude, t.dropoff_longitude, 8): its columns are null without a match",
        "zones.csv, read at the start; key: cell; reads: borough",
        "lookup           vendors as v on v.vendor_id = t.vendor_id: rows without a match are left out",
        "topic vendors, live: read to its end before the first row, then followed; key: vendor_id; reads: name",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    assert!(text.find("lookup").unwrap() < text.find("aggregate").unwrap());
    let output = files.run(&[["explain", "--json"].as_slice(), &args].concat());
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let lookups = &json["queries"][0]["scan"]["lookups"];
    assert_eq!(lookups[0]["live"], false);
    assert_eq!(lookups[1]["table"], "vendors");
    assert_eq!(lookups[1]["join"], "inner");

    let output = files.run(&["check", "jobs/joined.sql", "--schema", TRIPS]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(
        text.contains("the columns of the topic vendors are not known")
            && text.contains("--> jobs/joined.sql:3:46"),
        "{text}"
    );

    files.write(
        "jobs/zones.csv",
        "cell,zone,borough\n88,East,Queens\n88,West,Kings\n",
    );
    let output = files.run(&[["check"].as_slice(), &args].concat());
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    for part in [
        "jobs/zones.csv, line 3, column cell: the key is that of line 2 too",
        "--> jobs/joined.sql:2:",
        "keep one of them",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
}

#[test]
fn the_log_s_time_can_be_event_time_and_explain_says_so() {
    let files = Files::new();
    files.write("bids.sql", include_str!("../nexmark/q12.sql"));
    files.write("bid.avsc", include_str!("../nexmark/bid.avsc"));
    let schema = ["--schema", "bids=bid.avsc"];
    let output = files.run(&[["check", "bids.sql"].as_slice(), &schema].concat());
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let args = [["explain", "bids.sql"].as_slice(), &schema].concat();
    let text = stdout(&files.run(&args));
    assert!(
        text.contains("event time       record_time, the log's"),
        "{text}"
    );
    assert!(text.contains("record_time TIMESTAMP"), "{text}");
    let output = files.run(&[args.as_slice(), &["--json"]].concat());
    let json: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(json["queries"][0]["time"]["of_the_log"], true);
}
