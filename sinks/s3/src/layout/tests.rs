#![allow(clippy::unwrap_used, clippy::expect_used)]
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float64Array, Int32Array, RecordBatch, StringArray,
    TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema};
use chrono::NaiveDate;

use super::*;

fn paths(layout: &Layout, columns: Vec<(&str, ArrayRef)>) -> Vec<String> {
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, array)| (name, array, true)),
    );
    let batch = batch.unwrap();
    let mut partitioner = Partitioner::new(layout, &batch.schema()).unwrap();
    let mut assigned = Vec::new();
    partitioner.assign(&batch, &mut assigned).unwrap();
    assigned
        .iter()
        .map(|partition| partitioner.path(*partition).to_owned())
        .collect()
}

fn instants(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::from(values).with_timezone("+00:00"))
}

/// Milliseconds since 1970 of an instant given in UTC.
fn utc(year: i32, month: u32, day: u32, hour: u32, minute: u32) -> i64 {
    let date = NaiveDate::from_ymd_opt(year, month, day).unwrap();
    date.and_hms_opt(hour, minute, 0)
        .unwrap()
        .and_utc()
        .timestamp_millis()
}

#[test]
fn folders_are_padded_with_zeros_and_ordered() {
    let layout = Layout::new()
        .by_hour("at", "UTC")
        .unwrap()
        .by_column("vendor_id")
        .unwrap();
    let found = paths(
        &layout,
        vec![
            (
                "at",
                instants(vec![
                    Some(utc(2016, 1, 2, 3, 59)),
                    Some(utc(2016, 12, 31, 23, 0)),
                    Some(-1),
                ]),
            ),
            ("vendor_id", Arc::new(Int32Array::from(vec![2, 1, -7]))),
        ],
    );
    assert_eq!(
        found,
        [
            "year=2016/month=01/day=02/hour=03/vendor_id=2",
            "year=2016/month=12/day=31/hour=23/vendor_id=1",
            "year=1969/month=12/day=31/hour=23/vendor_id=-7",
        ]
    );
    assert_eq!(
        layout.names().collect::<Vec<_>>(),
        ["year", "month", "day", "hour", "vendor_id"]
    );
}

#[test]
fn hours_are_those_of_the_stated_zone_across_summer_time() {
    // New York in 2016: from 13 March, 07:00 UTC, four hours behind; from 6 November, 06:00 UTC, five
    let layout = Layout::new().by_hour("at", "America/New_York").unwrap();
    let found = paths(
        &layout,
        vec![(
            "at",
            instants(vec![
                Some(utc(2016, 1, 1, 4, 59)),
                Some(utc(2016, 3, 13, 6, 59)),
                Some(utc(2016, 3, 13, 7, 0)),
                Some(utc(2016, 11, 6, 5, 30)),
                Some(utc(2016, 11, 6, 6, 30)),
                Some(utc(2016, 11, 6, 7, 30)),
            ]),
        )],
    );
    assert_eq!(
        found,
        [
            "year=2015/month=12/day=31/hour=23",
            "year=2016/month=03/day=13/hour=01",
            "year=2016/month=03/day=13/hour=03",
            "year=2016/month=11/day=06/hour=01",
            "year=2016/month=11/day=06/hour=01",
            "year=2016/month=11/day=06/hour=02",
        ]
    );
    // half-hour zones too
    let layout = Layout::new().by_hour("at", "Asia/Kolkata").unwrap();
    assert_eq!(
        paths(
            &layout,
            vec![(
                "at",
                instants(vec![
                    Some(utc(2016, 1, 1, 18, 29)),
                    Some(utc(2016, 1, 1, 18, 30))
                ])
            )]
        ),
        [
            "year=2016/month=01/day=01/hour=23",
            "year=2016/month=01/day=02/hour=00"
        ]
    );
}

#[test]
fn a_local_time_is_taken_as_it_stands() {
    let layout = Layout::new().by_hour("at", "America/New_York").unwrap();
    let local: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![utc(
        2016, 1, 1, 4, 59,
    )]));
    assert_eq!(
        paths(&layout, vec![("at", local)]),
        ["year=2016/month=01/day=01/hour=04"]
    );
}

