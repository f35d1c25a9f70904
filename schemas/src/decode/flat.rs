//! The fast way for records of plain fields: a writer's schema is compiled to one operation per field, which checks the
//! value and appends it to its column, or steps over it. After a fault the columns are cut back to the rows before.
//!
//! ```text
//!   writer's fields      id:string  vendor_id:int  pickup_at:long  …        (bytes of one record, in this order)
//!   operations           step over  → i32s[0]      → i64s[0]       …  constants for fields the writer lacks
//!   reader's columns     vendor_id = i32s[0]   pickup_at = i64s[0]
//! ```

use std::sync::Arc;

use apache_avro::schema::{NamesRef, RecordSchema, Schema};
use arrow::array::{
    ArrayData, ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, NullArray, StringArray,
    make_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use serde_json::Value;

use super::cursor::{Cursor, Fault};
use super::walk::{self, Step};

/// What one operation reads, and which of the columns of that kind takes it.
#[derive(Clone, Debug)]
enum Read {
    Int(usize),
    IntAsLong(usize),
    IntAsFloat(usize),
    IntAsDouble(usize),
    Long(usize),
    LongAsFloat(usize),
    LongAsDouble(usize),
    Float(usize),
    FloatAsDouble(usize),
    Double(usize),
    Boolean(usize),
    Text(usize),
    Bytes(usize),
    Over(Step),
}

/// The union that a value stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Branch {
    None,
    /// A union of two, null being the branch of this number.
    NullIs(i64),
}

#[derive(Clone, Debug)]
struct Operation {
    branch: Branch,
    read: Read,
    /// The writer's field.
    field: usize,
}

/// A value for every row, for a field that the writer lacks.
#[derive(Clone, Debug)]
enum Constant {
    Null(Place),
    I32(usize, i32),
    I64(usize, i64),
    F32(usize, f32),
    F64(usize, f64),
    Boolean(usize, bool),
    Bytes(usize, Box<[u8]>),
}

/// A column: its kind, and its number among those of the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Null,
    I32(usize),
    I64(usize),
    F32(usize),
    F64(usize),
    Boolean(usize),
    Bytes(usize),
}

/// A writer's schema, compiled against the columns of the reader's.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    operations: Vec<Operation>,
    constants: Vec<Constant>,
    fields: Vec<String>,
}

/// Where in a record the fault is.
#[derive(Clone, Debug)]
pub(crate) struct FieldFault<'p> {
    pub(crate) field: &'p str,
    pub(crate) fault: Fault,
}

#[derive(Debug)]
struct Values<T> {
    values: Vec<T>,
    valid: Option<BooleanBufferBuilder>,
}

#[derive(Debug)]
struct Strings {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    valid: Option<BooleanBufferBuilder>,
}

/// The reader's columns, while they grow.
#[derive(Debug)]
pub(crate) struct Columns {
    schema: SchemaRef,
    /// By the reader's field.
    places: Vec<Place>,
    i32s: Vec<Values<i32>>,
    i64s: Vec<Values<i64>>,
    f32s: Vec<Values<f32>>,
    f64s: Vec<Values<f64>>,
    booleans: Vec<Values<bool>>,
    strings: Vec<Strings>,
    rows: usize,
}

