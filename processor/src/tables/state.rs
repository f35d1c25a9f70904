//! What a topic's records make of a reference table: the last value of each record key counts.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use engine::reference::{Key, Layout, Snapshot};

/// A record's key, as the log has it.
type RecordKey = Arc<[u8]>;

/// A table, as far as its topic has been read.
///
/// The log knows a row by its record's key, and the table by the columns that the job names. So both are remembered: a
/// tombstone has only the one, a value can come under another one of the other.
pub(super) struct State {
    layout: Arc<Layout>,
    rows: Snapshot,
    /// The row that the last value of a record key made.
    of_record: HashMap<RecordKey, Key>,
    /// The record key whose value made a row, if it has one.
    record_of: HashMap<Key, Option<RecordKey>>,
}

/// What a record says.
pub(super) enum Change {
    /// A row, by its place in the batch.
    Row(Option<RecordKey>, u32),
    /// That what came under this key is gone.
    Gone(RecordKey),
}

impl State {
    pub(super) fn new(layout: &Arc<Layout>) -> Self {
        Self {
            rows: Snapshot::empty(Arc::clone(layout)),
            layout: Arc::clone(layout),
            of_record: HashMap::new(),
            record_of: HashMap::new(),
        }
    }

    /// The table as it is now.
    pub(super) fn rows(&self) -> &Snapshot {
        &self.rows
    }

    /// How many rows it has.
    pub(super) fn len(&self) -> usize {
        self.record_of.len()
    }

    /// Takes what some records say, in their order. Returns the places of rows whose key is null: they change nothing.
    pub(super) fn take(
        &mut self,
        batch: Option<&RecordBatch>,
        changes: Vec<Change>,
    ) -> Result<Vec<u32>, ArrowError> {
        let empty = RecordBatch::new_empty(Arc::clone(self.layout.columns()));
        let batch = batch.unwrap_or(&empty);
        let keys = self.layout.keys(batch)?;
        let mut changed = Vec::with_capacity(changes.len());
        let mut without_key = Vec::new();
        for change in changes {
            match change {
                Change::Row(record, row) => {
                    let Some(key) = keys.get(row as usize).and_then(Option::as_ref) else {
                        without_key.push(row);
                        continue;
                    };
                    if let Some(record) = &record
                        && let Some(before) =
                            self.of_record.insert(Arc::clone(record), Arc::clone(key))
                        && before != *key
                    {
                        self.remove(record, before, &mut changed);
                    }
                    self.record_of.insert(Arc::clone(key), record);
                    changed.push((Arc::clone(key), Some(row)));
                }
                Change::Gone(record) => {
                    if let Some(before) = self.of_record.remove(&record) {
                        self.remove(&record, before, &mut changed);
                    }
                }
            }
        }
        self.rows = self.rows.with(batch, changed)?;
        Ok(without_key)
    }

