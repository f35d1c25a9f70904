//! Joins with reference tables, against joins that are written without the engine; and what is refused.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use engine::history::History;
use engine::plan::{Query, Scanned, Settings, plan};
use engine::reference::{Layout, Snapshot, Tables};
use engine::sql::{JobError, parse};
use proptest::prelude::*;

use super::support::*;

const HOUR: i64 = 3_600_000;

const SOURCE: &str = "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at');\n";
const ZONES: &str = "CREATE REFERENCE TABLE zones (seconds BIGINT NOT NULL, zone TEXT, toll DOUBLE, vendor_id INT) WITH (path = 'zones.csv', key = 'seconds');\n";
const RATES: &str = "CREATE REFERENCE TABLE rates (zone TEXT, flag TEXT, rate INT NOT NULL) WITH (path = 'rates.csv', key = 'zone, flag');\n";

fn job_over(tables: &str, key: &str, emit: &str, query: &str) -> String {
    format!(
        "{SOURCE}{tables}CREATE SINK out WITH (topic = 'out', key = '{key}', emit = '{emit}');\nINSERT INTO out {query}"
    )
}

fn planned_with_tables(text: &str) -> Result<Query, Vec<JobError>> {
    let script = parse(text)?;
    let mut schemas: BTreeMap<String, SchemaRef> = script
        .tables
        .values()
        .map(|table| (table.name.clone(), table.columns.clone().unwrap()))
        .collect();
    schemas.insert("trips".into(), trips_schema());
    let mut queries = plan(&script, &schemas, &Settings::default())?;
    assert_eq!(queries.len(), 1);
    Ok(queries.remove(0))
}

#[derive(Clone, Debug, PartialEq)]
struct Zone {
    zone: Option<String>,
    toll: Option<f64>,
}

type Zones = BTreeMap<i64, Zone>;
/// By zone and flag.
type Rates = BTreeMap<(String, String), i32>;

fn zones_schema() -> SchemaRef {
    let script = parse(&job_over(
        ZONES,
        "id",
        "final",
        "SELECT id, z.zone FROM trips LEFT JOIN zones AS z ON z.seconds = trip_duration",
    ))
    .unwrap();
    script.tables["zones"].columns.clone().unwrap()
}

/// Changes of the table, some of them taken back or removed later, in as many steps as `dice` likes.
fn zones(dice: &mut Dice, keys: u64) -> (Zones, Snapshot) {
    let layout = Arc::new(Layout::new(zones_schema(), &["seconds".to_owned()]).unwrap());
    let mut model = Zones::new();
    let mut snapshot = Snapshot::empty(Arc::clone(&layout));
    for _ in 0..dice.roll(40) {
        let before = (model.clone(), snapshot.clone());
        let size = 1 + dice.roll(12) as usize;
        let seconds: Vec<i64> = (0..size).map(|_| dice.roll(keys) as i64).collect();
        let rows: Vec<Zone> = seconds
            .iter()
            .map(|_| Zone {
                zone: (dice.roll(6) > 0).then(|| format!("zone {}", dice.roll(4))),
                toll: (dice.roll(6) > 0).then(|| dice.roll(100) as f64 / 4.0),
            })
            .collect();
        let batch = RecordBatch::try_new(
            zones_schema(),
            vec![
                Arc::new(Int64Array::from(seconds.clone())),
                Arc::new(
                    rows.iter()
                        .map(|row| row.zone.clone())
                        .collect::<StringArray>(),
                ),
                Arc::new(rows.iter().map(|row| row.toll).collect::<Float64Array>()),
                Arc::new(Int32Array::from(vec![None; size])),
            ],
        )
        .unwrap();
        let mut changes = Vec::new();
        for (row, key) in layout.keys(&batch).unwrap().into_iter().enumerate() {
            let gone = dice.roll(4) == 0;
            if gone {
                model.remove(&seconds[row]);
            } else {
                model.insert(seconds[row], rows[row].clone());
            }
            changes.push((key.unwrap(), (!gone).then_some(row as u32)));
        }
        snapshot = snapshot.with(&batch, changes).unwrap();
        assert_eq!(snapshot.rows(), model.len());
        // What was taken before is as it was.
        assert_eq!(before.1.rows(), before.0.len());
    }
    (model, snapshot)
}

