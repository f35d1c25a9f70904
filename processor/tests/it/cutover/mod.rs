//! `processor cutover`: from one application to the next, without a hole in the output and without a window given twice.

mod chain;
mod crash;
mod kinds;
mod refusals;
mod world;

use std::sync::Arc;

use engine::partial::Header;
use processor::offsets::{self, ShardState};
use processor::partial;
use runtime::log::{Log, NewRecord, ProducerOptions, TopicPartition};

use crate::fixture::{Fixture, QUERY, assert_same, job_sql, naive, trips};
use world::{NEW, OLD, cutover, finish, follow, ledger, new, run_old, size};

/// Rows of which the old application has read the first part; the new one has caught up with it.
fn followed(seed: u64, shards: u32) -> (Fixture, String, Vec<crate::fixture::Trip>) {
    let rows = trips(seed, 400, 30_000);
    let fixture = Fixture::new(2);
    let sql = job_sql("1 minute", "");
    fixture.write(&rows[..250]);
    run_old(&fixture, &sql, &[QUERY]);
    let before = size(&fixture, "per_minute");
    assert!(before > 0);
    let mut options = new(&fixture, &sql);
    options.job.shards = shards;
    follow(&fixture, options);
    assert_eq!(size(&fixture, "per_minute"), before, "it gives nothing");
    (fixture, sql, rows)
}

#[test]
fn the_successor_goes_on_where_its_predecessor_stopped() {
    for (seed, shards) in [(1, 2), (2, 2), (3, 1), (4, 5)] {
        let what = format!("seed {seed}, {shards} shards");
        let (fixture, sql, rows) = followed(seed, shards);
        fixture.write(&rows[250..320]);
        let handed = cutover(&fixture, Arc::clone(&fixture.log) as _, &sql).unwrap();
        let given_to = handed.queries[0].given_to.unwrap();
        let old = ledger(&fixture, OLD, QUERY);
        assert_eq!(handed.queries[0].results, Some(old.emitted), "{what}");
        let in_old = fixture.results();
        assert!(
            in_old.keys().all(|(start, _)| start + 60_000 <= given_to),
            "{what}"
        );
        let all = naive(&rows);
        let expected = all.keys().filter(|(start, _)| start + 60_000 <= given_to);
        assert_eq!(in_old.len(), expected.count(), "{what}");
        fixture.write(&rows[320..]);
        let mut options = new(&fixture, &sql);
        options.job.shards = shards;
        finish(&fixture, options).unwrap();
        assert_same(&fixture.results(), &all, &what);
        let new = ledger(&fixture, NEW, QUERY);
        assert_eq!((new.rows_in, new.late), (400, 0), "{what}");
        assert_eq!(new.assigned, new.merged, "{what}");
        assert_eq!(new.emitted + old.emitted, all.len() as u64, "{what}");
        // Rows of windows that the old application gave are in no result of the new one, and are not lost sight of.
        let given: i64 = in_old.values().map(|(trips, ..)| trips).sum();
        assert_eq!(new.given_before as i64, given, "{what}");
    }
}

#[test]
fn both_run_at_once_and_the_new_one_follows() {
    for seed in [5, 6] {
        let rows = trips(seed, 600, 30_000);
        let fixture = Fixture::new(2);
        let sql = job_sql("1 minute", "");
        fixture.write(&rows[..100]);
        run_old(&fixture, &sql, &[QUERY]);
        std::thread::scope(|scope| {
            let (fixture, sql, rows) = (&fixture, &sql, &rows);
            let following = new(fixture, sql);
            let lifecycle = following.lifecycle.clone();
            let new = scope.spawn(move || processor::run(&following));
            for part in rows[100..500].chunks(100) {
                fixture.write(part);
                run_old(fixture, sql, &[QUERY]);
            }
            let caught_up = || world::behind(fixture).is_some_and(|behind| behind.caught_up());
            while !caught_up() && !new.is_finished() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            // Handed over while the new one runs.
            cutover(fixture, Arc::clone(&fixture.log) as _, sql).unwrap();
            fixture.write(&rows[500..]);
            let old = ledger(fixture, OLD, QUERY).emitted;
            while ledger(fixture, NEW, QUERY).emitted == 0 && !new.is_finished() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            assert!(old > 0);
            lifecycle.stop();
            new.join().unwrap().unwrap();
        });
        finish(&fixture, new(&fixture, &sql)).unwrap();
        assert_same(&fixture.results(), &naive(&rows), &format!("seed {seed}"));
    }
}

