//! What a run must come to, worked out from the CSV in the plainest way: one loop, one map. Shares no code with the
//! product.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::{NaiveDateTime, TimeZone, Timelike, Utc};
use chrono_tz::America::New_York;
use sha2::{Digest, Sha256};

/// One hour, the window of the shipped job.
pub const WINDOW_MS: i64 = 3_600_000;
/// How far mask_coordinate may move a mean, in the shipped job.
const CELL: f64 = 0.01;
/// For how long the shipped job remembers a vendor that has no windows, in milliseconds: 30 days.
const HISTORY_MS: i64 = 30 * 86_400_000;
const EARTH_KM: f64 = 6371.0088;

/// A usable row.
#[derive(Clone, Debug)]
pub struct Trip {
    pub id: String,
    pub vendor: i32,
    pub pickup_ms: i64,
    pub passengers: i64,
    pub coordinates: [f64; 4],
    pub duration_s: i64,
    pub distance_km: f64,
}

/// A file, read.
#[derive(Debug, Default)]
pub struct Rows {
    pub good: Vec<Trip>,
    pub bad: u64,
}

/// What is expected of one window and vendor.
#[derive(Clone, Debug, Default)]
pub struct Statistics {
    pub trips: i64,
    pub passengers: i64,
    pub duration_s: i64,
    pub distance_km: f64,
    pub peak: i64,
    /// Trips by the hour of New York's clocks.
    pub by_hour: [i64; 24],
    pub longitude: f64,
    pub latitude: f64,
}

#[derive(Clone, Copy)]
enum Layout {
    Aws,
    Kaggle,
    Headway,
}

/// Reads a file in one of the three layouts.
pub fn read(path: &Path) -> Rows {
    let bytes = std::fs::read(path).unwrap();
    let first = bytes
        .split(|byte| *byte == b'\n')
        .next()
        .unwrap_or_default();
    let first = String::from_utf8_lossy(first);
    let (layout, has_header) = match first.trim() {
        line if line.starts_with("id,vendor_id,") => (Layout::Kaggle, true),
        line if line.starts_with("id,vendorId,") => (Layout::Headway, true),
        _ => (Layout::Aws, false),
    };
    let mut rows = Rows::default();
    let lines = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    for line in lines.skip(usize::from(has_header)) {
        match std::str::from_utf8(line)
            .ok()
            .and_then(|line| trip(line.trim_end_matches('\r'), layout))
        {
            Some(trip) => rows.good.push(trip),
            None => rows.bad += 1,
        }
    }
    rows
}

fn trip(line: &str, layout: Layout) -> Option<Trip> {
    let fields: Vec<&str> = line.split(',').collect();
    let columns = match layout {
        Layout::Kaggle => 11,
        Layout::Aws | Layout::Headway => 14,
    };
    if fields.len() != columns {
        return None;
    }
    let instant = |text: &str| {
        let naive = match layout {
            Layout::Aws => NaiveDateTime::parse_from_str(text, "%m/%d/%y %H:%M").ok()?,
            _ => NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok()?,
        };
        Some(
            New_York
                .from_local_datetime(&naive)
                .earliest()?
                .timestamp_millis(),
        )
    };
    let number = |index: usize| fields[index].parse::<f64>().ok();
    let coordinates = [number(5)?, number(6)?, number(7)?, number(8)?];
    let on_earth = |pair: &[f64]| {
        pair[0].abs() <= 180.0 && pair[1].abs() <= 90.0 && !(pair[0] == 0.0 && pair[1] == 0.0)
    };
    if !on_earth(&coordinates[..2]) || !on_earth(&coordinates[2..]) {
        return None;
    }
    let (pickup_ms, dropoff_ms) = (instant(fields[2])?, instant(fields[3])?);
    if dropoff_ms < pickup_ms {
        return None;
    }
    let (distance_km, duration) = match layout {
        Layout::Kaggle => (haversine_km(coordinates), fields[10]),
        Layout::Headway => (number(10)?, fields[11]),
        Layout::Aws => (number(10)? * 1.609_344, fields[11]),
    };
    Some(Trip {
        id: fields[0].to_owned(),
        vendor: fields[1].parse().ok()?,
        pickup_ms,
        passengers: fields[4].parse().ok()?,
        coordinates,
        duration_s: duration.parse().ok()?,
        distance_km,
    })
}

fn haversine_km([lon_a, lat_a, lon_b, lat_b]: [f64; 4]) -> f64 {
    let half = |a: f64, b: f64| ((b - a).to_radians() / 2.0).sin().powi(2);
    let h = half(lat_a, lat_b)
        + lat_a.to_radians().cos() * lat_b.to_radians().cos() * half(lon_a, lon_b);
    2.0 * EARTH_KM * h.sqrt().asin()
}

