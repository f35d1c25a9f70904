//! SIGKILL at random moments: the folder goes on as if nothing had happened.

use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::oracle;
use crate::run::{assert_complete, demo, generate, ledger, text};

#[test]
fn a_demo_that_is_killed_twenty_times_ends_with_the_same_result() {
    let seed = std::env::var("HEADWAY_TEST_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or_else(|| {
            SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap()
                .as_nanos() as u64
        });
    eprintln!("HEADWAY_TEST_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let file = generate(folder.path(), 60_000, seed % 1000);
    let dir = folder.path().join("run");
    let mut killed = 0;
    let mut finished = 0;
    while killed < 20 {
        // So slow that the input lasts for all twenty.
        let mut child = demo(&file, &dir, &["--rate", "3000"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(rng.random_range(20..1500)));
        if child.try_wait().unwrap().is_some() {
            finished += 1;
            if finished > 3 {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        killed += 1;
    }
    let output = demo(&file, &dir, &["--rate", "0"]).output().unwrap();
    assert!(
        output.status.success(),
        "seed {seed}: {}",
        text(&output.stderr)
    );
    assert_complete(
        &dir,
        &oracle::read(&file),
        &ledger(&output),
        &format!("killed twenty times, seed {seed}"),
    );
}