impl Columns {
    /// Columns of these types; `None` when one of them is not a plain one.
    pub(crate) fn new(schema: SchemaRef) -> Option<Self> {
        let mut columns = Self {
            schema: Arc::clone(&schema),
            places: Vec::with_capacity(schema.fields().len()),
            i32s: Vec::new(),
            i64s: Vec::new(),
            f32s: Vec::new(),
            f64s: Vec::new(),
            booleans: Vec::new(),
            strings: Vec::new(),
            rows: 0,
        };
        for field in schema.fields() {
            let nullable = field.is_nullable();
            let place = match field.data_type() {
                DataType::Null => Place::Null,
                DataType::Int32 | DataType::Date32 | DataType::Time32(_) => {
                    columns.i32s.push(Values::new(nullable));
                    Place::I32(columns.i32s.len() - 1)
                }
                DataType::Int64 | DataType::Time64(_) | DataType::Timestamp(_, _) => {
                    columns.i64s.push(Values::new(nullable));
                    Place::I64(columns.i64s.len() - 1)
                }
                DataType::Float32 => {
                    columns.f32s.push(Values::new(nullable));
                    Place::F32(columns.f32s.len() - 1)
                }
                DataType::Float64 => {
                    columns.f64s.push(Values::new(nullable));
                    Place::F64(columns.f64s.len() - 1)
                }
                DataType::Boolean => {
                    columns.booleans.push(Values::new(nullable));
                    Place::Boolean(columns.booleans.len() - 1)
                }
                DataType::Utf8 | DataType::Binary => {
                    columns.strings.push(Strings::new(nullable));
                    Place::Bytes(columns.strings.len() - 1)
                }
                _ => return None,
            };
            columns.places.push(place);
        }
        Some(columns)
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Reads one record into the columns: all of its bytes, or, after a fault, nothing.
    #[inline]
    pub(crate) fn push<'p>(
        &mut self,
        program: &'p Program,
        body: &[u8],
    ) -> Result<(), FieldFault<'p>> {
        let mut cursor = Cursor::new(body);
        for operation in &program.operations {
            if let Err(fault) = self.execute(operation, &mut cursor) {
                self.cut_back();
                return Err(FieldFault {
                    field: &program.fields[operation.field],
                    fault,
                });
            }
        }
        if !cursor.bytes.is_empty() {
            self.cut_back();
            return Err(FieldFault {
                field: "",
                fault: Fault::Trailing(cursor.bytes.len()),
            });
        }
        for constant in &program.constants {
            if let Err(fault) = self.append(constant) {
                self.cut_back();
                return Err(FieldFault { field: "", fault });
            }
        }
        self.rows += 1;
        Ok(())
    }

    #[inline(always)]
    fn execute(&mut self, operation: &Operation, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        if let Branch::NullIs(null) = operation.branch {
            let branch = cursor.long()?;
            if branch == null {
                return self.append_null(&operation.read);
            }
            if branch != 1 - null {
                return Err(Fault::Branch(branch));
            }
        }
        match &operation.read {
            Read::Int(column) => self.i32s[*column].push(cursor.int()?),
            Read::IntAsLong(column) => self.i64s[*column].push(i64::from(cursor.int()?)),
            Read::IntAsFloat(column) => self.f32s[*column].push(cursor.int()? as f32),
            Read::IntAsDouble(column) => self.f64s[*column].push(f64::from(cursor.int()?)),
            Read::Long(column) => self.i64s[*column].push(cursor.long()?),
            Read::LongAsFloat(column) => self.f32s[*column].push(cursor.long()? as f32),
            Read::LongAsDouble(column) => self.f64s[*column].push(cursor.long()? as f64),
            Read::Float(column) => self.f32s[*column].push(cursor.float()?),
            Read::FloatAsDouble(column) => self.f64s[*column].push(f64::from(cursor.float()?)),
            Read::Double(column) => self.f64s[*column].push(cursor.double()?),
            Read::Boolean(column) => self.booleans[*column].push(cursor.boolean()?),
            Read::Text(column) => self.strings[*column].push(cursor.text()?),
            Read::Bytes(column) => self.strings[*column].push(cursor.bytes()?),
            Read::Over(step) => match step {
                Step::Fixed(size) => drop(cursor.take(*size)?),
                Step::Text => drop(cursor.text()?),
                Step::Int => drop(cursor.int()?),
                Step::Long => drop(cursor.long()?),
                other => walk::walk(other, cursor)?,
            },
        }
        Ok(())
    }

    #[inline]
    fn append_null(&mut self, read: &Read) -> Result<(), Fault> {
        match read {
            Read::Int(column) => self.i32s[*column].push_null(),
            Read::Long(column) | Read::IntAsLong(column) => self.i64s[*column].push_null(),
            Read::Float(column) | Read::IntAsFloat(column) | Read::LongAsFloat(column) => {
                self.f32s[*column].push_null()
            }
            Read::Double(column)
            | Read::IntAsDouble(column)
            | Read::LongAsDouble(column)
            | Read::FloatAsDouble(column) => self.f64s[*column].push_null(),
            Read::Boolean(column) => self.booleans[*column].push_null(),
            Read::Text(column) | Read::Bytes(column) => self.strings[*column].push_null(),
            Read::Over(_) => Ok(()),
        }
    }

    fn append(&mut self, constant: &Constant) -> Result<(), Fault> {
        match constant {
            Constant::Null(place) => match *place {
                Place::Null => {}
                Place::I32(column) => self.i32s[column].push_null()?,
                Place::I64(column) => self.i64s[column].push_null()?,
                Place::F32(column) => self.f32s[column].push_null()?,
                Place::F64(column) => self.f64s[column].push_null()?,
                Place::Boolean(column) => self.booleans[column].push_null()?,
                Place::Bytes(column) => self.strings[column].push_null()?,
            },
            Constant::I32(column, value) => self.i32s[*column].push(*value),
            Constant::I64(column, value) => self.i64s[*column].push(*value),
            Constant::F32(column, value) => self.f32s[*column].push(*value),
            Constant::F64(column, value) => self.f64s[*column].push(*value),
            Constant::Boolean(column, value) => self.booleans[*column].push(*value),
            Constant::Bytes(column, value) => self.strings[*column].push(value),
        }
        Ok(())
    }

    /// Removes what a record that turned out bad has left.
    #[cold]
    fn cut_back(&mut self) {
        let rows = self.rows;
        self.i32s.iter_mut().for_each(|column| column.cut(rows));
        self.i64s.iter_mut().for_each(|column| column.cut(rows));
        self.f32s.iter_mut().for_each(|column| column.cut(rows));
        self.f64s.iter_mut().for_each(|column| column.cut(rows));
        self.booleans.iter_mut().for_each(|column| column.cut(rows));
        self.strings.iter_mut().for_each(|column| column.cut(rows));
    }

    /// The rows so far, as arrays in the order of the reader's fields; the columns are empty afterwards.
    pub(crate) fn take(&mut self) -> Result<Vec<ArrayRef>, ArrowError> {
        let rows = std::mem::take(&mut self.rows);
        let schema = Arc::clone(&self.schema);
        let places = self.places.clone();
        places
            .iter()
            .zip(schema.fields())
            .map(|(place, field)| {
                let data_type = field.data_type();
                Ok(match *place {
                    Place::Null => Arc::new(NullArray::new(rows)) as ArrayRef,
                    Place::I32(column) => self.i32s[column].take(data_type, rows)?,
                    Place::I64(column) => self.i64s[column].take(data_type, rows)?,
                    Place::F32(column) => self.f32s[column].take(data_type, rows)?,
                    Place::F64(column) => self.f64s[column].take(data_type, rows)?,
                    Place::Boolean(column) => self.booleans[column].take_booleans(rows),
                    Place::Bytes(column) => self.strings[column].take(data_type, rows)?,
                })
            })
            .collect()
    }
}

