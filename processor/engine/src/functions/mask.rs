//! `mask_coordinate(x, cell)`: the mean of a coordinate, moved by at most `cell`, so that it does not give places away.
//!
//! The jitter is drawn from a secret salt, the argument, the window and the group. It is the same in every replay, and
//! without the salt it cannot be taken off again.

use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array, TimestampMillisecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion_common::{Result, internal_err};
use datafusion_expr::function::AccumulatorArgs;
use datafusion_expr::{Accumulator, AggregateUDFImpl, Signature, Volatility};
use sha2::{Digest, Sha256};

/// The function as jobs name it. The planner puts `avg(x)` in its place and masks the mean when a window is finished:
/// only then the group and its window are known as a whole.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct MaskCoordinate {
    signature: Signature,
}

impl MaskCoordinate {
    pub(crate) const NAME: &'static str = "mask_coordinate";

    pub(super) fn new() -> Self {
        Self {
            signature: Signature::exact(vec![DataType::Float64; 2], Volatility::Immutable),
        }
    }
}

impl AggregateUDFImpl for MaskCoordinate {
    fn name(&self) -> &str {
        Self::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn accumulator(&self, _: AccumulatorArgs<'_>) -> Result<Box<dyn Accumulator>> {
        internal_err!("mask_coordinate is planned as avg and has no accumulator of its own")
    }
}

/// How one aggregate's means are masked.
#[derive(Clone, PartialEq)]
pub(crate) struct Mask {
    /// The secret.
    pub(crate) salt: Vec<u8>,
    /// The argument as the job writes it, such as `pickup_latitude`.
    pub(crate) argument: String,
    /// The largest jitter, in the coordinate's unit.
    pub(crate) cell: f64,
}

/// The salt stays out of logs.
impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({}, {})", self.argument, self.cell)
    }
}

impl Mask {
    /// Masks means, one per group.
    pub(crate) fn apply(
        &self,
        means: &ArrayRef,
        window_end_ms: &[i64],
        keys: &[ArrayRef],
    ) -> Result<ArrayRef> {
        let means = means.as_primitive::<Float64Type>();
        let texts = group_texts(keys, means.len())?;
        let masked: Float64Array = (0..means.len())
            .map(|row| {
                means
                    .is_valid(row)
                    .then(|| self.mask(means.value(row), window_end_ms[row], &texts[row]))
            })
            .collect();
        Ok(std::sync::Arc::new(masked))
    }

    fn mask(&self, mean: f64, window_end_ms: i64, group: &str) -> f64 {
        let mut hash = Sha256::new();
        hash.update(&self.salt);
        hash.update([0]);
        hash.update(self.argument.as_bytes());
        hash.update([0]);
        hash.update(window_end_ms.to_string().as_bytes());
        hash.update([0]);
        hash.update(group.as_bytes());
        let digest = hash.finalize();
        let mut first = [0; 8];
        first.copy_from_slice(&digest[..8]);
        // 2^64 as a float; u lies in [0, 1].
        let unit = u64::from_be_bytes(first) as f64 / 18_446_744_073_709_551_616.0;
        let moved = mean + self.cell * (2.0 * unit - 1.0);
        (moved * 1e5).round() / 1e5
    }
}

/// The key values of each group as text, joined by NUL; null is the empty text. Timestamps are milliseconds.
fn group_texts(keys: &[ArrayRef], rows: usize) -> Result<Vec<String>> {
    let mut texts = vec![String::new(); rows];
    for (position, key) in keys.iter().enumerate() {
        let key = match key.data_type() {
            DataType::Timestamp(..) => {
                let zone = cast(key, &DataType::Timestamp(TimeUnit::Millisecond, None))?;
                let millis: &TimestampMillisecondArray = zone.as_primitive();
                std::sync::Arc::new(millis.reinterpret_cast::<Int64Type>())
            }
            _ => std::sync::Arc::clone(key),
        };
        let formatter = ArrayFormatter::try_new(&key, &FormatOptions::new())?;
        for (row, text) in texts.iter_mut().enumerate() {
            if position > 0 {
                text.push('\0');
            }
            // Writing to a String cannot fail.
            let _ = write!(text, "{}", formatter.value(row));
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use arrow::array::{Int32Array, StringArray};

    use super::*;

    #[test]
    fn the_jitter_is_the_documented_hash_and_never_exceeds_the_cell() {
        let mask = Mask {
            salt: b"secret".to_vec(),
            argument: "pickup_latitude".into(),
            cell: 0.01,
        };
        let keys: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from(vec![1, 2])),
            Arc::new(StringArray::from(vec!["a", "b"])),
        ];
        let means: ArrayRef = Arc::new(Float64Array::from(vec![Some(40.75), None]));
        let masked = mask.apply(&means, &[3_600_000, 3_600_000], &keys).unwrap();
        let masked = masked.as_primitive::<Float64Type>();
        assert!(masked.is_null(1));
        let digest = Sha256::digest(b"secret\0pickup_latitude\x003600000\x001\0a");
        let unit = u64::from_be_bytes(digest[..8].try_into().unwrap()) as f64 / 2f64.powi(64);
        let expected = ((40.75 + 0.01 * (2.0 * unit - 1.0)) * 1e5).round() / 1e5;
        assert_eq!(masked.value(0), expected);
        for end in 0..1000 {
            assert!((mask.mask(40.75, end, "1") - 40.75).abs() <= 0.01 + 5e-6);
        }
    }
}
