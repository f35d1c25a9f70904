//! Rows with quotes.

use memchr::{memchr, memchr_iter, memchr2};

use super::rows::Scan;
use crate::reason::Reason;

/// Why a row with quotes could not be taken apart.
pub(super) enum Cut {
    More,
    Broken(Reason),
}

/// Takes a row with quotes apart: the fields go to `text`, unquoted, and their places to `fields`.
pub(super) fn scan_quoted(
    data: &[u8],
    at_end: bool,
    max_row: usize,
    text: &mut Vec<u8>,
    fields: &mut Vec<(u32, u32)>,
) -> Result<Scan, Cut> {
    // Two bytes more than the limit, for a line end: whether the row is too long shows in them.
    let limit = data.len().min(max_row + 2);
    let window = &data[..limit];
    // Whether the window's end is the row's, as far as it matters: nothing behind it will be looked at.
    let short = |reason| {
        if at_end || limit > max_row + 1 {
            Cut::Broken(reason)
        } else {
            Cut::More
        }
    };
    let first_line = memchr(b'\n', data).unwrap_or(data.len());
    let mut at = 0;
    loop {
        let field = text.len() as u32;
        if window.get(at) == Some(&b'"') {
            at += 1;
            loop {
                let Some(quote) = memchr(b'"', &window[at..]) else {
                    return Err(short(Reason::UnclosedQuote));
                };
                text.extend_from_slice(&window[at..at + quote]);
                at += quote + 1;
                match window.get(at) {
                    Some(b'"') => {
                        text.push(b'"');
                        at += 1;
                    }
                    None if !at_end && limit <= max_row + 1 => return Err(Cut::More),
                    _ => break,
                }
            }
        } else {
            let rest = &window[at..];
            let length = match memchr2(b',', b'\n', rest) {
                Some(end) => end,
                None if at_end && limit == data.len() => rest.len(),
                None => return Err(short(Reason::RowTooLong)),
            };
            let ends_row = rest.get(length) != Some(&b',');
            let keep = length - usize::from(ends_row && length > 0 && rest[length - 1] == b'\r');
            text.extend_from_slice(&rest[..keep]);
            at += keep;
        }
        fields.push((field, text.len() as u32));
        // keeps fields apart, so that bytes of two never read as one character
        text.push(b',');
        let (raw, whole) = match (window.get(at), window.get(at + 1)) {
            (Some(b','), _) => {
                at += 1;
                continue;
            }
            (Some(b'\n'), _) => (at, at + 1),
            (Some(b'\r'), Some(b'\n')) => (at, at + 2),
            (Some(b'\r'), None) if at_end && limit == data.len() => (at, at + 1),
            (None, _) if at_end && limit == data.len() => (at, at),
            (None, _) | (Some(b'\r'), None) => return Err(short(Reason::RowTooLong)),
            // more text behind a closing quote: on the first line a badly quoted field, on a later one the sign that
            // the quote that opened this field was never closed
            _ if at <= first_line => return Err(Cut::Broken(Reason::BadQuotes)),
            _ => return Err(Cut::Broken(Reason::UnclosedQuote)),
        };
        if raw > max_row {
            return Err(Cut::Broken(Reason::RowTooLong));
        }
        let line_feeds = memchr_iter(b'\n', &data[..whole]).count() as u64;
        return Ok(Scan::Row {
            raw,
            whole,
            quoted: true,
            line_feeds,
        });
    }
}
