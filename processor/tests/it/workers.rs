//! Several workers share the work, come and go.

use std::sync::Arc;
use std::time::Duration;

use runtime::log::Log;
use runtime::log::fault::{At, Fault, FaultLog};

use crate::fixture::{Fixture, assert_same, job_sql, naive, trips};

#[test]
fn several_workers_in_a_process_share_the_work() {
    let rows = trips(3, 2_000, 30_000);
    let fixture = Fixture::new(4);
    fixture.write(&rows);
    let mut options = fixture.options(job_sql("1 minute", ""));
    options.workers = 3;
    options.lifecycle.drain();
    processor::run(&options).unwrap();
    assert_same(&fixture.results(), &naive(&rows), "three workers");
}

#[test]
fn a_killed_workers_partitions_go_to_the_one_that_is_left() {
    for step in [5, 20, 40, 60, 90] {
        let rows = trips(step, 1_000, 30_000);
        let fixture = Fixture::new(4);
        fixture.write(&rows);
        let sql = job_sql("1 minute", "");
        let doomed = FaultLog::with_fault(
            Arc::clone(&fixture.log) as _,
            At::Step(step),
            Fault::CrashBefore,
        );
        let mut left = fixture.options(sql.clone());
        left.instance = "left".into();
        let mut right = fixture.options_over(Arc::clone(&doomed) as _, sql);
        right.instance = "right".into();
        let progress = [Arc::clone(&left.progress), Arc::clone(&right.progress)];
        let (left_life, right_life) = (left.lifecycle.clone(), right.lifecycle.clone());
        let left = std::thread::spawn(move || processor::run(&left));
        let right = std::thread::spawn(move || processor::run(&right));
        right_life.drain();
        // If there was too little left for it to come to its step, it crashes when all is read.
        let all_read = || {
            let totals = progress.iter().map(|progress| progress.totals().rows_in);
            totals.sum::<u64>() >= rows.len() as u64
        };
        while !right.is_finished() {
            if all_read() {
                doomed.crash();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = right.join().unwrap();
        left_life.drain();
        // The log's time goes on while the other one works, in steps that leave it alive: the group forgets the dead one,
        // and its transactions run out.
        while !left.is_finished() {
            fixture.clock.advance(Duration::from_millis(250));
            std::thread::sleep(Duration::from_millis(40));
        }
        left.join().unwrap().unwrap();
        // What the dead one had not committed runs out at last.
        fixture.clock.advance(Duration::from_secs(20));
        assert_same(
            &fixture.results(),
            &naive(&rows),
            &format!("a worker killed at step {step}"),
        );
    }
}

#[test]
fn a_stopped_processor_goes_on_where_it_was() {
    let rows = trips(5, 1_200, 30_000);
    let fixture = Fixture::new(2);
    let sql = job_sql("1 minute", "");
    for part in rows.chunks(400) {
        fixture.write(part);
        let options = fixture.options(sql.clone());
        let lifecycle = options.lifecycle.clone();
        let progress = Arc::clone(&options.progress);
        let running = std::thread::spawn(move || processor::run(&options));
        while progress.totals().rows_in < 100 {
            std::thread::sleep(Duration::from_millis(2));
        }
        lifecycle.stop();
        running.join().unwrap().unwrap();
    }
    fixture.drain(Arc::clone(&fixture.log) as _, &sql).unwrap();
    assert_same(&fixture.results(), &naive(&rows), "stopped three times");
}

/// The source partitions that a process reads.
fn reads(options: &processor::Options) -> Vec<i32> {
    options
        .progress
        .here()
        .keys()
        .map(|(_, partition)| *partition)
        .collect()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..12_000 {
        if is_so() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("never: {what}");
}

#[test]
fn a_worker_that_is_stopped_for_a_moment_keeps_its_partitions_if_told_to() {
    let rows = trips(9, 800, 30_000);
    let fixture = Fixture::new(4);
    fixture.write(&rows);
    let sql = job_sql("1 minute", "");
    let member = |instance: &str| {
        let mut options = fixture.options(sql.clone());
        options.instance = instance.into();
        options.worker.keep_partitions_on_stop = true;
        options
    };
    let start = |options: &processor::Options| {
        let options = options.clone();
        std::thread::spawn(move || processor::run(&options))
    };
    let (a, b) = (member("a"), member("b"));
    let (running_a, running_b) = (start(&a), start(&b));
    until("both read two partitions", || {
        reads(&a).len() == 2 && reads(&b).len() == 2
    });
    let (of_a, of_b) = (reads(&a), reads(&b));
    a.lifecycle.stop();
    running_a.join().unwrap().unwrap();
    for _ in 0..20 {
        assert_eq!(reads(&b), of_b, "nobody takes what it had");
        std::thread::sleep(Duration::from_millis(5));
    }
    let a = member("a");
    let running_a = start(&a);
    until("it reads again", || reads(&a).len() == 2);
    assert_eq!((reads(&a), reads(&b)), (of_a, of_b));
    assert_eq!(b.metrics.sessions.get(), 0);
    a.lifecycle.drain();
    b.lifecycle.drain();
    // The first to be done leaves, and is waited for.
    while !running_a.is_finished() || !running_b.is_finished() {
        fixture.clock.advance(Duration::from_millis(250));
        std::thread::sleep(Duration::from_millis(20));
    }
    running_a.join().unwrap().unwrap();
    running_b.join().unwrap().unwrap();
    assert_same(&fixture.results(), &naive(&rows), "away for a moment");
}

#[test]
fn a_worker_that_is_stopped_gives_its_partitions_to_others_at_once() {
    let rows = trips(10, 800, 30_000);
    let fixture = Fixture::new(4);
    fixture.write(&rows);
    let sql = job_sql("1 minute", "");
    let member = |instance: &str| {
        let mut options = fixture.options(sql.clone());
        options.instance = instance.into();
        options
    };
    let start = |options: &processor::Options| {
        let options = options.clone();
        std::thread::spawn(move || processor::run(&options))
    };
    let (a, b) = (member("a"), member("b"));
    let (running_a, running_b) = (start(&a), start(&b));
    until("both read two partitions", || {
        reads(&a).len() == 2 && reads(&b).len() == 2
    });
    a.lifecycle.stop();
    running_a.join().unwrap().unwrap();
    // the clock stands still: nobody is missed
    until("the other reads them all", || reads(&b).len() == 4);
    b.lifecycle.drain();
    while !running_b.is_finished() {
        fixture.clock.advance(Duration::from_millis(250));
        std::thread::sleep(Duration::from_millis(20));
    }
    running_b.join().unwrap().unwrap();
    assert_same(&fixture.results(), &naive(&rows), "stopped for good");
}

#[test]
fn the_older_of_two_instances_with_one_name_leaves_and_does_not_disturb_the_newer_one() {
    let rows = trips(12, 800, 30_000);
    let fixture = Fixture::new(4);
    fixture.write(&rows[..400]);
    let sql = job_sql("1 minute", "");
    let member = || {
        let mut options = fixture.options(sql.clone());
        options.worker.successor_wait = Duration::from_secs(10);
        options
    };
    let start = |options: &processor::Options| {
        let options = options.clone();
        std::thread::spawn(move || processor::run(&options))
    };
    let (older, newer) = (member(), member());
    let running_older = start(&older);
    until("it reads", || older.progress.totals().rows_in == 400);
    let running_newer = start(&newer);
    until("the other one has its place", || reads(&newer).len() == 4);
    // the older one has something to commit, if it did not hear of it yet
    fixture.write(&rows[400..]);
    let left = running_older.join().unwrap().unwrap_err();
    assert!(
        format!("{:#}", anyhow::Error::from(left)).contains("another instance has taken over"),
        "it says why it leaves"
    );
    assert_eq!(older.metrics.sessions.get(), 0, "it did not come back");
    newer.lifecycle.drain();
    while !running_newer.is_finished() {
        fixture.clock.advance(Duration::from_millis(250));
        std::thread::sleep(Duration::from_millis(20));
    }
    running_newer.join().unwrap().unwrap();
    assert_eq!(newer.metrics.sessions.get(), 0, "it was not disturbed");
    assert_same(&fixture.results(), &naive(&rows), "one name, two instances");
}

#[test]
fn partitions_that_a_source_gets_while_the_job_runs_are_read_and_nothing_is_late() {
    let rows = trips(31, 1_200, 30_000);
    let fixture = Fixture::new(1);
    fixture.write_to(&rows[..400], |_| 0);
    let options = fixture.options(job_sql("1 minute", ""));
    let running = std::thread::spawn({
        let options = options.clone();
        move || processor::run(&options)
    });
    until("what is there is read", || {
        options.progress.totals().rows_in == 400
    });
    fixture.log.add_partitions("trips", 3).unwrap();
    until("the new ones are read", || reads(&options) == [0, 1, 2]);
    until("the shards have heard of them", || fixture.folded());
    // The shards wait for them: the first partition's rows close no more windows.
    let closed = options.progress.totals().closed;
    fixture.write_to(&rows[400..800], |_| 0);
    until("the first one goes on", || {
        options.progress.totals().rows_in == 800
    });
    until("they are folded", || fixture.folded());
    assert_eq!(options.progress.totals().closed, closed);
    fixture.write_to(&rows[800..], |index| index as i32 % 3);
    options.lifecycle.drain();
    running.join().unwrap().unwrap();
    assert_same(&fixture.results(), &naive(&rows), "two partitions more");
    assert_eq!(fixture.ledger().late, 0);
}
