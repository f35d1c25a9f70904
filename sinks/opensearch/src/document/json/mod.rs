//! Arrow values as JSON, so that OpenSearch's strict mappings take them without guessing.
//!
//! | Arrow | JSON | mapping |
//! |---|---|---|
//! | timestamp | `"2016-01-01T00:00:00.000Z"`, with as many digits as the unit has; no `Z` when it has no zone | date, date_nanos |
//! | date, time | `"2016-01-01"`, `"10:00:00.000"` | date, keyword |
//! | whole numbers, booleans | as they are | integer, long, boolean |
//! | floats | shortest text that reads back to the same float; not-a-number and infinity have no JSON and are refused | double, float |
//! | text, enum, uuid, decimal | text (a decimal as its exact digits) | keyword |
//! | bytes | base64 | binary |
//! | record, array, map | object, array, object | object |
//!
//! Null fields of a record are left out: to OpenSearch, a missing field and a null are the same.

mod text;
mod types;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Decimal128Array, FixedSizeBinaryArray,
    ListArray, MapArray, StringArray, StringViewArray,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Field, Float32Type, Float64Type, Int32Type, Int64Type,
    Time32MillisecondType, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
    TimestampMillisecondType, TimestampNanosecondType, TimestampSecondType,
};
use base64::Engine;

use super::Refusal;
use text::{hex, write_date, write_time};
use types::is_uuid;

pub(crate) use text::{member_name, put, separate};
pub(crate) use types::{can_be_key, supported};

/// Milliseconds of a day.
const DAY_MS: i64 = 86_400_000;

