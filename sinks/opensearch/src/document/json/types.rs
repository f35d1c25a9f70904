//! Which Arrow types documents can hold.

use arrow::datatypes::{DataType, Field, TimeUnit};

/// Whether documents can hold values of this field; the name of a nested field that they can't.
pub(crate) fn supported(field: &Field) -> Result<(), String> {
    let refuse = || Err(format!("{} ({})", field.name(), field.data_type()));
    match field.data_type() {
        DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Utf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::FixedSizeBinary(_)
        | DataType::Decimal128(_, _)
        | DataType::Date32
        | DataType::Time32(TimeUnit::Millisecond)
        | DataType::Time64(TimeUnit::Microsecond)
        | DataType::Timestamp(_, _) => Ok(()),
        DataType::Dictionary(key, value)
            if **key == DataType::Int32 && **value == DataType::Utf8 =>
        {
            Ok(())
        }
        DataType::Struct(fields) => fields.iter().try_for_each(|field| supported(field)),
        DataType::List(item) => supported(item),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(fields)
                if matches!(fields[0].data_type(), DataType::Utf8 | DataType::Utf8View) =>
            {
                supported(&fields[1])
            }
            _ => refuse(),
        },
        _ => refuse(),
    }
}

/// Whether a field's values can be part of an id: those with one exact text each.
pub(crate) fn can_be_key(field: &Field) -> bool {
    match field.data_type() {
        DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Utf8
        | DataType::Utf8View
        | DataType::Date32
        | DataType::Dictionary(_, _)
        | DataType::Timestamp(_, _) => true,
        DataType::FixedSizeBinary(_) => is_uuid(field),
        _ => false,
    }
}

pub(super) fn is_uuid(field: &Field) -> bool {
    *field.data_type() == DataType::FixedSizeBinary(16)
        && field
            .metadata()
            .get("logicalType")
            .is_some_and(|logical| logical == "uuid")
}
