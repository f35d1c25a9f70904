//! Jobs whose queries read the results of others: each query goes on where its predecessor stopped, over one topic between
//! them that first the one and then the other application writes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use processor::cutover::{Cutover, CutoverError};
use processor::ledger::QueryLedger;
use processor::status;
use runtime::log::Log;

use super::kinds::{finals, told};
use super::world::{
    NEW, OLD, THIRD, application, behind, counts, cutover, cutover_between, finish, follow,
    has_read, ledger, ledger_of, new, old, rows, size, until,
};
use crate::fixture::{Fixture, MINUTE_MS, QUERY, Trip, trips};

/// Minutes by vendor, and five of them together by vendor.
const FIVE: i64 = 5 * MINUTE_MS;
const WINDOW: [&str; 2] = ["window_start", "vendor_id"];
const MINUTE: [&str; 2] = ["at", "vendor_id"];
const SOURCE: &str = "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');";

/// The first query, of trips with passengers.
fn first(emit: &str, from: &str) -> String {
    format!(
        "{SOURCE}
         CREATE SINK per_minute WITH (topic = 'per_minute', key = 'at, vendor_id', emit = '{emit}');
         INSERT INTO per_minute
         SELECT window_start AS at, window_end AS until, vendor_id, count(*) AS trips
         FROM {from} WHERE passenger_count > 0 GROUP BY window_start, window_end, vendor_id;"
    )
}

const TUMBLE: &str = "TUMBLE(trips, pickup_at, INTERVAL '1 minute')";

/// The topic between the queries as a source, by this column.
fn between(event_time: &str, more: &str) -> String {
    format!("CREATE SOURCE minutes WITH (topic = 'per_minute', event_time = '{event_time}'{more});")
}

/// The second query.
fn second(emit: &str, from: &str, filter: &str) -> String {
    format!(
        "CREATE SINK q WITH (topic = 'q', key = 'window_start, vendor_id', emit = '{emit}');
         INSERT INTO q SELECT window_start, vendor_id, sum(trips) AS trips, count(*) AS parts
         FROM {from} {filter} GROUP BY window_start, vendor_id;"
    )
}

fn five(event_time: &str) -> String {
    format!("TUMBLE(minutes, {event_time}, INTERVAL '5 minutes')")
}

/// Windows of a minute, and windows of five over them.
fn windows() -> String {
    let by = between("at", ", out_of_orderness = INTERVAL '1 minute'");
    [first("final", TUMBLE), by, second("final", &five("at"), "")].concat()
}

/// The old application's shards, and those of its second query, as far as they are.
fn watermarks(fixture: &Fixture, query: &str) -> Vec<Option<i64>> {
    let status = status::read(fixture.log.as_ref(), OLD, [], [query]).unwrap();
    let states = status.shards.into_iter().map(|shard| shard.place.state);
    states
        .map(|state| state.and_then(|state| state.watermark))
        .collect()
}

/// Lets the old application read all trips and fold them, and, if it is to `settle`, all that comes of that.
fn run_old(fixture: &Fixture, sql: &str, settle: bool) {
    let folded = |queries: &[&str]| {
        let queries = queries.iter().copied();
        let status = status::read(fixture.log.as_ref(), OLD, [], queries).unwrap();
        let mut shards = status.shards.iter();
        shards.all(|shard| shard.place.committed.is_some() && shard.place.lag == 0)
    };
    let has_state = |name: &str| {
        fixture
            .log
            .topic(&processor::topics::partials(OLD, name))
            .unwrap()
            .is_some()
    };
    let read_results = || {
        let read = status::read(fixture.log.as_ref(), OLD, ["per_minute"], []).unwrap();
        let mut sources = read.sources.iter();
        sources.all(|of| of.place.committed.is_some() && of.place.lag == 0)
    };
    until(old(fixture, sql), || {
        let stateful: Vec<&str> = [QUERY, "q"]
            .into_iter()
            .filter(|name| has_state(name))
            .collect();
        if !has_read(fixture, OLD) || !folded(&stateful) {
            return false;
        }
        if !settle {
            return true;
        }
        // Of queries with windows the second hears how far the first is.
        let heard = match sql.contains(" AS until") && stateful.len() == 2 {
            true => {
                let written = watermarks(fixture, QUERY).into_iter().min().flatten();
                let ooo = if sql.contains("minutes WITH (topic = 'per_minute', event_time = 'at'") {
                    MINUTE_MS
                } else {
                    0
                };
                watermarks(fixture, "q")
                    .into_iter()
                    .all(|heard| heard >= written.map(|at| at - ooo))
            }
            false => true,
        };
        read_results() && heard && folded(&stateful)
    });
}

