//! Dead letters: what becomes of a record that can't become a row.
//!
//! Each goes to the topic `<topic>.dlq` as a `headway.DeadLetter`, and as a line of JSON under `errors/` in the lake. A flush
//! that is done again sends them to the topic again: they are counted by distinct topic, partition and offset, which is
//! also their key.

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use runtime::log::Offset;
use schemas::{SchemaId, wire};
use serde_json::json;

use crate::writer::Origin;

/// How much of a bad record is kept.
pub(crate) const MAX_RAW_BYTES: usize = 64 << 10;

const STAGE: &str = "sink-s3";

/// A record that can't become a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DeadLetter {
    pub offset: Offset,
    pub reason: &'static str,
    pub detail: String,
    pub schema_id: Option<SchemaId>,
    /// The record's value, cut at 64 KiB.
    pub raw: Vec<u8>,
}

impl DeadLetter {
    pub fn new(
        offset: Offset,
        reason: &'static str,
        detail: String,
        schema_id: Option<SchemaId>,
        value: &[u8],
    ) -> Self {
        Self {
            offset,
            reason,
            detail,
            schema_id,
            raw: value[..value.len().min(MAX_RAW_BYTES)].to_vec(),
        }
    }

    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.detail.len() + self.raw.len()
    }

    /// The key of the record in the dead-letter topic.
    pub fn key(&self, origin: &Origin) -> String {
        format!("{}-{}-{}", origin.topic, origin.partition, self.offset)
    }

    fn value(self, origin: &Origin) -> Value {
        let some = |value: Value| Value::Union(1, Box::new(value));
        let none = || Value::Union(0, Box::new(Value::Null));
        let schema_id = self.schema_id.and_then(|id| i32::try_from(id).ok());
        Value::Record(vec![
            ("stage".into(), Value::String(STAGE.into())),
            ("reason".into(), Value::String(self.reason.into())),
            ("detail".into(), Value::String(self.detail)),
            ("file".into(), none()),
            ("line".into(), none()),
            ("column".into(), none()),
            (
                "topic".into(),
                some(Value::String(origin.topic.to_string())),
            ),
            ("partition".into(), some(Value::Int(origin.partition))),
            ("offset".into(), some(Value::Long(self.offset))),
            (
                "schema_id".into(),
                schema_id.map_or_else(none, |id| some(Value::Int(id))),
            ),
            ("raw".into(), Value::Bytes(self.raw)),
        ])
    }
}

/// Encodes dead letters for their topic.
pub(crate) struct Encoder {
    id: SchemaId,
    schema: Schema,
}

impl Encoder {
    /// With the number under which the shipped schema is registered.
    pub fn new(id: SchemaId) -> Result<Self, String> {
        let schema =
            Schema::parse_str(schemas::shipped::DEAD_LETTER).map_err(|error| error.to_string())?;
        Ok(Self { id, schema })
    }

    /// The framed record.
    pub fn encode(&self, letter: DeadLetter, origin: &Origin) -> Result<Vec<u8>, String> {
        let writer = GenericDatumWriter::builder(&self.schema).build();
        let datum = writer.and_then(|writer| writer.write_value_to_vec(letter.value(origin)));
        let datum = datum.map_err(|error| error.to_string())?;
        let mut framed = Vec::with_capacity(datum.len() + wire::HEADER_BYTES);
        wire::frame(self.id, &mut framed);
        framed.extend_from_slice(&datum);
        Ok(framed)
    }
}

/// The object under `errors/`: a line of JSON for each; `None` if there are none.
pub(crate) fn lines(letters: &[DeadLetter], origin: &Origin) -> Option<Bytes> {
    if letters.is_empty() {
        return None;
    }
    let mut text = String::new();
    for letter in letters {
        let line = json!({
            "stage": STAGE,
            "reason": letter.reason,
            "detail": letter.detail,
            "topic": &*origin.topic,
            "partition": origin.partition,
            "offset": letter.offset,
            "schema_id": letter.schema_id,
            "raw_base64": STANDARD.encode(&letter.raw),
        });
        text.push_str(&line.to_string());
        text.push('\n');
    }
    Some(text.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use apache_avro::reader::datum::GenericDatumReader;

    use super::*;

    fn origin() -> Origin {
        Origin {
            topic: "t".into(),
            topic_id: "I".into(),
            partition: 4,
            start: 0,
            end: 9,
        }
    }

    #[test]
    fn a_dead_letter_can_be_read_under_the_shipped_schema() {
        let long = vec![7; MAX_RAW_BYTES + 1];
        let letter = DeadLetter::new(5, "undecodable", "it ends early".into(), Some(3), &long);
        assert_eq!(letter.raw.len(), MAX_RAW_BYTES);
        let framed = Encoder::new(12).unwrap().encode(letter, &origin()).unwrap();
        let (id, mut body) = wire::unframe(&framed).unwrap();
        assert_eq!(id, 12);
        let schema = Schema::parse_str(schemas::shipped::DEAD_LETTER).unwrap();
        let Value::Record(fields) = GenericDatumReader::builder(&schema)
            .build()
            .unwrap()
            .read_value(&mut body)
            .unwrap()
        else {
            panic!()
        };
        assert!(body.is_empty());
        let field = |name: &str| &fields.iter().find(|(field, _)| field == name).unwrap().1;
        assert_eq!(field("reason"), &Value::String("undecodable".into()));
        assert_eq!(
            field("topic"),
            &Value::Union(1, Box::new(Value::String("t".into())))
        );
        assert_eq!(
            field("partition"),
            &Value::Union(1, Box::new(Value::Int(4)))
        );
        assert_eq!(field("offset"), &Value::Union(1, Box::new(Value::Long(5))));
        assert_eq!(
            field("schema_id"),
            &Value::Union(1, Box::new(Value::Int(3)))
        );
    }

    #[test]
    fn the_object_has_a_line_for_each() {
        let letters = [
            DeadLetter::new(5, "not_framed", "line\nbreak".into(), None, b"\xff"),
            DeadLetter::new(6, "no_value", String::new(), None, b""),
        ];
        let bytes = lines(&letters, &origin()).unwrap();
        let read: Vec<serde_json::Value> = std::str::from_utf8(&bytes)
            .unwrap()
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read.len(), 2);
        assert_eq!(read[0]["offset"], 5);
        assert_eq!(read[0]["raw_base64"], "/w==");
        assert!(lines(&[], &origin()).is_none());
    }
}
