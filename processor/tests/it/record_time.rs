//! The log's own time of a record, as event time and as a column.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Clock;
use runtime::log::{Log, NewRecord, ProducerOptions};
use schemas::record::{Codec, DeadLetter};
use schemas::value_subject;
use serde_json::json;

use crate::fixture::{Fixture, Trip, assert_same, job_sql, naive, trips};
use crate::golden::results;

/// Writes trips, twenty at a time; between these the log's clock goes on by what the trips' own times do not tell.
/// Gives each trip with the log's time in place of its own.
fn write(fixture: &Fixture, rows: &[Trip], encode: impl Fn(usize, &Trip) -> Vec<u8>) -> Vec<Trip> {
    let mut written = Vec::new();
    for (chunk, of_chunk) in rows.chunks(20).enumerate() {
        let values: Vec<_> = of_chunk
            .iter()
            .enumerate()
            .map(|(index, trip)| ((index % 2) as i32, encode(chunk * 20 + index, trip)))
            .collect();
        fixture.write_raw(&values);
        let pickup_ms = fixture.clock.now_ms();
        written.extend(of_chunk.iter().map(|trip| Trip {
            pickup_ms,
            ..trip.clone()
        }));
        let pause = 3_000 + (chunk as u64 * 7_919) % 23_000;
        fixture.clock.advance(Duration::from_millis(pause));
    }
    written
}

fn by_record_time(more: &str) -> String {
    job_sql("0 seconds", more).replace("pickup_at", "record_time")
}

#[test]
fn windows_of_the_log_s_time_of_an_avro_topic() {
    let fixture = Fixture::new(2);
    let rows = trips(51, 600, 600_000);
    let written = write(&fixture, &rows, |index, trip| fixture.encode(index, trip));
    assert!(naive(&written) != naive(&rows));
    fixture
        .drain(Arc::clone(&fixture.log) as _, &by_record_time(""))
        .unwrap();
    assert_same(&fixture.results(), &naive(&written), "by the log's time");
    assert_eq!(fixture.ledger().late, 0);
}

#[test]
fn windows_of_the_log_s_time_of_a_json_topic_that_has_no_other() {
    let fixture = Fixture::new(2);
    let rows = trips(52, 400, 600_000);
    let written = write(&fixture, &rows, |_, trip| {
        json!({"vendor_id": trip.vendor, "passenger_count": trip.passengers, "distance": trip.distance})
            .to_string()
            .into_bytes()
    });
    let sql = by_record_time(", format = 'json'").replace(
        "CREATE SOURCE trips WITH",
        "CREATE SOURCE trips (vendor_id INT NOT NULL, passenger_count BIGINT, distance DOUBLE) WITH",
    );
    fixture.drain(Arc::clone(&fixture.log) as _, &sql).unwrap();
    assert_same(&fixture.results(), &naive(&written), "by the log's time");
}

#[test]
fn a_query_that_reads_nothing_else_counts_every_record() {
    for format in ["", ", format = 'json'"] {
        let fixture = Fixture::new(2);
        let rows = trips(53, 200, 1_000);
        let written = write(&fixture, &rows, |index, trip| match format {
            "" => fixture.encode(index, trip),
            _ => b"{}".to_vec(),
        });
        let columns = if format.is_empty() { "" } else { "(note TEXT)" };
        let sql = format!(
            "CREATE SOURCE trips {columns} WITH (topic = 'trips', event_time = 'record_time'{format});
             CREATE SINK out WITH (topic = 'out', key = 'window_start', emit = 'final');
             INSERT INTO out SELECT window_start, count(*) AS trips
             FROM TUMBLE(trips, record_time, INTERVAL '1 minute') GROUP BY window_start, window_end;"
        );
        fixture.drain(Arc::clone(&fixture.log) as _, &sql).unwrap();
        let found: i64 = results(&fixture, "alone")
            .iter()
            .map(|row| {
                let start = row["window_start"].as_i64().unwrap();
                let within = |trip: &&Trip| trip.pickup_ms.div_euclid(60_000) * 60_000 == start;
                let expected = written.iter().filter(within).count() as i64;
                assert_eq!(row["trips"], expected);
                expected
            })
            .sum();
        assert_eq!(found, 200);
    }
}

#[test]
fn a_column_like_any_other() {
    let fixture = Fixture::new(2);
    let rows = trips(54, 300, 20_000);
    let written = write(&fixture, &rows, |index, trip| fixture.encode(index, trip));
    let middle = written[150].pickup_ms;
    let day = "2016-01-01";
    let (minute, second) = ((middle / 60_000) % 60, (middle / 1_000) % 60);
    let sql = format!(
        "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 hour');
         CREATE SINK out WITH (topic = 'out', key = 'window_start, vendor_id', emit = 'final');
         INSERT INTO out
         SELECT window_start, vendor_id, count(*) AS trips, min(record_time) AS first, max(record_time) AS last,
                max_by(passenger_count, record_time) FILTER (WHERE record_time IS NULL) AS nobody
         FROM TUMBLE(trips, pickup_at, INTERVAL '1 minute')
         WHERE record_time >= TIMESTAMP '{day} 00:{minute:02}:{second:02}.{:03}Z'
         GROUP BY window_start, window_end, vendor_id;",
        middle % 1_000
    );
    fixture.drain(Arc::clone(&fixture.log) as _, &sql).unwrap();
    let found = results(&fixture, "a column");
    let mut counted = 0;
    for row in &found {
        let of: Vec<i64> = rows
            .iter()
            .zip(&written)
            .filter(|(trip, at)| {
                at.pickup_ms >= middle
                    && trip.pickup_ms.div_euclid(60_000) * 60_000
                        == row["window_start"].as_i64().unwrap()
                    && i64::from(trip.vendor) == row["vendor_id"].as_i64().unwrap()
            })
            .map(|(_, at)| at.pickup_ms)
            .collect();
        assert_eq!(row["trips"], of.len() as i64);
        assert_eq!(row["first"], *of.iter().min().unwrap());
        assert_eq!(row["last"], *of.iter().max().unwrap());
        assert!(row["nobody"].is_null());
        counted += of.len();
    }
    let all = written.iter().filter(|at| at.pickup_ms >= middle).count();
    assert_eq!(counted, all);
}

