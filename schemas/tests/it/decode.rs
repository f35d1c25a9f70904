//! Decoding: every row is what apache-avro reads, and bad records touch no other.

use std::sync::Arc;

use apache_avro::schema::Schema;
use apache_avro::types::Value;
use proptest::prelude::*;
use schemas::decode::{BatchDecoder, MAX_ROWS, PushError};
use schemas::{EmbeddedRegistry, Registry, RegistryError, SchemaId, projected_schema, shipped};

use crate::oracle::{framed, parse, read, row_is, value_of};

const FLAT_1: &str = r#"{"type":"record","name":"t.R","fields":[
    {"name":"id","type":"string"},{"name":"n","type":"int"},{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"x","type":"double"},{"name":"y","type":"double"},{"name":"maybe","type":["null","int"],"default":null},
    {"name":"flag","type":"boolean"},{"name":"raw","type":"string"},{"name":"blob","type":"bytes"},{"name":"f","type":"float"},{"name":"nothing","type":"null"}]}"#;

/// Wider numbers, a new field with a default, others gone, another order.
const FLAT_2: &str = r#"{"type":"record","name":"t.R","fields":[
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"n","type":"long"},
    {"name":"maybe","type":["long","null"],"default":7},{"name":"id","type":["null","string"],"default":null},
    {"name":"f","type":"double"},{"name":"added","type":"string","default":"grün"},{"name":"raw","type":"bytes","default":"x"},{"name":"blob","type":["null","bytes"],"default":null},
    {"name":"gone","type":["null","double"],"default":null},{"name":"count","type":"int","default":-3}]}"#;

const NESTED_1: &str = r#"{"type":"record","name":"t.R","fields":[
    {"name":"id","type":"string"},
    {"name":"place","type":{"type":"record","name":"Place","fields":[{"name":"lat","type":"double"},{"name":"tags","type":{"type":"array","items":["null","string"]}}]}},
    {"name":"counts","type":{"type":"map","values":"long"}},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B","C"]}},
    {"name":"any","type":["null","int",{"type":"array","items":"boolean"}]},
    {"name":"hash","type":{"type":"fixed","name":"Hash","size":4}},
    {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":20,"scale":2}},
    {"name":"nulls","type":{"type":"array","items":"null"}},
    {"name":"key","type":{"type":"string","logicalType":"uuid"}}]}"#;

const NESTED_2: &str = r#"{"type":"record","name":"t.R","fields":[
    {"name":"place","type":{"type":"record","name":"Place","fields":[{"name":"lat","type":"double"},{"name":"tags","type":{"type":"array","items":["null","string"]}}]}},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["A","B","C"]}},
    {"name":"id","type":"string"},
    {"name":"extra","type":["null","long"],"default":null}]}"#;

/// A type used twice, by definition and by name.
const TWICE_1: &str = r#"{"type":"record","name":"t.R","fields":[
    {"name":"a","type":{"type":"record","name":"P","fields":[{"name":"x","type":"int"},{"name":"y","type":"string"}]}},
    {"name":"b","type":"t.P"},{"name":"c","type":{"type":"array","items":"P"}}]}"#;

/// It has changed, and the field that defined it is gone.
const TWICE_2: &str = r#"{"type":"record","name":"t.R","fields":[
    {"name":"c","type":{"type":"array","items":{"type":"record","name":"P","fields":[
        {"name":"y","type":"string"},{"name":"z","type":"boolean","default":true},{"name":"x","type":"long"}]}}},
    {"name":"b","type":"P"}]}"#;

/// Everything that may change within nested values.
const EVOLVED_1: &str = r#"{"type":"record","name":"t.R","fields":[
    {"name":"in","type":{"type":"record","name":"In","fields":[{"name":"n","type":"int"},{"name":"old","type":"string"},{"name":"o","type":["null","int"]},{"name":"p","type":["string","null"]}]}},
    {"name":"list","type":{"type":"array","items":"int"}},
    {"name":"map","type":{"type":"map","values":"float"}},
    {"name":"e","type":{"type":"enum","name":"E","symbols":["A","B","C"],"default":"A"}},
    {"name":"req","type":{"type":"array","items":"string"}},
    {"name":"opt","type":["null",{"type":"array","items":"long"}]},
    {"name":"day","type":{"type":"int","logicalType":"date"}}]}"#;
