//! Each server is away for two minutes in the middle of a run, and comes back.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::world::{Process, World};

const RATE: u32 = 400;
/// More than this, and memory grows with the length of an outage.
const MOST_MIB: u64 = 600;

fn local(verb: &str, component: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local");
    let status = Command::new(script)
        .args([verb, component])
        .status()
        .unwrap();
    assert!(status.success(), "deploy/local {verb} {component}");
}

fn rest(processes: &mut [Process], seconds: u64, what: &str) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < until {
        for process in &mut *processes {
            assert!(
                process.runs(),
                "{} ended while {what}:\n{}",
                process.name,
                process.tail()
            );
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// The servers are killed, so that nothing is said in parting. How long each is away: HEADWAY_TEST_OUTAGE_SECONDS.
#[test]
fn servers_that_are_away_for_two_minutes_cost_no_row_and_no_restart() {
    let Some(seconds) = std::env::var("HEADWAY_TEST_OUTAGE_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok())
    else {
        eprintln!(
            "skipped: real::outages: set HEADWAY_TEST_OUTAGE_SECONDS=120 (it takes the servers down)"
        );
        return;
    };
    let Some(world) = World::new("outages", 300_000) else {
        return;
    };
    let mut processes = vec![world.spawn("producer", world.producer(RATE))];
    world.wait_for_schema("trips");
    processes.push(world.spawn("processor", world.binary("processor", &["--instance", "a"])));
    processes.push(world.spawn("sink-s3", world.binary("sink-s3", &[])));
    world.wait_for_schema("statistics");
    world.set_up_index();
    processes.push(world.spawn("sink-opensearch", world.binary("sink-opensearch", &[])));
    for component in ["kafka4", "minio", "opensearch", "registry"] {
        rest(&mut processes, 10, "all servers were there");
        local("kill", component);
        rest(&mut processes, seconds, &format!("{component} was away"));
        local("up", component);
        rest(
            &mut processes,
            30,
            &format!("{component} had just come back"),
        );
    }
    for process in &processes {
        eprintln!("{} had at most {} MiB", process.name, process.peak_mib());
        assert!(
            process.peak_mib() < MOST_MIB,
            "{} had {} MiB",
            process.name,
            process.peak_mib()
        );
    }
    processes.iter_mut().for_each(Process::stop);
    world.finish_and_check();
}