/// How a job is taken through both applications.
struct Way {
    seed: u64,
    /// Of the new application.
    shards: u32,
    /// Whether the old one stops at rest, or with results of its first query that its second one has not read.
    settle: bool,
}

const WAYS: [Way; 3] = [
    Way {
        seed: 21,
        shards: 2,
        settle: true,
    },
    Way {
        seed: 22,
        shards: 3,
        settle: true,
    },
    Way {
        seed: 23,
        shards: 1,
        settle: false,
    },
];

impl std::fmt::Display for Way {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            seed,
            shards,
            settle,
        } = self;
        write!(
            f,
            "seed {seed}, {shards} shards, {}",
            if *settle { "at rest" } else { "in flight" }
        )
    }
}

const ROWS: usize = 600;

/// Takes trips through both applications, with `old` and `changed` as their jobs.
fn through(way: &Way, old: &str, changed: &str) -> (Fixture, Vec<Trip>) {
    let all = trips(way.seed, ROWS, 30_000);
    let fixture = Fixture::new(2);
    for part in all[..400].chunks(100) {
        fixture.write(part);
        run_old(&fixture, old, way.settle);
    }
    let sizes = || ["per_minute", "q"].map(|topic| size(&fixture, topic));
    let before = sizes();
    assert!(before[0] > 0 && (before[1] > 0 || !way.settle), "{way}");
    let application = || {
        let mut options = new(&fixture, changed);
        options.job.shards = way.shards;
        options
    };
    follow(&fixture, application());
    if old == changed {
        assert_eq!(sizes(), before, "{way}: it gives nothing");
    }
    fixture.write(&all[400..450]);
    cutover(&fixture, Arc::clone(&fixture.log) as _, old).unwrap();
    fixture.write(&all[450..500]);
    until(application(), || has_read(&fixture, NEW));
    fixture.write(&all[500..]);
    finish(&fixture, application()).unwrap();
    (fixture, all)
}

/// That the second query of the new application took all that both of the first one gave, and no row was late.
fn balanced(fixture: &Fixture, what: &str) -> (QueryLedger, QueryLedger) {
    let one = [OLD, NEW].map(|id| ledger(fixture, id, QUERY));
    let two = [OLD, NEW].map(|id| ledger_of(fixture, id, "q", "per_minute"));
    let given = |of: &QueryLedger| match processor::topics::partials(OLD, QUERY) {
        topic if fixture.log.topic(&topic).unwrap().is_some() => of.emitted + of.changes,
        _ => of.kept - of.given_before,
    };
    let written: u64 = one.iter().map(given).sum();
    assert_eq!(two[1].rows_in, written, "{what}");
    assert_eq!(two[1].late, 0, "{what}: late rows");
    assert_eq!(one[1].late, 0, "{what}: late rows");
    let folded = processor::topics::partials(NEW, "q");
    if fixture.log.topic(&folded).unwrap().is_some() {
        assert_eq!(two[1].assigned, two[1].merged, "{what}");
    }
    let [before, after] = two;
    assert_eq!(
        after.predecessor.clone().map(|of| of.handed_over),
        Some(true),
        "{what}"
    );
    (before, after)
}

/// That each of these windows was given as final once, and none else, with these trips.
fn each_once(
    fixture: &Fixture,
    topic: &str,
    key: &[&str],
    expected: &BTreeMap<Vec<i64>, i64>,
    what: &str,
) {
    assert_eq!(told(fixture, topic, key), *expected, "{what}: {topic}");
    let finals = finals(fixture, topic, key);
    assert_eq!(finals.len(), expected.len(), "{what}: {topic}");
    assert!(finals.values().all(|times| *times == 1), "{what}: {topic}");
}

