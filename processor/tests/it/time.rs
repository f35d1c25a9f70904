//! Event time: late rows, idle partitions, bad records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use processor::progress::Totals;
use runtime::clock::ManualClock;
use schemas::record::{Codec, DeadLetter, Late};

use crate::fixture::{Fixture, MINUTE_MS, Trip, assert_same, job_sql, naive, trips};

/// Waits until the running processor's totals are as wanted.
fn wait_for(
    progress: &processor::progress::Progress,
    what: &str,
    wanted: impl Fn(&Totals) -> bool,
) {
    for _ in 0..500 {
        if wanted(&progress.totals()) {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what}: {:?}", progress.totals());
}

#[test]
fn every_row_is_counted_in_its_window_or_reported_late() {
    let rows = trips(21, 3_000, 600_000);
    let fixture = Fixture::new(2);
    fixture.write(&rows);
    fixture
        .drain(Arc::clone(&fixture.log) as _, &job_sql("5 seconds", ""))
        .unwrap();
    let codec =
        Codec::<Late>::new(Arc::clone(&fixture.registry), "test.per_minute.late-value").unwrap();
    let mut late_by_window: BTreeMap<i64, i64> = BTreeMap::new();
    for (_, value) in fixture.records("test.per_minute.late") {
        let late = codec.decode(&value).unwrap();
        assert!(late.window_end <= late.watermark && late.range_start < late.range_end);
        *late_by_window.entry(late.window_start).or_default() += late.rows;
    }
    assert!(!late_by_window.is_empty());
    let mut found: BTreeMap<i64, i64> = late_by_window.clone();
    for ((window, _), (count, _, _)) in fixture.results() {
        *found.entry(window).or_default() += count;
    }
    let mut expected: BTreeMap<i64, i64> = BTreeMap::new();
    for ((window, _), (count, _, _)) in naive(&rows) {
        *expected.entry(window).or_default() += count;
    }
    assert_eq!(found, expected);
    let ledger = fixture.ledger();
    assert_eq!(ledger.late, late_by_window.values().sum::<i64>() as u64);
    assert_eq!(ledger.assigned, ledger.merged + ledger.late);
}

#[test]
fn bad_records_are_dead_letters_and_the_others_count() {
    let rows = trips(4, 200, 1_000);
    let fixture = Fixture::new(1);
    let mut values: Vec<(i32, Vec<u8>)> = rows
        .iter()
        .enumerate()
        .map(|(index, trip)| (0, fixture.encode(index, trip)))
        .collect();
    values.insert(150, (0, vec![0, 0, 0, 0, 99, 1, 2, 3]));
    values.insert(100, (0, b"not framed".to_vec()));
    values.insert(50, (0, values[7].1[..12].to_vec()));
    values.insert(0, (0, vec![]));
    fixture.write_raw(&values);
    fixture
        .drain(Arc::clone(&fixture.log) as _, &job_sql("1 minute", ""))
        .unwrap();
    assert_same(
        &fixture.results(),
        &naive(&rows),
        "with bad records among them",
    );
    let codec = Codec::<DeadLetter>::new(Arc::clone(&fixture.registry), "trips.dlq-value").unwrap();
    let letters: Vec<DeadLetter> = fixture
        .records("trips.dlq")
        .iter()
        .map(|(_, value)| codec.decode(value).unwrap())
        .collect();
    assert_eq!(letters.len(), 4, "{letters:?}");
    assert!(
        letters
            .iter()
            .all(|letter| letter.stage == "processor" && letter.topic.as_deref() == Some("trips"))
    );
    assert_eq!(fixture.ledger().undecodable, 4);
}

#[test]
fn an_idle_partition_holds_nobody_back_and_when_all_are_idle_the_clock_closes() {
    let fixture = Fixture::new(2);
    // All rows go to partition 0; partition 1 never has one.
    let rows: Vec<Trip> = trips(8, 200, 1_000);
    fixture.write_to(&rows, |_| 0);
    let clock = Arc::new(ManualClock::at(0));
    let mut options = fixture.options(job_sql(
        "10 seconds",
        ", idle_timeout = INTERVAL '30 seconds'",
    ));
    options.worker.idle_marks = true;
    options.clock = Arc::clone(&clock) as _;
    let (lifecycle, progress) = (options.lifecycle.clone(), Arc::clone(&options.progress));
    let running = std::thread::spawn(move || processor::run(&options));
    // The worker's clock also says when to commit.
    let step = |seconds: u64, times: usize| {
        for _ in 0..times {
            clock.advance(Duration::from_secs(seconds));
            std::thread::sleep(Duration::from_millis(15));
        }
    };
    step(1, 20);
    wait_for(&progress, "rows are merged", |totals| {
        totals.merged == naive(&rows).values().map(|of| of.0 as u64).sum::<u64>()
    });
    assert_eq!(
        progress.totals().closed,
        0,
        "the silent partition is not idle yet"
    );
    step(1, 20);
    let all: usize = naive(&rows)
        .keys()
        .map(|(window, _)| window)
        .collect::<std::collections::BTreeSet<_>>()
        .len();
    wait_for(&progress, "the idle partition is left aside", |totals| {
        totals.closed > 0
    });
    // By now both are idle; their clock goes on until the last window's end.
    step(5, 30);
    wait_for(&progress, "the clock closes the last window", |totals| {
        totals.open == 0 && totals.closed >= all as u64
    });
    lifecycle.stop();
    running.join().unwrap().unwrap();
    assert_same(&fixture.results(), &naive(&rows), "closed by the clock");
    assert!(rows.iter().all(|trip| trip.pickup_ms / MINUTE_MS > 0));
}
