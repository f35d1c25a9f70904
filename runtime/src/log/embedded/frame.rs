//! Frames: what a segment is made of. A frame holds records that were written together, or one control record.
//!
//! ```text
//!  0 magic "HWF1"   4 length   8 crc32 of all that follows   12 kind   16 base offset (i64)
//! 24 records        28 span    32 transaction (0: none)      40 delete horizon of tombstones, ms (0: none)
//! 48 records, one after the other:
//!    0 length   4 offset − base   8 timestamp   16 key length   20 value length   24 headers (−1: null)
//!   28 key, value, then per header: name length, value length, name, value
//! ```
//!
//! All numbers are little-endian. `span` is how many offsets the frame takes: after compaction it may hold fewer records.

use super::super::{Offset, Record};

/// Bytes before the first record.
pub(super) const HEADER_BYTES: usize = 48;
const RECORD_BYTES: usize = 28;
const MAGIC: u32 = u32::from_le_bytes(*b"HWF1");

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Records.
    Data,
    /// The control record of a committed transaction.
    Commit,
    /// The control record of an aborted transaction.
    Abort,
}

/// A frame's header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    pub len: usize,
    pub kind: Kind,
    pub base: Offset,
    pub records: u32,
    pub span: u32,
    pub txn: u64,
    pub horizon_ms: i64,
}

impl Header {
    /// Reads a header; `None` if these bytes do not begin a frame.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.len() < HEADER_BYTES || u32_at(bytes, 0) != MAGIC {
            return None;
        }
        let header = Self {
            len: u32_at(bytes, 4) as usize,
            kind: match bytes[12] {
                0 => Kind::Data,
                1 => Kind::Commit,
                2 => Kind::Abort,
                _ => return None,
            },
            base: i64_at(bytes, 16),
            records: u32_at(bytes, 24),
            span: u32_at(bytes, 28),
            txn: i64_at(bytes, 32) as u64,
            horizon_ms: i64_at(bytes, 40),
        };
        (header.len >= HEADER_BYTES && header.base >= 0 && header.span >= 1).then_some(header)
    }

    /// The offset behind the frame.
    pub fn next(&self) -> Offset {
        self.base + i64::from(self.span)
    }
}

/// Whether a whole frame's bytes are as they were written.
pub(super) fn intact(frame: &[u8]) -> bool {
    crc32fast::hash(&frame[12..]) == u32_at(frame, 8)
}

/// Where a record lies in a buffer, and its offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub at: u32,
    pub offset: Offset,
}

/// Appends the places of a data frame's records at or above `from` to `entries`. The frame begins at `at` in `buffer`.
/// `None` if the lengths in it do not add up.
pub(super) fn index(
    buffer: &[u8],
    at: usize,
    header: &Header,
    from: Offset,
    entries: &mut Vec<Entry>,
) -> Option<()> {
    let end = at + header.len;
    let mut position = at + HEADER_BYTES;
    for _ in 0..header.records {
        let record = buffer.get(position..end)?;
        let len = check(record)?;
        let offset = header.base + i64::from(u32_at(record, 4));
        if offset >= from {
            entries.push(Entry {
                at: u32::try_from(position).ok()?,
                offset,
            });
        }
        position += len;
    }
    (position == end).then_some(())
}

/// The length of the record that begins these bytes, if all its parts lie inside it.
fn check(bytes: &[u8]) -> Option<usize> {
    if bytes.len() < RECORD_BYTES {
        return None;
    }
    let len = u32_at(bytes, 0) as usize;
    let mut position = RECORD_BYTES + part(bytes, 16) + part(bytes, 20);
    if len > bytes.len() || position > len {
        return None;
    }
    for _ in 0..u32_at(bytes, 24) {
        if position + 8 > len {
            return None;
        }
        position += 8 + part(bytes, position) + part(bytes, position + 4);
    }
    (position == len).then_some(len)
}

fn part(bytes: &[u8], at: usize) -> usize {
    usize::try_from(i32_at(bytes, at)).unwrap_or(0)
}

/// A record that [`index`] found.
pub(super) fn record(buffer: &[u8], entry: Entry) -> Record<'_> {
    let bytes = &buffer[entry.at as usize..];
    let (key_len, value_len) = (i32_at(bytes, 16), i32_at(bytes, 20));
    let value_at = RECORD_BYTES + part(bytes, 16);
    Record {
        offset: entry.offset,
        timestamp_ms: i64_at(bytes, 8),
        key: (key_len >= 0).then(|| &bytes[RECORD_BYTES..value_at]),
        value: (value_len >= 0).then(|| &bytes[value_at..value_at + value_len as usize]),
    }
}

