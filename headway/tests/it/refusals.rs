//! What the binary refuses, and what it says then.

use std::process::Stdio;
use std::time::Duration;

use crate::run::{demo, generate, headway, ledger, text};

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = generate(folder.path(), 100, 1);
    let dir = folder.path().join("run");
    let mut first = demo(&file, &dir, &["--rate", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !dir.join("log").exists() {
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = demo(&file, &dir, &[]).output().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("in use by another process"),
        "{}",
        text(&second.stderr)
    );
}

#[test]
fn a_wrong_job_is_refused_with_line_and_column_before_anything_is_sent() {
    let folder = tempfile::tempdir().unwrap();
    let file = generate(folder.path(), 100, 1);
    let job = folder.path().join("job.sql");
    let shipped = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../processor/jobs/taxi.sql"
    ))
    .unwrap();
    std::fs::write(
        &job,
        shipped.replace("sum(passenger_count)", "sum(passengers)"),
    )
    .unwrap();
    let output = demo(
        &file,
        &folder.path().join("run"),
        &["--job", job.to_str().unwrap()],
    )
    .output()
    .unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = shipped
        .lines()
        .position(|line| line.contains("sum(passenger_count)"))
        .unwrap()
        + 1;
    let said = text(&output.stderr);
    assert!(
        said.contains(&format!("{line}:")) && said.contains("passengers"),
        "{said}"
    );
}

#[test]
fn an_empty_file_a_folder_and_a_missing_file_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.csv");
    std::fs::write(&empty, "").unwrap();
    for (input, says) in [
        (empty.as_path(), "empty"),
        (folder.path(), "folder"),
        (&folder.path().join("none.csv"), "found"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = demo(input, &dir.path().join("run"), &[]).output().unwrap();
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(says) || said.contains("director"),
            "{says}: {said}"
        );
    }
}

#[test]
fn a_finished_folder_runs_again_to_the_same_ledger_and_is_audited() {
    let folder = tempfile::tempdir().unwrap();
    let file = generate(folder.path(), 3_000, 5);
    let dir = folder.path().join("run");
    let first = ledger(&demo(&file, &dir, &[]).output().unwrap());
    let again = ledger(&demo(&file, &dir, &[]).output().unwrap());
    assert_eq!(first, again);
    let audited = headway()
        .args(["audit", "--json", "--dir"])
        .arg(&dir)
        .output()
        .unwrap();
    assert_eq!(first, ledger(&audited));
}
