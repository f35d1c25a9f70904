//! Queries of every kind: what is handed over of each, by what the job's text says.

use std::collections::BTreeMap;
use std::sync::Arc;

use schemas::value_subject;

use processor::cutover::CutoverError;
use runtime::log::Log;

use super::world::{
    NEW, OLD, THIRD, application, behind, counts, cutover, cutover_between, finish, follow,
    has_read, new, newest, rows, run_old, size, until,
};
use crate::fixture::{Fixture, MINUTE_MS, Trip, trips};

const SOURCE: &str = "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');";

/// Takes rows through both applications; `between` is done before the new one starts.
fn through(
    seed: u64,
    old: &str,
    new_sql: &str,
    query: &str,
    between: impl Fn(&Fixture),
) -> (Fixture, Vec<Trip>) {
    let all = trips(seed, 400, 30_000);
    let fixture = Fixture::new(2);
    let stateful: &[&str] = if old.contains("count(*)") {
        &[query]
    } else {
        &[]
    };
    fixture.write(&all[..250]);
    run_old(&fixture, old, stateful);
    let before = size(&fixture, query);
    assert!(before > 0);
    between(&fixture);
    follow(&fixture, new(&fixture, new_sql));
    assert_eq!(size(&fixture, query), before, "it gives nothing");
    fixture.write(&all[250..300]);
    cutover(&fixture, Arc::clone(&fixture.log) as _, old).unwrap();
    fixture.write(&all[300..]);
    finish(&fixture, new(&fixture, new_sql)).unwrap();
    (fixture, all)
}

/// The trips that each key's newest row counts.
pub(super) fn told(fixture: &Fixture, topic: &str, key: &[&str]) -> BTreeMap<Vec<i64>, i64> {
    let newest = newest(rows(fixture, topic), key).into_iter();
    newest
        .map(|(key, (row, _))| (key, row["trips"] as i64))
        .collect()
}

/// How often each key was given as final.
pub(super) fn finals(fixture: &Fixture, topic: &str, key: &[&str]) -> BTreeMap<Vec<i64>, i64> {
    let mut finals = BTreeMap::new();
    for (row, is_final) in rows(fixture, topic) {
        if is_final {
            let of: Vec<i64> = key.iter().map(|name| row[*name] as i64).collect();
            *finals.entry(of).or_default() += 1;
        }
    }
    finals
}

fn windowed(emit: &str, from: &str, more: &str) -> String {
    format!(
        "{SOURCE}
         CREATE SINK q WITH (topic = 'q', key = 'window_start, vendor_id', emit = '{emit}');
         INSERT INTO q SELECT window_start, vendor_id, count(*) AS trips{more}
         FROM {from} WHERE passenger_count > 0 GROUP BY window_start, vendor_id;"
    )
}

const WINDOW: [&str; 2] = ["window_start", "vendor_id"];
const TUMBLE: &str = "TUMBLE(trips, pickup_at, INTERVAL '1 minute')";

#[test]
fn hopping_windows_are_each_given_once() {
    let sql = windowed(
        "final",
        "HOP(trips, pickup_at, INTERVAL '20 seconds', INTERVAL '1 minute')",
        "",
    );
    let (fixture, all) = through(1, &sql, &sql, "q", |_| {});
    let mut expected: BTreeMap<Vec<i64>, i64> = BTreeMap::new();
    for trip in all.iter().filter(|trip| trip.passengers > 0) {
        let last = trip.pickup_ms.div_euclid(20_000) * 20_000;
        for start in [last - 40_000, last - 20_000, last] {
            *expected
                .entry(vec![start, i64::from(trip.vendor)])
                .or_default() += 1;
        }
    }
    assert_eq!(told(&fixture, "q", &WINDOW), expected);
    assert!(
        finals(&fixture, "q", &WINDOW)
            .values()
            .all(|times| *times == 1)
    );
}