fn rates(dice: &mut Dice) -> (Rates, Snapshot) {
    let mut model = Rates::new();
    for zone in 0..4 {
        for flag in ["Y", "N"] {
            if dice.roll(4) > 0 {
                model.insert((format!("zone {zone}"), flag.into()), dice.roll(9) as i32);
            }
        }
    }
    let script = parse(&job_over(
        RATES,
        "id",
        "final",
        "SELECT id FROM trips JOIN rates ON rates.zone = 'a' AND rates.flag = 'b'",
    ))
    .unwrap();
    let schema = script.tables["rates"].columns.clone().unwrap();
    let layout = Arc::new(
        Layout::new(Arc::clone(&schema), &["zone".to_owned(), "flag".to_owned()]).unwrap(),
    );
    let batch = RecordBatch::try_new(
        schema,
        vec![
            Arc::new(
                model
                    .keys()
                    .map(|(zone, _)| Some(zone.clone()))
                    .collect::<StringArray>(),
            ),
            Arc::new(
                model
                    .keys()
                    .map(|(_, flag)| Some(flag.clone()))
                    .collect::<StringArray>(),
            ),
            Arc::new(model.values().copied().map(Some).collect::<Int32Array>()),
        ],
    )
    .unwrap();
    let keys = layout.keys(&batch).unwrap().into_iter().map(Option::unwrap);
    let changes: Vec<_> = keys.zip((0..).map(Some)).collect();
    (
        model,
        Snapshot::empty(layout).with(&batch, changes).unwrap(),
    )
}

fn text(batch: &RecordBatch, name: &str, row: usize) -> Option<String> {
    let column = batch.column_by_name(name).unwrap().as_string::<i32>();
    column.is_valid(row).then(|| column.value(row).to_owned())
}

fn scanned(query: &Query, trips: &[Trip], chunk: usize, tables: &Tables) -> Vec<Scanned> {
    trips
        .chunks(chunk)
        .map(|part| query.scan_with(&[batch(query, part)], tables).unwrap())
        .collect()
}

