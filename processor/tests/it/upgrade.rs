//! A rolling upgrade: members of two releases work side by side, in what both can read, until somebody ends it.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use processor::format::{NEWEST, OLDEST};
use processor::record::Upgrade;
use processor::{Options, ProcessorError, format, partial};
use runtime::log::Log;
use runtime::log::TopicPartition;
use runtime::log::fault::{At, Fault, FaultLog};

use crate::fixture::{APPLICATION, Fixture, Trip, assert_same, job_sql, naive, trips};

const PARTIALS: &str = "test.per_minute.partials";
const STATE: &str = "test.per_minute.state";

/// A process of a release that reads up to some version.
struct Member {
    options: Options,
    log: Arc<FaultLog>,
    running: JoinHandle<Result<(), ProcessorError>>,
}

impl Member {
    fn start(fixture: &Fixture, instance: &str, newest: u32) -> Self {
        Self::start_with(fixture, instance, newest, vec![])
    }

    fn start_with(fixture: &Fixture, instance: &str, newest: u32, plan: Vec<(At, Fault)>) -> Self {
        let log = FaultLog::with_plan(Arc::clone(&fixture.log) as _, plan);
        let mut options = fixture.options_over(Arc::clone(&log) as _, job_sql("1 minute", ""));
        options.instance = instance.into();
        options.job.newest_format = newest;
        options.worker.snapshot_cost = 1;
        // The workers' time goes on with the log's.
        options.clock = Arc::clone(&fixture.clock) as _;
        let running = std::thread::spawn({
            let options = options.clone();
            move || processor::run(&options)
        });
        Self {
            options,
            log,
            running,
        }
    }

    fn reads(&self) -> bool {
        !self.options.progress.here().is_empty()
    }

    /// Waits for its crash; if it does not come to it before everything is read, it crashes then.
    fn crash(self, fixture: &Fixture, rows: u64) {
        until(fixture, "it crashes", || {
            if fixture.ledger().rows_in == rows {
                self.log.crash();
            }
            self.running.is_finished()
        });
        self.running.join().unwrap().unwrap_err();
        fixture.forget_members();
    }

    fn stop(self, fixture: &Fixture) {
        self.options.lifecycle.stop();
        until(fixture, "it leaves", || self.running.is_finished());
        self.running.join().unwrap().unwrap();
    }

