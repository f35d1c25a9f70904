//! Records whose documents are known, and runs of the sink over them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Float64Array, Int32Array, Int64Array, TimestampMillisecondArray};
use arrow::datatypes::{Int32Type, Int64Type};
use arrow::record_batch::RecordBatch;
use runtime::lifecycle::Lifecycle;
use runtime::log::embedded::{EmbeddedLog, EmbeddedOptions};
use runtime::log::{
    ConsumerOptions, Event, Log, NewRecord, ProducerOptions, Record, TopicPartition, TopicSpec,
};
use schemas::decode::BatchDecoder;
use schemas::encode::BatchEncoder;
use schemas::{EmbeddedRegistry, Registry, value_subject};
use sink_opensearch::{
    Options, PacingOptions, SinkError, SqliteTarget, Summary, Target, TopicSettings, run,
};

pub const TOPIC: &str = "statistics";
pub const GROUP: &str = "documents";
pub const PARTITIONS: i32 = 2;
/// 2016-01-31T23:00:00Z
const LAST_HOUR_OF_JANUARY: i64 = 1_454_281_200_000;
const HOUR: i64 = 3_600_000;

pub const SCHEMA: &str = r#"{"type": "record", "name": "Statistics", "fields": [
    {"name": "window_start", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "vendor_id", "type": "int"},
    {"name": "mean", "type": "double"},
    {"name": "version", "type": "long"}
]}"#;

pub fn settings() -> TopicSettings {
    TopicSettings::new(TOPIC)
        .keyed_by(&["window_start", "vendor_id"])
        .timed_by("window_start")
}

/// Version of each document by index and id.
pub type Versions = BTreeMap<(String, String), i64>;

/// A log with records, and what must become of them.
pub struct World {
    pub log: Arc<EmbeddedLog>,
    pub registry: Arc<dyn Registry>,
    seed: u64,
    /// The naive model: the highest version of each key.
    pub expected: Versions,
    /// The serial numbers of the records that make no document; a record's key is its number.
    pub dead: BTreeSet<u64>,
    pub records: u64,
    serial: u64,
}

/// Whoever crashed in it is abandoned, and holds the log: its files are closed all the same.
impl Drop for World {
    fn drop(&mut self) {
        self.log.close();
    }
}

impl World {
    pub fn new(dir: &Path) -> Self {
        let log = open(dir);
        log.create_topic(&TopicSpec::new(TOPIC, PARTITIONS))
            .unwrap();
        let registry: Arc<dyn Registry> = Arc::new(EmbeddedRegistry::in_memory());
        registry.register(&value_subject(TOPIC), SCHEMA).unwrap();
        Self {
            log,
            registry,
            seed: 7,
            expected: BTreeMap::new(),
            dead: BTreeSet::new(),
            records: 0,
            serial: 0,
        }
    }

    fn below(&mut self, bound: u64) -> u64 {
        // xorshift64: a sequence that is the same everywhere
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % bound
    }

    /// Writes so many records, versions in disorder, some of them bad; in transactions, whose control records leave
    /// holes, some of which are aborted.
    pub fn write(&mut self, records: usize, bad: bool) {
        let options = ProducerOptions::transactional("writer");
        let mut producer = self.log.producer(&options).unwrap();
        producer.init_transactions().unwrap();
        let mut left = records;
        while left > 0 {
            let count = left.min(1 + self.below(40) as usize);
            left -= count;
            let abort = self.below(4) == 0;
            producer.begin().unwrap();
            let values = self.values(count, bad, abort);
            for (partition, serial, value) in &values {
                let key = serial.to_be_bytes();
                let record = NewRecord {
                    topic: TOPIC,
                    partition: Some(*partition),
                    key: Some(&key),
                    value: value.as_deref(),
                    headers: &[],
                    timestamp_ms: None,
                };
                producer.send(record).unwrap();
            }
            if abort {
                producer.abort().unwrap();
                left += count;
            } else {
                producer.commit().unwrap();
            }
        }
    }

