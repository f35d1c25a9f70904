//! Random rows, cut into batches at random and merged in a random order, against a fold over the rows.

use std::collections::BTreeMap;

use arrow::array::*;
use arrow::datatypes::*;
use engine::history::History;
use engine::plan::Query;
use proptest::prelude::*;

use super::support::*;

const QUERY: &str = "SELECT window_start, vendor_id, upper(store_and_fwd_flag) AS flag,
    count(*) AS n,
    count(google_distance) AS known,
    count(*) FILTER (WHERE passenger_count > 2) AS many,
    sum(passenger_count) AS passengers,
    sum(google_distance) AS google,
    sum(CASE WHEN trip_duration < 1000 THEN gc_distance ELSE -gc_distance END) AS mixed,
    avg(gc_distance) AS distance,
    avg(google_distance) AS google_mean,
    min(trip_duration) AS shortest,
    max(google_distance) AS longest,
    min(store_and_fwd_flag) AS first_flag,
    bool_or(passenger_count = 0) AS empty,
    sum(trip_duration) / count(*) AS whole_mean,
    cast(count(*) AS double) / 2 AS half
FROM TUMBLE(trips, pickup_at, INTERVAL '20 minutes')
WHERE passenger_count <> 3
GROUP BY window_start, vendor_id, upper(store_and_fwd_flag)
HAVING count(*) > 1";

#[derive(Default)]
struct Naive {
    rows: Vec<Trip>,
}

fn naive(trips: &[Trip]) -> BTreeMap<(i64, i32, String), Naive> {
    let mut groups: BTreeMap<_, Naive> = BTreeMap::new();
    for trip in trips.iter().filter(|trip| trip.passengers != 3) {
        let start = trip.pickup_ms.div_euclid(1_200_000) * 1_200_000;
        groups
            .entry((start, trip.vendor, trip.flag.to_uppercase()))
            .or_default()
            .rows
            .push(trip.clone());
    }
    groups.retain(|_, group| group.rows.len() > 1);
    groups
}

fn optional(batch: &RecordBatch, name: &str, row: usize) -> Option<i64> {
    let column = batch.column_by_name(name).unwrap();
    column.is_valid(row).then(|| match column.data_type() {
        DataType::Int32 => i64::from(column.as_primitive::<Int32Type>().value(row)),
        _ => column.as_primitive::<Int64Type>().value(row),
    })
}

