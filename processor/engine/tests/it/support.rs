//! Trips, their batches, and the shipped job.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use engine::plan::{Query, Settings, plan};
use engine::sql::{JobError, parse};

pub const TAXI: &str = include_str!("../../../jobs/taxi.sql");
pub const SALT: &[u8] = b"a salt for tests";

/// A column as arrow-avro decodes it.
fn field(name: &str, data_type: DataType, nullable: bool) -> Field {
    Field::new(name, data_type, nullable)
}

pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Millisecond, Some("+00:00".into()))
}

/// All columns of schemas/taxi_trip.avsc.
pub fn trips_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        field("id", DataType::Utf8, false),
        field("vendor_id", DataType::Int32, false),
        field("pickup_at", timestamp(), false),
        field("dropoff_at", timestamp(), false),
        field("passenger_count", DataType::Int32, false),
        field("pickup_longitude", DataType::Float64, false),
        field("pickup_latitude", DataType::Float64, false),
        field("dropoff_longitude", DataType::Float64, false),
        field("dropoff_latitude", DataType::Float64, false),
        field("store_and_fwd_flag", DataType::Utf8, false),
        field("gc_distance", DataType::Float64, false),
        field("trip_duration", DataType::Int32, false),
        field("google_distance", DataType::Int32, true),
        field("google_duration", DataType::Int32, true),
        field("source", DataType::Utf8, false),
    ]))
}

pub fn planned(text: &str, schema: &SchemaRef) -> Result<Query, Vec<JobError>> {
    let script = parse(text)?;
    let schemas: BTreeMap<String, SchemaRef> = script
        .sources
        .keys()
        .map(|name| (name.clone(), Arc::clone(schema)))
        .collect();
    let mut queries = plan(
        &script,
        &schemas,
        &Settings {
            mask_salt: SALT.to_vec(),
        },
    )?;
    assert_eq!(queries.len(), 1);
    Ok(queries.remove(0))
}

/// The source and sink that most jobs of these tests share, before one query.
pub fn job(key: &str, query: &str) -> String {
    format!(
        "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at');\n\
         CREATE SINK out WITH (topic = 'out', key = '{key}');\n\
         INSERT INTO out {query}"
    )
}

#[derive(Clone, Debug)]
pub struct Trip {
    pub vendor: i32,
    pub pickup_ms: i64,
    pub passengers: i32,
    pub coordinates: [f64; 4],
    pub flag: &'static str,
    pub distance: f64,
    pub duration: i32,
    pub google: Option<i32>,
}

/// Trips with the columns that a query reads.
pub fn batch(query: &Query, trips: &[Trip]) -> RecordBatch {
    let coordinate = |at: usize| -> ArrayRef {
        Arc::new(
            trips
                .iter()
                .map(|trip| Some(trip.coordinates[at]))
                .collect::<Float64Array>(),
        )
    };
    let ints = |value: &dyn Fn(&Trip) -> Option<i32>| -> ArrayRef {
        Arc::new(trips.iter().map(value).collect::<Int32Array>())
    };
    let columns = query
        .input
        .fields()
        .iter()
        .map(|field| -> ArrayRef {
            match field.name().as_str() {
                "vendor_id" => ints(&|trip| Some(trip.vendor)),
                "passenger_count" => ints(&|trip| Some(trip.passengers)),
                "trip_duration" => ints(&|trip| Some(trip.duration)),
                "google_distance" => ints(&|trip| trip.google),
                "pickup_at" | "dropoff_at" => Arc::new(
                    TimestampMillisecondArray::from_iter_values(
                        trips.iter().map(|trip| trip.pickup_ms),
                    )
                    .with_timezone("+00:00"),
                ),
                "pickup_longitude" => coordinate(0),
                "pickup_latitude" => coordinate(1),
                "dropoff_longitude" => coordinate(2),
                "dropoff_latitude" => coordinate(3),
                "gc_distance" => Arc::new(
                    trips
                        .iter()
                        .map(|trip| Some(trip.distance))
                        .collect::<Float64Array>(),
                ),
                "store_and_fwd_flag" => Arc::new(
                    trips
                        .iter()
                        .map(|trip| Some(trip.flag))
                        .collect::<StringArray>(),
                ),
                other => panic!("no such column in these trips: {other}"),
            }
        })
        .collect();
    RecordBatch::try_new(Arc::clone(&query.input), columns).unwrap()
}

/// A generator of our own, so that the data is the same everywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below
    }
}

pub fn some_trips(seed: u64, count: usize, hours: u64) -> Vec<Trip> {
    let mut dice = Dice(seed | 1);
    (0..count)
        .map(|_| {
            let mut coordinate = |center: f64| match dice.roll(50) {
                0 => 0.0,
                _ => center + dice.roll(2000) as f64 / 10_000.0,
            };
            let coordinates = [
                coordinate(-74.0),
                coordinate(40.7),
                coordinate(-74.0),
                coordinate(40.7),
            ];
            Trip {
                vendor: 1 + dice.roll(3) as i32,
                pickup_ms: 1_457_827_200_000 + dice.roll(hours * 3_600_000) as i64,
                passengers: dice.roll(7) as i32,
                coordinates,
                flag: if dice.roll(10) == 0 { "Y" } else { "N" },
                distance: dice.roll(100_000) as f64 / 7_000.0,
                duration: dice.roll(5_000) as i32,
                google: (dice.roll(3) > 0).then(|| dice.roll(9_000) as i32),
            }
        })
        .collect()
}

/// Writes offsets into partial rows, as the fold does.
pub fn touch(partial: &RecordBatch, offset: i64) -> RecordBatch {
    let mut columns = partial.columns().to_vec();
    let last = columns.len() - 1;
    columns[last] = Arc::new(Int64Array::from(vec![offset; partial.num_rows()]));
    RecordBatch::try_new(partial.schema(), columns).unwrap()
}

pub fn longs(batch: &RecordBatch, name: &str) -> Vec<i64> {
    let column = batch
        .column_by_name(name)
        .unwrap_or_else(|| panic!("no column {name}"));
    match column.data_type() {
        DataType::Int32 => column
            .as_primitive::<Int32Type>()
            .values()
            .iter()
            .map(|value| i64::from(*value))
            .collect(),
        DataType::Int64 => column.as_primitive::<Int64Type>().values().to_vec(),
        DataType::Timestamp(TimeUnit::Millisecond, _) => column
            .as_primitive::<TimestampMillisecondType>()
            .values()
            .to_vec(),
        other => panic!("{name} is {other}"),
    }
}

pub fn floats(batch: &RecordBatch, name: &str) -> Vec<f64> {
    batch
        .column_by_name(name)
        .unwrap()
        .as_primitive::<Float64Type>()
        .values()
        .to_vec()
}

pub fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}
