//! The event times of decoded rows, and those that lie too far in the future; the times that the log has for them.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array, TimestampMillisecondArray};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{
    DataType, Field, FieldRef, Int64Type, Schema, SchemaRef, TimeUnit, TimestampMillisecondType,
};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use engine::plan::RECORD_TIME;
use runtime::log::Batch;

use super::{Dead, ScanError, ScanTask, Taken};
use crate::words;

/// The reason code of rows whose event time is further ahead of the clock than `max_ahead` allows.
const TOO_FAR_AHEAD: &str = "too_far_ahead";

impl ScanTask {
    /// Takes out the rows whose event time lies behind `latest`: dead letters, of each query.
    pub(super) fn leave_out_future(
        &mut self,
        decoded: RecordBatch,
        rows: &mut Vec<usize>,
        batch: &Batch,
        latest: i64,
        taken: &mut Taken,
    ) -> Result<RecordBatch, ScanError> {
        let times = self.event_times(&decoded)?;
        if arrow::compute::max(&times).is_none_or(|time| time <= latest) {
            return Ok(decoded);
        }
        let keep: BooleanArray = times
            .iter()
            .map(|time| Some(time.is_none_or(|time| time <= latest)))
            .collect();
        let mut dead = 0;
        let mut place = 0;
        rows.retain(|row| {
            let kept = keep.value(place);
            if !kept {
                let record = batch.get(*row);
                dead += 1;
                taken.dead.push(Dead {
                    offset: record.offset,
                    reason: TOO_FAR_AHEAD,
                    detail: format!(
                        "its event time, {}, is {} behind {}: the clock when it was read, and max_ahead",
                        words::instant(times.value(place)),
                        words::length_ms(times.value(place).saturating_sub(latest)),
                        words::instant(latest),
                    ),
                    schema_id: None,
                    raw: record.value.unwrap_or_default().to_vec(),
                });
            }
            place += 1;
            kept
        });
        for range in &mut self.range.queries {
            range.counts.dead += dead;
        }
        Ok(filter_record_batch(&decoded, &keep)?)
    }

    /// The event times of decoded rows, in milliseconds since 1970.
    pub(super) fn event_times(&self, decoded: &RecordBatch) -> Result<Int64Array, ScanError> {
        event_millis(decoded.column(self.event_time).as_ref()).ok_or_else(|| ScanError::Column {
            column: decoded.schema().field(self.event_time).name().clone(),
            topic: self.partition.topic.to_string(),
        })
    }
}

/// The zone of instants, as arrow-avro names it.
const UTC: &str = "+00:00";

/// The columns of values, and the log's time behind them.
pub(super) fn with_record_time(of_values: &Schema) -> SchemaRef {
    let instant = DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into()));
    let mut fields: Vec<FieldRef> = of_values.fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(RECORD_TIME, instant, true)));
    Arc::new(Schema::new(fields))
}

/// Puts the log's time behind what was decoded from these rows of a batch; null where it has none.
pub(super) fn put_record_time(
    decoded: &RecordBatch,
    schema: &SchemaRef,
    rows: &[usize],
    batch: &Batch,
) -> Result<RecordBatch, ArrowError> {
    let times: TimestampMillisecondArray = rows
        .iter()
        .map(|row| Some(batch.get(*row).timestamp_ms).filter(|time| *time >= 0))
        .collect();
    let mut columns = decoded.columns().to_vec();
    columns.push(Arc::new(times.with_timezone(UTC)));
    RecordBatch::try_new(Arc::clone(schema), columns)
}

/// A column of instants in milliseconds since 1970, as the engine counts them; `None` if it holds others than instants.
fn event_millis(column: &dyn Array) -> Option<Int64Array> {
    let DataType::Timestamp(unit, _) = column.data_type() else {
        return None;
    };
    if let Some(times) = column.as_primitive_opt::<TimestampMillisecondType>() {
        return Some(times.reinterpret_cast::<Int64Type>());
    }
    let raw = cast(column, &DataType::Int64).ok()?;
    let raw = raw.as_primitive_opt::<Int64Type>()?;
    Some(match unit {
        TimeUnit::Second => raw.unary(|time| time.saturating_mul(1_000)),
        TimeUnit::Millisecond => raw.clone(),
        TimeUnit::Microsecond => raw.unary(|time| time.div_euclid(1_000)),
        TimeUnit::Nanosecond => raw.unary(|time| time.div_euclid(1_000_000)),
    })
}

/// The latest event time, some rows left out.
pub(super) fn latest_event(times: &Int64Array, without: &[u32]) -> Option<i64> {
    if without.is_empty() {
        return arrow::compute::max(times);
    }
    let usable = times
        .iter()
        .zip(0u32..)
        .filter(|(_, row)| !without.contains(row));
    usable.filter_map(|(time, _)| time).max()
}