    /// Removes a row, unless another record has written it since.
    fn remove(&mut self, record: &RecordKey, row: Key, changed: &mut Vec<(Key, Option<u32>)>) {
        if self
            .record_of
            .get(&row)
            .is_some_and(|by| by.as_ref() == Some(record))
        {
            self.record_of.remove(&row);
            changed.push((row, None));
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use std::collections::BTreeMap;

    use arrow::array::{AsArray, Int64Array, StringArray, TimestampMillisecondArray};
    use arrow::datatypes::{DataType, Field, Int64Type, Schema};
    use engine::plan::Settings;
    use engine::reference::Tables;
    use proptest::prelude::*;

    use super::*;

    /// A record: its key, and the row that it makes.
    type Written = (Option<u8>, Option<(Option<i64>, u16)>);

    /// The table after all of them: who wrote each row last, and its value.
    fn naive(records: &[Written]) -> BTreeMap<i64, u16> {
        let mut rows: BTreeMap<i64, (Option<u8>, u16)> = BTreeMap::new();
        let mut last: BTreeMap<u8, i64> = BTreeMap::new();
        for (record, value) in records {
            if matches!(value, Some((None, _))) {
                continue;
            }
            let to = value.and_then(|(key, _)| key);
            let from = record.and_then(|record| last.remove(&record));
            if let Some(from) = from.filter(|from| Some(*from) != to)
                && rows.get(&from).is_some_and(|(by, _)| *by == *record)
            {
                rows.remove(&from);
            }
            if let Some((Some(key), value)) = value {
                rows.insert(*key, (*record, *value));
                if let Some(record) = record {
                    last.insert(*record, *key);
                }
            }
        }
        rows.into_iter()
            .map(|(key, (_, value))| (key, value))
            .collect()
    }

    fn records() -> impl Strategy<Value = Vec<Written>> {
        let value = proptest::option::weighted(
            0.8,
            (proptest::option::weighted(0.95, 0_i64..12), any::<u16>()),
        );
        proptest::collection::vec((proptest::option::weighted(0.9, 0_u8..10), value), 0..120)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_last_value_of_each_key_counts_however_the_records_are_cut(records in records(), cut in 1_usize..30) {
            let columns = Arc::new(Schema::new(vec![
                Field::new("id", DataType::Int64, true),
                Field::new("value", DataType::Utf8, false),
            ]));
            let layout = Arc::new(Layout::new(Arc::clone(&columns), &["id".to_owned()]).unwrap());
            let mut state = State::new(&layout);
            for part in records.chunks(cut) {
                let values: Vec<_> = part.iter().filter_map(|(_, value)| *value).collect();
                let batch = RecordBatch::try_new(Arc::clone(&columns), vec![
                    Arc::new(values.iter().map(|(key, _)| *key).collect::<Int64Array>()),
                    Arc::new(values.iter().map(|(_, value)| Some(value.to_string())).collect::<StringArray>()),
                ]).unwrap();
                let mut row = 0;
                let mut changes = Vec::new();
                for (record, value) in part {
                    let record: Option<RecordKey> = record.map(|record| [record].as_slice().into());
                    match value {
                        Some(_) => {
                            changes.push(Change::Row(record, row));
                            row += 1;
                        }
                        None => changes.extend(record.map(Change::Gone)),
                    }
                }
                let without_key = state.take(Some(&batch), changes).unwrap();
                let expected = values.iter().filter(|(key, _)| key.is_none()).count();
                prop_assert_eq!(without_key.len(), expected);
            }
            let expected = naive(&records);
            prop_assert_eq!(state.len(), expected.len());
            prop_assert_eq!(state.rows().rows(), expected.len());
            prop_assert_eq!(contents(state.rows()), expected);
        }
    }

    /// What a join finds under each key.
    fn contents(rows: &Snapshot) -> BTreeMap<i64, u16> {
        let script = engine::sql::parse(
            "CREATE SOURCE asked (id BIGINT NOT NULL, at TIMESTAMP NOT NULL) WITH (topic = 'asked', format = 'json', event_time = 'at');
             CREATE REFERENCE TABLE told (id BIGINT, value TEXT) WITH (topic = 'told', format = 'json', key = 'id');
             CREATE SINK found WITH (topic = 'found', key = 'id');
             INSERT INTO found SELECT asked.id AS id, value FROM asked JOIN told ON told.id = asked.id;",
        )
        .unwrap();
        let of_source = script.sources["asked"].columns.clone().unwrap();
        let columns = BTreeMap::from([
            ("asked".to_owned(), of_source),
            ("told".to_owned(), Arc::clone(rows.layout().columns())),
        ]);
        let query = engine::plan::plan(&script, &columns, &Settings::default())
            .unwrap()
            .remove(0);
        let ids = Int64Array::from_iter_values(0..12);
        let times = TimestampMillisecondArray::from(vec![0; 12]).with_timezone("+00:00");
        let asked = RecordBatch::try_new(
            Arc::clone(&query.input),
            vec![Arc::new(ids), Arc::new(times)],
        )
        .unwrap();
        let tables = Tables::from([("told".to_owned(), rows.clone())]);
        let found = query.scan_with(&[asked], &tables).unwrap().partial;
        let keys = found.column(0).as_primitive::<Int64Type>();
        let values = found.column(1).as_string::<i32>();
        (0..found.num_rows())
            .map(|row| (keys.value(row), values.value(row).parse().unwrap()))
            .collect()
    }
}