/// A state to begin from, where the old application has read some trips.
pub fn begun(seed: u64, count: usize) -> (Fixture, String, Vec<Trip>) {
    let all = trips(seed, count, 30_000);
    let (fixture, sql) = (Fixture::new(2), windows());
    fixture.write(&all[..150]);
    run_old(&fixture, &sql, true);
    (fixture, sql, all)
}

/// The same, where the new application has caught up with it.
pub fn followed(seed: u64, shards: u32) -> (Fixture, String, Vec<Trip>) {
    let (fixture, sql, all) = begun(seed, 400);
    fixture.write(&all[150..250]);
    run_old(&fixture, &sql, true);
    assert!(size(&fixture, "q") > 0);
    let mut options = new(&fixture, &sql);
    options.job.shards = shards;
    follow(&fixture, options);
    (fixture, sql, all)
}

/// That each window of both queries was given once.
pub fn given(fixture: &Fixture, all: &[Trip], what: &str) {
    each_once(
        fixture,
        "per_minute",
        &MINUTE,
        &counts(all, MINUTE_MS),
        what,
    );
    each_once(fixture, "q", &WINDOW, &counts(all, FIVE), what);
}

/// The same, and that no row was lost sight of.
pub fn check(fixture: &Fixture, all: &[Trip], what: &str) {
    given(fixture, all, what);
    let (before, after) = balanced(fixture, what);
    assert_eq!(
        (before.emitted + after.emitted) as usize,
        counts(all, FIVE).len(),
        "{what}"
    );
    assert_eq!(
        after.predecessor.unwrap().results,
        Some(before.emitted),
        "{what}"
    );
}

#[test]
fn windows_over_windows_are_each_given_once() {
    for way in WAYS {
        let (fixture, all) = through(&way, &windows(), &windows());
        check(&fixture, &all, &way.to_string());
    }
}

#[test]
fn windows_over_hopping_windows_are_each_given_once() {
    let hop = "HOP(trips, pickup_at, INTERVAL '20 seconds', INTERVAL '1 minute')";
    let by = between("until", "");
    let sql = [first("final", hop), by, second("final", &five("until"), "")].concat();
    for way in WAYS {
        let (fixture, all) = through(&way, &sql, &sql);
        let mut expected: BTreeMap<Vec<i64>, i64> = BTreeMap::new();
        for trip in all.iter().filter(|trip| trip.passengers > 0) {
            let last = trip.pickup_ms.div_euclid(20_000) * 20_000;
            for start in [last - 40_000, last - 20_000, last] {
                let window = (start + MINUTE_MS).div_euclid(FIVE) * FIVE;
                *expected
                    .entry(vec![window, i64::from(trip.vendor)])
                    .or_default() += 1;
            }
        }
        each_once(&fixture, "q", &WINDOW, &expected, &way.to_string());
        balanced(&fixture, &way.to_string());
    }
}