const EVOLVED_2: &str = r#"{"type":"record","name":"t.R","fields":[
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"opt","type":["null",{"type":"array","items":"long"}]},
    {"name":"req","type":["null",{"type":"array","items":"string"}]},
    {"name":"e","type":{"type":"enum","name":"E","symbols":["C","A","X"],"default":"A"}},
    {"name":"map","type":{"type":"map","values":"double"}},
    {"name":"list","type":{"type":"array","items":"double"}},
    {"name":"in","type":{"type":"record","name":"In2","aliases":["In"],"fields":[{"name":"p","type":["null","string"]},{"name":"o","type":["null","long"]},{"name":"new","type":["null","int"],"default":null},{"name":"n","type":"long"}]}},
    {"name":"more","type":{"type":"array","items":"int"},"default":[1,2]}]}"#;

/// A registry that holds these under the numbers from 1, whatever their compatibility.
fn registry(schemas: &[&str]) -> Arc<dyn Registry> {
    let registry = EmbeddedRegistry::in_memory();
    for (i, schema) in schemas.iter().enumerate() {
        assert_eq!(
            registry.register(&format!("s{i}"), schema).unwrap() as usize,
            i + 1
        );
    }
    Arc::new(registry)
}

/// One step of an input: a good record, or one that was damaged.
#[derive(Clone, Debug)]
enum Input {
    Good {
        writer: usize,
        value: Value,
    },
    Damaged {
        writer: usize,
        value: Value,
        damage: Damage,
    },
    Random(Vec<u8>),
    UnknownSchema(Vec<u8>),
    Flush,
}

#[derive(Clone, Debug)]
enum Damage {
    Cut(prop::sample::Index),
    Byte(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
    Trailing(Vec<u8>),
}

impl Damage {
    fn apply(&self, value: &mut Vec<u8>) {
        match self {
            Self::Cut(at) => value.truncate(at.index(value.len())),
            Self::Byte(at, byte) => {
                let at = at.index(value.len());
                value[at] = *byte;
            }
            Self::Insert(at, bytes) => {
                let at = at.index(value.len());
                value.splice(at..at, bytes.iter().copied());
            }
            Self::Trailing(bytes) => value.extend(bytes),
        }
    }
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = || prop::collection::vec(prop_oneof![any::<u8>(), Just(0x80), Just(0xff)], 1..12);
    prop_oneof![
        any::<prop::sample::Index>().prop_map(Damage::Cut),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        (any::<prop::sample::Index>(), bytes()).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        bytes().prop_map(Damage::Trailing),
    ]
}

fn inputs(writers: &[&str]) -> impl Strategy<Value = Vec<Input>> + use<> {
    let record = |writers: &[&str]| {
        let each: Vec<_> = writers
            .iter()
            .enumerate()
            .map(|(writer, schema)| {
                value_of(&parse(schema))
                    .prop_map(move |value| (writer, value))
                    .boxed()
            })
            .collect();
        prop::strategy::Union::new(each)
    };
    let input = prop_oneof![
        6 => record(writers).prop_map(|(writer, value)| Input::Good { writer, value }),
        3 => (record(writers), damage()).prop_map(|((writer, value), damage)| Input::Damaged { writer, value, damage }),
        1 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Input::Random),
        1 => prop::collection::vec(any::<u8>(), 0..10).prop_map(Input::UnknownSchema),
        1 => Just(Input::Flush),
    ];
    prop::collection::vec(input, 0..40)
}

