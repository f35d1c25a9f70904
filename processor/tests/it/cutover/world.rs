//! An application, its successor, and the command between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use processor::Options;
use processor::cutover::{Cutover, CutoverError};
use processor::ledger::QueryLedger;
use processor::record::HandedOver;
use processor::takeover::Behind;
use runtime::log::{Log, TopicPartition};
use schemas::value_subject;

use crate::fixture::{Fixture, Trip};

pub const OLD: &str = "old";
pub const NEW: &str = "new";
pub const THIRD: &str = "third";

/// One row of a topic: its fields, whole numbers and floats alike.
pub type Row = BTreeMap<String, f64>;

/// The options of an application.
pub fn application(fixture: &Fixture, log: Arc<dyn Log>, id: &str, sql: &str) -> Options {
    let mut options = fixture.options_over(log, sql.into());
    options.job.application_id = id.into();
    options.job.takes_over = match id {
        NEW => Some(OLD.into()),
        THIRD => Some(NEW.into()),
        _ => None,
    };
    options
}

pub fn old(fixture: &Fixture, sql: &str) -> Options {
    application(fixture, Arc::clone(&fixture.log) as _, OLD, sql)
}

pub fn new(fixture: &Fixture, sql: &str) -> Options {
    application(fixture, Arc::clone(&fixture.log) as _, NEW, sql)
}

