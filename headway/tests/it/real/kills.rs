//! SIGKILL at random moments, to every binary, over Apache Kafka.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::world::World;

const KILLS: u32 = 30;
/// Each process lives this long at most. A killed member's partitions are free after 6 s.
const LONGEST_MS: u64 = 14_000;
/// Rows a second: the file lasts for all kills.
const RATE: u32 = 650;

/// Two processors share the work; while one is down the other goes on, and gives back what the first takes again.
#[test]
fn every_binary_killed_thirty_times_leaves_no_row_lost_or_twice() {
    let Some(world) = World::new("kills", 200_000) else {
        return;
    };
    let begun = Instant::now();
    let first = world.spawn("producer", world.producer(RATE));
    world.wait_for_schema("trips");
    drop(first);
    let killed = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let world = &world;
        let killed = &killed;
        for (at, name) in [
            "producer",
            "processor-a",
            "processor-b",
            "sink-s3",
            "sink-opensearch",
        ]
        .into_iter()
        .enumerate()
        {
            scope.spawn(move || {
                let mut rng = ChaCha8Rng::seed_from_u64(world.seed.wrapping_add(at as u64));
                if name == "sink-opensearch" {
                    world.wait_for_schema("statistics");
                    world.set_up_index();
                }
                for _ in 0..KILLS {
                    let command = match name {
                        "producer" => world.producer(RATE),
                        "processor-a" => world.binary("processor", &["--instance", "a"]),
                        "processor-b" => world.binary("processor", &["--instance", "b"]),
                        sink => world.binary(sink, &[]),
                    };
                    let mut process = world.spawn(name, command);
                    std::thread::sleep(Duration::from_millis(rng.random_range(300..LONGEST_MS)));
                    assert!(
                        process.runs(),
                        "{name} ended by itself, seed {}:\n{}",
                        world.seed,
                        process.tail()
                    );
                    process.kill();
                    killed.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(killed.load(Ordering::SeqCst), 5 * KILLS);
    world.finish_and_check();
    eprintln!(
        "killed {} processes; {} rows; {} s",
        5 * KILLS,
        world.rows.good.len(),
        begun.elapsed().as_secs()
    );
}