/// The last header of that name of a record that [`index`] found.
pub(super) fn header<'a>(buffer: &'a [u8], entry: Entry, name: &str) -> Option<&'a [u8]> {
    let bytes = &buffer[entry.at as usize..];
    let mut position = RECORD_BYTES + part(bytes, 16) + part(bytes, 20);
    let mut found = None;
    for _ in 0..u32_at(bytes, 24) {
        let (name_len, value_len) = (part(bytes, position), part(bytes, position + 4));
        let value_at = position + 8 + name_len;
        if &bytes[position + 8..value_at] == name.as_bytes() {
            found =
                (i32_at(bytes, position + 4) >= 0).then(|| &bytes[value_at..value_at + value_len]);
        }
        position = value_at + value_len;
    }
    found
}

/// A frame being built.
#[derive(Debug)]
pub(super) struct Builder {
    bytes: Vec<u8>,
    records: u32,
}

impl Builder {
    /// An empty frame.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; HEADER_BYTES],
            records: 0,
        }
    }

    /// Makes it empty again, keeping its memory.
    pub fn clear(&mut self) {
        self.bytes.truncate(HEADER_BYTES);
        self.records = 0;
    }

    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    pub fn records(&self) -> u32 {
        self.records
    }

    /// Adds a record, at the offset behind the last one.
    pub fn push(
        &mut self,
        timestamp_ms: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, &[u8])],
    ) {
        let start = self.bytes.len();
        let b = &mut self.bytes;
        b.extend_from_slice(&[0; 4]);
        b.extend_from_slice(&self.records.to_le_bytes());
        b.extend_from_slice(&timestamp_ms.to_le_bytes());
        b.extend_from_slice(&length(key));
        b.extend_from_slice(&length(value));
        b.extend_from_slice(&(headers.len() as u32).to_le_bytes());
        b.extend_from_slice(key.unwrap_or_default());
        b.extend_from_slice(value.unwrap_or_default());
        for (name, value) in headers {
            b.extend_from_slice(&length(Some(name.as_bytes())));
            b.extend_from_slice(&length(Some(value)));
            b.extend_from_slice(name.as_bytes());
            b.extend_from_slice(value);
        }
        self.finish_record(start);
    }

    /// Gives all records this time in place of theirs.
    pub fn stamp(&mut self, timestamp_ms: i64) {
        let mut position = HEADER_BYTES;
        for _ in 0..self.records {
            self.bytes[position + 8..position + 16].copy_from_slice(&timestamp_ms.to_le_bytes());
            position += u32_at(&self.bytes, position) as usize;
        }
    }

    /// Adds a record that [`index`] found in another frame, at its distance from that frame's base.
    pub fn copy(&mut self, buffer: &[u8], entry: Entry, base: Offset) {
        let bytes = &buffer[entry.at as usize..];
        let start = self.bytes.len();
        self.bytes
            .extend_from_slice(&bytes[..u32_at(bytes, 0) as usize]);
        self.bytes[start + 4..start + 8]
            .copy_from_slice(&((entry.offset - base) as u32).to_le_bytes());
        self.finish_record(start);
    }

    fn finish_record(&mut self, start: usize) {
        let len = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&len.to_le_bytes());
        self.records += 1;
    }

    /// Writes the header, and gives the frame's bytes.
    pub fn seal(
        &mut self,
        kind: Kind,
        base: Offset,
        span: u32,
        txn: u64,
        horizon_ms: i64,
    ) -> &[u8] {
        let len = self.bytes.len() as u32;
        let b = &mut self.bytes;
        b[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        b[4..8].copy_from_slice(&len.to_le_bytes());
        b[12..16].copy_from_slice(&[kind as u8, 0, 0, 0]);
        b[16..24].copy_from_slice(&base.to_le_bytes());
        b[24..28].copy_from_slice(&self.records.to_le_bytes());
        b[28..32].copy_from_slice(&span.to_le_bytes());
        b[32..40].copy_from_slice(&txn.to_le_bytes());
        b[40..48].copy_from_slice(&horizon_ms.to_le_bytes());
        let crc = crc32fast::hash(&b[12..]);
        b[8..12].copy_from_slice(&crc.to_le_bytes());
        b
    }
}

/// The size of a record as Kafka counts it against `max.message.bytes`, its batch's overhead included, rounded up.
pub(super) fn size_of(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&str, &[u8])],
) -> usize {
    let headers: usize = headers
        .iter()
        .map(|(name, value)| 10 + name.len() + value.len())
        .sum();
    70 + key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + headers
}

fn length(part: Option<&[u8]>) -> [u8; 4] {
    part.map_or(-1, |part| part.len() as i32).to_le_bytes()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    u32_at(bytes, at) as i32
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    (u64::from(u32_at(bytes, at)) | (u64::from(u32_at(bytes, at + 4)) << 32)) as i64
}
