//! A crash, or an outcome that nobody knows, at each step of the protocol.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use runtime::log::fault::{At, Fault, FaultLog};
use sink_s3::{FlushOptions, Lake, Options, SinkError};

use crate::store::{FaultStore, PutFault};
use crate::world::World;

/// Two partitions, two flushes in each, good and bad records.
fn small() -> World {
    let mut world = World::new(2);
    world.produce(110, Some(13));
    world
}

/// The steps that a clean run takes.
fn steps_of_a_clean_run() -> Vec<&'static str> {
    let world = small();
    let log = FaultLog::new(world.log.clone());
    sink_s3::run(world.options_on(log.clone())).unwrap();
    world.check();
    log.trace()
}

#[test]
fn a_crash_at_any_step_at_the_log_loses_and_doubles_nothing() {
    let steps = steps_of_a_clean_run();
    for needed in [
        "consumer.commit",
        "consumer.assign",
        "consumer.committed",
        "producer.send",
        "producer.flush",
    ] {
        assert!(
            steps.contains(&needed),
            "the run has no {needed}: {steps:?}"
        );
    }
    for step in 0..steps.len() as u64 {
        for fault in [Fault::CrashBefore, Fault::CrashAfter] {
            let mut world = small();
            let log = FaultLog::with_fault(world.log.clone(), At::Step(step), fault);
            let ended = sink_s3::run(world.options_on(log.clone()));
            if log.crashed() {
                world.restart();
                world
                    .run_differently()
                    .unwrap_or_else(|error| panic!("after {fault:?} at step {step}: {error}"));
            } else {
                // the runs' steps differ a little, since uploads take their time
                ended.unwrap();
            }
            world.check();
        }
    }
}

#[test]
fn an_unknown_outcome_at_any_step_is_read_again() {
    let steps = steps_of_a_clean_run();
    for step in 0..steps.len() as u64 {
        for fault in [
            Fault::UnknownButDone,
            Fault::UnknownAndNotDone,
            Fault::Unreachable,
            Fault::MustAbort,
        ] {
            let world = small();
            let log = FaultLog::with_fault(world.log.clone(), At::Step(step), fault);
            sink_s3::run(world.options_on(log)).unwrap_or_else(|error| {
                panic!(
                    "{fault:?} at step {step} ({}): {error}",
                    steps[step as usize]
                );
            });
            world.check();
        }
    }
}

fn with_store(options: Options, store: Arc<dyn ObjectStore>) -> Options {
    Options {
        lake: Lake::Store {
            store,
            prefix: Path::from("lake"),
        },
        ..options
    }
}

#[test]
fn a_crash_at_any_put_loses_and_doubles_nothing() {
    let world = small();
    let store = FaultStore::new(world.store.clone(), PutFault::FailBefore, 0..0, || {});
    sink_s3::run(with_store(world.options(), store.clone())).unwrap();
    world.check();
    assert!(store.puts() > 20);
    for put in 0..store.puts() {
        for fault in [PutFault::CrashBefore, PutFault::CrashAfter] {
            let mut world = small();
            let log = FaultLog::new(world.log.clone());
            let dying = log.clone();
            let store = FaultStore::new(world.store.clone(), fault, put..put + 1, move || {
                dying.crash()
            });
            let ended = sink_s3::run(with_store(world.options_on(log), store));
            assert!(
                matches!(ended, Err(SinkError::Log { .. })),
                "{fault:?} at put {put}: {ended:?}"
            );
            world.restart();
            world.run_differently().unwrap();
            world.check();
        }
    }
}

#[test]
fn a_put_that_fails_is_put_again_until_it_is_there() {
    for fault in [
        PutFault::FailBefore,
        PutFault::FailAfter,
        PutFault::NoConditions,
    ] {
        let world = small();
        let store = FaultStore::new(world.store.clone(), fault, 1..9, || {});
        sink_s3::run(with_store(world.options(), store)).unwrap();
        world.check();
    }
}

#[test]
fn crash_after_crash_ends_with_the_same_lake() {
    let mut world = small();
    let mut crashes = 0;
    for step in 3.. {
        let log = FaultLog::with_fault(world.log.clone(), At::Step(step), Fault::CrashAfter);
        let options = world.options_on(log.clone());
        let flush = FlushOptions {
            rows: 20 + 7 * (step % 4),
            ..options.flush
        };
        let ended = sink_s3::run(Options { flush, ..options });
        if !log.crashed() {
            ended.unwrap();
            break;
        }
        crashes += 1;
        world.restart();
    }
    assert!(crashes > 5, "{crashes} crashes");
    world.check();
}

#[test]
fn a_flush_that_is_done_again_gives_the_same_bytes() {
    // Crash before the first flush's end is committed; then lose its files, as a store would not, and do it again.
    let mut world = World::new(1);
    world.produce(110, Some(13));
    let log = FaultLog::with_fault(
        world.log.clone(),
        At::Call("consumer.commit", 1),
        Fault::CrashBefore,
    );
    sink_s3::run(world.options_on(log)).unwrap_err();
    let first = world.objects(&world.store);
    assert!(!first.is_empty());
    world.store = Arc::new(object_store::memory::InMemory::new());
    world.restart();
    world.run_differently().unwrap();
    let second = world.objects(&world.store);
    let again: Vec<&String> = first
        .keys()
        .filter(|name| second.contains_key(*name))
        .collect();
    assert!(!again.is_empty());
    for name in again {
        assert_eq!(first[name], second[name], "{name}");
    }
    world.check();
}
