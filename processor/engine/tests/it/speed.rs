//! How fast the fragments are. Run with `cargo test --release -p engine --test it -- --ignored --nocapture speed`.

// A measurement reads the clock; what is measured does not.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use engine::history::History;
use std::time::Instant;

use super::support::*;

#[test]
#[ignore = "a measurement"]
fn speed_of_the_taxi_job() {
    let query = planned(TAXI, &trips_schema()).unwrap();
    let simple = planned(
        &job(
            "window_start, vendor_id",
            "SELECT window_start, vendor_id, count(*) AS n, sum(passenger_count) AS p, avg(trip_duration) AS d, \
             avg(gc_distance) AS g, min(trip_duration) AS mi, max(trip_duration) AS ma \
             FROM TUMBLE(trips, pickup_at, INTERVAL '1 minute') WHERE pickup_longitude <> 0 \
             GROUP BY window_start, vendor_id",
        ),
        &trips_schema(),
    )
    .unwrap();
    let mut trips = some_trips(5, 1 << 18, 3);
    trips.sort_by_key(|trip| trip.pickup_ms / 60_000);
    for (name, query) in [("taxi", &query), ("simple", &simple)] {
        for size in [1, 64, 1_024, 8_192, 65_536] {
            let batches: Vec<_> = trips
                .chunks(size)
                .take(1 << 14)
                .map(|part| batch(query, part))
                .collect();
            let rows: usize = batches.iter().map(|batch| batch.num_rows()).sum();
            let mut best = f64::MAX;
            let mut partials = Vec::new();
            for _ in 0..5 {
                let start = Instant::now();
                partials = batches
                    .iter()
                    .map(|batch| query.scan(std::slice::from_ref(batch)).unwrap().partial)
                    .collect();
                best = best.min(start.elapsed().as_secs_f64());
            }
            let start = Instant::now();
            for pair in partials.chunks(16) {
                query.merge(pair).unwrap();
            }
            let merge = start.elapsed().as_secs_f64() / partials.len().div_ceil(16) as f64;
            let merged = query.merge(&partials).unwrap();
            let start = Instant::now();
            let result = query
                .finish(std::slice::from_ref(&merged), true, &mut History::default())
                .unwrap();
            println!(
                "{name} {size:>6} rows a batch: scan {:>6.2} M rows/s, {:>7.1} us a call; merge of 16: {:.1} us; \
                 finish of {} rows: {:.1} us",
                rows as f64 / best / 1e6,
                best / batches.len() as f64 * 1e6,
                merge * 1e6,
                result.num_rows(),
                start.elapsed().as_secs_f64() * 1e6
            );
        }
    }
}