#[test]
fn sessions_are_each_given_once() {
    let sql = windowed(
        "final",
        "SESSION(trips, pickup_at, INTERVAL '6 seconds')",
        "",
    );
    let (fixture, all) = through(2, &sql, &sql, "q", |_| {});
    let mut expected: BTreeMap<Vec<i64>, i64> = BTreeMap::new();
    for vendor in 0..3 {
        let of = all
            .iter()
            .filter(|trip| trip.passengers > 0 && trip.vendor == vendor);
        let mut times: Vec<i64> = of.map(|trip| trip.pickup_ms).collect();
        times.sort_unstable();
        let mut start = None;
        let mut last = i64::MIN;
        for time in times {
            if start.is_none() || time >= last + 6_000 {
                start = Some(time);
            }
            last = time;
            *expected
                .entry(vec![start.unwrap(), i64::from(vendor)])
                .or_default() += 1;
        }
    }
    assert_eq!(told(&fixture, "q", &WINDOW), expected);
    assert!(
        finals(&fixture, "q", &WINDOW)
            .values()
            .all(|times| *times == 1)
    );
}

#[test]
fn windows_whose_changes_are_told_go_on_above_the_versions_of_before() {
    for seed in [3, 4] {
        let sql = windowed("changes", TUMBLE, "");
        let (fixture, all) = through(seed, &sql, &sql, "q", |_| {});
        assert_eq!(told(&fixture, "q", &WINDOW), counts(&all, MINUTE_MS));
        let finals = finals(&fixture, "q", &WINDOW);
        assert_eq!(finals.len(), counts(&all, MINUTE_MS).len());
        assert!(finals.values().all(|times| *times == 1));
        // No version comes twice for a key.
        let mut seen = std::collections::BTreeSet::new();
        for (row, _) in rows(&fixture, "q") {
            let of = (
                row["window_start"] as i64,
                row["vendor_id"] as i64,
                row["version"] as i64,
            );
            assert!(seen.insert(of), "{row:?}");
        }
    }
}

#[test]
fn a_successor_that_is_far_behind_gives_nothing_of_what_was_given() {
    let rows_of = format!(
        "{SOURCE}
         CREATE SINK q WITH (topic = 'q', key = 'id');
         INSERT INTO q SELECT id, vendor_id, 1 AS trips FROM trips WHERE passenger_count > 0;"
    );
    let sessions = "SESSION(trips, pickup_at, INTERVAL '6 seconds')";
    let jobs = [
        windowed("final", TUMBLE, ""),
        windowed("changes", TUMBLE, ""),
        windowed("final", sessions, ""),
        rows_of,
    ];
    for sql in jobs {
        let all = trips(14, 400, 30_000);
        let fixture = Fixture::new(2);
        let stateful: &[&str] = if sql.contains("count(*)") {
            &["q"]
        } else {
            &[]
        };
        fixture.write(&all[..300]);
        run_old(&fixture, &sql, stateful);
        let mut slow = new(&fixture, &sql);
        (slow.worker.max_poll_records, slow.worker.max_range_rows) = (5, 5);
        until(slow, || {
            behind(&fixture).is_some_and(|behind| behind.percent > 0.0)
        });
        let handed = cutover(&fixture, Arc::clone(&fixture.log) as _, &sql).unwrap();
        fixture.write(&all[300..]);
        finish(&fixture, new(&fixture, &sql)).unwrap();
        let given = rows(&fixture, "q");
        if stateful.is_empty() {
            let expected = all.iter().filter(|trip| trip.passengers > 0).count();
            assert_eq!(given.len(), expected);
            continue;
        }
        let total: i64 = told(&fixture, "q", &WINDOW).values().sum();
        assert_eq!(total, counts(&all, 0).values().sum::<i64>(), "{sql}");
        assert!(
            finals(&fixture, "q", &WINDOW)
                .values()
                .all(|times| *times == 1),
            "{sql}"
        );
        let newest = newest(given, &WINDOW);
        assert!(
            newest.values().all(|(_, is_final)| *is_final),
            "{sql}: {handed:?}"
        );
    }
}

#[test]
fn groups_without_windows_are_all_told_anew() {
    let sql = format!(
        "{SOURCE}
         CREATE SINK q WITH (topic = 'q', key = 'vendor_id', emit = 'changes');
         INSERT INTO q SELECT vendor_id, count(*) AS trips FROM trips
         WHERE passenger_count > 0 GROUP BY vendor_id;"
    );
    let (fixture, all) = through(5, &sql, &sql, "q", |_| {});
    assert_eq!(told(&fixture, "q", &["vendor_id"]), counts(&all, 0));
}

