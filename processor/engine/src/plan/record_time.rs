//! The time that the log has for a record, as a column of every source.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};

use super::RECORD_TIME;
use super::scan::UTC;
use crate::sql::Script;

/// Tells the log's column from one of the values that has its name.
const OF_THE_LOG: &str = "headway.of_the_log";

/// Each source's columns with [`RECORD_TIME`] beside them, but where the values have a column of that name.
pub(super) fn beside(
    script: &Script,
    schemas: &BTreeMap<String, SchemaRef>,
) -> BTreeMap<String, SchemaRef> {
    let with = |name: &String, columns: &SchemaRef| {
        if !script.sources.contains_key(name) || columns.field_with_name(RECORD_TIME).is_ok() {
            return Arc::clone(columns);
        }
        let mut fields: Vec<FieldRef> = columns.fields().iter().cloned().collect();
        fields.push(Arc::new(column()));
        Arc::new(Schema::new(fields))
    };
    schemas
        .iter()
        .map(|(name, columns)| (name.clone(), with(name, columns)))
        .collect()
}

/// Whether the log's column is among these.
pub(super) fn is_read(columns: &Schema) -> bool {
    columns
        .field_with_name(RECORD_TIME)
        .is_ok_and(|field| field.metadata().contains_key(OF_THE_LOG))
}

fn column() -> Field {
    let instant = DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into()));
    let mark = HashMap::from([(OF_THE_LOG.to_owned(), String::new())]);
    Field::new(RECORD_TIME, instant, true).with_metadata(mark)
}
