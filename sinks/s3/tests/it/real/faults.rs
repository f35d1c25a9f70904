//! Stores that are slow, that fail, that are away, and that store without saying so.

use std::thread;
use std::time::{Duration, Instant};

use runtime::lifecycle::Lifecycle;
use runtime::log::fault::{At, Fault as LogFault, FaultLog};
use sink_s3::{FlushOptions, Lake, Location, Options};

use super::proxy::{Fault, Proxy};
use super::servers::{Server, on_servers};
use crate::world::{Row, START};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

fn wait_until(what: &str, mut happened: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < PATIENCE, "it did not happen that {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_flush_that_is_done_again_finds_its_files_and_doubles_nothing() {
    on_servers("a_flush_that_is_done_again", |server| {
        let mut world = server.world(2);
        world.produce(110, Some(13));
        // the files of one flush at least are there, and its end is not committed
        let log = FaultLog::with_fault(
            world.log.clone(),
            At::Call("consumer.commit", 2),
            LogFault::CrashBefore,
        );
        let lake = Lake::At(server.location());
        let options = Options {
            lake,
            ..world.options_on(log)
        };
        sink_s3::run(options).unwrap_err();
        assert!(!world.files().is_empty());
        world.restart();
        let options = server.options(&world, &server.endpoint);
        let metrics = options.metrics.clone();
        sink_s3::run(options).unwrap();
        assert!(metrics.objects_present.get() > 0);
        world.check();
    });
}

#[test]
fn large_files_are_found_though_a_store_may_close_before_it_has_read_them() {
    on_servers("large_files", |server| {
        let mut world = server.world(1);
        // text that does not shrink: one file of some megabytes
        let mut state = 1_u64;
        let mut noise = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'!' + (state >> 33) as u8 % 90)
        };
        let values = (0..30)
            .map(|number| {
                let row = Row {
                    vendor: 1,
                    at: START,
                    note: Some((0..300_000).map(|_| noise()).collect()),
                    ..Row::new(number)
                };
                (0, row.encode(world.schema), Some(row))
            })
            .collect();
        world.send(values);
        let log = FaultLog::with_fault(
            world.log.clone(),
            At::Call("consumer.commit", 1),
            LogFault::CrashBefore,
        );
        let options = Options {
            lake: Lake::At(server.location()),
            ..world.options_on(log)
        };
        sink_s3::run(options).unwrap_err();
        let size = world
            .objects(&world.store)
            .values()
            .map(|bytes| bytes.len())
            .max();
        assert!(size > Some(4 << 20), "{size:?}");
        world.restart();
        let options = server.options(&world, &server.endpoint);
        let metrics = options.metrics.clone();
        sink_s3::run(options).unwrap();
        assert_eq!(metrics.objects_present.get(), 1);
        world.check();
    });
}

/// A run in which every third put meets a fault.
fn with_every_third(server: &Server, fault: Fault, request_timeout: Duration) -> u64 {
    let mut world = server.world(2);
    world.produce(110, Some(13));
    // the first two puts are the look at the start
    let proxy = Proxy::new(server.address(), move |put| {
        if put > 1 && put % 3 == 0 {
            fault
        } else {
            Fault::None
        }
    });
    let location = Location {
        endpoint: Some(proxy.endpoint()),
        request_timeout,
        ..server.location()
    };
    let options = server.options_at(&world, location);
    let metrics = options.metrics.clone();
    sink_s3::run(options).unwrap();
    assert!(proxy.faults() > 5, "{} faults", proxy.faults());
    assert_eq!(metrics.uploads_waiting.get(), 0);
    world.check();
    metrics.objects_present.get()
}

#[test]
fn an_answer_that_is_lost_after_the_store_has_stored_doubles_nothing() {
    on_servers("an_answer_that_is_lost", |server| {
        let present = with_every_third(server, Fault::LoseAnswer, PATIENCE);
        assert!(present > 5, "{present} objects were there already");
    });
}

#[test]
fn an_answer_that_never_comes_after_the_store_has_stored_doubles_nothing() {
    on_servers("an_answer_that_never_comes", |server| {
        let present = with_every_third(server, Fault::HoldAnswer, Duration::from_millis(500));
        assert!(present > 5, "{present} objects were there already");
    });
}

#[test]
fn a_put_that_fails_or_takes_its_time_is_there_once() {
    on_servers("a_put_that_fails", |server| {
        for fault in [
            Fault::Cut,
            Fault::SlowDown,
            Fault::Delay(Duration::from_millis(200)),
        ] {
            with_every_third(&server.elsewhere(), fault, PATIENCE);
        }
    });
}

#[test]
fn while_the_store_is_away_the_sink_stays_in_its_group_in_bounded_memory_and_goes_on_by_itself() {
    on_servers("while_the_store_is_away", |server| {
        const MEMORY: usize = 256 << 10;
        let mut world = server.world(6);
        world.produce(20_000, Some(97));
        let proxy = Proxy::new(server.address(), |_| Fault::None);
        let options = server.options(&world, &proxy.endpoint());
        let lifecycle = Lifecycle::new();
        let options = Options {
            lifecycle: lifecycle.clone(),
            flush: FlushOptions {
                rows: 1_000_000,
                memory_bytes: MEMORY,
                ..FlushOptions::default()
            },
            ..options
        };
        let (metrics, progress) = (options.metrics.clone(), options.progress.clone());
        let run = thread::spawn(move || sink_s3::run(options));
        wait_until("a flush was done", || progress.counts().flushes > 0);

        proxy.down();
        // However much was put by then, there is more than memory has room for.
        world.produce(20_000, Some(97));
        wait_until("a put failed", || metrics.uploads_waiting.get() > 0);
        let began = Instant::now();
        let mut most = 0;
        while began.elapsed() < Duration::from_secs(3) {
            most = most.max(metrics.memory_bytes.get());
            thread::sleep(Duration::from_millis(20));
        }
        wait_until("it was tried again", || metrics.upload_retries.get() > 3);
        let read = progress.counts().read;
        assert!(!run.is_finished());
        assert!(
            read < 40_000,
            "all {read} records were read while nothing could be put"
        );
        assert!(most < 2 * MEMORY as i64, "{most} bytes of rows in memory");

        proxy.up();
        wait_until("all puts succeeded", || metrics.uploads_waiting.get() == 0);
        lifecycle.drain();
        run.join().unwrap().unwrap();
        assert_eq!(metrics.rejoins.get(), 0, "the sink never left its group");
        world.check();
    });
}

#[test]
fn a_start_waits_for_a_store_that_comes_up() {
    on_servers("a_start_waits", |server| {
        let mut world = server.world(1);
        world.produce(10, None);
        let proxy = Proxy::new(server.address(), |_| Fault::None);
        proxy.down();
        let options = Options {
            start_deadline: PATIENCE,
            ..server.options(&world, &proxy.endpoint())
        };
        let run = thread::spawn(move || sink_s3::run(options));
        thread::sleep(Duration::from_millis(400));
        assert!(!run.is_finished());
        proxy.up();
        run.join().unwrap().unwrap();
        world.check();
    });
}