#[test]
fn all_that_is_open_is_told_even_if_nothing_comes_any_more() {
    let sql = format!(
        "{SOURCE}
         CREATE SINK q WITH (topic = 'q', key = 'vendor_id', emit = 'changes');
         INSERT INTO q SELECT vendor_id, count(*) AS trips FROM trips
         WHERE passenger_count > 0 GROUP BY vendor_id;"
    );
    // The new job counts something else: without a row, only the takeover tells it.
    let changed = sql.replace("passenger_count > 0", "passenger_count >= 0");
    let all = trips(6, 250, 30_000);
    let fixture = Fixture::new(2);
    fixture.write(&all);
    run_old(&fixture, &sql, &["q"]);
    follow(&fixture, new(&fixture, &changed));
    cutover(&fixture, Arc::clone(&fixture.log) as _, &sql).unwrap();
    let mut expected: BTreeMap<Vec<i64>, i64> = BTreeMap::new();
    for trip in &all {
        *expected.entry(vec![i64::from(trip.vendor)]).or_default() += 1;
    }
    until(new(&fixture, &changed), || {
        told(&fixture, "q", &["vendor_id"]) == expected
    });
}

#[test]
fn rows_are_each_given_once_by_their_offsets() {
    for seed in [7, 8] {
        let sql = format!(
            "{SOURCE}
             CREATE SINK q WITH (topic = 'q', key = 'id');
             INSERT INTO q SELECT id, vendor_id, passenger_count FROM trips WHERE passenger_count > 0;"
        );
        let (fixture, all) = through(seed, &sql, &sql, "q", |_| {});
        let expected = all.iter().filter(|trip| trip.passengers > 0).count();
        assert_eq!(rows(&fixture, "q").len(), expected);
        let new = processor::ledger::read(fixture.log.as_ref(), NEW, "q", "trips", 0).unwrap();
        let old = processor::ledger::read(fixture.log.as_ref(), OLD, "q", "trips", 0).unwrap();
        assert_eq!((new.kept, new.given_before), (expected as u64, old.kept));
        assert_eq!(new.predecessor.unwrap().results, Some(old.kept));
    }
}

#[test]
fn a_changed_job_with_more_columns_goes_on_in_the_same_topic() {
    let old = windowed("final", TUMBLE, "");
    let changed = windowed("final", TUMBLE, ", sum(passenger_count) AS passengers");
    let (fixture, all) = through(9, &old, &changed, "q", |fixture| {
        // Whoever adds a column registers the topic's new schema first; the old application goes on with it.
        let (_, text) = fixture
            .registry
            .latest(&value_subject("q"))
            .unwrap()
            .unwrap();
        let field = r#"{"name": "passengers", "type": ["null", "long"], "default": null}"#;
        let mut schema: serde_json::Value = serde_json::from_str(&text).unwrap();
        let fields = schema["fields"].as_array_mut().unwrap();
        fields.push(serde_json::from_str(field).unwrap());
        fixture
            .registry
            .register(&value_subject("q"), &schema.to_string())
            .unwrap();
    });
    assert_eq!(told(&fixture, "q", &WINDOW), counts(&all, MINUTE_MS));
    assert!(
        finals(&fixture, "q", &WINDOW)
            .values()
            .all(|times| *times == 1)
    );
    let mut passengers: BTreeMap<Vec<i64>, i64> = BTreeMap::new();
    for trip in all.iter().filter(|trip| trip.passengers > 0) {
        let key = vec![
            trip.pickup_ms.div_euclid(MINUTE_MS) * MINUTE_MS,
            i64::from(trip.vendor),
        ];
        *passengers.entry(key).or_default() += i64::from(trip.passengers);
    }
    let mut with = 0;
    for (row, _) in rows(&fixture, "q") {
        if let Some(sum) = row.get("passengers") {
            with += 1;
            assert_eq!(
                *sum as i64,
                passengers[&vec![row["window_start"] as i64, row["vendor_id"] as i64]]
            );
        }
    }
    assert!(with > 0 && with < passengers.len());
}

