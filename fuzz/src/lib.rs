//! What is asked of everything that others can write: whatever the bytes, an answer or an error, soon, and without a panic.
//!
//! Each function is a target of cargo-fuzz, and runs over its seeds, and over what was found before, as an ordinary test
//! (processor/tests/it/fuzz.rs).

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, Float64Array, Int32Array, Int64Array, StringArray, TimestampMillisecondArray,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::record_batch::RecordBatch;
use engine::fold::Fold;
use engine::partial::{FORMAT_VERSION, Header};
use engine::plan::{Query, Settings, plan};
use processor::format::{self, NEWEST};
use processor::offsets::{self, ScanCounts, ShardState, SourceState};
use processor::partial;
use processor::snapshot::manifest::{self, Manifest, Named, Slice};

/// The columns of trips, with one more of a nested type.
fn columns() -> SchemaRef {
    let timestamp = DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()));
    let tags = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Utf8, false),
        Field::new("vendor_id", DataType::Int32, false),
        Field::new("pickup_at", timestamp.clone(), false),
        Field::new("dropoff_at", timestamp, false),
        Field::new("passenger_count", DataType::Int32, false),
        Field::new("pickup_longitude", DataType::Float64, false),
        Field::new("pickup_latitude", DataType::Float64, false),
        Field::new("dropoff_longitude", DataType::Float64, false),
        Field::new("dropoff_latitude", DataType::Float64, false),
        Field::new("store_and_fwd_flag", DataType::Utf8, false),
        Field::new("gc_distance", DataType::Float64, false),
        Field::new("trip_duration", DataType::Int32, false),
        Field::new("google_distance", DataType::Int32, true),
        Field::new("tags", tags, true),
    ]))
}

/// A job's text: it is planned, or refused.
pub fn sql(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let Ok(script) = engine::sql::parse(text) else {
        return;
    };
    let schemas = script.sources.iter().map(|(name, source)| {
        let schema = source.columns.clone().unwrap_or_else(columns);
        (name.clone(), schema)
    });
    let settings = Settings {
        mask_salt: b"a salt".to_vec(),
    };
    let _ = plan(&script, &schemas.collect(), &settings);
}

/// The header of a partials record.
pub fn partial_header(bytes: &[u8]) {
    if let Ok(header) = partial::decode_header(Some(bytes)) {
        assert!(header.partition >= 0 && header.partitions <= partial::MAX_PARTITIONS);
        let again =
            partial::encode_header(&header).map(|bytes| partial::decode_header(Some(&bytes)));
        assert!(matches!(again, Ok(Ok(again)) if again == header));
    }
}

/// The rows of a partials record.
pub fn partial_rows(bytes: &[u8]) {
    if let Ok(Some(rows)) = partial::decode_rows(Some(bytes)) {
        assert!(rows.get_array_memory_size() <= 2 * partial::MAX_ROWS_BYTES);
        for field in rows.schema().fields() {
            assert!(engine::partial::is_plain(field.data_type()));
        }
        // Reading every value shows one that is not what its type says.
        let _ = format!("{:?}", rows.slice(0, rows.num_rows().min(100)));
    }
}

/// The metadata of committed offsets.
pub fn offset_metadata(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(state) = offsets::decode::<SourceState>(text) {
        let again =
            offsets::encode(&state, NEWEST).map(|text| offsets::decode::<SourceState>(&text));
        assert!(matches!(again, Ok(Ok(again)) if again == state));
    }
    if let Ok(state) = offsets::decode::<ShardState>(text) {
        let again =
            offsets::encode(&state, NEWEST).map(|text| offsets::decode::<ShardState>(&text));
        assert!(matches!(again, Ok(Ok(again)) if again == state));
    }
}

