//! The page of open windows says why each is open.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use processor::windows::page;
use runtime::telemetry::{HttpEdge, Readiness, json_page};

use crate::fixture::{Fixture, MINUTE_MS, Trip, job_sql, trips};

fn row(pickup_ms: i64) -> Trip {
    Trip {
        vendor: 1,
        pickup_ms,
        passengers: 1,
        distance: 1.0,
    }
}

/// Runs a job until all rows are merged and every partition is read to its end, lets `look` look, and stops.
fn watched(
    fixture: &Fixture,
    sql: String,
    rows: u64,
    look: impl FnOnce(&Arc<processor::progress::Progress>),
) {
    let options = fixture.options(sql);
    let (lifecycle, progress) = (options.lifecycle.clone(), Arc::clone(&options.progress));
    let running = std::thread::spawn(move || processor::run(&options));
    let at_end = || {
        let page = page(&progress);
        page.sources.iter().all(|source| source.at_end)
            && page.shards.iter().all(|shard| shard.answered)
    };
    while progress.totals().merged < rows || !at_end() || !fixture.folded() {
        assert!(!running.is_finished(), "the job ended");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(progress.totals().merged, rows);
    look(&progress);
    lifecycle.stop();
    running.join().unwrap().unwrap();
    assert!(
        page(&progress).shards.is_empty(),
        "what is stopped has no windows"
    );
}

#[test]
fn a_window_names_the_partitions_that_hold_it_and_what_they_are_short_of() {
    let start = trips(1, 1, 1)[0].pickup_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
    let fixture = Fixture::new(3);
    // Partition 0 is far, partition 1 is in the first window, partition 2 has nothing.
    let rows = [
        row(start + 10),
        row(start + 5 * MINUTE_MS),
        row(start + 30_000),
    ];
    fixture.write_to(&rows, |index| [0, 0, 1][index]);
    watched(&fixture, job_sql("1 second", ""), 3, |progress| {
        let page = page(progress);
        assert_eq!(page.shards.len(), 2);
        assert!(
            page.shards
                .iter()
                .all(|shard| shard.answered && shard.watermark.is_none())
        );
        let open: Vec<_> = page.shards.iter().flat_map(|shard| &shard.open).collect();
        let first = open.iter().find(|window| window.start_ms == start).unwrap();
        assert_eq!(
            (first.end_ms, first.closes_at_ms),
            (start + MINUTE_MS, start + MINUTE_MS)
        );
        let held: Vec<_> = first
            .held_by
            .iter()
            .map(|holder| {
                (
                    holder.partition,
                    holder.short_by_ms,
                    holder.at_end,
                    holder.paused,
                )
            })
            .collect();
        assert_eq!(
            held,
            [
                (1, Some(MINUTE_MS - 29_000), Some(true), Some(false)),
                (2, None, Some(true), Some(false))
            ]
        );
        assert!(
            first.why.contains("2 source partitions are not past it"),
            "{}",
            first.why
        );
        assert!(
            first.held_by[0]
                .why
                .contains("31 seconds short of it; all that is in it has been read"),
            "{}",
            first.held_by[0].why
        );
        let sources: Vec<_> = page
            .sources
            .iter()
            .map(|source| {
                (
                    source.partition,
                    source.watermark_ms,
                    source.behind_ms,
                    source.at_end,
                )
            })
            .collect();
        let far = start + 5 * MINUTE_MS - 1_000;
        assert_eq!(
            sources,
            [
                (0, Some(far), Some(0), true),
                (1, Some(start + 29_000), Some(far - start - 29_000), true),
                (2, None, None, true)
            ]
        );
    });
}

#[test]
fn a_window_that_waits_for_late_rows_says_so_over_http() {
    let start = trips(1, 1, 1)[0].pickup_ms.div_euclid(MINUTE_MS) * MINUTE_MS;
    let fixture = Fixture::new(1);
    fixture.write(&[row(start + 10), row(start + 2 * MINUTE_MS)]);
    let sql = job_sql("1 second", "").replace(
        "emit = 'final'",
        "emit = 'final', grace = INTERVAL '1 hour'",
    );
    watched(&fixture, sql, 2, |progress| {
        let shown = Arc::clone(progress);
        let edge = HttpEdge::start(
            "127.0.0.1:0",
            prometheus::Registry::new(),
            Readiness::new(),
            json_page("/windows", move || page(&shown)),
        )
        .unwrap();
        let mut stream = TcpStream::connect(edge.address()).unwrap();
        write!(
            stream,
            "GET /windows HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let page: serde_json::Value = serde_json::from_str(body).unwrap();
        let windows: Vec<&serde_json::Value> = page["shards"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|shard| shard["open"].as_array().unwrap())
            .collect();
        assert_eq!(windows.len(), 2, "{body}");
        let first = windows
            .iter()
            .find(|window| window["start_ms"] == start)
            .unwrap();
        assert_eq!(
            first["why"],
            "it is over, and stays open for late rows (grace 1 hour)"
        );
        assert_eq!(first["closes_at_ms"], start + 61 * MINUTE_MS);
        assert_eq!(first["partial_rows"], 1);
    });
}
