//! Snapshots: a restart goes on from the last one, whatever happened around it, and refuses one that is not of its state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use processor::format::{CHECKSUM, NEWEST};
use processor::offsets::ShardState;
use processor::reset::Reset;
use processor::snapshot::manifest;
use processor::{Options, ProcessorError};
use runtime::log::fault::{At, Fault, FaultLog};
use runtime::log::{
    Bounds, Committed, ConsumerOptions, Log, NewRecord, OffsetCommit, ProducerOptions,
    TopicPartition,
};

use crate::fixture::{
    APPLICATION, Fixture, Kept, QUERY, SESSION_TIMEOUT, Trip, assert_same, job_sql, naive, trips,
};

const STATE: &str = "test.per_minute.state";
const PARTIALS: &str = "test.per_minute.partials";

fn sql() -> String {
    job_sql("1 minute", "")
}

fn shards(topic: &str) -> [TopicPartition; 2] {
    [0, 1].map(|shard| TopicPartition::new(topic, shard))
}

/// Runs the job over these rows until it has taken all of them, and stops it before their windows close.
fn take(fixture: &Fixture, rows: &[Trip]) {
    let before = fixture.ledger().rows_in;
    fixture.write(rows);
    taken(fixture, fixture.options(sql()), before + rows.len() as u64);
}

/// Runs a job until it has taken and folded so many rows in all.
fn taken(fixture: &Fixture, options: Options, rows: u64) {
    let lifecycle = options.lifecycle.clone();
    let running = std::thread::spawn(move || processor::run(&options));
    // Partials of the last ranges are folded in later commits.
    let taken = || {
        let ledger = fixture.ledger();
        ledger.rows_in == rows && ledger.merged == ledger.assigned
    };
    while !taken() && !running.is_finished() {
        std::thread::sleep(Duration::from_millis(2));
    }
    lifecycle.stop();
    running.join().unwrap().unwrap();
}

fn bounds(fixture: &Fixture, topic: &str) -> [Bounds; 2] {
    shards(topic).map(|shard| fixture.log.bounds(&shard).unwrap())
}

fn committed(fixture: &Fixture) -> Vec<Option<Committed>> {
    fixture
        .log
        .committed(APPLICATION, &shards(PARTIALS))
        .unwrap()
}

/// The last manifest of each shard.
fn manifests(fixture: &Fixture) -> BTreeMap<i32, manifest::Manifest> {
    let mut manifests = BTreeMap::new();
    for record in fixture.kept(STATE) {
        if record.key() == manifest::key(record.partition).as_bytes() {
            let (manifest, _) = manifest::decode(
                record.header(manifest::HEADER).unwrap(),
                record.header(CHECKSUM),
                record.value.as_deref().unwrap(),
                NEWEST,
            )
            .unwrap();
            manifests.insert(record.partition, manifest);
        }
    }
    manifests
}

fn finish(fixture: &Fixture) -> Result<(), ProcessorError> {
    fixture.drain(Arc::clone(&fixture.log) as _, &sql())
}

fn refusal(fixture: &Fixture) -> String {
    let error = finish(fixture).unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(&format!("\n{error}"));
        cause = error.source();
    }
    text
}

/// A job that has taken rows and snapshots, and was stopped.
fn begun() -> (Fixture, Vec<Trip>) {
    let rows = trips(7, 1_200, 30_000);
    let fixture = Fixture::new(2);
    take(&fixture, &rows[..600]);
    fixture.write(&rows[600..]);
    let manifests = manifests(&fixture);
    assert_eq!(manifests.len(), 2, "each shard has a snapshot");
    (fixture, rows)
}

#[test]
fn a_restart_goes_on_from_its_snapshot_and_the_partials_before_it_are_gone() {
    let (fixture, rows) = begun();
    for (shard, manifest) in manifests(&fixture) {
        let start = bounds(&fixture, PARTIALS)[shard as usize].start;
        assert_eq!(start, manifest.offset, "shard {shard}");
        assert!(start > 0, "shard {shard}");
        let committed = committed(&fixture)[shard as usize].clone().unwrap();
        assert!(manifest.offset <= committed.offset, "shard {shard}");
    }
    finish(&fixture).unwrap();
    assert_same(&fixture.results(), &naive(&rows), "after a restart");
    let ledger = fixture.ledger();
    assert_eq!((ledger.merged, ledger.late), (ledger.assigned, 0));
    assert_eq!(ledger.emitted, naive(&rows).len() as u64);
}