#[test]
fn missing_and_impossible_values_have_hives_default_folder() {
    let layout = Layout::new()
        .by_hour("at", "Pacific/Kiritimati")
        .unwrap()
        .by_column("name")
        .unwrap();
    let found = paths(
        &layout,
        vec![
            (
                "at",
                instants(vec![
                    None,
                    Some(i64::MAX),
                    Some(i64::MIN),
                    Some(utc(9999, 12, 31, 23, 59)),
                ]),
            ),
            (
                "name",
                Arc::new(StringArray::from(vec![
                    None,
                    Some(""),
                    Some("a"),
                    Some("b"),
                ])),
            ),
        ],
    );
    let default = |name: &str| format!("{name}={DEFAULT_PARTITION}");
    let times = ["year", "month", "day", "hour"].map(default).join("/");
    assert_eq!(found[0], format!("{times}/{}", default("name")));
    assert_eq!(found[1], found[0]);
    assert_eq!(found[2], format!("{times}/name=a"));
    assert_eq!(found[3], format!("{times}/name=b"));
}

#[test]
fn values_are_escaped_as_hive_does() {
    let layout = Layout::new().by_column("name").unwrap();
    let texts = [
        "a/b",
        "50%",
        "k=v",
        "..",
        "ü x+y",
        "q?\"'#*:\\{[]^",
        "tab\t\u{7f}",
    ];
    let found = paths(
        &layout,
        vec![("name", Arc::new(StringArray::from(texts.to_vec())))],
    );
    assert_eq!(
        found,
        [
            "name=a%2Fb",
            "name=50%25",
            "name=k%3Dv",
            "name=..",
            "name=ü x+y",
            "name=q%3F%22%27%23%2A%3A%5C%7B%5B%5D%5E",
            "name=tab%09%7F",
        ]
    );
    for path in found {
        assert_eq!(
            object_store::path::Path::parse(&path).unwrap().as_ref(),
            path
        );
    }
}

#[test]
fn other_column_types_name_folders_too() {
    let layout = Layout::new()
        .by_column("flag")
        .unwrap()
        .by_column("day")
        .unwrap();
    let found = paths(
        &layout,
        vec![
            ("flag", Arc::new(BooleanArray::from(vec![true, false]))),
            ("day", Arc::new(Date32Array::from(vec![0, 16_801]))),
        ],
    );
    assert_eq!(
        found,
        ["flag=true/day=1970-01-01", "flag=false/day=2016-01-01"]
    );
}

#[test]
fn a_layout_that_does_not_fit_is_refused_with_the_reason() {
    let schema = Schema::new(vec![
        Field::new("x", DataType::Float64, false),
        Field::new("n", DataType::Int64, false),
    ]);
    assert!(matches!(
        Layout::new().by_hour("x", "Mars/Olympus"),
        Err(LayoutError::Zone { .. })
    ));
    let twice = Layout::new().by_hour("x", "UTC").unwrap().by_column("hour");
    assert!(matches!(twice, Err(LayoutError::Twice { name }) if name == "hour"));
    for layout in [
        Layout::new().by_hour("n", "UTC"),
        Layout::new().by_column("x"),
    ] {
        assert!(matches!(
            Partitioner::new(&layout.unwrap(), &schema),
            Err(LayoutError::Type { .. })
        ));
    }
    let none = Partitioner::new(&Layout::new().by_column("y").unwrap(), &schema).unwrap_err();
    assert!(none.to_string().contains("it has x, n"), "{none}");
}

#[test]
fn rows_of_one_folder_have_one_number_across_batches() {
    let layout = Layout::new().by_column("n").unwrap();
    let batch = |values: Vec<f64>, numbers: Vec<i32>| {
        let columns: Vec<(&str, ArrayRef)> = vec![
            ("x", Arc::new(Float64Array::from(values))),
            ("n", Arc::new(Int32Array::from(numbers))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    };
    let first = batch(vec![0.5, 1.5, 2.5], vec![4, 9, 4]);
    let mut partitioner = Partitioner::new(&layout, &first.schema()).unwrap();
    let mut assigned = Vec::new();
    partitioner.assign(&first, &mut assigned).unwrap();
    partitioner
        .assign(&batch(vec![3.5, 4.5], vec![9, 5]), &mut assigned)
        .unwrap();
    assert_eq!(assigned, [0, 1, 0, 1, 2]);
    assert_eq!(partitioner.len(), 3);
}
