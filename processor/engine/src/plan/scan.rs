//! Source rows to partial rows.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, Int64Array, PrimitiveArray,
    TimestampMillisecondArray,
};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{FilterBuilder, concat_batches, prep_null_mask_filter};
use arrow::datatypes::{
    DataType, Int64Type, SchemaRef, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow::record_batch::RecordBatch;
use datafusion_common::{DataFusionError, Result, exec_datafusion_err, internal_err};
use datafusion_physical_expr::PhysicalExpr;

use super::fragments::Fragments;
use super::groups::{Evaluated, Groups, check_columns};
use super::join::{Left, Opened};
use super::{DeadRow, Scanned};
use crate::reference::Tables;

/// The zone of window_start and window_end, as arrow-avro names it.
pub(super) const UTC: &str = "+00:00";
/// 1700-01-01: between here and [`LAST_MS`] an instant can be counted in nanoseconds too, as some functions do.
pub(crate) const FIRST_MS: i64 = -8_520_336_000_000;
/// The last millisecond before 2262-01-01.
pub(crate) const LAST_MS: i64 = 9_214_646_399_999;

/// Rows with a window each.
struct Rows {
    batch: RecordBatch,
    starts: ScalarBuffer<i64>,
    /// Each row's index in the whole call.
    origin: Origin,
}

enum Origin {
    From(u32),
    Listed(Vec<u32>),
}

/// Where rows go: into groups, or out as they are.
struct Into<'a> {
    /// What they are looked up in.
    tables: Vec<Opened<'a>>,
    groups: Groups<'a>,
    rows: Vec<Vec<ArrayRef>>,
    origins: Vec<u32>,
}

impl Rows {
    fn slice(&self, offset: usize, length: usize) -> Self {
        let origin = match &self.origin {
            // A call's rows are counted in a u32, see scan.
            Origin::From(first) => Origin::From(first + offset as u32),
            Origin::Listed(rows) => Origin::Listed(rows[offset..offset + length].to_vec()),
        };
        Self {
            batch: self.batch.slice(offset, length),
            starts: self.starts.slice(offset, length),
            origin,
        }
    }

    fn first(&self) -> u32 {
        self.origin_of(0)
    }

    /// The row's index in the whole call.
    fn origin_of(&self, row: u32) -> u32 {
        match &self.origin {
            Origin::From(first) => first + row,
            Origin::Listed(rows) => rows.get(row as usize).copied().unwrap_or_default(),
        }
    }
}

impl Fragments {
    pub(super) fn scan(
        &self,
        batches: &[RecordBatch],
        tables: &Tables,
        partial: &SchemaRef,
    ) -> Result<Scanned> {
        let mut into = Into {
            tables: self.opened(tables)?,
            groups: Groups::of_rows(self)?,
            rows: Vec::new(),
            origins: Vec::new(),
        };
        let mut scanned = Scanned {
            partial: RecordBatch::new_empty(Arc::clone(partial)),
            rows_in: 0,
            filtered: 0,
            kept: 0,
            assigned: 0,
            dead: Vec::new(),
            origins: Vec::new(),
        };
        for batch in batches {
            check_columns(batch, &self.input, "source")?;
            let base = u32::try_from(scanned.rows_in)
                .ok()
                .filter(|base| {
                    u32::try_from(batch.num_rows())
                        .is_ok_and(|rows| base.checked_add(rows).is_some())
                })
                .ok_or_else(|| exec_datafusion_err!("more than 2^32 rows in one call"))?;
            scanned.rows_in += batch.num_rows() as u64;
            let rows = self.assign(batch, base, &mut scanned.dead)?;
            self.take(&rows, &mut into, &mut scanned)?;
        }
        scanned.partial = match self.window {
            Some(_) => into.groups.into_partial(partial)?,
            None => {
                scanned.origins = into.origins;
                let batches = into
                    .rows
                    .into_iter()
                    .map(|columns| RecordBatch::try_new(Arc::clone(partial), columns))
                    .collect::<Result<Vec<_>, _>>()?;
                concat_batches(partial, &batches)?
            }
        };
        scanned.dead.sort_by_key(|dead| dead.row);
        Ok(scanned)
    }

