//! A log with trips on it, a job over them, and what the job must come to.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use processor::job::JobOptions;
use processor::metrics::Metrics;
use processor::progress::Progress;
use processor::worker::WorkerOptions;
use processor::{Options, ProcessorError};
use runtime::clock::{Clock, ManualClock, SystemClock};
use runtime::lifecycle::Lifecycle;
use runtime::log::embedded::{EmbeddedLog, EmbeddedOptions};
use runtime::log::{
    ConsumerOptions, Event, Log, NewRecord, Producer, ProducerOptions, TopicPartition, TopicSpec,
};
use schemas::{EmbeddedRegistry, Registry, value_subject};

pub const TRIP: &str = r#"{"type": "record", "name": "Trip", "fields": [
    {"name": "id", "type": "string"},
    {"name": "vendor_id", "type": "int"},
    {"name": "pickup_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "passenger_count", "type": "int"},
    {"name": "distance", "type": "double"}
]}"#;

pub const SESSION_TIMEOUT: Duration = Duration::from_secs(6);
pub const MINUTE_MS: i64 = 60_000;
pub const APPLICATION: &str = "test";
pub const QUERY: &str = "per_minute";

/// The job: one-minute windows by vendor, rows without passengers left out.
pub fn job_sql(out_of_orderness: &str, more: &str) -> String {
    format!(
        "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '{out_of_orderness}'{more});
         CREATE SINK per_minute WITH (topic = 'per_minute', key = 'window_start, vendor_id', emit = 'final');
         INSERT INTO per_minute
         SELECT window_start, window_end, vendor_id, count(*) AS trips, sum(passenger_count) AS passengers,
                avg(distance) AS mean_distance
         FROM TUMBLE(trips, pickup_at, INTERVAL '1 minute')
         WHERE passenger_count > 0
         GROUP BY window_start, window_end, vendor_id;"
    )
}

#[derive(Clone, Debug, PartialEq)]
pub struct Trip {
    pub vendor: i32,
    pub pickup_ms: i64,
    pub passengers: i32,
    pub distance: f64,
}

/// What is expected of one window and vendor: trips, passengers, sum of distances.
pub type Expected = BTreeMap<(i64, i32), (i64, i64, f64)>;

/// A small generator of its own: xorshift, from a seed.
pub fn trips(seed: u64, count: usize, disorder_ms: i64) -> Vec<Trip> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count)
        .map(|index| Trip {
            vendor: (next() % 3) as i32,
            pickup_ms: 1_451_606_400_000 + index as i64 * 1_500
                - (next() % disorder_ms.max(1) as u64) as i64,
            passengers: (next() % 5) as i32,
            distance: (next() % 10_000) as f64 / 700.0,
        })
        .collect()
}

pub fn naive<'a>(trips: impl IntoIterator<Item = &'a Trip>) -> Expected {
    let mut expected = Expected::new();
    for trip in trips {
        if trip.passengers > 0 {
            let of = expected
                .entry((
                    trip.pickup_ms.div_euclid(MINUTE_MS) * MINUTE_MS,
                    trip.vendor,
                ))
                .or_default();
            of.0 += 1;
            of.1 += i64::from(trip.passengers);
            of.2 += trip.distance;
        }
    }
    expected
}

/// The headers that the processor gives to records.
const HEADERS: [&str; 3] = [
    processor::partial::HEADER,
    processor::snapshot::manifest::HEADER,
    processor::format::CHECKSUM,
];

/// A record, as it can be written again.
#[derive(Clone, Debug, PartialEq)]
pub struct Kept {
    pub partition: i32,
    pub key: Option<Vec<u8>>,
    pub headers: Vec<(&'static str, Vec<u8>)>,
    pub value: Option<Vec<u8>>,
}

impl Kept {
    pub fn key(&self) -> &[u8] {
        self.key.as_deref().unwrap_or_default()
    }

    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter();
        headers
            .find(|(found, _)| *found == name)
            .map(|(_, bytes)| bytes.as_slice())
    }

