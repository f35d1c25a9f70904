//! What apache-avro says of the same bytes, and how Arrow cells compare with its values.

use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::{NamesRef, ResolvedSchema, Schema};
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type,
    Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
};
use proptest::prelude::*;

pub fn parse(schema: &str) -> Schema {
    Schema::parse_str(schema).unwrap()
}

/// The framed record of a value.
pub fn framed(id: u32, schema: &Schema, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    schemas::wire::frame(id, &mut out);
    out.extend(
        GenericDatumWriter::builder(schema)
            .build()
            .unwrap()
            .write_value_ref_to_vec(value),
    );
    out
}

trait WriteRef {
    fn write_value_ref_to_vec(&self, value: &Value) -> Vec<u8>;
}

impl WriteRef for GenericDatumWriter<'_> {
    fn write_value_ref_to_vec(&self, value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        self.write_value_ref(&mut out, value).unwrap();
        out
    }
}

/// What apache-avro makes of an encoding: the value as the reader sees it, if all bytes are used up by it. The flag says
/// whether the bytes are those that apache-avro itself would write.
pub fn read(writer: &Schema, reader: &Schema, mut body: &[u8]) -> Option<(Value, bool)> {
    let bytes = body;
    let written = GenericDatumReader::builder(writer)
        .build()
        .unwrap()
        .read_value(&mut body)
        .ok()?;
    if !body.is_empty() {
        return None;
    }
    let mut again = Vec::new();
    let canonical = GenericDatumWriter::builder(writer)
        .validate(false)
        .build()
        .unwrap()
        .write_value_ref(&mut again, &written)
        .is_ok()
        && again == bytes;
    if writer == reader {
        return Some((written, canonical));
    }
    let mut body = bytes;
    let reader = GenericDatumReader::builder(writer)
        .reader_schema(reader)
        .build()
        .unwrap();
    Some((reader.read_value(&mut body).ok()?, canonical))
}

/// Whether the row holds the record.
pub fn row_is(columns: &[ArrayRef], row: usize, value: &Value) -> bool {
    let Value::Record(fields) = value else {
        return false;
    };
    fields.len() == columns.len()
        && fields
            .iter()
            .zip(columns)
            .all(|((_, value), column)| cell_is(column, row, value))
}

fn plain<T: ArrowPrimitiveType>(array: &ArrayRef, row: usize) -> T::Native {
    array.as_primitive::<T>().value(row)
}

fn cell_is(array: &ArrayRef, row: usize, value: &Value) -> bool {
    if let Value::Union(branch, inner) = value {
        if let DataType::Union(_, _) = array.data_type() {
            let union = array.as_union();
            let child = union.value(row);
            return union.type_id(row) == *branch as i8 && cell_is(&child, 0, inner);
        }
        return cell_is(array, row, inner);
    }
    if matches!(value, Value::Null) {
        return array.is_null(row) || *array.data_type() == DataType::Null;
    }
    if array.is_null(row) {
        return false;
    }
    match (array.data_type(), value) {
        (DataType::Boolean, Value::Boolean(v)) => array.as_boolean().value(row) == *v,
        (DataType::Int32, Value::Int(v)) => plain::<Int32Type>(array, row) == *v,
        (DataType::Date32, Value::Date(v)) => plain::<Date32Type>(array, row) == *v,
        (DataType::Int64, Value::Long(v)) => plain::<Int64Type>(array, row) == *v,
        (DataType::Timestamp(TimeUnit::Millisecond, _), Value::TimestampMillis(v)) => {
            plain::<TimestampMillisecondType>(array, row) == *v
        }
        (DataType::Timestamp(TimeUnit::Microsecond, _), Value::TimestampMicros(v)) => {
            plain::<TimestampMicrosecondType>(array, row) == *v
        }
        (DataType::Float32, Value::Float(v)) => {
            plain::<Float32Type>(array, row).to_bits() == v.to_bits()
        }
        (DataType::Float64, Value::Double(v)) => {
            plain::<Float64Type>(array, row).to_bits() == v.to_bits()
        }
        (DataType::Utf8, Value::String(v)) => array.as_string::<i32>().value(row) == v,
        (DataType::Binary, Value::Bytes(v)) => array.as_binary::<i32>().value(row) == v,
        (DataType::FixedSizeBinary(_), Value::Fixed(_, v)) => {
            array.as_fixed_size_binary().value(row) == v
        }
        (DataType::FixedSizeBinary(_), Value::Uuid(v)) => {
            array.as_fixed_size_binary().value(row) == v.as_bytes()
        }
        (DataType::Dictionary(_, _), Value::Enum(_, symbol)) => {
            let dictionary = array.as_dictionary::<Int32Type>();
            let key = dictionary.keys().value(row) as usize;
            dictionary.values().as_string::<i32>().value(key) == symbol
        }
        (DataType::Decimal128(_, _), Value::Decimal(v)) => {
            let bytes = Vec::<u8>::try_from(v).unwrap();
            let sign = if bytes.first().is_some_and(|b| b & 0x80 != 0) {
                0xff
            } else {
                0
            };
            let mut wide = [sign; 16];
            let keep = &bytes[bytes.len().saturating_sub(16)..];
            wide[16 - keep.len()..].copy_from_slice(keep);
            plain::<Decimal128Type>(array, row) == i128::from_be_bytes(wide)
        }
        (DataType::List(_), Value::Array(items)) => {
            let list = array.as_list::<i32>().value(row);
            list.len() == items.len()
                && items
                    .iter()
                    .enumerate()
                    .all(|(i, item)| cell_is(&list, i, item))
        }
        (DataType::Map(_, _), Value::Map(entries)) => {
            let pairs = array.as_map().value(row);
            let keys = pairs.column(0).as_string::<i32>();
            // apache-avro keeps the last of several entries of one key.
            (0..pairs.len()).all(|i| {
                let later = (i + 1..pairs.len()).any(|j| keys.value(j) == keys.value(i));
                later
                    || entries
                        .get(keys.value(i))
                        .is_some_and(|entry| cell_is(pairs.column(1), i, entry))
            }) && entries
                .keys()
                .all(|key| (0..pairs.len()).any(|i| keys.value(i) == key))
        }
        (DataType::Struct(_), Value::Record(_)) => row_is(array.as_struct().columns(), row, value),
        _ => false,
    }
}

