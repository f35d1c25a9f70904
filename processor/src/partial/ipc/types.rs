//! The types of plain columns.

use std::sync::Arc;

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use arrow_ipc::{DateUnit, Precision, Type};

/// The type of a plain column; `None` if it is none.
pub(super) fn data_type(field: &arrow_ipc::Field<'_>) -> Option<DataType> {
    let nested = field
        .children()
        .is_some_and(|children| !children.is_empty());
    if nested || field.dictionary().is_some() {
        return None;
    }
    let unit = |unit| {
        Some(match unit {
            arrow_ipc::TimeUnit::SECOND => TimeUnit::Second,
            arrow_ipc::TimeUnit::MILLISECOND => TimeUnit::Millisecond,
            arrow_ipc::TimeUnit::MICROSECOND => TimeUnit::Microsecond,
            arrow_ipc::TimeUnit::NANOSECOND => TimeUnit::Nanosecond,
            _ => return None,
        })
    };
    Some(match field.type_type() {
        Type::Bool => DataType::Boolean,
        Type::Utf8 => DataType::Utf8,
        Type::LargeUtf8 => DataType::LargeUtf8,
        Type::Binary => DataType::Binary,
        Type::LargeBinary => DataType::LargeBinary,
        Type::Int => {
            let int = field.type_as_int()?;
            match (int.bitWidth(), int.is_signed()) {
                (8, true) => DataType::Int8,
                (16, true) => DataType::Int16,
                (32, true) => DataType::Int32,
                (64, true) => DataType::Int64,
                (8, false) => DataType::UInt8,
                (16, false) => DataType::UInt16,
                (32, false) => DataType::UInt32,
                (64, false) => DataType::UInt64,
                _ => return None,
            }
        }
        Type::FloatingPoint => match field.type_as_floating_point()?.precision() {
            Precision::HALF => DataType::Float16,
            Precision::SINGLE => DataType::Float32,
            Precision::DOUBLE => DataType::Float64,
            _ => return None,
        },
        Type::Date => match field.type_as_date()?.unit() {
            DateUnit::DAY => DataType::Date32,
            DateUnit::MILLISECOND => DataType::Date64,
            _ => return None,
        },
        Type::Time => {
            let time = field.type_as_time()?;
            match (time.bitWidth(), unit(time.unit())?) {
                (32, unit @ (TimeUnit::Second | TimeUnit::Millisecond)) => DataType::Time32(unit),
                (64, unit @ (TimeUnit::Microsecond | TimeUnit::Nanosecond)) => {
                    DataType::Time64(unit)
                }
                _ => return None,
            }
        }
        Type::Timestamp => {
            let timestamp = field.type_as_timestamp()?;
            DataType::Timestamp(unit(timestamp.unit())?, timestamp.timezone().map(Arc::from))
        }
        Type::Duration => DataType::Duration(unit(field.type_as_duration()?.unit())?),
        Type::Interval => DataType::Interval(match field.type_as_interval()?.unit() {
            arrow_ipc::IntervalUnit::YEAR_MONTH => IntervalUnit::YearMonth,
            arrow_ipc::IntervalUnit::DAY_TIME => IntervalUnit::DayTime,
            arrow_ipc::IntervalUnit::MONTH_DAY_NANO => IntervalUnit::MonthDayNano,
            _ => return None,
        }),
        Type::Decimal => {
            let decimal = field.type_as_decimal()?;
            let precision = u8::try_from(decimal.precision()).ok()?;
            let scale = i8::try_from(decimal.scale()).ok()?;
            match decimal.bitWidth() {
                32 => DataType::Decimal32(precision, scale),
                64 => DataType::Decimal64(precision, scale),
                128 => DataType::Decimal128(precision, scale),
                256 => DataType::Decimal256(precision, scale),
                _ => return None,
            }
        }
        _ => return None,
    })
}
