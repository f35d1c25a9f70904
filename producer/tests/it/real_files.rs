//! The three real layouts, against a reading that shares no code with the producer: the csv crate, chrono, plain
//! arithmetic.

use std::path::{Path, PathBuf};

use apache_avro::types::Value;
use chrono::{NaiveDateTime, TimeZone};
use producer::mapping::{Mapping, RowEncoder};
use schemas::shipped::TAXI_TRIP;

use crate::mappings::convert;

/// The files of `HEADWAY_TRIPS_CSV`.
pub fn files(test: &str) -> Vec<PathBuf> {
    match std::env::var("HEADWAY_TRIPS_CSV") {
        Ok(list) => std::env::split_paths(&list).collect(),
        Err(_) => {
            eprintln!(
                "SKIPPED {test}: HEADWAY_TRIPS_CSV names no files (a list separated by colons)"
            );
            Vec::new()
        }
    }
}

/// The shipped mapping for a file: by its first line, or the header-less one.
pub fn mapping(path: &Path) -> Mapping {
    let text = std::fs::read_to_string(path).unwrap();
    let first: Vec<String> = text
        .lines()
        .next()
        .unwrap()
        .split(',')
        .map(str::to_owned)
        .collect();
    Mapping::for_header(&first).unwrap_or_else(|| Mapping::shipped("aws").unwrap())
}

/// A trip as the oracle reads it.
#[derive(Debug, PartialEq)]
pub struct Trip {
    id: String,
    vendor_id: i32,
    pickup_at: i64,
    dropoff_at: i64,
    passenger_count: i32,
    coordinates: [f64; 4],
    flag: String,
    gc_distance: f64,
    trip_duration: i32,
    google: [Option<i32>; 2],
    source: String,
}

/// Rows that the rules refuse are `None`.
pub fn oracle(path: &Path, name: &str) -> Vec<Option<Trip>> {
    let mut reader = csv::ReaderBuilder::new()
        .has_headers(name != "aws")
        .flexible(true)
        .from_path(path)
        .unwrap();
    let format = if name == "aws" {
        "%m/%d/%y %H:%M"
    } else {
        "%Y-%m-%d %H:%M:%S"
    };
    let time = |text: &str| {
        let local = NaiveDateTime::parse_from_str(text, format).ok()?;
        chrono_tz::America::New_York
            .from_local_datetime(&local)
            .earliest()
            .map(|instant| instant.timestamp_millis())
    };
    reader
        .records()
        .map(|row| {
            let row = row.ok()?;
            let int = |index: usize| {
                row.get(index)?
                    .parse::<i32>()
                    .ok()
                    .filter(|number| *number >= 0)
            };
            let float = |index: usize| row.get(index)?.parse::<f64>().ok();
            let [lon1, lat1, lon2, lat2] = [float(5)?, float(6)?, float(7)?, float(8)?];
            let (distance, duration) = match name {
                "kaggle" => {
                    // the haversine formula with atan2, where the product uses asin
                    let (phi1, phi2) = (lat1.to_radians(), lat2.to_radians());
                    let a = ((phi2 - phi1) / 2.0).sin().powi(2)
                        + phi1.cos()
                            * phi2.cos()
                            * ((lon2 - lon1).to_radians() / 2.0).sin().powi(2);
                    (6371.0088 * 2.0 * a.sqrt().atan2((1.0 - a).sqrt()), int(10)?)
                }
                "aws" => (float(10)? * 1.609_344, int(11)?),
                _ => (float(10)?, int(11)?),
            };
            let trip = Trip {
                id: row.get(0)?.to_owned(),
                vendor_id: int(1)?,
                pickup_at: time(row.get(2)?)?,
                dropoff_at: time(row.get(3)?)?,
                passenger_count: int(4)?,
                coordinates: [lon1, lat1, lon2, lat2],
                flag: row.get(9)?.to_owned(),
                gc_distance: distance,
                trip_duration: duration,
                google: if name == "kaggle" {
                    [None, None]
                } else {
                    [int(12), int(13)]
                },
                source: name.to_owned(),
            };
            let in_range = lon1.abs() <= 180.0
                && lon2.abs() <= 180.0
                && lat1.abs() <= 90.0
                && lat2.abs() <= 90.0;
            let nowhere = (lon1 == 0.0 && lat1 == 0.0) || (lon2 == 0.0 && lat2 == 0.0);
            let good = in_range
                && !nowhere
                && trip.dropoff_at >= trip.pickup_at
                && ["Y", "N"].contains(&trip.flag.as_str());
            good.then_some(trip)
        })
        .collect()
}

pub fn trip(fields: &[(String, Value)]) -> Trip {
    let get = |name: &str| &fields.iter().find(|(field, _)| field == name).unwrap().1;
    let text = |name: &str| match get(name) {
        Value::String(text) => text.clone(),
        other => panic!("{name}: {other:?}"),
    };
    let int = |name: &str| match get(name) {
        Value::Int(number) => *number,
        other => panic!("{name}: {other:?}"),
    };
    let optional = |name: &str| match get(name) {
        Value::Union(1, value) => match **value {
            Value::Int(number) => Some(number),
            ref other => panic!("{name}: {other:?}"),
        },
        _ => None,
    };
    let real = |name: &str| match get(name) {
        Value::Double(number) => *number,
        other => panic!("{name}: {other:?}"),
    };
    let time = |name: &str| match get(name) {
        Value::TimestampMillis(number) => *number,
        other => panic!("{name}: {other:?}"),
    };
    Trip {
        id: text("id"),
        vendor_id: int("vendor_id"),
        pickup_at: time("pickup_at"),
        dropoff_at: time("dropoff_at"),
        passenger_count: int("passenger_count"),
        coordinates: [
            real("pickup_longitude"),
            real("pickup_latitude"),
            real("dropoff_longitude"),
            real("dropoff_latitude"),
        ],
        flag: text("store_and_fwd_flag"),
        gc_distance: real("gc_distance"),
        trip_duration: int("trip_duration"),
        google: [optional("google_distance"), optional("google_duration")],
        source: text("source"),
    }
}

#[test]
fn real_rows_read_as_the_oracle_reads_them() {
    for path in files("real_rows_read_as_the_oracle_reads_them") {
        let mapping = mapping(&path);
        let mut encoder = RowEncoder::compile(&mapping, TAXI_TRIP).unwrap();
        let rows = convert(&mut encoder, TAXI_TRIP, &std::fs::read(&path).unwrap());
        let expected = oracle(&path, mapping.name());
        assert_eq!(rows.len(), expected.len(), "{}", path.display());
        let mut rejected = 0;
        for (row, expected) in rows.iter().zip(&expected) {
            let got = row.as_ref().ok().map(|fields| trip(fields));
            rejected += usize::from(got.is_none());
            match (&got, expected) {
                (Some(got), Some(expected)) => {
                    let difference = (got.gc_distance - expected.gc_distance).abs();
                    assert!(
                        difference <= 1e-9 * expected.gc_distance.max(1.0),
                        "{got:?} {expected:?}"
                    );
                    let same = Trip {
                        gc_distance: expected.gc_distance,
                        ..trip(row.as_ref().unwrap())
                    };
                    assert_eq!(&same, expected);
                }
                _ => assert_eq!(got.is_some(), expected.is_some(), "{row:?} {expected:?}"),
            }
        }
        eprintln!(
            "{}: {} rows, {rejected} rejected",
            path.display(),
            rows.len()
        );
    }
}
