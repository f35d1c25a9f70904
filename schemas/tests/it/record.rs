//! The pipeline's own records: the structs and the shipped schemas agree, and damaged bytes are dead letters.

use std::sync::Arc;

use apache_avro::types::Value;
use proptest::prelude::*;
use schemas::record::{Codec, CodecError, DeadLetter, Late, Position, Record};
use schemas::{EmbeddedRegistry, Registry};

use crate::oracle::{framed, parse, read, value_of};

fn codec<T: Record>() -> Codec<T> {
    Codec::new(Arc::new(EmbeddedRegistry::in_memory()), "t-value").unwrap()
}

/// A value of the schema is read into the struct and written again as the same bytes.
fn round_trip<T: Record + PartialEq + std::fmt::Debug>(value: &Value) -> Result<(), TestCaseError> {
    let codec = codec::<T>();
    let schema = parse(T::SCHEMA);
    let bytes = framed(codec.id(), &schema, value);
    let record = codec.decode(&bytes).unwrap();
    prop_assert_eq!(&codec.encode(&record).unwrap(), &bytes);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_value_of_a_shipped_schema_is_a_struct_and_back(
        dead_letter in value_of(&parse(DeadLetter::SCHEMA)),
        position in value_of(&parse(Position::SCHEMA)),
        late in value_of(&parse(Late::SCHEMA)),
    ) {
        round_trip::<DeadLetter>(&dead_letter)?;
        round_trip::<Position>(&position)?;
        round_trip::<Late>(&late)?;
    }

    #[test]
    fn damaged_bytes_are_bad_records_and_cost_nothing(mut bytes in prop::collection::vec(any::<u8>(), 0..60), framed in any::<bool>()) {
        let codec = codec::<DeadLetter>();
        if framed {
            bytes.splice(0..0, [0, 0, 0, 0, 1]);
        }
        match codec.decode(&bytes) {
            Ok(record) => {
                let schema = parse(DeadLetter::SCHEMA);
                prop_assert!(read(&schema, &schema, &bytes[5..]).is_some());
                prop_assert!(codec.encode(&record).is_ok());
            }
            Err(CodecError::Bad(_)) => {}
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
    }
}

#[test]
fn a_record_of_an_older_version_is_read() {
    let registry = Arc::new(EmbeddedRegistry::in_memory());
    let older = parse(Late::SCHEMA);
    let older_text = Late::SCHEMA.replace("\"type\": \"int\"", "\"type\": \"int\", \"default\": 0");
    let id = registry.register("late-value", &older_text).unwrap();
    let codec: Codec<Late> = Codec::new(registry, "late-value").unwrap();
    assert_ne!(codec.id(), id);
    let late = Late {
        query: "q".into(),
        partition: 3,
        rows: 5,
        watermark: -1,
        ..Late::default()
    };
    let mut bytes = codec.encode(&late).unwrap();
    bytes[1..5].copy_from_slice(&id.to_be_bytes());
    assert_eq!(codec.decode(&bytes).unwrap(), late);
    assert!(read(&older, &older, &bytes[5..]).is_some());
    bytes.push(0);
    assert!(
        matches!(codec.decode(&bytes), Err(CodecError::Bad(bad)) if bad.reason == "trailing_bytes")
    );
}
