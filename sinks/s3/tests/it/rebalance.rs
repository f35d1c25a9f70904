//! Several workers in one group.

use std::thread;
use std::time::Duration;

use runtime::lifecycle::Lifecycle;
use sink_s3::Options;

use crate::flushes::wait_until;
use crate::world::World;

#[test]
fn workers_that_come_and_go_lose_and_double_nothing() {
    let mut world = World::new(6);
    world.produce(2_000, Some(101));
    let start = |world: &World| {
        let options = Options {
            lifecycle: Lifecycle::new(),
            ..world.options()
        };
        let handles = (options.lifecycle.clone(), options.progress.clone());
        (thread::spawn(move || sink_s3::run(options)), handles)
    };
    let (first, (first_life, first_progress)) = start(&world);
    wait_until(|| first_progress.counts().flushes > 3);
    let (second, (second_life, second_progress)) = start(&world);
    // However late it gets its partitions, there is something for it to do.
    let mut rows = 2_000_u64;
    while second_progress.counts().flushes <= 3 {
        assert!(!second.is_finished(), "the second one ended");
        let done = first_progress.counts().rows + second_progress.counts().rows;
        if done + 600 > rows {
            world.produce(300, Some(101));
            rows += 300;
        }
        thread::sleep(Duration::from_millis(5));
    }
    first_life.stop();
    first.join().unwrap().unwrap();
    world.produce(1_000, Some(101));
    let (third, (third_life, _)) = start(&world);
    world.produce(1_000, Some(101));
    second_life.drain();
    third_life.drain();
    let second = second.join().unwrap().unwrap();
    let third = third.join().unwrap().unwrap();
    assert!(second.counts.rows > 0);
    world.check();
    assert_eq!(
        first_progress.counts().rows + second.counts.rows + third.counts.rows,
        rows + 2_000
    );
}

#[test]
fn a_worker_that_falls_silent_is_followed_by_another() {
    // It is abandoned with its group membership, as a process that hangs is; a second one takes over and finishes.
    use runtime::log::fault::{At, Fault, FaultLog};
    let mut world = World::new(2);
    world.produce(400, Some(31));
    for nth in 0..4 {
        let log = FaultLog::with_fault(
            world.log.clone(),
            At::Call("consumer.commit", nth),
            Fault::CrashAfter,
        );
        let silent = sink_s3::run(world.options_on(log.clone()));
        assert!(log.crashed() && silent.is_err());
    }
    world.run().unwrap();
    world.check();
}
