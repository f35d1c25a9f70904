//! Partial rows to results.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, UInt32Array};
use arrow::compute::{
    SortColumn, SortOptions, cast, filter, filter_record_batch, lexsort_to_indices, take,
    take_record_batch,
};
use arrow::datatypes::{DataType, Float64Type, Int64Type, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::{DataFusionError, Result};

use super::fragments::{Fragments, GroupColumn, Top};
use super::groups::{Groups, Values, check_columns, filled};
use super::scan::{mask, timestamps};
use crate::history::History;
use crate::window::Window;

impl Fragments {
    /// `history` is read for scores, and learns from final results.
    pub(super) fn finish(
        &self,
        partials: &[RecordBatch],
        is_final: bool,
        history: &mut History,
        partial_schema: &SchemaRef,
        output: &SchemaRef,
    ) -> Result<RecordBatch> {
        if partials.iter().all(|partial| partial.num_rows() == 0) {
            return Ok(RecordBatch::new_empty(Arc::clone(output)));
        }
        let partials: Vec<_> = filled(partials).collect();
        for partial in &partials {
            check_columns(partial, partial_schema, "partial")?;
        }
        let mut groups = Groups::of_partials(self, &partials)?;
        for partial in partials {
            groups.merge(partial, None)?;
        }
        let Values {
            groups: keys,
            values,
            ends,
            touched,
        } = in_order(groups.into_values()?)?;

        let mut columns: Vec<ArrayRef> = self
            .group_columns
            .iter()
            .map(|column| match column {
                GroupColumn::WindowStart => {
                    timestamps(keys[0].as_primitive::<Int64Type>().values().clone())
                }
                GroupColumn::WindowEnd => timestamps(ends.values().clone()),
                GroupColumn::Key(key) => Arc::clone(&keys[1 + key]),
            })
            .collect();
        // A group without windows has no end of its own: all of its rows are moved alike.
        let windows = match self.window.is_some_and(Window::is_bounded) {
            true => ends.values().clone(),
            false => vec![0; ends.len()].into(),
        };
        for (aggregate, value) in self.aggregates.iter().zip(values) {
            columns.push(match &aggregate.mask {
                Some(mask) => mask.apply(&value, &windows, &keys[1..])?,
                None => value,
            });
        }
        if !self.scored.is_empty() {
            let scores = self.scores(&columns, &keys[1..], &ends, is_final, history)?;
            columns.extend(scores);
        }
        let mut grouped = RecordBatch::try_new(Arc::clone(&self.grouped), columns)?;
        let mut versions: ArrayRef = Arc::new(version(&touched, is_final)?);
        let mut ends: ArrayRef = Arc::new(ends);
        if let Some(having) = &self.having {
            let keep = mask(having, &grouped)?;
            versions = filter(&versions, &keep)?;
            ends = filter(&ends, &keep)?;
            grouped = filter_record_batch(&grouped, &keep)?;
        }
        if let Some(top) = &self.top {
            let best = top.best(&grouped, &ends)?;
            versions = take(&versions, &best, None)?;
            grouped = take_record_batch(&grouped, &best)?;
        }
        let rows = grouped.num_rows();
        let mut columns = self
            .projection
            .iter()
            .map(|expr| expr.evaluate(&grouped)?.into_array(rows))
            .collect::<Result<Vec<_>>>()?;
        columns.push(versions);
        columns.push(Arc::new(BooleanArray::from(vec![is_final; rows])));
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        Ok(RecordBatch::try_new_with_options(
            Arc::clone(output),
            columns,
            &options,
        )?)
    }

    /// The columns of `anomaly_score`. Rows are in the order of their windows' ends, so that a window is scored against
    /// those before it.
    fn scores(
        &self,
        columns: &[ArrayRef],
        keys: &[ArrayRef],
        ends: &Int64Array,
        is_final: bool,
        history: &mut History,
    ) -> Result<Vec<ArrayRef>> {
        let rows = ends.len();
        let fields = self.grouped.fields()[..columns.len()].to_vec();
        let seen = RecordBatch::try_new(
            Arc::new(arrow::datatypes::Schema::new(fields)),
            columns.to_vec(),
        )?;
        let values = self
            .scored
            .iter()
            .map(|expr| {
                let value = expr.evaluate(&seen)?.into_array(rows)?;
                Ok(cast(&value, &DataType::Float64)?)
            })
            .collect::<Result<Vec<_>>>()?;
        let keys = self.key_bytes(keys)?;
        let mut scores = vec![Vec::with_capacity(rows); values.len()];
        for row in 0..rows {
            let key = keys.as_ref().map(|keys| keys.row(row));
            let key = key.as_ref().map_or(&[][..], |key| key.data());
            let values: Vec<Option<f64>> = values
                .iter()
                .map(|value| {
                    let value = value.as_primitive::<Float64Type>();
                    value.is_valid(row).then(|| value.value(row))
                })
                .collect();
            let end = ends.value(row);
            let found = history.scores(key, end, &values, self.history_ms);
            for (column, score) in scores.iter_mut().zip(found) {
                column.push(score);
            }
            if is_final {
                history.learn(key, end, &values, self.history_ms);
            }
        }
        Ok(scores
            .into_iter()
            .map(|scores| Arc::new(Float64Array::from(scores)) as ArrayRef)
            .collect())
    }
}

/// Sorts groups by their windows' end, then by their keys.
fn in_order(found: Values) -> Result<Values> {
    let mut columns: Vec<ArrayRef> = vec![Arc::new(found.ends.clone())];
    columns.extend(found.groups.iter().cloned());
    // A column that is the same everywhere orders nothing; of a single window only the keys do, and a single key is sorted
    // much faster than several columns are.
    columns.retain(|column| !is_one_integer(column));
    let columns: Vec<_> = columns.into_iter().map(sort_column).collect();
    if columns.is_empty() {
        return Ok(found);
    }
    let order = lexsort_to_indices(&columns, None)?;
    let sorted = |column: &ArrayRef| take(column, &order, None);
    Ok(Values {
        groups: found
            .groups
            .iter()
            .map(sorted)
            .collect::<Result<Vec<_>, _>>()?,
        values: found
            .values
            .iter()
            .map(sorted)
            .collect::<Result<Vec<_>, _>>()?,
        ends: take(&found.ends, &order, None)?
            .as_primitive::<Int64Type>()
            .clone(),
        touched: sorted(&found.touched)?,
    })
}

/// Whether a column holds one and the same integer of 64 bits in all rows.
fn is_one_integer(column: &ArrayRef) -> bool {
    let Some(values) = column.as_primitive_opt::<Int64Type>() else {
        return false;
    };
    let first = values.values().first();
    values.null_count() == 0 && values.values().iter().all(|value| Some(value) == first)
}

fn sort_column(values: ArrayRef) -> SortColumn {
    SortColumn {
        values,
        options: None,
    }
}

impl Top {
    /// The rows to keep, best first within each window. Those that the order does not tell apart keep the order that
    /// they came in.
    fn best(&self, grouped: &RecordBatch, ends: &ArrayRef) -> Result<UInt32Array> {
        let rows = grouped.num_rows();
        let mut columns = vec![sort_column(Arc::clone(ends))];
        for (expr, options) in &self.order {
            columns.push(SortColumn {
                values: expr.evaluate(grouped)?.into_array(rows)?,
                options: Some(*options),
            });
        }
        let places = UInt32Array::from_iter_values((0..rows).map(|row| row as u32));
        columns.push(SortColumn {
            values: Arc::new(places),
            options: Some(SortOptions::default()),
        });
        let order = lexsort_to_indices(&columns, None)?;
        let ends = ends.as_primitive::<Int64Type>();
        let (mut window, mut taken) = (None, 0);
        let best = order.values().iter().copied().filter(|row| {
            let end = ends.value(*row as usize);
            if window != Some(end) {
                (window, taken) = (Some(end), 0);
            }
            taken += 1;
            taken <= self.rows
        });
        Ok(best.collect::<Vec<u32>>().into())
    }
}

/// 2 × the offset of the last touch + is_final.
fn version(touched: &ArrayRef, is_final: bool) -> Result<Int64Array> {
    touched
        .as_primitive::<Int64Type>()
        .values()
        .iter()
        .map(|touched| {
            touched
                .checked_mul(2)
                .and_then(|version| version.checked_add(i64::from(is_final)))
        })
        .collect::<Option<Vec<i64>>>()
        .map(Int64Array::from)
        .ok_or_else(|| DataFusionError::Execution("an offset exceeds 2^62".to_owned()))
}
