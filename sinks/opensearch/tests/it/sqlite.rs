//! The document file when its process is killed.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use sink_opensearch::{Document, SqliteTarget, Target};

const FILE: &str = "HEADWAY_TEST_DOCUMENTS";

fn document(id: u64, version: i64) -> Document {
    let source = format!("{{\"id\":{id},\"version\":{version}}}").into_bytes();
    Document {
        index: "killed".into(),
        id: id.to_string(),
        version,
        source,
    }
}

/// Not a test by itself: what the test below runs as a child process and kills.
#[test]
fn child() {
    let Ok(path) = std::env::var(FILE) else {
        return;
    };
    let target = SqliteTarget::open(path).unwrap();
    for round in 1.. {
        let bulk: Vec<_> = (0..50).map(|id| document(id, round)).collect();
        target.write(&bulk.iter().collect::<Vec<_>>()).unwrap();
        eprintln!("{round}");
    }
}

#[test]
fn what_was_acknowledged_survives_sigkill_and_no_bulk_is_torn() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("documents");
    let mut acknowledged = 0_i64;
    for rounds in [1, 3, 10, 30] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "sqlite::child", "--nocapture"])
            .env(FILE, &path)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap())
            .lines()
            .map_while(Result::ok);
        let seen = lines
            .by_ref()
            .filter_map(|line| line.parse::<i64>().ok())
            .nth(rounds)
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let seen = lines
            .filter_map(|line| line.parse::<i64>().ok())
            .last()
            .unwrap_or(seen);
        acknowledged = acknowledged.max(seen);
        let stored = SqliteTarget::open(&path)
            .unwrap()
            .documents("killed")
            .unwrap();
        assert_eq!(stored.len(), 50);
        let version = stored[0].version;
        assert!(
            version >= acknowledged,
            "{version} is stored, {acknowledged} was acknowledged"
        );
        assert!(
            stored.iter().all(|document| document.version == version),
            "a bulk is there whole or not at all"
        );
    }
}
