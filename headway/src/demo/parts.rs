//! The parts of a demo, each on a thread of its own.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, anyhow};
use engine::sql::Script;
use processor::job::JobOptions;
use processor::worker::WorkerOptions;
use runtime::cli::Usage;
use runtime::clock::SystemClock;
use runtime::lifecycle::Lifecycle;
use runtime::log::embedded::{EmbeddedLog, EmbeddedOptions, Heartbeats};
use runtime::log::{Log, TopicPartition};
use schemas::{EmbeddedRegistry, Registry, shipped, value_subject};
use sink_opensearch::SqliteTarget;
use sink_s3::{FlushOptions, Layout, Location, TopicOptions};

use super::folder::{Folder, Origin};
use super::screen::Figures;
use super::{DemoArgs, source};
use crate::audit::{Query, ResultsOf};

/// The topic of trips.
pub const TRIPS: &str = "trips";
/// The topic of the shipped job's results.
const RESULTS: &str = "trip_statistics";
/// The processor's application id.
pub const APPLICATION: &str = "taxi";
/// The group of sink-s3.
pub const LAKE_GROUP: &str = "sink-s3";
/// The group of sink-opensearch.
pub const DOCUMENTS_GROUP: &str = "sink-opensearch";
/// What masked coordinates are moved by: no secret, as nothing in a demo is.
const MASK_SALT: &[u8] = b"headway-demo";
/// How many rows a second a demo shows, where nothing else is said.
const VISIBLE_RATE: f64 = 2000.0;

/// The running parts.
pub struct Parts {
    /// The log they share.
    pub log: Arc<dyn Log>,
    /// The registry they share.
    pub registry: Arc<dyn Registry>,
    queries: Vec<Query>,
    running: Vec<Part>,
    producer: Arc<producer::Progress>,
    processor: Arc<processor::progress::Progress>,
    lake: Arc<sink_s3::Progress>,
    documents: Arc<sink_opensearch::Progress>,
}

struct Part {
    name: &'static str,
    lifecycle: Lifecycle,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
    failed: Arc<AtomicBool>,
}

impl Parts {
    /// The producer's place among the parts.
    pub const PRODUCER: usize = 0;
    /// The processor's.
    pub const PROCESSOR: usize = 1;
    /// The one of sink-s3.
    pub const LAKE: usize = 2;
    /// The one of sink-opensearch.
    pub const DOCUMENTS: usize = 3;