impl<T: Copy + Default> Values<T> {
    fn new(nullable: bool) -> Self {
        Self {
            values: Vec::new(),
            valid: nullable.then(|| BooleanBufferBuilder::new(0)),
        }
    }

    #[inline(always)]
    fn push(&mut self, value: T) {
        self.values.push(value);
        if let Some(valid) = &mut self.valid {
            valid.append(true);
        }
    }

    #[inline]
    fn push_null(&mut self) -> Result<(), Fault> {
        self.valid.as_mut().ok_or(Fault::Null)?.append(false);
        self.values.push(T::default());
        Ok(())
    }

    fn cut(&mut self, rows: usize) {
        self.values.truncate(rows);
        cut_valid(&mut self.valid, rows);
    }

    fn take_values(&mut self, rows: usize) -> (Vec<T>, Option<NullBuffer>) {
        // The next batch is likely as large.
        (
            std::mem::replace(&mut self.values, Vec::with_capacity(rows)),
            take_valid(&mut self.valid),
        )
    }
}

impl<T: Copy + Default + arrow::datatypes::ArrowNativeType> Values<T> {
    fn take(&mut self, data_type: &DataType, rows: usize) -> Result<ArrayRef, ArrowError> {
        let (values, nulls) = self.take_values(rows);
        let data = ArrayData::builder(data_type.clone())
            .len(rows)
            .add_buffer(Buffer::from_vec(values))
            .nulls(nulls)
            .build()?;
        Ok(make_array(data))
    }
}

impl Values<bool> {
    fn take_booleans(&mut self, rows: usize) -> ArrayRef {
        let (values, nulls) = self.take_values(rows);
        Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
    }
}

impl Strings {
    fn new(nullable: bool) -> Self {
        Self {
            offsets: vec![0],
            bytes: Vec::new(),
            valid: nullable.then(|| BooleanBufferBuilder::new(0)),
        }
    }

    #[inline(always)]
    fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.end_value();
        if let Some(valid) = &mut self.valid {
            valid.append(true);
        }
    }

    #[inline]
    fn push_null(&mut self) -> Result<(), Fault> {
        self.valid.as_mut().ok_or(Fault::Null)?.append(false);
        self.end_value();
        Ok(())
    }

    #[inline(always)]
    fn end_value(&mut self) {
        // A batch holds less than 2 GiB: BatchDecoder's limits, defaults counted.
        self.offsets.push(self.bytes.len() as i32);
    }

    fn cut(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.bytes.truncate(self.offsets[rows] as usize);
        cut_valid(&mut self.valid, rows);
    }

    fn take(&mut self, data_type: &DataType, rows: usize) -> Result<ArrayRef, ArrowError> {
        let mut offsets = Vec::with_capacity(rows + 1);
        offsets.push(0);
        let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(
            &mut self.offsets,
            offsets,
        )));
        let capacity = self.bytes.len();
        let bytes = Buffer::from_vec(std::mem::replace(
            &mut self.bytes,
            Vec::with_capacity(capacity),
        ));
        let nulls = take_valid(&mut self.valid);
        Ok(match data_type {
            DataType::Utf8 => Arc::new(StringArray::try_new(offsets, bytes, nulls)?),
            _ => Arc::new(BinaryArray::try_new(offsets, bytes, nulls)?),
        })
    }
}

fn cut_valid(valid: &mut Option<BooleanBufferBuilder>, rows: usize) {
    if let Some(valid) = valid {
        valid.truncate(rows);
    }
}

fn take_valid(valid: &mut Option<BooleanBufferBuilder>) -> Option<NullBuffer> {
    valid
        .as_mut()
        .map(|valid| NullBuffer::new(valid.finish()))
        .filter(|nulls| nulls.null_count() > 0)
}

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
                let step = walk::compile(&field.schema, writer_names)?;
                // Neighbours of a fixed size are stepped over together.
                if let (
                    Step::Fixed(size),
                    Some(Operation {
                        branch: Branch::None,
                        read: Read::Over(Step::Fixed(before)),
                        ..
                    }),
                ) = (&step, operations.last_mut())
                {
                    *before = before.saturating_add(*size);
                    continue;
                }
                operations.push(Operation {
                    branch: Branch::None,
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
