//! A log, a registry and a lake, what was produced, and a check of the lake against it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int32Type, TimestampMillisecondType};
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt as _};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use runtime::lifecycle::Lifecycle;
use runtime::log::embedded::{EmbeddedLog, EmbeddedOptions};
use runtime::log::{
    ConsumerOptions, Event, Log, NewRecord, Offset, ProducerOptions, TopicPartition, TopicSpec,
};
use schemas::{EmbeddedRegistry, Registry, SchemaId};
use sink_s3::{
    Backoff, FlushOptions, Lake, Layout, Metrics, Options, SinkError, Summary, TopicOptions,
};

pub const TOPIC: &str = "events";
pub const GROUP: &str = "sink";

pub const SCHEMA: &str = r#"{"type":"record","name":"Event","namespace":"t","fields":[
    {"name":"id","type":"string"},
    {"name":"vendor","type":"int"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"note","type":["null","string"],"default":null}]}"#;

/// An hour in the middle of June 2016, in milliseconds since 1970.
pub const HOUR: i64 = 3_600_000;
pub const START: i64 = 1_466_000_000_000 / HOUR * HOUR;

/// A record that was produced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Produced {
    pub partition: i32,
    pub offset: Offset,
    pub row: Row,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    pub id: String,
    pub vendor: i32,
    pub at: i64,
    pub note: Option<String>,
}

impl Row {
    pub fn new(number: i64) -> Self {
        Self {
            id: format!("r{number}"),
            vendor: (number % 3) as i32,
            at: START + (number * 791_917) % (4 * HOUR),
            note: (number % 4 == 0).then(|| format!("note {number}")),
        }
    }

    /// Framed Avro, by the book.
    pub fn encode(&self, schema: SchemaId) -> Vec<u8> {
        let mut out = vec![0];
        out.extend_from_slice(&schema.to_be_bytes());
        text(&mut out, &self.id);
        long(&mut out, i64::from(self.vendor));
        long(&mut out, self.at);
        match &self.note {
            None => long(&mut out, 0),
            Some(note) => {
                long(&mut out, 1);
                text(&mut out, note);
            }
        }
        out
    }
}

