//! The Arrow schema of an Avro schema.

use std::sync::Arc;

use apache_avro::schema::ResolvedSchema;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::{general, walk};
use crate::avro;

/// The Arrow schema of an Avro schema, as arrow-avro maps it; without metadata, which differs with the writer.
pub(crate) fn arrow_schema(avro_schema: &str) -> Result<SchemaRef, String> {
    let parsed = avro::parse(avro_schema)?;
    let names = ResolvedSchema::new(&parsed).map_err(|e| e.to_string())?;
    walk::compile(&parsed, names.get_names())?;
    let mapped = general::decoder(0, avro_schema, avro_schema)?.schema();
    for field in mapped.fields() {
        let data_type = field.data_type();
        let empty = matches!(data_type, DataType::Struct(of) if of.is_empty());
        if empty || inside(data_type).into_iter().any(makes_no_column) {
            return Err(format!(
                "field `{}` is or holds a record without fields, or holds null in a place of its own: no column",
                field.name()
            ));
        }
    }
    let fields: Vec<Field> = mapped
        .fields()
        .iter()
        .map(|f| Field::new(f.name(), f.data_type().clone(), f.is_nullable()))
        .collect();
    Ok(Arc::new(Schema::new(fields)))
}

/// Whether arrow-avro can't build a nested column of this type.
fn makes_no_column(data_type: &DataType) -> bool {
    match data_type {
        DataType::Null => true,
        DataType::Struct(fields) if fields.is_empty() => true,
        other => inside(other).into_iter().any(makes_no_column),
    }
}

/// The types within a nested type. Null is at home among the branches of a union.
fn inside(data_type: &DataType) -> Vec<&DataType> {
    match data_type {
        DataType::Struct(fields) => fields.iter().map(|f| f.data_type()).collect(),
        DataType::List(item) | DataType::Map(item, _) => vec![item.data_type()],
        DataType::Union(branches, _) => branches
            .iter()
            .map(|(_, branch)| branch.data_type())
            .filter(|t| **t != DataType::Null)
            .collect(),
        _ => Vec::new(),
    }
}