    /// Gives each row its window; rows without a usable event time are dead.
    fn assign(&self, batch: &RecordBatch, base: u32, dead: &mut Vec<DeadRow>) -> Result<Rows> {
        let column = batch.column(self.event_time);
        let (starts, bad) = match column.data_type() {
            DataType::Timestamp(TimeUnit::Second, _) => self
                .windows(column.as_primitive::<TimestampSecondType>(), |seconds| {
                    seconds.saturating_mul(1_000)
                }),
            DataType::Timestamp(TimeUnit::Millisecond, _) => self.windows(
                column.as_primitive::<TimestampMillisecondType>(),
                |millis| millis,
            ),
            DataType::Timestamp(TimeUnit::Microsecond, _) => self.windows(
                column.as_primitive::<TimestampMicrosecondType>(),
                |micros| micros.div_euclid(1_000),
            ),
            DataType::Timestamp(TimeUnit::Nanosecond, _) => self
                .windows(column.as_primitive::<TimestampNanosecondType>(), |nanos| {
                    nanos.div_euclid(1_000_000)
                }),
            other => return internal_err!("event time is {other}, not a timestamp"),
        };
        if bad.is_empty() {
            let (batch, origin) = (
                self.with_windows(batch, &starts.clone().into())?,
                Origin::From(base),
            );
            return Ok(Rows {
                batch,
                starts: starts.into(),
                origin,
            });
        }
        let name = self.input.field(self.event_time).name();
        let mut keep = vec![true; batch.num_rows()];
        for (row, millis) in bad {
            keep[row] = false;
            let reason = match millis {
                None => format!("{name}, the event time, is null"),
                Some(millis) => {
                    format!(
                        "{name}, the event time, is {millis} ms from 1970: not in the years 1700 to 2261"
                    )
                }
            };
            dead.push(DeadRow {
                row: base + row as u32,
                reason,
            });
        }
        let origin = (base..)
            .zip(&keep)
            .filter_map(|(row, keep)| keep.then_some(row))
            .collect();
        let keep = BooleanArray::from(keep);
        let filter = FilterBuilder::new(&keep).optimize().build();
        let starts = filter.filter(&Int64Array::from(starts))?;
        let starts = starts.as_primitive::<Int64Type>().values().clone();
        let batch = self.with_windows(&filter.filter_record_batch(batch)?, &starts)?;
        Ok(Rows {
            batch,
            starts,
            origin: Origin::Listed(origin),
        })
    }

    /// Each row's pane, by its start (where windows do not lie fast in time, its event time), and the rows that have
    /// none: each with its event time, if it is not null.
    fn windows<T: ArrowPrimitiveType<Native = i64>>(
        &self,
        times: &PrimitiveArray<T>,
        millis: impl Fn(i64) -> i64,
    ) -> (Vec<i64>, Vec<(usize, Option<i64>)>) {
        let mut starts = Vec::with_capacity(times.len());
        let mut bad = Vec::new();
        let pane_ms = self.pane_ms().unwrap_or(1);
        // Neighbours are mostly in the same window: a division only where they are not.
        let (mut start, mut end) = (0, 0);
        for (row, time) in times.values().iter().enumerate() {
            let time = millis(*time);
            if time < start || time >= end {
                if (FIRST_MS..=LAST_MS).contains(&time) {
                    start = time - time.rem_euclid(pane_ms);
                    end = start + pane_ms;
                } else if times.is_valid(row) {
                    bad.push((row, Some(time)));
                }
            }
            starts.push(start);
        }
        if times.null_count() > 0 {
            bad.extend(
                (0..times.len())
                    .filter(|row| times.is_null(*row))
                    .map(|row| (row, None)),
            );
        }
        (starts, bad)
    }

    fn with_windows(&self, batch: &RecordBatch, starts: &ScalarBuffer<i64>) -> Result<RecordBatch> {
        if self.windowed.fields().len() == self.input.fields().len() {
            return Ok(batch.clone());
        }
        let size_ms = self.size_ms().unwrap_or_default();
        let ends: Vec<i64> = starts.iter().map(|start| start + size_ms).collect();
        let mut columns = batch.columns().to_vec();
        columns.push(timestamps(starts.clone()));
        columns.push(timestamps(ends.into()));
        Ok(RecordBatch::try_new(Arc::clone(&self.windowed), columns)?)
    }

    /// How many row × window pairs rows of these panes make.
    fn pairs(&self, panes: &[i64]) -> u64 {
        match self.window {
            Some(window) => window.pairs(panes.iter().map(|pane| (*pane, 1))),
            None => panes.len() as u64,
        }
    }

