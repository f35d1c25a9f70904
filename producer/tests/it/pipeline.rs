//! A log, a registry and files for the tests, and what must hold of every run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use producer::{Metrics, Options, POSITIONS_TOPIC, Source, read_positions, setup_topics};
use runtime::log::embedded::{EmbeddedLog, EmbeddedOptions};
use runtime::log::{ConsumerOptions, Event, Log, TopicPartition};
use schemas::record::{Codec, Position};
use schemas::{EmbeddedRegistry, Registry, value_subject};
use tempfile::TempDir;

pub const TOPIC: &str = "trips";
pub const PARTITIONS: i32 = 3;

/// A record, decoded: its partition, key and fields.
pub struct Got {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub fields: Vec<(String, Value)>,
}

impl Got {
    pub fn text(&self, name: &str) -> String {
        match &self
            .fields
            .iter()
            .find(|(field, _)| field == name)
            .unwrap()
            .1
        {
            Value::String(text) => text.clone(),
            Value::Union(_, value) => match &**value {
                Value::String(text) => text.clone(),
                other => format!("{other:?}"),
            },
            other => panic!("{name}: {other:?}"),
        }
    }

    pub fn line(&self) -> i64 {
        match &self
            .fields
            .iter()
            .find(|(field, _)| field == "line")
            .unwrap()
            .1
        {
            Value::Union(1, value) => match **value {
                Value::Long(line) => line,
                ref other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

pub struct World {
    pub dir: TempDir,
    pub log: Arc<EmbeddedLog>,
    pub registry: Arc<EmbeddedRegistry>,
}

/// Whoever crashed in it is abandoned, and holds the log: its files are closed all the same.
impl Drop for World {
    fn drop(&mut self) {
        self.log.close();
    }
}

impl World {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let log = EmbeddedLog::open(&dir.path().join("log"), EmbeddedOptions::default()).unwrap();
        setup_topics(log.as_ref(), TOPIC, PARTITIONS, Default::default()).unwrap();
        Self {
            dir,
            log,
            registry: Arc::new(EmbeddedRegistry::in_memory()),
        }
    }

    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn options(&self, files: &[PathBuf]) -> Options {
        self.options_on(self.log.clone(), Source::Files(files.to_vec()))
    }

    pub fn options_on(&self, log: Arc<dyn Log>, inputs: Source) -> Options {
        let metrics = Metrics::new(&prometheus::Registry::new()).unwrap();
        let edges = runtime::metrics::Metrics::new(&prometheus::Registry::new()).unwrap();
        Options {
            commit_interval: Duration::from_secs(600),
            commit_rows: 4,
            linger: Duration::ZERO,
            give_up_after: Duration::from_secs(20),
            ..Options::new(log, self.registry.clone(), TOPIC, inputs, metrics, edges)
        }
    }

    /// Everything that is committed in a topic.
    pub fn read(&self, topic: &str) -> Vec<Got> {
        let partitions = self.log.topic(topic).unwrap().unwrap().partitions;
        let mut consumer = self.log.consumer(&ConsumerOptions::new("test")).unwrap();
        let mut open: BTreeMap<TopicPartition, i64> = BTreeMap::new();
        for partition in 0..partitions {
            let partition = TopicPartition::new(topic, partition);
            open.insert(
                partition.clone(),
                self.log.bounds(&partition).unwrap().stable,
            );
            consumer.assign(&[(partition, 0)]).unwrap();
        }
        let mut found = Vec::new();
        while !open.is_empty() {
            match consumer.poll(Duration::from_secs(1), 1000).unwrap() {
                Some(Event::Records(batch)) => {
                    for record in batch.iter() {
                        let Some(value) = record.value else { continue };
                        let (id, mut body) = schemas::wire::unframe(value).unwrap();
                        let schema = Schema::parse_str(&self.registry.by_id(id).unwrap()).unwrap();
                        let reader = GenericDatumReader::builder(&schema).build().unwrap();
                        let Value::Record(fields) = reader.read_value(&mut body).unwrap() else {
                            panic!()
                        };
                        found.push(Got {
                            partition: batch.partition.partition,
                            key: record.key.map(<[u8]>::to_vec),
                            fields,
                        });
                    }
                }
                Some(Event::End {
                    partition,
                    position,
                }) if position >= open[&partition] => {
                    open.remove(&partition);
                }
                Some(Event::End { .. }) => {}
                Some(_) => panic!("a rebalance without a group"),
                None => {}
            }
        }
        found
    }

    pub fn positions(&self) -> BTreeMap<String, Position> {
        let codec = Codec::new(self.registry.clone(), &value_subject(POSITIONS_TOPIC)).unwrap();
        read_positions(self.log.as_ref(), &codec, Duration::from_secs(10)).unwrap()
    }

    /// The committed state is what one reading of the files gives: `good` ids once each, `bad` (file, line)s once each,
    /// and every position that was ever committed adds up.
    pub fn assert_sent(&self, good: &[String], bad: &[(PathBuf, i64)]) {
        let rows = self.read(TOPIC);
        let mut ids: Vec<String> = rows.iter().map(|row| row.text("id")).collect();
        for row in &rows {
            assert_eq!(
                row.key.as_deref(),
                Some(row.text("id").as_bytes()),
                "rows are keyed by their id"
            );
        }
        ids.sort();
        let mut expected = good.to_vec();
        expected.sort();
        assert_eq!(ids, expected);
        let mut dead: Vec<(String, i64)> = self
            .read("trips.dlq")
            .iter()
            .map(|row| (row.text("file"), row.line()))
            .collect();
        dead.sort();
        let name = |path: &Path| path.canonicalize().unwrap().to_string_lossy().into_owned();
        let mut expected: Vec<(String, i64)> =
            bad.iter().map(|(path, line)| (name(path), *line)).collect();
        expected.sort();
        assert_eq!(dead, expected);
        let positions = self.positions();
        let total = |count: fn(&Position) -> i64| positions.values().map(count).sum::<i64>();
        assert_eq!(
            total(|position| position.rows_read),
            (good.len() + bad.len()) as i64
        );
        assert_eq!(total(|position| position.rows_rejected), bad.len() as i64);
        for partition in 0..PARTITIONS {
            let there = rows.iter().filter(|row| row.partition == partition).count() as i64;
            let counted: i64 = positions
                .values()
                .map(|position| position.delivered_by_partition[partition as usize])
                .sum();
            assert_eq!(counted, there, "partition {partition}");
        }
        for got in self.read(POSITIONS_TOPIC) {
            let number = |name: &str| match got
                .fields
                .iter()
                .find(|(field, _)| field == name)
                .unwrap()
                .1
            {
                Value::Long(number) => number,
                _ => panic!("{name}"),
            };
            assert_eq!(
                number("rows_read"),
                number("rows_rejected") + number("rows_delivered")
            );
        }
    }
}

pub const HEADER: &str = "id,vendor_id,pickup_datetime,dropoff_datetime,passenger_count,pickup_longitude,pickup_latitude,dropoff_longitude,dropoff_latitude,store_and_fwd_flag,trip_duration\n";

/// Rows `from..to` in Kaggle's layout; those of `bad` have a vendor that is no number.
pub fn rows(from: usize, to: usize, bad: &[usize]) -> String {
    (from..to)
        .map(|number| {
            let vendor = if bad.contains(&number) { "x" } else { "1" };
            format!("id{number},{vendor},2016-01-01 00:00:00,2016-01-01 00:10:00,1,-73.9,40.7,-73.8,40.8,N,600\n")
        })
        .collect()
}

pub fn ids(numbers: impl Iterator<Item = usize>) -> Vec<String> {
    numbers.map(|number| format!("id{number}")).collect()
}
