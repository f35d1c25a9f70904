//! Encoding: what is written is what apache-avro reads with the given schema, and what does not fit is named.

use std::sync::Arc;

use apache_avro::types::Value;
use arrow::array::*;
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use schemas::decode::BatchDecoder;
use schemas::encode::{BatchEncoder, avro_schema_for};
use schemas::{EmbeddedRegistry, Registry, shipped};

use crate::oracle::{framed, parse, read, row_is, value_of};
use proptest::prelude::*;

fn batch(columns: Vec<(&str, ArrayRef, bool)>) -> RecordBatch {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, array, nullable)| Field::new(*name, array.data_type().clone(), *nullable))
        .collect();
    RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        columns.into_iter().map(|c| c.1).collect(),
    )
    .unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_decoded_is_encoded_to_the_same_bytes(
        trips in prop::collection::vec(value_of(&parse(shipped::TAXI_TRIP)), 1..20),
        statistics in prop::collection::vec(value_of(&parse(shipped::TRIP_STATISTICS)), 1..20),
    ) {
        for (text, values) in [(shipped::TAXI_TRIP, trips), (shipped::TRIP_STATISTICS, statistics)] {
            let registry = Arc::new(EmbeddedRegistry::in_memory());
            let id = registry.register("t-value", text).unwrap();
            let mut decoder = BatchDecoder::new(registry, text).unwrap();
            let records: Vec<Vec<u8>> = values.iter().map(|value| framed(id, &parse(text), value)).collect();
            for record in &records {
                decoder.push(record).unwrap();
            }
            let batch = decoder.flush().unwrap().unwrap();
            let rows = BatchEncoder::new(text, id, batch.schema()).unwrap().encode(&batch).unwrap();
            prop_assert!(rows.iter().eq(records.iter().map(Vec::as_slice)));
        }
    }
}

#[test]
fn columns_are_matched_by_name_and_widened() {
    let schema = r#"{"type":"record","name":"R","fields":[
        {"name":"b","type":"string"},{"name":"a","type":"long"},{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
        {"name":"u","type":["null","long"]},{"name":"last","type":["double","null"]},
        {"name":"kind","type":{"type":"enum","name":"K","symbols":["X","Y"]}}]}"#;
    let given = batch(vec![
        ("a", Arc::new(Int32Array::from(vec![1, -2])), true),
        ("b", Arc::new(StringViewArray::from(vec!["x", "ü"])), false),
        ("kind", Arc::new(StringArray::from(vec!["Y", "X"])), false),
        (
            "at",
            Arc::new(TimestampNanosecondArray::from(vec![5_000_000, -1_000_000])),
            false,
        ),
        ("u", Arc::new(UInt64Array::from(vec![Some(7), None])), true),
        (
            "last",
            Arc::new(Float64Array::from(vec![None, Some(0.5)])),
            true,
        ),
    ]);
    let mut encoder = BatchEncoder::new(schema, 0x0102_0304, given.schema()).unwrap();
    for _ in 0..2 {
        let rows = encoder.encode(&given).unwrap();
        let parsed = parse(schema);
        let values: Vec<Value> = rows
            .iter()
            .map(|row| {
                assert_eq!(row[..5], [0, 1, 2, 3, 4]);
                read(&parsed, &parsed, &row[5..]).unwrap().0
            })
            .collect();
        let record = |fields: [(&str, Value); 6]| {
            Value::Record(fields.map(|(n, v)| (n.to_owned(), v)).into())
        };
        assert_eq!(
            values,
            [
                record([
                    ("b", Value::String("x".into())),
                    ("a", Value::Long(1)),
                    ("at", Value::TimestampMillis(5)),
                    ("u", Value::Union(1, Box::new(Value::Long(7)))),
                    ("last", Value::Union(1, Box::new(Value::Null))),
                    ("kind", Value::Enum(1, "Y".into())),
                ]),
                record([
                    ("b", Value::String("ü".into())),
                    ("a", Value::Long(-2)),
                    ("at", Value::TimestampMillis(-1)),
                    ("u", Value::Union(0, Box::new(Value::Null))),
                    ("last", Value::Union(0, Box::new(Value::Double(0.5)))),
                    ("kind", Value::Enum(0, "X".into())),
                ]),
            ]
        );
    }
}

