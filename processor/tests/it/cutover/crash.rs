//! Crashes, refusals and unknown outcomes at every call to the log of the command, and of the successor behind it.

use std::sync::Arc;

use processor::cutover::CutoverError;
use runtime::log::Log;
use runtime::log::fault::{At, Fault, FaultLog};

use super::followed;
use super::world::{NEW, OLD, application, cutover, finish, ledger, old};
use crate::fixture::{Fixture, QUERY, Trip, assert_same, naive};

const SEED: u64 = 11;

/// A state to begin from, with rows that the old application has not read.
fn begin() -> (Fixture, String, Vec<Trip>) {
    let (fixture, sql, rows) = followed(SEED, 3);
    super::put_ahead(&fixture, 1, 20_000);
    fixture.write(&rows[250..]);
    (fixture, sql, rows)
}

fn finish_new(fixture: &Fixture, log: Arc<dyn Log>, sql: &str) -> Result<(), String> {
    let mut options = application(fixture, log, NEW, sql);
    options.job.shards = 3;
    finish(fixture, options).map_err(|error| format!("{error:?}"))
}

/// What must have come out of it: each window once, and no row lost sight of.
fn check(fixture: &Fixture, rows: &[Trip], what: &str) {
    assert_same(&fixture.results(), &naive(rows), what);
    let (new, old) = (ledger(fixture, NEW, QUERY), ledger(fixture, OLD, QUERY));
    assert_eq!((new.rows_in, new.late), (rows.len() as u64, 0), "{what}");
    assert_eq!((new.assigned, new.merged), (new.kept, new.kept), "{what}");
    assert_eq!(
        new.emitted + old.emitted,
        naive(rows).len() as u64,
        "{what}"
    );
    assert_eq!(
        new.predecessor.unwrap().results,
        Some(old.emitted),
        "{what}"
    );
    assert!(
        new.given_before > 0 && new.windows_before < new.closed,
        "{what}"
    );
}

fn survive(start: &(Fixture, String, Vec<Trip>), at: At, fault: Fault) {
    let (fixture, sql, rows) = (start.0.copy(), &start.1, &start.2);
    let what = format!("{fault:?} at {at:?}, seed {SEED}");
    let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, at, fault);
    if let Err(error) = cutover(&fixture, Arc::clone(&log) as _, sql) {
        assert!(log.crashed(), "{what}: {error:?}");
        fixture.forget_members();
        cutover(&fixture, Arc::clone(&fixture.log) as _, sql)
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
    finish_new(&fixture, Arc::clone(&fixture.log) as _, sql).unwrap();
    check(&fixture, rows, &what);
}

fn trace(start: &(Fixture, String, Vec<Trip>)) -> Vec<&'static str> {
    let fixture = start.0.copy();
    let log = FaultLog::new(Arc::clone(&fixture.log) as Arc<dyn Log>);
    cutover(&fixture, Arc::clone(&log) as _, &start.1).unwrap();
    log.trace()
}

#[test]
fn the_command_survives_a_crash_at_any_call() {
    let start = begin();
    let steps = trace(&start).len() as u64;
    // A crash behind a call leaves what one before the next call does. Whoever crashes keeps its files open in this process.
    for step in 0..steps {
        survive(&start, At::Step(step), Fault::CrashBefore);
    }
    survive(&start, At::Step(steps - 1), Fault::CrashAfter);
}

#[test]
fn the_command_survives_aborts_and_unknown_outcomes() {
    let start = begin();
    let trace = trace(&start);
    let times = |call: &str| trace.iter().filter(|found| **found == call).count() as u64;
    assert!(times("producer.commit") >= 3, "{trace:?}");
    for nth in 0..times("producer.commit") {
        survive(
            &start,
            At::Call("producer.commit", nth),
            Fault::UnknownButDone,
        );
        survive(
            &start,
            At::Call("producer.commit", nth),
            Fault::UnknownAndNotDone,
        );
    }
    for call in [
        "producer.begin",
        "producer.send",
        "producer.flush",
        "producer.send_offsets",
        "producer.commit",
    ] {
        for nth in 0..times(call) {
            survive(&start, At::Call(call, nth), Fault::MustAbort);
        }
    }
}

