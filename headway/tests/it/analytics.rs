//! `processor/jobs/taxi_analytics.sql` and `taxi_zones.sql` against loops over the rows of the CSV.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chrono::{Datelike, NaiveDate, TimeZone, Timelike, Utc};
use chrono_tz::America::New_York;
use serde_json::Value;

use crate::oracle::{self, Trip, WINDOW_MS};
use crate::run::{analytics, assert_lake, demo, generate, ledger, mapping, real_files};

const DAY_MS: i64 = 86_400_000;
/// `approx_median` is exact below so many values, and within 1 % in rank from there on.
const EXACT_BELOW: usize = 128;

/// How many, and the sum of a measure.
#[derive(Clone, Copy, Default)]
struct Sum {
    trips: i64,
    total: f64,
}

impl Sum {
    fn add(&mut self, value: f64) {
        self.trips += 1;
        self.total += value;
    }

    fn mean(&self) -> f64 {
        self.total / self.trips as f64
    }
}

/// What the job must come to.
struct Expected {
    /// By window start and cell, the ten best of each window.
    top_dropoffs: BTreeMap<(i64, String), Sum>,
    /// The durations by window start and local day.
    daily_durations: BTreeMap<(i64, NaiveDate), Vec<i64>>,
    /// The durations by weekday and hour.
    travel_times: BTreeMap<(i64, i64), Sum>,
}

fn expected(trips: &[Trip]) -> Expected {
    let mut cells: BTreeMap<i64, BTreeMap<String, Sum>> = BTreeMap::new();
    let mut daily_durations: BTreeMap<_, Vec<i64>> = BTreeMap::new();
    let mut travel_times: BTreeMap<_, Sum> = BTreeMap::new();
    for trip in trips {
        let [_, _, longitude, latitude] = trip.coordinates;
        if longitude != 0.0 && latitude != 0.0 {
            let cell = h3o::LatLng::new(latitude, longitude)
                .unwrap()
                .to_cell(h3o::Resolution::Eight);
            let start = trip.pickup_ms.div_euclid(WINDOW_MS) * WINDOW_MS;
            let of_window = cells.entry(start).or_default();
            let of_cell = of_window.entry(format!("{:x}", u64::from(cell)));
            of_cell.or_default().add(trip.distance_km);
        }
        let local = Utc
            .timestamp_millis_opt(trip.pickup_ms)
            .unwrap()
            .with_timezone(&New_York);
        let day = trip.pickup_ms.div_euclid(DAY_MS) * DAY_MS;
        daily_durations
            .entry((day, local.date_naive()))
            .or_default()
            .push(trip.duration_s);
        let weekday = i64::from(local.weekday().num_days_from_sunday());
        travel_times
            .entry((weekday, i64::from(local.hour())))
            .or_default()
            .add(trip.duration_s as f64);
    }
    let mut top_dropoffs = BTreeMap::new();
    for (start, cells) in cells {
        let mut cells: Vec<_> = cells.into_iter().collect();
        // A stable sort: of cells with as many trips, the one with the least name comes first.
        cells.sort_by_key(|(_, of)| -of.trips);
        let best = cells.into_iter().take(10);
        top_dropoffs.extend(best.map(|(cell, of)| ((start, cell), of)));
    }
    Expected {
        top_dropoffs,
        daily_durations,
        travel_times,
    }
}

/// The documents of a topic by key; panics if two have the same.
fn documents<K: Ord + std::fmt::Debug>(
    dir: &Path,
    topic: &str,
    key: impl Fn(&Value) -> K,
) -> BTreeMap<K, Value> {
    let connection = rusqlite::Connection::open(dir.join("documents.sqlite")).unwrap();
    let mut statement = connection
        .prepare("SELECT body FROM documents WHERE index_name = ?1 OR index_name LIKE ?1 || '-%'")
        .unwrap();
    let bodies = statement
        .query_map([topic], |row| row.get::<_, String>(0))
        .unwrap();
    let mut documents = BTreeMap::new();
    for body in bodies {
        let body: Value = serde_json::from_str(&body.unwrap()).unwrap();
        let key = key(&body);
        assert!(
            documents.insert(key, body.clone()).is_none(),
            "{body} twice"
        );
    }
    documents
}

fn start(body: &Value) -> i64 {
    chrono::DateTime::parse_from_rfc3339(body["window_start"].as_str().unwrap())
        .unwrap()
        .timestamp_millis()
}

