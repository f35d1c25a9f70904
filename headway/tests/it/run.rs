//! Runs the binary, and reads what it left.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::Value;

use crate::oracle::{self, Rows};

/// What the demo masks with.
pub const SALT: &[u8] = b"headway-demo";

pub fn headway() -> Command {
    Command::new(env!("CARGO_BIN_EXE_headway"))
}

/// Another binary of the workspace, which `cargo test --workspace` builds beside this one.
pub fn binary(name: &str) -> Command {
    let path = Path::new(env!("CARGO_BIN_EXE_headway")).with_file_name(name);
    assert!(
        path.exists(),
        "{} is not built: cargo build --release --workspace",
        path.display()
    );
    Command::new(path)
}

/// `headway demo --csv FILE --once --json --dir DIR` and more.
pub fn demo(csv: &Path, dir: &Path, more: &[&str]) -> Command {
    let mut command = headway();
    command
        .arg("demo")
        .arg("--csv")
        .arg(csv)
        .args(["--once", "--json", "--dir"])
        .arg(dir)
        .args(more);
    command.stdin(Stdio::null());
    command
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The ledger that a run printed; panics if it did not end well.
#[track_caller]
pub fn ledger(output: &Output) -> Value {
    assert!(
        output.status.success(),
        "{}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The shipped statistics with another out-of-orderness, in a file.
pub fn job(folder: &Path, out_of_orderness: &str) -> PathBuf {
    with_out_of_orderness(folder, "taxi.sql", out_of_orderness)
}

/// The shipped analytics, likewise.
pub fn analytics(folder: &Path, out_of_orderness: &str) -> PathBuf {
    with_out_of_orderness(folder, "taxi_analytics.sql", out_of_orderness)
}

fn with_out_of_orderness(folder: &Path, name: &str, out_of_orderness: &str) -> PathBuf {
    let jobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../processor/jobs");
    let shipped = std::fs::read_to_string(jobs.join(name)).unwrap();
    let before = "out_of_orderness = INTERVAL '5 minutes'";
    assert!(shipped.contains(before));
    let path = folder.join("job.sql");
    std::fs::write(
        &path,
        shipped.replace(
            before,
            &format!("out_of_orderness = INTERVAL '{out_of_orderness}'"),
        ),
    )
    .unwrap();
    path
}

/// The files of HEADWAY_TRIPS_CSV; says so if there are none.
pub fn real_files(test: &str) -> Vec<PathBuf> {
    let files = std::env::var("HEADWAY_TRIPS_CSV").unwrap_or_default();
    let files: Vec<PathBuf> = files
        .split(':')
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
        .collect();
    if files.is_empty() {
        eprintln!(
            "SKIPPED {test}: set HEADWAY_TRIPS_CSV to files of real trips, separated by colons"
        );
    }
    files
}

/// A file without a header does not say what its columns are.
pub fn mapping(file: &Path) -> &'static [&'static str] {
    if std::fs::read(file).unwrap().starts_with(b"id,") {
        &[]
    } else {
        &["--mapping", "aws"]
    }
}

/// The documents by window start and vendor; panics if two are of one window and vendor.
pub fn documents(dir: &Path) -> BTreeMap<(i64, i32), Value> {
    let connection = rusqlite::Connection::open(dir.join("documents.sqlite")).unwrap();
    let mut statement = connection.prepare("SELECT body FROM documents").unwrap();
    let bodies = statement
        .query_map([], |row| row.get::<_, String>(0))
        .unwrap();
    let mut documents = BTreeMap::new();
    for body in bodies {
        let body: Value = serde_json::from_str(&body.unwrap()).unwrap();
        let start = body["window_start"].as_str().unwrap();
        let start = chrono::DateTime::parse_from_rfc3339(start)
            .unwrap()
            .timestamp_millis();
        let key = (start, body["vendor_id"].as_i64().unwrap() as i32);
        assert_eq!(documents.insert(key, body), None, "{key:?} twice");
    }
    documents
}

/// Every id in the lake, in order of file; an id that comes twice stands twice.
pub fn lake_ids(dir: &Path) -> Vec<String> {
    let mut ids = Vec::new();
    let mut folders = vec![dir.join("lake/trips")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "parquet")
            {
                let reader =
                    SerializedFileReader::new(std::fs::File::open(&path).unwrap()).unwrap();
                let rows = reader.get_row_iter(None).unwrap();
                ids.extend(rows.map(|row| row.unwrap().get_string(0).unwrap().clone()));
            }
        }
    }
    ids
}

/// Holds everything that a finished run left against the rows of its input.
#[track_caller]
pub fn assert_complete(dir: &Path, rows: &Rows, ledger: &Value, what: &str) {
    assert_eq!(ledger["balanced"], true, "{what}: {ledger:#}");
    let good = rows.good.len() as u64;
    assert_eq!(ledger["producer"]["read"], good + rows.bad, "{what}");
    assert_eq!(ledger["producer"]["delivered"], good, "{what}");
    assert_eq!(ledger["producer"]["rejected"], rows.bad, "{what}");
    let expected = oracle::statistics(&rows.good);
    assert_eq!(ledger["queries"][0]["late"], 0, "{what}");
    let differences = oracle::differences(&expected, &documents(dir), SALT);
    assert!(
        differences.is_empty(),
        "{what}: {} differences, such as {}",
        differences.len(),
        differences[0]
    );
    assert_lake(dir, rows, what);
}

#[track_caller]
pub fn assert_lake(dir: &Path, rows: &Rows, what: &str) {
    assert_ids(&lake_ids(dir), rows, what);
}

/// Every good row's id stands in the lake once.
#[track_caller]
pub fn assert_ids(ids: &[String], rows: &Rows, what: &str) {
    let distinct: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
    assert_eq!(
        ids.len(),
        distinct.len(),
        "{what}: ids come twice in the lake"
    );
    let wanted: BTreeSet<&str> = rows.good.iter().map(|trip| trip.id.as_str()).collect();
    assert!(
        distinct == wanted,
        "{what}: the lake has {} ids, the file has {}",
        distinct.len(),
        wanted.len()
    );
}

pub fn generate(folder: &Path, rows: u64, seed: u64) -> PathBuf {
    let path = folder.join(format!("generated-{seed}.csv"));
    let output = headway()
        .args([
            "generate",
            "--rows",
            &rows.to_string(),
            "--seed",
            &seed.to_string(),
            "--out",
        ])
        .arg(&path)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output.stderr));
    path
}