#[test]
fn windows_over_sessions_and_sessions_over_windows_are_each_given_once() {
    let session = "SESSION(trips, pickup_at, INTERVAL '6 seconds')";
    let sql = [
        first("final", session),
        between("until", ""),
        second("final", &five("until"), ""),
    ]
    .concat();
    for way in WAYS {
        let (fixture, all) = through(&way, &sql, &sql);
        let mut expected: BTreeMap<Vec<i64>, i64> = BTreeMap::new();
        for vendor in 0..3 {
            let of = all
                .iter()
                .filter(|trip| trip.passengers > 0 && trip.vendor == vendor);
            let mut times: Vec<i64> = of.map(|trip| trip.pickup_ms).collect();
            times.sort_unstable();
            for session in times.chunk_by(|one, next| *next < one + 6_000) {
                let end = session.last().unwrap() + 6_000;
                *expected
                    .entry(vec![end.div_euclid(FIVE) * FIVE, i64::from(vendor)])
                    .or_default() += session.len() as i64;
            }
        }
        each_once(&fixture, "q", &WINDOW, &expected, &way.to_string());
        balanced(&fixture, &way.to_string());
    }
    // Vendors whose minutes follow on each other without a break; a minute without a trip ends it.
    let sessions = "SESSION(minutes, at, INTERVAL '1 minute')";
    let few = first("final", TUMBLE).replace("passenger_count > 0", "passenger_count > 3");
    let by = between("at", ", out_of_orderness = INTERVAL '1 minute'");
    let sql = [few, by, second("final", sessions, "")].concat();
    for way in WAYS {
        let (fixture, all) = through(&way, &sql, &sql);
        let mut few = all.clone();
        few.retain(|trip| trip.passengers > 3);
        let minutes = counts(&few, MINUTE_MS);
        let mut expected: BTreeMap<Vec<i64>, i64> = BTreeMap::new();
        for vendor in 0..3 {
            let of: Vec<(i64, i64)> = minutes
                .iter()
                .filter(|(key, _)| key[1] == vendor)
                .map(|(key, trips)| (key[0], *trips))
                .collect();
            for session in of.chunk_by(|one, next| next.0 < one.0 + MINUTE_MS) {
                let trips = session.iter().map(|(_, trips)| trips).sum();
                expected.insert(vec![session[0].0, vendor], trips);
            }
        }
        each_once(&fixture, "q", &WINDOW, &expected, &way.to_string());
        balanced(&fixture, &way.to_string());
    }
}

#[test]
fn windows_over_final_results_among_changes_are_each_given_once() {
    let by = between("at", ", out_of_orderness = INTERVAL '1 minute'");
    let of_finals = second("changes", &five("at"), "WHERE is_final");
    let sql = [first("changes", TUMBLE), by, of_finals].concat();
    for way in WAYS {
        let (fixture, all) = through(&way, &sql, &sql);
        given(&fixture, &all, &way.to_string());
        balanced(&fixture, &way.to_string());
    }
}

#[test]
fn groups_over_changes_have_the_last_word_of_each_window() {
    let last = "CREATE SINK q WITH (topic = 'q', key = 'at, vendor_id', emit = 'changes');
         INSERT INTO q SELECT at, vendor_id, max_by(trips, version) AS trips FROM minutes GROUP BY at, vendor_id;";
    let sql = [first("changes", TUMBLE), between("at", ""), last.into()].concat();
    for way in WAYS {
        let (fixture, all) = through(&way, &sql, &sql);
        assert_eq!(
            told(&fixture, "q", &MINUTE),
            counts(&all, MINUTE_MS),
            "{way}"
        );
        balanced(&fixture, &way.to_string());
    }
}

#[test]
fn groups_over_groups_have_the_last_word_of_each_group() {
    let sql = format!(
        "{SOURCE}
         CREATE SINK per_minute WITH (topic = 'per_minute', key = 'vendor_id', emit = 'changes');
         INSERT INTO per_minute SELECT vendor_id, max(pickup_at) AS at, count(*) AS trips FROM trips
         WHERE passenger_count > 0 GROUP BY vendor_id;
         {}
         CREATE SINK q WITH (topic = 'q', key = 'vendor_id', emit = 'changes');
         INSERT INTO q SELECT vendor_id, max_by(trips, version) AS trips FROM minutes GROUP BY vendor_id;",
        between("at", "")
    );
    for way in WAYS {
        let (fixture, all) = through(&way, &sql, &sql);
        assert_eq!(
            told(&fixture, "q", &["vendor_id"]),
            counts(&all, 0),
            "{way}"
        );
        balanced(&fixture, &way.to_string());
    }
}

#[test]
fn windows_over_rows_are_each_given_once() {
    let sql = format!(
        "{SOURCE}
         CREATE SINK per_minute WITH (topic = 'per_minute', key = 'id');
         INSERT INTO per_minute SELECT id, vendor_id, pickup_at, 1 AS trips FROM trips WHERE passenger_count > 0;
         {}{}",
        // Partitions of trips are read a part of a hundred, of 150 seconds, apart.
        between("pickup_at", ", out_of_orderness = INTERVAL '4 minutes'"),
        second("final", "TUMBLE(minutes, pickup_at, INTERVAL '1 minute')", ""),
    );
    for way in WAYS {
        let (fixture, all) = through(&way, &sql, &sql);
        each_once(
            &fixture,
            "q",
            &WINDOW,
            &counts(&all, MINUTE_MS),
            &way.to_string(),
        );
        balanced(&fixture, &way.to_string());
    }
}