    /// Opens what the parts share, creates topics, registers schemas, and starts them.
    pub fn start(folder: &Folder, origin: &Origin, args: &DemoArgs) -> anyhow::Result<Self> {
        let script = script(origin)?;
        let options = EmbeddedOptions {
            heartbeats: Heartbeats::ByLife,
            ..EmbeddedOptions::default()
        };
        let log: Arc<dyn Log> = EmbeddedLog::open(&folder.log(), options)?;
        let registry: Arc<dyn Registry> = Arc::new(EmbeddedRegistry::open(&folder.registry())?);
        setup(log.as_ref(), registry.as_ref(), origin, &script)?;

        let metrics = prometheus::Registry::new();
        let edges = runtime::metrics::Metrics::new(&metrics)?;
        let rate = args
            .rate
            .unwrap_or(if args.once { 0.0 } else { VISIBLE_RATE });

        let mut producer = producer::Options::new(
            Arc::clone(&log),
            Arc::clone(&registry),
            TRIPS,
            source::input(folder, origin).context("the folder of generated trips can't be used")?,
            producer::Metrics::new(&metrics)?,
            edges.clone(),
        );
        producer.mapping = mapping(args.mapping.as_deref())?;
        producer.rate = (rate > 0.0).then_some(rate);
        producer.commit_interval = Duration::from_millis(200);
        producer.lifecycle = Lifecycle::new();

        let processor = processor::Options {
            job: JobOptions {
                sql: origin.job.clone(),
                folder: folder_of(args.job.as_deref()),
                application_id: APPLICATION.into(),
                shards: origin.shards,
                mask_salt: MASK_SALT.to_vec(),
                durability: Default::default(),
                newest_format: processor::format::NEWEST,
                takes_over: None,
            },
            workers: args.workers,
            instance: "demo".into(),
            worker: WorkerOptions {
                idle_marks: !origin.once,
                ..WorkerOptions::default()
            },
            log: Arc::clone(&log),
            registry: Arc::clone(&registry),
            lifecycle: Lifecycle::new(),
            clock: Arc::new(SystemClock),
            metrics: Arc::new(processor::metrics::Metrics::new(&metrics)?),
            edge_metrics: edges.clone(),
            progress: Arc::default(),
            ready: runtime::telemetry::Readiness::new().condition("state"),
            state_memory_bytes: 256 * 1024 * 1024,
            spill_dir: std::env::temp_dir(),
            tables_ready: runtime::telemetry::Readiness::new().condition("reference tables"),
        };

        let layout = Layout::new()
            .by_hour("pickup_at", "UTC")?
            .by_column("vendor_id")?;
        let mut lake = sink_s3::Options::new(
            Arc::clone(&log),
            Arc::clone(&registry),
            vec![TopicOptions::new(TRIPS, layout)],
            sink_s3::Lake::At(Location::new(folder.lake().display().to_string())),
            LAKE_GROUP,
            Arc::new(sink_s3::Metrics::new(&metrics)?),
            edges.clone(),
        );
        lake.flush = FlushOptions {
            interval: Duration::from_secs(10),
            rows: 500_000,
            ..FlushOptions::default()
        };
        lake.spill_dir = folder.root().join("spill");

        let target = Arc::new(SqliteTarget::open(folder.documents())?);
        let mut documents = sink_opensearch::Options::new(
            Arc::clone(&log),
            Arc::clone(&registry),
            target,
            DOCUMENTS_GROUP,
            super::sinks::documents(&script)?,
            &metrics,
            edges,
        )?;
        documents.flush_interval = Duration::from_millis(500);

        let mut parts = Self {
            log,
            registry,
            producer: Arc::clone(&producer.progress),
            processor: Arc::clone(&processor.progress),
            lake: Arc::clone(&lake.progress),
            documents: Arc::clone(&documents.progress),
            queries: Query::all(&script),
            running: Vec::new(),
        };
        // The job is checked before anything is sent; this also creates the topics that it writes.
        processor::job::Job::load(parts.log.as_ref(), &parts.registry, processor.job.clone())?;
        let lifecycle = producer.lifecycle.clone();
        parts.spawn("the producer", lifecycle, move || {
            Ok(producer::run(producer).map(drop)?)
        })?;
        let lifecycle = processor.lifecycle.clone();
        parts.spawn("the processor", lifecycle, move || {
            Ok(processor::run(&processor)?)
        })?;
        let lifecycle = lake.lifecycle.clone();
        parts.spawn("sink-s3", lifecycle, move || {
            Ok(sink_s3::run(lake).map(drop)?)
        })?;
        let lifecycle = documents.lifecycle.clone();
        parts.spawn("sink-opensearch", lifecycle, move || {
            Ok(sink_opensearch::run(documents).map(drop)?)
        })?;
        Ok(parts)
    }

