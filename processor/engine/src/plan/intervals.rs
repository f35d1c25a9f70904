//! Intervals of event time, for windows that do not lie fast in it: each row, and each partial row, covers one.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array};
use arrow::datatypes::Int64Type;
use datafusion_common::Result;

use super::fragments::Fragments;
use crate::window::Window;

impl Fragments {
    /// Where each row's interval ends; `None` for windows that lie fast in time. The first of `groups`, which holds the
    /// rows' event times, is made to hold the starts of their groups.
    pub(super) fn intervals(&self, groups: &mut [ArrayRef]) -> Result<Option<Vec<i64>>> {
        let times = groups[0].as_primitive::<Int64Type>().values().clone();
        let after = |length: i64| {
            times
                .iter()
                .map(|time| time.saturating_add(length))
                .collect::<Vec<i64>>()
        };
        let Some(window) = self.window else {
            return Ok(None);
        };
        match window {
            Window::Tumbling { .. } | Window::Hopping { .. } => Ok(None),
            Window::Unbounded { ttl_ms } => {
                groups[0] = Arc::new(Int64Array::from(vec![0; times.len()]));
                Ok(Some(
                    ttl_ms.map_or_else(|| vec![i64::MAX; times.len()], &after),
                ))
            }
            Window::Session { gap_ms } => {
                let ends = after(gap_ms);
                let starts = self.unite(&groups[1..], &times, &ends)?;
                groups[0] = Arc::new(Int64Array::from(starts));
                Ok(Some(ends))
            }
        }
    }

    /// The start of the union that each interval is part of: intervals of a key that overlap are united.
    pub(super) fn unite(
        &self,
        keys: &[ArrayRef],
        starts: &[i64],
        ends: &[i64],
    ) -> Result<Vec<i64>> {
        let keys = self.key_bytes(keys)?;
        let same = |a: usize, b: usize| match &keys {
            Some(keys) => keys.row(a) == keys.row(b),
            None => true,
        };
        let mut order: Vec<usize> = (0..starts.len()).collect();
        match &keys {
            Some(keys) => order.sort_by(|&a, &b| {
                keys.row(a)
                    .cmp(&keys.row(b))
                    .then_with(|| starts[a].cmp(&starts[b]))
            }),
            None => order.sort_by_key(|row| starts[*row]),
        }
        let mut united = vec![0; starts.len()];
        let mut last: Option<(usize, i64, i64)> = None;
        for row in order {
            let (start, end) = match last {
                Some((before, start, end)) if same(before, row) && starts[row] < end => {
                    (start, end.max(ends[row]))
                }
                _ => (starts[row], ends[row]),
            };
            united[row] = start;
            last = Some((row, start, end));
        }
        Ok(united)
    }

    /// Each row's key columns as bytes that compare as the keys do; `None` if there are no key columns.
    pub(crate) fn key_bytes(&self, keys: &[ArrayRef]) -> Result<Option<arrow::row::Rows>> {
        self.key_rows
            .as_ref()
            .map(|converter| Ok(converter.convert_columns(keys)?))
            .transpose()
    }
}