    /// Values, entered into the model unless they are to be aborted.
    fn values(
        &mut self,
        count: usize,
        bad: bool,
        aborted: bool,
    ) -> Vec<(i32, u64, Option<Vec<u8>>)> {
        let mut rows = Vec::new();
        for _ in 0..count {
            let vendor = self.below(3) as i32;
            let hour = self.below(4) as i64;
            let version = self.below(50) as i64;
            let kind = if bad { self.below(12) } else { 11 };
            // a document's versions may come from either partition
            rows.push((
                self.below(PARTITIONS as u64) as i32,
                hour,
                vendor,
                version,
                kind,
            ));
        }
        let mean = |version: i64, kind: u64| {
            if kind == 1 {
                f64::NAN
            } else {
                version as f64 / 3.0
            }
        };
        let starts: Vec<i64> = rows
            .iter()
            .map(|row| LAST_HOUR_OF_JANUARY + row.1 * HOUR)
            .collect();
        let batch = RecordBatch::try_from_iter([
            (
                "window_start",
                Arc::new(TimestampMillisecondArray::from(starts).with_timezone("+00:00")) as _,
            ),
            (
                "vendor_id",
                Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.2))) as _,
            ),
            (
                "mean",
                Arc::new(Float64Array::from_iter_values(
                    rows.iter().map(|row| mean(row.3, row.4)),
                )) as _,
            ),
            (
                "version",
                Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.3))) as _,
            ),
        ])
        .unwrap();
        let (id, _) = self
            .registry
            .latest(&value_subject(TOPIC))
            .unwrap()
            .unwrap();
        let mut encoder = BatchEncoder::new(SCHEMA, id, batch.schema()).unwrap();
        let encoded = encoder.encode(&batch).unwrap();
        let mut values = Vec::new();
        for ((partition, hour, vendor, version, kind), framed) in
            rows.into_iter().zip(encoded.iter())
        {
            let serial = self.serial;
            self.serial += 1;
            if !aborted {
                self.records += 1;
                if kind < 4 {
                    self.dead.insert(serial);
                } else {
                    let (month, day, time) = if hour == 0 {
                        ("01", "31", 23)
                    } else {
                        ("02", "01", hour - 1)
                    };
                    let index = format!("{TOPIC}-2016.{month}");
                    let key = format!("2016-{month}-{day}T{time:02}:00:00.000Z+{vendor}");
                    let highest = self.expected.entry((index, key)).or_insert(version);
                    *highest = version.max(*highest);
                }
            }
            let value = match kind {
                0 => None,
                2 => Some(b"no header".to_vec()),
                3 => Some(framed[..framed.len() - 3].to_vec()),
                _ => Some(framed.to_vec()),
            };
            values.push((partition, serial, value));
        }
        values
    }

    /// Options of a member that comes back at once under its name after a crash.
    pub fn options(&self, log: Arc<dyn Log>, target: Arc<dyn Target>) -> Options {
        let metrics = prometheus::Registry::new();
        let edges = runtime::metrics::Metrics::new(&metrics).unwrap();
        let registry = Arc::clone(&self.registry);
        let mut options = Options::new(
            log,
            registry,
            target,
            GROUP,
            vec![settings()],
            &metrics,
            edges,
        )
        .unwrap();
        options.consumer.instance_id = Some("one".into());
        options.consumer.session_timeout = Duration::from_secs(2);
        options.flush_interval = Duration::from_millis(20);
        options.pacing = PacingOptions {
            first_pause: Duration::from_millis(2),
            max_pause: Duration::from_millis(20),
            ..PacingOptions::default()
        };
        options
    }

    /// Runs to the end of what is on the log.
    pub fn drain(&self, target: Arc<dyn Target>) -> Result<Summary, SinkError> {
        let options = self.options(self.log.clone(), target);
        options.lifecycle.drain();
        run(options)
    }

    /// Documents, dead letters and ledgers are as the model has them.
    pub fn check(&self, target: &SqliteTarget, context: &str) {
        let stored = target.documents("*").unwrap();
        let mut versions = BTreeMap::new();
        for document in stored {
            let json: serde_json::Value = serde_json::from_str(&document.body).unwrap();
            assert_eq!(json["version"], document.version, "{context}");
            assert_eq!(json["mean"], document.version as f64 / 3.0, "{context}");
            versions.insert((document.index, document.id), document.version);
        }
        assert_eq!(versions, self.expected, "{context}");
        assert_eq!(
            self.dead_letters().into_iter().collect::<BTreeSet<_>>(),
            self.dead,
            "{context}"
        );
        self.check_ledger(context);
    }

    pub fn check_ledger(&self, context: &str) {
        let ledgers = sink_opensearch::read_ledger(self.log.as_ref(), GROUP, &[TOPIC]).unwrap();
        let (mut docs, mut dead) = (0, 0);
        for (partition, counted) in ledgers {
            assert_eq!(
                counted.offset,
                self.log.bounds(&partition).unwrap().stable,
                "{context} {partition}"
            );
            let ledger = counted.ledger.unwrap();
            assert_eq!(ledger.from, 0);
            docs += ledger.docs;
            dead += ledger.dead;
        }
        assert_eq!(
            (docs, dead),
            (
                self.records - self.dead.len() as u64,
                self.dead.len() as u64
            ),
            "{context}"
        );
    }

    /// The serial number of every record with a dead letter, copies included.
    pub fn dead_letters(&self) -> Vec<u64> {
        let mut serials = BTreeMap::new();
        self.read(TOPIC, |partition, record| {
            let serial = u64::from_be_bytes(record.key.unwrap().try_into().unwrap());
            serials.insert((partition, record.offset), serial);
        });
        let mut decoder =
            BatchDecoder::new(Arc::clone(&self.registry), schemas::shipped::DEAD_LETTER).unwrap();
        self.read(&format!("{TOPIC}.dlq"), |_, record| {
            decoder.push(record.value.unwrap()).unwrap()
        });
        let Some(rows) = decoder.flush().unwrap() else {
            return Vec::new();
        };
        let column = |name: &str| rows.column_by_name(name).unwrap();
        let numbers = column("partition").as_primitive::<Int32Type>();
        let offsets = column("offset").as_primitive::<Int64Type>();
        (0..rows.num_rows())
            .map(|row| serials[&(numbers.value(row), offsets.value(row))])
            .collect()
    }

    /// All records of a topic.
    fn read(&self, topic: &str, mut each: impl FnMut(i32, Record<'_>)) {
        let mut consumer = self.log.consumer(&ConsumerOptions::new("reader")).unwrap();
        let partitions = self.log.topic(topic).unwrap().unwrap().partitions;
        let starts: Vec<_> = (0..partitions)
            .map(|number| (TopicPartition::new(topic, number), 0))
            .collect();
        consumer.assign(&starts).unwrap();
        let mut open = partitions;
        while open > 0 {
            match consumer
                .poll(Duration::from_secs(5), 1_000)
                .unwrap()
                .expect("the end is reported")
            {
                Event::Records(batch) => batch
                    .iter()
                    .for_each(|record| each(batch.partition.partition, record)),
                Event::End { .. } => open -= 1,
                _ => unreachable!("a reader without a group"),
            }
        }
    }
}

pub fn open(dir: &Path) -> Arc<EmbeddedLog> {
    EmbeddedLog::open(dir, EmbeddedOptions::default()).unwrap()
}

/// Waits until something holds, for at most a minute or so.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..12_000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("never: {what}");
}

/// A run on a thread of its own, told to end through the handle.
pub fn start(
    options: Options,
) -> (
    Lifecycle,
    std::thread::JoinHandle<Result<Summary, SinkError>>,
) {
    let lifecycle = options.lifecycle.clone();
    (lifecycle, std::thread::spawn(move || run(options)))
}