fn finished(query: &Query, scanned: &[Scanned]) -> RecordBatch {
    let partials: Vec<_> = scanned
        .iter()
        .map(|scanned| scanned.partial.clone())
        .collect();
    query
        .finish(&partials, true, &mut History::default())
        .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn windows_over_joined_rows_are_those_of_a_naive_join(
        seed in any::<u64>(), count in 0_usize..300, chunk in 1_usize..60, inner in any::<bool>(), second_inner in any::<bool>()
    ) {
        let mut dice = Dice(seed | 1);
        let (zone_of, zones) = zones(&mut dice, 30);
        let (rate_of, rates) = rates(&mut dice);
        let tables = Tables::from([("zones".to_owned(), zones), ("rates".to_owned(), rates)]);
        let join = |inner: bool| if inner { "JOIN" } else { "LEFT JOIN" };
        // The first table twice under two names, once by a value that may be null; the second by what the first has.
        let query = planned_with_tables(&job_over(&format!("{ZONES}{RATES}"), "window_start, zone, google_zone", "final", &format!(
            "SELECT window_start, a.zone AS zone, b.zone AS google_zone, count(*) AS n, sum(a.toll) AS tolls,
                    count(*) FILTER (WHERE b.toll > a.toll) AS dearer, max(rate) AS best
             FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') AS t
             {} zones AS a ON a.seconds = t.trip_duration % 40
             LEFT JOIN zones AS b ON t.google_distance % 40 = b.seconds
             {} rates ON rates.zone = a.zone AND rates.flag = store_and_fwd_flag
             WHERE passenger_count > 1 AND (a.toll IS NULL OR a.toll > 3)
             GROUP BY window_start, a.zone, b.zone", join(inner), join(second_inner)
        ))).unwrap();
        prop_assert!(query.input.fields().iter().all(|field| field.name() != "seconds"));
        let trips = some_trips(seed, count, 3);
        let scanned = scanned(&query, &trips, chunk, &tables);
        let result = finished(&query, &scanned);

        type Group = (i64, f64, i64, Option<i32>);
        let mut expected: BTreeMap<(i64, Option<String>, Option<String>), Group> = BTreeMap::new();
        let (mut kept, mut filtered) = (0, 0);
        for trip in &trips {
            let a = zone_of.get(&i64::from(trip.duration % 40));
            let b = trip.google.and_then(|google| zone_of.get(&i64::from(google % 40)));
            let zone = a.and_then(|a| a.zone.clone());
            let rate = zone.clone().and_then(|zone| rate_of.get(&(zone, trip.flag.to_owned())));
            let toll = a.and_then(|a| a.toll);
            if trip.passengers <= 1 || (inner && a.is_none()) || (second_inner && rate.is_none()) || toll.is_some_and(|toll| toll <= 3.0) {
                filtered += 1;
                continue;
            }
            kept += 1;
            let key = (trip.pickup_ms.div_euclid(HOUR) * HOUR, zone, b.and_then(|b| b.zone.clone()));
            let group = expected.entry(key).or_insert((0, 0.0, 0, None));
            group.0 += 1;
            group.1 += toll.unwrap_or(0.0);
            let dearer = matches!((b.and_then(|b| b.toll), toll), (Some(b), Some(a)) if b > a);
            group.2 += i64::from(dearer);
            group.3 = group.3.max(rate.copied());
        }
        prop_assert_eq!(scanned.iter().map(|scanned| scanned.kept).sum::<u64>(), kept);
        prop_assert_eq!(scanned.iter().map(|scanned| scanned.filtered).sum::<u64>(), filtered);
        prop_assert_eq!(result.num_rows(), expected.len());
        let windows = longs(&result, "window_start");
        for (row, window) in windows.iter().enumerate() {
            let key = (*window, text(&result, "zone", row), text(&result, "google_zone", row));
            let group = &expected[&key];
            prop_assert_eq!(longs(&result, "n")[row], group.0);
            let tolls = result.column_by_name("tolls").unwrap().as_primitive::<Float64Type>();
            let sum = if tolls.is_valid(row) { tolls.value(row) } else { 0.0 };
            prop_assert!(close(sum, group.1));
            prop_assert_eq!(longs(&result, "dearer")[row], group.2);
            let best = result.column_by_name("best").unwrap().as_primitive::<Int32Type>();
            prop_assert_eq!(best.is_valid(row).then(|| best.value(row)), group.3);
        }
    }

    #[test]
    fn plain_rows_are_those_of_a_naive_join_in_their_order(
        seed in any::<u64>(), count in 0_usize..200, chunk in 1_usize..60, inner in any::<bool>()
    ) {
        let mut dice = Dice(seed | 1);
        let (zone_of, zones) = zones(&mut dice, 30);
        let tables = Tables::from([("zones".to_owned(), zones)]);
        let query = planned_with_tables(&job_over(ZONES, "pickup_at", "final", &format!(
            "SELECT pickup_at, upper(zone) AS zone, toll * 2 AS toll FROM trips {} zones ON trip_duration % 35 = seconds
             WHERE trips.vendor_id > 1 AND coalesce(toll, 7) > 5", if inner { "INNER JOIN" } else { "LEFT OUTER JOIN" }
        ))).unwrap();
        let trips = some_trips(seed, count, 3);
        let scanned = scanned(&query, &trips, chunk, &tables);
        for (scanned, trips) in scanned.iter().zip(trips.chunks(chunk)) {
            let expected: Vec<(u32, Option<String>, Option<f64>)> = (0..).zip(trips).filter_map(|(row, trip)| {
                let zone = zone_of.get(&i64::from(trip.duration % 35));
                let toll = zone.and_then(|zone| zone.toll);
                let passes = trip.vendor > 1 && toll.unwrap_or(7.0) > 5.0 && (zone.is_some() || !inner);
                passes.then(|| (row, zone.and_then(|zone| zone.zone.clone()).map(|zone| zone.to_uppercase()), toll.map(|toll| toll * 2.0)))
            }).collect();
            let tolls = scanned.partial.column_by_name("toll").unwrap().as_primitive::<Float64Type>();
            let found: Vec<_> = scanned.origins.iter().enumerate().map(|(at, row)| {
                (*row, text(&scanned.partial, "zone", at), tolls.is_valid(at).then(|| tolls.value(at)))
            }).collect();
            prop_assert_eq!(found, expected);
        }
    }

    #[test]
    fn hopping_windows_sessions_and_running_groups_are_those_of_rows_that_were_joined_before(
        seed in any::<u64>(), count in 0_usize..200, chunk in 1_usize..60, kind in 0_usize..3
    ) {
        let mut dice = Dice(seed | 1);
        let (zone_of, zones) = zones(&mut dice, 30);
        let tables = Tables::from([("zones".to_owned(), zones)]);
        let (from, window, key, emit) = [
            ("HOP(trips, pickup_at, INTERVAL '10 minutes', INTERVAL '1 hour')", "window_start, ", "window_start, zone", "final"),
            ("SESSION(trips, pickup_at, INTERVAL '2 minutes')", "window_start, ", "window_start, zone", "final"),
            ("trips", "", "zone", "changes"),
        ][kind];
        // store_and_fwd_flag stands in for what the table would say.
        let joined = planned_with_tables(&job_over(ZONES, key, emit, &format!(
            "SELECT {window} coalesce(z.zone, 'none') AS zone, count(*) AS n, sum(gc_distance) AS km FROM {from} AS t
             LEFT JOIN zones AS z ON z.seconds = trip_duration % 35 GROUP BY {window} coalesce(z.zone, 'none')"
        ))).unwrap();
        let before = planned_with_tables(&job_over("", key, emit, &format!(
            "SELECT {window} store_and_fwd_flag AS zone, count(*) AS n, sum(gc_distance) AS km FROM {from} AS t
             GROUP BY {window} store_and_fwd_flag"
        ))).unwrap();
        let trips = some_trips(seed, count, 3);
        let flagged: Vec<Trip> = trips.iter().map(|trip| {
            let zone = zone_of.get(&i64::from(trip.duration % 35)).and_then(|zone| zone.zone.as_deref());
            let flag = ["zone 0", "zone 1", "zone 2", "zone 3"].into_iter().find(|name| Some(*name) == zone);
            Trip { flag: flag.unwrap_or("none"), ..trip.clone() }
        }).collect();
        let found = finished(&joined, &scanned(&joined, &trips, chunk, &tables));
        let expected = finished(&before, &scanned(&before, &flagged, chunk, &Tables::new()));
        prop_assert_eq!(found.columns(), expected.columns());
    }
}

