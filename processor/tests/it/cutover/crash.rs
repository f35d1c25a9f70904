//! Crashes, refusals and unknown outcomes at every call to the log of the command, and of the successor behind it.

use std::sync::Arc;

use processor::cutover::CutoverError;
use runtime::log::Log;
use runtime::log::fault::{At, Fault, FaultLog};

use super::world::{NEW, OLD, application, cutover, finish, ledger, old};
use super::{chain, followed};
use crate::fixture::{Fixture, QUERY, Trip, assert_same, naive};

const SEED: u64 = 11;

/// A state to begin from.
struct Start {
    fixture: Fixture,
    sql: String,
    rows: Vec<Trip>,
    /// What must have come out of it: each window once, and no row lost sight of.
    check: fn(&Fixture, &[Trip], &str),
    /// That each window was given once.
    given: fn(&Fixture, &[Trip], &str),
}

/// With rows that the old application has not read.
fn begin() -> Start {
    let (fixture, sql, rows) = followed(SEED, 3);
    super::put_ahead(&fixture, 1, 20_000);
    fixture.write(&rows[250..]);
    Start {
        fixture,
        sql,
        rows,
        check,
        given: |fixture, rows, what| assert_same(&fixture.results(), &naive(rows), what),
    }
}

/// The same of a job whose second query reads the results of the first.
fn begin_chained() -> Start {
    let (fixture, sql, rows) = chain::followed(SEED, 3);
    super::put_ahead(&fixture, 1, 20_000);
    fixture.write(&rows[250..]);
    Start {
        fixture,
        sql,
        rows,
        check: chain::check,
        given: chain::given,
    }
}

fn finish_new(fixture: &Fixture, log: Arc<dyn Log>, sql: &str) -> Result<(), String> {
    let mut options = application(fixture, log, NEW, sql);
    options.job.shards = 3;
    finish(fixture, options).map_err(|error| format!("{error:?}"))
}

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

fn survive(start: &Start, at: At, fault: Fault) {
    let (fixture, sql, rows) = (start.fixture.copy(), &start.sql, &start.rows);
    let what = format!("{fault:?} at {at:?}, seed {SEED}");
    let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, at, fault);
    if let Err(error) = cutover(&fixture, Arc::clone(&log) as _, sql) {
        assert!(log.crashed(), "{what}: {error:?}");
        fixture.forget_members();
        cutover(&fixture, Arc::clone(&fixture.log) as _, sql)
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
    finish_new(&fixture, Arc::clone(&fixture.log) as _, sql).unwrap();
    (start.check)(&fixture, rows, &what);
}

fn trace(start: &Start) -> Vec<&'static str> {
    let fixture = start.fixture.copy();
    let log = FaultLog::new(Arc::clone(&fixture.log) as Arc<dyn Log>);
    cutover(&fixture, Arc::clone(&log) as _, &start.sql).unwrap();
    log.trace()
}

#[test]
fn the_command_survives_a_crash_at_any_call() {
    crash_at_any_call(&begin());
}

#[test]
fn the_command_over_chained_queries_survives_a_crash_at_any_call() {
    crash_at_any_call(&begin_chained());
}

fn crash_at_any_call(start: &Start) {
    let steps = trace(start).len() as u64;
    // A crash behind a call leaves what one before the next call does.
    for step in 0..steps {
        survive(start, At::Step(step), Fault::CrashBefore);
    }
    survive(start, At::Step(steps - 1), Fault::CrashAfter);
}

#[test]
fn the_command_survives_aborts_and_unknown_outcomes() {
    aborts_and_unknown_outcomes(&begin());
}

#[test]
fn the_command_over_chained_queries_survives_aborts_and_unknown_outcomes() {
    aborts_and_unknown_outcomes(&begin_chained());
}

fn aborts_and_unknown_outcomes(start: &Start) {
    let trace = trace(start);
    let times = |call: &str| trace.iter().filter(|found| **found == call).count() as u64;
    assert!(times("producer.commit") >= 3, "{trace:?}");
    for nth in 0..times("producer.commit") {
        survive(
            start,
            At::Call("producer.commit", nth),
            Fault::UnknownButDone,
        );
        survive(
            start,
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
            survive(start, At::Call(call, nth), Fault::MustAbort);
        }
    }
}

#[test]
fn before_the_decision_the_old_application_can_go_on_and_behind_it_the_new_one_does() {
    before_and_behind(&begin());
}

#[test]
fn before_the_decision_the_old_chained_queries_can_go_on_and_behind_it_the_new_ones_do() {
    before_and_behind(&begin_chained());
}

fn before_and_behind(start: &Start) {
    let (mut before, mut behind) = (0, 0);
    let steps = trace(start).len() as u64;
    for step in (0..steps - 2).step_by(15).chain(steps - 2..steps) {
        let (fixture, sql, rows) = (start.fixture.copy(), &start.sql, &start.rows);
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
                (start.given)(&fixture, rows, &what);
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
                (start.check)(&fixture, rows, &what);
            }
        }
    }
    assert!(before > 1 && behind > 0, "{before} before, {behind} behind");
}