#[test]
fn rows_over_windows_and_rows_over_rows_are_each_given_once() {
    let many = "CREATE SINK q WITH (topic = 'q', key = 'at, vendor_id');
         INSERT INTO q SELECT at, vendor_id, trips FROM minutes WHERE trips > 2;";
    let sql = [first("final", TUMBLE), between("at", ""), many.into()].concat();
    for way in WAYS {
        let (fixture, all) = through(&way, &sql, &sql);
        let mut expected = counts(&all, MINUTE_MS);
        expected.retain(|_, trips| *trips > 2);
        assert_eq!(rows(&fixture, "q").len(), expected.len(), "{way}");
        assert_eq!(told(&fixture, "q", &MINUTE), expected, "{way}");
        balanced(&fixture, &way.to_string());
    }
    let sql = format!(
        "{SOURCE}
         CREATE SINK per_minute WITH (topic = 'per_minute', key = 'id');
         INSERT INTO per_minute SELECT id, vendor_id, pickup_at, passenger_count FROM trips WHERE passenger_count > 0;
         {}
         CREATE SINK q WITH (topic = 'q', key = 'id');
         INSERT INTO q SELECT id, vendor_id, pickup_at, passenger_count AS trips FROM minutes WHERE passenger_count > 2;",
        between("pickup_at", "")
    );
    for way in WAYS {
        let (fixture, all) = through(&way, &sql, &sql);
        let mut found: Vec<_> = rows(&fixture, "q")
            .iter()
            .map(|(row, _)| {
                (
                    row["pickup_at"] as i64,
                    row["vendor_id"] as i64,
                    row["trips"] as i64,
                )
            })
            .collect();
        let mut expected: Vec<_> = all
            .iter()
            .filter(|trip| trip.passengers > 2)
            .map(|trip| {
                (
                    trip.pickup_ms,
                    i64::from(trip.vendor),
                    i64::from(trip.passengers),
                )
            })
            .collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "{way}");
        balanced(&fixture, &way.to_string());
    }
}

#[test]
fn three_queries_in_a_row_and_two_over_one_go_on() {
    let more = "CREATE SOURCE fives WITH (topic = 'q', event_time = 'window_start', out_of_orderness = INTERVAL '5 minutes');
         CREATE SINK tens WITH (topic = 'tens', key = 'ten, vendor_id');
         INSERT INTO tens SELECT window_start AS ten, vendor_id, sum(trips) AS trips
         FROM TUMBLE(fives, at5, INTERVAL '10 minutes') GROUP BY window_start, vendor_id;
         CREATE SINK twos WITH (topic = 'twos', key = 'window_start, vendor_id');
         INSERT INTO twos SELECT window_start, vendor_id, sum(trips) AS trips
         FROM TUMBLE(minutes, at, INTERVAL '2 minutes') GROUP BY window_start, vendor_id;";
    let sql = windows()
        .replace(
            "key = 'window_start, vendor_id', emit = 'final'",
            "key = 'at5, vendor_id'",
        )
        .replace(
            "INSERT INTO q SELECT window_start,",
            "INSERT INTO q SELECT window_start AS at5,",
        )
        + &more.replace("event_time = 'window_start'", "event_time = 'at5'");
    for way in WAYS {
        let (fixture, all) = through(&way, &sql, &sql);
        let what = way.to_string();
        each_once(
            &fixture,
            "per_minute",
            &MINUTE,
            &counts(&all, MINUTE_MS),
            &what,
        );
        each_once(
            &fixture,
            "q",
            &["at5", "vendor_id"],
            &counts(&all, FIVE),
            &what,
        );
        each_once(
            &fixture,
            "tens",
            &["ten", "vendor_id"],
            &counts(&all, 2 * FIVE),
            &what,
        );
        each_once(
            &fixture,
            "twos",
            &WINDOW,
            &counts(&all, 2 * MINUTE_MS),
            &what,
        );
    }
}

