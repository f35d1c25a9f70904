//! Dead letters: what becomes of a record that can't become a row.
//!
//! Each goes to the topic `<topic>.dlq` as a `headway.DeadLetter`, and as a line of JSON under `errors/` in the lake. A flush
//! that is done again sends them to the topic again: they are counted by distinct topic, partition and offset, which is
//! also their key.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use runtime::dead_letter::{self, Refused};
use runtime::log::Offset;
use schemas::SchemaId;
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

    /// As a letter of the dead-letter topic.
    pub fn refused<'a>(&'a self, origin: &'a Origin) -> Refused<'a> {
        Refused {
            reason: self.reason,
            detail: self.detail.clone(),
            origin: dead_letter::Origin::Record {
                topic: &origin.topic,
                partition: origin.partition,
                offset: self.offset,
            },
            column: None,
            schema_id: self.schema_id,
            raw: &self.raw,
        }
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