#[test]
fn the_successor_survives_a_crash_at_any_call() {
    successor_crashes(&begin(), 1);
}

#[test]
fn the_successor_of_chained_queries_survives_crashes_and_aborts() {
    successor_crashes(&begin_chained(), 2);
}

/// At every call, or at some: a run takes seconds where queries hear of each other.
fn successor_crashes(start: &Start, apart: usize) {
    let (fixture, sql) = (&start.fixture, &start.sql);
    cutover(fixture, Arc::clone(&fixture.log) as _, sql).unwrap();
    let clean = fixture.copy();
    let counting = FaultLog::new(Arc::clone(&clean.log) as Arc<dyn Log>);
    finish_new(&clean, Arc::clone(&counting) as _, sql).unwrap();
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
    for (at, fault) in faults.into_iter().step_by(apart) {
        let (fixture, sql, rows) = (start.fixture.copy(), &start.sql, &start.rows);
        let what = format!("{fault:?} at {at:?}, seed {SEED}");
        let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, at, fault);
        if let Err(error) = finish_new(&fixture, Arc::clone(&log) as _, sql) {
            assert!(log.crashed(), "{what}: {error}");
            fixture.forget_members();
            finish_new(&fixture, Arc::clone(&fixture.log) as _, sql).unwrap();
        }
        (start.check)(&fixture, rows, &what);
    }
}

#[test]
fn a_member_that_joins_while_the_command_runs_is_not_overtaken() {
    let start = begin();
    let fixture = start.fixture.copy();
    // The old application has started again, and is in the group when the command comes to its last transaction.
    let stop = {
        let options = old(&fixture, &start.sql);
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
    let error = cutover(&fixture, Arc::clone(&fixture.log) as _, &start.sql).unwrap_err();
    assert!(error.to_string().contains("has members"), "{error}");
    stop();
    cutover(&fixture, Arc::clone(&fixture.log) as _, &start.sql).unwrap();
    finish_new(&fixture, Arc::clone(&fixture.log) as _, &start.sql).unwrap();
    check(&fixture, &start.rows, "a member");
}

#[test]
fn whatever_the_old_chained_queries_left_open_when_they_crashed_is_gone_on_with() {
    const ROWS: usize = 550;
    let (start, sql, rows) = chain::begun(SEED, ROWS);
    // It reads on from there, to where it gives windows of both queries, and crashes.
    start.write(&rows[150..400]);
    let run = |fixture: &Fixture, log: &Arc<FaultLog>| {
        let options = application(fixture, Arc::clone(log) as _, OLD, &sql);
        let lifecycle = options.lifecycle.clone();
        let running = std::thread::spawn(move || processor::run(&options));
        let given = super::world::size(fixture, "q");
        while !running.is_finished() && super::world::size(fixture, "q") == given {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        lifecycle.stop();
        running.join().unwrap()
    };
    let clean = start.copy();
    let counting = FaultLog::new(Arc::clone(&clean.log) as Arc<dyn Log>);
    run(&clean, &counting).unwrap();
    let trace = counting.trace();
    let times = |call: &str| trace.iter().filter(|found| **found == call).count() as u64;
    let commits = times("producer.commit");
    let mut faults: Vec<(At, Fault)> = (0..times("producer.send"))
        .step_by(7)
        .map(|nth| (At::Call("producer.send", nth), Fault::CrashAfter))
        .collect();
    for nth in 0..commits {
        let at = || At::Call("producer.commit", nth);
        faults.push((at(), Fault::CrashBefore));
        faults.push((at(), Fault::CrashAfter));
    }
    let mut crashes = 0;
    // Some of them: each takes seconds, as both applications and the command run.
    let apart = (faults.len() / 20).max(1);
    for (at, fault) in faults
        .into_iter()
        .skip(SEED as usize % apart)
        .step_by(apart)
    {
        let fixture = start.copy();
        let what = format!("{fault:?} at {at:?} of the old one, seed {SEED}");
        let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, at, fault);
        let _ = run(&fixture, &log);
        crashes += usize::from(log.crashed());
        fixture.forget_members();
        let mut following = application(&fixture, Arc::clone(&fixture.log) as _, NEW, &sql);
        following.job.shards = 3;
        super::world::follow(&fixture, following);
        fixture.write(&rows[400..450]);
        cutover(&fixture, Arc::clone(&fixture.log) as _, &sql).unwrap();
        fixture.write(&rows[450..]);
        finish_new(&fixture, Arc::clone(&fixture.log) as _, &sql).unwrap();
        chain::check(&fixture, &rows, &what);
    }
    assert!(crashes > 5, "{crashes} crashes");
}
