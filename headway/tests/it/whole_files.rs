//! Whole files, each as a run of its own.

use crate::oracle;
use crate::run::{assert_complete, assert_lake, demo, generate, job, ledger, mapping, real_files};

#[test]
fn real_trips_come_to_what_a_batch_comes_to() {
    for file in real_files("real_trips_come_to_what_a_batch_comes_to") {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        // Enough for a file that is shuffled over half a year.
        let job = job(folder.path(), "190 days");
        let output = demo(&file, &dir, &["--job", job.to_str().unwrap()])
            .args(mapping(&file))
            .output()
            .unwrap();
        assert_complete(
            &dir,
            &oracle::read(&file),
            &ledger(&output),
            &file.display().to_string(),
        );
    }
}

#[test]
fn real_trips_with_little_patience_are_counted_or_late() {
    for file in real_files("real_trips_with_little_patience_are_counted_or_late") {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        let job = job(folder.path(), "1 hour");
        // Lateness is decided range by range: at full speed so small a file is one range.
        let output = demo(
            &file,
            &dir,
            &["--job", job.to_str().unwrap(), "--rate", "4000"],
        )
        .args(mapping(&file))
        .output()
        .unwrap();
        let ledger = ledger(&output);
        let rows = oracle::read(&file);
        let counted: i64 = oracle::statistics(&rows.good)
            .values()
            .map(|of| of.trips)
            .sum();
        let query = &ledger["queries"][0];
        assert_eq!(
            query["merged"].as_i64().unwrap() + query["late"].as_i64().unwrap(),
            counted,
            "{ledger:#}"
        );
        assert_eq!(ledger["balanced"], true, "{ledger:#}");
        assert_lake(&dir, &rows, &file.display().to_string());
    }
}

#[test]
fn a_million_generated_trips_come_to_what_a_batch_comes_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = generate(folder.path(), 1_000_000, 11);
    let dir = folder.path().join("run");
    let output = demo(&file, &dir, &[]).output().unwrap();
    let rows = oracle::read(&file);
    assert!(rows.bad > 500, "{}", rows.bad);
    assert_complete(
        &dir,
        &rows,
        &ledger(&output),
        "a million generated trips, seed 11",
    );
}