    pub fn send(&self, producer: &mut dyn Producer, topic: &str) {
        let headers: Vec<_> = self
            .headers
            .iter()
            .map(|(name, bytes)| (*name, bytes.as_slice()))
            .collect();
        producer
            .send(NewRecord {
                topic,
                partition: Some(self.partition),
                key: self.key.as_deref(),
                value: self.value.as_deref(),
                headers: &headers,
                timestamp_ms: None,
            })
            .unwrap();
    }
}

pub struct Fixture {
    pub log: Arc<EmbeddedLog>,
    pub clock: Arc<ManualClock>,
    pub registry: Arc<dyn Registry>,
    /// Where the paths of jobs begin.
    pub folder: PathBuf,
    dir: tempfile::TempDir,
}

impl Fixture {
    pub fn new(partitions: i32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(1_451_606_400_000));
        let options = EmbeddedOptions {
            clock: Arc::clone(&clock) as _,
            ..EmbeddedOptions::default()
        };
        let log = EmbeddedLog::open(dir.path(), options).unwrap();
        for topic in ["trips", "trips.dlq"] {
            log.create_topic(&TopicSpec::new(topic, partitions))
                .unwrap();
        }
        let registry: Arc<dyn Registry> = Arc::new(EmbeddedRegistry::in_memory());
        registry.register(&value_subject("trips"), TRIP).unwrap();
        Self {
            log,
            clock,
            registry,
            folder: PathBuf::new(),
            dir,
        }
    }

    /// Where the log is.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The same as it stands now, to be gone on with apart from this one.
    pub fn copy(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        copy_folder(self.dir.path(), dir.path());
        let clock = Arc::new(ManualClock::at(self.clock.now_ms()));
        let options = EmbeddedOptions {
            clock: Arc::clone(&clock) as _,
            ..EmbeddedOptions::default()
        };
        Self {
            log: EmbeddedLog::open(dir.path(), options).unwrap(),
            clock,
            registry: Arc::clone(&self.registry),
            folder: self.folder.clone(),
            dir,
        }
    }

    /// Writes trips in transactions of a few dozen, spread over the partitions in turn.
    pub fn write(&self, trips: &[Trip]) {
        let partitions = self.log.topic("trips").unwrap().unwrap().partitions;
        self.write_to(trips, |index| index as i32 % partitions);
    }

    pub fn write_to(&self, trips: &[Trip], partition: impl Fn(usize) -> i32) {
        let values: Vec<_> = trips
            .iter()
            .enumerate()
            .map(|(index, trip)| (partition(index), self.encode(index, trip)))
            .collect();
        self.write_raw(&values);
    }

    pub fn write_raw(&self, values: &[(i32, Vec<u8>)]) {
        let values: Vec<_> = values
            .iter()
            .map(|(partition, value)| (*partition, Some(value.clone())))
            .collect();
        self.write_records(&values);
    }

    /// Writes values; `None` is a tombstone.
    pub fn write_records(&self, values: &[(i32, Option<Vec<u8>>)]) {
        let mut producer = self
            .log
            .producer(&ProducerOptions::transactional("writer"))
            .unwrap();
        producer.init_transactions().unwrap();
        for chunk in values.chunks(40) {
            producer.begin().unwrap();
            for (partition, value) in chunk {
                producer
                    .send(NewRecord {
                        topic: "trips",
                        partition: Some(*partition),
                        key: None,
                        value: value.as_deref(),
                        headers: &[],
                        timestamp_ms: None,
                    })
                    .unwrap();
            }
            producer.commit().unwrap();
        }
    }

    pub fn encode(&self, index: usize, trip: &Trip) -> Vec<u8> {
        let schema = Schema::parse_str(TRIP).unwrap();
        let value = Value::Record(vec![
            ("id".into(), Value::String(format!("id{index}"))),
            ("vendor_id".into(), Value::Int(trip.vendor)),
            ("pickup_at".into(), Value::TimestampMillis(trip.pickup_ms)),
            ("passenger_count".into(), Value::Int(trip.passengers)),
            ("distance".into(), Value::Double(trip.distance)),
        ]);
        let (id, _) = self
            .registry
            .latest(&value_subject("trips"))
            .unwrap()
            .unwrap();
        let mut bytes = Vec::new();
        schemas::wire::frame(id, &mut bytes);
        bytes.extend(
            GenericDatumWriter::builder(&schema)
                .build()
                .unwrap()
                .write_value_to_vec(value)
                .unwrap(),
        );
        bytes
    }

    pub fn options(&self, sql: String) -> Options {
        self.options_over(Arc::clone(&self.log) as _, sql)
    }

    pub fn options_over(&self, log: Arc<dyn Log>, sql: String) -> Options {
        Options {
            job: JobOptions {
                sql,
                folder: self.folder.clone(),
                application_id: APPLICATION.into(),
                shards: 2,
                mask_salt: b"salt".to_vec(),
                durability: Default::default(),
                newest_format: processor::format::NEWEST,
                takes_over: None,
            },
            workers: 1,
            instance: "a".into(),
            worker: WorkerOptions {
                commit_interval: Duration::from_millis(1),
                max_poll_records: 25,
                max_range_rows: 25,
                session_timeout: SESSION_TIMEOUT,
                // What comes in these tests comes at once.
                successor_wait: Duration::from_millis(20),
                idle_marks: false,
                // Every few commits, so that whatever is tested is tested with them.
                snapshot_cost: 700,
                ..WorkerOptions::default()
            },
            log,
            registry: Arc::clone(&self.registry),
            lifecycle: Lifecycle::new(),
            clock: Arc::new(SystemClock),
            metrics: Arc::new(Metrics::new(&prometheus::Registry::new()).unwrap()),
            edge_metrics: runtime::metrics::Metrics::new(&prometheus::Registry::new()).unwrap(),
            progress: Arc::new(Progress::default()),
            ready: runtime::telemetry::Readiness::new().condition("state"),
            state_memory_bytes: 256 * 1024 * 1024,
            spill_dir: std::env::temp_dir(),
            tables_ready: runtime::telemetry::Readiness::new().condition("reference tables"),
        }
    }

    /// Runs the job to the end of the input.
    pub fn drain(&self, log: Arc<dyn Log>, sql: &str) -> Result<(), ProcessorError> {
        let options = self.options_over(log, sql.into());
        options.lifecycle.drain();
        self.run(options)
    }

    /// Takes some rows, and stops before the input is said to have ended.
    pub fn begin(&self, sql: &str) {
        let options = self.options(sql.into());
        let (lifecycle, progress) = (options.lifecycle.clone(), Arc::clone(&options.progress));
        let running = std::thread::spawn(move || processor::run(&options));
        while progress.totals().merged == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
        lifecycle.stop();
        running.join().unwrap().unwrap();
    }

    /// Runs while the log's clock goes on, faster than the world's: members that were given up are forgotten.
    pub fn run(&self, options: Options) -> Result<(), ProcessorError> {
        let running = std::thread::spawn(move || processor::run(&options));
        while !running.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            self.clock.advance(Duration::from_millis(250));
        }
        running.join().unwrap()
    }

    /// Lets the group forget members that were abandoned.
    pub fn forget_members(&self) {
        self.clock.advance(SESSION_TIMEOUT + Duration::from_secs(1));
    }

    /// Every committed record of a topic: key and value.
    pub fn records(&self, topic: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let Some(found) = self.log.topic(topic).unwrap() else {
            return vec![];
        };
        let mut records = Vec::new();
        for partition in 0..found.partitions {
            let partition = TopicPartition::new(topic, partition);
            let mut consumer = self.log.consumer(&ConsumerOptions::new("reader")).unwrap();
            consumer.assign(&[(partition, 0)]).unwrap();
            loop {
                match consumer.poll(Duration::from_secs(5), 1000).unwrap() {
                    Some(Event::Records(batch)) => records.extend(batch.iter().map(|record| {
                        (
                            record.key.unwrap_or_default().into(),
                            record.value.unwrap_or_default().into(),
                        )
                    })),
                    Some(Event::End { .. }) => break,
                    _ => panic!("the end of {topic} was not reached"),
                }
            }
        }
        records
    }

    /// Every record of a topic that is still there, in the order of its partitions, with what the processor says of it.
    pub fn kept(&self, topic: &str) -> Vec<Kept> {
        let found = self.log.topic(topic).unwrap().unwrap();
        let mut kept = Vec::new();
        for partition in (0..found.partitions).map(|of| TopicPartition::new(topic, of)) {
            let start = self.log.bounds(&partition).unwrap().start;
            let mut consumer = self.log.consumer(&ConsumerOptions::new("reader")).unwrap();
            consumer.assign(&[(partition.clone(), start)]).unwrap();
            loop {
                match consumer.poll(Duration::from_secs(5), 1000).unwrap() {
                    Some(Event::Records(batch)) => {
                        for (index, record) in batch.iter().enumerate() {
                            let header = |name: &&'static str| {
                                Some((*name, batch.header(index, name)?.to_vec()))
                            };
                            kept.push(Kept {
                                partition: partition.partition,
                                key: record.key.map(<[u8]>::to_vec),
                                headers: HEADERS.iter().filter_map(header).collect(),
                                value: record.value.map(<[u8]>::to_vec),
                            });
                        }
                    }
                    Some(Event::End { .. }) => break,
                    other => panic!("{other:?}"),
                }
            }
        }
        kept
    }

    /// The results, each as its window, vendor and figures; panics if a window and vendor come twice.
    pub fn results(&self) -> Expected {
        let (_, text) = self
            .registry
            .latest(&value_subject("per_minute"))
            .unwrap()
            .unwrap();
        let schema = Schema::parse_str(&text).unwrap();
        let mut results = Expected::new();
        for (_, value) in self.records("per_minute") {
            let (_, body) = schemas::wire::unframe(&value).unwrap();
            let Value::Record(fields) = GenericDatumReader::builder(&schema)
                .build()
                .unwrap()
                .read_value(&mut &body[..])
                .unwrap()
            else {
                panic!()
            };
            let fields: BTreeMap<_, _> = fields.into_iter().collect();
            let whole = |name: &str| whole(&fields[name]);
            let mean = match &fields["mean_distance"] {
                Value::Double(mean) => *mean,
                Value::Union(_, inner) => match inner.as_ref() {
                    Value::Double(mean) => *mean,
                    other => panic!("{other:?}"),
                },
                other => panic!("{other:?}"),
            };
            let count = whole("trips");
            let figures = (count, whole("passengers"), mean * count as f64);
            let before =
                results.insert((whole("window_start"), whole("vendor_id") as i32), figures);
            assert_eq!(before, None, "a window and vendor came twice");
        }
        results
    }

    /// Whether the shards have folded all partials that there are, and committed that.
    pub fn folded(&self) -> bool {
        let status = processor::status::read(self.log.as_ref(), APPLICATION, [], [QUERY]).unwrap();
        let mut shards = status.shards.iter();
        shards.all(|shard| shard.place.committed.is_some() && shard.place.lag == 0)
    }

    pub fn ledger(&self) -> processor::ledger::QueryLedger {
        processor::ledger::read(self.log.as_ref(), APPLICATION, QUERY, "trips", 0).unwrap()
    }
}

/// Whoever crashed in it is abandoned, and holds the log: its files are closed all the same.
impl Drop for Fixture {
    fn drop(&mut self) {
        self.log.close();
    }
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn whole(value: &Value) -> i64 {
    match value {
        Value::Int(number) => i64::from(*number),
        Value::Long(number) | Value::TimestampMillis(number) => *number,
        Value::Union(_, inner) => whole(inner),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
pub fn assert_same(found: &Expected, expected: &Expected, what: &str) {
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{what}: windows differ"
    );
    for (key, want) in expected {
        let got = found[key];
        assert_eq!((got.0, got.1), (want.0, want.1), "{what}: {key:?}");
        assert!(
            (got.2 - want.2).abs() <= 1e-9 * want.2.abs(),
            "{what}: {key:?}: {} and {}",
            got.2,
            want.2
        );
    }
}