/// The statistics by window start and vendor.
pub fn statistics<'a>(
    trips: impl IntoIterator<Item = &'a Trip>,
) -> BTreeMap<(i64, i32), Statistics> {
    let mut by_window: BTreeMap<(i64, i32), Statistics> = BTreeMap::new();
    for trip in trips {
        if trip.coordinates.contains(&0.0) {
            continue;
        }
        let start = trip.pickup_ms.div_euclid(WINDOW_MS) * WINDOW_MS;
        let of = by_window.entry((start, trip.vendor)).or_default();
        of.trips += 1;
        of.passengers += trip.passengers;
        of.duration_s += trip.duration_s;
        of.distance_km += trip.distance_km;
        of.longitude += trip.coordinates[0];
        of.latitude += trip.coordinates[1];
        let hour = Utc
            .timestamp_millis_opt(trip.pickup_ms)
            .unwrap()
            .with_timezone(&New_York)
            .hour();
        of.by_hour[hour as usize] += 1;
        of.peak += i64::from((7..10).contains(&hour) || (16..19).contains(&hour));
    }
    by_window
}

/// The first of the hours with most trips.
fn peak_hour(by_hour: &[i64; 24]) -> i64 {
    let most = by_hour.iter().max().unwrap();
    by_hour.iter().position(|trips| trips == most).unwrap() as i64
}

/// A vendor's window against its windows before it, by the formula in the documentation: (x − mean) / deviation of the
/// sample, from the fourth window on.
fn anomaly_score(
    expected: &BTreeMap<(i64, i32), Statistics>,
    (start, vendor): (i64, i32),
) -> Option<f64> {
    let mut before = Vec::new();
    let mut last = None;
    let of_vendor = expected.iter().filter(|((_, of), _)| *of == vendor);
    for ((window, _), of) in of_vendor {
        if last.is_some_and(|last| window - last > HISTORY_MS) {
            before.clear();
        }
        last = Some(*window);
        if *window == start {
            let n = before.len() as f64;
            let mean = before.iter().sum::<f64>() / n;
            let squares: f64 = before.iter().map(|x: &f64| (x - mean).powi(2)).sum();
            let deviation = (squares / (n - 1.0)).sqrt();
            return (before.len() >= 3 && deviation > 0.0)
                .then(|| (of.trips as f64 - mean) / deviation);
        }
        before.push(of.trips as f64);
    }
    None
}

/// A masked mean, by the formula in the documentation.
pub fn masked(mean: f64, salt: &[u8], argument: &str, window_end: i64, vendor: i32) -> f64 {
    let mut hash = Sha256::new();
    hash.update(salt);
    for part in [
        argument.to_owned(),
        window_end.to_string(),
        vendor.to_string(),
    ] {
        hash.update([0]);
        hash.update(part.as_bytes());
    }
    let digest = hash.finalize();
    let uniform = u64::from_be_bytes(digest[..8].try_into().unwrap()) as f64 / 2f64.powi(64);
    ((mean + CELL * (2.0 * uniform - 1.0)) * 1e5).round() / 1e5
}

/// Says where documents differ from what is expected; empty if they agree. Counts and sums must be exact, means within
/// 1e-9 of their size, masked coordinates within one unit of the last decimal that they are rounded to.
pub fn differences(
    expected: &BTreeMap<(i64, i32), Statistics>,
    documents: &BTreeMap<(i64, i32), serde_json::Value>,
    salt: &[u8],
) -> Vec<String> {
    let mut differences = Vec::new();
    let keys: BTreeSet<_> = expected.keys().chain(documents.keys()).collect();
    for &(start, vendor) in keys {
        let key = (start, vendor);
        let (Some(of), Some(document)) = (expected.get(&key), documents.get(&key)) else {
            differences.push(format!(
                "{key:?}: expected {}, found {}",
                expected.contains_key(&key),
                documents.contains_key(&key)
            ));
            continue;
        };
        let mut exact = |name: &str, want: i64| {
            if document[name].as_i64() != Some(want) {
                differences.push(format!(
                    "{key:?} {name}: expected {want}, found {}",
                    document[name]
                ));
            }
        };
        exact("trip_count", of.trips);
        exact("passenger_count", of.passengers);
        exact("total_trip_duration", of.duration_s);
        exact("trips_during_peak", of.peak);
        exact("peak_hour", peak_hour(&of.by_hour));
        let mut near = |name: &str, want: f64, tolerance: f64| {
            let found = document[name].as_f64();
            if !found.is_some_and(|found| (found - want).abs() <= tolerance) {
                differences.push(format!("{key:?} {name}: expected {want}, found {found:?}"));
            }
        };
        let count = of.trips as f64;
        let duration = of.duration_s as f64 / count;
        near("average_trip_duration", duration, duration.abs() * 1e-9);
        let distance = of.distance_km / count;
        near("average_trip_distance", distance, distance.abs() * 1e-9);
        let end = start + WINDOW_MS;
        for (name, sum) in [
            ("pickup_longitude", of.longitude),
            ("pickup_latitude", of.latitude),
        ] {
            near(name, masked(sum / count, salt, name, end, vendor), 1.1e-5);
        }
        match anomaly_score(expected, key) {
            Some(score) => near("anomaly_score", score, 1e-9 * score.abs().max(1.0)),
            None if document["anomaly_score"].is_null() => {}
            None => differences.push(format!(
                "{key:?} anomaly_score: expected null, found {}",
                document["anomaly_score"]
            )),
        }
    }
    differences
}