/// A mark in one shard only, as the order of ranges of several workers can leave it.
fn put_ahead(fixture: &Fixture, shard: i32, by_ms: i64) {
    let topic = processor::topics::partials(OLD, QUERY);
    let partition = TopicPartition::new(topic.as_str(), shard);
    let committed = fixture.log.committed(OLD, &[partition]).unwrap();
    let state: ShardState = offsets::decode(&committed[0].as_ref().unwrap().metadata).unwrap();
    let record = processor::record::read(fixture.log.as_ref(), OLD)
        .unwrap()
        .unwrap();
    let text = format!("{}\nshards {}", record.queries[0].text, record.shards);
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::transactional("marks"))
        .unwrap();
    producer.init_transactions().unwrap();
    producer.begin().unwrap();
    for source in 0..2 {
        let at = TopicPartition::new("trips", source);
        let at = fixture.log.committed(OLD, &[at]).unwrap()[0]
            .as_ref()
            .unwrap()
            .offset;
        let header = Header {
            version: engine::partial::FORMAT_VERSION,
            fingerprint: engine::partial::fingerprint_hash(&text),
            topic_id: fixture.log.topic("trips").unwrap().unwrap().id,
            partition: source,
            partitions: 2,
            start: at,
            end: at,
            rows_in: 0,
            filtered: 0,
            dead: 0,
            watermark: state.watermark.map(|at| at + by_ms),
            idle: false,
            advance_to: None,
            ended: false,
        };
        let record = partial::encode(&header, None).unwrap();
        producer
            .send(NewRecord {
                topic: &topic,
                partition: Some(shard),
                key: None,
                value: None,
                headers: &record.headers(),
                timestamp_ms: None,
            })
            .unwrap();
    }
    producer.commit().unwrap();
}

#[test]
fn shards_that_are_not_equally_far_are_brought_to_one_point() {
    // The rows are at most 30 seconds out of order, and a minute is allowed for: half of it may be taken back.
    for (seed, shard) in [(7, 0), (8, 1)] {
        let (fixture, sql, rows) = followed(seed, 2);
        put_ahead(&fixture, shard, 29_000);
        let handed = cutover(&fixture, Arc::clone(&fixture.log) as _, &sql).unwrap();
        let watermarks: Vec<_> = processor::status::read(fixture.log.as_ref(), OLD, [], [QUERY])
            .unwrap()
            .shards
            .iter()
            .map(|shard| shard.place.state.as_ref().unwrap().watermark)
            .collect();
        assert_eq!(watermarks, [handed.queries[0].given_to; 2]);
        fixture.write(&rows[250..]);
        finish(&fixture, new(&fixture, &sql)).unwrap();
        assert_same(&fixture.results(), &naive(&rows), &format!("seed {seed}"));
    }
}

#[test]
fn a_successor_that_has_taken_over_needs_nothing_of_its_predecessor_any_more() {
    let (fixture, sql, rows) = followed(9, 2);
    cutover(&fixture, Arc::clone(&fixture.log) as _, &sql).unwrap();
    fixture.write(&rows[250..300]);
    world::until(new(&fixture, &sql), || {
        ledger(&fixture, NEW, QUERY).emitted > 0
    });
    fixture.log.delete_group(OLD).unwrap();
    fixture
        .log
        .delete_topic(&processor::topics::job(OLD))
        .unwrap();
    fixture.write(&rows[300..]);
    // Nor the setting.
    let mut options = new(&fixture, &sql);
    options.job.takes_over = None;
    finish(&fixture, options).unwrap();
    assert_same(&fixture.results(), &naive(&rows), "without its predecessor");
}
