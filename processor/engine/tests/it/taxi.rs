//! The shipped job against a fold over the rows.

use engine::history::History;
use std::collections::BTreeMap;

use arrow::array::*;
use arrow::datatypes::{DataType, Float64Type};
use sha2::{Digest, Sha256};

use super::support::*;

#[derive(Default, Clone, Debug)]
struct Naive {
    count: i64,
    passengers: i64,
    duration: i64,
    distance: f64,
    peak: i64,
    by_hour: [i64; 24],
    longitude: f64,
    latitude: f64,
}

/// New York's hour in March 2016: daylight saving time began on the 13th at 7:00 UTC.
fn new_york_hour(ms: i64) -> i64 {
    let offset = if ms >= 1_457_852_400_000 { -4 } else { -5 };
    (ms.div_euclid(3_600_000) + offset).rem_euclid(24)
}

fn naive(trips: &[Trip], window_ms: i64) -> BTreeMap<(i64, i32), Naive> {
    let mut groups: BTreeMap<(i64, i32), Naive> = BTreeMap::new();
    for trip in trips {
        if trip.coordinates.contains(&0.0) {
            continue;
        }
        let group = groups
            .entry((
                trip.pickup_ms.div_euclid(window_ms) * window_ms,
                trip.vendor,
            ))
            .or_default();
        group.count += 1;
        group.passengers += i64::from(trip.passengers);
        group.duration += i64::from(trip.duration);
        group.distance += trip.distance;
        let hour = new_york_hour(trip.pickup_ms);
        group.peak += i64::from((7..10).contains(&hour) || (16..19).contains(&hour));
        group.by_hour[hour as usize] += 1;
        group.longitude += trip.coordinates[0];
        group.latitude += trip.coordinates[1];
    }
    groups
}

fn masked(mean: f64, argument: &str, window_end: i64, vendor: i32) -> f64 {
    let mut text = SALT.to_vec();
    text.extend_from_slice(format!("\0{argument}\0{window_end}\0{vendor}").as_bytes());
    let digest = Sha256::digest(&text);
    let unit = u64::from_be_bytes(digest[..8].try_into().unwrap()) as f64 / 2f64.powi(64);
    ((mean + 0.01 * (2.0 * unit - 1.0)) * 1e5).round() / 1e5
}

/// The last value's distance from the mean of those before, in deviations of a sample.
fn score(values: &[f64]) -> Option<f64> {
    let (last, before) = values.split_last()?;
    let n = before.len() as f64;
    let mean = before.iter().sum::<f64>() / n;
    let squares: f64 = before.iter().map(|value| (value - mean).powi(2)).sum();
    let deviation = (squares / (n - 1.0)).sqrt();
    (before.len() >= 3 && deviation > 0.0).then(|| (last - mean) / deviation)
}

#[test]
fn the_taxi_job_equals_a_fold_over_the_rows() {
    equals_a_fold("1 hour", 3_600_000, 60);
}

#[test]
fn the_taxi_job_with_days_for_windows_equals_a_fold_over_the_rows() {
    equals_a_fold("1 day", 86_400_000, 24 * 9);
}

fn equals_a_fold(window: &str, window_ms: i64, hours: u64) {
    let shipped = "INTERVAL '1 hour')";
    assert!(TAXI.contains(shipped));
    let text = TAXI.replace(shipped, &format!("INTERVAL '{window}')"));
    let query = planned(&text, &trips_schema()).unwrap();
    let trips = some_trips(7, 20_000, hours);
    let mut partials = Vec::new();
    let (mut rows, mut filtered, mut assigned) = (0, 0, 0);
    for (offset, part) in trips.chunks(1_234).enumerate() {
        let scanned = query.scan(&[batch(&query, part)]).unwrap();
        assert!(scanned.dead.is_empty());
        assert_eq!(scanned.partial.schema(), query.partial);
        rows += scanned.rows_in;
        filtered += scanned.filtered;
        assigned += scanned.assigned;
        partials.push(touch(&scanned.partial, offset as i64));
    }
    let merged = query.merge(&partials).unwrap();
    assert_eq!(
        longs(&merged, "__rows").iter().sum::<i64>() as u64,
        assigned
    );
    assert_eq!((rows, filtered), (20_000, 20_000 - assigned));
    let result = query
        .finish(std::slice::from_ref(&merged), true, &mut History::default())
        .unwrap();
    assert_eq!(result.schema(), query.output);

    let expected = naive(&trips, window_ms);
    assert_eq!(result.num_rows(), expected.len());
    let starts = longs(&result, "window_start");
    let ends = longs(&result, "window_end");
    let vendors = longs(&result, "vendor_id");
    for (row, ((start, vendor), group)) in expected.iter().enumerate() {
        assert_eq!(
            (starts[row], ends[row], vendors[row]),
            (*start, start + window_ms, i64::from(*vendor))
        );
        assert_eq!(longs(&result, "trip_count")[row], group.count);
        assert_eq!(longs(&result, "passenger_count")[row], group.passengers);
        assert_eq!(longs(&result, "total_trip_duration")[row], group.duration);
        assert_eq!(
            longs(&result, "trips_during_peak")[row],
            group.peak,
            "window {start}"
        );
        let most = group.by_hour.iter().max().unwrap();
        assert_eq!(
            longs(&result, "peak_hour")[row],
            group
                .by_hour
                .iter()
                .position(|trips| trips == most)
                .unwrap() as i64,
            "window {start}: {:?}",
            group.by_hour
        );
        let so_far: Vec<f64> = expected
            .range(..=(*start, *vendor))
            .filter(|((_, of), _)| of == vendor)
            .map(|(_, group)| group.count as f64)
            .collect();
        let scores = result
            .column_by_name("anomaly_score")
            .unwrap()
            .as_primitive::<Float64Type>();
        let found = scores.is_valid(row).then(|| scores.value(row));
        match (found, score(&so_far)) {
            (Some(found), Some(expected)) => assert!(close(found, expected), "window {start}"),
            (found, expected) => assert_eq!(found, expected, "window {start}"),
        }
        let count = group.count as f64;
        assert!(close(
            floats(&result, "average_trip_duration")[row],
            group.duration as f64 / count
        ));
        assert!(close(
            floats(&result, "average_trip_distance")[row],
            group.distance / count
        ));
        let end = start + window_ms;
        let longitude = masked(group.longitude / count, "pickup_longitude", end, *vendor);
        assert!((floats(&result, "pickup_longitude")[row] - longitude).abs() < 1.5e-5);
        let latitude = masked(group.latitude / count, "pickup_latitude", end, *vendor);
        assert!((floats(&result, "pickup_latitude")[row] - latitude).abs() < 1.5e-5);
        assert_eq!(longs(&result, "version")[row] % 2, 1);
    }
    assert!(
        result
            .column_by_name("is_final")
            .unwrap()
            .as_boolean()
            .iter()
            .all(|value| value == Some(true))
    );
}