pub fn long(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

pub fn text(out: &mut Vec<u8>, value: &str) {
    long(out, value.len() as i64);
    out.extend_from_slice(value.as_bytes());
}

pub struct World {
    pub dir: tempfile::TempDir,
    pub log: Arc<EmbeddedLog>,
    pub registry: Arc<EmbeddedRegistry>,
    pub schema: SchemaId,
    pub store: Arc<dyn ObjectStore>,
    pub partitions: i32,
    pub good: Vec<Produced>,
    pub bad: BTreeSet<(i32, Offset)>,
    next: i64,
}

/// Whoever crashed in it is abandoned, and holds the log: its files are closed all the same.
impl Drop for World {
    fn drop(&mut self) {
        self.log.close();
    }
}

impl World {
    pub fn new(partitions: i32) -> Self {
        Self::with_topic(TopicSpec::new(TOPIC, partitions))
    }

    pub fn with_topic(spec: TopicSpec) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(&dir.path().join("log"), EmbeddedOptions::default()).unwrap();
        log.create_topic(&spec).unwrap();
        let registry = Arc::new(EmbeddedRegistry::in_memory());
        let schema = registry
            .register(&format!("{TOPIC}-value"), SCHEMA)
            .unwrap();
        Self {
            dir,
            log,
            registry,
            schema,
            store: Arc::new(InMemory::new()),
            partitions: spec.partitions,
            good: Vec::new(),
            bad: BTreeSet::new(),
            next: 0,
        }
    }

    /// Ends the process that has the log, as its death would, and begins another one.
    pub fn restart(&mut self) {
        self.log.close();
        self.log =
            EmbeddedLog::open(&self.dir.path().join("log"), EmbeddedOptions::default()).unwrap();
    }

    /// Sends good rows to the partitions in turn, every `bad_every`th of them followed by a bad record.
    pub fn produce(&mut self, rows: i64, bad_every: Option<i64>) {
        let schema = self.schema;
        let mut values = Vec::new();
        for number in self.next..self.next + rows {
            let row = Row::new(number);
            let partition = (number % i64::from(self.partitions)) as i32;
            values.push((partition, row.encode(schema), Some(row)));
            if bad_every.is_some_and(|every| number % every == every - 1) {
                let mut broken = vec![0];
                broken.extend_from_slice(&schema.to_be_bytes());
                broken.push(0x13);
                values.push((
                    partition,
                    [broken, vec![1, 2, 3], vec![]][(number % 3) as usize].clone(),
                    None,
                ));
            }
        }
        self.next += rows;
        self.send(values);
    }

    /// Sends values; those without a row are bad.
    pub fn send(&mut self, values: Vec<(i32, Vec<u8>, Option<Row>)>) {
        let mut ends: BTreeMap<i32, Offset> = BTreeMap::new();
        let mut producer = self
            .log
            .producer(&ProducerOptions::idempotent("test"))
            .unwrap();
        for (partition, value, row) in values {
            let offset = ends.entry(partition).or_insert_with(|| {
                self.log
                    .bounds(&TopicPartition::new(TOPIC, partition))
                    .unwrap()
                    .end
            });
            let record = NewRecord {
                topic: TOPIC,
                partition: Some(partition),
                key: Some(b"key"),
                value: Some(&value),
                headers: &[],
                timestamp_ms: Some(1),
            };
            producer.send(record).unwrap();
            match row {
                Some(row) => self.good.push(Produced {
                    partition,
                    offset: *offset,
                    row,
                }),
                None => drop(self.bad.insert((partition, *offset))),
            }
            *offset += 1;
        }
        producer.flush().unwrap();
    }

    pub fn layout() -> Layout {
        Layout::new()
            .by_hour("at", "UTC")
            .unwrap()
            .by_column("vendor")
            .unwrap()
    }

    /// A run that ends by itself when all is written. It keeps its place in the group, however busy the machine is.
    pub fn options(&self) -> Options {
        let mut options = self.options_on(self.log.clone());
        options.consumer.session_timeout = Duration::from_secs(60);
        options
    }

    /// The same on a log that may let it crash: its place in the group is soon another's.
    pub fn options_on(&self, log: Arc<dyn Log>) -> Options {
        let lake = Lake::Store {
            store: self.store.clone(),
            prefix: Path::from("lake"),
        };
        let numbers = prometheus::Registry::new();
        let metrics = Arc::new(Metrics::new(&numbers).unwrap());
        let edge_metrics = runtime::metrics::Metrics::new(&numbers).unwrap();
        let topics = vec![TopicOptions::new(TOPIC, Self::layout())];
        let lifecycle = Lifecycle::new();
        lifecycle.drain();
        Options {
            consumer: ConsumerOptions {
                session_timeout: Duration::from_millis(300),
                ..ConsumerOptions::new(GROUP)
            },
            flush: FlushOptions {
                rows: 40,
                row_group_rows: 8,
                ..FlushOptions::default()
            },
            backoff: Backoff {
                first: Duration::from_millis(1),
                most: Duration::from_millis(20),
            },
            spill_dir: self.dir.path().join("spill"),
            lifecycle,
            ..Options::new(
                log,
                self.registry.clone(),
                topics,
                lake,
                GROUP,
                metrics,
                edge_metrics,
            )
        }
    }

    /// A run with other thresholds than the first: only a plan can make it end flushes where the first one did.
    pub fn run_differently(&self) -> Result<Summary, SinkError> {
        let options = self.options();
        let flush = FlushOptions {
            rows: 27,
            row_group_rows: 5,
            ..options.flush
        };
        sink_s3::run(Options { flush, ..options })
    }

    pub fn run(&self) -> Result<Summary, SinkError> {
        sink_s3::run(self.options())
    }

    pub fn objects(&self, store: &Arc<dyn ObjectStore>) -> BTreeMap<String, Bytes> {
        let store = store.clone();
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async move {
                let list: Vec<_> = store.list(None).try_collect().await.unwrap();
                let mut objects = BTreeMap::new();
                for meta in list {
                    let bytes = store
                        .get(&meta.location)
                        .await
                        .unwrap()
                        .bytes()
                        .await
                        .unwrap();
                    objects.insert(meta.location.to_string(), bytes);
                }
                objects
            })
    }

    pub fn files(&self) -> Vec<File> {
        self.objects(&self.store)
            .into_iter()
            .filter(|(path, _)| path.ends_with(".parquet"))
            .map(|(path, bytes)| File::read(&path, bytes))
            .collect()
    }

    /// The distinct origins of what is under `errors/`.
    pub fn error_objects(&self) -> BTreeSet<(i32, Offset)> {
        let mut found = BTreeSet::new();
        for (path, bytes) in self.objects(&self.store) {
            if !path.starts_with(&format!("lake/errors/{TOPIC}/")) {
                continue;
            }
            for line in std::str::from_utf8(&bytes).unwrap().lines() {
                let line: serde_json::Value = serde_json::from_str(line).unwrap();
                let origin = (
                    line["partition"].as_i64().unwrap() as i32,
                    line["offset"].as_i64().unwrap(),
                );
                assert!(
                    found.insert(origin),
                    "{origin:?} stands twice under errors/"
                );
            }
        }
        found
    }

    /// The distinct origins in the dead-letter topic, by its records' keys.
    pub fn dead_letters(&self) -> BTreeSet<(i32, Offset)> {
        let partition = TopicPartition::new(format!("{TOPIC}.dlq"), 0);
        let end = self.log.bounds(&partition).unwrap().stable;
        let mut consumer = self.log.consumer(&ConsumerOptions::new("reader")).unwrap();
        consumer.assign(&[(partition, 0)]).unwrap();
        let mut found = BTreeSet::new();
        loop {
            match consumer.poll(Duration::from_secs(1), 1000).unwrap() {
                Some(Event::Records(batch)) => {
                    for record in batch.iter() {
                        let key = std::str::from_utf8(record.key.unwrap()).unwrap();
                        let mut parts = key.rsplit('-');
                        let offset = parts.next().unwrap().parse().unwrap();
                        found.insert((parts.next().unwrap().parse().unwrap(), offset));
                    }
                }
                Some(Event::End { position, .. }) if position >= end => return found,
                Some(other) => panic!("{}", matches!(other, Event::Lost(_))),
                None => panic!("the dead-letter topic has no end"),
            }
        }
    }

    /// Checks that every good record is one row, in its folder and in a file of its offsets, and every bad one a dead letter,
    /// and that the ledger says so.
    pub fn check(&self) {
        let files = self.files();
        let mut rows: Vec<&Row> = files.iter().flat_map(|file| &file.rows).collect();
        let mut expected: Vec<&Row> = self.good.iter().map(|produced| &produced.row).collect();
        rows.sort();
        expected.sort();
        assert_eq!(rows.len(), expected.len(), "rows in the lake");
        assert_eq!(rows, expected);
        let by_id: BTreeMap<&str, &Produced> = self
            .good
            .iter()
            .map(|produced| (produced.row.id.as_str(), produced))
            .collect();
        for file in &files {
            let mut last = -1;
            for row in &file.rows {
                let origin = by_id[row.id.as_str()];
                assert_eq!(file.partition, origin.partition);
                assert!(file.range.contains(&origin.offset), "{}", file.path);
                assert!(
                    origin.offset > last,
                    "rows are in the order of their offsets"
                );
                last = origin.offset;
                assert_eq!(file.folder, folder_utc(row), "{}", file.path);
            }
        }
        assert_eq!(self.error_objects(), self.bad, "dead letters under errors/");
        assert_eq!(self.dead_letters(), self.bad, "dead letters in their topic");
        let ledger = sink_s3::read_ledger(&*self.log, GROUP, &[TOPIC]).unwrap();
        for partition in 0..self.partitions {
            let good = self
                .good
                .iter()
                .filter(|produced| produced.partition == partition)
                .count() as u64;
            let bad = self.bad.iter().filter(|(of, _)| *of == partition).count() as u64;
            let name = TopicPartition::new(TOPIC, partition);
            let Some(entry) = ledger.get(&name) else {
                assert_eq!((good, bad), (0, 0));
                continue;
            };
            assert_eq!(
                (entry.rows, entry.dead),
                (good, bad),
                "the ledger of {name}"
            );
            assert_eq!(entry.offset, self.log.bounds(&name).unwrap().stable);
            assert!(!entry.pending);
            let count = files
                .iter()
                .filter(|file| file.partition == partition)
                .count() as u64;
            assert_eq!(entry.files, count);
        }
    }

    /// The flushes of a partition by its files' names, in order.
    pub fn ranges(&self, partition: i32) -> Vec<std::ops::Range<Offset>> {
        let ranges: BTreeSet<(Offset, Offset)> = self
            .files()
            .iter()
            .filter(|file| file.partition == partition)
            .map(|file| (file.range.start, file.range.end))
            .collect();
        ranges.into_iter().map(|(start, end)| start..end).collect()
    }
}

