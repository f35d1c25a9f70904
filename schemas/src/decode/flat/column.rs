//! One column while it grows: values and which of them are there.

use std::sync::Arc;

use arrow::array::{
    ArrayData, ArrayRef, BinaryArray, BooleanArray, BooleanBufferBuilder, StringArray, make_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::DataType;
use arrow::error::ArrowError;

use super::super::cursor::Fault;

#[derive(Debug)]
pub(super) struct Values<T> {
    values: Vec<T>,
    valid: Option<BooleanBufferBuilder>,
}

#[derive(Debug)]
pub(super) struct Strings {
    offsets: Vec<i32>,
    bytes: Vec<u8>,
    valid: Option<BooleanBufferBuilder>,
}

impl<T: Copy + Default> Values<T> {
    pub(super) fn new(nullable: bool) -> Self {
        Self {
            values: Vec::new(),
            valid: nullable.then(|| BooleanBufferBuilder::new(0)),
        }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, value: T) {
        self.values.push(value);
        if let Some(valid) = &mut self.valid {
            valid.append(true);
        }
    }

    #[inline]
    pub(super) fn push_null(&mut self) -> Result<(), Fault> {
        self.valid.as_mut().ok_or(Fault::Null)?.append(false);
        self.values.push(T::default());
        Ok(())
    }

    pub(super) fn cut(&mut self, rows: usize) {
        self.values.truncate(rows);
        cut_valid(&mut self.valid, rows);
    }

    fn take_values(&mut self, rows: usize) -> (Vec<T>, Option<NullBuffer>) {
        // The next batch is likely about as large, and what has grown once need not grow again.
        let room = self.values.capacity().clamp(rows, 2 * rows);
        (
            std::mem::replace(&mut self.values, Vec::with_capacity(room)),
            take_valid(&mut self.valid),
        )
    }
}

impl<T: Copy + Default + arrow::datatypes::ArrowNativeType> Values<T> {
    pub(super) fn take(
        &mut self,
        data_type: &DataType,
        rows: usize,
    ) -> Result<ArrayRef, ArrowError> {
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
    pub(super) fn take_booleans(&mut self, rows: usize) -> ArrayRef {
        let (values, nulls) = self.take_values(rows);
        Arc::new(BooleanArray::new(BooleanBuffer::from(values), nulls))
    }
}

impl Strings {
    pub(super) fn new(nullable: bool) -> Self {
        Self {
            offsets: vec![0],
            bytes: Vec::new(),
            valid: nullable.then(|| BooleanBufferBuilder::new(0)),
        }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
        self.end_value();
        if let Some(valid) = &mut self.valid {
            valid.append(true);
        }
    }

    #[inline]
    pub(super) fn push_null(&mut self) -> Result<(), Fault> {
        self.valid.as_mut().ok_or(Fault::Null)?.append(false);
        self.end_value();
        Ok(())
    }

    #[inline(always)]
    fn end_value(&mut self) {
        // A batch holds less than 2 GiB: BatchDecoder's limits, defaults counted.
        self.offsets.push(self.bytes.len() as i32);
    }

    pub(super) fn cut(&mut self, rows: usize) {
        self.offsets.truncate(rows + 1);
        self.bytes.truncate(self.offsets[rows] as usize);
        cut_valid(&mut self.valid, rows);
    }

    pub(super) fn take(
        &mut self,
        data_type: &DataType,
        rows: usize,
    ) -> Result<ArrayRef, ArrowError> {
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