/// Values of a schema.
pub fn value_of(schema: &Schema) -> BoxedStrategy<Value> {
    let resolved = ResolvedSchema::new(schema).unwrap();
    strategy(schema, resolved.get_names())
}

fn strategy(schema: &Schema, names: &NamesRef<'_>) -> BoxedStrategy<Value> {
    let of = |schema: &Schema| strategy(schema, names);
    match schema {
        Schema::Null => Just(Value::Null).boxed(),
        Schema::Boolean => any::<bool>().prop_map(Value::Boolean).boxed(),
        Schema::Int => any::<i32>().prop_map(Value::Int).boxed(),
        Schema::Date => any::<i32>().prop_map(Value::Date).boxed(),
        Schema::Long => any::<i64>().prop_map(Value::Long).boxed(),
        Schema::TimestampMillis => any::<i64>().prop_map(Value::TimestampMillis).boxed(),
        Schema::TimestampMicros => any::<i64>().prop_map(Value::TimestampMicros).boxed(),
        Schema::Float => any::<f32>().prop_map(Value::Float).boxed(),
        Schema::Double => any::<f64>().prop_map(Value::Double).boxed(),
        Schema::String => ".{0,12}".prop_map(Value::String).boxed(),
        Schema::Bytes => prop::collection::vec(any::<u8>(), 0..12)
            .prop_map(Value::Bytes)
            .boxed(),
        Schema::Fixed(fixed) => {
            let size = fixed.size;
            prop::collection::vec(any::<u8>(), size)
                .prop_map(move |bytes| Value::Fixed(size, bytes))
                .boxed()
        }
        Schema::Uuid(_) => any::<u128>()
            .prop_map(|bits| Value::Uuid(apache_avro::Uuid::from_u128(bits)))
            .boxed(),
        Schema::Decimal(_) => any::<i64>()
            .prop_map(|v| Value::Decimal(i128::from(v).to_be_bytes().to_vec().into()))
            .boxed(),
        Schema::Enum(symbols) => {
            let symbols = symbols.symbols.clone();
            (0..symbols.len())
                .prop_map(move |i| Value::Enum(i as u32, symbols[i].clone()))
                .boxed()
        }
        Schema::Array(array) => prop::collection::vec(of(&array.items), 0..4)
            .prop_map(Value::Array)
            .boxed(),
        Schema::Map(map) => prop::collection::hash_map("[a-c]{0,2}", of(&map.types), 0..3)
            .prop_map(Value::Map)
            .boxed(),
        Schema::Union(union) => {
            let branches: Vec<_> = union
                .variants()
                .iter()
                .enumerate()
                .map(|(i, branch)| {
                    of(branch)
                        .prop_map(move |v| Value::Union(i as u32, Box::new(v)))
                        .boxed()
                })
                .collect();
            prop::strategy::Union::new(branches).boxed()
        }
        Schema::Record(record) => {
            let fields: Vec<_> = record
                .fields
                .iter()
                .map(|field| {
                    let name = field.name.clone();
                    of(&field.schema)
                        .prop_map(move |v| (name.clone(), v))
                        .boxed()
                })
                .collect();
            fields.prop_map(Value::Record).boxed()
        }
        Schema::Ref { name } => of(names[name]),
        other => panic!("no strategy for {other:?}"),
    }
}
