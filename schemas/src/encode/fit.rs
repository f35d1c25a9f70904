//! How a column becomes what a field wants, or why it can't.

use std::sync::Arc;

use apache_avro::schema::{RecordField, Schema};
use arrow::array::{
    Array, ArrayRef, AsArray, DictionaryArray, Int32Array, RecordBatch, StringArray, new_null_array,
};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema as ArrowSchema, TimeUnit};

use super::EncodeError;
use crate::registry::compatibility::name_of;

/// One field of the output, and the column that it is made from.
#[derive(Clone, Debug)]
pub(super) struct Fit {
    name: String,
    /// `None`: there is no such column, and the field's default is null.
    column: Option<usize>,
    to: DataType,
    nullable: bool,
    how: How,
    /// What the schema calls the field's type.
    wanted: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum How {
    AsIs,
    Convert,
    /// Convert, and see that converting back gives the same.
    ConvertChecked,
    /// Text to one of these symbols.
    Symbols(Vec<String>),
}

impl Fit {
    pub(super) fn new(
        field: &RecordField,
        target: &Field,
        arrow: &ArrowSchema,
    ) -> Result<Self, EncodeError> {
        let wanted = name_of(&field.schema);
        let refuse = |detail: String| EncodeError::Column {
            column: field.name.clone(),
            detail,
        };
        let Some((column, given)) = arrow.column_with_name(&field.name) else {
            let default_is_null = field.default.as_ref().is_some_and(|value| value.is_null());
            if target.is_nullable() && default_is_null {
                return Ok(Self {
                    name: field.name.clone(),
                    column: None,
                    to: target.data_type().clone(),
                    nullable: true,
                    how: How::AsIs,
                    wanted,
                });
            }
            return Err(refuse(format!(
                "the batch has no such column, and the schema wants {wanted}"
            )));
        };
        let (from, to) = (given.data_type(), target.data_type());
        let how = match symbols(&field.schema) {
            Some(symbols) if is_text(from) => How::Symbols(symbols),
            _ => conversion(from, to).ok_or_else(|| {
                refuse(format!("it is {from}, and the schema wants {wanted}; CAST it to {to}, or change the schema"))
            })?,
        };
        Ok(Self {
            name: field.name.clone(),
            column: Some(column),
            to: to.clone(),
            nullable: target.is_nullable(),
            how,
            wanted,
        })
    }

    pub(super) fn apply(&self, batch: &RecordBatch) -> Result<ArrayRef, EncodeError> {
        let refuse = |detail: String| EncodeError::Column {
            column: self.name.clone(),
            detail,
        };
        let Some(column) = self.column else {
            return Ok(new_null_array(&self.to, batch.num_rows()));
        };
        let column = batch.column(column);
        if !self.nullable && column.logical_null_count() > 0 {
            return Err(refuse(format!(
                "it holds null, and the schema wants {}; use COALESCE, or make the field nullable",
                self.wanted
            )));
        }
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        match &self.how {
            How::AsIs => Ok(Arc::clone(column)),
            How::Convert => {
                cast_with_options(column, &self.to, &strict).map_err(|e| refuse(e.to_string()))
            }
            How::ConvertChecked => {
                let converted = cast_with_options(column, &self.to, &strict)
                    .map_err(|e| refuse(format!("the schema wants {}: {e}", self.wanted)))?;
                let back =
                    cast(&converted, column.data_type()).map_err(|e| refuse(e.to_string()))?;
                if back.to_data() != column.to_data() {
                    return Err(refuse(format!(
                        "it holds values that {} can't; round or truncate them first",
                        self.wanted
                    )));
                }
                Ok(converted)
            }
            How::Symbols(symbols) => to_symbols(column, symbols).map_err(refuse),
        }
    }
}

/// The symbols of an enumeration, nullable or not.
fn symbols(schema: &Schema) -> Option<Vec<String>> {
    match schema {
        Schema::Enum(symbols) => Some(symbols.symbols.clone()),
        Schema::Union(union) => match union.variants() {
            [Schema::Null, other] | [other, Schema::Null] => symbols(other),
            _ => None,
        },
        _ => None,
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}

fn is_bytes(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView
    )
}

/// How one type becomes another without loss; `None` when it does not.
fn conversion(from: &DataType, to: &DataType) -> Option<How> {
    use DataType as T;
    if from == to {
        return Some(How::AsIs);
    }
    let convert = match (from, to) {
        (T::Null, _) => true,
        (T::Int8 | T::Int16 | T::UInt8 | T::UInt16, T::Int32) => true,
        (T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 | T::UInt32, T::Int64) => true,
        (
            T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 | T::UInt32 | T::Float32,
            T::Float64,
        ) => true,
        (T::Int8 | T::Int16 | T::UInt8 | T::UInt16, T::Float32) => true,
        (T::UInt64, T::Int64) => return Some(How::ConvertChecked),
        (from, T::Utf8) if is_text(from) => true,
        (from, T::Binary) if is_bytes(from) => true,
        (T::Timestamp(from, _), T::Timestamp(to, _)) => {
            if finer(*from) > finer(*to) {
                return Some(How::ConvertChecked);
            }
            true
        }
        (T::List(a), T::List(b)) | (T::LargeList(a), T::List(b)) => same_inside(a, b),
        (T::Struct(a), T::Struct(b)) => {
            a.len() == b.len()
                && a.iter()
                    .zip(b)
                    .all(|(a, b)| a.name() == b.name() && same_inside(a, b))
        }
        (T::Map(a, _), T::Map(b, _)) => match (a.data_type(), b.data_type()) {
            (T::Struct(a), T::Struct(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_inside(a, b))
            }
            _ => false,
        },
        _ => false,
    };
    convert.then_some(How::Convert)
}

/// Whether a nested value fits unseen: its conversion must not need a check, nor may nulls appear where none are wanted.
fn same_inside(from: &Field, to: &Field) -> bool {
    (to.is_nullable() || !from.is_nullable())
        && matches!(
            conversion(from.data_type(), to.data_type()),
            Some(How::AsIs | How::Convert)
        )
}

fn finer(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 1,
        TimeUnit::Microsecond => 2,
        TimeUnit::Nanosecond => 3,
    }
}

/// Text as numbers of symbols.
fn to_symbols(column: &ArrayRef, symbols: &[String]) -> Result<ArrayRef, String> {
    let texts = cast(column, &DataType::Utf8).map_err(|e| e.to_string())?;
    let numbers = texts
        .as_string::<i32>()
        .iter()
        .map(|text| {
            text.map(|text| {
                let number = symbols.iter().position(|symbol| symbol == text);
                number.and_then(|n| i32::try_from(n).ok()).ok_or_else(|| {
                    format!(
                        "it holds {text:?}, and the schema's symbols are {}",
                        symbols.join(", ")
                    )
                })
            })
            .transpose()
        })
        .collect::<Result<Int32Array, String>>()?;
    let values: StringArray = symbols.iter().map(Some).collect();
    DictionaryArray::try_new(numbers, Arc::new(values))
        .map(|array| Arc::new(array) as ArrayRef)
        .map_err(|e| e.to_string())
}
