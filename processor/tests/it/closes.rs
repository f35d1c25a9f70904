//! Windows that are large: their results go out over several transactions, and their state to disk.

use std::sync::Arc;

use processor::Options;
use runtime::log::Log;
use runtime::log::fault::{At, Fault, FaultLog};

use crate::fixture::{Fixture, Trip, assert_same, job_sql, naive, trips};

const SEED: u64 = 29;

/// All windows close at the end of the input, each shard's in one record: some results with each transaction.
fn options(fixture: &Fixture, log: Arc<dyn Log>) -> Options {
    let mut options = fixture.options_over(log, job_sql("1 hour", ""));
    options.worker.max_close_rows = 4;
    options.worker.block_rows = Some(2);
    options.lifecycle.drain();
    options
}

fn rows() -> Vec<Trip> {
    let mut rows = trips(SEED, 240, 30_000);
    // Several vendors: a window has several blocks.
    for (index, row) in rows.iter_mut().enumerate() {
        row.vendor = index as i32 % 11;
    }
    rows
}

fn survive(plan: Vec<(At, Fault)>) -> bool {
    let what = format!("{plan:?}, seed {SEED}");
    let rows = rows();
    let fixture = Fixture::new(2);
    fixture.write(&rows);
    let log = FaultLog::with_plan(Arc::clone(&fixture.log) as _, plan);
    let failed = fixture
        .run(options(&fixture, Arc::clone(&log) as _))
        .is_err();
    if failed {
        assert!(log.crashed(), "{what}");
        fixture.forget_members();
        fixture
            .run(options(&fixture, Arc::clone(&fixture.log) as _))
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
    assert_same(&fixture.results(), &naive(&rows), &what);
    let ledger = fixture.ledger();
    assert_eq!(ledger.emitted, naive(&rows).len() as u64, "{what}");
    assert!(ledger.ended, "{what}");
    failed
}

/// How many commits a run takes without faults, of which the last ones close windows.
fn commits() -> u64 {
    let fixture = Fixture::new(2);
    fixture.write(&rows());
    let log = FaultLog::new(Arc::clone(&fixture.log) as Arc<dyn Log>);
    fixture
        .run(options(&fixture, Arc::clone(&log) as _))
        .unwrap();
    let commits = log
        .trace()
        .into_iter()
        .filter(|call| *call == "producer.commit");
    commits.count() as u64
}

#[test]
fn a_close_over_several_transactions_gives_each_result_once_whatever_crashes() {
    let commits = commits();
    // 60 results at least, in pieces of a few rows, four rows a transaction and shard.
    assert!(commits > 12, "{commits} commits");
    let mut crashes = 0;
    for nth in 0..commits {
        for fault in [Fault::CrashBefore, Fault::CrashAfter] {
            crashes += u64::from(survive(vec![(At::Call("producer.commit", nth), fault)]));
        }
    }
    assert!(crashes > commits, "{crashes} crashes at {commits} commits");
}

#[test]
fn a_close_that_is_rolled_back_and_then_crashes_gives_each_result_once() {
    for nth in 0..commits() {
        survive(vec![
            (At::Call("producer.commit", nth), Fault::MustAbort),
            (At::Call("producer.commit", nth + 2), Fault::CrashAfter),
        ]);
        // A restart whose first transaction is refused.
        survive(vec![
            (At::Call("producer.commit", nth), Fault::UnknownButDone),
            (At::Call("producer.commit", nth + 1), Fault::MustAbort),
        ]);
    }
}

#[test]
fn state_that_memory_has_no_room_for_gives_the_same_results() {
    // Every trip is a group of its own, in a few windows.
    let mut rows = trips(SEED, 60_000, 30_000);
    for (index, row) in rows.iter_mut().enumerate() {
        row.vendor = index as i32;
        row.pickup_ms = 1_451_606_400_000 + index as i64 % 3 * 60_000;
    }
    let fixture = Fixture::new(2);
    fixture.write(&rows);
    let mut options = fixture.options(job_sql("1 hour", ""));
    options.state_memory_bytes = 1_000_000;
    options.worker.max_poll_records = 5_000;
    options.worker.max_range_rows = 5_000;
    options.worker.block_rows = Some(4_096);
    options.worker.max_close_rows = 5_000;
    options.lifecycle.drain();
    let disk = options.metrics.state_disk_bytes.clone();
    let running = std::thread::spawn({
        let options = options.clone();
        move || processor::run(&options)
    });
    let mut most = 0;
    while !running.is_finished() {
        most = most.max(disk.get());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    running.join().unwrap().unwrap();
    assert!(most > 0, "nothing went to disk");
    assert_same(&fixture.results(), &naive(&rows), "on disk");
    assert_eq!(disk.get(), 0, "what is no longer needed is gone");
}
