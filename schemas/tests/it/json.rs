//! JSON records: every row is what serde_json's tree holds, and bad records touch no other.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::*;
use arrow::record_batch::RecordBatch;
use proptest::prelude::*;
use schemas::decode::{JsonDecoder, PushError};
use serde_json::{Value, json};

fn columns() -> SchemaRef {
    let at = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("n", DataType::Int32, true),
        Field::new("x", DataType::Float64, true),
        Field::new("y", DataType::Float32, true),
        Field::new("ok", DataType::Boolean, true),
        Field::new("name", DataType::Utf8, true),
        Field::new("at", at, true),
        Field::new("day", DataType::Date32, true),
    ]))
}

fn decoder() -> JsonDecoder {
    JsonDecoder::new(columns()).unwrap()
}

fn refused(value: &str) -> (&'static str, String) {
    let mut decoder = decoder();
    match decoder.push(value.as_bytes()) {
        Err(PushError::Bad(bad)) => {
            assert!(decoder.flush().unwrap().is_none());
            (bad.reason, bad.detail)
        }
        other => panic!("{value}: {other:?}"),
    }
}

fn row_is(batch: &RecordBatch, row: usize, value: &Value) {
    let present = |name: &str| {
        let column = batch.column_by_name(name).unwrap();
        (!column.is_null(row)).then(|| Arc::clone(column))
    };
    let null = |name: &str| value.get(name).is_none_or(Value::is_null);
    for name in ["id", "n", "x", "y", "ok", "name", "at", "day"] {
        assert_eq!(present(name).is_none(), null(name), "{name} of {value}");
    }
    if let Some(column) = present("id") {
        assert_eq!(
            Some(column.as_primitive::<Int64Type>().value(row)),
            value["id"].as_i64()
        );
    }
    if let Some(column) = present("n") {
        assert_eq!(
            Some(i64::from(column.as_primitive::<Int32Type>().value(row))),
            value["n"].as_i64()
        );
    }
    if let Some(column) = present("x") {
        assert_eq!(
            Some(column.as_primitive::<Float64Type>().value(row)),
            value["x"].as_f64()
        );
    }
    if let Some(column) = present("y") {
        assert_eq!(
            Some(column.as_primitive::<Float32Type>().value(row)),
            value["y"].as_f64().map(|y| y as f32)
        );
    }
    if let Some(column) = present("ok") {
        assert_eq!(Some(column.as_boolean().value(row)), value["ok"].as_bool());
    }
    if let Some(column) = present("name") {
        assert_eq!(
            Some(column.as_string::<i32>().value(row)),
            value["name"].as_str()
        );
    }
    if let Some(column) = present("at") {
        assert_eq!(
            Some(column.as_primitive::<TimestampMillisecondType>().value(row)),
            value["at"].as_i64()
        );
    }
}

