//! Steps over a value of the writer's schema and checks it on the way, without keeping anything.

use apache_avro::schema::{InnerDecimalSchema, NamesRef, Schema, UuidSchema};

pub(crate) use super::cursor::Cursor;
use super::cursor::Fault;
use crate::avro::MAX_DEPTH;

/// How to step over one value.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Null,
    Boolean,
    Int,
    Long,
    /// As many bytes, whatever they are.
    Fixed(usize),
    Bytes,
    Text,
    /// A UUID, as text.
    Uuid,
    /// An enumeration of as many symbols.
    Enum(i64),
    Union(Box<[Step]>),
    Record(Box<[Step]>),
    Array(Box<Step>),
    Map(Box<Step>),
}

/// How many items that take no bytes (nulls, empty records) a record may have: nothing else bounds them.
const MAX_EMPTY_ITEMS: u64 = 1 << 16;

/// How many steps a schema may compile to: named types are laid out at each use.
const MAX_STEPS: usize = 1 << 14;

/// Lays a schema out as steps.
pub(crate) fn compile(schema: &Schema, names: &NamesRef<'_>) -> Result<Step, String> {
    let mut budget = MAX_STEPS;
    lay_out(schema, names, 0, &mut budget)
}

fn lay_out(
    schema: &Schema,
    names: &NamesRef<'_>,
    depth: usize,
    budget: &mut usize,
) -> Result<Step, String> {
    if depth > MAX_DEPTH {
        return Err(format!(
            "the schema nests deeper than {MAX_DEPTH} levels, or contains itself"
        ));
    }
    *budget = budget
        .checked_sub(1)
        .ok_or_else(|| format!("the schema has more than {MAX_STEPS} parts"))?;
    let mut inner = |schema: &Schema| lay_out(schema, names, depth + 1, budget);
    Ok(match schema {
        Schema::Null => Step::Null,
        Schema::Boolean => Step::Boolean,
        Schema::Int | Schema::Date | Schema::TimeMillis => Step::Int,
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Step::Long,
        Schema::Float => Step::Fixed(4),
        Schema::Double => Step::Fixed(8),
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Step::Bytes,
        Schema::String => Step::Text,
        Schema::Uuid(UuidSchema::String) => Step::Uuid,
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            Step::Fixed(fixed.size)
        }
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Bytes => Step::Bytes,
            InnerDecimalSchema::Fixed(fixed) => Step::Fixed(fixed.size),
        },
        Schema::Enum(symbols) => {
            Step::Enum(i64::try_from(symbols.symbols.len()).unwrap_or(i64::MAX))
        }
        Schema::Array(array) => Step::Array(Box::new(inner(&array.items)?)),
        Schema::Map(map) => Step::Map(Box::new(inner(&map.types)?)),
        Schema::Union(union) => Step::Union(
            union
                .variants()
                .iter()
                .map(inner)
                .collect::<Result<_, _>>()?,
        ),
        Schema::Record(record) => Step::Record(
            record
                .fields
                .iter()
                .map(|field| inner(&field.schema))
                .collect::<Result<_, _>>()?,
        ),
        Schema::Ref { name } => {
            let target = names.get(name).ok_or_else(|| {
                format!("the schema names type {} and lacks it", name.fullname(None))
            })?;
            inner(target)?
        }
    })
}

/// Steps over one value.
pub(crate) fn walk(step: &Step, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
    let mut empty_items = MAX_EMPTY_ITEMS;
    walk_within(step, cursor, &mut empty_items)
}

fn walk_within(step: &Step, cursor: &mut Cursor<'_>, empty_items: &mut u64) -> Result<(), Fault> {
    match step {
        Step::Null => Ok(()),
        Step::Boolean => cursor.boolean().map(drop),
        Step::Int => cursor.int().map(drop),
        Step::Long => cursor.long().map(drop),
        Step::Fixed(size) => cursor.take(*size).map(drop),
        Step::Bytes => cursor.bytes().map(drop),
        Step::Text => cursor.text().map(drop),
        Step::Uuid => match apache_avro::Uuid::try_parse_ascii(cursor.bytes()?) {
            Ok(_) => Ok(()),
            Err(_) => Err(Fault::Uuid),
        },
        Step::Enum(symbols) => {
            let symbol = i64::from(cursor.int()?);
            if (0..*symbols).contains(&symbol) {
                Ok(())
            } else {
                Err(Fault::Symbol(symbol))
            }
        }
        Step::Union(branches) => {
            let branch = cursor.long()?;
            let taken = usize::try_from(branch)
                .ok()
                .and_then(|index| branches.get(index));
            walk_within(taken.ok_or(Fault::Branch(branch))?, cursor, empty_items)
        }
        Step::Record(fields) => fields
            .iter()
            .try_for_each(|field| walk_within(field, cursor, empty_items)),
        Step::Array(item) => walk_blocks(cursor, empty_items, |cursor, empty| {
            walk_within(item, cursor, empty)
        }),
        Step::Map(value) => walk_blocks(cursor, empty_items, |cursor, empty| {
            cursor.text()?;
            walk_within(value, cursor, empty)
        }),
    }
}

fn walk_blocks<'a>(
    cursor: &mut Cursor<'a>,
    empty_items: &mut u64,
    mut item: impl FnMut(&mut Cursor<'a>, &mut u64) -> Result<(), Fault>,
) -> Result<(), Fault> {
    loop {
        let count = cursor.long()?;
        if count == 0 {
            return Ok(());
        }
        // A negative count is followed by the block's size in bytes.
        let size = if count < 0 {
            Some(usize::try_from(cursor.long()?).map_err(|_| Fault::Length)?)
        } else {
            None
        };
        let before = cursor.bytes.len();
        for _ in 0..count.unsigned_abs() {
            let left = cursor.bytes.len();
            item(cursor, empty_items)?;
            if cursor.bytes.len() == left {
                *empty_items = empty_items.checked_sub(1).ok_or(Fault::Items)?;
            }
        }
        if size.is_some_and(|size| size != before - cursor.bytes.len()) {
            return Err(Fault::BlockSize);
        }
    }
}
