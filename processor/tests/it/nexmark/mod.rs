//! Nexmark's queries against the answers of SQLite over the same events; and again with crashes at commits.

mod generator;
mod world;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::log::fault::{At, Fault, FaultLog};

use self::generator::Generator;
use self::world::{Size, World};
use crate::golden::{Row, assert_equal, results};

const QUERIES: [&str; 8] = ["q0", "q1", "q2", "q3", "q5", "q7", "q11", "q12"];

/// Seeds, events per second, the groups within which events are out of order, partitions, shards, workers. A group takes
/// up to the five seconds that the jobs' out_of_orderness allows.
const CASES: [(u64, u64, u64, i32, u32, u32); 5] = [
    (101, 10, 1, 1, 1, 1),
    (102, 40, 200, 3, 3, 1),
    (103, 10, 50, 2, 4, 2),
    (104, 3, 15, 4, 2, 1),
    (105, 10, 27, 3, 2, 2),
];

fn cases() -> impl Iterator<Item = (Generator, Size)> {
    CASES.into_iter().map(|case| {
        let (seed, events_per_second, group, partitions, shards, workers) = case;
        let generator = Generator {
            seed,
            first_ms: 1_451_606_400_000,
            events_per_second,
            group,
        };
        assert!(generator.disorder_ms() <= 5_000);
        let size = Size {
            events: 4_000,
            partitions,
            shards,
            workers,
        };
        (generator, size)
    })
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/nexmark")
}

/// A query's text, its sink's key, and what SQLite answers.
struct Asked {
    job: String,
    key: Vec<String>,
    answer: Vec<Row>,
}

impl Asked {
    fn of(name: &str, world: &World) -> Self {
        let read = |file: String| std::fs::read_to_string(folder().join(file)).unwrap();
        let job = read(format!("{name}.sql"));
        let answer = world.ask(&read(format!("{name}.sqlite.sql")));
        assert!(answer.len() >= 3, "{name}: {} rows", answer.len());
        let key = engine::sql::parse(&job).unwrap().sinks["out"].key.clone();
        Self { job, key, answer }
    }

    fn holds(&self, world: &World, what: &str) {
        let found = results(world.fixture(), what);
        assert_equal(&found, &self.answer, &self.key, what);
    }
}

#[test]
fn each_query_gives_what_a_batch_engine_gives_and_the_same_after_crashes() {
    for (generator, size) in cases() {
        // A run waits more than it works.
        std::thread::scope(|scope| {
            for name in QUERIES {
                scope.spawn(move || survives(name, generator, size));
            }
        });
    }
}

fn survives(name: &str, generator: Generator, size: Size) {
    let what = format!("{name}, {generator:?}, {size:?}");
    eprintln!("{what}");
    let world = World::new(generator, size);
    let asked = Asked::of(name, &world);
    world.drain(world.log(), &asked.job).unwrap();
    asked.holds(&world, &what);
    // One worker, so that what it does at its nth commit differs little from run to run.
    let size = Size { workers: 1, ..size };
    let world = World::new(generator, size);
    let log = FaultLog::new(world.log());
    world.drain(Arc::clone(&log) as _, &asked.job).unwrap();
    asked.holds(&world, &what);
    let commits = log.trace();
    let commits = commits.iter().filter(|call| **call == "producer.commit");
    let commits = commits.count() as u64;
    assert!(commits > 10, "{what}: {commits} commits");
    let mut crashes = 0;
    for (nth, fault) in [
        (generator.seed % 3, Fault::CrashAfter),
        (commits / 3, Fault::CrashBefore),
        (commits / 2, Fault::CrashAfter),
        (commits * 2 / 3, Fault::CrashBefore),
    ] {
        let what = format!("{what}, {fault:?} at commit {nth}");
        let world = World::new(generator, size);
        let at = At::Call("producer.commit", nth);
        let log = FaultLog::with_fault(world.log(), at, fault);
        if world.drain(Arc::clone(&log) as _, &asked.job).is_err() {
            assert!(log.crashed(), "{what}");
            crashes += 1;
            world.fixture().forget_members();
            world.drain(world.log(), &asked.job).unwrap();
        }
        asked.holds(&world, &what);
    }
    // How many commits a run has depends on its pace: the last one may not come.
    assert!(crashes >= 3, "{what}: {crashes} crashes");
}

#[test]
fn a_query_that_asks_for_something_else_is_told_apart() {
    let (generator, size) = cases().nth(3).unwrap();
    std::thread::scope(|scope| {
        for (name, right, wrong) in [
            ("q0", "FROM bids", "FROM bids WHERE price > 1000"),
            ("q1", "0.908", "0.9080001"),
            ("q2", "% 123", "% 124"),
            ("q3", "'OR', 'ID'", "'OR', 'WY'"),
            ("q3", "category = 10", "category >= 10"),
            // What is out of order is late.
            ("q5", "INTERVAL '5 seconds'", "INTERVAL '0 seconds'"),
            ("q5", "DESC, auction", "DESC, auction DESC"),
            ("q7", "max_by(bidder, price)", "max_by(bidder, date_time)"),
            ("q11", "INTERVAL '10 seconds'", "INTERVAL '9 seconds'"),
            ("q12", "'record_time'", "'date_time'"),
        ] {
            scope.spawn(move || {
                let world = World::new(generator, size);
                let asked = Asked::of(name, &world);
                assert!(asked.job.contains(right), "{name}: {right}");
                let mut job = asked.job.replace(right, wrong);
                if right == "'record_time'" {
                    job = job.replace("TUMBLE(bids, record_time", "TUMBLE(bids, date_time");
                }
                world.drain(world.log(), &job).unwrap();
                let found = results(world.fixture(), name);
                let texts = |rows: &[Row]| -> BTreeSet<String> {
                    rows.iter().map(|row| format!("{row:?}")).collect()
                };
                assert!(
                    texts(&found) != texts(&asked.answer),
                    "{name} with {wrong} is not told apart"
                );
            });
        }
    });
}
