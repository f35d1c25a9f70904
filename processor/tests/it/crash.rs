//! Crashes, refusals and unknown outcomes at every call to the log: the end result is as if nothing had happened.

use std::sync::Arc;

use runtime::log::Log;
use runtime::log::fault::{At, Fault, FaultLog};

use crate::fixture::{Fixture, assert_same, job_sql, naive, trips};

const SEED: u64 = 11;

/// A run with a fault, then runs without one until the input is finished.
fn survive(at: At, fault: Fault) {
    let what = format!("{fault:?} at {at:?}, seed {SEED}");
    let rows = trips(SEED, 160, 30_000);
    let fixture = Fixture::new(2);
    fixture.write(&rows);
    let sql = job_sql("1 minute", "");
    let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, at, fault);
    let first = fixture.drain(Arc::clone(&log) as _, &sql);
    if let Err(error) = first {
        assert!(log.crashed(), "{what}: {error:?}");
        fixture.forget_members();
        fixture
            .drain(Arc::clone(&fixture.log) as _, &sql)
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
    }
    assert_same(&fixture.results(), &naive(&rows), &what);
    let ledger = fixture.ledger();
    assert_eq!(ledger.rows_in, 160, "{what}");
    assert_eq!(ledger.rows_in, ledger.assigned + ledger.filtered, "{what}");
    assert_eq!((ledger.merged, ledger.late), (ledger.assigned, 0), "{what}");
    assert_eq!(ledger.emitted, naive(&rows).len() as u64, "{what}");
}

fn clean_trace() -> Vec<&'static str> {
    let fixture = Fixture::new(2);
    fixture.write(&trips(SEED, 160, 30_000));
    let log = FaultLog::new(Arc::clone(&fixture.log) as Arc<dyn Log>);
    fixture
        .drain(Arc::clone(&log) as _, &job_sql("1 minute", ""))
        .unwrap();
    log.trace()
}

#[test]
fn a_crash_before_any_call_loses_no_row_and_counts_none_twice() {
    for step in 0..clean_trace().len() as u64 {
        survive(At::Step(step), Fault::CrashBefore);
    }
}

#[test]
fn a_crash_after_any_call_loses_no_row_and_counts_none_twice() {
    for step in 0..clean_trace().len() as u64 {
        survive(At::Step(step), Fault::CrashAfter);
    }
}

#[test]
fn a_commit_of_unknown_outcome_is_settled() {
    let commits = clean_trace()
        .iter()
        .filter(|call| **call == "producer.commit")
        .count() as u64;
    assert!(commits > 3, "{commits} commits");
    for nth in 0..commits {
        survive(At::Call("producer.commit", nth), Fault::UnknownButDone);
        survive(At::Call("producer.commit", nth), Fault::UnknownAndNotDone);
    }
}

#[test]
fn a_refused_transaction_is_done_again() {
    let trace = clean_trace();
    for call in [
        "producer.begin",
        "producer.send",
        "producer.flush",
        "producer.send_offsets",
        "producer.commit",
    ] {
        for nth in 0..trace.iter().filter(|found| **found == call).count() as u64 {
            survive(At::Call(call, nth), Fault::MustAbort);
        }
    }
}

#[test]
fn a_transaction_that_the_log_timed_out_is_done_again() {
    let trace = clean_trace();
    for call in [
        "producer.init_transactions",
        "producer.begin",
        "producer.send",
        "producer.flush",
        "producer.send_offsets",
        "producer.commit",
    ] {
        for nth in 0..trace.iter().filter(|found| **found == call).count() as u64 {
            survive(At::Call(call, nth), Fault::TimedOut);
        }
    }
}

#[test]
fn a_broker_that_is_away_for_a_moment_is_waited_for() {
    for step in 0..clean_trace().len() as u64 {
        survive(At::Step(step), Fault::Unreachable);
    }
}

#[test]
fn a_refusal_at_any_call_ends_the_run_with_its_reason_and_once_it_is_allowed_nothing_is_missing() {
    let rows = trips(SEED, 160, 30_000);
    let sql = job_sql("1 minute", "");
    let mut refused = 0;
    let trace = clean_trace();
    for (step, call) in (0..).zip(&trace) {
        let what = format!("step {step}, {call}");
        let fixture = Fixture::new(2);
        fixture.write(&rows);
        let at = At::Step(step);
        let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, at, Fault::NotAllowed);
        let ended = fixture.drain(Arc::clone(&log) as _, &sql);
        // Polls differ from run to run: it may have come to its end before that step. Whoever leaves need not be allowed to.
        let struck = log.trace().get(step as usize).copied();
        if struck != Some("consumer.close") {
            assert_eq!(
                ended.is_err(),
                struck.is_some(),
                "{what}: {struck:?}: {ended:?}"
            );
        }
        if let Err(error) = ended {
            let mut cause: Option<&dyn std::error::Error> = Some(&error);
            let mut text = String::new();
            while let Some(error) = cause {
                text.push_str(&error.to_string());
                cause = error.source();
            }
            assert!(text.contains("the log refuses to"), "{what}: {text}");
            refused += 1;
            fixture.forget_members();
        }
        fixture
            .drain(Arc::clone(&fixture.log) as _, &sql)
            .unwrap_or_else(|error| panic!("{what}: {error:?}"));
        assert_same(&fixture.results(), &naive(&rows), &what);
    }
    assert!(refused * 2 > trace.len(), "{refused} of {}", trace.len());
}
