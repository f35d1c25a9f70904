//! What an operator sees of offsets, and how an application goes on where something is lost, or begins anew.

use std::sync::Arc;
use std::time::Duration;

use processor::gaps::{self, Finding, GapError, Way};
use processor::offsets::SourceState;
use processor::reset::{Reset, ResetError};
use processor::{record, status};
use runtime::log::{ConsumerOptions, Event, Log, Offset, OffsetCommit, TopicPartition};

use crate::fixture::{APPLICATION, Fixture, QUERY, Trip, assert_same, job_sql, naive, trips};

fn source() -> TopicPartition {
    TopicPartition::new("trips", 0)
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

fn drain(fixture: &Fixture, sql: &str) -> Result<(), String> {
    fixture
        .drain(Arc::clone(&fixture.log) as _, sql)
        .map_err(|error| chain(&error))
}

/// The offsets of a partition's records, in order.
fn offsets(fixture: &Fixture, partition: &TopicPartition) -> Vec<Offset> {
    let mut consumer = fixture
        .log
        .consumer(&ConsumerOptions::new("reader"))
        .unwrap();
    consumer.assign(&[(partition.clone(), 0)]).unwrap();
    let mut offsets = Vec::new();
    loop {
        match consumer.poll(Duration::from_secs(5), 1000).unwrap() {
            Some(Event::Records(batch)) => offsets.extend(batch.iter().map(|record| record.offset)),
            Some(Event::End { .. }) => return offsets,
            other => panic!("{other:?}"),
        }
    }
}

fn committed(fixture: &Fixture, partition: &TopicPartition) -> (Offset, String) {
    let committed = fixture
        .log
        .committed(APPLICATION, std::slice::from_ref(partition))
        .unwrap();
    let committed = committed[0].clone().unwrap();
    (committed.offset, committed.metadata)
}

fn commit(fixture: &Fixture, partition: &TopicPartition, offset: Offset, metadata: &str) {
    let mut outside = fixture
        .log
        .consumer(&ConsumerOptions::new(APPLICATION))
        .unwrap();
    outside
        .commit(&[OffsetCommit {
            partition: partition.clone(),
            offset,
            metadata: metadata.into(),
        }])
        .unwrap();
}

fn find(fixture: &Fixture, sql: &str) -> Vec<Finding> {
    let script = engine::sql::parse(sql).unwrap();
    gaps::find(fixture.log.as_ref(), APPLICATION, &script).unwrap()
}

fn accept(fixture: &Fixture, findings: &[Finding]) {
    gaps::accept(fixture.log.as_ref(), APPLICATION, findings).unwrap();
}

/// Rows that are written, of which the job has taken some; and what those and the ones from offset `to` on come to.
fn begun(seed: u64) -> (Fixture, String, Vec<Trip>) {
    let rows = trips(seed, 400, 30_000);
    let fixture = Fixture::new(1);
    let sql = job_sql("1 minute", "");
    fixture.write(&rows[..200]);
    fixture.begin(&sql);
    fixture.write(&rows[200..]);
    (fixture, sql, rows)
}

fn left<'a>(fixture: &Fixture, rows: &'a [Trip], from: Offset, to: Offset) -> Vec<&'a Trip> {
    let offsets = offsets(fixture, &source());
    assert_eq!(offsets.len(), rows.len());
    let taken = |offset: &Offset| *offset < from || *offset >= to;
    let rows = offsets.iter().zip(rows);
    rows.filter(|(offset, _)| taken(offset))
        .map(|(_, row)| row)
        .collect()
}

#[test]
fn the_status_says_how_far_everything_is() {
    let (fixture, sql, rows) = begun(3);
    let read = || status::read(fixture.log.as_ref(), APPLICATION, ["trips"], [QUERY]).unwrap();
    let taken = fixture.ledger().rows_in;
    let before = read();
    let place = &before.sources[0].place;
    assert_eq!(place.state.as_ref().unwrap().rows_in, taken);
    let waiting = rows.len() as i64 - taken as i64;
    assert!(place.lag >= waiting && place.problem.is_none(), "{place:?}");
    assert_eq!(before.shards.len(), 2);
    drain(&fixture, &sql).unwrap();
    let after = read();
    // What lies behind the last record is a transaction's end, and no lag.
    assert_eq!(after.sources[0].place.lag, 0);
    assert!(after.shards.iter().all(|shard| shard.place.lag == 0));
    let emitted: u64 = after
        .shards
        .iter()
        .map(|shard| shard.place.state.as_ref().unwrap().emitted)
        .sum();
    assert_eq!(emitted, naive(&rows).len() as u64);
    commit(&fixture, &source(), 3, "");
    let problem = read().sources[0].place.problem.clone().unwrap();
    assert!(problem.contains("by hand"), "{problem}");
}