#[test]
fn queries_that_only_one_of_the_jobs_has_begin_and_end() {
    let one = windowed("final", TUMBLE, "");
    let more = |name: &str| {
        format!(
            "CREATE SINK {name} WITH (topic = '{name}', key = 'window_start', emit = 'final');
             INSERT INTO {name} SELECT window_start, count(*) AS trips FROM TUMBLE(trips, pickup_at, INTERVAL '1 minute') GROUP BY window_start;"
        )
    };
    let (old, changed) = (
        format!("{one}{}", more("ends")),
        format!("{one}{}", more("begins")),
    );
    let (fixture, all) = through(10, &old, &changed, "q", |_| {});
    assert_eq!(told(&fixture, "q", &WINDOW), counts(&all, MINUTE_MS));
    let mut each: BTreeMap<Vec<i64>, i64> = BTreeMap::new();
    for trip in &all {
        *each
            .entry(vec![trip.pickup_ms.div_euclid(MINUTE_MS) * MINUTE_MS])
            .or_default() += 1;
    }
    // One gives everything; of the other there is what it had given.
    assert_eq!(told(&fixture, "begins", &["window_start"]), each);
    let ended = told(&fixture, "ends", &["window_start"]);
    assert!(!ended.is_empty() && ended.len() < each.len());
    assert!(ended.iter().all(|(key, trips)| each[key] == *trips));
}

#[test]
fn scores_remember_what_the_predecessor_gave() {
    let score = ", anomaly_score(count(*)) AS score";
    let sql = windowed("final", TUMBLE, score);
    let (fixture, all) = through(12, &sql, &sql, "q", |_| {});
    // As one application gives them that sees it all.
    let alone = Fixture::new(2);
    alone.write(&all);
    finish(&alone, super::world::old(&alone, &sql)).unwrap();
    let scores = |fixture: &Fixture| -> BTreeMap<Vec<i64>, Option<i64>> {
        let newest = newest(rows(fixture, "q"), &WINDOW).into_iter();
        newest
            .map(|(key, (row, _))| {
                (
                    key,
                    row.get("score").map(|score| (score * 1e6).round() as i64),
                )
            })
            .collect()
    };
    assert_eq!(scores(&fixture), scores(&alone));
    assert!(scores(&fixture).values().flatten().count() > 3);
}

#[test]
fn a_third_application_takes_over_from_the_second() {
    let sql = windowed("changes", TUMBLE, "");
    let all = trips(13, 500, 30_000);
    let fixture = Fixture::new(2);
    let log = || Arc::clone(&fixture.log) as Arc<dyn Log>;
    fixture.write(&all[..200]);
    run_old(&fixture, &sql, &["q"]);
    follow(&fixture, new(&fixture, &sql));
    // What follows another one itself is not to be taken over.
    let third = || application(&fixture, log(), THIRD, &sql);
    follow(&fixture, third());
    let early = cutover_between(&fixture, log(), (NEW, THIRD), &sql).unwrap_err();
    assert!(
        matches!(early, CutoverError::StillFollowing { .. }),
        "{early:?}"
    );
    cutover(&fixture, log(), &sql).unwrap();
    fixture.write(&all[200..350]);
    until(new(&fixture, &sql), || has_read(&fixture, NEW));
    let handed = cutover_between(&fixture, log(), (NEW, THIRD), &sql).unwrap();
    fixture.write(&all[350..]);
    finish(&fixture, third()).unwrap();
    for (key, count) in counts(&all, MINUTE_MS) {
        let of = |row: &super::world::Row| {
            WINDOW
                .iter()
                .map(|name| row[*name] as i64)
                .collect::<Vec<_>>()
        };
        let written: Vec<_> = rows(&fixture, "q")
            .into_iter()
            .filter(|(row, _)| of(row) == key)
            .collect();
        assert_eq!(
            told(&fixture, "q", &WINDOW).get(&key),
            Some(&count),
            "{handed:?}: {written:?}"
        );
    }
    let finals = finals(&fixture, "q", &WINDOW);
    assert_eq!(finals.len(), counts(&all, MINUTE_MS).len());
    assert!(finals.values().all(|times| *times == 1));
    // What the first two gave is counted together.
    let ledger =
        |id: &str| processor::ledger::read(fixture.log.as_ref(), id, "q", "trips", 0).unwrap();
    let (one, two, three) = (ledger(OLD), ledger(NEW), ledger(THIRD));
    assert_eq!(handed.queries[0].results, Some(one.emitted + two.emitted));
    assert_eq!(handed.queries[0].changes, Some(one.changes + two.changes));
    assert_eq!(
        one.emitted + two.emitted + three.emitted,
        finals.len() as u64
    );
}
