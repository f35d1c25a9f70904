//! Rows of a CSV file (RFC 4180) with the line on which each begins, borrowed from one buffer.
//!
//! ```text
//!   file ──read──▶ buffer ──▶ row (borrowed)            every byte read is in exactly one row,
//!                         ├─▶ broken row + reason       in one broken row, or in an empty line
//!                         └─▶ hash of what was taken
//! ```
//!
//! A row ends at a line feed (a carriage return before it belongs to the line end) that is not inside quotes. Empty
//! lines are skipped. A last line without a line feed is a row.
//!
//! **An unclosed quote costs one line.** A row whose quote is never closed (up to the end of the file, or up to the
//! row limit), or is closed by a quote that more text follows on a later line (the opening quote of a later row), is
//! broken: its first line is taken as the broken row, and reading goes on at the next line. A file where every row
//! is good except for one missing quote loses that row only.
//!
//! **Memory is bounded**: the buffer never holds more than the row limit and one read. A line longer than the limit is
//! broken; its first part is kept for the dead letter and the rest is skipped as it is read.

use std::io::{self, Read};

use memchr::{memchr, memchr_iter};

use super::quoted::{Cut, scan_quoted};
use super::row::{Broken, MAX_RAW_BYTES, Mark, Row, Taken};
use crate::reason::Reason;

/// The most bytes that a row may have, quoted line feeds included, the line end not.
pub const MAX_ROW_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 256 << 10;

/// What the buffer holds at its start.
pub(super) enum Scan {
    /// More bytes are needed to tell.
    More,
    /// Nothing is left.
    End,
    /// A row of `raw` bytes, with its line end `whole` bytes; `line_feeds` in all of them.
    Row {
        raw: usize,
        whole: usize,
        quoted: bool,
        line_feeds: u64,
    },
    /// A broken one, on one line.
    Broken {
        raw: usize,
        whole: usize,
        line_feeds: u64,
        reason: Reason,
    },
    /// A line longer than the limit.
    TooLong,
}

/// Takes a file apart into rows.
pub struct RowReader<R> {
    file: R,
    buffer: Vec<u8>,
    /// The first byte not taken.
    start: usize,
    /// The first byte not read.
    filled: usize,
    /// The first byte of the buffer that the mark does not know yet.
    marked: usize,
    mark: Mark,
    line_feeds: u64,
    at_end: bool,
    resumed_mid_line: bool,
    max_row: usize,
    text: Vec<u8>,
    fields: Vec<(u32, u32)>,
}

impl<R: Read> RowReader<R> {
    /// A reader that goes on at `mark`, where `file` must stand.
    pub fn new(file: R, mark: Mark) -> Self {
        Self::with_limits(file, mark, MAX_ROW_BYTES, READ_BYTES)
    }

    /// The same with a row limit and a read size of one's own.
    pub fn with_limits(file: R, mark: Mark, max_row: usize, read_bytes: usize) -> Self {
        Self {
            file,
            buffer: vec![0; read_bytes.max(4)],
            start: 0,
            filled: 0,
            marked: 0,
            line_feeds: mark.line_feeds,
            resumed_mid_line: mark.mid_line,
            mark,
            at_end: false,
            max_row,
            text: Vec::new(),
            fields: Vec::new(),
        }
    }

    /// How much memory the buffer takes.
    pub fn buffer_bytes(&self) -> usize {
        self.buffer.len() + self.text.capacity()
    }

    /// How many bytes of the file have been taken.
    pub fn byte(&self) -> u64 {
        self.mark.byte + (self.start - self.marked) as u64
    }

    /// The place behind the last row taken.
    pub fn mark(&mut self) -> Mark {
        self.settle();
        self.mark.clone()
    }

    /// Whether nothing is left but what the operating system may still add.
    pub fn is_at_end(&self) -> bool {
        self.at_end && self.start == self.filled
    }

