//! The columns that cells are gathered in.

use std::fmt;
use std::sync::Arc;

use arrow::array::timezone::Tz;
use arrow::array::{
    ArrayRef, BooleanBuilder, Date32Builder, Float32Builder, Float64Builder, Int32Builder,
    Int64Builder, StringBuilder, TimestampMillisecondBuilder,
};
use arrow::compute::kernels::cast_utils::{Parser, string_to_datetime};
use arrow::datatypes::{DataType, Date32Type, TimeUnit};

use super::cell::{Cell, Cells};

/// What a column takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    BigInt,
    Real,
    Double,
    Text,
    Date,
    Timestamp,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bool => "true or false (BOOLEAN)",
            Self::Int => "a whole number of 32 bits (INT)",
            Self::BigInt => "a whole number of 64 bits (BIGINT)",
            Self::Real => "a number (REAL)",
            Self::Double => "a number (DOUBLE)",
            Self::Text => "a string (TEXT)",
            Self::Date => "a string such as \"2026-01-31\" (DATE)",
            Self::Timestamp => {
                "milliseconds since 1970, or a string such as \"2026-01-31T12:00:00Z\" (TIMESTAMP)"
            }
        })
    }
}

impl Kind {
    pub(super) fn of(data_type: &DataType) -> Option<Self> {
        Some(match data_type {
            DataType::Boolean => Self::Bool,
            DataType::Int32 => Self::Int,
            DataType::Int64 => Self::BigInt,
            DataType::Float32 => Self::Real,
            DataType::Float64 => Self::Double,
            DataType::Utf8 => Self::Text,
            DataType::Date32 => Self::Date,
            DataType::Timestamp(TimeUnit::Millisecond, Some(zone)) if **zone == *UTC => {
                Self::Timestamp
            }
            _ => return None,
        })
    }

    pub(super) fn column(self) -> Column {
        match self {
            Self::Bool => Column::Bool(BooleanBuilder::new()),
            Self::Int => Column::Int(Int32Builder::new()),
            Self::BigInt => Column::BigInt(Int64Builder::new()),
            Self::Real => Column::Real(Float32Builder::new()),
            Self::Double => Column::Double(Float64Builder::new()),
            Self::Text => Column::Text(StringBuilder::new()),
            Self::Date => Column::Date(Date32Builder::new()),
            Self::Timestamp => {
                Column::Timestamp(TimestampMillisecondBuilder::new().with_timezone(UTC))
            }
        }
    }

    /// A date in days, or an instant in milliseconds, since 1970.
    pub(super) fn instant(self, text: &str) -> Option<i64> {
        if self == Self::Date {
            return Date32Type::parse(text).map(i64::from);
        }
        let utc: Tz = UTC.parse().ok()?;
        let instant = string_to_datetime(&utc, text).ok()?;
        Some(instant.timestamp_millis())
    }
}

/// The zone of instants.
const UTC: &str = "+00:00";

/// A column that grows.
#[derive(Debug)]
pub(super) enum Column {
    Bool(BooleanBuilder),
    Int(Int32Builder),
    BigInt(Int64Builder),
    Real(Float32Builder),
    Double(Float64Builder),
    Text(StringBuilder),
    Date(Date32Builder),
    Timestamp(TimestampMillisecondBuilder),
}

impl Column {
    /// Takes a cell, which was made for its kind.
    pub(super) fn push(&mut self, cells: &Cells, place: usize) {
        match (self, cells.get(place)) {
            (Self::Bool(column), Cell::Bool(value)) => column.append_value(*value),
            (Self::Int(column), Cell::Integer(value)) => {
                column.append_option(i32::try_from(*value).ok());
            }
            (Self::BigInt(column), Cell::Integer(value)) => column.append_value(*value),
            (Self::Real(column), Cell::Number(value)) => column.append_value(*value as f32),
            (Self::Double(column), Cell::Number(value)) => column.append_value(*value),
            (Self::Text(column), Cell::Text(range)) => column.append_value(cells.text(range)),
            (Self::Date(column), Cell::Integer(value)) => {
                column.append_option(i32::try_from(*value).ok());
            }
            (Self::Timestamp(column), Cell::Integer(value)) => column.append_value(*value),
            (Self::Bool(column), _) => column.append_null(),
            (Self::Int(column), _) => column.append_null(),
            (Self::BigInt(column), _) => column.append_null(),
            (Self::Real(column), _) => column.append_null(),
            (Self::Double(column), _) => column.append_null(),
            (Self::Text(column), _) => column.append_null(),
            (Self::Date(column), _) => column.append_null(),
            (Self::Timestamp(column), _) => column.append_null(),
        }
    }

    /// What was gathered; nothing is left.
    pub(super) fn take(&mut self) -> ArrayRef {
        match self {
            Self::Bool(column) => Arc::new(column.finish()),
            Self::Int(column) => Arc::new(column.finish()),
            Self::BigInt(column) => Arc::new(column.finish()),
            Self::Real(column) => Arc::new(column.finish()),
            Self::Double(column) => Arc::new(column.finish()),
            Self::Text(column) => Arc::new(column.finish()),
            Self::Date(column) => Arc::new(column.finish()),
            Self::Timestamp(column) => Arc::new(column.finish()),
        }
    }
}
