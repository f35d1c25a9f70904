//! Which records may enter: those of this job and source, each behind the last one of its partition, with rows that can be.

use std::sync::Arc;

use arrow::array::Int64Array;
use arrow::record_batch::RecordBatch;

use super::{Fold, FoldError, check};
use crate::partial::{FORMAT_VERSION, Header, OLDEST_FORMAT};
use crate::plan::{Query, TOUCHED};

impl Fold {
    /// Checks that a record belongs here and follows on the last one of its partition. False: taken before.
    pub(super) fn admit(&mut self, header: &Header) -> Result<bool, FoldError> {
        if !(OLDEST_FORMAT..=FORMAT_VERSION).contains(&header.version) {
            return Err(FoldError::Format {
                found: header.version,
            });
        }
        if header.fingerprint != self.fingerprint {
            return Err(FoldError::Fingerprint);
        }
        match &self.topic_id {
            Some(was) if *was != header.topic_id => {
                return Err(FoldError::TopicId {
                    was: was.clone(),
                    is: header.topic_id.clone(),
                });
            }
            Some(_) => {}
            None => self.topic_id = Some(header.topic_id.clone()),
        }
        let gap = |expected| FoldError::Gap {
            partition: header.partition,
            expected,
            start: header.start,
            end: header.end,
        };
        match self.ranges.get(&header.partition) {
            _ if header.end < header.start => return Err(gap(header.start)),
            Some(&expected) if header.start == expected => {}
            Some(&expected)
                if self
                    .gaps
                    .contains(&(header.partition, expected, header.start)) => {}
            Some(&expected) if header.end <= expected && header.start < expected => {
                return Ok(false);
            }
            Some(&expected) => return Err(gap(expected)),
            None => {}
        }
        self.ranges.insert(header.partition, header.end);
        Ok(true)
    }
}

/// The rows with the offset that brought them, after a check that they have the query's columns.
pub(super) fn touched_at(
    query: &Query,
    rows: &RecordBatch,
    offset: i64,
) -> Result<RecordBatch, FoldError> {
    let same = rows.num_columns() == query.partial.fields().len()
        && rows
            .schema()
            .fields()
            .iter()
            .zip(query.partial.fields())
            .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
    if !same
        || query
            .partial
            .fields()
            .last()
            .is_none_or(|field| field.name() != TOUCHED)
    {
        return Err(FoldError::Columns);
    }
    if !check::is_possible(query.window, rows) {
        return Err(FoldError::Rows);
    }
    let mut columns = rows.columns().to_vec();
    let last = columns.len() - 1;
    columns[last] = Arc::new(Int64Array::from_value(offset, rows.num_rows()));
    RecordBatch::try_new(Arc::clone(&query.partial), columns).map_err(|_| FoldError::Columns)
}
