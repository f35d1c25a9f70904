//! How fast trips are decoded and encoded; run by hand with `-- --ignored --nocapture rate`.

use std::sync::Arc;
use std::time::Instant;

use apache_avro::types::Value;
use arrow_avro::reader::ReaderBuilder;
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};
use schemas::decode::BatchDecoder;
use schemas::encode::BatchEncoder;
use schemas::{EmbeddedRegistry, Registry, projected_schema, shipped};

use crate::oracle::{framed, parse};

const ROWS: usize = 1_000_000;
const BATCH: usize = 8192;

fn trips(id: u32) -> Vec<Vec<u8>> {
    let schema = parse(shipped::TAXI_TRIP);
    let of = |i: usize| -> Value {
        let degrees = |i: usize| Value::Double(-74.0 + (i % 1000) as f64 / 1000.0);
        let maybe = |i: usize| Value::Union(1, Box::new(Value::Int((i % 9000) as i32)));
        let at = 1_451_606_400_000 + i as i64 * 20;
        let fields = [
            ("id", Value::String(format!("id{i:07}"))),
            ("vendor_id", Value::Int(1 + (i % 2) as i32)),
            ("pickup_at", Value::TimestampMillis(at)),
            ("dropoff_at", Value::TimestampMillis(at + 900_000)),
            ("passenger_count", Value::Int(1 + (i % 4) as i32)),
            ("pickup_longitude", degrees(i)),
            ("pickup_latitude", degrees(i + 1)),
            ("dropoff_longitude", degrees(i + 2)),
            ("dropoff_latitude", degrees(i + 3)),
            ("store_and_fwd_flag", Value::String("N".into())),
            ("gc_distance", Value::Double(i as f64 / 100.0)),
            ("trip_duration", Value::Int((i % 3600) as i32)),
            ("google_distance", maybe(i)),
            ("google_duration", maybe(i + 1)),
            ("source", Value::String("ours".into())),
        ];
        Value::Record(fields.map(|(name, value)| (name.to_owned(), value)).into())
    };
    let distinct: Vec<Vec<u8>> = (0..20_000).map(|i| framed(id, &schema, &of(i))).collect();
    (0..ROWS)
        .map(|i| distinct[i % distinct.len()].clone())
        .collect()
}

#[test]
#[ignore = "a measurement"]
fn rate() {
    let registry = Arc::new(EmbeddedRegistry::in_memory());
    let id = registry
        .register("trips-value", shipped::TAXI_TRIP)
        .unwrap();
    let records = trips(id);
    let fields = [
        "vendor_id",
        "pickup_at",
        "passenger_count",
        "trip_duration",
        "gc_distance",
    ];
    let projected = projected_schema(shipped::TAXI_TRIP, &fields).unwrap();
    for round in 0..3 {
        for (name, reader) in [
            ("all columns", shipped::TAXI_TRIP),
            ("five columns", projected.as_str()),
        ] {
            let mut decoder = BatchDecoder::new(registry.clone(), reader).unwrap();
            let start = Instant::now();
            for batch in records.chunks(BATCH) {
                for record in batch {
                    decoder.push(record).unwrap();
                }
                assert_eq!(decoder.flush().unwrap().unwrap().num_rows(), batch.len());
            }
            let ours = start.elapsed();
            let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
            store
                .set(
                    Fingerprint::Id(id),
                    AvroSchema::new(shipped::TAXI_TRIP.to_owned()),
                )
                .unwrap();
            let mut plain = ReaderBuilder::new()
                .with_batch_size(usize::MAX)
                .with_reader_schema(AvroSchema::new(reader.to_owned()))
                .with_writer_schema_store(store)
                .build_decoder()
                .unwrap();
            let start = Instant::now();
            for batch in records.chunks(BATCH) {
                for record in batch {
                    plain.decode(record).unwrap();
                }
                plain.flush().unwrap().unwrap();
            }
            let rate = |time: std::time::Duration| ROWS as f64 / time.as_secs_f64() / 1e6;
            println!(
                "{round}: {name}: {:.1} M records/s; arrow-avro alone {:.1}",
                rate(ours),
                rate(start.elapsed())
            );
        }
    }
    // A field that the fast way does not read sends every record the general way.
    let nested = shipped::TAXI_TRIP
        .replace(r#"{"name": "source","#, r#"{"name": "n", "type": {"type": "array", "items": "int"}, "default": []}, {"name": "source","#);
    let mut decoder = BatchDecoder::new(registry.clone(), &nested).unwrap();
    let start = Instant::now();
    records[..100_000]
        .iter()
        .for_each(|record| decoder.push(record).unwrap());
    println!(
        "the general way: {:.2} M records/s",
        0.1 / start.elapsed().as_secs_f64()
    );
    let mut decoder = BatchDecoder::new(registry, shipped::TAXI_TRIP).unwrap();
    records[..BATCH]
        .iter()
        .for_each(|record| decoder.push(record).unwrap());
    let batch = decoder.flush().unwrap().unwrap();
    let mut encoder = BatchEncoder::new(shipped::TAXI_TRIP, id, batch.schema()).unwrap();
    let start = Instant::now();
    let rows: usize = (0..50).map(|_| encoder.encode(&batch).unwrap().len()).sum();
    println!(
        "encode: {:.1} M rows/s",
        rows as f64 / start.elapsed().as_secs_f64() / 1e6
    );
}