#[test]
fn the_taxi_job_reads_only_its_columns_and_its_results_fit_the_shipped_schema() {
    let query = planned(TAXI, &trips_schema()).unwrap();
    let names: Vec<_> = query
        .input
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    assert_eq!(
        names,
        [
            "vendor_id",
            "pickup_at",
            "passenger_count",
            "pickup_longitude",
            "pickup_latitude",
            "dropoff_longitude",
            "dropoff_latitude",
            "gc_distance",
            "trip_duration"
        ]
    );
    let columns: Vec<_> = query
        .output
        .fields()
        .iter()
        .map(|field| {
            (
                field.name().as_str(),
                field.data_type().clone(),
                field.is_nullable(),
            )
        })
        .collect();
    let long = DataType::Int64;
    let double = DataType::Float64;
    let expected = [
        ("window_start", timestamp()),
        ("window_end", timestamp()),
        ("vendor_id", DataType::Int32),
        ("trip_count", long.clone()),
        ("passenger_count", long.clone()),
        ("total_trip_duration", long.clone()),
        ("average_trip_duration", double.clone()),
        ("average_trip_distance", double.clone()),
        ("trips_during_peak", long.clone()),
        ("peak_hour", DataType::Int32),
        ("pickup_longitude", double.clone()),
        ("pickup_latitude", double.clone()),
        ("anomaly_score", double),
        ("version", long),
        ("is_final", DataType::Boolean),
    ];
    assert_eq!(
        columns,
        expected.map(|(name, data_type)| {
            let nullable = name == "anomaly_score";
            (name, data_type, nullable)
        })
    );
    assert_eq!(query.keys, 1);
    assert_eq!(query.partial.field(1).name(), "vendor_id");
    println!("{}", query.fingerprint);
}

#[test]
fn nothing_in_gives_nothing_out_of_the_right_schema() {
    let query = planned(TAXI, &trips_schema()).unwrap();
    for batches in [vec![], vec![batch(&query, &[])]] {
        let scanned = query.scan(&batches).unwrap();
        assert_eq!(
            (
                scanned.rows_in,
                scanned.assigned,
                scanned.partial.num_rows()
            ),
            (0, 0, 0)
        );
        let merged = query.merge(&[scanned.partial]).unwrap();
        assert_eq!(
            (merged.num_rows(), merged.schema()),
            (0, query.partial.clone())
        );
        let result = query
            .finish(std::slice::from_ref(&merged), true, &mut History::default())
            .unwrap();
        assert_eq!(
            (result.num_rows(), result.schema()),
            (0, query.output.clone())
        );
    }
    assert_eq!(query.merge(&[]).unwrap().schema(), query.partial);
}

#[test]
fn the_same_batches_give_the_same_bytes() {
    let run = || {
        let query = planned(TAXI, &trips_schema()).unwrap();
        let trips = some_trips(99, 5_000, 40);
        let partials: Vec<_> = trips
            .chunks(700)
            .map(|part| query.scan(&[batch(&query, part)]).unwrap().partial)
            .collect();
        let merged = query.merge(&partials).unwrap();
        let result = query
            .finish(std::slice::from_ref(&merged), true, &mut History::default())
            .unwrap();
        (partials, merged, result)
    };
    let (a, b) = (run(), run());
    assert_eq!(a.0, b.0);
    assert_eq!(a.1, b.1);
    assert_eq!(a.2, b.2);
    // Equality of floats takes 0.0 for -0.0: compare their bits too.
    for (a, b) in a.1.columns().iter().zip(b.1.columns()) {
        assert_eq!(a.to_data().buffers(), b.to_data().buffers());
    }
}

#[test]
fn a_version_grows_with_the_last_touch_and_with_finality() {
    let query = planned(TAXI, &trips_schema()).unwrap();
    let trips = some_trips(3, 100, 1);
    let first = touch(&query.scan(&[batch(&query, &trips)]).unwrap().partial, 41);
    let second = touch(&query.scan(&[batch(&query, &trips)]).unwrap().partial, 17);
    let merged = query.merge(&[first, second]).unwrap();
    let versions = |is_final| {
        longs(
            &query
                .finish(
                    std::slice::from_ref(&merged),
                    is_final,
                    &mut History::default(),
                )
                .unwrap(),
            "version",
        )
    };
    assert!(versions(false).iter().all(|version| *version == 82));
    assert!(versions(true).iter().all(|version| *version == 83));
}