fn check(result: &RecordBatch, trips: &[Trip]) {
    let expected = naive(trips);
    assert_eq!(result.num_rows(), expected.len());
    for (row, ((start, vendor, flag), group)) in expected.iter().enumerate() {
        let rows = &group.rows;
        let int = |name: &str| optional(result, name, row).unwrap();
        let float = |name: &str| {
            let column = result.column_by_name(name).unwrap();
            column
                .is_valid(row)
                .then(|| column.as_primitive::<Float64Type>().value(row))
        };
        assert_eq!(longs(result, "window_start")[row], *start);
        assert_eq!(int("vendor_id"), i64::from(*vendor));
        assert_eq!(
            result
                .column_by_name("flag")
                .unwrap()
                .as_string::<i32>()
                .value(row),
            flag
        );
        assert_eq!(int("n"), rows.len() as i64);
        let google: Vec<i64> = rows
            .iter()
            .filter_map(|trip| trip.google.map(i64::from))
            .collect();
        assert_eq!(int("known"), google.len() as i64);
        assert_eq!(
            int("many"),
            rows.iter().filter(|trip| trip.passengers > 2).count() as i64
        );
        assert_eq!(
            int("passengers"),
            rows.iter()
                .map(|trip| i64::from(trip.passengers))
                .sum::<i64>()
        );
        let some = !google.is_empty();
        assert_eq!(
            optional(result, "google", row),
            some.then(|| google.iter().sum())
        );
        assert_eq!(
            optional(result, "longest", row),
            google.iter().max().copied()
        );
        let mean = some.then(|| google.iter().sum::<i64>() as f64 / google.len() as f64);
        match (float("google_mean"), mean) {
            (Some(a), Some(b)) => assert!(close(a, b), "{a} {b}"),
            (a, b) => assert_eq!(a, b),
        }
        let mixed: f64 = rows
            .iter()
            .map(|trip| {
                if trip.duration < 1000 {
                    trip.distance
                } else {
                    -trip.distance
                }
            })
            .sum();
        let scale: f64 = rows.iter().map(|trip| trip.distance.abs()).sum();
        assert!((float("mixed").unwrap() - mixed).abs() <= 1e-9 * scale.max(1e-3));
        let distance = rows.iter().map(|trip| trip.distance).sum::<f64>() / rows.len() as f64;
        assert!(close(float("distance").unwrap(), distance));
        assert_eq!(
            int("shortest"),
            rows.iter()
                .map(|trip| i64::from(trip.duration))
                .min()
                .unwrap()
        );
        let first = rows.iter().map(|trip| trip.flag).min().unwrap();
        assert_eq!(
            result
                .column_by_name("first_flag")
                .unwrap()
                .as_string::<i32>()
                .value(row),
            first
        );
        let empty = rows.iter().any(|trip| trip.passengers == 0);
        assert_eq!(
            result
                .column_by_name("empty")
                .unwrap()
                .as_boolean()
                .value(row),
            empty
        );
        let duration: i64 = rows.iter().map(|trip| i64::from(trip.duration)).sum();
        assert_eq!(int("whole_mean"), duration / rows.len() as i64);
        assert_eq!(float("half"), Some(rows.len() as f64 / 2.0));
    }
}

/// Merges random neighbours until one batch is left; some batches are merged alone on the way.
fn merge_tree(query: &Query, mut partials: Vec<RecordBatch>, dice: &mut Dice) -> RecordBatch {
    while partials.len() > 1 {
        let take = 1 + dice.roll(partials.len().min(5) as u64) as usize;
        let at = dice.roll((partials.len() - take + 1) as u64) as usize;
        let picked: Vec<_> = partials.drain(at..at + take).collect();
        let merged = query.merge(&picked).unwrap();
        let back = dice.roll(partials.len() as u64 + 1) as usize;
        partials.insert(back, merged);
    }
    query.merge(&partials).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_cut_and_any_merge_tree_equals_a_fold_over_the_rows(
        seed in any::<u64>(), count in 0_usize..400, cut in 1_u64..120
    ) {
        let query = planned(&job("window_start, vendor_id, flag", QUERY), &trips_schema()).unwrap();
        let trips = some_trips(seed, count, 2);
        let mut dice = Dice(seed ^ 0x9E37_79B9 | 1);
        let mut partials = Vec::new();
        let (mut assigned, mut filtered) = (0, 0);
        let mut rest = trips.as_slice();
        while !rest.is_empty() {
            // One call may take several batches, empty ones among them.
            let mut batches = Vec::new();
            for _ in 0..=dice.roll(3) {
                let take = (dice.roll(cut + 1) as usize).min(rest.len());
                batches.push(batch(&query, &rest[..take]));
                rest = &rest[take..];
            }
            let scanned = query.scan(&batches).unwrap();
            prop_assert!(scanned.dead.is_empty());
            prop_assert_eq!(scanned.rows_in, scanned.assigned + scanned.filtered);
            assigned += scanned.assigned;
            filtered += scanned.filtered;
            partials.push(scanned.partial);
        }
        prop_assert_eq!(filtered, trips.iter().filter(|trip| trip.passengers == 3).count() as u64);
        let merged = merge_tree(&query, partials, &mut dice);
        prop_assert_eq!(longs(&merged, "__rows").iter().sum::<i64>() as u64, assigned);
        check(&query.finish(std::slice::from_ref(&merged), true, &mut History::default()).unwrap(), &trips);
    }
}