#[test]
fn a_row_that_the_condition_fails_on_is_dead_and_takes_no_other_with_it() {
    let query = planned_with_tables(&job_over(
        ZONES,
        "window_start",
        "final",
        "SELECT window_start, count(zone) AS n FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')
         JOIN zones ON seconds = 100 / passenger_count GROUP BY window_start",
    ))
    .unwrap();
    let mut dice = Dice(9);
    let (_, zones) = zones(&mut dice, 101);
    let tables = Tables::from([("zones".to_owned(), zones)]);
    let trips = some_trips(3, 100, 1);
    let scanned = query.scan_with(&[batch(&query, &trips)], &tables).unwrap();
    let dead: Vec<u32> = scanned.dead.iter().map(|dead| dead.row).collect();
    let expected: Vec<u32> = (0..)
        .zip(&trips)
        .filter_map(|(row, trip)| (trip.passengers == 0).then_some(row))
        .collect();
    assert!(!expected.is_empty());
    assert_eq!(dead, expected);
    assert_eq!(
        scanned.rows_in,
        scanned.kept + scanned.filtered + dead.len() as u64
    );
    // A table that nobody has loaded is a fault, and no row's.
    assert!(query.scan(&[batch(&query, &trips)]).is_err());
}

#[test]
fn a_value_that_the_keys_type_does_not_hold_finds_nothing() {
    let narrow = ZONES.replace("seconds BIGINT", "seconds INT");
    let query = planned_with_tables(&job_over(
        &narrow,
        "id",
        "final",
        "SELECT trip_duration AS id, zone FROM trips LEFT JOIN zones ON CAST(trip_duration AS BIGINT) * 4294967296 + 1 = seconds",
    ))
    .unwrap();
    let schema = parse(&job_over(
        &narrow,
        "id",
        "final",
        "SELECT id, zone FROM trips JOIN zones ON seconds = 1",
    ))
    .unwrap()
    .tables["zones"]
        .columns
        .clone()
        .unwrap();
    let layout = Arc::new(Layout::new(Arc::clone(&schema), &["seconds".to_owned()]).unwrap());
    let rows = RecordBatch::try_new(
        schema,
        vec![
            Arc::new(Int32Array::from(vec![1])),
            Arc::new(StringArray::from(vec!["one"])),
            Arc::new(Float64Array::from(vec![1.0])),
            Arc::new(Int32Array::from(vec![1])),
        ],
    )
    .unwrap();
    let key = layout.keys(&rows).unwrap().remove(0).unwrap();
    let table = Snapshot::empty(layout)
        .with(&rows, [(key, Some(0))])
        .unwrap();
    let tables = Tables::from([("zones".to_owned(), table)]);
    let mut trips = some_trips(1, 3, 1);
    for (duration, trip) in (0..).zip(&mut trips) {
        trip.duration = duration;
    }
    let found = query
        .scan_with(&[batch(&query, &trips)], &tables)
        .unwrap()
        .partial;
    let zones: Vec<_> = (0..3).map(|row| text(&found, "zone", row)).collect();
    assert_eq!(zones, [Some("one".to_owned()), None, None]);
}

