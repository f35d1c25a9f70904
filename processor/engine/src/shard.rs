//! Which shard a partial row goes to: our own hash of its group key, frozen, because it decides where state lives.
//!
//! The hash of a row is FNV-1a (64 bits) over each key column in order, then mixed (the finaliser of SplitMix64):
//! integers, dates and timestamps as tag 1 and 8 bytes, floats as tag 2 and the 8 bytes of the double (−0 as 0, every NaN
//! alike), booleans as tag 3 and a byte, strings and bytes as tag 4, length in 4 bytes and the bytes; null as tag 0.
//! All numbers are little-endian.

use arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;

use crate::plan::Spread;

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// Splits partial rows over `shards`: by the `keys` columns behind the first, by the first (the window's start), or not at
/// all. The result has one entry per shard; rows keep their order.
///
/// # Errors
/// If a key's type is not one of those listed above.
pub fn split(
    partial: &RecordBatch,
    keys: usize,
    spread: Spread,
    shards: usize,
) -> Result<Vec<RecordBatch>, ArrowError> {
    debug_assert!(shards > 0, "a job has at least one shard");
    if shards == 1 {
        return Ok(vec![partial.clone()]);
    }
    let hashes = match spread {
        Spread::Key => hashes(&partial.columns()[1..=keys], partial.num_rows())?,
        Spread::Window => hashes(&partial.columns()[..1], partial.num_rows())?,
        Spread::One => vec![0; partial.num_rows()],
    };
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); shards];
    for (row, hash) in hashes.iter().enumerate() {
        // A batch has fewer rows than u32 can count: Arrow's own kernels index rows with it.
        rows[(hash % shards as u64) as usize].push(row as u32);
    }
    rows.into_iter()
        .map(|rows| take_record_batch(partial, &UInt32Array::from(rows)))
        .collect()
}

pub(crate) fn hashes(keys: &[ArrayRef], rows: usize) -> Result<Vec<u64>, ArrowError> {
    let mut hashes = vec![OFFSET; rows];
    for key in keys {
        add_column(key, &mut hashes)?;
    }
    hashes.iter_mut().for_each(|hash| *hash = mix(*hash));
    Ok(hashes)
}

fn add_column(key: &ArrayRef, hashes: &mut [u64]) -> Result<(), ArrowError> {
    match key.data_type() {
        DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::Date32
        | DataType::Date64
        | DataType::Timestamp(_, _) => {
            let values = cast(key, &DataType::Int64)?;
            let values = values.as_primitive::<Int64Type>();
            each(values, hashes, |hash, row| {
                add(add(hash, &[1]), &values.value(row).to_le_bytes())
            });
        }
        DataType::Float16 | DataType::Float32 | DataType::Float64 => {
            let values = cast(key, &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>();
            each(values, hashes, |hash, row| {
                add(
                    add(hash, &[2]),
                    &canonical_bits(values.value(row)).to_le_bytes(),
                )
            });
        }
        DataType::Boolean => {
            let values = key.as_boolean();
            each(values, hashes, |hash, row| {
                add(hash, &[3, u8::from(values.value(row))])
            });
        }
        DataType::Utf8
        | DataType::LargeUtf8
        | DataType::Utf8View
        | DataType::Binary
        | DataType::LargeBinary => {
            let values = cast(key, &DataType::LargeBinary)?;
            let values = values.as_binary::<i64>();
            each(values, hashes, |hash, row| {
                let bytes = values.value(row);
                add(
                    add(add(hash, &[4]), &(bytes.len() as u32).to_le_bytes()),
                    bytes,
                )
            });
        }
        other => {
            return Err(ArrowError::NotYetImplemented(format!(
                "a group key of type {other} can't be spread over shards"
            )));
        }
    }
    Ok(())
}

fn each(values: &dyn Array, hashes: &mut [u64], with: impl Fn(u64, usize) -> u64) {
    for (row, hash) in hashes.iter_mut().enumerate() {
        *hash = if values.is_null(row) {
            add(*hash, &[0])
        } else {
            with(*hash, row)
        };
    }
}

fn add(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(PRIME)
    })
}

fn canonical_bits(value: f64) -> u64 {
    if value.is_nan() {
        f64::NAN.to_bits()
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    }
}

fn mix(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Arc;

    use arrow::array::{Int32Array, StringArray};

    use super::*;

    #[test]
    fn the_hash_is_frozen() {
        let ints: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), Some(2), None]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec![Some(""), Some("Queens"), None]));
        // Worked out by a second program; a change here would move the state of every running job to other shards.
        let got = hashes(&[ints, texts], 3).unwrap();
        assert_eq!(got, FROZEN);
    }

    const FROZEN: [u64; 3] = [
        7_021_666_979_502_599_357,
        5_556_257_074_379_168_822,
        8_917_707_823_322_109_644,
    ];

    #[test]
    fn integers_of_any_width_go_to_the_same_shard() {
        let narrow: ArrayRef = Arc::new(Int32Array::from(vec![-5, 0, 77]));
        let wide = cast(&narrow, &DataType::Int64).unwrap();
        assert_eq!(hashes(&[narrow], 3).unwrap(), hashes(&[wide], 3).unwrap());
    }
}
