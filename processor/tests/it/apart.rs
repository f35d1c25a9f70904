//! Source partitions that are hours apart in event time.

use std::sync::Arc;
use std::time::Duration;

use engine::fold::Fold;
use processor::job::Job;
use processor::offsets::ShardState;
use processor::task::merge::MergeTask;
use runtime::log::{ConsumerOptions, Event, Log, TopicPartition};

use crate::fixture::{Fixture, MINUTE_MS, Trip, assert_same, job_sql, naive, trips};

const HOUR_MS: i64 = 60 * MINUTE_MS;

/// Rows of an even stream, and the partition of each: each partition holds its own stretch of hours, which begins `lags`
/// later or earlier than those of the others.
fn apart(seed: u64, per_partition: usize, lags_ms: &[i64]) -> Vec<(i32, Trip)> {
    (0..)
        .zip(lags_ms)
        .flat_map(|(partition, lag)| {
            trips(seed + partition as u64, per_partition, 20_000)
                .into_iter()
                .map(move |trip| {
                    let pickup_ms = trip.pickup_ms + lag;
                    (partition, Trip { pickup_ms, ..trip })
                })
        })
        .collect()
}

fn write(fixture: &Fixture, rows: &[(i32, Trip)]) {
    let trips: Vec<Trip> = rows.iter().map(|(_, trip)| trip.clone()).collect();
    fixture.write_to(&trips, |index| rows[index].0);
}

/// Runs the job to the end of the input with some workers, and small fetches.
fn drain(fixture: &Fixture, sql: &str, workers: u32) {
    let mut options = fixture.options(sql.into());
    options.workers = workers;
    options.worker.max_poll_records = 10;
    // The partials are looked at afterwards.
    options.worker.snapshot_cost = u64::MAX;
    options.lifecycle.drain();
    fixture.run(options).unwrap();
}

/// How many windows were open at most in any shard, as its partials say.
fn most_open(fixture: &Fixture, sql: &str) -> usize {
    let job = Job::load(
        fixture.log.as_ref(),
        &fixture.registry,
        fixture.options(sql.into()).job,
    )
    .unwrap();
    let mut most = 0;
    for shard in 0..2 {
        let query = Arc::clone(&job.queries[0]);
        let partition = TopicPartition::new(
            query.folded.as_ref().unwrap().partials_topic.as_str(),
            shard,
        );
        let mut consumer = fixture
            .log
            .consumer(&ConsumerOptions::new("reader"))
            .unwrap();
        consumer.assign(&[(partition.clone(), 0)]).unwrap();
        let fold = Fold::new(Arc::clone(&query.plan), query.fingerprint);
        let mut merge = MergeTask::new(
            partition,
            0,
            Arc::clone(&query),
            (fold, 0),
            0,
            ShardState::default(),
        );
        while let Some(Event::Records(batch)) = consumer.poll(Duration::from_secs(5), 1).unwrap() {
            merge.take(&batch, &mut Vec::new()).unwrap();
            most = most.max(merge.fold().open_count());
        }
        assert!(merge.fold().watermark().ended());
    }
    most
}

#[test]
fn partitions_hours_apart_lose_nothing_and_call_nothing_late() {
    for seed in [1, 2, 3] {
        // Any lag between nothing and six hours, from the seed.
        let lags: Vec<i64> = trips(seed * 77, 5, 1)
            .iter()
            .map(|trip| (trip.distance * 1e9) as i64 % (6 * HOUR_MS))
            .collect();
        let rows = apart(seed, 250, &lags);
        for more in ["", ", max_drift = INTERVAL '10 minutes'"] {
            let fixture = Fixture::new(5);
            write(&fixture, &rows);
            let sql = job_sql("20 seconds", more);
            drain(&fixture, &sql, 2);
            let what = format!("seed {seed}, lags {lags:?}{more}");
            assert_same(
                &fixture.results(),
                &naive(rows.iter().map(|(_, trip)| trip)),
                &what,
            );
            assert!(fixture.records("test.per_minute.late").is_empty(), "{what}");
            assert_eq!(fixture.ledger().late, 0, "{what}");
        }
    }
}

#[test]
fn max_drift_bounds_the_open_windows_and_changes_no_result() {
    // Each partition covers an hour and a quarter; the hours overlap little.
    let rows = apart(5, 3_000, &[0, HOUR_MS, 2 * HOUR_MS, 3 * HOUR_MS]);
    let expected = naive(rows.iter().map(|(_, trip)| trip));
    let most = |more: &str, workers| {
        let fixture = Fixture::new(4);
        write(&fixture, &rows);
        let sql = job_sql("20 seconds", more);
        drain(&fixture, &sql, workers);
        assert_same(&fixture.results(), &expected, more);
        assert_eq!(fixture.ledger().late, 0, "{more}");
        most_open(&fixture, &sql)
    };
    let free = most("", 1);
    assert!(free > 150, "the partitions are not apart: {free}");
    for workers in [1, 2] {
        // The last partition waits at its first row, with its one window open; the others are ten windows apart, and a
        // poll brings less than a minute.
        let bound = most(", max_drift = INTERVAL '10 minutes'", workers);
        assert!(bound <= 60, "{bound} windows open with {workers} workers");
    }
}

#[test]
fn a_silent_partition_pauses_nobody_for_good() {
    // Partition 1 is read to its end at once, and partition 2 is empty: neither has an idle timeout to end the wait.
    let rows = apart(8, 600, &[6 * HOUR_MS]);
    let old = Trip {
        vendor: 1,
        pickup_ms: rows[0].1.pickup_ms - 6 * HOUR_MS,
        passengers: 1,
        distance: 1.0,
    };
    let mut rows = rows;
    rows.push((1, old));
    let fixture = Fixture::new(3);
    write(&fixture, &rows);
    let options = fixture.options(job_sql("20 seconds", ", max_drift = INTERVAL '1 minute'"));
    let (lifecycle, progress) = (options.lifecycle.clone(), Arc::clone(&options.progress));
    let running = std::thread::spawn(move || processor::run(&options));
    for _ in 0..1000 {
        if progress.totals().rows_in == rows.len() as u64 {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(progress.totals().rows_in, rows.len() as u64);
    lifecycle.stop();
    running.join().unwrap().unwrap();
}

#[test]
fn two_processes_wait_for_each_others_partitions_and_not_for_good() {
    let rows = apart(12, 1_500, &[0, HOUR_MS, 2 * HOUR_MS, 3 * HOUR_MS]);
    let fixture = Fixture::new(4);
    write(&fixture, &rows);
    let sql = job_sql("20 seconds", ", max_drift = INTERVAL '10 minutes'");
    let processes: Vec<_> = ["a", "b"]
        .into_iter()
        .map(|instance| {
            let mut options = fixture.options(sql.clone());
            options.instance = instance.into();
            options.worker.max_poll_records = 10;
            options.lifecycle.drain();
            std::thread::spawn(move || processor::run(&options))
        })
        .collect();
    for process in processes {
        process.join().unwrap().unwrap();
    }
    assert_same(
        &fixture.results(),
        &naive(rows.iter().map(|(_, trip)| trip)),
        "by two processes",
    );
    assert_eq!(fixture.ledger().late, 0);
}
