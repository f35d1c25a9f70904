//! From schemas to operations.

use apache_avro::schema::{NamesRef, RecordSchema, Schema};
use serde_json::Value;

use super::super::walk::{self, Step};
use super::{Branch, Columns, Constant, Operation, Place, Program, Read};

/// Compiles a writer's schema against the reader's columns; `None` when it takes the general way.
///
/// The two have been checked to resolve.
pub(crate) fn compile(
    writer: &RecordSchema,
    writer_names: &NamesRef<'_>,
    reader: &RecordSchema,
    columns: &Columns,
) -> Result<Option<Program>, String> {
    let mut operations: Vec<Operation> = Vec::with_capacity(writer.fields.len());
    let mut taken = vec![false; reader.fields.len()];
    for (index, field) in writer.fields.iter().enumerate() {
        let target = reader.fields.iter().position(|r| r.name == field.name);
        let (branch, written) = optional(&field.schema);
        let read = match target {
            Some(target) => {
                taken[target] = true;
                let (_, wanted) = optional(&reader.fields[target].schema);
                match read_into(written, wanted, columns.places[target]) {
                    Some(read) => read,
                    None => return Ok(None),
                }
            }
            None => {
                let step = walk::compile(written, writer_names)?;
                // Neighbours of a fixed size are stepped over together.
                if let (
                    Branch::None,
                    Step::Fixed(size),
                    Some(Operation {
                        branch: Branch::None,
                        read: Read::Over(Step::Fixed(before)),
                        ..
                    }),
                ) = (branch, &step, operations.last_mut())
                {
                    *before = before.saturating_add(*size);
                    continue;
                }
                operations.push(Operation {
                    branch,
                    read: Read::Over(step),
                    field: index,
                });
                continue;
            }
        };
        operations.push(Operation {
            branch,
            read,
            field: index,
        });
    }
    let mut constants = Vec::new();
    for (index, field) in reader
        .fields
        .iter()
        .enumerate()
        .filter(|(index, _)| !taken[*index])
    {
        let renamed = field
            .aliases
            .iter()
            .any(|alias| writer.fields.iter().any(|w| w.name == *alias));
        let constant = field
            .default
            .as_ref()
            .and_then(|default| constant(default, &field.schema, columns.places[index]));
        match constant {
            Some(constant) if !renamed => constants.push(constant),
            _ => return Ok(None),
        }
    }
    let fields = writer
        .fields
        .iter()
        .map(|field| field.name.clone())
        .collect();
    Ok(Some(Program {
        operations,
        constants,
        fields,
    }))
}

/// A union of null and another as that other.
fn optional(schema: &Schema) -> (Branch, &Schema) {
    if let Schema::Union(union) = schema {
        match union.variants() {
            [Schema::Null, other] => return (Branch::NullIs(0), other),
            [other, Schema::Null] => return (Branch::NullIs(1), other),
            _ => {}
        }
    }
    (Branch::None, schema)
}

fn read_into(written: &Schema, wanted: &Schema, place: Place) -> Option<Read> {
    let written = stored_as(written)?;
    stored_as(wanted)?;
    Some(match (written, place) {
        (Stored::Null, Place::Null) => Read::Over(Step::Null),
        (Stored::Int, Place::I32(column)) => Read::Int(column),
        (Stored::Int, Place::I64(column)) => Read::IntAsLong(column),
        (Stored::Int, Place::F32(column)) => Read::IntAsFloat(column),
        (Stored::Int, Place::F64(column)) => Read::IntAsDouble(column),
        (Stored::Long, Place::I64(column)) => Read::Long(column),
        (Stored::Long, Place::F32(column)) => Read::LongAsFloat(column),
        (Stored::Long, Place::F64(column)) => Read::LongAsDouble(column),
        (Stored::Float, Place::F32(column)) => Read::Float(column),
        (Stored::Float, Place::F64(column)) => Read::FloatAsDouble(column),
        (Stored::Double, Place::F64(column)) => Read::Double(column),
        (Stored::Boolean, Place::Boolean(column)) => Read::Boolean(column),
        (Stored::Text, Place::Bytes(column)) => Read::Text(column),
        (Stored::Bytes, Place::Bytes(column)) if matches!(wanted, Schema::Bytes) => {
            Read::Bytes(column)
        }
        (Stored::Bytes, Place::Bytes(column)) if matches!(wanted, Schema::String) => {
            Read::Text(column)
        }
        _ => return None,
    })
}

enum Stored {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Text,
    Bytes,
}

/// How a plain type is stored; `None` for the others.
fn stored_as(schema: &Schema) -> Option<Stored> {
    Some(match schema {
        Schema::Null => Stored::Null,
        Schema::Boolean => Stored::Boolean,
        Schema::Int | Schema::Date | Schema::TimeMillis => Stored::Int,
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Stored::Long,
        Schema::Float => Stored::Float,
        Schema::Double => Stored::Double,
        Schema::String => Stored::Text,
        Schema::Bytes => Stored::Bytes,
        _ => return None,
    })
}

/// A field's default, as its column takes it.
fn constant(default: &Value, schema: &Schema, place: Place) -> Option<Constant> {
    let (_, plain) = optional(schema);
    let nullable = matches!(schema, Schema::Union(_)) || matches!(plain, Schema::Null);
    Some(match (default, place) {
        (Value::Null, place) if nullable => Constant::Null(place),
        (Value::Number(n), Place::I32(column)) => {
            Constant::I32(column, i32::try_from(n.as_i64()?).ok()?)
        }
        (Value::Number(n), Place::I64(column)) => Constant::I64(column, n.as_i64()?),
        (Value::Number(n), Place::F32(column)) => Constant::F32(column, n.as_f64()? as f32),
        (Value::Number(n), Place::F64(column)) => Constant::F64(column, n.as_f64()?),
        (Value::Bool(b), Place::Boolean(column)) => Constant::Boolean(column, *b),
        (Value::String(s), Place::Bytes(column)) if matches!(plain, Schema::String) => {
            Constant::Bytes(column, s.as_bytes().into())
        }
        // A default for bytes stands for one byte per character.
        (Value::String(s), Place::Bytes(column)) if matches!(plain, Schema::Bytes) => {
            Constant::Bytes(
                column,
                s.chars()
                    .map(|c| u8::try_from(u32::from(c)).ok())
                    .collect::<Option<_>>()?,
            )
        }
        _ => return None,
    })
}