fn value() -> impl Strategy<Value = Value> {
    let maybe = |strategy: BoxedStrategy<Value>| prop_oneof![1 => Just(None), 1 => Just(Some(Value::Null)), 6 => strategy.prop_map(Some)];
    (
        any::<i64>(),
        maybe(any::<i32>().prop_map(|n| json!(n)).boxed()),
        maybe(
            prop_oneof![
                any::<f64>()
                    .prop_filter("JSON has no others", |x| x.is_finite())
                    .prop_map(|x| json!(x)),
                any::<i64>().prop_map(|n| json!(n))
            ]
            .boxed(),
        ),
        maybe((-1e30f32..1e30).prop_map(|y| json!(y)).boxed()),
        maybe(any::<bool>().prop_map(|ok| json!(ok)).boxed()),
        maybe(any::<String>().prop_map(|name| json!(name)).boxed()),
        maybe(any::<i64>().prop_map(|at| json!(at)).boxed()),
        maybe(
            prop_oneof![
                Just(json!([1, {"id": 2}])),
                Just(json!({"name": {"x": []}})),
                Just(json!("no column"))
            ]
            .boxed(),
        ),
    )
        .prop_map(|(id, n, x, y, ok, name, at, other)| {
            let mut object = serde_json::Map::new();
            object.insert("id".into(), json!(id));
            for (key, value) in [
                ("n", n),
                ("x", x),
                ("y", y),
                ("ok", ok),
                ("name", name),
                ("at", at),
                ("other", other),
            ] {
                if let Some(value) = value {
                    object.insert(key.into(), value);
                }
            }
            Value::Object(object)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_are_what_a_tree_holds_and_bad_records_touch_no_other(
        values in prop::collection::vec(value(), 1..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5),
    ) {
        let mut decoder = decoder();
        for (index, value) in values.iter().enumerate() {
            let text = value.to_string();
            decoder.push(text.as_bytes()).unwrap();
            if cuts.iter().any(|cut| cut.index(values.len()) == index) {
                let cut = text.len() / 2;
                // Half of an object is none.
                for bad in [&text.as_bytes()[..cut], br#"{"id": 7, "name": "x", "n": "x"}"#] {
                    let refused = matches!(decoder.push(bad), Err(PushError::Bad(_)));
                    prop_assert!(refused);
                }
            }
        }
        let batch = decoder.flush().unwrap().unwrap();
        prop_assert_eq!(batch.num_rows(), values.len());
        for (row, value) in values.iter().enumerate() {
            row_is(&batch, row, value);
        }
        prop_assert!(decoder.flush().unwrap().is_none());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut decoder = decoder();
        let pushed = decoder.push(&bytes).is_ok();
        prop_assert_eq!(decoder.flush().unwrap().is_some(), pushed);
    }
}

#[test]
fn instants_and_dates_are_read_from_texts() {
    let mut decoder = decoder();
    for (at, day) in [
        ("2016-01-01T00:00:00Z", "2016-01-01"),
        ("2016-01-01 01:00:00.000+01:00", "1970-01-02"),
        ("2016-01-01T00:00:00", "1969-12-31"),
    ] {
        let text = json!({"id": 1, "at": at, "day": day}).to_string();
        decoder.push(text.as_bytes()).unwrap();
    }
    let batch = decoder.flush().unwrap().unwrap();
    let at = batch.column_by_name("at").unwrap();
    let at = at.as_primitive::<TimestampMillisecondType>();
    assert_eq!(at.values().to_vec(), [1_451_606_400_000; 3]);
    let day = batch.column_by_name("day").unwrap();
    assert_eq!(
        day.as_primitive::<Date32Type>().values().to_vec(),
        [16801, 1, -1]
    );
}

#[test]
fn a_whole_number_may_be_written_with_a_point_and_the_last_of_a_name_counts() {
    let mut decoder = decoder();
    decoder.push(br#" {"id": 3.0, "n": 1, "n": 2} "#).unwrap();
    let batch = decoder.flush().unwrap().unwrap();
    row_is(&batch, 0, &json!({"id": 3, "n": 2}));
}

#[test]
fn what_does_not_fit_is_refused_with_its_field() {
    for (value, field) in [
        (r#"{"id": "1"}"#, "id"),
        (r#"{"id": 1.5}"#, "id"),
        (r#"{"id": 9223372036854775808}"#, "id"),
        (r#"{"id": true}"#, "id"),
        (r#"{"id": [1]}"#, "id"),
        (r#"{"id": {"a": 1}}"#, "id"),
        (r#"{"id": 1, "n": 2147483648}"#, "n"),
        (r#"{"id": 1, "x": "1.0"}"#, "x"),
        (r#"{"id": 1, "y": 1e39}"#, "y"),
        (r#"{"id": 1, "ok": 1}"#, "ok"),
        (r#"{"id": 1, "name": 5}"#, "name"),
        (r#"{"id": 1, "at": "yesterday"}"#, "at"),
        (r#"{"id": 1, "at": 1.5}"#, "at"),
        (r#"{"id": 1, "day": 5}"#, "day"),
        (r#"{"id": 1, "day": "2016-13-01"}"#, "day"),
    ] {
        let (reason, detail) = refused(value);
        assert_eq!(reason, "wrong_type", "{value}: {detail}");
        assert!(
            detail.starts_with(&format!("field `{field}`: ")),
            "{value}: {detail}"
        );
    }
    for value in [r#"{"n": 1}"#, r#"{"id": null}"#, "{}"] {
        let (reason, detail) = refused(value);
        assert_eq!(reason, "missing_field", "{detail}");
        assert!(detail.contains("field `id`"), "{detail}");
    }
    for value in [
        "",
        "null",
        "5",
        "[]",
        r#"{"id": 1"#,
        r#"{"id": 1} x"#,
        r#"{"id": 1}{"id": 2}"#,
        "{id: 1}",
        r#"{"id": 1, "x": 1e999}"#,
    ] {
        let (reason, detail) = refused(value);
        assert_eq!(reason, "not_json", "{value}: {detail}");
    }
    let deep = format!(r#"{{"id": 1, "other": {}}}"#, "[".repeat(10_000));
    assert_eq!(refused(&deep).0, "not_json");
    let long = json!({"id": "x".repeat(100_000)}).to_string();
    assert!(refused(&long).1.len() < 300);
}

#[test]
fn types_that_json_is_not_decoded_to_are_refused_at_once() {
    let schema = Arc::new(Schema::new(vec![Field::new("a", DataType::UInt8, true)]));
    assert!(
        JsonDecoder::new(schema)
            .unwrap_err()
            .to_string()
            .contains("column a")
    );
}

#[test]
#[ignore = "a measurement, not a test"]
fn how_fast_json_is_decoded() {
    let text = json!({"id": 123_456, "n": 2, "x": 1.25, "y": 0.5, "ok": true, "name": "a name of twenty chars", "at": 1_451_606_400_000_i64, "other": {"a": [1, 2, 3]}}).to_string();
    let mut decoder = decoder();
    let rows = 1_000_000;
    let start = std::time::Instant::now();
    for row in 0..rows {
        decoder.push(text.as_bytes()).unwrap();
        if row % 16_384 == 0 {
            decoder.flush().unwrap();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{:.2} M rows/s, {:.0} MB/s",
        rows as f64 / seconds / 1e6,
        (rows * text.len()) as f64 / seconds / 1e6
    );
}
