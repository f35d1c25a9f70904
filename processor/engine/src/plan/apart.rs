//! By what groups are told apart: a table of one column is much faster than one of several.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int32Array, Int64Array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::datatypes::{DataType, Field, Int32Type, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;

use super::fragments::Fragments;

/// What the table of groups looks at.
pub(super) enum Apart {
    /// The window's start and all keys.
    Whole,
    /// The only key: all groups have this window's start.
    Key(i64),
    /// One number, made of the only key, an int, and of the window's start, which is a multiple of this length.
    Number(i64),
}

/// The shortest panes whose numbers fit beside a key: there are fewer than 2^29 of them in the years 1700 to 2261.
const LEAST_PANE_MS: i64 = 60_000;
/// The bits of a number behind those of the pane: an int, and whether it is null.
const KEY_BITS: u32 = 33;
const NULL: i64 = 1 << 32;

impl Apart {
    /// For source rows, whose windows' starts are those of panes.
    pub(super) fn of_rows(fragments: &Fragments) -> Self {
        match (
            fragments.group_schema.fields().as_ref(),
            fragments.pane_ms(),
        ) {
            ([_, key], Some(pane_ms))
                if *key.data_type() == DataType::Int32 && pane_ms >= LEAST_PANE_MS =>
            {
                Self::Number(pane_ms)
            }
            _ => Self::Whole,
        }
    }

    /// For these partial rows.
    pub(super) fn of_partials(fragments: &Fragments, partials: &[&RecordBatch]) -> Self {
        let [_, key] = fragments.group_schema.fields().as_ref() else {
            return Self::Whole;
        };
        let plain = matches!(
            key.data_type(),
            DataType::Utf8 | DataType::Int32 | DataType::Int64
        );
        match one_start(partials).filter(|_| plain) {
            None => Self::Whole,
            Some(start) => Self::Key(start),
        }
    }

    /// The columns that the table has.
    pub(super) fn schema(&self, groups: &SchemaRef) -> SchemaRef {
        match self {
            Self::Whole => Arc::clone(groups),
            Self::Key(_) => Arc::new(Schema::new(groups.fields()[1..].to_vec())),
            Self::Number(_) => Arc::new(Schema::new(vec![Field::new("n", DataType::Int64, false)])),
        }
    }

    /// The columns to be looked at, of the window's start and the keys.
    pub(super) fn looked_at(&self, groups: &[ArrayRef]) -> Vec<ArrayRef> {
        match (self, groups) {
            (Self::Number(pane_ms), [starts, keys]) => {
                vec![numbers(starts, keys.as_primitive(), *pane_ms)]
            }
            (Self::Key(_), _) => groups[1..].to_vec(),
            _ => groups.to_vec(),
        }
    }

    /// The window's start and the keys again, of as many groups.
    pub(super) fn groups(&self, mut looked_at: Vec<ArrayRef>, count: usize) -> Vec<ArrayRef> {
        match self {
            Self::Whole => looked_at,
            Self::Key(start) => {
                looked_at.insert(0, Arc::new(Int64Array::from_value(*start, count)));
                looked_at
            }
            Self::Number(pane_ms) => taken_apart(looked_at[0].as_primitive(), *pane_ms),
        }
    }
}

fn numbers(
    starts: &ArrayRef,
    keys: &arrow::array::PrimitiveArray<Int32Type>,
    pane_ms: i64,
) -> ArrayRef {
    let starts = starts.as_primitive::<Int64Type>().values();
    // Neighbours are mostly in the same pane: a division only where they are not.
    let (mut last, mut pane) = (0, 0);
    let mut pane_of = |start: i64| {
        if start != last {
            (last, pane) = (start, (start / pane_ms) << KEY_BITS);
        }
        pane
    };
    let rows = starts.iter().zip(keys.values());
    let numbers: Vec<i64> = match keys.nulls() {
        None => rows
            .map(|(start, key)| pane_of(*start) | i64::from(key.cast_unsigned()))
            .collect(),
        Some(nulls) => rows
            .zip(nulls)
            .map(|((start, key), is_valid)| {
                pane_of(*start)
                    | match is_valid {
                        true => i64::from(key.cast_unsigned()),
                        false => NULL,
                    }
            })
            .collect(),
    };
    Arc::new(Int64Array::from(numbers))
}

fn taken_apart(numbers: &Int64Array, pane_ms: i64) -> Vec<ArrayRef> {
    let numbers = numbers.values().iter();
    let starts = numbers.clone().map(|number| (number >> KEY_BITS) * pane_ms);
    // The low 32 bits are the key's.
    let keys = numbers
        .clone()
        .map(|number| *number as i32)
        .collect::<Vec<_>>();
    let valid: BooleanBuffer = numbers.map(|number| number & NULL == 0).collect();
    let nulls = Some(NullBuffer::new(valid)).filter(|nulls| nulls.null_count() > 0);
    vec![
        Arc::new(Int64Array::from_iter_values(starts)),
        Arc::new(Int32Array::new(keys.into(), nulls)),
    ]
}

/// The window's start of partial rows, if it is the same of all.
fn one_start(partials: &[&RecordBatch]) -> Option<i64> {
    let mut starts = partials
        .iter()
        .map(|partial| partial.column(0).as_primitive::<Int64Type>());
    let first = *starts.clone().next()?.values().first()?;
    starts
        .all(|starts| starts.null_count() == 0 && starts.values().iter().all(|at| *at == first))
        .then_some(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_taken_apart_into_what_it_was_made_of() {
        let keys = [Some(0), Some(-1), Some(i32::MIN), Some(i32::MAX), None];
        let panes = [
            0,
            1,
            -1,
            -142_006,
            153_577,
            -142_005_600 / 60,
            153_577_440 / 60,
        ];
        let hour = 3_600_000;
        for pane_ms in [LEAST_PANE_MS, hour, 365 * 24 * hour] {
            let pairs = || {
                panes
                    .iter()
                    .flat_map(|pane| keys.map(|key| (pane * pane_ms, key)))
            };
            let starts: ArrayRef =
                Arc::new(Int64Array::from_iter_values(pairs().map(|pair| pair.0)));
            let keys: Int32Array = pairs().map(|pair| pair.1).collect();
            let made = numbers(&starts, &keys, pane_ms);
            let mut distinct = made.as_primitive::<Int64Type>().values().to_vec();
            let found = taken_apart(made.as_primitive(), pane_ms);
            assert_eq!(found[0].as_ref(), starts.as_ref());
            assert_eq!(found[1].as_primitive::<Int32Type>(), &keys);
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!(distinct.len(), keys.len());
        }
    }
}