#[test]
fn a_new_query_over_results_that_are_taken_over_has_all_of_them() {
    let way = &WAYS[1];
    // The old job has nobody who reads its results: the new one adds that.
    let old = first("final", TUMBLE);
    let all = trips(way.seed, ROWS, 30_000);
    let fixture = Fixture::new(2);
    fixture.write(&all[..400]);
    super::world::run_old(&fixture, &old, &[QUERY]);
    let changed = || {
        let mut options = new(&fixture, &windows());
        options.job.shards = way.shards;
        options
    };
    follow(&fixture, changed());
    // It gives at once, as new queries do.
    until(changed(), || size(&fixture, "q") > 0);
    cutover(&fixture, Arc::clone(&fixture.log) as _, &old).unwrap();
    fixture.write(&all[400..]);
    finish(&fixture, changed()).unwrap();
    given(&fixture, &all, &way.to_string());
    assert_eq!(ledger_of(&fixture, NEW, "q", "per_minute").late, 0);
}

#[test]
fn both_run_at_once_with_queries_over_the_results_of_others() {
    for seed in [31, 32] {
        let all = trips(seed, ROWS, 30_000);
        let (fixture, sql) = (Fixture::new(2), windows());
        fixture.write(&all[..100]);
        run_old(&fixture, &sql, true);
        std::thread::scope(|scope| {
            let (fixture, sql, all) = (&fixture, &sql, &all);
            let mut following = new(fixture, sql);
            (following.job.shards, following.workers) = (3, 2);
            let lifecycle = following.lifecycle.clone();
            let new = scope.spawn(move || processor::run(&following));
            for (round, part) in all[100..500].chunks(100).enumerate() {
                fixture.write(part);
                run_old(fixture, sql, round % 2 == 0);
            }
            let caught_up = || behind(fixture).is_some_and(|behind| behind.caught_up());
            while !caught_up() && !new.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            cutover(fixture, Arc::clone(&fixture.log) as _, sql).unwrap();
            fixture.write(&all[500..]);
            while ledger_of(fixture, NEW, "q", "per_minute").emitted == 0 && !new.is_finished() {
                std::thread::sleep(Duration::from_millis(5));
            }
            lifecycle.stop();
            new.join().unwrap().unwrap();
        });
        let mut options = new(&fixture, &sql);
        options.job.shards = 3;
        finish(&fixture, options).unwrap();
        check(&fixture, &all, &format!("seed {seed}"));
    }
}

#[test]
fn a_successor_far_behind_and_a_third_application_give_each_window_once() {
    let (sql, all) = (windows(), trips(33, ROWS, 30_000));
    let fixture = Fixture::new(2);
    let log = || Arc::clone(&fixture.log) as Arc<dyn Log>;
    fixture.write(&all[..300]);
    run_old(&fixture, &sql, true);
    let mut slow = new(&fixture, &sql);
    slow.job.shards = 3;
    (slow.worker.max_poll_records, slow.worker.max_range_rows) = (5, 5);
    until(slow, || {
        behind(&fixture).is_some_and(|behind| behind.percent > 0.0)
    });
    cutover(&fixture, log(), &sql).unwrap();
    fixture.write(&all[300..400]);
    let mut second = new(&fixture, &sql);
    second.job.shards = 3;
    until(second, || has_read(&fixture, NEW));
    follow(&fixture, application(&fixture, log(), THIRD, &sql));
    let script = engine::sql::parse(&sql).unwrap();
    let plan = Cutover::plan(log().as_ref(), NEW, THIRD, &script).unwrap();
    assert_eq!(plan.shards, 3);
    let mut options = application(&fixture, log(), NEW, &sql);
    options.job.shards = 3;
    plan.run(&options).unwrap();
    fixture.write(&all[400..]);
    finish(&fixture, application(&fixture, log(), THIRD, &sql)).unwrap();
    given(&fixture, &all, "three applications");
    let three = ledger_of(&fixture, THIRD, "q", "per_minute");
    assert_eq!(three.late, 0);
    assert_eq!(three.rows_in as usize, counts(&all, MINUTE_MS).len());
}