/// Whether there is a decimal of more bytes than Arrow's have, which damage can make of one that fits.
fn has_wide_decimal(value: &Value) -> bool {
    match value {
        Value::Decimal(decimal) => Vec::<u8>::try_from(decimal).is_ok_and(|bytes| bytes.len() > 16),
        Value::Record(fields) => fields.iter().any(|(_, value)| has_wide_decimal(value)),
        Value::Array(items) => items.iter().any(has_wide_decimal),
        Value::Map(items) => items.values().any(has_wide_decimal),
        Value::Union(_, value) => has_wide_decimal(value),
        _ => false,
    }
}

/// Pushes the inputs and compares every row with what apache-avro reads from the same bytes.
fn run(writers: &[&str], reader: &str, inputs: &[Input]) -> Result<(), TestCaseError> {
    let parsed: Vec<Schema> = writers.iter().map(|schema| parse(schema)).collect();
    let reader_parsed = parse(reader);
    let mut decoder = BatchDecoder::new(registry(writers), reader).unwrap();
    let mut expected: Vec<Value> = Vec::new();
    for input in inputs.iter().chain([&Input::Flush]) {
        let (good, value) = match input {
            Input::Good { writer, value } => (
                true,
                framed(*writer as SchemaId + 1, &parsed[*writer], value),
            ),
            Input::Damaged {
                writer,
                value,
                damage,
            } => {
                let mut bytes = framed(*writer as SchemaId + 1, &parsed[*writer], value);
                damage.apply(&mut bytes);
                (false, bytes)
            }
            Input::Random(bytes) => (false, bytes.clone()),
            Input::UnknownSchema(bytes) => (false, [&[0, 0, 0, 0, 99], bytes.as_slice()].concat()),
            Input::Flush => {
                let batch = decoder.flush().unwrap();
                prop_assert_eq!(batch.as_ref().map_or(0, |b| b.num_rows()), expected.len());
                if let Some(batch) = batch {
                    prop_assert_eq!(batch.schema(), decoder.schema());
                    for (row, value) in expected.iter().enumerate() {
                        prop_assert!(
                            row_is(batch.columns(), row, value),
                            "row {row}: {value:?}\n{batch:?}"
                        );
                    }
                }
                expected.clear();
                continue;
            }
        };
        let rows = decoder.rows();
        let oracle = match schemas::wire::unframe(&value) {
            Ok((id, body)) if (1..=parsed.len()).contains(&(id as usize)) => {
                read(&parsed[id as usize - 1], &reader_parsed, body)
            }
            _ => None,
        };
        match decoder.push(&value) {
            Ok(()) => {
                let (value, _) =
                    oracle.ok_or_else(|| TestCaseError::fail(format!("{value:?} was taken")))?;
                expected.push(value);
                prop_assert_eq!(decoder.rows(), rows + 1);
            }
            Err(PushError::Bad(bad)) => {
                prop_assert!(!good, "a good record was refused: {bad:?}");
                // What apache-avro reads, and would write just so, is good.
                let endless = bad.detail.ends_with("more items than a record may have");
                let wide = matches!(&oracle, Some((value, _)) if has_wide_decimal(value));
                prop_assert!(
                    endless || wide || !matches!(oracle, Some((_, true))),
                    "{bad:?} refused {value:?}"
                );
                prop_assert_eq!(decoder.rows(), rows);
            }
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn bad_records_among_good_ones_change_no_row(inputs in inputs(&[FLAT_1, FLAT_2])) {
        run(&[FLAT_1, FLAT_2], FLAT_2, &inputs)?;
    }

    #[test]
    fn a_schema_reads_its_own_records(inputs in inputs(&[FLAT_1])) {
        run(&[FLAT_1], FLAT_1, &inputs)?;
    }

    #[test]
    fn trips_are_read_through_a_projection(inputs in inputs(&[shipped::TAXI_TRIP])) {
        let fields = ["vendor_id", "pickup_at", "google_distance", "source"];
        run(&[shipped::TAXI_TRIP], &projected_schema(shipped::TAXI_TRIP, &fields).unwrap(), &inputs)?;
        run(&[shipped::TAXI_TRIP], &projected_schema(shipped::TAXI_TRIP, &[]).unwrap(), &inputs)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nested_records_are_isolated_too(inputs in inputs(&[NESTED_1])) {
        let fields = ["id", "place", "counts", "kind", "any", "hash", "price", "key"];
        run(&[NESTED_1], &projected_schema(NESTED_1, &fields).unwrap(), &inputs)?;
    }

    #[test]
    fn rows_of_several_nested_schemas_keep_their_order(inputs in inputs(&[NESTED_1, NESTED_2])) {
        run(&[NESTED_1, NESTED_2], NESTED_2, &inputs)?;
    }

    #[test]
    fn a_type_that_is_used_twice_is_read_as_it_was_written(inputs in inputs(&[TWICE_1, TWICE_2])) {
        run(&[TWICE_1, TWICE_2], TWICE_2, &inputs)?;
        run(&[TWICE_1, TWICE_2], &projected_schema(TWICE_2, &["b"]).unwrap(), &inputs)?;
    }

    #[test]
    fn nested_values_are_resolved_as_avro_says(inputs in inputs(&[EVOLVED_1, EVOLVED_2])) {
        run(&[EVOLVED_1, EVOLVED_2], EVOLVED_2, &inputs)?;
    }

    #[test]
    fn plain_fields_are_read_past_nested_ones(inputs in inputs(&[NESTED_1, NESTED_2])) {
        run(&[NESTED_1, NESTED_2], &projected_schema(NESTED_2, &["id", "extra"]).unwrap(), &inputs)?;
    }
}

fn reason(result: Result<(), PushError>) -> (&'static str, String) {
    match result {
        Err(PushError::Bad(bad)) => (bad.reason, bad.detail),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_dead_letter_says_what_is_wrong_and_where() {
    let other = r#"{"type":"record","name":"t.Other","fields":[{"name":"n","type":"int"}]}"#;
    let schema = r#"{"type":"record","name":"t.R","fields":[{"name":"n","type":"int"},{"name":"s","type":"string"}]}"#;
    let mut decoder = BatchDecoder::new(registry(&[schema, other, "\"int\""]), schema).unwrap();
    assert_eq!(reason(decoder.push(b"{}")).0, "not_framed");
    assert_eq!(
        reason(decoder.push(&[0, 0, 0, 0, 9, 2])).0,
        "unknown_schema"
    );
    assert_eq!(
        reason(decoder.push(&[0, 0, 0, 0, 3, 2])).0,
        "unusable_schema"
    );
    let (code, detail) = reason(decoder.push(&[0, 0, 0, 0, 2, 2]));
    assert_eq!(code, "unresolvable_schema");
    assert!(
        detail.contains("t.Other was written and the name is now t.R"),
        "{detail}"
    );
    let undecodable = |detail: &str| ("undecodable", detail.to_owned());
    assert_eq!(
        reason(decoder.push(&[0, 0, 0, 0, 1, 2, 8, b'a'])),
        undecodable("field `s`: the record ends within it")
    );
    assert_eq!(
        reason(decoder.push(&[0, 0, 0, 0, 1, 2, 2, 0xff])),
        undecodable("field `s`: it is no UTF-8 text")
    );
    assert_eq!(
        reason(decoder.push(&[0, 0, 0, 0, 1, 2, 1])),
        undecodable("field `s`: its length is negative")
    );
    assert_eq!(
        reason(decoder.push(&[0, 0, 0, 0, 1, 2, 2, b'a', 0])).0,
        "trailing_bytes"
    );
    decoder.push(&[0, 0, 0, 0, 1, 2, 2, b'a']).unwrap();
    assert_eq!(decoder.flush().unwrap().unwrap().num_rows(), 1);
    assert!(decoder.flush().unwrap().is_none());
}

#[test]
fn a_bad_number_of_items_costs_neither_memory_nor_time() {
    let array = |items: &str| {
        format!(
            r#"{{"type":"record","name":"R","fields":[{{"name":"a","type":{{"type":"array","items":{items}}}}}]}}"#
        )
    };
    // 2^62 items in a block, and as many with a size of 0 bytes.
    let count = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    for items in [
        "\"null\"",
        "\"long\"",
        r#"{"type":"record","name":"E","fields":[]}"#,
    ] {
        let schema = array(items);
        let reader = if items != "\"long\"" {
            projected_schema(&schema, &[]).unwrap()
        } else {
            schema.clone()
        };
        let mut decoder = BatchDecoder::new(registry(&[&schema]), &reader).unwrap();
        assert_eq!(
            reason(decoder.push(&[&[0, 0, 0, 0, 1][..], &count, &[0]].concat())).0,
            "undecodable"
        );
        decoder.push(&[0, 0, 0, 0, 1, 0]).unwrap();
        assert_eq!(decoder.flush().unwrap().unwrap().num_rows(), 1);
    }
}

#[test]
fn a_record_without_bytes_is_a_row() {
    let empty = r#"{"type":"record","name":"R","fields":[]}"#;
    let nested = r#"{"type":"record","name":"R","fields":[{"name":"a","type":{"type":"array","items":"int"},"default":[5]}]}"#;
    for reader in [empty, nested] {
        let mut decoder = BatchDecoder::new(registry(&[empty]), reader).unwrap();
        for _ in 0..3 {
            decoder.push(&[0, 0, 0, 0, 1]).unwrap();
        }
        assert_eq!(decoder.flush().unwrap().unwrap().num_rows(), 3);
    }
}

#[test]
fn a_full_batch_takes_no_more_until_it_is_flushed() {
    let schema = r#"{"type":"record","name":"R","fields":[]}"#;
    let mut decoder = BatchDecoder::new(registry(&[schema]), schema).unwrap();
    for _ in 0..MAX_ROWS {
        decoder.push(&[0, 0, 0, 0, 1]).unwrap();
    }
    assert!(matches!(
        decoder.push(&[0, 0, 0, 0, 1]),
        Err(PushError::Full)
    ));
    assert_eq!(decoder.flush().unwrap().unwrap().num_rows(), MAX_ROWS);
    decoder.push(&[0, 0, 0, 0, 1]).unwrap();
}

#[test]
fn a_record_is_not_taken_while_the_registry_is_away() {
    struct Away;
    impl Registry for Away {
        fn register(&self, _: &str, _: &str) -> Result<SchemaId, RegistryError> {
            Err(RegistryError::Unavailable {
                address: "a".into(),
                detail: "d".into(),
            })
        }
        fn by_id(&self, _: SchemaId) -> Result<Arc<str>, RegistryError> {
            Err(RegistryError::Unavailable {
                address: "a".into(),
                detail: "d".into(),
            })
        }
        fn latest(&self, _: &str) -> Result<Option<(SchemaId, Arc<str>)>, RegistryError> {
            Ok(None)
        }
    }
    let mut decoder = BatchDecoder::new(Arc::new(Away), FLAT_1).unwrap();
    let refused = decoder.push(&[0, 0, 0, 0, 1, 2]);
    assert!(matches!(
        refused,
        Err(PushError::Registry(RegistryError::Unavailable { .. }))
    ));
    assert_eq!(decoder.rows(), 0);
}

#[test]
fn a_readers_schema_that_can_not_be_used_is_refused() {
    for schema in [
        "",
        "\"int\"",
        r#"{"type":"record","name":"R","fields":[{"name":"next","type":["null","R"]}]}"#,
        r#"{"type":"record","name":"R","fields":[{"name":"e","type":{"type":"record","name":"E","fields":[]}}]}"#,
    ] {
        let refused = BatchDecoder::new(registry(&[]), schema).unwrap_err();
        assert!(
            refused
                .to_string()
                .starts_with("the reader's schema can't be used"),
            "{refused}"
        );
    }
}
