#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, StringArray,
    TimestampMicrosecondArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use runtime::log::{Offset, TopicPartition};
use serde_json::{Value, json};

use super::*;

const JANUARY: i64 = 1_451_606_400_000; // 2016-01-01T00:00:00Z

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

fn batch(columns: Vec<(&str, DataType, ArrayRef)>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, kind, _)| Field::new(*name, kind.clone(), true))
        .collect();
    let arrays = columns.into_iter().map(|(_, _, array)| array).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn statistics() -> RecordBatch {
    batch(vec![
        (
            "window_start",
            timestamp(),
            Arc::new(
                TimestampMillisecondArray::from(vec![JANUARY, JANUARY + 1]).with_timezone("+00:00"),
            ),
        ),
        (
            "vendor_id",
            DataType::Int32,
            Arc::new(Int32Array::from(vec![1, 2])),
        ),
        (
            "mean",
            DataType::Float64,
            Arc::new(Float64Array::from(vec![Some(1.5), None])),
        ),
        (
            "latitude",
            DataType::Float64,
            Arc::new(Float64Array::from(vec![40.75, 40.0])),
        ),
        (
            "longitude",
            DataType::Float64,
            Arc::new(Float64Array::from(vec![-73.98, -74.0])),
        ),
        (
            "is_final",
            DataType::Boolean,
            Arc::new(BooleanArray::from(vec![true, false])),
        ),
        (
            "version",
            DataType::Int64,
            Arc::new(Int64Array::from(vec![85, 86])),
        ),
    ])
}

fn settings() -> TopicSettings {
    TopicSettings::new("trip_statistics")
        .keyed_by(&["window_start", "vendor_id"])
        .timed_by("window_start")
        .with_point("location", "latitude", "longitude")
}

fn build(settings: &TopicSettings, batch: &RecordBatch) -> Vec<Result<Document, Refusal>> {
    let mut layout = Layout::new(settings, batch.schema_ref()).unwrap();
    let offsets: Vec<Offset> = (7..).take(batch.num_rows()).collect();
    layout.documents(
        batch,
        &TopicPartition::new(settings.topic.as_str(), 3),
        &offsets,
    )
}

fn parse(document: &Document) -> Value {
    serde_json::from_slice(&document.source).unwrap()
}

#[test]
fn a_row_becomes_a_document_by_its_own_values_alone() {
    let documents = build(&settings(), &statistics());
    let first = documents[0].as_ref().unwrap();
    assert_eq!(&*first.index, "trip_statistics-2016.01");
    assert_eq!(first.id, "2016-01-01T00:00:00.000Z+1");
    assert_eq!(first.version, 85);
    let expected = json!({
        "window_start": "2016-01-01T00:00:00.000Z", "vendor_id": 1, "mean": 1.5, "latitude": 40.75,
        "longitude": -73.98, "is_final": true, "version": 85, "location": {"lat": 40.75, "lon": -73.98},
    });
    assert_eq!(parse(first), expected);
    let second = documents[1].as_ref().unwrap();
    assert_eq!(second.id, "2016-01-01T00:00:00.001Z+2");
    assert_eq!(parse(second).get("mean"), None, "nulls are left out");
}

#[test]
fn without_keys_and_version_a_document_is_its_record() {
    let rows = batch(vec![(
        "name",
        DataType::Utf8,
        Arc::new(StringArray::from(vec!["a", "b"])),
    )]);
    let documents = build(&TopicSettings::new("trips"), &rows);
    let second = documents[1].as_ref().unwrap();
    assert_eq!(
        (&*second.index, second.id.as_str(), second.version),
        ("trips", "trips+3+8", 8)
    );
}

#[test]
fn what_has_no_json_or_id_is_refused_with_the_field() {
    let one = |name: &str, kind: DataType, array: ArrayRef| batch(vec![(name, kind, array)]);
    let mut cases = vec![];
    for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let rows = one(
            "x",
            DataType::Float64,
            Arc::new(Float64Array::from(vec![value])),
        );
        cases.push((TopicSettings::new("t"), rows, "not_finite", "x"));
    }
    let key = |array: StringArray| one("k", DataType::Utf8, Arc::new(array));
    let keyed = TopicSettings::new("t").keyed_by(&["k"]);
    cases.push((
        keyed.clone(),
        key(StringArray::from(vec![None::<&str>])),
        "null",
        "k",
    ));
    cases.push((
        keyed.clone(),
        key(StringArray::from(vec!["x".repeat(513)])),
        "id_too_long",
        "k",
    ));
    for (version, reason) in [(Some(-1), "bad_version"), (None, "null")] {
        let rows = one(
            "version",
            DataType::Int64,
            Arc::new(Int64Array::from(vec![version])),
        );
        cases.push((TopicSettings::new("t"), rows, reason, "version"));
    }
    for (time, reason) in [(Some(i64::MAX), "time_out_of_range"), (None, "null")] {
        let array = TimestampMillisecondArray::from(vec![time]).with_timezone("+00:00");
        let rows = one("at", timestamp(), Arc::new(array));
        cases.push((TopicSettings::new("t").timed_by("at"), rows, reason, "at"));
    }
    let point = |lat: f64, lon: f64| {
        batch(vec![
            (
                "lat",
                DataType::Float64,
                Arc::new(Float64Array::from(vec![lat])) as ArrayRef,
            ),
            (
                "lon",
                DataType::Float64,
                Arc::new(Float64Array::from(vec![lon])),
            ),
        ])
    };
    let pointed = TopicSettings::new("t").with_point("place", "lat", "lon");
    cases.push((pointed.clone(), point(90.1, 0.0), "not_on_earth", "place"));
    cases.push((pointed, point(0.0, -180.1), "not_on_earth", "place"));

    for (settings, rows, reason, column) in cases {
        let refusal = build(&settings, &rows).remove(0).unwrap_err();
        assert_eq!(
            (refusal.reason, refusal.column.as_str()),
            (reason, column),
            "{}",
            refusal.detail
        );
    }
}