/// Runs until something holds, which is asked again and again, and stops.
pub fn until(options: Options, holds: impl Fn() -> bool) {
    let lifecycle = options.lifecycle.clone();
    let running = std::thread::spawn(move || processor::run(&options));
    while !holds() {
        if running.is_finished() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    lifecycle.stop();
    running.join().unwrap().unwrap();
}

/// Whether an application has read all that is on its source.
pub fn has_read(fixture: &Fixture, id: &str) -> bool {
    let status = processor::status::read(fixture.log.as_ref(), id, ["trips"], []).unwrap();
    status
        .sources
        .iter()
        .all(|source| source.place.committed.is_some() && source.place.lag == 0)
}

/// Lets the old application read and fold all that is there.
pub fn run_old(fixture: &Fixture, sql: &str, queries: &[&str]) {
    until(old(fixture, sql), || {
        has_read(fixture, OLD) && {
            let queries = queries.iter().copied();
            let status = processor::status::read(fixture.log.as_ref(), OLD, [], queries).unwrap();
            let mut shards = status.shards.iter();
            shards.all(|shard| shard.place.committed.is_some() && shard.place.lag == 0)
        }
    });
}

/// How far the new application is behind the old one.
pub fn behind(fixture: &Fixture) -> Option<Behind> {
    behind_of(fixture, NEW)
}

fn behind_of(fixture: &Fixture, id: &str) -> Option<Behind> {
    let record = processor::record::read(fixture.log.as_ref(), id).unwrap()?;
    let log = fixture.log.as_ref();
    Some(processor::takeover::behind(log, id, &record.takes_over.unwrap()).unwrap())
}

/// Lets the new application follow until there is nothing to catch up with.
pub fn follow(fixture: &Fixture, options: Options) {
    let id = options.job.application_id.clone();
    until(options, || {
        behind_of(fixture, &id).is_some_and(|behind| behind.caught_up())
    });
}

/// The command.
pub fn cutover(
    fixture: &Fixture,
    log: Arc<dyn Log>,
    sql: &str,
) -> Result<HandedOver, CutoverError> {
    cutover_between(fixture, log, (OLD, NEW), sql)
}

pub fn cutover_between(
    fixture: &Fixture,
    log: Arc<dyn Log>,
    (from, to): (&str, &str),
    sql: &str,
) -> Result<HandedOver, CutoverError> {
    let script = engine::sql::parse(sql).unwrap();
    let plan = Cutover::plan(log.as_ref(), from, to, &script)?;
    let options = application(fixture, log, from, sql);
    // While the log's clock goes on, as that of the world does.
    let running = std::thread::spawn(move || plan.run(&options));
    while !running.is_finished() {
        std::thread::sleep(Duration::from_millis(5));
        fixture.clock.advance(Duration::from_millis(50));
    }
    running.join().unwrap()
}

/// Lets the new application go to the end of the input.
pub fn finish(fixture: &Fixture, options: Options) -> Result<(), processor::ProcessorError> {
    options.lifecycle.drain();
    fixture.run(options)
}

pub fn ledger(fixture: &Fixture, id: &str, query: &str) -> QueryLedger {
    ledger_of(fixture, id, query, "trips")
}

/// That of a query of another topic, the first one of its job.
pub fn ledger_of(fixture: &Fixture, id: &str, query: &str, topic: &str) -> QueryLedger {
    processor::ledger::read(fixture.log.as_ref(), id, query, topic, 0).unwrap()
}

/// How many offsets of a topic are taken, control records among them: more than before means that something was written.
pub fn size(fixture: &Fixture, topic: &str) -> i64 {
    let partitions = fixture
        .log
        .topic(topic)
        .unwrap()
        .map_or(0, |found| found.partitions);
    (0..partitions)
        .map(|partition| {
            let partition = TopicPartition::new(topic, partition);
            fixture.log.bounds(&partition).unwrap().end
        })
        .sum()
}

/// The rows of a topic, each read with the schema that it was written with, and whether it is final.
pub fn rows(fixture: &Fixture, topic: &str) -> Vec<(Row, bool)> {
    let registered = fixture.registry.latest(&value_subject(topic)).unwrap();
    let Some((_, latest)) = registered else {
        return Vec::new();
    };
    let latest = Schema::parse_str(&latest).unwrap();
    let of = |value: Vec<u8>| {
        let (id, body) = schemas::wire::unframe(&value).unwrap();
        let text = fixture.registry.by_id(id).unwrap();
        let schema = Schema::parse_str(&text).unwrap();
        let read = GenericDatumReader::builder(&schema)
            .reader_schema(&latest)
            .build();
        let Value::Record(fields) = read.unwrap().read_value(&mut &body[..]).unwrap() else {
            panic!("no record")
        };
        let is_final = fields
            .iter()
            .any(|(name, value)| name == "is_final" && *value == Value::Boolean(true));
        let numbers = fields
            .into_iter()
            .filter_map(|(name, value)| Some((name, number(&value)?)));
        (numbers.collect(), is_final)
    };
    let records = fixture.records(topic).into_iter();
    records.map(|(_, value)| of(value)).collect()
}

fn number(value: &Value) -> Option<f64> {
    match value {
        Value::Int(number) => Some(f64::from(*number)),
        Value::Long(number) | Value::TimestampMillis(number) => Some(*number as f64),
        Value::Double(number) => Some(*number),
        Value::Union(_, inner) => number(inner),
        _ => None,
    }
}

/// What readers have that keep the highest version of each key.
pub fn newest(rows: Vec<(Row, bool)>, key: &[&str]) -> BTreeMap<Vec<i64>, (Row, bool)> {
    let mut newest: BTreeMap<Vec<i64>, (Row, bool)> = BTreeMap::new();
    for (row, is_final) in rows {
        let of: Vec<i64> = key.iter().map(|name| row[*name] as i64).collect();
        let version = row["version"];
        if newest
            .get(&of)
            .is_none_or(|(known, _)| known["version"] < version)
        {
            newest.insert(of, (row, is_final));
        }
    }
    newest
}

/// How many trips with passengers each group has, in windows of this length (all in one if it is 0).
pub fn counts(trips: &[Trip], window_ms: i64) -> BTreeMap<Vec<i64>, i64> {
    let mut counts = BTreeMap::new();
    for trip in trips.iter().filter(|trip| trip.passengers > 0) {
        let mut key = vec![i64::from(trip.vendor)];
        if window_ms > 0 {
            key.insert(0, trip.pickup_ms.div_euclid(window_ms) * window_ms);
        }
        *counts.entry(key).or_default() += 1;
    }
    counts
}
