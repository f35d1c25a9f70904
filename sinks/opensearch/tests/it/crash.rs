//! Crashes, unknown outcomes and passing failures at every step.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use runtime::log::fault::{At, Fault, FaultLog};
use sink_opensearch::{Document, Outcome, SinkError, SqliteTarget, Target, TargetError, run};

use crate::support::World;

struct Case {
    _folder: tempfile::TempDir,
    world: World,
    target: Arc<SqliteTarget>,
}

fn case() -> Case {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&folder.path().join("log"));
    world.write(150, true);
    let target = Arc::new(SqliteTarget::open(folder.path().join("documents")).unwrap());
    Case {
        _folder: folder,
        world,
        target,
    }
}

/// The steps of a run without faults.
fn steps() -> u64 {
    let case = case();
    let log = FaultLog::new(case.world.log.clone());
    let mut options = case.world.options(log.clone(), case.target.clone());
    small(&mut options);
    run(options).unwrap();
    case.world.check(&case.target, "no fault");
    let trace = log.trace();
    for step in [
        "consumer.commit",
        "producer.flush",
        "consumer.assign",
        "consumer.poll",
        "consumer.close",
    ] {
        assert!(trace.contains(&step), "{trace:?}");
    }
    log.steps()
}

/// Several rounds, several bulks each.
fn small(options: &mut sink_opensearch::Options) {
    options.flush_bytes = 8 << 10;
    options.pacing.max_bulk_bytes = 2 << 10;
    options.lifecycle.drain();
}

fn in_parallel(count: u64, test: impl Fn(u64) + Sync) {
    let next = std::sync::atomic::AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    test(number);
                }
            });
        }
    });
}

#[test]
fn a_crash_at_any_step_at_the_log_loses_and_doubles_nothing() {
    let steps = steps();
    in_parallel(steps * 2, |number| {
        let (step, fault) = (
            number / 2,
            [Fault::CrashBefore, Fault::CrashAfter][(number % 2) as usize],
        );
        let case = case();
        let log = FaultLog::with_fault(case.world.log.clone(), At::Step(step), fault);
        let mut options = case.world.options(log.clone(), case.target.clone());
        small(&mut options);
        let crashed = run(options);
        // the number of steps may differ a little by time; closing is the last one, and what it says is only logged
        assert!(
            crashed.is_err() || !log.crashed() || log.trace().last() == Some(&"consumer.close"),
            "{step} {fault:?}"
        );
        case.world.drain(case.target.clone()).unwrap();
        case.world.check(&case.target, &format!("{step} {fault:?}"));
    });
}

#[test]
fn unknown_outcomes_and_passing_failures_at_any_step_need_no_restart() {
    let steps = steps();
    let faults = [
        Fault::UnknownButDone,
        Fault::UnknownAndNotDone,
        Fault::Unreachable,
    ];
    in_parallel(steps * 3, |number| {
        let (step, fault) = (number / 3, faults[(number % 3) as usize]);
        let case = case();
        let log = FaultLog::with_fault(case.world.log.clone(), At::Step(step), fault);
        let mut options = case.world.options(log.clone(), case.target.clone());
        small(&mut options);
        let outcome = run(options);
        assert!(
            outcome.is_ok(),
            "{step} {fault:?} {:?}: {outcome:?}",
            log.trace().get(step as usize)
        );
        case.world.check(&case.target, &format!("{step} {fault:?}"));
    });
}

/// Dies at its nth call, before or after it takes effect.
struct Dying {
    inner: Arc<SqliteTarget>,
    calls: AtomicUsize,
    at: usize,
    after: bool,
}

impl Target for Dying {
    fn write(&self, documents: &[&Document]) -> Result<Vec<Outcome>, TargetError> {
        let dead = || TargetError::Storage {
            path: PathBuf::from("documents"),
            detail: "killed".into(),
        };
        match self.calls.fetch_add(1, Ordering::Relaxed) {
            call if call < self.at => self.inner.write(documents),
            call if call == self.at && self.after => self.inner.write(documents).and(Err(dead())),
            _ => Err(dead()),
        }
    }

    fn count(&self, pattern: &str, only: Option<&str>) -> Result<u64, TargetError> {
        self.inner.count(pattern, only)
    }

    fn name(&self) -> &str {
        "dying"
    }
}

#[test]
fn a_crash_before_or_after_any_call_to_the_target_loses_and_doubles_nothing() {
    in_parallel(40, |number| {
        let (at, after) = ((number / 2) as usize, number % 2 == 0);
        let case = case();
        let dying = Arc::new(Dying {
            inner: case.target.clone(),
            calls: AtomicUsize::new(0),
            at,
            after,
        });
        let mut options = case.world.options(case.world.log.clone(), dying.clone());
        small(&mut options);
        let outcome = run(options);
        let struck = dying.calls.load(Ordering::Relaxed) > at;
        assert_eq!(
            struck,
            matches!(outcome, Err(SinkError::Target(_))),
            "{at} {after}: {outcome:?}"
        );
        case.world.drain(case.target.clone()).unwrap();
        case.world
            .check(&case.target, &format!("call {at}, after {after}"));
    });
}

#[test]
fn a_replay_from_the_start_changes_nothing() {
    let case = case();
    case.world.drain(case.target.clone()).unwrap();
    let before = case.target.documents("*").unwrap();
    let mut options = case
        .world
        .options(case.world.log.clone(), case.target.clone());
    options.consumer.group = "another".into();
    options.lifecycle.drain();
    let summary = run(options).unwrap();
    assert_eq!(
        (summary.stored, summary.conflicts),
        (0, case.world.records - case.world.dead.len() as u64)
    );
    assert_eq!(case.target.documents("*").unwrap(), before);
}