fn refused(text: &str) -> Vec<JobError> {
    match planned_with_tables(text) {
        Err(errors) => errors,
        Ok(_) => panic!("accepted:\n{text}"),
    }
}

/// Where in the text the first of some words stands, as an error says it.
fn place(text: &str, words: &str) -> (u64, u64) {
    let at = text.find(words).unwrap();
    let line = text[..at].matches('\n').count() as u64 + 1;
    let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    (line, text[start..at].chars().count() as u64 + 1)
}

#[track_caller]
fn expect(text: &str, at: &str, what: &str, help: &str) {
    let errors = refused(text);
    let found = errors.iter().any(|error| {
        (error.at.line, error.at.column) == place(text, at)
            && error.what.contains(what)
            && error.help.as_deref().unwrap_or_default().contains(help)
    });
    assert!(
        found,
        "no «{what}» with help «{help}» at {:?} in\n{errors:#?}",
        place(text, at)
    );
}

#[test]
fn joins_that_cannot_be_run_are_refused_with_what_to_write() {
    let query = |join: &str| {
        job_over(
            &format!("{ZONES}{RATES}"),
            "id",
            "final",
            &format!(
                "SELECT id FROM trips AS t JOIN rates AS r ON r.zone = t.id AND r.flag = 'x' {join}"
            ),
        )
    };
    for (join, at, what, help) in [
        (
            "RIGHT JOIN zones AS z ON z.seconds = 1",
            "zones AS z",
            "this kind of join",
            "LEFT JOIN",
        ),
        (
            "FULL JOIN zones AS z ON z.seconds = 1",
            "zones AS z",
            "this kind of join",
            "LEFT JOIN",
        ),
        (
            "CROSS JOIN zones AS z",
            "zones AS z",
            "this kind of join",
            "ON t.key",
        ),
        (
            "JOIN zones AS z USING (vendor_id)",
            "zones AS z",
            "this kind of join",
            "ON t.key",
        ),
        (
            "JOIN zoones AS z ON z.seconds = 1",
            "zoones",
            "there is no reference table zoones",
            "did you mean zones?",
        ),
        (
            "JOIN trips AS z ON z.trip_duration = 1",
            "trips AS z",
            "trips is a source",
            "CREATE REFERENCE TABLE",
        ),
        (
            "JOIN zones AS t ON seconds = 1",
            "zones AS t",
            "two tables of the query are named t",
            "AS other",
        ),
        (
            "JOIN zones AS z (a) ON a = 1",
            "zones AS z",
            "cannot be renamed",
            "AS",
        ),
        (
            "JOIN zones AS z ON z.seconds > trip_duration",
            "z.seconds >",
            "not an equality",
            "z.seconds = …",
        ),
        (
            "JOIN zones AS z ON z.seconds = 1 OR z.seconds = 2",
            "z.seconds = 1 OR",
            "not an equality",
            "z.seconds = …",
        ),
        (
            "JOIN zones AS z ON z.zone = 'a'",
            "z.zone = 'a'",
            "z.zone is not a column of the key of zones",
            "z.seconds = …",
        ),
        (
            "JOIN zones AS z ON z.seconds = z.vendor_id",
            "z.seconds = z.v",
            "with what is known before it",
            "",
        ),
        (
            "JOIN zones AS z ON t.trip_duration = 1",
            "t.trip_duration = 1",
            "with what is known before it",
            "",
        ),
        (
            "JOIN zones AS z ON z.seconds = 1 AND z.seconds = 2",
            "z.seconds = 1",
            "compared twice",
            "",
        ),
        (
            "JOIN zones AS z ON z.seconds = count(*)",
            "z.seconds = count",
            "aggregate",
            "",
        ),
        (
            "JOIN zones AS z ON z.seconds = gc_distance",
            "z.seconds = gc",
            "z.seconds is an integer, and is compared as if it were a floating-point",
            "cast",
        ),
        (
            "JOIN zones AS z ON z.seconds = r.ratio",
            "ratio",
            "there is no column ratio",
            "rate",
        ),
        (
            "JOIN zones AS z ON z.seconds = q.rate",
            "q.rate",
            "no source or table q",
            "t or r or z",
        ),
    ] {
        expect(&(query(join) + ";"), at, what, help);
    }
    let text = query("JOIN zones AS z ON z.seconds = t.rate;");
    expect(
        &text,
        "rate;",
        "t has no column rate",
        "did you mean r.rate?",
    );
}

