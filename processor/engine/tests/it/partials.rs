//! Partial rows that no scan has made.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::record_batch::RecordBatch;
use engine::fold::{Fold, FoldError};
use engine::partial::{FORMAT_VERSION, Header};
use engine::plan::Query;

use super::support::*;

const KINDS: [&str; 4] = [
    "SELECT window_start, vendor_id, count(*) AS n FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')
     GROUP BY window_start, vendor_id",
    "SELECT window_start, vendor_id, count(*) AS n
     FROM HOP(trips, pickup_at, INTERVAL '20 minutes', INTERVAL '1 hour') GROUP BY window_start, vendor_id",
    "SELECT window_start, vendor_id, count(*) AS n FROM SESSION(trips, pickup_at, INTERVAL '10 minutes')
     GROUP BY window_start, vendor_id",
    "SELECT vendor_id, count(*) AS n FROM trips GROUP BY vendor_id",
];

fn query(kind: &str) -> Arc<Query> {
    let text = match kind.contains("window_start") {
        true => job("window_start, vendor_id", kind),
        false => job("vendor_id", kind).replace("key = 'v", "emit = 'changes', key = 'v"),
    };
    Arc::new(planned(&text, &trips_schema()).unwrap())
}

fn apply(query: &Arc<Query>, rows: &RecordBatch) -> Result<(), FoldError> {
    let header = Header {
        version: FORMAT_VERSION,
        fingerprint: 1,
        topic_id: "id".to_owned(),
        partition: 0,
        partitions: 1,
        start: 0,
        end: 1_000,
        rows_in: 1_000,
        filtered: 0,
        dead: 0,
        watermark: Some(i64::MAX),
        idle: false,
        advance_to: None,
        ended: true,
    };
    Fold::new(Arc::clone(query), 1)
        .apply(0, &header, Some(rows))
        .map(drop)
}

/// The rows with a column filled with one number.
fn with(rows: &RecordBatch, name: &str, number: i64) -> RecordBatch {
    let place = rows.schema().index_of(name).unwrap();
    let mut columns = rows.columns().to_vec();
    columns[place] = Arc::new(Int64Array::from_value(number, rows.num_rows())) as ArrayRef;
    RecordBatch::try_new(rows.schema(), columns).unwrap()
}

#[test]
fn partial_rows_with_windows_or_counts_that_cannot_be_stop_the_fold_with_an_error() {
    for kind in KINDS {
        let query = query(kind);
        let trips = some_trips(11, 200, 5);
        let rows = query.scan(&[batch(&query, &trips)]).unwrap().partial;
        apply(&query, &rows).unwrap();
        let mut wrong = vec![
            ("__rows", 0),
            ("__rows", -1),
            ("__rows", i64::MAX),
            ("__window_start", i64::MIN),
            ("__window_start", i64::MAX),
            ("__window_start", 1 << 60),
        ];
        if query.window.unwrap().longest_ms() == 3_600_000 {
            // between two panes
            wrong.push(("__window_start", 1_457_827_200_001));
        } else {
            wrong.push(("__window_end", i64::MIN));
        }
        for (name, number) in wrong {
            assert!(
                matches!(
                    apply(&query, &with(&rows, name, number)),
                    Err(FoldError::Rows)
                ),
                "{name} = {number} of {kind}"
            );
        }
    }
}
