//! CSV files with a header.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use csv::{Error, ErrorKind, ReaderBuilder, StringRecord};

use super::file::{Problems, Rows};
use crate::words::sql_type;

/// The rows of a file whose header must name all columns of `declared`; those of `wanted` are read. An empty field is
/// null. `None`, with problems, if it can't be read.
pub(super) fn rows(
    path: &Path,
    declared: &Schema,
    wanted: &SchemaRef,
    problems: &mut Problems<'_>,
) -> Option<Rows> {
    let mut reader = match ReaderBuilder::new().from_path(path) {
        Ok(reader) => reader,
        Err(error) => {
            unreadable(&error, problems);
            return None;
        }
    };
    let header = match reader.headers() {
        Ok(header) => header.clone(),
        Err(error) => {
            unreadable(&error, problems);
            return None;
        }
    };
    let place = |name: &str| {
        let plain = |found: &str| found.trim_start_matches('\u{feff}') == name;
        header.iter().position(plain)
    };
    for field in declared.fields() {
        if place(field.name()).is_none() {
            let header: Vec<&str> = header.iter().collect();
            problems.add(
                &format!(", line 1: the header has no column {}", field.name()),
                &format!(
                    "the header is {}: name it so, or do not declare it",
                    header.join(",")
                ),
            );
        }
    }
    let places: Vec<usize> = wanted
        .fields()
        .iter()
        .filter_map(|field| place(field.name()))
        .collect();
    if !problems.is_empty() {
        return None;
    }
    let mut texts: Vec<StringBuilder> = places.iter().map(|_| StringBuilder::new()).collect();
    let mut numbers = Vec::new();
    let mut record = StringRecord::new();
    loop {
        match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => {
                numbers.push(record.position().map_or(0, csv::Position::line));
                for (place, text) in places.iter().zip(&mut texts) {
                    match record.get(*place) {
                        Some(value) if !value.is_empty() => text.append_value(value),
                        _ => text.append_null(),
                    }
                }
            }
            Err(error) => {
                if !bad_line(&error, problems) {
                    break;
                }
            }
        }
    }
    let mut columns = Vec::with_capacity(places.len());
    for (field, mut text) in wanted.fields().iter().zip(texts) {
        let text: ArrayRef = Arc::new(text.finish());
        columns.push(parsed(
            &text,
            field.name(),
            field.data_type(),
            &numbers,
            problems,
        )?);
    }
    finish(columns, numbers, wanted, problems)
}

/// The rows with the columns' own types.
fn finish(
    columns: Vec<ArrayRef>,
    numbers: Vec<u64>,
    wanted: &SchemaRef,
    problems: &mut Problems<'_>,
) -> Option<Rows> {
    // Nulls where there must be none are told with their lines, and not by Arrow.
    let nullable = wanted
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true));
    let nullable = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let options = RecordBatchOptions::new().with_row_count(Some(numbers.len()));
    let batch = RecordBatch::try_new_with_options(nullable, columns, &options);
    let built = batch.map(|batch| Rows {
        batch,
        unit: "line",
        numbers,
    });
    super::file::checked(built, wanted, problems)
}

/// A column's values; those that do not fit its type are problems.
fn parsed(
    text: &ArrayRef,
    name: &str,
    data_type: &DataType,
    numbers: &[u64],
    problems: &mut Problems<'_>,
) -> Option<ArrayRef> {
    let options = CastOptions {
        safe: true,
        ..CastOptions::default()
    };
    let values = match cast_with_options(text, data_type, &options) {
        Ok(values) => values,
        Err(error) => {
            problems.add(&format!(", column {name}: {error}"), "declare another type");
            return None;
        }
    };
    if values.null_count() > text.null_count() {
        let texts = text.as_string::<i32>();
        let wrong = (0..values.len()).filter(|row| values.is_null(*row) && texts.is_valid(*row));
        for row in wrong {
            problems.add(
                &format!(
                    ", line {}, column {name}: {:?} is not of type {}",
                    numbers[row],
                    texts.value(row),
                    sql_type(data_type)
                ),
                "correct the value, or declare the column as TEXT",
            );
        }
    }
    Some(values)
}

/// Notes a line that can't be read; whether the next one can.
fn bad_line(error: &Error, problems: &mut Problems<'_>) -> bool {
    let line = error.position().map_or(0, csv::Position::line);
    match error.kind() {
        ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            problems.add(
                &format!(", line {line}: it has {len} fields, and the header has {expected_len}"),
                "write as many as the header names; a comma within a value needs quotation marks around it",
            );
            true
        }
        ErrorKind::Utf8 { err, .. } => {
            problems.add(
                &format!(", line {line}, field {}: it is not UTF-8", err.field() + 1),
                "save the file as UTF-8",
            );
            true
        }
        _ => {
            unreadable(error, problems);
            false
        }
    }
}

fn unreadable(error: &Error, problems: &mut Problems<'_>) {
    problems.add(
        &format!(" can't be read: {error}"),
        "a path is that of a file, and a relative one begins in the job file's folder",
    );
}
