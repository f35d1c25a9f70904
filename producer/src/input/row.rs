//! What is taken from a file, and the places between.

use memchr::memchr_iter;
use sha2::{Digest, Sha256};

use crate::reason::Reason;

/// How much of a broken row is kept.
pub const MAX_RAW_BYTES: usize = 64 << 10;

/// A place in a file between two rows, with the hash of all bytes before it.
#[derive(Clone)]
pub struct Mark {
    /// How many bytes lie before it.
    pub byte: u64,
    /// How many line feeds lie before it.
    pub line_feeds: u64,
    /// Whether the byte before it is no line feed, though there is one.
    pub mid_line: bool,
    /// The hash of the bytes before it, ready for more.
    pub hash: Sha256,
}

impl Mark {
    /// The beginning of a file.
    pub fn start() -> Self {
        Self {
            byte: 0,
            line_feeds: 0,
            mid_line: false,
            hash: Sha256::new(),
        }
    }

    /// How many lines lie before it; one that has begun counts.
    pub fn lines(&self) -> u64 {
        self.line_feeds + u64::from(self.mid_line)
    }

    /// The hash in hexadecimal.
    pub fn sha256(&self) -> String {
        use std::fmt::Write;
        self.hash
            .clone()
            .finalize()
            .iter()
            .fold(String::with_capacity(64), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
    }

    /// Moves it over `bytes`.
    pub fn take(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last() {
            self.mid_line = *last != b'\n';
        }
        self.byte += bytes.len() as u64;
        self.line_feeds += memchr_iter(b'\n', bytes).count() as u64;
        self.hash.update(bytes);
    }
}

/// A row: its fields, unquoted, and its own bytes.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// Its bytes as they are in the file, without the line end.
    pub raw: &'a [u8],
    pub(super) text: &'a [u8],
    pub(super) fields: &'a [(u32, u32)],
}

impl<'a> Row<'a> {
    /// How many fields it has: at least one.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Always false: empty lines are no rows.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// A field's bytes, unquoted; empty if there is none of this number.
    pub fn field(&self, index: usize) -> &'a [u8] {
        self.fields.get(index).map_or(&[], |(start, end)| {
            &self.text[*start as usize..*end as usize]
        })
    }

    /// The bytes that all fields are parts of.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Where a field lies in [`Row::text`].
    pub fn range(&self, index: usize) -> (usize, usize) {
        self.fields
            .get(index)
            .map_or((0, 0), |(start, end)| (*start as usize, *end as usize))
    }
}

/// A row that can't be taken apart.
#[derive(Clone, Copy)]
pub struct Broken<'a> {
    /// The line on which it begins, from 1.
    pub line: u64,
    /// Its bytes, the first [`MAX_RAW_BYTES`] of them at most.
    pub raw: &'a [u8],
    /// What is wrong.
    pub reason: Reason,
}

/// What was taken from a file.
#[derive(Clone, Copy)]
pub enum Taken<'a> {
    /// A row.
    Row(Row<'a>),
    /// A broken one.
    Broken(Broken<'a>),
}