/// A log whose old application stands still, with another job's text that is to take it over.
fn refused(fixture: &Fixture, changed: &str) -> String {
    match processor::run(&new(fixture, changed)) {
        Ok(()) => String::new(),
        Err(error) => super::refusals::chain(&error),
    }
}

#[test]
fn topics_between_queries_must_be_the_same_and_written_by_the_same_queries() {
    let (fixture, sql) = (Fixture::new(2), windows());
    fixture.write(&trips(41, 200, 30_000));
    run_old(&fixture, &sql, false);
    // Another topic in between lacks what was given.
    let other = sql.replace("'per_minute'", "'minutes'");
    let error = refused(&fixture, &other);
    assert!(
        error.contains("that one reads per_minute, this one minutes"),
        "{error}"
    );
    let renamed = other
        .replace("SINK q ", "SINK p ")
        .replace("INTO q ", "INTO p ");
    let error = refused(&fixture, &renamed);
    assert!(
        error.contains("query per_minute writes to it, and the one of old to per_minute"),
        "{error}"
    );
    // Nobody writes it any more.
    let renamed = sql
        .replace("SINK per_minute ", "SINK minute ")
        .replace("INTO per_minute\n", "INTO minute\n");
    let error = refused(&fixture, &renamed);
    assert!(
        error.contains("query minute is new, and would write to topic per_minute at once"),
        "{error}"
    );
    let alone = format!(
        "{}{}",
        between("at", ", out_of_orderness = INTERVAL '1 minute'"),
        second("final", &five("at"), "")
    );
    let error = refused(&fixture, &alone);
    assert!(
        error.contains("query per_minute of old writes to it, and none of that name does here"),
        "{error}"
    );
    // Windows around the handover would count twice.
    let longer = sql.replace(
        "pickup_at, INTERVAL '1 minute')",
        "pickup_at, INTERVAL '2 minutes')",
    );
    let error = refused(&fixture, &longer);
    assert!(
        error.contains("query per_minute has other windows"),
        "{error}"
    );
    // A chain of new queries is theirs alone.
    let own = sql
        .replace("'per_minute'", "'own'")
        .replace("'q'", "'own q'")
        .replace("SINK q ", "SINK own_q ")
        .replace("INTO q ", "INTO own_q ")
        .replace("SINK per_minute ", "SINK own ")
        .replace("INTO per_minute\n", "INTO own\n")
        .replace("minutes", "own_minutes")
        .replace("'5 own_minutes'", "'5 minutes'")
        .replace("'own q'", "'own_q'");
    let both = format!("{sql}{}", own.strip_prefix(SOURCE).unwrap());
    follow(&fixture, new(&fixture, &both));
    // The old job has another text by now.
    let error = cutover(
        &fixture,
        Arc::clone(&fixture.log) as _,
        &first("final", TUMBLE).replace("'per_minute'", "'elsewhere'"),
    )
    .unwrap_err();
    assert!(
        error.to_string().contains("the one of old to elsewhere"),
        "{error}"
    );
    cutover(&fixture, Arc::clone(&fixture.log) as _, &sql).unwrap();
}

#[test]
fn who_writes_what_must_be_on_record() {
    let (fixture, sql) = (Fixture::new(2), windows());
    fixture.write(&trips(42, 200, 30_000));
    // As the release before began it.
    let mut begun = old(&fixture, &sql);
    begun.job.newest_format = processor::format::OLDEST;
    until(begun, || has_read(&fixture, OLD));
    let error = refused(&fixture, &sql);
    assert!(
        error.contains("record of application old does not say"),
        "{error}"
    );
    run_old(&fixture, &sql, false);
    let error = refused(&fixture, &sql);
    assert!(error.contains("finalize its upgrade"), "{error}");
    processor::record::Upgrade::of(fixture.log.as_ref(), OLD)
        .unwrap()
        .finalize(fixture.log.as_ref())
        .unwrap();
    run_old(&fixture, &sql, false);
    follow(&fixture, new(&fixture, &sql));
    // Sinks may go elsewhere between two starts.
    let record = |id| {
        processor::record::read(fixture.log.as_ref(), id)
            .unwrap()
            .unwrap()
    };
    let sinks = |id| -> Vec<Option<String>> {
        record(id)
            .queries
            .into_iter()
            .map(|query| query.sink)
            .collect()
    };
    let known = |name: &str| Some(name.to_owned());
    assert_eq!(sinks(OLD), [known("per_minute"), known("q")]);
    let moved = sql.replace("topic = 'q'", "topic = 'p'");
    run_old(&fixture, &moved, false);
    assert_eq!(sinks(OLD), [known("per_minute"), known("p")]);
}