    /// The next row, or `None` at the end of the file.
    pub fn next_row(&mut self) -> io::Result<Option<Taken<'_>>> {
        if self.mark.byte == 0 && self.marked == self.start {
            self.skip_byte_order_mark()?;
        }
        loop {
            match self.scan() {
                Scan::More => self.fill()?,
                Scan::End => return Ok(None),
                Scan::Row {
                    raw: 0,
                    whole,
                    line_feeds,
                    ..
                } => {
                    self.take(whole, line_feeds);
                }
                Scan::Row {
                    raw,
                    whole,
                    quoted,
                    line_feeds,
                } => {
                    let (line, from) = self.take(whole, line_feeds);
                    let raw = &self.buffer[from..from + raw];
                    let text = if quoted { &self.text[..] } else { raw };
                    return Ok(Some(Taken::Row(Row {
                        line,
                        raw,
                        text,
                        fields: &self.fields,
                    })));
                }
                Scan::Broken {
                    raw,
                    whole,
                    line_feeds,
                    reason,
                } => {
                    let (line, from) = self.take(whole, line_feeds);
                    let raw = &self.buffer[from..from + raw.min(MAX_RAW_BYTES)];
                    return Ok(Some(Taken::Broken(Broken { line, raw, reason })));
                }
                Scan::TooLong => return self.skip_line().map(Some),
            }
        }
    }

    /// Moves over a row of `whole` bytes; says on which line and at which byte of the buffer it began.
    fn take(&mut self, whole: usize, line_feeds: u64) -> (u64, usize) {
        let (line, from) = (self.line_feeds + 1, self.start);
        self.start += whole;
        self.line_feeds += line_feeds;
        self.resumed_mid_line = false;
        (line, from)
    }

    /// Takes a line that is longer than the limit, keeping its first part.
    fn skip_line(&mut self) -> io::Result<Taken<'_>> {
        let line = self.line_feeds + 1;
        // the buffer holds more of the line than the limit
        let keep = self.max_row.min(MAX_RAW_BYTES);
        self.text.clear();
        self.text
            .extend_from_slice(&self.buffer[self.start..self.start + keep]);
        loop {
            match memchr(b'\n', &self.buffer[self.start..self.filled]) {
                Some(end) => {
                    self.start += end + 1;
                    self.line_feeds += 1;
                    break;
                }
                None => {
                    self.start = self.filled;
                    if self.at_end {
                        break;
                    }
                    self.fill()?;
                }
            }
        }
        let reason = if std::mem::take(&mut self.resumed_mid_line) {
            Reason::ContinuedRow
        } else {
            Reason::RowTooLong
        };
        Ok(Taken::Broken(Broken {
            line,
            raw: &self.text,
            reason,
        }))
    }

    fn skip_byte_order_mark(&mut self) -> io::Result<()> {
        while self.filled - self.start < 3 && !self.at_end {
            self.fill()?;
        }
        if self.buffer[self.start..self.filled].starts_with(b"\xef\xbb\xbf") {
            self.start += 3;
        }
        Ok(())
    }

    /// Reads more. What was taken makes room; only a row that fills the whole buffer makes it grow.
    fn fill(&mut self) -> io::Result<()> {
        if self.start > 0 {
            self.settle();
            self.buffer.copy_within(self.start..self.filled, 0);
            self.filled -= self.start;
            (self.start, self.marked) = (0, 0);
        }
        if self.filled == self.buffer.len() {
            self.buffer.resize(
                (self.buffer.len() * 2)
                    .min(self.max_row + READ_BYTES)
                    .max(self.filled + 4),
                0,
            );
        }
        while self.filled < self.buffer.len() {
            match self.file.read(&mut self.buffer[self.filled..]) {
                Ok(0) => {
                    self.at_end = true;
                    break;
                }
                Ok(bytes) => self.filled += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn settle(&mut self) {
        self.mark.take(&self.buffer[self.marked..self.start]);
        self.marked = self.start;
        debug_assert_eq!(
            self.mark.line_feeds, self.line_feeds,
            "lines are counted as they are taken"
        );
    }

    /// Looks at what the buffer holds. What it says does not depend on how much was read, except for [`Scan::More`].
    fn scan(&mut self) -> Scan {
        let data = &self.buffer[self.start..self.filled];
        let (line_end, whole) = match memchr(b'\n', data) {
            Some(end) => (end, end + 1),
            None if data.len() > self.max_row + 1 => return Scan::TooLong,
            None if !self.at_end => return Scan::More,
            None if data.is_empty() => return Scan::End,
            None => (data.len(), data.len()),
        };
        let raw = line_end - usize::from(line_end > 0 && data[line_end - 1] == b'\r');
        if raw > self.max_row {
            return Scan::TooLong;
        }
        let line_feeds = u64::from(whole > line_end);
        if self.resumed_mid_line && raw > 0 {
            return Scan::Broken {
                raw,
                whole,
                line_feeds,
                reason: Reason::ContinuedRow,
            };
        }
        self.fields.clear();
        if memchr(b'"', &data[..raw]).is_some() {
            self.text.clear();
            return scan_quoted(
                data,
                self.at_end,
                self.max_row,
                &mut self.text,
                &mut self.fields,
            )
            .unwrap_or_else(|cut| match cut {
                Cut::More => Scan::More,
                Cut::Broken(reason) => Scan::Broken {
                    raw,
                    whole,
                    line_feeds,
                    reason,
                },
            });
        }
        let mut from = 0;
        for comma in memchr_iter(b',', &data[..raw]) {
            self.fields.push((from, comma as u32));
            from = comma as u32 + 1;
        }
        self.fields.push((from, raw as u32));
        Scan::Row {
            raw,
            whole,
            quoted: false,
            line_feeds,
        }
    }
}
