//! Partial rows to results.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::compute::{SortColumn, filter_record_batch, lexsort_to_indices, take};
use arrow::datatypes::{Int64Type, SchemaRef};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion_common::{DataFusionError, Result};

use super::groups::{Fragments, GroupColumn, Groups, check_columns};
use super::scan::{mask, timestamps};

impl Fragments {
    pub(super) fn finish(
        &self,
        partial: &RecordBatch,
        is_final: bool,
        partial_schema: &SchemaRef,
        output: &SchemaRef,
    ) -> Result<RecordBatch> {
        check_columns(partial, partial_schema, "partial")?;
        if partial.num_rows() == 0 {
            return Ok(RecordBatch::new_empty(Arc::clone(output)));
        }
        let mut groups = Groups::new(self)?;
        groups.merge(partial)?;
        let (keys, values, touched) = groups.into_values()?;

        // All windows have one length: their starts have the order of their ends.
        let columns: Vec<SortColumn> = keys
            .iter()
            .map(|key| SortColumn {
                values: Arc::clone(key),
                options: None,
            })
            .collect();
        let order = lexsort_to_indices(&columns, None)?;
        let sorted = |column: &ArrayRef| take(column, &order, None);
        let keys = keys.iter().map(sorted).collect::<Result<Vec<_>, _>>()?;
        let values = values.iter().map(sorted).collect::<Result<Vec<_>, _>>()?;
        let touched = sorted(&touched)?;

        let starts = keys[0].as_primitive::<Int64Type>().values().clone();
        let ends: Vec<i64> = starts.iter().map(|start| start + self.size_ms).collect();
        let mut columns: Vec<ArrayRef> = self
            .group_columns
            .iter()
            .map(|column| match column {
                GroupColumn::WindowStart => timestamps(starts.clone()),
                GroupColumn::WindowEnd => timestamps(ends.clone().into()),
                GroupColumn::Key(key) => Arc::clone(&keys[1 + key]),
            })
            .collect();
        for (aggregate, value) in self.aggregates.iter().zip(values) {
            columns.push(match &aggregate.mask {
                Some(mask) => mask.apply(&value, &ends, &keys[1..])?,
                None => value,
            });
        }
        let version = version(&touched, is_final)?;
        let mut grouped = RecordBatch::try_new(Arc::clone(&self.grouped), columns)?;
        let mut versions: ArrayRef = Arc::new(version);
        if let Some(having) = &self.having {
            let keep = mask(having, &grouped)?;
            versions = arrow::compute::filter(&versions, &keep)?;
            grouped = filter_record_batch(&grouped, &keep)?;
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
