//! A target that goes away and comes back; members that come and go.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use runtime::telemetry::{HttpEdge, Readiness};
use sink_opensearch::{Document, Outcome, SqliteTarget, Target, TargetError, run};

use crate::support::{World, eventually, start};

/// A target that can be switched off.
struct Switched {
    inner: SqliteTarget,
    down: AtomicBool,
    refused: AtomicUsize,
}

impl Target for Switched {
    fn write(&self, documents: &[&Document]) -> Result<Vec<Outcome>, TargetError> {
        if self.down.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(TargetError::Unreachable {
                target: "switched".into(),
                detail: "switched off".into(),
            });
        }
        self.inner.write(documents)
    }

    fn count(&self, pattern: &str, only: Option<&str>) -> Result<u64, TargetError> {
        self.inner.count(pattern, only)
    }

    fn name(&self) -> &str {
        "switched"
    }
}

fn switched(folder: &tempfile::TempDir) -> Arc<Switched> {
    let inner = SqliteTarget::open(folder.path().join("documents")).unwrap();
    Arc::new(Switched {
        inner,
        down: AtomicBool::new(false),
        refused: AtomicUsize::new(0),
    })
}

#[test]
fn an_outage_pauses_reading_within_its_memory_and_goes_on_without_loss() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&folder.path().join("log"));
    let target = switched(&folder);
    let mut options = world.options(world.log.clone(), target.clone());
    options.flush_bytes = 64 << 10;
    // Nothing but the outage is to be seen, however busy the machine is.
    options.consumer.session_timeout = Duration::from_secs(60);
    let readiness = Readiness::new();
    options.condition = readiness.condition("documents");
    let edge = HttpEdge::start(
        "127.0.0.1:0",
        Default::default(),
        readiness,
        Default::default(),
    )
    .unwrap();
    let ready = || {
        let stream = TcpStream::connect(edge.address()).unwrap();
        write!(
            &stream,
            "GET /ready HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n"
        )
        .unwrap();
        std::io::read_to_string(&stream).unwrap()
    };
    let (metrics, progress) = (options.metrics.clone(), options.progress.clone());
    let (lifecycle, running) = start(options);

    world.write(200, true);
    eventually("the first documents are stored", || {
        progress.snapshot().stored > 0
    });
    assert!(ready().starts_with("HTTP/1.1 200"), "{}", ready());
    target.down.store(true, Ordering::SeqCst);
    world.write(20_000, true);
    eventually("reading is paused", || progress.paused());
    eventually("the target is asked again and again", || {
        target.refused.load(Ordering::SeqCst) > 5
    });
    let said = ready();
    assert!(
        said.starts_with("HTTP/1.1 503") && said.contains("switched off"),
        "{said}"
    );
    // time to take in all, if it were not paused
    std::thread::sleep(Duration::from_millis(300));
    let in_hand = metrics.in_hand_bytes.get();
    assert!((1..1 << 20).contains(&in_hand), "{in_hand} bytes in hand");

    target.down.store(false, Ordering::SeqCst);
    eventually("reading goes on", || !progress.paused());
    eventually("it is ready again", || ready().starts_with("HTTP/1.1 200"));
    lifecycle.drain();
    running.join().unwrap().unwrap();
    assert_eq!(metrics.rejoins.get(), 0, "membership lasted");
    world.check(&target.inner, "after the outage");
}

#[test]
fn a_run_that_is_stopped_during_an_outage_ends_at_once_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&folder.path().join("log"));
    world.write(500, true);
    let target = switched(&folder);
    target.down.store(true, Ordering::SeqCst);
    let mut options = world.options(world.log.clone(), target.clone());
    options.pacing.first_pause = Duration::from_secs(60);
    options.pacing.max_pause = Duration::from_secs(60);
    let (lifecycle, running) = start(options);
    eventually("the outage is noticed", || {
        target.refused.load(Ordering::SeqCst) > 0
    });
    lifecycle.stop();
    let summary = running.join().unwrap().unwrap();
    assert!(summary.unfinished > 0, "{summary:?}");
    target.down.store(false, Ordering::SeqCst);
    world.drain(target.clone()).unwrap();
    world.check(&target.inner, "after the outage");
}

#[test]
fn a_run_that_is_stopped_commits_what_it_has_in_hand() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&folder.path().join("log"));
    world.write(300, true);
    let target = switched(&folder);
    let mut options = world.options(world.log.clone(), target.clone());
    options.flush_interval = Duration::from_secs(3_600);
    let metrics = options.metrics.clone();
    let records = world.records;
    let (lifecycle, running) = start(options);
    let taken = || {
        metrics
            .records
            .with_label_values(&[crate::support::TOPIC])
            .get()
    };
    eventually("all records are in hand", || taken() == records);
    lifecycle.stop();
    let summary = running.join().unwrap().unwrap();
    assert_eq!(summary.unfinished, 0);
    assert_eq!(summary.dead, world.dead.len() as u64);
    world.drain(target.clone()).unwrap();
    world.check(&target.inner, "stopped");
    assert_eq!(
        world.dead_letters().len(),
        world.dead.len(),
        "nothing was read again"
    );
}

#[test]
fn members_that_come_and_go_share_the_work_without_loss() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&folder.path().join("log"));
    let target = switched(&folder);
    let member = |world: &World, name: &str| {
        let mut options = world.options(world.log.clone(), target.clone());
        options.consumer.instance_id = None;
        options.consumer.client_id = name.into();
        options
    };
    world.write(2_000, true);
    let first = member(&world, "first");
    let (both, progress) = (first.lifecycle.clone(), first.progress.clone());
    let (_, first) = start(first);
    eventually("the first works", || progress.snapshot().stored > 0);
    let second = member(&world, "second");
    let joined = second.metrics.clone();
    let (leaves, second) = start(second);
    eventually("the second works", || {
        world.write(50, true);
        joined.commits.get() > 0
    });
    world.write(1_000, true);
    leaves.stop();
    second.join().unwrap().unwrap();
    world.write(1_000, true);
    let mut third = member(&world, "third");
    third.lifecycle = both.clone();
    both.drain();
    run(third).unwrap();
    first.join().unwrap().unwrap();
    world.check(&target.inner, "three members");
}