    fn spawn(
        &mut self,
        name: &'static str,
        lifecycle: Lifecycle,
        run: impl FnOnce() -> anyhow::Result<()> + Send + 'static,
    ) -> anyhow::Result<()> {
        let failed = Arc::new(AtomicBool::new(false));
        let fails = Arc::clone(&failed);
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let result = run();
                fails.store(result.is_err(), Ordering::SeqCst);
                result
            });
        let thread = thread.with_context(|| format!("{name} can't be started"))?;
        self.running.push(Part {
            name,
            lifecycle,
            thread: Some(thread),
            failed,
        });
        Ok(())
    }

    /// Tells a part that no more input will come.
    pub fn drain(&self, part: usize) {
        self.running[part].lifecycle.drain();
    }

    /// Tells a part to stop.
    pub fn stop(&self, part: usize) {
        self.running[part].lifecycle.stop();
    }

    /// Whether a part has ended.
    pub fn ended(&self, part: usize) -> bool {
        self.running[part]
            .thread
            .as_ref()
            .is_none_or(JoinHandle::is_finished)
    }

    /// The name of a part that has failed, if one has.
    pub fn failed(&self) -> Option<&'static str> {
        let failed = self
            .running
            .iter()
            .find(|part| part.failed.load(Ordering::SeqCst));
        failed.map(|part| part.name)
    }

    /// Stops every part and waits for it; the first failure is returned.
    pub fn join(&mut self) -> anyhow::Result<()> {
        self.running.iter().for_each(|part| part.lifecycle.stop());
        let mut result = Ok(());
        for part in &mut self.running {
            let Some(thread) = part.thread.take() else {
                continue;
            };
            let ended = match thread.join() {
                Ok(ended) => ended.with_context(|| format!("{} failed", part.name)),
                Err(_) => Err(anyhow!("{} panicked", part.name)),
            };
            result = result.and(ended);
        }
        result
    }

    /// Whether the processor has taken every record on the log that its queries read, and every partial row.
    pub fn processor_is_level(&self) -> anyhow::Result<bool> {
        for query in &self.queries {
            let partials = processor::topics::partials(APPLICATION, &query.name);
            if !(self.is_level(APPLICATION, &query.source_topic)?
                && self.is_level(APPLICATION, &partials)?)
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the sinks have read everything on the log. What sink-s3 has gathered it writes when it is stopped.
    pub fn sinks_are_level(&self) -> anyhow::Result<bool> {
        for query in &self.queries {
            if !self.is_level(DOCUMENTS_GROUP, &query.sink_topic)? {
                return Ok(false);
            }
        }
        Ok(self.lake.counts().read >= self.producer.delivered())
    }

    fn is_level(&self, group: &str, topic: &str) -> anyhow::Result<bool> {
        let partitions = self.log.topic(topic)?.map_or(0, |found| found.partitions);
        let partitions: Vec<_> = (0..partitions)
            .map(|partition| TopicPartition::new(topic, partition))
            .collect();
        for (partition, committed) in partitions
            .iter()
            .zip(self.log.committed(group, &partitions)?)
        {
            let bounds = self.log.bounds(partition)?;
            // The last offset may be a control record, which nobody commits.
            if committed.map_or(0, |committed| committed.offset) + 1 < bounds.stable {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// How many groups the queries without windows hold. (A shard counts them where others count open windows.)
    fn groups(&self) -> u64 {
        let unbounded = |name: &str| {
            self.queries
                .iter()
                .any(|query| query.name == name && query.results_of() == ResultsOf::Groups)
        };
        let shards = self.processor.shards();
        let of = shards.iter().filter(|((query, _), _)| unbounded(query));
        of.map(|(_, shard)| shard.open).sum()
    }

    /// How far everything is.
    pub fn figures(&self) -> Figures {
        let processor = self.processor.totals();
        let lake = self.lake.counts();
        let documents = self.documents.snapshot();
        let groups = self
            .queries
            .iter()
            .any(|query| query.results_of() == ResultsOf::Groups)
            .then(|| self.groups());
        Figures {
            rows: self.producer.read() + self.producer.in_hand(),
            watermark: processor.watermark,
            closed: processor.closed,
            open: processor.open.saturating_sub(groups.unwrap_or(0)),
            groups,
            late: processor.late,
            dead: self.producer.rejected() + processor.dead + lake.dead + documents.dead,
            lake: lake.rows,
            documents: documents.stored,
            restored: processor.restored,
        }
    }
}

/// Where the paths that a job names begin.
fn folder_of(job: Option<&Path>) -> PathBuf {
    job.and_then(Path::parent)
        .map(Path::to_owned)
        .unwrap_or_default()
}

/// The statements of a demo's job.
pub fn script(origin: &Origin) -> anyhow::Result<Script> {
    crate::job::parse(&origin.job, "the job").map_err(|Usage(error)| error)
}

/// Creates the topics and registers the schemas that the parts share.
fn setup(
    log: &dyn Log,
    registry: &dyn Registry,
    origin: &Origin,
    script: &Script,
) -> anyhow::Result<()> {
    producer::setup_topics(log, TRIPS, origin.partitions, Default::default())?;
    registry.register(&value_subject(TRIPS), shipped::TAXI_TRIP)?;
    if script.sinks.values().any(|sink| sink.topic == RESULTS) {
        registry.register(&value_subject(RESULTS), shipped::TRIP_STATISTICS)?;
    }
    Ok(())
}

fn mapping(name: Option<&str>) -> anyhow::Result<Option<producer::Mapping>> {
    let Some(name) = name else { return Ok(None) };
    if let Some(mapping) = producer::Mapping::shipped(name) {
        return Ok(Some(mapping));
    }
    let text = std::fs::read_to_string(name).with_context(|| {
        format!("the mapping {name} is neither a shipped one nor a file that can be read")
    })?;
    Ok(Some(producer::Mapping::read(&text, name)))
}