#[test]
fn a_column_of_the_values_with_that_name_is_taken_instead() {
    let fixture = Fixture::new(2);
    let (_, text) = fixture
        .registry
        .latest(&value_subject("trips"))
        .unwrap()
        .unwrap();
    let renamed = text.replace("\"pickup_at\"", "\"record_time\"");
    let id = fixture
        .registry
        .register(&value_subject("trips-renamed"), &renamed)
        .unwrap();
    for topic in ["trips-renamed", "trips-renamed.dlq"] {
        fixture
            .log
            .create_topic(&runtime::log::TopicSpec::new(topic, 1))
            .unwrap();
    }
    let rows = trips(55, 200, 5_000);
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("writer"))
        .unwrap();
    for (index, trip) in rows.iter().enumerate() {
        let mut value = fixture.encode(index, trip);
        value[1..5].copy_from_slice(&id.to_be_bytes());
        producer
            .send(NewRecord {
                topic: "trips-renamed",
                partition: Some(0),
                key: None,
                value: Some(&value),
                headers: &[],
                timestamp_ms: Some(1),
            })
            .unwrap();
    }
    producer.flush().unwrap();
    let sql = job_sql("1 minute", "")
        .replace("pickup_at", "record_time")
        .replace("topic = 'trips'", "topic = 'trips-renamed'");
    fixture.drain(Arc::clone(&fixture.log) as _, &sql).unwrap();
    assert_same(&fixture.results(), &naive(&rows), "the values' own");
}

#[test]
fn a_record_that_the_log_has_no_time_for_is_a_dead_letter_where_windows_want_one() {
    let fixture = Fixture::new(2);
    let rows = trips(56, 100, 1_000);
    let written = write(&fixture, &rows, |index, trip| fixture.encode(index, trip));
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("writer"))
        .unwrap();
    let value = fixture.encode(100, &rows[0]);
    producer
        .send(NewRecord {
            topic: "trips",
            partition: Some(1),
            key: None,
            value: Some(&value),
            headers: &[],
            timestamp_ms: Some(-1),
        })
        .unwrap();
    producer.flush().unwrap();
    fixture
        .drain(Arc::clone(&fixture.log) as _, &by_record_time(""))
        .unwrap();
    assert_same(&fixture.results(), &naive(&written), "those with a time");
    let codec = Codec::<DeadLetter>::new(Arc::clone(&fixture.registry), "trips.dlq-value").unwrap();
    let letters: Vec<DeadLetter> = fixture
        .records("trips.dlq")
        .iter()
        .map(|(_, value)| codec.decode(value).unwrap())
        .collect();
    assert_eq!(letters.len(), 1, "{letters:?}");
    assert!(
        letters[0]
            .detail
            .contains("record_time, the event time, is null")
    );
    assert_eq!(fixture.ledger().dead, 1);
}

#[test]
fn when_the_results_of_another_query_were_written() {
    let fixture = Fixture::new(2);
    let rows = trips(57, 400, 5_000);
    write(&fixture, &rows, |index, trip| fixture.encode(index, trip));
    let sql = format!(
        "{}
         CREATE SOURCE minutes WITH (topic = 'per_minute', event_time = 'record_time', out_of_orderness = INTERVAL '1 minute');
         CREATE SINK out WITH (topic = 'out', key = 'window_start', emit = 'final');
         INSERT INTO out SELECT window_start, count(*) AS results, sum(trips) AS trips
         FROM TUMBLE(minutes, record_time, INTERVAL '1 second') GROUP BY window_start, window_end;",
        job_sql("1 minute", "")
            .replace("SELECT window_start, window_end", "SELECT window_start AS minute")
            .replace("'window_start, vendor_id'", "'minute, vendor_id'")
    );
    let began = fixture.clock.now_ms();
    fixture.drain(Arc::clone(&fixture.log) as _, &sql).unwrap();
    let found = results(&fixture, "of results");
    let sum = |column: &str| found.iter().map(|row| row[column].as_i64().unwrap()).sum();
    let expected = naive(&rows);
    assert_eq!(
        (
            expected.len() as i64,
            expected.values().map(|of| of.0).sum::<i64>()
        ),
        (sum("results"), sum("trips"))
    );
    // When that was is the log's clock's affair: after the run began, and long after the rows' own times.
    assert!(
        found
            .iter()
            .all(|row| row["window_start"].as_i64().unwrap() >= began / 1_000 * 1_000)
    );
}