#[test]
fn the_silence_of_those_that_wait_for_the_handover_is_no_idleness() {
    let sql = format!(
        "{SOURCE}
         CREATE SINK per_minute WITH (topic = 'per_minute', key = 'id');
         INSERT INTO per_minute SELECT id, vendor_id, pickup_at, 1 AS trips FROM trips WHERE passenger_count > 0;
         {}{}",
        between("pickup_at", ", out_of_orderness = INTERVAL '4 minutes', idle_timeout = INTERVAL '30 seconds'"),
        second("final", "TUMBLE(minutes, pickup_at, INTERVAL '1 minute')", ""),
    );
    let all = trips(43, 300, 30_000);
    let fixture = Fixture::new(2);
    for part in all[..200].chunks(100) {
        fixture.write(part);
        run_old(&fixture, &sql, true);
    }
    // The old one is stopped, and the new one waits for an hour.
    let mut waiting = new(&fixture, &sql);
    waiting.worker.idle_marks = true;
    waiting.clock = Arc::clone(&fixture.clock) as _;
    let minutes = std::cell::Cell::new(0);
    until(waiting, || {
        fixture.clock.advance(Duration::from_secs(2));
        if behind(&fixture).is_some_and(|behind| behind.caught_up()) {
            minutes.set(minutes.get() + 1);
        }
        minutes.get() > 300
    });
    cutover(&fixture, Arc::clone(&fixture.log) as _, &sql).unwrap();
    fixture.write(&all[200..]);
    finish(&fixture, new(&fixture, &sql)).unwrap();
    each_once(
        &fixture,
        "q",
        &WINDOW,
        &counts(&all, MINUTE_MS),
        "an hour of silence",
    );
    balanced(&fixture, "an hour of silence");
}

#[test]
fn an_application_that_has_not_come_to_where_the_one_before_it_stopped_is_not_handed_over() {
    let sql = format!(
        "{SOURCE}
         CREATE SINK q WITH (topic = 'q', key = 'id');
         INSERT INTO q SELECT id, vendor_id, 1 AS trips FROM trips WHERE passenger_count > 0;"
    );
    let all = trips(44, 400, 30_000);
    let fixture = Fixture::new(2);
    let log = || Arc::clone(&fixture.log) as Arc<dyn Log>;
    fixture.write(&all[..300]);
    super::world::run_old(&fixture, &sql, &[]);
    let slow = || {
        let mut slow = new(&fixture, &sql);
        (slow.worker.max_poll_records, slow.worker.max_range_rows) = (5, 5);
        slow
    };
    until(slow(), || {
        behind(&fixture).is_some_and(|behind| behind.percent > 0.0)
    });
    cutover(&fixture, log(), &sql).unwrap();
    let knows = || {
        let record = processor::record::read(fixture.log.as_ref(), NEW)
            .unwrap()
            .unwrap();
        record.takes_over.unwrap().handed_over.is_some()
    };
    until(slow(), knows);
    until(application(&fixture, log(), THIRD, &sql), || {
        processor::record::read(fixture.log.as_ref(), THIRD)
            .unwrap()
            .is_some()
    });
    if !has_read(&fixture, NEW) {
        let early = cutover_between(&fixture, log(), (NEW, THIRD), &sql).unwrap_err();
        assert!(matches!(early, CutoverError::Behind { .. }), "{early:?}");
    }
    until(new(&fixture, &sql), || has_read(&fixture, NEW));
    cutover_between(&fixture, log(), (NEW, THIRD), &sql).unwrap();
    fixture.write(&all[300..]);
    finish(&fixture, application(&fixture, log(), THIRD, &sql)).unwrap();
    let expected = all.iter().filter(|trip| trip.passengers > 0).count();
    assert_eq!(rows(&fixture, "q").len(), expected);
}
