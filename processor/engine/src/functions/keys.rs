//! Single values as keys of ordered sets and maps, and their bytes in states.

use std::borrow::Borrow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array, StringArray};
use arrow::compute::{CastOptions, cast, cast_with_options};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion_common::{Result, internal_err};

use super::codec::{Reader, unzigzag, write_varint, zigzag};
use super::hash::{canonical, integers};
use super::table::each_row;

/// A value that sets and maps are ordered by.
pub(super) trait Key: Ord + Borrow<Self::Ref> + Sized + Send + 'static {
    /// The value, borrowed.
    type Ref: Ord + ?Sized;

    fn own(value: &Self::Ref) -> Self;

    /// Writes a key behind the last one, which is less.
    fn write(&self, last: Option<&Self>, out: &mut Vec<u8>);

    /// Reads a key behind the last one.
    ///
    /// # Errors
    /// If it is not greater.
    fn read(last: Option<&Self>, bytes: &mut Reader<'_>) -> Result<Self>;

    /// Calls `each` with the group and the value of each row that counts.
    fn each(
        values: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        each: impl FnMut(usize, &Self::Ref),
    ) -> Result<()>;

    /// Keys as a column of their type.
    fn array(keys: Vec<Option<Self>>, data_type: &DataType) -> Result<ArrayRef>;

    /// How much it keeps outside of itself.
    fn heap_bytes(&self) -> usize;
}

/// Integers, dates, timestamps and booleans. Floats by an order-keeping code of their bits.
impl Key for i64 {
    type Ref = i64;

    fn own(value: &i64) -> Self {
        *value
    }

    fn write(&self, last: Option<&Self>, out: &mut Vec<u8>) {
        let number = match last {
            None => zigzag(*self),
            // Greater than 0 and below 2^64: the difference is right modulo 2^64.
            Some(last) => self.wrapping_sub(*last) as u64,
        };
        write_varint(number, out);
    }

    fn read(last: Option<&Self>, bytes: &mut Reader<'_>) -> Result<Self> {
        let number = bytes.varint()?;
        let Some(last) = last else {
            return Ok(unzigzag(number));
        };
        match last.checked_add_unsigned(number) {
            Some(key) if key > *last => Ok(key),
            _ => Err(bytes.malformed("its values do not ascend")),
        }
    }

    fn each(
        values: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        mut each: impl FnMut(usize, &i64),
    ) -> Result<()> {
        if values.data_type().is_floating() {
            let floats = cast(values, &DataType::Float64)?;
            let floats = floats.as_primitive::<Float64Type>().values();
            each_row(values, groups, filter, |row, group| {
                each(group, &float_code(floats[row]));
            });
            return Ok(());
        }
        let integers = integers(values)?;
        let integers = integers.as_primitive::<Int64Type>().values();
        each_row(values, groups, filter, |row, group| {
            each(group, &integers[row])
        });
        Ok(())
    }

    fn array(keys: Vec<Option<Self>>, data_type: &DataType) -> Result<ArrayRef> {
        let keys: ArrayRef = Arc::new(Int64Array::from(keys));
        // A key that does not fit its type comes from a malformed state.
        let strict = CastOptions {
            safe: false,
            ..CastOptions::default()
        };
        Ok(match data_type {
            DataType::Date32 => {
                let days = cast_with_options(&keys, &DataType::Int32, &strict)?;
                cast(&days, &DataType::Date32)?
            }
            other => cast_with_options(&keys, other, &strict)?,
        })
    }

    fn heap_bytes(&self) -> usize {
        0
    }
}

/// Texts.
impl Key for Box<str> {
    type Ref = str;

    fn own(value: &str) -> Self {
        value.into()
    }

    fn write(&self, _: Option<&Self>, out: &mut Vec<u8>) {
        write_varint(self.len() as u64, out);
        out.extend_from_slice(self.as_bytes());
    }

    fn read(last: Option<&Self>, bytes: &mut Reader<'_>) -> Result<Self> {
        let length = usize::try_from(bytes.varint()?).unwrap_or(usize::MAX);
        let text = bytes.bytes(length)?;
        let text = std::str::from_utf8(text).map_err(|_| bytes.malformed("a text is not UTF-8"))?;
        if last.is_some_and(|last| **last >= *text) {
            return Err(bytes.malformed("its values do not ascend"));
        }
        Ok(text.into())
    }

    fn each(
        values: &ArrayRef,
        groups: &[usize],
        filter: Option<&BooleanArray>,
        mut each: impl FnMut(usize, &str),
    ) -> Result<()> {
        let values = cast(values, &DataType::Utf8)?;
        let Some(texts) = values.as_string_opt::<i32>() else {
            return internal_err!("{} is no text", values.data_type());
        };
        each_row(texts, groups, filter, |row, group| {
            each(group, texts.value(row))
        });
        Ok(())
    }

    fn array(keys: Vec<Option<Self>>, data_type: &DataType) -> Result<ArrayRef> {
        let keys: ArrayRef = Arc::new(StringArray::from_iter(keys));
        Ok(cast(&keys, data_type)?)
    }

    fn heap_bytes(&self) -> usize {
        self.len()
    }
}

/// Whether a type's values are kept as texts.
pub(super) fn is_text(data_type: &DataType) -> bool {
    matches!(
        data_type,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View
    )
}

/// Whether a type's values are kept as integers of the same order.
pub(super) fn is_whole(data_type: &DataType) -> bool {
    (data_type.is_integer() && *data_type != DataType::UInt64)
        || matches!(
            data_type,
            DataType::Boolean | DataType::Date32 | DataType::Timestamp(..)
        )
}

/// A number for each float, in the order of the floats; NaN is the greatest.
fn float_code(value: f64) -> i64 {
    let bits = canonical(value).to_bits() as i64;
    bits ^ (((bits >> 63) as u64) >> 1) as i64
}
