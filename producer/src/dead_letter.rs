//! Rows that can't be delivered, as records of the dead-letter topic (schemas/dead_letter.avsc).

use std::borrow::Cow;

use crate::avro;
use crate::input::MAX_RAW_BYTES;
use crate::reason::Reason;

/// A row that can't be delivered.
pub struct DeadLetter<'a> {
    /// Why.
    pub reason: Reason,
    /// The same for people.
    pub detail: Cow<'a, str>,
    /// The column at fault, where one is.
    pub column: Option<String>,
    /// The line on which the row begins.
    pub line: u64,
    /// The row's bytes.
    pub raw: &'a [u8],
}

impl DeadLetter<'_> {
    /// Appends the Avro encoding to `out`.
    pub fn encode(&self, file: &str, out: &mut Vec<u8>) {
        avro::bytes(b"producer", out);
        avro::bytes(self.reason.code().as_bytes(), out);
        avro::bytes(self.detail.as_bytes(), out);
        avro::optional_text(Some(file), out);
        avro::long(1, out);
        avro::long(self.line as i64, out);
        avro::optional_text(self.column.as_deref(), out);
        // topic, partition, offset and schema_id are for records of the log
        out.extend_from_slice(&[0; 4]);
        avro::bytes(&self.raw[..self.raw.len().min(MAX_RAW_BYTES)], out);
    }
}
