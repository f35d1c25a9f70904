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
fn the_other_shipped_job_can_run() {
    let files = Files::new();
    files.write(
        "analytics.sql",
        include_str!("../../jobs/taxi_analytics.sql"),
    );
    let output = files.run(&["check", "analytics.sql", "--schema", TRIPS]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "analytics.sql: can run; 3 queries\n");
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