#[test]
fn what_the_state_topic_holds_follows_the_state_and_not_its_past() {
    let rows = trips(13, 6_000, 30_000);
    let fixture = Fixture::new(2);
    for part in rows.chunks(1_500) {
        take(&fixture, part);
    }
    let mut live: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut ever = 0;
    for record in fixture.kept(STATE) {
        match record.value {
            Some(_) => ever += usize::from(live.insert(record.key().to_vec())),
            None => {
                live.remove(record.key());
            }
        }
    }
    let named: BTreeSet<Vec<u8>> = manifests(&fixture)
        .into_iter()
        .flat_map(|(shard, manifest)| {
            let rows = manifest
                .records
                .into_iter()
                .map(|record| record.key.into_bytes());
            rows.chain([manifest::key(shard).into_bytes()])
        })
        .collect();
    let left: Vec<_> = live
        .difference(&named)
        .map(|key| String::from_utf8_lossy(key))
        .collect();
    // At most what the last snapshot of a shard had begun to write when the job was stopped.
    assert!(left.len() <= 4, "{left:?} of {ever}");
    assert!(ever > 40, "{ever} records were written");
    finish(&fixture).unwrap();
    assert_same(&fixture.results(), &naive(&rows), "four restarts");
}

#[test]
fn no_writer_writes_under_a_key_that_another_has_used() {
    let fixture = Fixture::new(2);
    let rows = trips(17, 900, 30_000);
    fixture.write(&rows);
    // Each session dies between the rows of a snapshot and its manifest, or somewhere about there.
    for nth in [2, 5, 9, 14] {
        let at = At::Call("producer.commit", nth);
        let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, at, Fault::CrashAfter);
        let mut options = fixture.options_over(Arc::clone(&log) as _, sql());
        // One record at a time.
        options.worker.snapshot_bytes = 1;
        options.lifecycle.drain();
        let _ = fixture.run(options);
        fixture.forget_members();
    }
    let mut seen: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
    for record in fixture.kept(STATE) {
        let key = record.key().to_vec();
        if let Some(value) = record.value.filter(|_| key.starts_with(b"rows/")) {
            let name = String::from_utf8_lossy(&key).into_owned();
            assert!(
                seen.insert(key, value).is_none(),
                "{name} was written twice"
            );
        }
    }
    assert!(seen.len() > 4);
    finish(&fixture).unwrap();
    assert_same(&fixture.results(), &naive(&rows), "four crashes");
}

#[test]
fn a_snapshot_holds_nothing_that_was_rolled_back() {
    let rows = trips(19, 400, 30_000);
    let mut crashes = 0;
    for nth in 0..24 {
        let fixture = Fixture::new(2);
        fixture.write(&rows);
        let plan = vec![
            (At::Call("producer.commit", nth), Fault::MustAbort),
            (At::Call("producer.commit", nth + 1), Fault::CrashAfter),
        ];
        let log = FaultLog::with_plan(Arc::clone(&fixture.log) as _, plan);
        let mut options = fixture.options_over(Arc::clone(&log) as _, sql());
        options.worker.snapshot_cost = 1;
        options.lifecycle.drain();
        if fixture.run(options).is_err() {
            assert!(log.crashed(), "commit {nth}");
            crashes += 1;
            fixture.forget_members();
            for (shard, manifest) in manifests(&fixture) {
                let committed = committed(&fixture)[shard as usize].clone().unwrap();
                assert!(
                    manifest.offset <= committed.offset,
                    "commit {nth}, shard {shard}"
                );
            }
            finish(&fixture).unwrap();
        }
        assert_same(&fixture.results(), &naive(&rows), &format!("commit {nth}"));
    }
    assert!(crashes > 8, "{crashes} crashes");
}