#[test]
fn records_that_are_gone_can_be_given_up_and_the_ledger_names_them() {
    for seed in [1, 2] {
        let (fixture, sql, rows) = begun(seed);
        let (from, _) = committed(&fixture, &source());
        let to = offsets(&fixture, &source())[300];
        let left = left(&fixture, &rows, from, to);
        let left: Vec<Trip> = left.into_iter().cloned().collect();
        fixture.log.delete_records(&source(), to).unwrap();
        let error = drain(&fixture, &sql).unwrap_err();
        assert!(error.contains("trips-0"), "{error}");
        let findings = find(&fixture, &sql);
        assert_eq!(findings.len(), 1, "{findings:?}");
        let Way::At { offset, loses, .. } = &findings[0].way else {
            panic!("{findings:?}")
        };
        assert_eq!(*offset, to);
        assert_eq!(*loses, format!("the rows from offset {from} to {to}"));
        accept(&fixture, &findings);
        assert!(find(&fixture, &sql).is_empty());
        drain(&fixture, &sql).unwrap();
        assert_same(&fixture.results(), &naive(&left), &format!("seed {seed}"));
        let ledger = fixture.ledger();
        assert_eq!(ledger.gaps.len(), 1);
        assert_eq!(
            (ledger.gaps[0].from, ledger.gaps[0].to, ledger.gaps[0].shard),
            (from, to, None)
        );
        assert_eq!(ledger.rows_in, left.len() as u64);
        assert_eq!((ledger.merged, ledger.late), (ledger.assigned, 0));
    }
}

#[test]
fn offsets_that_were_reset_by_hand_go_on_where_the_partials_end_or_behind() {
    // Back to the start: no row is lost, and none is counted twice.
    let (fixture, sql, rows) = begun(4);
    let (end, _) = committed(&fixture, &source());
    commit(&fixture, &source(), 0, "");
    assert!(drain(&fixture, &sql).unwrap_err().contains("by hand"));
    let findings = find(&fixture, &sql);
    let Way::At { offset, loses, .. } = &findings[0].way else {
        panic!("{findings:?}")
    };
    assert_eq!(*offset, end);
    assert!(loses.ends_with("no row"), "{loses}");
    accept(&fixture, &findings);
    drain(&fixture, &sql).unwrap();
    assert_same(&fixture.results(), &naive(&rows), "reset to the start");

    // Forward: what lies between is lost.
    let (fixture, sql, rows) = begun(5);
    let (end, _) = committed(&fixture, &source());
    let to = offsets(&fixture, &source())[350];
    let left: Vec<Trip> = left(&fixture, &rows, end, to)
        .into_iter()
        .cloned()
        .collect();
    commit(&fixture, &source(), to, "");
    let findings = find(&fixture, &sql);
    accept(&fixture, &findings);
    drain(&fixture, &sql).unwrap();
    assert_same(&fixture.results(), &naive(&left), "reset forward");
    assert_eq!(fixture.ledger().gaps.len(), 1);
    // A shard's offset says which results are out: that can't be made up.
    let shard = TopicPartition::new(processor::topics::partials(APPLICATION, QUERY), 1);
    commit(&fixture, &shard, 1, "");
    let findings = find(&fixture, &sql);
    assert!(
        matches!(&findings[0].way, Way::Not { instead } if instead.contains("processor reset"))
    );
}

#[test]
fn a_shard_whose_partials_lack_a_range_goes_on_without_it() {
    let (fixture, sql, rows) = begun(6);
    let (from, metadata) = committed(&fixture, &source());
    let to = offsets(&fixture, &source())[320];
    let left: Vec<Trip> = left(&fixture, &rows, from, to)
        .into_iter()
        .cloned()
        .collect();
    // As if the partials of this range had been lost: the source's offset is behind it.
    let mut state: SourceState = processor::offsets::decode(&metadata).unwrap();
    commit(
        &fixture,
        &source(),
        to,
        &processor::offsets::encode(&state, processor::format::NEWEST).unwrap(),
    );
    state.rows_in = 0;
    let error = drain(&fixture, &sql).unwrap_err();
    assert!(
        error.contains(&format!("does not follow on {from}")),
        "{error}"
    );
    let findings = find(&fixture, &sql);
    let shards: Vec<i32> = findings.iter().map(|finding| finding.partition).collect();
    assert_eq!(shards, [0, 1], "{findings:?}");
    accept(&fixture, &findings);
    assert!(find(&fixture, &sql).is_empty());
    drain(&fixture, &sql).unwrap();
    assert_same(&fixture.results(), &naive(&left), "without the range");
    let gaps = fixture.ledger().gaps;
    let named: Vec<_> = gaps
        .iter()
        .map(|gap| (gap.shard, gap.from, gap.to))
        .collect();
    assert_eq!(named, [(Some(0), from, to), (Some(1), from, to)]);
}

/// A job that runs until it is stopped.
fn running(fixture: &Fixture, sql: &str) -> impl FnOnce() {
    let options = fixture.options(sql.into());
    let lifecycle = options.lifecycle.clone();
    let progress = Arc::clone(&options.progress);
    let thread = std::thread::spawn(move || processor::run(&options));
    while progress.totals().merged == 0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    move || {
        lifecycle.stop();
        thread.join().unwrap().unwrap();
    }
}

