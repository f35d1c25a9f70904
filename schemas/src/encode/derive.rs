//! An Avro schema for Arrow columns, where none is registered.

use arrow::datatypes::{DataType, Field, Fields, Schema as ArrowSchema, TimeUnit};
use serde_json::{Value, json};

use super::EncodeError;
use crate::avro;

/// The Avro schema of records with these columns. Nullable columns become unions with null, defaulting to it. Instants are
/// UTC, with a time zone or without.
///
/// # Errors
/// [`EncodeError::Column`] names a column whose name or type Avro has no match for.
pub fn avro_schema_for(
    arrow: &ArrowSchema,
    name: &str,
    namespace: &str,
) -> Result<String, EncodeError> {
    let mut record =
        json!({"type": "record", "name": name, "fields": fields(arrow.fields(), name)?});
    if !namespace.is_empty() {
        record["namespace"] = Value::String(namespace.to_owned());
    }
    let text = record.to_string();
    avro::parse(&text).map_err(|detail| EncodeError::Schema { detail })?;
    Ok(text)
}

fn fields(columns: &Fields, record: &str) -> Result<Vec<Value>, EncodeError> {
    columns.iter().map(|column| field(column, record)).collect()
}

fn field(column: &Field, record: &str) -> Result<Value, EncodeError> {
    let name = column.name();
    let valid = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !valid {
        return Err(refuse(
            column,
            "Avro names have letters, digits and _ only, and begin with no digit; name it with AS",
        ));
    }
    let of = nullable(column, &format!("{record}_{name}"))?;
    Ok(if column.is_nullable() {
        json!({"name": name, "type": of, "default": null})
    } else {
        json!({"name": name, "type": of})
    })
}

/// A column's type, in a union with null if it is nullable.
fn nullable(column: &Field, record: &str) -> Result<Value, EncodeError> {
    let of = type_of(column, record)?;
    Ok(if column.is_nullable() {
        json!(["null", of])
    } else {
        of
    })
}

fn type_of(column: &Field, record: &str) -> Result<Value, EncodeError> {
    use DataType as T;
    let logical = |base: &str, name: &str| json!({"type": base, "logicalType": name});
    Ok(match column.data_type() {
        T::Boolean => json!("boolean"),
        T::Int8 | T::Int16 | T::Int32 | T::UInt8 | T::UInt16 => json!("int"),
        T::Int64 | T::UInt32 | T::UInt64 => json!("long"),
        T::Float32 => json!("float"),
        T::Float64 => json!("double"),
        T::Utf8 | T::LargeUtf8 | T::Utf8View => json!("string"),
        T::Dictionary(_, values) if matches!(**values, T::Utf8 | T::LargeUtf8 | T::Utf8View) => {
            json!("string")
        }
        T::Binary | T::LargeBinary | T::BinaryView => json!("bytes"),
        T::Date32 => logical("int", "date"),
        T::Time32(TimeUnit::Millisecond) => logical("int", "time-millis"),
        T::Time64(TimeUnit::Microsecond) => logical("long", "time-micros"),
        T::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _) => {
            logical("long", "timestamp-millis")
        }
        T::Timestamp(TimeUnit::Microsecond, _) => logical("long", "timestamp-micros"),
        T::Timestamp(TimeUnit::Nanosecond, _) => logical("long", "timestamp-nanos"),
        T::Decimal128(precision, scale) if *scale >= 0 => {
            json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
        }
        T::List(item) | T::LargeList(item) => {
            json!({"type": "array", "items": nullable(item, record)?})
        }
        T::Struct(inner) => {
            json!({"type": "record", "name": record, "fields": fields(inner, record)?})
        }
        T::Map(entries, _) => match entries.data_type() {
            T::Struct(pair) if pair.len() == 2 && *pair[0].data_type() == T::Utf8 => {
                json!({"type": "map", "values": nullable(&pair[1], record)?})
            }
            _ => {
                return Err(refuse(
                    column,
                    "the keys of an Avro map are text; CAST them",
                ));
            }
        },
        other => {
            return Err(refuse(
                column,
                &format!("Avro has no match for {other}; CAST it to another type"),
            ));
        }
    })
}

fn refuse(column: &Field, detail: &str) -> EncodeError {
    EncodeError::Column {
        column: column.name().clone(),
        detail: detail.to_owned(),
    }
}
