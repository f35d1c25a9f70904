//! Every byte of a file is in one row, one broken row or an empty line, however the file is read.

use std::io::Cursor;

use producer::Reason;
use producer::input::{Mark, RowReader, Taken};
use proptest::prelude::*;

#[derive(Clone, Debug, PartialEq)]
enum Got {
    Row {
        line: u64,
        fields: Vec<Vec<u8>>,
        raw: Vec<u8>,
    },
    Broken {
        line: u64,
        reason: Reason,
        raw: Vec<u8>,
    },
}

impl Got {
    fn raw(&self) -> &[u8] {
        match self {
            Self::Row { raw, .. } | Self::Broken { raw, .. } => raw,
        }
    }
}

fn read_from(bytes: &[u8], mark: Mark, max_row: usize, chunk: usize) -> (Vec<Got>, Mark) {
    let rest = Cursor::new(bytes[mark.byte as usize..].to_vec());
    let mut reader = RowReader::with_limits(rest, mark, max_row, chunk);
    let mut rows = Vec::new();
    while let Some(taken) = reader.next_row().unwrap() {
        rows.push(match taken {
            Taken::Row(row) => Got::Row {
                line: row.line,
                fields: (0..row.len())
                    .map(|index| row.field(index).to_vec())
                    .collect(),
                raw: row.raw.to_vec(),
            },
            Taken::Broken(broken) => Got::Broken {
                line: broken.line,
                reason: broken.reason,
                raw: broken.raw.to_vec(),
            },
        });
    }
    assert!(reader.is_at_end());
    (rows, reader.mark())
}

fn read(text: &str) -> Vec<Got> {
    read_from(text.as_bytes(), Mark::start(), 1000, 4096).0
}

fn lines(rows: &[Got]) -> Vec<(u64, Result<Vec<String>, Reason>)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    rows.iter()
        .map(|row| match row {
            Got::Row { line, fields, .. } => {
                (*line, Ok(fields.iter().map(|field| text(field)).collect()))
            }
            Got::Broken { line, reason, .. } => (*line, Err(*reason)),
        })
        .collect()
}

fn row(line: u64, fields: &[&str]) -> (u64, Result<Vec<String>, Reason>) {
    (
        line,
        Ok(fields.iter().map(|field| (*field).to_owned()).collect()),
    )
}

#[test]
fn line_ends_empty_lines_and_a_byte_order_mark_are_no_part_of_rows() {
    let text = "\u{feff}a,b\r\n\r\n\n1,2\n\"x\r\ny\",\"\"\"q\"\"\"\r\n,\nlast,row";
    assert_eq!(
        lines(&read(text)),
        [
            row(1, &["a", "b"]),
            row(4, &["1", "2"]),
            row(5, &["x\r\ny", "\"q\""]),
            row(7, &["", ""]),
            row(8, &["last", "row"])
        ]
    );
    assert_eq!(lines(&read("a\r")), [row(1, &["a"])]);
    assert_eq!(lines(&read("\r\n\r")), []);
    assert_eq!(lines(&read("")), []);
    assert_eq!(lines(&read("\u{feff}")), []);
    assert_eq!(lines(&read("a\"b,c")), [row(1, &["a\"b", "c"])]);
    assert_eq!(lines(&read("\"a\"\r")), [row(1, &["a"])]);
}

#[test]
fn an_unclosed_quote_costs_its_own_line_only() {
    // never closed
    let text = "1,a\n2,\"b\n3,c\n4,d\n";
    assert_eq!(
        lines(&read(text)),
        [
            row(1, &["1", "a"]),
            (2, Err(Reason::UnclosedQuote)),
            row(3, &["3", "c"]),
            row(4, &["4", "d"])
        ]
    );
    // closed by the opening quote of a later row
    let text = "1,\"a\n2,\"b\"\n3,\"\"\n";
    assert_eq!(
        lines(&read(text)),
        [
            (1, Err(Reason::UnclosedQuote)),
            row(2, &["2", "b"]),
            row(3, &["3", ""])
        ]
    );
    // on the last line, without its line end
    assert_eq!(
        lines(&read("1,a\n2,\"b")),
        [row(1, &["1", "a"]), (2, Err(Reason::UnclosedQuote))]
    );
    // text behind a closing quote
    assert_eq!(
        lines(&read("\"a\"b,1\nc,2\n")),
        [(1, Err(Reason::BadQuotes)), row(2, &["c", "2"])]
    );
    // more than the limit of bytes without a closing quote
    let text = format!("1,\"a\n{}3,\"c\"\n", "2,b\n".repeat(400));
    let rows = lines(&read(&text));
    assert_eq!(rows.len(), 402);
    assert_eq!(rows[0], (1, Err(Reason::UnclosedQuote)));
    assert!(rows[1..].iter().all(|(_, row)| row.is_ok()));
}

#[test]
fn a_row_longer_than_the_limit_is_broken_and_the_next_is_taken() {
    for (length, fits) in [(999, true), (1000, true), (1001, false), (70_000, false)] {
        let text = format!("{}\nb,2\n", "x".repeat(length));
        for chunk in [7, 512, 1 << 20] {
            let (rows, _) = read_from(text.as_bytes(), Mark::start(), 1000, chunk);
            assert_eq!(rows.len(), 2);
            assert_eq!(matches!(rows[0], Got::Row { .. }), fits, "{length}");
            assert!(rows[0].raw().iter().all(|byte| *byte == b'x'));
            assert_eq!(lines(&rows)[1], row(2, &["b", "2"]));
        }
    }
}

