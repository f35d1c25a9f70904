//! Ranks within windows and scores over them, against the same worked out from the rows.

use std::collections::BTreeMap;

use arrow::array::*;
use arrow::datatypes::*;
use engine::history::History;
use engine::plan::{Query, Spread};
use engine::window::Window;
use proptest::prelude::*;

use super::support::*;

const HOUR: i64 = 3_600_000;

fn finished(query: &Query, trips: &[Trip], chunk: usize) -> RecordBatch {
    let partials: Vec<RecordBatch> = trips
        .chunks(chunk)
        .map(|part| query.scan(&[batch(query, part)]).unwrap().partial)
        .collect();
    query
        .finish(&partials, true, &mut History::default())
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_first_n_of_each_window_are_its_best_groups(
        seed in any::<u64>(), count in 0_usize..400, n in 1_usize..6, chunk in 1_usize..80
    ) {
        let text = job("window_start, seconds", &format!(
            "SELECT window_start, trip_duration % 20 AS seconds, sum(passenger_count) AS passengers
             FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')
             GROUP BY window_start, trip_duration % 20
             HAVING sum(passenger_count) > 2
             ORDER BY count(*) DESC, sum(gc_distance) LIMIT {n}"
        ));
        let query = planned(&text, &trips_schema()).unwrap();
        prop_assert_eq!(query.spread, Spread::Window);
        let trips = some_trips(seed, count, 3);
        let result = finished(&query, &trips, chunk);

        let mut groups: BTreeMap<i64, BTreeMap<i32, (i64, i64, f64)>> = BTreeMap::new();
        for trip in &trips {
            let window = groups.entry(trip.pickup_ms.div_euclid(HOUR) * HOUR).or_default();
            let (n, passengers, distance) = window.entry(trip.duration % 20).or_default();
            *n += 1;
            *passengers += i64::from(trip.passengers);
            *distance += trip.distance;
        }
        let mut expected = Vec::new();
        for (window, groups) in groups {
            let mut ranked: Vec<_> = groups.into_iter().filter(|(_, (_, passengers, _))| *passengers > 2).collect();
            ranked.sort_by(|(_, a), (_, b)| b.0.cmp(&a.0).then(a.2.total_cmp(&b.2)));
            expected.extend(ranked.into_iter().take(n).map(|(key, (_, passengers, _))| (window, i64::from(key), passengers)));
        }
        let (windows, keys, passengers) = (longs(&result, "window_start"), longs(&result, "seconds"), longs(&result, "passengers"));
        let found: Vec<_> = (0..result.num_rows()).map(|row| (windows[row], keys[row], passengers[row])).collect();
        prop_assert_eq!(found, expected);
        prop_assert_eq!(result.num_columns(), 5, "what is only sorted by is no column: {}", result.schema());
    }

    #[test]
    fn a_score_is_the_distance_from_the_windows_before_in_deviations(
        seed in any::<u64>(), count in 0_usize..600, chunk in 1_usize..80, split in 1_usize..10
    ) {
        let text = job("window_start, vendor_id",
            "SELECT window_start, vendor_id, anomaly_score(count(*)) AS score,
                    round(anomaly_score(sum(gc_distance)) * 10) AS tenfold
             FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')
             GROUP BY window_start, vendor_id");
        let query = planned(&text, &trips_schema()).unwrap();
        prop_assert!(query.has_history());
        let trips = some_trips(seed, count, 12);
        let partials: Vec<RecordBatch> = trips
            .chunks(chunk)
            .map(|part| query.scan(&[batch(&query, part)]).unwrap().partial)
            .collect();
        let merged = query.merge(&partials).unwrap();
        // The windows are closed in several turns, each seeing what the others have left.
        let mut history = History::default();
        let mut results = Vec::new();
        let mut starts = longs(&merged, "__window_start");
        starts.sort_unstable();
        starts.dedup();
        for turn in starts.chunks(split) {
            let column = merged.column(0).as_primitive::<Int64Type>();
            let of_turn: BooleanArray = column.values().iter().map(|start| Some(turn.contains(start))).collect();
            let part = arrow::compute::filter_record_batch(&merged, &of_turn).unwrap();
            // A provisional result is scored, and leaves no trace.
            let before = query.finish(std::slice::from_ref(&part), false, &mut history).unwrap();
            let result = query.finish(std::slice::from_ref(&part), true, &mut history).unwrap();
            if turn.len() == 1 {
                prop_assert_eq!(before.column_by_name("score"), result.column_by_name("score"));
            }
            results.push(result);
        }
        let mut counts: BTreeMap<(i64, i32), f64> = BTreeMap::new();
        for trip in &trips {
            *counts.entry((trip.pickup_ms.div_euclid(HOUR) * HOUR, trip.vendor)).or_default() += 1.0;
        }
        let mut seen = 0;
        for result in &results {
            let (windows, vendors) = (longs(result, "window_start"), longs(result, "vendor_id"));
            let scores = result.column_by_name("score").unwrap().as_primitive::<Float64Type>();
            for row in 0..result.num_rows() {
                let (window, vendor) = (windows[row], vendors[row] as i32);
                let before: Vec<f64> = counts.iter()
                    .filter(|((start, of), _)| *of == vendor && *start < window)
                    .map(|(_, n)| *n).collect();
                let n = before.len() as f64;
                let mean = before.iter().sum::<f64>() / n;
                let deviation = (before.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / (n - 1.0)).sqrt();
                let expected = (before.len() >= 3 && deviation > 0.0)
                    .then(|| (counts[&(window, vendor)] - mean) / deviation);
                let found = scores.is_valid(row).then(|| scores.value(row));
                match (found, expected) {
                    (Some(found), Some(expected)) => prop_assert!(close(found, expected), "{found} {expected}"),
                    (found, expected) => prop_assert_eq!(found, expected),
                }
                seen += 1;
            }
        }
        prop_assert_eq!(seen, counts.len());
    }
}

#[test]
fn a_silent_group_is_forgotten_after_its_time() {
    let text = |ttl: &str| {
        format!(
            "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at');
             CREATE SINK out WITH (topic = 'out', key = 'window_start, vendor_id', history_ttl = INTERVAL '{ttl}');
             INSERT INTO out SELECT window_start, vendor_id, anomaly_score(count(*)) AS score
             FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') GROUP BY window_start, vendor_id"
        )
    };
    let query = planned(&text("5 hours"), &trips_schema()).unwrap();
    let mut history = History::default();
    let mut trips = some_trips(3, 40, 1);
    for trip in &mut trips {
        trip.vendor = 1 + i32::from(trip.vendor > 1);
    }
    for (hour, vendors) in [(0, 2), (1, 1), (4, 1), (7, 1)] {
        let moved: Vec<Trip> = trips
            .iter()
            .filter(|trip| trip.vendor <= vendors)
            .map(|trip| Trip {
                pickup_ms: trip.pickup_ms + hour * HOUR,
                ..trip.clone()
            })
            .collect();
        let partial = query.scan(&[batch(&query, &moved)]).unwrap().partial;
        query.finish(&[partial], true, &mut history).unwrap();
        let known = if hour < 7 { 2 } else { 1 };
        assert_eq!(history.len(), known, "hour {hour}");
    }
}

#[test]
fn a_group_that_was_silent_for_longer_than_its_history_starts_anew_whoever_shares_its_shard() {
    let text = |ttl: u32| {
        format!(
            "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at');
             CREATE SINK out WITH (topic = 'out', key = 'window_start, vendor_id', history_ttl = INTERVAL '{ttl} hours');
             INSERT INTO out SELECT window_start, vendor_id, anomaly_score(count(*)) AS score
             FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') GROUP BY window_start, vendor_id"
        )
    };
    let of_hour = |vendor: i32, hour: i64, count: usize| -> Vec<Trip> {
        let mut trips = some_trips(5, count, 1);
        for trip in &mut trips {
            trip.vendor = vendor;
            trip.pickup_ms += hour * HOUR;
        }
        trips
    };
    // Windows of 1, 2 and 3 trips, then one of 4 six hours behind them: 2 deviations from the mean.
    for (ttl, expected) in [(6, Some(2.0)), (5, None)] {
        for shared in [false, true] {
            let query = planned(&text(ttl), &trips_schema()).unwrap();
            let mut history = History::default();
            let mut last = None;
            for (hour, count) in [(0, 1), (1, 2), (2, 3), (7, 0), (8, 4)] {
                let mut trips = of_hour(1, hour, count);
                if shared {
                    trips.extend(of_hour(2, hour, 5));
                }
                let partial = query.scan(&[batch(&query, &trips)]).unwrap().partial;
                let result = query.finish(&[partial], true, &mut history).unwrap();
                let vendors = longs(&result, "vendor_id");
                last = vendors.iter().position(|vendor| *vendor == 1).map(|row| {
                    let scores = result
                        .column_by_name("score")
                        .unwrap()
                        .as_primitive::<Float64Type>();
                    scores.is_valid(row).then(|| scores.value(row))
                });
            }
            assert_eq!(last, Some(expected), "{ttl} hours, shared {shared}");
        }
    }
}

#[test]
fn each_window_function_is_planned_as_it_is_written() {
    let window = |from: &str| {
        let query = format!("SELECT window_start, count(*) AS n FROM {from} GROUP BY window_start");
        planned(&job("window_start", &query), &trips_schema())
            .unwrap()
            .window
            .unwrap()
    };
    assert_eq!(
        window("TUMBLE(trips, pickup_at, INTERVAL '90 seconds')"),
        Window::Tumbling { size_ms: 90_000 }
    );
    assert_eq!(
        window("HOP(trips, pickup_at, INTERVAL '5 minutes', INTERVAL '1 hour') AS t"),
        Window::Hopping {
            size_ms: HOUR,
            step_ms: 300_000
        }
    );
    assert_eq!(
        window("SESSION(trips, pickup_at, INTERVAL '30 minutes')"),
        Window::Session { gap_ms: 1_800_000 }
    );
}

#[test]
fn a_query_without_groups_gives_a_result_for_each_row_that_passes() {
    let text = job(
        "id",
        "SELECT vendor_id AS id, trip_duration / passenger_count AS share, upper(store_and_fwd_flag) AS flag
         FROM trips AS t WHERE t.gc_distance > 3",
    );
    let query = planned(&text, &trips_schema()).unwrap();
    assert_eq!(query.window, None);
    let mut trips = some_trips(5, 200, 2);
    for (index, trip) in trips.iter_mut().enumerate() {
        trip.passengers += i32::from(index % 7 != 0);
    }
    let (first, second) = trips.split_at(90);
    let scanned = query
        .scan(&[batch(&query, first), batch(&query, second)])
        .unwrap();
    let mut expected = Vec::new();
    let mut dead = Vec::new();
    for (row, trip) in trips
        .iter()
        .enumerate()
        .filter(|(_, trip)| trip.distance > 3.0)
    {
        match trip.duration.checked_div(trip.passengers) {
            Some(share) => expected.push((row as u32, trip.vendor, share, trip.flag)),
            None => dead.push(row as u32),
        }
    }
    assert!(!dead.is_empty());
    assert_eq!(
        scanned.dead.iter().map(|dead| dead.row).collect::<Vec<_>>(),
        dead
    );
    assert_eq!(scanned.rows_in, 200);
    assert_eq!(scanned.filtered, 200 - (expected.len() + dead.len()) as u64);
    assert_eq!(scanned.assigned, expected.len() as u64);
    let offsets: Vec<i64> = scanned
        .origins
        .iter()
        .map(|row| i64::from(*row) + 1_000)
        .collect();
    let results = query.results_of_rows(&scanned.partial, &offsets).unwrap();
    let (ids, shares) = (longs(&results, "id"), longs(&results, "share"));
    let flags = results
        .column_by_name("flag")
        .unwrap()
        .as_string::<i32>()
        .clone();
    let found: Vec<_> = (0..results.num_rows())
        .map(|row| {
            (
                scanned.origins[row],
                ids[row] as i32,
                shares[row] as i32,
                flags.value(row),
            )
        })
        .collect();
    let mut found_sorted = found.clone();
    found_sorted.sort_by_key(|(row, ..)| *row);
    assert_eq!(found_sorted, expected);
    assert_eq!(longs(&results, "version")[0], 2 * offsets[0] + 1);
}

#[test]
fn an_aggregate_without_groups_is_refused() {
    let errors = planned(
        &job("n", "SELECT count(*) AS n FROM trips"),
        &trips_schema(),
    )
    .unwrap_err();
    assert!(
        errors[0].what.contains("an aggregate needs GROUP BY"),
        "{errors:?}"
    );
}

#[test]
fn what_decides_when_windows_close_is_in_the_fingerprint() {
    let with = |options: &str, window: &str| {
        let text = format!(
            "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at');
             CREATE SINK out WITH (topic = 'out', key = 'window_start'{options});
             INSERT INTO out SELECT window_start, count(*) AS n
             FROM {window} GROUP BY window_start"
        );
        planned(&text, &trips_schema()).unwrap().fingerprint
    };
    let hour = "TUMBLE(trips, pickup_at, INTERVAL '1 hour')";
    let plain = with("", hour);
    for (options, window) in [
        (", grace = INTERVAL '1 minute'", hour),
        ("", "TUMBLE(trips, pickup_at, INTERVAL '2 hours')"),
        (
            "",
            "HOP(trips, pickup_at, INTERVAL '1 hour', INTERVAL '1 hour')",
        ),
        ("", "SESSION(trips, pickup_at, INTERVAL '1 hour')"),
    ] {
        assert_ne!(with(options, window), plain, "{options} {window}");
    }
    assert_eq!(
        with(", emit = 'changes'", hour),
        plain,
        "the state is the same"
    );
}