#[test]
fn a_column_that_does_not_fit_is_named_with_what_the_schema_wants() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
    let refused = |array: ArrayRef, name: &str| {
        let given = batch(vec![(name, array, true)]);
        BatchEncoder::new(schema, 1, given.schema())
            .unwrap_err()
            .to_string()
    };
    let said = refused(Arc::new(Int64Array::from(vec![1])), "a");
    assert_eq!(
        said,
        "column `a` does not fit the output's schema: it is Int64, and the schema wants int; CAST it to Int32, or change the schema"
    );
    let said = refused(Arc::new(Int32Array::from(vec![1])), "b");
    assert_eq!(
        said,
        "column `b` does not fit the output's schema: R has no such field; it has a"
    );
    let none = Arc::new(Schema::empty());
    let said = BatchEncoder::new(schema, 1, none).unwrap_err().to_string();
    assert!(
        said.contains("column `a`") && said.contains("wants int"),
        "{said}"
    );
}

#[test]
fn a_value_that_does_not_fit_is_refused_and_the_encoder_goes_on() {
    let schema = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"},{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
    let given = |a: Option<u64>, at: i64| {
        batch(vec![
            ("a", Arc::new(UInt64Array::from(vec![Some(1), a])), true),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(vec![0, at]).with_timezone("UTC")),
                false,
            ),
        ])
    };
    let good = given(Some(2), 3000);
    let mut encoder = BatchEncoder::new(schema, 1, good.schema()).unwrap();
    assert!(
        encoder
            .encode(&given(None, 0))
            .unwrap_err()
            .to_string()
            .contains("column `a`")
    );
    assert!(
        encoder
            .encode(&given(Some(u64::MAX), 0))
            .unwrap_err()
            .to_string()
            .contains("column `a`")
    );
    let said = encoder
        .encode(&given(Some(1), 1500))
        .unwrap_err()
        .to_string();
    assert!(
        said.contains("column `at`") && said.contains("timestamp-millis"),
        "{said}"
    );
    assert_eq!(encoder.encode(&good).unwrap().len(), 2);
    assert!(encoder.encode(&good.project(&[0]).unwrap()).is_err());
}

#[test]
fn a_derived_schema_takes_the_columns_and_gives_them_back() {
    let mut tags = ListBuilder::new(StringBuilder::new());
    tags.values().append_value("p");
    tags.append(true);
    tags.append(false);
    let given = batch(vec![
        (
            "window_start",
            Arc::new(TimestampMillisecondArray::from(vec![1, 2]).with_timezone("+00:00")),
            false,
        ),
        ("n", Arc::new(Int64Array::from(vec![Some(1), None])), true),
        ("small", Arc::new(Int16Array::from(vec![1, 2])), false),
        ("name", Arc::new(StringArray::from(vec!["a", "b"])), false),
        ("day", Arc::new(Date32Array::from(vec![1, 2])), false),
        (
            "ratio",
            Arc::new(Float64Array::from(vec![Some(1.5), None])),
            true,
        ),
        ("tags", Arc::new(tags.finish()), true),
        (
            "blob",
            Arc::new(BinaryArray::from(vec![&b"x"[..], b""])),
            false,
        ),
    ]);
    let text = avro_schema_for(&given.schema(), "Out", "headway.out").unwrap();
    assert_eq!(
        parse(&text).name().unwrap().fullname(None),
        "headway.out.Out"
    );
    let registry = Arc::new(EmbeddedRegistry::in_memory());
    let id = registry.register("out-value", &text).unwrap();
    let rows = BatchEncoder::new(&text, id, given.schema())
        .unwrap()
        .encode(&given)
        .unwrap();
    let mut decoder = BatchDecoder::new(registry, &text).unwrap();
    for row in rows.iter() {
        decoder.push(row).unwrap();
    }
    let back = decoder.flush().unwrap().unwrap();
    let parsed = parse(&text);
    for (i, row) in rows.iter().enumerate() {
        assert!(row_is(
            back.columns(),
            i,
            &read(&parsed, &parsed, &row[5..]).unwrap().0
        ));
    }
    let wide = arrow::compute::cast(given.column(2), &DataType::Int32).unwrap();
    assert_eq!(back.column(2).as_ref(), wide.as_ref());
}

#[test]
fn a_column_that_avro_has_no_match_for_is_named() {
    for (name, data_type) in [
        ("bad-name", DataType::Int32),
        ("span", DataType::Duration(TimeUnit::Second)),
        ("nothing", DataType::Null),
    ] {
        let refused = avro_schema_for(
            &Schema::new(vec![Field::new(name, data_type, true)]),
            "R",
            "",
        );
        assert!(
            refused
                .unwrap_err()
                .to_string()
                .starts_with(&format!("column `{name}`"))
        );
    }
}