    fn end(self, fixture: &Fixture) -> Result<(), String> {
        until(fixture, "it ends", || self.running.is_finished());
        let ended = self.running.join().unwrap();
        ended.map_err(|error| chain(&error))
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// Waits while the time of the log and of the workers goes on.
fn until(fixture: &Fixture, what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if is_so() {
            return;
        }
        fixture.clock.advance(Duration::from_millis(250));
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

fn taken(fixture: &Fixture, rows: u64) {
    until(fixture, &format!("{rows} rows are taken"), || {
        let ledger = fixture.ledger();
        ledger.rows_in == rows && ledger.merged == ledger.assigned
    });
}

/// The versions in which partials, manifests and offsets stand on the log.
fn versions(fixture: &Fixture) -> [Vec<u32>; 3] {
    let of = |bytes: &[u8], name: &str| -> u32 {
        let value: serde_json::Value = serde_json::from_slice(bytes).unwrap();
        u32::try_from(value[name].as_u64().unwrap()).unwrap()
    };
    let in_order = |mut versions: Vec<u32>| {
        versions.sort_unstable();
        versions.dedup();
        versions
    };
    let partials = fixture.kept(PARTIALS);
    let partials = partials.iter().map(|record| {
        let version = of(record.header(partial::HEADER).unwrap(), "version");
        let checksum = record.header(format::CHECKSUM).is_some();
        assert_eq!(checksum, version >= 2, "{record:?}");
        version
    });
    let state = fixture.kept(STATE);
    let manifests = state
        .iter()
        .filter_map(|record| record.header(processor::snapshot::manifest::HEADER))
        .map(|header| of(header, "version"));
    let partitions: Vec<_> = (0..4)
        .map(|partition| TopicPartition::new("trips", partition))
        .chain((0..2).map(|shard| TopicPartition::new(PARTIALS, shard)))
        .collect();
    let committed = fixture.log.committed(APPLICATION, &partitions).unwrap();
    let offsets = committed
        .iter()
        .flatten()
        .map(|committed| of(committed.metadata.as_bytes(), "v"));
    [
        in_order(partials.collect()),
        in_order(manifests.collect()),
        in_order(offsets.collect()),
    ]
}

/// Everything stands in what the release before can read.
fn assert_all_old(fixture: &Fixture, what: &str) {
    let [partials, manifests, offsets] = versions(fixture);
    assert_eq!((partials, offsets), (vec![1], vec![1]), "{what}");
    // There may be no snapshot yet.
    assert!(
        [vec![], vec![1]].contains(&manifests),
        "{what}: {manifests:?}"
    );
}

fn finalize(fixture: &Fixture) {
    let upgrade = Upgrade::of(fixture.log.as_ref(), APPLICATION).unwrap();
    assert_eq!(upgrade.behind().count(), 0, "{upgrade:?}");
    upgrade.finalize(fixture.log.as_ref()).unwrap();
    let after = Upgrade::of(fixture.log.as_ref(), APPLICATION).unwrap();
    assert!(after.is_done());
}

fn assert_balanced(fixture: &Fixture, rows: &[Trip], what: &str) {
    assert_same(&fixture.results(), &naive(rows), what);
    let ledger = fixture.ledger();
    assert_eq!(ledger.rows_in, rows.len() as u64, "{what}");
    assert_eq!(ledger.rows_in, ledger.assigned + ledger.filtered, "{what}");
    assert_eq!((ledger.merged, ledger.late), (ledger.assigned, 0), "{what}");
    assert_eq!(ledger.emitted, naive(rows).len() as u64, "{what}");
}

/// A log on which the release before has begun the application.
fn founded() -> Fixture {
    let fixture = Fixture::new(4);
    let first = Member::start(&fixture, "a", OLDEST);
    until(&fixture, "it works", || first.reads());
    first.stop(&fixture);
    fixture
}

/// Two members, upgraded one by one under load; each replaced one crashes at its commit `nth`, before and after the upgrade
/// is ended.
fn upgraded(nth: u64, fault: Fault) {
    let what = format!("{fault:?} at commit {nth}");
    let doomed = || vec![(At::Call("producer.commit", nth), fault)];
    let rows = trips(41 + nth, 800, 30_000);
    let fixture = founded();
    let a = Member::start_with(&fixture, "a", OLDEST, doomed());
    let b = Member::start_with(&fixture, "b", OLDEST, doomed());
    fixture.write(&rows[..200]);
    a.crash(&fixture, 200);
    let a = Member::start(&fixture, "a", NEWEST);
    let side_by_side = || a.reads() && (b.reads() || b.running.is_finished());
    until(&fixture, "the releases work side by side", side_by_side);
    fixture.write(&rows[200..400]);
    b.crash(&fixture, 400);
    let b = Member::start_with(&fixture, "b", NEWEST, doomed());
    taken(&fixture, 400);
    // Whatever the new release has written, the old one can read.
    assert_all_old(&fixture, &what);
    finalize(&fixture);
    fixture.write(&rows[400..600]);
    b.crash(&fixture, 600);
    let b = Member::start_with(&fixture, "b", NEWEST, doomed());
    taken(&fixture, 600);
    fixture.write(&rows[600..]);
    b.crash(&fixture, 800);
    let b = Member::start(&fixture, "b", NEWEST);
    a.options.lifecycle.drain();
    b.options.lifecycle.drain();
    a.end(&fixture).unwrap();
    b.end(&fixture).unwrap();
    assert_balanced(&fixture, &rows, &what);
    let [partials, manifests, offsets] = versions(&fixture);
    assert!(partials.contains(&2), "{what}: {partials:?}");
    assert!(manifests.contains(&2), "{what}: {manifests:?}");
    assert!(offsets.contains(&2), "{what}: {offsets:?}");
    // Who comes back is of a release that is over.
    let error = Member::start(&fixture, "c", OLDEST)
        .end(&fixture)
        .unwrap_err();
    assert!(
        error.contains("it is in format 2, and this program reads format 1: a newer release writes this application; start that one here too"),
        "{what}: {error}"
    );
}

#[test]
fn a_running_application_is_upgraded_member_by_member_whatever_crashes() {
    for nth in 0..7 {
        upgraded(nth, Fault::CrashBefore);
        upgraded(nth, Fault::CrashAfter);
    }
}

#[test]
fn until_the_upgrade_is_ended_a_member_may_go_back_to_the_release_before() {
    let rows = trips(53, 600, 30_000);
    let fixture = Fixture::new(4);
    for (place, newest) in [(0, OLDEST), (1, NEWEST), (2, OLDEST)] {
        let member = Member::start(&fixture, "a", newest);
        fixture.write(&rows[200 * place..200 * (place + 1)]);
        taken(&fixture, 200 * (place as u64 + 1));
        member.stop(&fixture);
        assert_all_old(&fixture, "back and forth");
    }
    let last = Member::start(&fixture, "a", NEWEST);
    last.options.lifecycle.drain();
    last.end(&fixture).unwrap();
    assert_balanced(&fixture, &rows, "back and forth");
}

#[test]
fn a_member_of_the_release_before_that_still_runs_stops_and_the_others_go_on() {
    let rows = trips(59, 400, 30_000);
    let fixture = founded();
    let old = Member::start(&fixture, "old", OLDEST);
    let new = Member::start(&fixture, "new", NEWEST);
    until(&fixture, "both work", || old.reads() && new.reads());
    fixture.write(&rows[..200]);
    taken(&fixture, 200);
    let upgrade = Upgrade::of(fixture.log.as_ref(), APPLICATION).unwrap();
    assert_eq!((upgrade.written, upgrade.is_done()), (1, false));
    let behind: Vec<_> = upgrade
        .behind()
        .map(|found| &found.member.client_id)
        .collect();
    assert_eq!(behind, ["test-old-0.f1"]);
    // Against the advice.
    upgrade.finalize(fixture.log.as_ref()).unwrap();
    fixture.write(&rows[200..]);
    let error = old.end(&fixture).unwrap_err();
    assert!(
        error.contains("in format 2, and this program reads format 1"),
        "{error}"
    );
    new.options.lifecycle.drain();
    new.end(&fixture).unwrap();
    assert_balanced(&fixture, &rows, "one was left behind");
}

#[test]
fn a_new_application_begins_in_the_newest_format_and_nobody_else_can_be_looked_at() {
    let rows = trips(61, 200, 30_000);
    let fixture = Fixture::new(4);
    let error = Upgrade::of(fixture.log.as_ref(), APPLICATION).unwrap_err();
    assert!(
        error.to_string().contains("no job has run under"),
        "{error}"
    );
    fixture.write(&rows);
    let member = Member::start(&fixture, "a", NEWEST);
    member.options.lifecycle.drain();
    member.end(&fixture).unwrap();
    assert_eq!(versions(&fixture), [vec![2], vec![2], vec![2]]);
    assert_balanced(&fixture, &rows, "a new one");
}
