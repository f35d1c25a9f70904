//! Confluent's wire format: how a record says which schema its bytes were written with.
//!
//! ```text
//!   ┌──────┬───────────────────┬──────────────────────┐
//!   │ 0x00 │ schema id, 4 bytes│ Avro binary encoding │
//!   └──────┴─────big-endian────┴──────────────────────┘
//! ```
//!
//! See "Wire format" in Confluent's Schema Registry documentation.

use crate::SchemaId;

/// The first byte of a framed record.
pub const MAGIC: u8 = 0;

/// How many bytes stand before the Avro encoding.
pub const HEADER_BYTES: usize = 5;

/// Why bytes are not a framed record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Fewer bytes than the header has.
    #[error("the record has {bytes} bytes, fewer than the 5 of a schema registry header")]
    Short {
        /// How many there are.
        bytes: usize,
    },
    /// Another first byte than 0.
    #[error(
        "the record begins with byte {first:#04x}, not with the 0x00 of a schema registry header"
    )]
    Magic {
        /// The first byte.
        first: u8,
    },
}

/// Appends the header for a record of this schema to `out`; the Avro encoding follows it.
pub fn frame(id: SchemaId, out: &mut Vec<u8>) {
    out.push(MAGIC);
    out.extend_from_slice(&id.to_be_bytes());
}

/// Splits a framed record into its schema's number and its Avro encoding.
///
/// # Errors
/// [`WireError`] when there is no header.
pub fn unframe(value: &[u8]) -> Result<(SchemaId, &[u8]), WireError> {
    match value {
        [MAGIC, a, b, c, d, body @ ..] => Ok((SchemaId::from_be_bytes([*a, *b, *c, *d]), body)),
        [first, ..] if *first != MAGIC => Err(WireError::Magic { first: *first }),
        _ => Err(WireError::Short { bytes: value.len() }),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn what_is_framed_is_unframed() {
        for id in [0, 1, 258, u32::MAX] {
            let mut out = Vec::new();
            frame(id, &mut out);
            assert_eq!(out.len(), HEADER_BYTES);
            out.extend_from_slice(b"body");
            assert_eq!(unframe(&out), Ok((id, &b"body"[..])));
        }
        assert_eq!(unframe(&[0, 0, 0, 1, 2]), Ok((258, &[][..])));
    }

    #[test]
    fn what_is_not_framed_is_refused() {
        assert_eq!(unframe(&[]), Err(WireError::Short { bytes: 0 }));
        assert_eq!(unframe(&[0, 0, 0, 1]), Err(WireError::Short { bytes: 4 }));
        assert_eq!(unframe(b"{\"a\":1}"), Err(WireError::Magic { first: b'{' }));
    }
}
