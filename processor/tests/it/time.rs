//! Event time: late rows, idle partitions, bad records.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use processor::progress::Totals;
use runtime::clock::ManualClock;
use schemas::record::{Codec, DeadLetter, Late};

use crate::fixture::{Fixture, MINUTE_MS, Trip, assert_same, job_sql, naive, trips};

/// Behind all rows of these tests.
const NOW_MS: i64 = 1_500_000_000_000;

/// Waits until the running processor's totals are as wanted, while its clock, which also says when to commit, goes on by a
/// `step` at a time.
fn wait_for(
    progress: &processor::progress::Progress,
    (clock, step): (&ManualClock, Duration),
    what: &str,
    wanted: impl Fn(&Totals) -> bool,
) {
    for _ in 0..12_000 {
        if wanted(&progress.totals()) {
            return;
        }
        clock.advance(step);
        std::thread::sleep(Duration::from_millis(5));
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
fn records_without_a_value_are_left_out_and_are_no_dead_letters() {
    let rows = trips(5, 200, 1_000);
    let fixture = Fixture::new(2);
    let mut values: Vec<(i32, Option<Vec<u8>>)> = rows
        .iter()
        .enumerate()
        .map(|(index, trip)| (index as i32 % 2, Some(fixture.encode(index, trip))))
        .collect();
    for place in [200, 150, 100, 0] {
        values.insert(place, (place as i32 / 50 % 2, None));
    }
    fixture.write_records(&values);
    fixture
        .drain(Arc::clone(&fixture.log) as _, &job_sql("1 minute", ""))
        .unwrap();
    assert_same(&fixture.results(), &naive(&rows), "with tombstones");
    assert!(fixture.records("trips.dlq").is_empty());
    let ledger = fixture.ledger();
    let without_passengers = rows.iter().filter(|trip| trip.passengers == 0).count() as u64;
    assert_eq!((ledger.undecodable, ledger.dead), (0, 0));
    assert_eq!(ledger.filtered, without_passengers + 4);
    assert_eq!(ledger.rows_in, ledger.filtered + ledger.assigned);
}

#[test]
fn a_row_of_the_far_future_is_a_dead_letter_and_makes_no_other_late() {
    let mut rows = trips(6, 400, 1_000);
    let far = Trip {
        // 2099
        pickup_ms: 4_070_908_800_000,
        ..rows[0].clone()
    };
    let now = rows.iter().map(|trip| trip.pickup_ms).max().unwrap();
    let near = Trip {
        passengers: 1,
        pickup_ms: now + 600_000,
        ..rows[0].clone()
    };
    let beyond = Trip {
        passengers: 1,
        pickup_ms: now + 86_400_000,
        ..rows[0].clone()
    };
    for (place, trip) in [(300, &beyond), (200, &far), (10, &far)] {
        rows.insert(place, trip.clone());
    }
    rows.push(near);
    let fixture = Fixture::new(1);
    fixture.write(&rows);
    let mut options = fixture.options(job_sql("1 minute", ", max_ahead = INTERVAL '10 minutes'"));
    let clock = Arc::new(ManualClock::at(now));
    options.clock = Arc::clone(&clock) as _;
    options.lifecycle.drain();
    let running = std::thread::spawn(move || processor::run(&options));
    while !running.is_finished() {
        clock.advance(Duration::from_millis(100));
        std::thread::sleep(Duration::from_millis(5));
    }
    running.join().unwrap().unwrap();
    let usable = rows.iter().filter(|trip| trip.pickup_ms <= now + 600_000);
    assert_same(&fixture.results(), &naive(usable), "without the future");
    let codec = Codec::<DeadLetter>::new(Arc::clone(&fixture.registry), "trips.dlq-value").unwrap();
    let letters: Vec<(String, Option<i64>)> = fixture
        .records("trips.dlq")
        .iter()
        .map(|(_, value)| codec.decode(value).unwrap())
        .map(|letter| (letter.reason, letter.offset))
        .collect();
    assert_eq!(letters.len(), 3, "{letters:?}");
    assert!(
        letters.iter().all(|(reason, _)| reason == "too_far_ahead"),
        "{letters:?}"
    );
    let ledger = fixture.ledger();
    assert_eq!((ledger.dead, ledger.late), (3, 0));
    assert_eq!(
        ledger.rows_in,
        ledger.dead + ledger.filtered + ledger.assigned
    );
}

#[test]
fn without_a_bound_the_future_is_as_good_as_any_time() {
    let rows = [Trip {
        vendor: 1,
        pickup_ms: 4_070_908_800_000,
        passengers: 1,
        distance: 1.0,
    }];
    let fixture = Fixture::new(1);
    fixture.write(&rows);
    fixture
        .drain(
            Arc::clone(&fixture.log) as _,
            &job_sql("1 minute", ", max_ahead = 'none'"),
        )
        .unwrap();
    assert_same(&fixture.results(), &naive(&rows), "of 2099");
}

#[test]
fn without_idle_advance_the_last_windows_stay_open() {
    let fixture = Fixture::new(2);
    let rows: Vec<Trip> = trips(9, 200, 1_000);
    fixture.write(&rows);
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let mut options = fixture.options(job_sql(
        "10 seconds",
        ", idle_timeout = INTERVAL '30 seconds', idle_advance = false",
    ));
    options.worker.idle_marks = true;
    options.clock = Arc::clone(&clock) as _;
    let (lifecycle, progress) = (options.lifecycle.clone(), Arc::clone(&options.progress));
    let running = std::thread::spawn(move || processor::run(&options));
    let last = rows.iter().map(|trip| trip.pickup_ms).max().unwrap() - 10_000;
    let step = (&*clock, Duration::from_secs(5));
    wait_for(
        &progress,
        step,
        "both partitions are read and idle",
        |totals| totals.watermark == Some(last),
    );
    for _ in 0..20 {
        clock.advance(Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(progress.totals().watermark, Some(last), "no clock moves it");
    assert!(progress.totals().open > 0);
    lifecycle.stop();
    running.join().unwrap().unwrap();
    let results = fixture.results();
    let closed = naive(&rows)
        .into_iter()
        .filter(|((window, _), _)| window + MINUTE_MS <= last)
        .collect();
    assert_same(&results, &closed, "what event time alone closes");
}

#[test]
fn an_idle_partition_holds_nobody_back_and_when_all_are_idle_the_clock_closes() {
    let fixture = Fixture::new(2);
    // All rows go to partition 0; partition 1 never has one.
    let rows: Vec<Trip> = trips(8, 200, 1_000);
    fixture.write_to(&rows, |_| 0);
    let clock = Arc::new(ManualClock::at(NOW_MS));
    let mut options = fixture.options(job_sql(
        "10 seconds",
        ", idle_timeout = INTERVAL '30 seconds'",
    ));
    options.worker.idle_marks = true;
    options.clock = Arc::clone(&clock) as _;
    let (lifecycle, progress) = (options.lifecycle.clone(), Arc::clone(&options.progress));
    let running = std::thread::spawn(move || processor::run(&options));
    // In steps so small that together they are shorter than the idle timeout, whenever the worker comes to its first look.
    let small = (&*clock, Duration::from_millis(2));
    wait_for(&progress, small, "rows are merged", |totals| {
        totals.merged == naive(&rows).values().map(|of| of.0 as u64).sum::<u64>()
    });
    assert_eq!(
        progress.totals().closed,
        0,
        "the silent partition is not idle yet"
    );
    let all: usize = naive(&rows)
        .keys()
        .map(|(window, _)| window)
        .collect::<std::collections::BTreeSet<_>>()
        .len();
    let second = (&*clock, Duration::from_secs(1));
    wait_for(
        &progress,
        second,
        "the idle partition is left aside",
        |totals| totals.closed > 0,
    );
    // Once both are idle, their clock goes on until the last window's end.
    let seconds = (&*clock, Duration::from_secs(5));
    wait_for(
        &progress,
        seconds,
        "the clock closes the last window",
        |totals| totals.open == 0 && totals.closed >= all as u64,
    );
    lifecycle.stop();
    running.join().unwrap().unwrap();
    assert_same(&fixture.results(), &naive(&rows), "closed by the clock");
    assert!(rows.iter().all(|trip| trip.pickup_ms / MINUTE_MS > 0));
}

#[test]
fn what_comes_behind_an_announced_end_is_taken_by_the_next_run_to_the_end_and_is_late() {
    let rows = trips(67, 600, 30_000);
    let fixture = Fixture::new(4);
    let sql = job_sql("1 minute", "");
    fixture.write(&rows[..400]);
    for (taken, more) in [(400, &rows[400..500]), (500, &rows[500..]), (600, &[][..])] {
        let mut options = fixture.options(sql.clone());
        options.workers = 2;
        options.lifecycle.drain();
        fixture.run(options).unwrap();
        let ledger = fixture.ledger();
        assert_eq!(ledger.rows_in, taken);
        let on_time = naive(&rows[..400])
            .values()
            .map(|figures| figures.0 as u64)
            .sum::<u64>();
        assert_eq!(ledger.merged, on_time, "{taken} rows");
        assert_eq!(ledger.merged + ledger.late, ledger.assigned, "{taken} rows");
        fixture.write(more);
    }
    assert_same(&fixture.results(), &naive(&rows[..400]), "what was on time");
}
