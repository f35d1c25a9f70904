//! The fast way for records of plain fields: a writer's schema is compiled to one operation per field, which checks the
//! value and appends it to its column, or steps over it. After a fault the columns are cut back to the rows before.
//!
//! ```text
//!   writer's fields      id:string  vendor_id:int  pickup_at:long  …        (bytes of one record, in this order)
//!   operations           step over  → i32s[0]      → i64s[0]       …  constants for fields the writer lacks
//!   reader's columns     vendor_id = i32s[0]   pickup_at = i64s[0]
//! ```

mod column;
mod compile;

use std::sync::Arc;

use arrow::array::{ArrayRef, NullArray};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;

use super::cursor::{Cursor, Fault};
use super::walk::{self, Step};
use column::{Strings, Values};

pub(crate) use compile::compile;

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