/// The manifest of a shard's snapshot: the length of its header (2 bytes), the header, and its value.
pub fn manifest(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk() else {
        return;
    };
    let Some((header, value)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else {
        return;
    };
    // Whoever writes what is no manifest can give it its checksum.
    let decode = |header: &[u8], value: &[u8]| {
        let checksum = format::checksum(NEWEST, header, Some(value));
        manifest::decode(
            header,
            checksum.as_ref().map(<[u8; 4]>::as_slice),
            value,
            NEWEST,
        )
    };
    if let Ok((manifest, slices)) = decode(header, value) {
        let again = manifest::encode(&manifest, &slices);
        let again = again.map(|(header, value)| decode(&header, &value));
        assert!(matches!(again, Ok(Ok(again)) if again == (manifest, slices)));
    }
}

/// Queries of every kind of window, with every kind of state.
const JOB: &str = "
CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
CREATE SINK tumbling WITH (topic = 'tumbling', key = 'window_start, vendor_id', grace = INTERVAL '1 minute');
CREATE SINK hopping WITH (topic = 'hopping', key = 'window_start, vendor_id', emit = 'changes');
CREATE SINK sessions WITH (topic = 'sessions', key = 'window_start, flag');
CREATE SINK running WITH (topic = 'running', key = 'vendor_id', emit = 'changes', state_ttl = INTERVAL '1 day');
CREATE SINK top WITH (topic = 'top', key = 'window_start, vendor_id');

INSERT INTO tumbling SELECT window_start, vendor_id, count(*) AS n, sum(passenger_count) AS a, avg(gc_distance) AS b,
    min(store_and_fwd_flag) AS c, max(trip_duration) AS d, stddev(gc_distance) AS e, var_pop(trip_duration) AS f,
    bool_and(vendor_id > 1) AS g, mask_coordinate(pickup_latitude, 0.01) AS h, anomaly_score(count(*)) AS i
FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') GROUP BY window_start, vendor_id;

INSERT INTO hopping SELECT window_start, vendor_id, count(DISTINCT store_and_fwd_flag) AS n, sum(DISTINCT trip_duration) AS a,
    approx_distinct(trip_duration) AS b, mode(passenger_count) AS c, mode(store_and_fwd_flag) AS d,
    min_by(store_and_fwd_flag, pickup_at) AS e, max_by(gc_distance, trip_duration) AS f,
    approx_median(gc_distance) AS g, approx_percentile_cont(trip_duration, 0.9) AS h, count(DISTINCT gc_distance) AS i
FROM HOP(trips, pickup_at, INTERVAL '20 minutes', INTERVAL '1 hour') GROUP BY window_start, vendor_id;

INSERT INTO sessions SELECT window_start, store_and_fwd_flag AS flag, count(*) AS n, max(gc_distance) AS a
FROM SESSION(trips, pickup_at, INTERVAL '10 minutes') GROUP BY window_start, store_and_fwd_flag;

INSERT INTO running SELECT vendor_id, count(*) AS n, avg(trip_duration) AS a, mode(trip_duration) AS b
FROM trips GROUP BY vendor_id;

INSERT INTO top SELECT window_start, vendor_id, count(*) AS n FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')
GROUP BY window_start, vendor_id ORDER BY n DESC LIMIT 2;
";

static QUERIES: LazyLock<Vec<Arc<Query>>> = LazyLock::new(|| {
    let script = engine::sql::parse(JOB).unwrap_or_else(|errors| panic!("{errors:?}"));
    let schemas = BTreeMap::from([("trips".to_owned(), columns())]);
    let settings = Settings {
        mask_salt: b"a salt".to_vec(),
    };
    plan(&script, &schemas, &settings)
        .unwrap_or_else(|errors| panic!("{errors:?}"))
        .into_iter()
        .map(Arc::new)
        .collect()
});

/// Behind a record's control byte: whether it has a watermark, is idle, has an advance-to time, is the end, and has rows.
const WATERMARK: u8 = 1;
const IDLE: u8 = 2;
const ADVANCE: u8 = 4;
const ENDED: u8 = 8;
const ROWS: u8 = 16;
const SECOND_PARTITION: u8 = 32;

/// The partials of a shard: the first byte chooses the query; then records follow, each a control byte, the times that it
/// names (8 bytes each), and its rows behind their length (2 bytes).
pub fn fold(bytes: &[u8]) {
    let Some((choice, mut rest)) = bytes.split_first() else {
        return;
    };
    let query = &QUERIES[usize::from(*choice) % QUERIES.len()];
    let mut fold = Fold::new(Arc::clone(query), 1);
    let mut ends = [0_i64; 2];
    for offset in 0.. {
        let Some(control) = take(&mut rest, 1).map(|control| control[0]) else {
            return;
        };
        let mut time = |flag| {
            let bytes = (control & flag != 0).then(|| take(&mut rest, 8))??;
            Some(i64::from_le_bytes(bytes.try_into().ok()?))
        };
        let (watermark, advance_to) = (time(WATERMARK), time(ADVANCE));
        let rows = match control & ROWS {
            0 => None,
            _ => {
                let Some(length) = take(&mut rest, 2) else {
                    return;
                };
                let length = u16::from_le_bytes([length[0], length[1]]).into();
                let Some(Ok(rows)) =
                    take(&mut rest, length).map(|rows| partial::decode_rows(Some(rows)))
                else {
                    return;
                };
                rows
            }
        };
        let partition = usize::from(control & SECOND_PARTITION != 0);
        let header = Header {
            version: FORMAT_VERSION,
            fingerprint: 1,
            topic_id: "id".to_owned(),
            partition: partition as i32,
            partitions: 2,
            start: ends[partition],
            end: ends[partition] + 10,
            rows_in: 10,
            filtered: 0,
            dead: 0,
            watermark,
            idle: control & IDLE != 0,
            advance_to,
            ended: control & ENDED != 0,
        };
        ends[partition] += 10;
        let Ok(applied) = fold.apply(offset, &header, rows.as_ref()) else {
            return;
        };
        for closed in &applied.closed {
            if fold.results(closed).is_err() {
                return;
            }
        }
        if fold.changes().is_err() {
            return;
        }
        let _ = fold.open_windows();
        let _ = fold.watermark().holding(i64::MAX);
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

/// What each target begins with, by its name.
pub fn seeds() -> BTreeMap<&'static str, Vec<Vec<u8>>> {
    let header = |partition, watermark| Header {
        version: FORMAT_VERSION,
        fingerprint: u64::MAX,
        topic_id: "d1f0".to_owned(),
        partition,
        partitions: 3,
        start: 5,
        end: 1_000,
        rows_in: 900,
        filtered: 3,
        dead: 2,
        watermark,
        idle: watermark.is_none(),
        advance_to: watermark,
        ended: false,
    };
    let headers = [header(0, Some(1_457_827_200_000)), header(2, None)];
    let headers = headers
        .iter()
        .filter_map(|header| partial::encode_header(header).ok());
    let source = SourceState {
        max_event_ms: Some(1_457_827_200_000),
        ended: true,
        rows_in: 90,
        undecodable: 1,
        queries: vec![ScanCounts::default(); 2],
        ..SourceState::default()
    };
    let shard = ShardState {
        merged: 17,
        watermark: Some(5),
        ..ShardState::default()
    };
    let metadata = [
        offsets::encode(&source, NEWEST),
        offsets::encode(&shard, NEWEST),
    ];
    let metadata = metadata.into_iter().flatten().map(String::into_bytes);
    let mut rows = Vec::new();
    let mut folds = Vec::new();
    for (choice, query) in QUERIES.iter().enumerate() {
        let mut records = vec![choice as u8];
        for part in 0..4_i64 {
            let batch = trips(query, 1_457_827_200_000 + part * 1_500_000, 12);
            let Ok(scanned) = query.scan(&[batch]) else {
                continue;
            };
            let Ok(bytes) = partial::encode_rows(&scanned.partial) else {
                continue;
            };
            let partition = if part % 2 == 0 { 0 } else { SECOND_PARTITION };
            records.push(WATERMARK | ROWS | partition);
            records.extend((1_457_827_200_000 + part * 1_500_000).to_le_bytes());
            records.extend(u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_le_bytes());
            records.extend(&bytes);
            rows.push(bytes);
        }
        records.extend([ENDED, ENDED | SECOND_PARTITION]);
        folds.push(records);
    }
    BTreeMap::from([
        ("sql", texts()),
        ("partial_header", headers.collect()),
        ("partial_rows", rows),
        ("fold", folds),
        ("offset_metadata", metadata.collect()),
        ("manifest", manifests()),
    ])
}

/// A manifest of a fold that has taken some rows, and one of no rows.
fn manifests() -> Vec<Vec<u8>> {
    let with = |query: &Arc<Query>, slices: &[Slice]| {
        let manifest = Manifest {
            version: NEWEST,
            offset: 17,
            partials_topic_id: "d1f0".to_owned(),
            head: Fold::new(Arc::clone(query), 1).image().head,
            records: vec![Named {
                key: "rows/0/w/7".to_owned(),
                crc32: 5,
                rows: 12,
            }],
        };
        let (header, value) = manifest::encode(&manifest, slices).ok()?;
        let length = u16::try_from(header.len()).ok()?.to_le_bytes();
        Some([length.as_slice(), &header, &value].concat())
    };
    let slice = |live| Slice {
        number: 3,
        place: 1_457_827_200_000,
        part: 0,
        parts: 1,
        record: 0,
        batch: 0,
        live,
    };
    let some = [slice(None), slice(Some(vec![true, false, true].into()))];
    let seeds = QUERIES
        .iter()
        .flat_map(|query| [with(query, &some), with(query, &[])]);
    seeds.flatten().collect()
}

/// The shipped jobs, and statements of each kind.
fn texts() -> Vec<Vec<u8>> {
    [
        include_str!("../../processor/jobs/taxi.sql"),
        include_str!("../../processor/jobs/taxi_analytics.sql"),
        JOB,
        "CREATE SOURCE r (a BIGINT NOT NULL, at TIMESTAMP, \"B\" TEXT, c DOUBLE) WITH (topic = 'r', format = 'json', event_time = 'at',
            idle_timeout = INTERVAL '1 second', idle_advance = false, max_ahead = 'none', max_drift = INTERVAL '1 hour');
         CREATE SINK s WITH (topic = 's', key = 'a');
         INSERT INTO s SELECT a, upper(\"B\") || 'x' AS b, CASE WHEN c > 1e3 THEN 1 ELSE -2 END AS d FROM r
         WHERE at BETWEEN TIMESTAMP '2016-01-01' AND TIMESTAMP '2017-01-01' OR (a IN (1, 2, 3) AND NOT c IS NULL) -- why",
        "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at');
         CREATE SINK s WITH (topic = 's', key = 'window_end, day');
         INSERT INTO s SELECT window_end, CAST(pickup_at AT TIME ZONE 'America/New_York' AS date) AS day,
            sum(gc_distance) / count(*) AS a, h3_cell(max(pickup_latitude), -73.9, 9) AS c, min(tags) AS t
         FROM SESSION(trips, pickup_at, INTERVAL '30 minutes') AS t
         WHERE haversine_km(pickup_latitude, pickup_longitude, dropoff_latitude, dropoff_longitude) < power(2, 5)
         GROUP BY window_end, CAST(pickup_at AT TIME ZONE 'America/New_York' AS date) HAVING count(*) > 1",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

/// Some trips, with the columns that a query reads.
fn trips(query: &Query, start_ms: i64, count: i32) -> RecordBatch {
    let numbers = || (0..count).map(|number| f64::from(number) * 0.7 - 3.0);
    let columns = query.input.fields().iter().map(|field| -> ArrayRef {
        match field.data_type() {
            DataType::Utf8 => Arc::new(StringArray::from_iter_values(
                (0..count).map(|number| ["N", "Y", "a longer text"][number as usize % 3]),
            )),
            DataType::Int32 => Arc::new(Int32Array::from_iter_values(
                (0..count).map(|number| number % 4),
            )),
            DataType::Int64 => Arc::new(Int64Array::from_iter_values(0..i64::from(count))),
            DataType::Timestamp(..) => {
                let times = (0..count).map(|number| start_ms + i64::from(number) * 300_000);
                Arc::new(TimestampMillisecondArray::from_iter_values(times).with_timezone("+00:00"))
            }
            _ => Arc::new(Float64Array::from_iter_values(numbers())),
        }
    });
    RecordBatch::try_new(Arc::clone(&query.input), columns.collect())
        .unwrap_or_else(|error| panic!("{error}"))
}