#[test]
fn names_that_stand_for_several_columns_are_refused() {
    let text = job_over(
        ZONES,
        "id",
        "final",
        "SELECT id FROM trips AS t JOIN zones AS z ON z.seconds = trip_duration WHERE vendor_id = 2;",
    );
    expect(
        &text,
        "vendor_id = 2",
        "vendor_id is a column of t and of z",
        "t.vendor_id or z.vendor_id",
    );
    let text = text.replace("WHERE vendor_id", "WHERE z.vendor_id");
    planned_with_tables(&text).unwrap();
    let text = text.replace("z.vendor_id", "z.passenger_count");
    expect(
        &text,
        "passenger_count = 2",
        "z has no column passenger_count",
        "t.passenger_count",
    );
    let text = text
        .replace("z.passenger_count", "t.zoone")
        .replace("zoone = 2", "zone = 'a'");
    expect(&text, "zone = 'a'", "t has no column zone", "z.zone");
}

#[test]
fn part_of_a_key_is_not_enough() {
    let text = job_over(
        RATES,
        "id",
        "final",
        "SELECT id FROM trips AS t JOIN rates AS r ON r.flag = 'Y';",
    );
    expect(
        &text,
        "r.flag = 'Y'",
        "several matches: ON says nothing of zone of r",
        "r.zone = … AND r.flag = …",
    );
}