#[test]
fn before_the_decision_the_old_application_can_go_on_and_behind_it_the_new_one_does() {
    let start = begin();
    let (mut before, mut behind) = (0, 0);
    let steps = trace(&start).len() as u64;
    for step in (0..steps - 2).step_by(15).chain(steps - 2..steps) {
        let (fixture, sql, rows) = (start.0.copy(), &start.1, &start.2);
        let what = format!("a crash before step {step}");
        let log = FaultLog::with_fault(
            Arc::clone(&fixture.log) as _,
            At::Step(step),
            Fault::CrashBefore,
        );
        // Polls differ from run to run: it may have come to its end before that step.
        let _ = cutover(&fixture, Arc::clone(&log) as _, sql);
        fixture.forget_members();
        let gone_on = finish(&fixture, old(&fixture, sql));
        match gone_on {
            // It gave everything, to the end of the input.
            Ok(()) => {
                before += 1;
                assert_same(&fixture.results(), &naive(rows), &what);
                let ended = cutover(&fixture, Arc::clone(&fixture.log) as _, sql).unwrap_err();
                assert!(matches!(ended, CutoverError::Ended { .. }), "{ended:?}");
            }
            Err(error) => {
                behind += 1;
                assert!(
                    format!("{error:?}").contains("HandedOver"),
                    "{what}: {error:?}"
                );
                finish_new(&fixture, Arc::clone(&fixture.log) as _, sql).unwrap();
                check(&fixture, rows, &what);
            }
        }
    }
    assert!(before > 1 && behind > 0, "{before} before, {behind} behind");
}

#[test]
fn the_successor_survives_a_crash_at_any_call() {
    let start = begin();
    cutover(&start.0, Arc::clone(&start.0.log) as _, &start.1).unwrap();
    let clean = start.0.copy();
    let counting = FaultLog::new(Arc::clone(&clean.log) as Arc<dyn Log>);
    finish_new(&clean, Arc::clone(&counting) as _, &start.1).unwrap();
    let commits = counting
        .trace()
        .iter()
        .filter(|call| **call == "producer.commit")
        .count() as u64;
    let mut faults = vec![];
    // Those of its first transactions behind the handover, and some of the others.
    let steps = counting.steps();
    faults.extend((0..steps.min(60)).map(|step| (At::Step(step), Fault::CrashBefore)));
    faults.extend(
        (60..steps)
            .step_by(17)
            .map(|step| (At::Step(step), Fault::CrashAfter)),
    );
    for nth in 0..commits {
        faults.push((At::Call("producer.commit", nth), Fault::UnknownButDone));
        faults.push((At::Call("producer.commit", nth), Fault::UnknownAndNotDone));
        faults.push((At::Call("producer.commit", nth), Fault::MustAbort));
    }
    for (at, fault) in faults {
        let (fixture, sql, rows) = (start.0.copy(), &start.1, &start.2);
        let what = format!("{fault:?} at {at:?}, seed {SEED}");
        let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, at, fault);
        if let Err(error) = finish_new(&fixture, Arc::clone(&log) as _, sql) {
            assert!(log.crashed(), "{what}: {error}");
            fixture.forget_members();
            finish_new(&fixture, Arc::clone(&fixture.log) as _, sql).unwrap();
        }
        check(&fixture, rows, &what);
    }
}

#[test]
fn a_member_that_joins_while_the_command_runs_is_not_overtaken() {
    let start = begin();
    let fixture = start.0.copy();
    // The old application has started again, and is in the group when the command comes to its last transaction.
    let stop = {
        let options = old(&fixture, &start.1);
        let lifecycle = options.lifecycle.clone();
        let running = std::thread::spawn(move || processor::run(&options));
        while fixture.log.members(OLD).unwrap().is_empty() {
            std::thread::sleep(std::time::Duration::from_millis(2));
        }
        move || {
            lifecycle.stop();
            running.join().unwrap().unwrap();
        }
    };
    let error = cutover(&fixture, Arc::clone(&fixture.log) as _, &start.1).unwrap_err();
    assert!(error.to_string().contains("has members"), "{error}");
    stop();
    cutover(&fixture, Arc::clone(&fixture.log) as _, &start.1).unwrap();
    finish_new(&fixture, Arc::clone(&fixture.log) as _, &start.1).unwrap();
    check(&fixture, &start.2, "a member");
}
