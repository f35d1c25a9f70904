//! The keys of result records: the values of the sink's key columns as text, separated by `|`. Instants are milliseconds since
//! 1970; null is empty.

use std::fmt::Write;

use arrow::array::{Array, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};

/// The keys of a batch's rows, one text behind the other.
pub(super) struct Keys {
    text: String,
    ends: Vec<usize>,
}

/// A key column, ready to be written value by value.
enum Part<'a> {
    Int32(&'a PrimitiveArray<Int32Type>),
    Int64(PrimitiveArray<Int64Type>),
    Text(&'a arrow::array::StringArray),
    Other(&'a dyn Array, ArrayFormatter<'a>),
}

impl Keys {
    /// The keys that these columns of the rows give.
    ///
    /// # Errors
    /// A column has a type that can't be written as text.
    pub(super) fn of(rows: &RecordBatch, columns: &[usize]) -> Result<Self, ArrowError> {
        // An error of a value stands in its text, so that there is a key in any case.
        let options = FormatOptions::default().with_display_error(true);
        let parts = columns
            .iter()
            .map(|column| Part::of(rows.column(*column), &options))
            .collect::<Result<Vec<_>, _>>()?;
        let mut keys = Self {
            text: String::new(),
            ends: Vec::with_capacity(rows.num_rows()),
        };
        for row in 0..rows.num_rows() {
            for (place, part) in parts.iter().enumerate() {
                if place > 0 {
                    keys.text.push('|');
                }
                part.write(row, &mut keys.text);
            }
            keys.ends.push(keys.text.len());
        }
        Ok(keys)
    }

    /// Each row's key.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.text[start..*end])
    }
}

impl<'a> Part<'a> {
    fn of(column: &'a dyn Array, options: &FormatOptions<'a>) -> Result<Self, ArrowError> {
        Ok(match column.data_type() {
            DataType::Timestamp(_, _) => {
                let instants = cast(column, &DataType::Int64)?;
                Self::Int64(instants.as_primitive().clone())
            }
            DataType::Int64 => Self::Int64(column.as_primitive().clone()),
            DataType::Int32 => Self::Int32(column.as_primitive()),
            DataType::Utf8 => Self::Text(column.as_string()),
            _ => Self::Other(column, ArrayFormatter::try_new(column, options)?),
        })
    }

    fn write(&self, row: usize, text: &mut String) {
        // Writing to a String does not fail.
        let _ = match self {
            Self::Int32(values) if values.is_valid(row) => write!(text, "{}", values.value(row)),
            Self::Int64(values) if values.is_valid(row) => write!(text, "{}", values.value(row)),
            Self::Text(values) if values.is_valid(row) => {
                text.push_str(values.value(row));
                Ok(())
            }
            Self::Other(column, values) if column.is_valid(row) => {
                write!(text, "{}", values.value(row))
            }
            Self::Int32(_) | Self::Int64(_) | Self::Text(_) | Self::Other(..) => Ok(()),
        };
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, BooleanArray, Date32Array, DictionaryArray, Float64Array, Int32Array, Int64Array,
        StringArray, TimestampMicrosecondArray, TimestampMillisecondArray, UInt8Array,
    };

    use super::*;

    #[test]
    fn every_type_of_key_is_written_as_its_text() {
        let dictionary: DictionaryArray<Int32Type> = vec![Some("x"), None].into_iter().collect();
        let columns: Vec<(ArrayRef, [&str; 2])> = vec![
            (
                Arc::new(
                    TimestampMillisecondArray::from(vec![-5, 1_451_624_400_000])
                        .with_timezone("UTC"),
                ),
                ["-5", "1451624400000"],
            ),
            (
                Arc::new(TimestampMicrosecondArray::from(vec![Some(7), None])),
                ["7", ""],
            ),
            (
                Arc::new(Int64Array::from(vec![None, Some(i64::MIN)])),
                ["", "-9223372036854775808"],
            ),
            (Arc::new(Int32Array::from(vec![Some(-1), None])), ["-1", ""]),
            (Arc::new(UInt8Array::from(vec![0, 255])), ["0", "255"]),
            (
                Arc::new(StringArray::from(vec![Some("a|b"), None])),
                ["a|b", ""],
            ),
            (Arc::new(dictionary), ["x", ""]),
            (
                Arc::new(BooleanArray::from(vec![Some(true), None])),
                ["true", ""],
            ),
            (
                Arc::new(Float64Array::from(vec![0.5, -0.0])),
                ["0.5", "-0.0"],
            ),
            (
                Arc::new(Date32Array::from(vec![0, 16_801])),
                ["1970-01-01", "2016-01-01"],
            ),
        ];
        let expected: Vec<String> = [0, 1]
            .map(|row| {
                columns
                    .iter()
                    .map(|(_, texts)| texts[row])
                    .collect::<Vec<_>>()
                    .join("|")
            })
            .to_vec();
        let rows = RecordBatch::try_from_iter_with_nullable(
            columns
                .into_iter()
                .enumerate()
                .map(|(place, (column, _))| (place.to_string(), column, true)),
        )
        .unwrap();
        let all: Vec<usize> = (0..rows.num_columns()).collect();
        let keys = Keys::of(&rows, &all).unwrap();
        assert_eq!(keys.iter().collect::<Vec<_>>(), expected);
        let none = Keys::of(&rows, &[]).unwrap();
        assert_eq!(none.iter().collect::<Vec<_>>(), ["", ""]);
    }
}