#[test]
fn reference_tables_that_cannot_be_read_are_refused() {
    let good = "SELECT id FROM trips AS t JOIN zones AS z ON z.seconds = trip_duration;";
    let with = |table: &str| job_over(&format!("{table}\n"), "id", "final", good);
    let columns = "(seconds BIGINT, zone TEXT)";
    for (table, at, what, help) in [
        (
            "CREATE REFERENCE TABLE zones WITH (path = 'zones.csv', key = 'seconds');",
            "CREATE REF",
            "columns must be declared",
            "CREATE REFERENCE TABLE name",
        ),
        (
            &format!(
                "CREATE REFERENCE TABLE zones {columns} WITH (path = 'zones.txt', key = 'seconds');"
            ),
            "'zones.txt'",
            "neither a CSV file nor a Parquet file",
            ".csv or .parquet",
        ),
        (
            &format!("CREATE REFERENCE TABLE zones {columns} WITH (key = 'seconds');"),
            "CREATE REF",
            "neither which file nor which topic",
            "path = 'zones.csv'",
        ),
        (
            &format!(
                "CREATE REFERENCE TABLE zones {columns} WITH (path = 'z.csv', topic = 'z', key = 'seconds');"
            ),
            "'z', key",
            "not from both",
            "",
        ),
        (
            &format!("CREATE REFERENCE TABLE zones {columns} WITH (path = 'z.csv');"),
            "CREATE REF",
            "the option key is missing",
            "key = ",
        ),
        (
            &format!(
                "CREATE REFERENCE TABLE zones {columns} WITH (path = 'z.csv', key = 'seconds, seconds');"
            ),
            "'seconds, ",
            "twice",
            "",
        ),
        (
            &format!(
                "CREATE REFERENCE TABLE zones {columns} WITH (path = 'z.csv', key = 'second');"
            ),
            "'second'",
            "no column second",
            "did you mean seconds?",
        ),
        (
            &format!(
                "CREATE REFERENCE TABLE zones {columns} WITH (path = 'z.csv', key = 'seconds', grace = '1 hour');"
            ),
            "grace",
            "no option grace",
            "there are",
        ),
        (
            &format!(
                "CREATE REFERENCE TABLE zones {columns} WITH (path = 'z.csv', key = 'seconds', format = 'json');"
            ),
            "'json'",
            "format is for topics",
            "",
        ),
        (
            &format!("CREATE REFERENCE TABLE zones {columns} WITH (topic = 'z', key = 'seconds');"),
            "(seconds",
            "come from the schema registry",
            "format = 'json'",
        ),
        (
            &format!(
                "CREATE REFERENCE TABLE zones {columns} WITH (topic = 'out', format = 'json', key = 'seconds');"
            ),
            "'out', format",
            "is written by out",
            "a job of its own",
        ),
        (
            "CREATE REFERENCE TABLE zones (seconds DOUBLE) WITH (path = 'z.csv', key = 'seconds');",
            "'seconds')",
            "seconds cannot be a key: it is a floating-point number",
            "integers",
        ),
        (
            "CREATE REFERENCE TABLE zones (seconds BIGINT, window_start TIMESTAMP) WITH (path = 'z.csv', key = 'seconds');",
            "CREATE REF",
            "has a column window_start",
            "rename",
        ),
        (
            "CREATE REFERENCE TABLE trips (seconds BIGINT) WITH (path = 'z.csv', key = 'seconds');",
            "trips (seconds",
            "the name trips is used twice",
            "",
        ),
    ] {
        expect(&with(table), at, what, help);
    }
    let text = job_over(&format!("{ZONES}{RATES}"), "id", "final", good);
    expect(
        &text,
        "CREATE REFERENCE TABLE rates",
        "nothing reads the reference table rates",
        "LEFT JOIN rates",
    );
    let text = job_over(ZONES, "zone", "final", "SELECT zone FROM zones;");
    expect(
        &text,
        "zones;",
        "zones is a reference table, and rows come from a source",
        "JOIN zones ON",
    );
}

#[test]
fn the_fingerprint_holds_the_definition_and_not_where_the_rows_are() {
    let fingerprint = |tables: &str, query: &str| {
        let key = "window_start, zone";
        planned_with_tables(&job_over(tables, key, "final", query))
            .unwrap()
            .fingerprint
    };
    let query = "SELECT window_start, z.zone AS zone, count(*) AS n FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')
                 LEFT JOIN zones AS z ON z.seconds = trip_duration GROUP BY window_start, z.zone";
    let first = fingerprint(ZONES, query);
    assert!(
        first.contains("lookup left zones as z on z.seconds = trip_duration, key (seconds Int64), columns (zone Utf8)\n"),
        "{first}"
    );
    assert_eq!(
        first,
        fingerprint(&ZONES.replace("zones.csv", "elsewhere/zones.csv"), query)
    );
    assert_eq!(
        first,
        fingerprint(&ZONES.replace("toll DOUBLE", "toll REAL"), query)
    );
    for other in [
        fingerprint(ZONES, &query.replace("LEFT JOIN", "JOIN")),
        fingerprint(
            ZONES,
            &query.replace("= trip_duration", "= trip_duration % 60"),
        ),
        fingerprint(&ZONES.replace("seconds BIGINT", "seconds INT"), query),
    ] {
        assert_ne!(first, other);
    }
}