/// Pairs what is expected with what was found; panics where one lacks.
#[track_caller]
fn pairs<'a, K: Ord + std::fmt::Debug, T>(
    expected: &'a BTreeMap<K, T>,
    found: &'a BTreeMap<K, Value>,
    what: &str,
) -> impl Iterator<Item = (&'a K, &'a T, &'a Value)> {
    let missing: BTreeSet<_> = expected
        .keys()
        .filter(|key| !found.contains_key(key))
        .collect();
    let more: BTreeSet<_> = found
        .keys()
        .filter(|key| !expected.contains_key(key))
        .collect();
    assert!(
        missing.is_empty() && more.is_empty(),
        "{what}: missing {missing:?}, not expected {more:?}"
    );
    expected.iter().map(|(key, of)| (key, of, &found[key]))
}

#[track_caller]
fn assert_near(found: &Value, expected: f64, what: &str) {
    let found = found.as_f64().unwrap();
    assert!(
        (found - expected).abs() <= expected.abs() * 1e-9,
        "{what}: expected {expected}, found {found}"
    );
}

/// The middle of sorted values, or what the documentation allows it to be.
#[track_caller]
fn assert_median(found: &Value, sorted: &[i64], what: &str) {
    let (found, count) = (found.as_f64().unwrap(), sorted.len());
    if count < EXACT_BELOW {
        let median = (sorted[(count - 1) / 2] + sorted[count / 2]) as f64 / 2.0;
        assert_eq!(found, median, "{what}");
        return;
    }
    let below = sorted.partition_point(|value| (*value as f64) < found) as f64 / count as f64;
    let up_to = sorted.partition_point(|value| *value as f64 <= found) as f64 / count as f64;
    assert!(
        below <= 0.51 && up_to >= 0.49,
        "{what}: {found} has {below} of the values below it and {up_to} up to it"
    );
}

#[track_caller]
fn assert_analytics(dir: &Path, rows: &oracle::Rows, ledger: &Value, what: &str) {
    assert_eq!(ledger["balanced"], true, "{what}: {ledger:#}");
    for query in ledger["queries"].as_array().unwrap() {
        assert_eq!(query["late"], 0, "{what}: {query:#}");
    }
    let expected = expected(&rows.good);

    let found = documents(dir, "top_dropoffs", |body| {
        (start(body), body["cell"].as_str().unwrap().to_owned())
    });
    for (key, of, body) in pairs(&expected.top_dropoffs, &found, what) {
        let what = format!("{what}, top_dropoffs {key:?}");
        assert_eq!(body["trip_count"], of.trips, "{what}");
        assert_near(&body["average_trip_distance"], of.mean(), &what);
    }

    let found = documents(dir, "daily_durations", |body| {
        let day = body["local_day"].as_str().unwrap();
        (start(body), day.parse::<NaiveDate>().unwrap())
    });
    for (key, durations, body) in pairs(&expected.daily_durations, &found, what) {
        let what = format!("{what}, daily_durations {key:?}");
        let mut sorted = durations.clone();
        sorted.sort_unstable();
        let total: i64 = sorted.iter().sum();
        assert_eq!(body["trip_count"], sorted.len(), "{what}");
        assert_eq!(body["total_trip_duration"], total, "{what}");
        let mean = total as f64 / sorted.len() as f64;
        assert_near(&body["average_trip_duration"], mean, &what);
        assert_median(&body["median_trip_duration"], &sorted, &what);
    }

    let found = documents(dir, "travel_times", |body| {
        (
            body["weekday"].as_i64().unwrap(),
            body["hour"].as_i64().unwrap(),
        )
    });
    for (key, of, body) in pairs(&expected.travel_times, &found, what) {
        let what = format!("{what}, travel_times {key:?}");
        assert_eq!(body["trip_count"], of.trips, "{what}");
        assert_near(&body["average_trip_duration"], of.mean(), &what);
    }
    assert_lake(dir, rows, what);
}

#[test]
fn the_analytics_of_generated_trips_come_to_what_a_batch_comes_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = generate(folder.path(), 200_000, 23);
    let dir = folder.path().join("run");
    let job = analytics(folder.path(), "5 minutes");
    let output = demo(&file, &dir, &["--job", job.to_str().unwrap()])
        .output()
        .unwrap();
    let rows = oracle::read(&file);
    assert_analytics(
        &dir,
        &rows,
        &ledger(&output),
        "200,000 generated trips, seed 23",
    );
}

#[test]
fn the_analytics_of_real_trips_come_to_what_a_batch_comes_to() {
    for file in real_files("the_analytics_of_real_trips_come_to_what_a_batch_comes_to") {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("run");
        // Enough for a file that is shuffled over half a year.
        let job = analytics(folder.path(), "190 days");
        let output = demo(&file, &dir, &["--job", job.to_str().unwrap()])
            .args(mapping(&file))
            .output()
            .unwrap();
        assert_analytics(
            &dir,
            &oracle::read(&file),
            &ledger(&output),
            &file.display().to_string(),
        );
    }
}

