//! The 64-bit hash of single values: XXH64, as its specification has it, written out because states depend on it.
//!
//! Integers, dates, timestamps and booleans are hashed as the 8 bytes of their number, floats as those of the double (−0
//! as 0, every NaN alike), texts and bytes as they are. All numbers are little-endian.

use arrow::array::{Array, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion_common::{Result, internal_err};

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

/// Whether [`column`] can hash values of a type.
pub(super) fn can(data_type: &DataType) -> bool {
    data_type.is_integer()
        || data_type.is_floating()
        || matches!(
            data_type,
            DataType::Boolean
                | DataType::Date32
                | DataType::Timestamp(..)
                | DataType::Utf8
                | DataType::LargeUtf8
                | DataType::Utf8View
                | DataType::Binary
                | DataType::LargeBinary
        )
}

/// The hash of each value; that of a null means nothing.
pub(super) fn column(values: &dyn Array) -> Result<Vec<u64>> {
    let data_type = values.data_type();
    Ok(match data_type {
        DataType::Utf8 => {
            let values = values.as_string::<i32>();
            (0..values.len())
                .map(|row| xxh64(values.value(row).as_bytes()))
                .collect()
        }
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Binary | DataType::LargeBinary => {
            let values = cast(values, &DataType::LargeBinary)?;
            let values = values.as_binary::<i64>();
            (0..values.len())
                .map(|row| xxh64(values.value(row)))
                .collect()
        }
        _ if data_type.is_floating() => {
            let values = cast(values, &DataType::Float64)?;
            let values = values.as_primitive::<Float64Type>().values();
            values
                .iter()
                .map(|value| number(canonical(*value).to_bits()))
                .collect()
        }
        _ if can(data_type) => {
            let values = integers(values)?;
            let values = values.as_primitive::<Int64Type>().values();
            values.iter().map(|value| number(*value as u64)).collect()
        }
        other => return internal_err!("values of type {other} can't be hashed"),
    })
}

/// Integers, dates, timestamps and booleans as 64-bit integers.
pub(super) fn integers(values: &dyn Array) -> Result<arrow::array::ArrayRef> {
    Ok(match values.data_type() {
        DataType::UInt64 => {
            let values = values.as_primitive::<arrow::datatypes::UInt64Type>();
            let same_bits = values.unary::<_, Int64Type>(|value| value as i64);
            std::sync::Arc::new(same_bits)
        }
        DataType::Date32 => cast(&cast(values, &DataType::Int32)?, &DataType::Int64)?,
        _ => cast(values, &DataType::Int64)?,
    })
}

/// −0 as 0, and every NaN as one: which of them an operation gives depends on the CPU.
pub(super) fn canonical(value: f64) -> f64 {
    if value.is_nan() {
        f64::NAN
    } else {
        value + 0.0
    }
}

fn round(hash: u64, input: u64) -> u64 {
    hash.wrapping_add(input.wrapping_mul(P2))
        .rotate_left(31)
        .wrapping_mul(P1)
}

fn finish(mut hash: u64) -> u64 {
    hash = (hash ^ (hash >> 33)).wrapping_mul(P2);
    hash = (hash ^ (hash >> 29)).wrapping_mul(P3);
    hash ^ (hash >> 32)
}

fn word(hash: u64, word: u64) -> u64 {
    (hash ^ round(0, word))
        .rotate_left(27)
        .wrapping_mul(P1)
        .wrapping_add(P4)
}

/// [`xxh64`] of 8 bytes.
fn number(value: u64) -> u64 {
    finish(word(P5.wrapping_add(8), value))
}

/// XXH64 with seed 0.
fn xxh64(bytes: &[u8]) -> u64 {
    let u64_at = |bytes: &[u8], at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[at..at + 8]);
        u64::from_le_bytes(word)
    };
    let mut stripes = bytes.chunks_exact(32);
    let mut hash = if bytes.len() >= 32 {
        let mut lanes = [P1.wrapping_add(P2), P2, 0, 0_u64.wrapping_sub(P1)];
        for stripe in &mut stripes {
            for (lane, hash) in lanes.iter_mut().enumerate() {
                *hash = round(*hash, u64_at(stripe, 8 * lane));
            }
        }
        let mut hash = lanes
            .iter()
            .zip([1, 7, 12, 18])
            .fold(0_u64, |hash, (lane, by)| {
                hash.wrapping_add(lane.rotate_left(by))
            });
        for lane in lanes {
            hash = (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4);
        }
        hash
    } else {
        P5
    };
    hash = hash.wrapping_add(bytes.len() as u64);
    let mut words = stripes.remainder().chunks_exact(8);
    for eight in &mut words {
        hash = word(hash, u64_at(eight, 0));
    }
    let mut rest = words.remainder();
    if let [a, b, c, d, behind @ ..] = rest {
        let four = u32::from_le_bytes([*a, *b, *c, *d]);
        hash = (hash ^ u64::from(four).wrapping_mul(P1))
            .rotate_left(23)
            .wrapping_mul(P2)
            .wrapping_add(P3);
        rest = behind;
    }
    for byte in rest {
        hash = (hash ^ u64::from(*byte).wrapping_mul(P5))
            .rotate_left(11)
            .wrapping_mul(P1);
    }
    finish(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_xxh64() {
        // Published values; the last one is longer than a stripe of 32 bytes.
        assert_eq!(xxh64(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxh64(b"a"), 0xd24e_c4f1_a98c_6e5b);
        assert_eq!(xxh64(b"abc"), 0x44bc_2cf5_ad77_0999);
        assert_eq!(
            xxh64(b"Nobody inspects the spammish repetition"),
            0xfbce_a83c_8a37_8bf1
        );
        assert_eq!(
            number(0x0807_0605_0403_0201),
            xxh64(&[1, 2, 3, 4, 5, 6, 7, 8])
        );
    }
}