#[test]
fn a_dead_workers_open_transaction_is_waited_for() {
    let (fixture, rows) = begun();
    // As if the markers of its last commit had not reached the state topic yet: the partials are deleted already, and the
    // snapshot that covers them is not to be seen before the transaction is over.
    let state = fixture.kept(STATE);
    let spec = fixture.log.topic(STATE).unwrap().unwrap();
    fixture.log.delete_topic(STATE).unwrap();
    let mut again = runtime::log::TopicSpec::new(STATE, 2);
    again.config = spec.config;
    fixture.log.create_topic(&again).unwrap();
    let mut zombie = fixture
        .log
        .producer(&ProducerOptions::transactional("zombie"))
        .unwrap();
    zombie.init_transactions().unwrap();
    zombie.begin().unwrap();
    for record in &state {
        record.send(zombie.as_mut(), STATE);
    }
    zombie.flush().unwrap();
    let options = fixture.options(sql());
    options.lifecycle.drain();
    let progress = Arc::clone(&options.progress);
    let running = std::thread::spawn(move || processor::run(&options));
    while progress.totals().restored >= 1.0 {
        assert!(!running.is_finished(), "it did not wait");
        std::thread::sleep(Duration::from_millis(1));
    }
    // Time to go on, if it did not wait.
    std::thread::sleep(Duration::from_millis(300));
    assert!(!running.is_finished());
    assert!(progress.totals().restored < 1.0);
    zombie.commit().unwrap();
    running.join().unwrap().unwrap();
    assert_same(&fixture.results(), &naive(&rows), "waited");
}

#[test]
fn what_a_worker_left_open_is_neither_waited_for_by_its_successor_nor_seen() {
    let rows = trips(23, 600, 30_000);
    for nth in 2..10 {
        let fixture = Fixture::new(2);
        fixture.write(&rows);
        let at = At::Call("producer.send_offsets", nth);
        let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, at, Fault::CrashBefore);
        let mut options = fixture.options_over(log, sql());
        options.worker.snapshot_cost = 1;
        options.lifecycle.drain();
        fixture.run(options).unwrap_err();
        fixture.forget_members();
        finish(&fixture).unwrap();
        assert_same(
            &fixture.results(),
            &naive(&rows),
            &format!("transaction {nth}"),
        );
    }
}

#[test]
fn partials_behind_the_snapshot_that_are_gone_are_missed() {
    let (fixture, _) = begun();
    let shard = &shards(PARTIALS)[0];
    let offset = manifests(&fixture)[&0].offset;
    fixture.log.delete_records(shard, offset + 1).unwrap();
    let start = bounds(&fixture, PARTIALS)[0].start;
    assert!(start > offset);
    let text = refusal(&fixture);
    assert!(
        text.contains(&format!(
            "begins at offset {start}, but the last snapshot is of offset {offset}"
        )),
        "{text}"
    );
}

#[test]
fn a_state_topic_that_lost_its_snapshot_is_no_fresh_start() {
    let (fixture, _) = begun();
    fixture.log.delete_topic(STATE).unwrap();
    let text = refusal(&fixture);
    assert!(text.contains("there is no snapshot of the state"), "{text}");
}

#[test]
fn a_record_of_the_state_that_is_gone_or_another_is_named() {
    for tombstone in [true, false] {
        let (fixture, _) = begun();
        let record = manifests(&fixture)[&1].records[0].key.clone();
        let mut producer = fixture
            .log
            .producer(&ProducerOptions::idempotent("vandal"))
            .unwrap();
        producer
            .send(NewRecord {
                topic: STATE,
                partition: Some(1),
                key: Some(record.as_bytes()),
                value: (!tombstone).then_some(b"?"),
                headers: &[],
                timestamp_ms: None,
            })
            .unwrap();
        producer.flush().unwrap();
        let text = refusal(&fixture);
        assert!(
            text.contains(&format!(
                "record {record} of the state is missing or is not the one"
            )),
            "{text}"
        );
    }
}

/// Commits another offset of a shard, with metadata that this program can read.
fn reset(fixture: &Fixture, shard: i32, offset: i64) {
    let mut consumer = fixture
        .log
        .consumer(&ConsumerOptions::new(APPLICATION))
        .unwrap();
    let metadata = processor::offsets::encode(&ShardState::default(), NEWEST).unwrap();
    let partition = TopicPartition::new(PARTIALS, shard);
    consumer
        .commit(&[OffsetCommit {
            partition,
            offset,
            metadata,
        }])
        .unwrap();
}