    /// Evaluates and aggregates rows. If an expression fails on some, they are halved until the ones that it fails
    /// on stand alone: these are dead.
    fn take(&self, rows: &Rows, into: &mut Into<'_>, scanned: &mut Scanned) -> Result<()> {
        let count = rows.batch.num_rows();
        if count == 0 {
            return Ok(());
        }
        match self.evaluate(rows, &into.tables) {
            Ok(None) => scanned.filtered += count as u64,
            Ok(Some(evaluated)) => {
                let kept = evaluated.groups[0].len();
                scanned.filtered += (count - kept) as u64;
                let panes = evaluated.groups[0].as_primitive::<Int64Type>().values();
                scanned.kept += kept as u64;
                scanned.assigned += self.pairs(panes);
                if self.window.is_some() {
                    into.groups.update(&evaluated)?;
                } else {
                    let kept = evaluated
                        .kept
                        .unwrap_or_else(|| (0..count as u32).collect());
                    into.origins
                        .extend(kept.iter().map(|row| rows.origin_of(*row)));
                    into.rows.push(evaluated.groups[1..].to_vec());
                }
            }
            Err(error) if !of_a_row(&error) => return Err(error),
            Err(error) if count == 1 => {
                scanned.dead.push(DeadRow {
                    row: rows.first(),
                    reason: reason(&error),
                });
            }
            Err(_) => {
                let half = count / 2;
                self.take(&rows.slice(0, half), into, scanned)?;
                self.take(&rows.slice(half, count - half), into, scanned)?;
            }
        }
        Ok(())
    }

    /// `None` if the filters leave no row.
    fn evaluate(&self, rows: &Rows, tables: &[Opened<'_>]) -> Result<Option<Evaluated>> {
        let mut left = Left {
            batch: rows.batch.clone(),
            starts: Arc::new(Int64Array::new(rows.starts.clone(), None)),
            passed: None,
            wants_passed: self.window.is_none(),
        };
        // Without lookups only what is read behind the filter goes through it.
        if tables.is_empty() {
            let keep = self.filter.as_ref().map(|filter| mask(filter, &left.batch));
            left.read_only(&self.kept, &self.kept_schema)?;
            if let Some(keep) = keep.transpose()? {
                left.keep(&keep)?;
            }
        } else {
            if let Some(filter) = &self.filter {
                left.keep(&mask(filter, &left.batch)?)?;
            }
            self.look_up(&mut left, tables)?;
            left.read_only(&self.kept, &self.kept_schema)?;
        }
        if left.starts.is_empty() {
            return Ok(None);
        }
        let Left {
            batch,
            starts,
            passed,
            ..
        } = left;

        let array =
            |expr: &Arc<dyn PhysicalExpr>| expr.evaluate(&batch)?.into_array(batch.num_rows());
        let mut groups = vec![starts];
        for key in &self.keys {
            groups.push(array(key)?);
        }
        let ends = self.intervals(&mut groups)?;
        let mut args = Vec::with_capacity(self.aggregates.len());
        let mut filters = Vec::with_capacity(self.aggregates.len());
        for aggregate in &self.aggregates {
            args.push(
                aggregate
                    .args
                    .iter()
                    .map(array)
                    .collect::<Result<Vec<_>>>()?,
            );
            filters.push(
                aggregate
                    .filter
                    .as_ref()
                    .map(|filter| mask(filter, &batch))
                    .transpose()?,
            );
        }
        Ok(Some(Evaluated {
            groups,
            ends,
            args,
            filters,
            kept: passed,
        }))
    }
}

/// A condition over some rows; unknown is false.
pub(super) fn mask(condition: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<BooleanArray> {
    let array = condition.evaluate(batch)?.into_array(batch.num_rows())?;
    let Some(mask) = array.as_boolean_opt() else {
        return internal_err!("a condition is {}, not a boolean", array.data_type());
    };
    Ok(if mask.null_count() > 0 {
        prep_null_mask_filter(mask)
    } else {
        mask.clone()
    })
}

/// Milliseconds as a column of type timestamp in UTC.
pub(super) fn timestamps(millis: ScalarBuffer<i64>) -> ArrayRef {
    Arc::new(TimestampMillisecondArray::new(millis, None).with_timezone(UTC))
}

/// Whether an error is a row's (a division by zero, a text that is no number) and not the program's.
fn of_a_row(error: &DataFusionError) -> bool {
    matches!(
        error.find_root(),
        DataFusionError::ArrowError(..) | DataFusionError::Execution(_)
    )
}

fn reason(error: &DataFusionError) -> String {
    format!(
        "the job's expressions fail on the row: {}",
        error.strip_backtrace()
    )
}