/// One column of a batch, looked up once.
pub(crate) struct Cells<'a> {
    nulls: Option<NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Boolean(&'a BooleanArray),
    Int32(&'a [i32]),
    Int64(&'a [i64]),
    Float32(&'a [f32]),
    Float64(&'a [f64]),
    Text(&'a StringArray),
    TextView(&'a StringViewArray),
    Enum {
        keys: &'a [i32],
        symbols: Box<Cells<'a>>,
    },
    Bytes(&'a BinaryArray),
    FixedBytes(&'a FixedSizeBinaryArray),
    Uuid(&'a FixedSizeBinaryArray),
    Decimal(&'a Decimal128Array),
    Date(&'a [i32]),
    TimeMillis(&'a [i32]),
    TimeMicros(&'a [i64]),
    Timestamp {
        values: &'a [i64],
        unit: TimeUnit,
        zoned: bool,
    },
    Record(Vec<(Vec<u8>, Cells<'a>)>),
    List {
        array: &'a ListArray,
        items: Box<Cells<'a>>,
    },
    Map {
        array: &'a MapArray,
        keys: Box<Cells<'a>>,
        items: Box<Cells<'a>>,
    },
}

impl<'a> Cells<'a> {
    /// Looks into a column. `None` for a type that [`supported`] refuses.
    pub(crate) fn new(field: &Field, array: &'a ArrayRef) -> Option<Self> {
        let values = match array.data_type() {
            DataType::Boolean => Values::Boolean(array.as_boolean()),
            DataType::Int32 => Values::Int32(array.as_primitive::<Int32Type>().values()),
            DataType::Int64 => Values::Int64(array.as_primitive::<Int64Type>().values()),
            DataType::Float32 => Values::Float32(array.as_primitive::<Float32Type>().values()),
            DataType::Float64 => Values::Float64(array.as_primitive::<Float64Type>().values()),
            DataType::Utf8 => Values::Text(array.as_string()),
            DataType::Utf8View => Values::TextView(array.as_string_view()),
            DataType::Binary => Values::Bytes(array.as_binary()),
            DataType::FixedSizeBinary(_) if is_uuid(field) => {
                Values::Uuid(array.as_fixed_size_binary())
            }
            DataType::FixedSizeBinary(_) => Values::FixedBytes(array.as_fixed_size_binary()),
            DataType::Decimal128(_, _) => Values::Decimal(array.as_primitive()),
            DataType::Date32 => Values::Date(array.as_primitive::<Date32Type>().values()),
            DataType::Time32(TimeUnit::Millisecond) => {
                Values::TimeMillis(array.as_primitive::<Time32MillisecondType>().values())
            }
            DataType::Time64(TimeUnit::Microsecond) => {
                Values::TimeMicros(array.as_primitive::<Time64MicrosecondType>().values())
            }
            DataType::Timestamp(unit, zone) => {
                let values = match unit {
                    TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
                    TimeUnit::Millisecond => {
                        array.as_primitive::<TimestampMillisecondType>().values()
                    }
                    TimeUnit::Microsecond => {
                        array.as_primitive::<TimestampMicrosecondType>().values()
                    }
                    TimeUnit::Nanosecond => {
                        array.as_primitive::<TimestampNanosecondType>().values()
                    }
                };
                Values::Timestamp {
                    values,
                    unit: *unit,
                    zoned: zone.is_some(),
                }
            }
            DataType::Dictionary(key, _) if **key == DataType::Int32 => {
                let dictionary = array.as_dictionary::<Int32Type>();
                let symbols = Box::new(Self::new(field, dictionary.values())?);
                Values::Enum {
                    keys: dictionary.keys().values(),
                    symbols,
                }
            }
            DataType::Struct(fields) => {
                let array = array.as_struct();
                let columns = fields.iter().zip(array.columns());
                Values::Record(
                    columns
                        .map(|(field, column)| {
                            Some((member_name(field.name()), Self::new(field, column)?))
                        })
                        .collect::<Option<_>>()?,
                )
            }
            DataType::List(item) => {
                let array = array.as_list::<i32>();
                Values::List {
                    array,
                    items: Box::new(Self::new(item, array.values())?),
                }
            }
            DataType::Map(entries, _) => {
                let DataType::Struct(fields) = entries.data_type() else {
                    return None;
                };
                let array = array.as_map();
                Values::Map {
                    array,
                    keys: Box::new(Self::new(&fields[0], array.keys())?),
                    items: Box::new(Self::new(&fields[1], array.values())?),
                }
            }
            _ => return None,
        };
        Some(Self {
            nulls: array.nulls().cloned(),
            values,
        })
    }

    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// Writes a value that is not null as JSON.
    pub(crate) fn write(&self, row: usize, column: &str, out: &mut Vec<u8>) -> Result<(), Refusal> {
        match &self.values {
            Values::Boolean(array) => put(out, &array.value(row)),
            Values::Int32(values) => put(out, &values[row]),
            Values::Int64(values) => put(out, &values[row]),
            Values::Float32(values) if values[row].is_finite() => put(out, &values[row]),
            Values::Float32(values) => return Err(not_finite(column, f64::from(values[row]))),
            Values::Float64(values) if values[row].is_finite() => put(out, &values[row]),
            Values::Float64(values) => return Err(not_finite(column, values[row])),
            Values::Text(array) => put(out, array.value(row)),
            Values::TextView(array) => put(out, array.value(row)),
            Values::Enum { keys, symbols } => symbols.write(symbol(keys, row), column, out)?,
            Values::Bytes(array) => put(
                out,
                &base64::engine::general_purpose::STANDARD.encode(array.value(row)),
            ),
            Values::FixedBytes(array) => put(
                out,
                &base64::engine::general_purpose::STANDARD.encode(array.value(row)),
            ),
            Values::Uuid(_) | Values::Date(_) | Values::Timestamp { .. } => {
                out.push(b'"');
                self.write_text(row, column, out)?;
                out.push(b'"');
            }
            Values::Decimal(array) => put(out, &array.value_as_string(row)),
            Values::TimeMillis(values) => {
                out.push(b'"');
                write_time(i64::from(values[row]), 1_000, 3, out);
                out.push(b'"');
            }
            Values::TimeMicros(values) => {
                out.push(b'"');
                write_time(values[row], 1_000_000, 6, out);
                out.push(b'"');
            }
            Values::Record(fields) => {
                out.push(b'{');
                let mut first = true;
                for (name, cells) in fields.iter().filter(|(_, cells)| !cells.is_null(row)) {
                    separate(&mut first, out);
                    out.extend_from_slice(name);
                    cells.write(row, column, out)?;
                }
                out.push(b'}');
            }
            Values::List { array, items } => {
                out.push(b'[');
                let mut first = true;
                let offsets = array.value_offsets();
                for item in offsets[row] as usize..offsets[row + 1] as usize {
                    separate(&mut first, out);
                    items.write_or_null(item, column, out)?;
                }
                out.push(b']');
            }
            Values::Map { array, keys, items } => {
                out.push(b'{');
                let mut first = true;
                let offsets = array.value_offsets();
                for entry in offsets[row] as usize..offsets[row + 1] as usize {
                    separate(&mut first, out);
                    keys.write(entry, column, out)?;
                    out.push(b':');
                    items.write_or_null(entry, column, out)?;
                }
                out.push(b'}');
            }
        }
        Ok(())
    }

    fn write_or_null(&self, row: usize, column: &str, out: &mut Vec<u8>) -> Result<(), Refusal> {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        self.write(row, column, out)
    }

    /// Writes a value that is not null, of a type that [`can_be_key`], as bare text; two values that differ have
    /// texts that differ.
    pub(crate) fn write_text(
        &self,
        row: usize,
        column: &str,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        match &self.values {
            Values::Text(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::TextView(array) => out.extend_from_slice(array.value(row).as_bytes()),
            Values::Enum { keys, symbols } => symbols.write_text(symbol(keys, row), column, out)?,
            Values::Uuid(array) => {
                for (index, byte) in array.value(row).iter().enumerate() {
                    if matches!(index, 4 | 6 | 8 | 10) {
                        out.push(b'-');
                    }
                    out.extend_from_slice(&[hex(byte >> 4), hex(byte & 15)]);
                }
            }
            Values::Date(values) => {
                write_date(i64::from(values[row]), out)
                    .ok_or_else(|| out_of_range(column, i64::from(values[row])))?;
            }
            Values::Timestamp {
                values,
                unit,
                zoned,
            } => {
                let value = values[row];
                let (per_second, digits) = match unit {
                    TimeUnit::Second => (1, 0),
                    TimeUnit::Millisecond => (1_000, 3),
                    TimeUnit::Microsecond => (1_000_000, 6),
                    TimeUnit::Nanosecond => (1_000_000_000, 9),
                };
                let day = per_second * (DAY_MS / 1_000);
                write_date(value.div_euclid(day), out)
                    .ok_or_else(|| out_of_range(column, value))?;
                out.push(b'T');
                write_time(value.rem_euclid(day), per_second, digits, out);
                if *zoned {
                    out.push(b'Z');
                }
            }
            _ => self.write(row, column, out)?,
        }
        Ok(())
    }

    /// A value that is not null, as a whole number.
    pub(crate) fn integer(&self, row: usize) -> Option<i64> {
        match &self.values {
            Values::Int32(values) => Some(i64::from(values[row])),
            Values::Int64(values) => Some(values[row]),
            _ => None,
        }
    }

    /// A value that is not null, as a float.
    pub(crate) fn float(&self, row: usize) -> Option<f64> {
        match &self.values {
            Values::Float32(values) => Some(f64::from(values[row])),
            Values::Float64(values) => Some(values[row]),
            _ => None,
        }
    }

    /// A value that is not null, as an instant in milliseconds since 1970 (UTC).
    pub(crate) fn instant_ms(&self, row: usize) -> Option<i64> {
        match &self.values {
            Values::Timestamp { values, unit, .. } => match unit {
                TimeUnit::Second => values[row].checked_mul(1_000),
                TimeUnit::Millisecond => Some(values[row]),
                TimeUnit::Microsecond => Some(values[row].div_euclid(1_000)),
                TimeUnit::Nanosecond => Some(values[row].div_euclid(1_000_000)),
            },
            Values::Date(values) => Some(i64::from(values[row]) * DAY_MS),
            _ => None,
        }
    }
}

/// The place of a row's symbol in its dictionary. Arrow's dictionary arrays check that keys lie inside.
fn symbol(keys: &[i32], row: usize) -> usize {
    keys[row] as usize
}

fn not_finite(column: &str, value: f64) -> Refusal {
    Refusal::new("not_finite", column, format!("{value} has no JSON"))
}

fn out_of_range(column: &str, value: i64) -> Refusal {
    Refusal::new(
        "time_out_of_range",
        column,
        format!("{value} has no year from 1 to 9999"),
    )
}