#[test]
fn offsets_that_were_reset_to_before_the_snapshot_are_refused() {
    let (fixture, _) = begun();
    fixture.forget_members();
    let offset = manifests(&fixture)[&0].offset;
    reset(&fixture, 0, offset - 1);
    let text = refusal(&fixture);
    assert!(
        text.contains(&format!(
            "is of offset {offset}, but offset {} is committed",
            offset - 1
        )),
        "{text}"
    );
}

#[test]
fn a_partials_topic_that_was_created_again_is_refused() {
    let (fixture, _) = begun();
    let before = fixture.kept(PARTIALS);
    let ends = bounds(&fixture, PARTIALS).map(|bounds| bounds.end);
    let spec = fixture.log.topic(PARTIALS).unwrap().unwrap();
    fixture.log.delete_topic(PARTIALS).unwrap();
    let mut again = runtime::log::TopicSpec::new(PARTIALS, 2);
    again.config = spec.config;
    fixture.log.create_topic(&again).unwrap();
    // As long as it was, and with records that look right.
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("mirror"))
        .unwrap();
    let length = ends[0].max(ends[1]) as usize;
    for record in before.iter().cycle().take(4 * length) {
        record.send(producer.as_mut(), PARTIALS);
    }
    producer.flush().unwrap();
    for (shard, end) in shards(PARTIALS).iter().zip(ends) {
        assert!(fixture.log.bounds(shard).unwrap().end >= end);
    }
    let text = refusal(&fixture);
    assert!(
        text.contains("the partials topic was deleted and created again"),
        "{text}"
    );
}

#[test]
fn a_snapshot_of_a_later_version_is_refused() {
    let (fixture, _) = begun();
    let is_manifest =
        |record: &Kept| record.partition == 1 && record.key().starts_with(b"manifest/");
    let mut record = fixture.kept(STATE).into_iter().rfind(is_manifest).unwrap();
    let (_, header) = &mut record.headers[0];
    let text = String::from_utf8(header.clone()).unwrap();
    *header = text
        .replacen(&format!("\"version\":{NEWEST}"), "\"version\":9", 1)
        .into_bytes();
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("newer"))
        .unwrap();
    record.send(producer.as_mut(), STATE);
    producer.flush().unwrap();
    let text = refusal(&fixture);
    assert!(
        text.contains("in format 9, and this program reads formats 1 to 2: a newer release"),
        "{text}"
    );
}

/// How a transaction stands when the worker that holds it wakes up.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Meanwhile {
    /// It is still open.
    Open,
    /// The log has aborted it.
    TimedOut,
}