/// The zone and borough of a cell, in a table of some cells: most have both, some only a zone.
type Zones = BTreeMap<String, (String, Option<String>)>;

fn cell_of(trip: &Trip) -> Option<String> {
    let [_, _, longitude, latitude] = trip.coordinates;
    let place = h3o::LatLng::new(latitude, longitude).unwrap();
    let cell = u64::from(place.to_cell(h3o::Resolution::Nine));
    (longitude != 0.0 && latitude != 0.0).then(|| format!("{cell:x}"))
}

/// A table of four in five of the cells that trips end in.
fn some_zones(trips: &[Trip]) -> Zones {
    let cells: BTreeSet<String> = trips.iter().filter_map(cell_of).collect();
    let named = cells
        .into_iter()
        .enumerate()
        .filter(|(number, _)| number % 5 > 0);
    let zones = named.map(|(number, cell)| {
        let borough = (number % 7 > 0).then(|| format!("borough {}", number % 3));
        (cell, (format!("zone {}", number % 40), borough))
    });
    zones.collect()
}

/// The ten best of each window, by the names that trips are counted under.
fn best<K: Ord + Clone>(trips: &[Trip], name: impl Fn(&str) -> K) -> BTreeMap<(i64, K), Sum> {
    let mut windows: BTreeMap<i64, BTreeMap<K, Sum>> = BTreeMap::new();
    for trip in trips {
        if let Some(cell) = cell_of(trip) {
            let start = trip.pickup_ms.div_euclid(WINDOW_MS) * WINDOW_MS;
            let names = windows.entry(start).or_default();
            names.entry(name(&cell)).or_default().add(trip.distance_km);
        }
    }
    let mut best = BTreeMap::new();
    for (start, names) in windows {
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|(_, of)| -of.trips);
        let ten = names.into_iter().take(10);
        best.extend(ten.map(|(name, of)| ((start, name), of)));
    }
    best
}

#[test]
fn the_zones_of_generated_trips_come_to_what_a_batch_comes_to() {
    let folder = tempfile::tempdir().unwrap();
    let file = generate(folder.path(), 50_000, 29);
    let rows = oracle::read(&file);
    let zones = some_zones(&rows.good);
    assert!(zones.len() > 50, "{}", zones.len());
    let mut csv = "cell,zone,borough\n".to_owned();
    for (cell, (zone, borough)) in &zones {
        csv += &format!("{cell},{zone},{}\n", borough.as_deref().unwrap_or_default());
    }
    std::fs::write(folder.path().join("zones.csv"), csv).unwrap();
    let jobs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../processor/jobs");
    let job = folder.path().join("taxi_zones.sql");
    std::fs::copy(jobs.join("taxi_zones.sql"), &job).unwrap();
    let dir = folder.path().join("run");
    let output = demo(&file, &dir, &["--job", job.to_str().unwrap()])
        .output()
        .unwrap();
    let ledger = ledger(&output);
    assert_eq!(ledger["balanced"], true, "{ledger:#}");

    let unknown = || "unknown".to_owned();
    let zone = |cell: &str| {
        zones
            .get(cell)
            .map_or_else(unknown, |(zone, _)| zone.clone())
    };
    let borough = |cell: &str| {
        let known = zones.get(cell).and_then(|(_, borough)| borough.clone());
        known.unwrap_or_else(unknown)
    };
    let text = |body: &Value, name: &str| body[name].as_str().unwrap().to_owned();
    let expected = best(&rows.good, |cell| (borough(cell), zone(cell)));
    assert!(
        expected
            .keys()
            .any(|(_, (borough, _))| borough == "unknown")
    );
    let found = documents(&dir, "top_zones", |body| {
        (start(body), (text(body, "borough"), text(body, "zone")))
    });
    for (key, of, body) in pairs(&expected, &found, "top_zones") {
        assert_eq!(body["trip_count"], of.trips, "{key:?}");
        assert_near(&body["average_trip_distance"], of.mean(), "top_zones");
    }
    let expected = best(&rows.good, borough);
    let found = documents(&dir, "top_boroughs", |body| {
        (start(body), text(body, "borough"))
    });
    for (key, of, body) in pairs(&expected, &found, "top_boroughs") {
        assert_eq!(body["trip_count"], of.trips, "{key:?}");
        assert_near(&body["average_trip_distance"], of.mean(), "top_boroughs");
    }
}