/// The folder that a row belongs to under [`World::layout`], worked out by hand.
pub fn folder_utc(row: &Row) -> String {
    let hours = row.at.div_euclid(HOUR);
    // START lies in June 2016: day 16953 since 1970 is the 1st of June
    let (day, hour) = (hours.div_euclid(24) - 16_953 + 1, hours.rem_euclid(24));
    format!(
        "year=2016/month=06/day={day:02}/hour={hour:02}/vendor={}",
        row.vendor
    )
}

/// A Parquet file of the lake, read back.
pub struct File {
    pub path: String,
    pub folder: String,
    pub partition: i32,
    pub range: std::ops::Range<Offset>,
    pub rows: Vec<Row>,
}

impl File {
    fn read(path: &str, bytes: Bytes) -> Self {
        let (folder, name) = path.rsplit_once('/').unwrap();
        let folder = folder
            .strip_prefix(&format!("lake/{TOPIC}"))
            .unwrap()
            .trim_start_matches('/');
        let stem = name.strip_suffix(".parquet").unwrap();
        let (_, numbers) = stem.split_once('+').unwrap();
        let (partition, range) = numbers.split_once('+').unwrap();
        let (start, end) = range.split_once('-').unwrap();
        let range = start.parse().unwrap()..end.parse().unwrap();

        let builder = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let pairs: BTreeMap<String, String> = builder
            .metadata()
            .file_metadata()
            .key_value_metadata()
            .unwrap()
            .iter()
            .map(|pair| (pair.key.clone(), pair.value.clone().unwrap()))
            .collect();
        let mut rows = Vec::new();
        for batch in builder.build().unwrap() {
            let batch = batch.unwrap();
            let ids = batch.column_by_name("id").unwrap().as_string::<i32>();
            let vendors = batch
                .column_by_name("vendor")
                .unwrap()
                .as_primitive::<Int32Type>();
            let at = batch
                .column_by_name("at")
                .unwrap()
                .as_primitive::<TimestampMillisecondType>();
            let notes = batch.column_by_name("note").unwrap().as_string::<i32>();
            for row in 0..batch.num_rows() {
                rows.push(Row {
                    id: ids.value(row).into(),
                    vendor: vendors.value(row),
                    at: at.value(row),
                    note: notes.is_valid(row).then(|| notes.value(row).to_owned()),
                });
            }
        }
        let partition: i32 = partition.parse().unwrap();
        let said = |key: &str| pairs[&format!("headway.{key}")].as_str();
        assert_eq!(said("rows"), rows.len().to_string());
        assert_eq!(
            (said("topic"), said("partition")),
            (TOPIC, partition.to_string().as_str())
        );
        assert_eq!(
            format!("{}-{}", said("start"), said("end")),
            format!("{start}-{end}")
        );
        assert!(stem.starts_with(&format!("{TOPIC}-{}+", said("topic_id"))));
        Self {
            path: path.into(),
            folder: folder.into(),
            partition,
            range,
            rows,
        }
    }
}

/// A folder for a lake on this machine's disk.
pub fn folder(world: &World) -> (PathBuf, Lake) {
    let folder = world.dir.path().join("lake-folder");
    let url = format!("file://{}", folder.display());
    (folder, Lake::At(sink_s3::Location::new(url)))
}