/// A worker stands still in a call of its transaction until another one has its partitions, and goes on. Whether it had a
/// snapshot under way.
fn zombie(call: &'static str, nth: u64, meanwhile: Meanwhile, leaves: bool) -> bool {
    let what = format!("{call} {nth}, {meanwhile:?}, leaves: {leaves}");
    let rows = trips(29, 500, 30_000);
    let fixture = Fixture::new(2);
    fixture.write(&rows);
    let log = FaultLog::with_fault(
        Arc::clone(&fixture.log) as _,
        At::Call(call, nth),
        Fault::Pause,
    );
    let mut paused = fixture.options_over(Arc::clone(&log) as _, sql());
    paused.instance = "paused".into();
    paused.worker.snapshot_cost = 1;
    paused.lifecycle.drain();
    let mut other = fixture.options(sql());
    other.instance = "other".into();
    // What it would write and delete itself would hide what the zombie does.
    other.worker.snapshot_cost = u64::MAX;
    let start = |options: &Options| {
        let options = options.clone();
        std::thread::spawn(move || processor::run(&options))
    };
    let wait = |is_so: &dyn Fn() -> bool| {
        while !is_so() {
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    let zombie = start(&paused);
    wait(&|| log.paused() || zombie.is_finished());
    assert!(log.paused(), "{what}: it was done before");
    let under_way = bounds(&fixture, STATE)
        .iter()
        .any(|bounds| bounds.end > bounds.stable);
    let expired = SESSION_TIMEOUT + Duration::from_secs(1);
    assert!(expired < paused.worker.transaction_timeout);
    fixture.clock.advance(match meanwhile {
        Meanwhile::Open => expired,
        Meanwhile::TimedOut => 2 * paused.worker.transaction_timeout,
    });
    let starts = || bounds(&fixture, PARTIALS).map(|bounds| bounds.start);
    let before = (fixture.kept(STATE), starts());
    let successor = start(&other);
    wait(&|| other.progress.here().len() == 2);
    if leaves {
        paused.lifecycle.stop();
    }
    log.wake();
    if leaves {
        wait(&|| zombie.is_finished());
        assert_eq!(starts(), before.1, "{what}: partials are gone");
        assert!(
            fixture.kept(STATE) == before.0,
            "{what}: a snapshot is seen"
        );
    }
    // Not before: it would have finished, and let go of all, before the other one wakes up.
    other.lifecycle.drain();
    while !(zombie.is_finished() && successor.is_finished()) {
        fixture.clock.advance(Duration::from_millis(250));
        std::thread::sleep(Duration::from_millis(5));
    }
    zombie.join().unwrap().unwrap();
    successor.join().unwrap().unwrap();
    for (shard, manifest) in manifests(&fixture) {
        let committed = committed(&fixture)[shard as usize].clone().unwrap();
        assert!(manifest.offset <= committed.offset, "{what}, shard {shard}");
        assert!(
            starts()[shard as usize] <= manifest.offset,
            "{what}, shard {shard}"
        );
    }
    // What is there can be gone on from.
    finish(&fixture).unwrap();
    assert_same(&fixture.results(), &naive(&rows), &what);
    let ledger = fixture.ledger();
    assert_eq!(
        (ledger.rows_in, ledger.merged),
        (500, ledger.assigned),
        "{what}"
    );
    under_way
}

#[test]
fn of_a_zombies_snapshot_nothing_is_seen_and_no_partials_go() {
    let mut under_way = 0;
    for nth in 2..8 {
        for (call, meanwhile) in [
            ("producer.flush", Meanwhile::Open),
            ("producer.flush", Meanwhile::TimedOut),
            ("producer.send_offsets", Meanwhile::Open),
            ("producer.send_offsets", Meanwhile::TimedOut),
            // Still open there, nobody else has been let in: the group waits for offsets that are sent.
            ("producer.commit", Meanwhile::TimedOut),
        ] {
            for leaves in [true, false] {
                under_way += u32::from(zombie(call, nth, meanwhile, leaves));
            }
        }
    }
    // How many there are depends on how much each commit finds.
    assert!(under_way > 10, "{under_way} of 60 had a snapshot under way");
}

#[test]
fn a_worker_that_stood_still_behind_its_commit_deletes_nothing_of_an_application_begun_anew() {
    let rows = trips(43, 500, 30_000);
    let mut came_to_delete = 0;
    for nth in 2..10 {
        let what = format!("commit {nth}");
        let fixture = Fixture::new(2);
        fixture.write(&rows);
        let at = At::Call("producer.commit", nth);
        let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, at, Fault::PauseAfter);
        let mut paused = fixture.options_over(Arc::clone(&log) as _, sql());
        paused.worker.snapshot_cost = 1;
        let zombie = std::thread::spawn({
            let paused = paused.clone();
            move || processor::run(&paused)
        });
        while !log.paused() {
            assert!(!zombie.is_finished(), "{what}: it was done before");
            std::thread::sleep(Duration::from_millis(1));
        }
        fixture.forget_members();
        let reset = Reset::plan(fixture.log.as_ref(), APPLICATION, [(QUERY, "per_minute")]);
        reset.unwrap().run(fixture.log.as_ref(), true).unwrap();
        // What the new one deleted itself would hide what the zombie does.
        let mut anew = fixture.options(sql());
        anew.worker.snapshot_cost = u64::MAX;
        taken(&fixture, anew, rows.len() as u64);
        paused.lifecycle.stop();
        let snapshots = paused.metrics.snapshots.get();
        log.wake();
        // Whether it ends well or is refused is no matter.
        let _ = zombie.join().unwrap();
        came_to_delete += u32::from(paused.metrics.snapshots.get() > snapshots);
        let starts = bounds(&fixture, PARTIALS).map(|bounds| bounds.start);
        assert_eq!(starts, [0, 0], "{what}: partials are gone");
        finish(&fixture).unwrap();
        assert_same(&fixture.results(), &naive(&rows), &what);
    }
    // Where a commit holds the end of a snapshot, the partials before it would have gone. Which ones do depends on how much
    // each finds.
    eprintln!("{came_to_delete} of 8 commits held the end of a snapshot");
}