#[test]
fn the_rest_of_a_line_that_was_taken_half_is_no_row() {
    let (before, mark) = read_from(b"a,1\nb,", Mark::start(), 1000, 64);
    assert_eq!(before.len(), 2);
    let (after, _) = read_from(b"a,1\nb,2\nc,3\n", mark.clone(), 1000, 64);
    assert_eq!(
        lines(&after),
        [(2, Err(Reason::ContinuedRow)), row(3, &["c", "3"])]
    );
    let (after, _) = read_from(b"a,1\nb,\r\nc,3\n", mark, 1000, 64);
    assert_eq!(lines(&after), [row(3, &["c", "3"])]);
}

#[test]
fn the_mark_hashes_the_bytes_before_it() {
    let (_, mark) = read_from(b"abc", Mark::start(), 1000, 2);
    assert_eq!(
        mark.sha256(),
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    );
}

fn csv_like() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(b",".to_vec()),
        3 => Just(b"\n".to_vec()),
        1 => Just(b"\r\n".to_vec()),
        2 => Just(b"\"".to_vec()),
        1 => Just(b"\"\"".to_vec()),
        1 => Just(b"\r".to_vec()),
        4 => "[a-z0-9]{1,4}".prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 1..3),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

/// Walks over `bytes` row by row; what is left over must be line ends.
fn cover(bytes: &[u8], rows: &[Got]) -> Result<(), TestCaseError> {
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let line_ends = |mut rest: &[u8]| loop {
        match rest {
            [b'\n', after @ ..] | [b'\r', b'\n', after @ ..] => rest = after,
            [b'\r'] => rest = &[],
            _ => break rest.len(),
        }
    };
    for row in rows {
        rest = &rest[rest.len() - line_ends(rest)..];
        prop_assert!(
            !row.raw().is_empty() && rest.starts_with(row.raw()),
            "{:?} {:?}",
            row,
            rest
        );
        rest = &rest[row.raw().len()..];
        if matches!(
            row,
            Got::Broken {
                reason: Reason::RowTooLong,
                ..
            }
        ) {
            rest = &rest[rest
                .iter()
                .position(|byte| *byte == b'\n')
                .unwrap_or(rest.len())..];
        }
    }
    prop_assert_eq!(line_ends(rest), 0);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn every_byte_is_taken_once(bytes in csv_like(), max_row in 1_usize..40) {
        let (rows, mark) = read_from(&bytes, Mark::start(), max_row, 4096);
        cover(&bytes, &rows)?;
        prop_assert_eq!(mark.byte, bytes.len() as u64);
        let whole = { let mut whole = Mark::start(); whole.take(&bytes); whole };
        prop_assert_eq!(mark.sha256(), whole.sha256());
        prop_assert_eq!(mark.lines(), whole.lines());
    }

    #[test]
    fn how_much_is_read_at_once_makes_no_difference(bytes in csv_like(), max_row in 1_usize..40, chunk in 1_usize..64) {
        let whole = read_from(&bytes, Mark::start(), max_row, 4096).0;
        prop_assert_eq!(&read_from(&bytes, Mark::start(), max_row, chunk).0, &whole);
    }

    #[test]
    fn a_reader_that_goes_on_at_any_row_reads_the_same(bytes in csv_like(), stop in 0_usize..20) {
        let (whole, _) = read_from(&bytes, Mark::start(), 30, 4096);
        let mut reader = RowReader::with_limits(Cursor::new(bytes.clone()), Mark::start(), 30, 16);
        let stop = stop.min(whole.len().saturating_sub(1));
        for _ in 0..stop {
            reader.next_row().unwrap();
        }
        let (rest, _) = read_from(&bytes, reader.mark(), 30, 16);
        prop_assert_eq!(&whole[stop..], &rest[..]);
    }

    #[test]
    fn well_formed_files_read_as_the_csv_crate_reads_them(
        table in prop::collection::vec(prop::collection::vec("[a-c\",\n\r é]{0,6}", 1..5), 1..8),
        crlf in any::<bool>(),
    ) {
        let mut writer = csv::WriterBuilder::new()
            .flexible(true)
            .quote_style(csv::QuoteStyle::Always)
            .terminator(if crlf { csv::Terminator::CRLF } else { csv::Terminator::Any(b'\n') })
            .from_writer(Vec::new());
        for row in &table {
            writer.write_record(row).unwrap();
        }
        let bytes = writer.into_inner().unwrap();
        let (rows, _) = read_from(&bytes, Mark::start(), 1000, 64);
        let fields: Vec<Vec<Vec<u8>>> = rows.into_iter().map(|row| match row {
            Got::Row { fields, .. } => fields,
            Got::Broken { .. } => panic!("broken"),
        }).collect();
        let expected: Vec<Vec<Vec<u8>>> = csv::ReaderBuilder::new()
            .flexible(true)
            .has_headers(false)
            .from_reader(&bytes[..])
            .byte_records()
            .map(|row| row.unwrap().iter().map(<[u8]>::to_vec).collect())
            .collect();
        prop_assert_eq!(fields, expected);
    }
}