#[test]
fn an_application_with_members_is_left_alone() {
    let rows = trips(7, 100, 30_000);
    let fixture = Fixture::new(1);
    fixture.write(&rows);
    let sql = job_sql("1 minute", "");
    let stop = running(&fixture, &sql);
    let error = Reset::plan(fixture.log.as_ref(), APPLICATION, []).unwrap_err();
    assert!(
        matches!(&error, ResetError::Members { members, .. } if members == "test-a-0.f2"),
        "{error:?}"
    );
    let finding = Finding {
        topic: "trips".into(),
        partition: 0,
        what: String::new(),
        way: Way::At {
            offset: 1,
            loses: String::new(),
            metadata: String::new(),
        },
    };
    let error = gaps::accept(fixture.log.as_ref(), APPLICATION, &[finding]).unwrap_err();
    assert!(matches!(error, GapError::Members { .. }), "{error:?}");
    stop();
    assert!(Reset::plan(fixture.log.as_ref(), APPLICATION, []).is_ok());
}

#[test]
fn a_reset_application_begins_anew_also_where_the_reset_was_interrupted() {
    let rows = trips(8, 300, 30_000);
    let fixture = Fixture::new(2);
    fixture.write(&rows);
    let sql = job_sql("1 minute", "");
    drain(&fixture, &sql).unwrap();
    assert_same(&fixture.results(), &naive(&rows), "the first time");
    let plan = || Reset::plan(fixture.log.as_ref(), APPLICATION, [(QUERY, "per_minute")]).unwrap();
    let reset = plan();
    assert_eq!(
        reset.deletes,
        [
            "test.per_minute.partials",
            "test.per_minute.state",
            "test.per_minute.late"
        ]
    );
    assert_eq!(
        (reset.results.as_slice(), reset.begun),
        (&["per_minute".to_owned()][..], false)
    );

    // It dies behind its first step, and behind its second.
    record::begin_reset(fixture.log.as_ref(), APPLICATION).unwrap();
    assert!(drain(&fixture, &sql).unwrap_err().contains("being reset"));
    fixture
        .log
        .delete_topic("test.per_minute.partials")
        .unwrap();
    assert!(
        drain(&fixture, &sql)
            .unwrap_err()
            .contains("processor reset")
    );
    let reset = plan();
    assert!(reset.begun);
    assert_eq!(
        reset.deletes,
        ["test.per_minute.state", "test.per_minute.late"]
    );
    reset.run(fixture.log.as_ref(), true).unwrap();
    for topic in [
        "test.per_minute.state",
        "test.per_minute.late",
        "test.job",
        "per_minute",
    ] {
        assert_eq!(fixture.log.topic(topic).unwrap(), None, "{topic}");
    }
    let partitions = [source(), TopicPartition::new("trips", 1)];
    assert_eq!(
        fixture.log.committed(APPLICATION, &partitions).unwrap(),
        [None, None]
    );
    // Another job than before may have the name now.
    let changed = sql.replace(
        "passenger_count > 0",
        "passenger_count > 0 AND vendor_id < 9",
    );
    drain(&fixture, &changed).unwrap();
    assert_same(&fixture.results(), &naive(&rows), "the second time");
}

#[test]
fn of_two_members_with_different_jobs_one_writes_the_record_and_the_other_is_refused() {
    for seed in 0..6 {
        let fixture = Fixture::new(1);
        fixture.write(&trips(seed, 60, 1_000));
        let one = job_sql("1 minute", "");
        let other = one.replace("passenger_count > 0", "passenger_count > 1");
        let threads: Vec<_> = [one, other]
            .into_iter()
            .map(|sql| {
                let options = fixture.options(sql);
                options.lifecycle.drain();
                std::thread::spawn(move || {
                    processor::job::Job::load(options.log.as_ref(), &options.registry, options.job)
                        .map(|_| ())
                        .map_err(|error| chain(&error))
                })
            })
            .collect();
        let results: Vec<_> = threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect();
        let refused: Vec<_> = results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .collect();
        assert_eq!(refused.len(), 1, "{results:?}");
        assert!(
            refused[0].contains("where: was passenger_count >"),
            "{refused:?}"
        );
        assert_eq!(fixture.records("test.job").len(), 1);
    }
}

#[test]
fn partials_of_an_unknown_job_are_not_taken_for_this_ones() {
    let fixture = Fixture::new(1);
    fixture.write(&trips(1, 50, 1_000));
    let sql = job_sql("1 minute", "");
    fixture.begin(&sql);
    // As it was before there was a record.
    fixture.log.delete_topic("test.job").unwrap();
    let changed = sql.replace("passenger_count > 0", "passenger_count > 1");
    let error = drain(&fixture, &changed).unwrap_err();
    assert!(error.contains("another fingerprint"), "{error}");
    drain(&fixture, &sql).unwrap();
}