#[test]
fn settings_that_do_not_fit_the_schema_are_refused_with_what_to_do() {
    let rows = statistics();
    let base = || TopicSettings::new("trip_statistics");
    let refused = |settings: TopicSettings| {
        Layout::new(&settings, rows.schema_ref())
            .unwrap_err()
            .to_string()
    };
    for (settings, part) in [
        (
            base().keyed_by(&["vendor"]),
            "it has window_start, vendor_id",
        ),
        (base().keyed_by(&["mean"]), "can't be a key"),
        (
            TopicSettings {
                version: Some("mean".into()),
                ..base()
            },
            "an int or long",
        ),
        (base().timed_by("vendor_id"), "a timestamp or date"),
        (
            base().timed_by("window_start").keyed_by(&["vendor_id"]),
            "two indices",
        ),
        (
            TopicSettings {
                index: Some("{topic}-{yyyy}".into()),
                ..base()
            },
            "name the `time` field",
        ),
        (
            base().with_point("vendor_id", "latitude", "longitude"),
            "name of another field",
        ),
        (
            base().with_point("place", "version", "longitude"),
            "a float or double",
        ),
    ] {
        let error = refused(settings);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn timestamps_are_rfc_3339_with_the_digits_of_their_unit() {
    let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
    for (millis, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (-1, "1969-12-31T23:59:59.999Z"),
        (951_827_696_007, "2000-02-29T12:34:56.007Z"),
        (-62_135_596_800_000, "0001-01-01T00:00:00.000Z"),
        (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    ] {
        let array = TimestampMillisecondArray::from(vec![millis]).with_timezone("+00:00");
        let rows = batch(vec![
            ("at", timestamp(), Arc::new(array) as ArrayRef),
            (
                "local",
                micros.clone(),
                Arc::new(TimestampMicrosecondArray::from(vec![millis * 1_000 + 5])),
            ),
        ]);
        let document = build(&TopicSettings::new("t"), &rows).remove(0).unwrap();
        let local = format!("{}005", text.trim_end_matches('Z'));
        assert_eq!(parse(&document), json!({"at": text, "local": local}));
    }
}

proptest! {
    #[test]
    fn distinct_keys_have_distinct_ids(
        rows in prop::collection::vec(("[a+\\\\e]{0,4}", -3_i64..3, "[+\\\\e1]{0,3}"), 2..60),
    ) {
        let text = |pick: fn(&(String, i64, String)) -> &str| {
            Arc::new(StringArray::from(rows.iter().map(pick).collect::<Vec<_>>())) as ArrayRef
        };
        let batch = batch(vec![
            ("a", DataType::Utf8, text(|row| &row.0)),
            ("b", DataType::Int64, Arc::new(Int64Array::from(rows.iter().map(|row| row.1).collect::<Vec<_>>()))),
            ("c", DataType::Utf8, text(|row| &row.2)),
        ]);
        let documents = build(&TopicSettings::new("t").keyed_by(&["a", "b", "c"]), &batch);
        let mut keys_by_id = BTreeMap::new();
        for (row, document) in rows.iter().zip(documents) {
            let id = document.unwrap().id;
            prop_assert!(!id.is_empty());
            prop_assert_eq!(*keys_by_id.entry(id).or_insert(row), row);
        }
    }

    #[test]
    fn a_float_reads_back_as_it_was(value in any::<f64>().prop_filter("finite", |value| value.is_finite())) {
        let rows = batch(vec![("x", DataType::Float64, Arc::new(Float64Array::from(vec![value])))]);
        let document = build(&TopicSettings::new("t"), &rows).remove(0).unwrap();
        let text = String::from_utf8(document.source).unwrap();
        let number = text.trim_start_matches("{\"x\":").trim_end_matches('}');
        prop_assert_eq!(number.parse::<f64>().unwrap().to_bits(), value.to_bits());
    }
}
