//! What a group's windows were like: the memory behind `anomaly_score`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array};
use arrow::datatypes::{DataType, Field, Float64Type, Int64Type, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

/// How many windows a group must have had before a score means anything.
const LEAST_WINDOWS: u64 = 3;

/// The final windows of each group, in three numbers per score. A copy shares everything with its original.
#[derive(Clone, Debug, Default)]
pub struct History {
    groups: RedBlackTreeMapSync<Arc<[u8]>, Entry>,
    by_end: RedBlackTreeSetSync<(i64, Arc<[u8]>)>,
}

#[derive(Clone, Debug)]
struct Entry {
    last_end: i64,
    moments: Arc<[Moments]>,
}

/// Count, mean and sum of squared distances from the mean, kept up by Welford's method: Technometrics 4 (1962), 419.
#[derive(Clone, Copy, Debug, Default)]
struct Moments {
    windows: u64,
    mean: f64,
    squares: f64,
}

impl Moments {
    fn with(mut self, value: f64) -> Self {
        self.windows += 1;
        let distance = value - self.mean;
        self.mean += distance / self.windows as f64;
        self.squares += distance * (value - self.mean);
        self
    }

    /// The value's distance from the mean in standard deviations (of the sample: divided by windows − 1).
    fn score(&self, value: f64) -> Option<f64> {
        if self.windows < LEAST_WINDOWS {
            return None;
        }
        let deviation = (self.squares / (self.windows - 1) as f64).sqrt();
        (deviation > 0.0).then(|| (value - self.mean) / deviation)
    }
}

impl History {
    /// How many groups are remembered.
    pub fn len(&self) -> usize {
        self.groups.size()
    }

    /// Whether no group is.
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// The columns of [`History::rows`]: key, end of the last window, and for each score count, mean and sum of squares.
    pub(crate) fn schema(scores: usize) -> SchemaRef {
        let mut fields = vec![
            Field::new("key", DataType::Binary, false),
            Field::new("last_end", DataType::Int64, false),
        ];
        for score in 0..scores {
            fields.push(Field::new(
                format!("windows_{score}"),
                DataType::Int64,
                false,
            ));
            fields.push(Field::new(
                format!("mean_{score}"),
                DataType::Float64,
                false,
            ));
            fields.push(Field::new(
                format!("squares_{score}"),
                DataType::Float64,
                false,
            ));
        }
        Arc::new(Schema::new(fields))
    }

    /// Everything in it, in order of key; `None` if that is nothing.
    pub(crate) fn rows(&self, scores: usize) -> Option<RecordBatch> {
        if self.is_empty() {
            return None;
        }
        let entries = || self.groups.values();
        let keys: BinaryArray = self.groups.keys().map(|key| Some(key.as_ref())).collect();
        let ends = Int64Array::from_iter_values(entries().map(|entry| entry.last_end));
        let mut columns: Vec<ArrayRef> = vec![Arc::new(keys), Arc::new(ends)];
        for score in 0..scores {
            let of = |entry: &Entry| entry.moments.get(score).copied().unwrap_or_default();
            let windows = entries().map(|entry| of(entry).windows as i64);
            columns.push(Arc::new(Int64Array::from_iter_values(windows)));
            let means = entries().map(|entry| of(entry).mean);
            columns.push(Arc::new(Float64Array::from_iter_values(means)));
            let squares = entries().map(|entry| of(entry).squares);
            columns.push(Arc::new(Float64Array::from_iter_values(squares)));
        }
        // The columns are made as the schema says, and of one length.
        RecordBatch::try_new(Self::schema(scores), columns).ok()
    }

    /// The history that these rows hold; `None` if they have other columns than [`History::rows`] gives.
    pub(crate) fn from_rows(rows: &RecordBatch, scores: usize) -> Option<Self> {
        let expected = Self::schema(scores);
        let fits = rows.num_columns() == expected.fields().len()
            && (rows.columns().iter().zip(expected.fields())).all(|(column, field)| {
                column.data_type() == field.data_type() && column.null_count() == 0
            });
        if !fits {
            return None;
        }
        let mut history = Self::default();
        let keys = rows.column(0).as_binary::<i32>();
        let ends = rows.column(1).as_primitive::<Int64Type>();
        for row in 0..rows.num_rows() {
            let moments: Vec<Moments> = (0..scores)
                .map(|score| {
                    let at = 2 + 3 * score;
                    let float =
                        |at: usize| rows.column(at).as_primitive::<Float64Type>().value(row);
                    let windows = rows.column(at).as_primitive::<Int64Type>().value(row);
                    Moments {
                        windows: u64::try_from(windows).unwrap_or_default(),
                        mean: float(at + 1),
                        squares: float(at + 2),
                    }
                })
                .collect();
            let key: Arc<[u8]> = Arc::from(keys.value(row));
            let last_end = ends.value(row);
            history.by_end.insert_mut((last_end, Arc::clone(&key)));
            let entry = Entry {
                last_end,
                moments: moments.into(),
            };
            history.groups.insert_mut(key, entry);
        }
        Some(history)
    }

    /// Each value of a window that ends at `end`, scored against the group's windows so far. `None` for a null, before
    /// the fourth window, while all windows were alike, and behind more than `ttl_ms` without one: what other groups of
    /// the shard did meanwhile, and so the number of shards, makes no difference.
    pub(crate) fn scores(
        &self,
        key: &[u8],
        end: i64,
        values: &[Option<f64>],
        ttl_ms: i64,
    ) -> Vec<Option<f64>> {
        let entry = self
            .groups
            .get(key)
            .filter(|entry| entry.last_end.saturating_add(ttl_ms) >= end);
        values
            .iter()
            .enumerate()
            .map(|(place, value)| entry?.moments.get(place)?.score((*value)?))
            .collect()
    }

    /// Takes in the values of a window that ends at `end`, and forgets groups that had none for `ttl_ms` before it.
    pub(crate) fn learn(&mut self, key: &[u8], end: i64, values: &[Option<f64>], ttl_ms: i64) {
        while let Some((last_end, silent)) = self.by_end.first().cloned()
            && last_end.saturating_add(ttl_ms) < end
        {
            self.groups.remove_mut(&silent);
            self.by_end.remove_mut(&(last_end, silent));
        }
        let (key, entry) = match self.groups.get_key_value(key) {
            Some((key, entry)) => (Arc::clone(key), Some(entry.clone())),
            None => (Arc::from(key), None),
        };
        let mut moments = entry.as_ref().map_or_else(
            || vec![Moments::default(); values.len()],
            |entry| entry.moments.to_vec(),
        );
        for (moments, value) in moments.iter_mut().zip(values) {
            if let Some(value) = value.filter(|value| value.is_finite()) {
                *moments = moments.with(value);
            }
        }
        let last_end = entry.as_ref().map_or(end, |entry| entry.last_end.max(end));
        if let Some(entry) = entry {
            self.by_end.remove_mut(&(entry.last_end, Arc::clone(&key)));
        }
        self.by_end.insert_mut((last_end, Arc::clone(&key)));
        self.groups.insert_mut(
            key,
            Entry {
                last_end,
                moments: moments.into(),
            },
        );
    }
}
