//! What a run of the sink is told.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::lifecycle::Lifecycle;
use runtime::log::{ConsumerOptions, Log, ProducerOptions};
use runtime::metrics::Metrics as EdgeMetrics;
use runtime::topics::Durability;
use schemas::Registry;

use crate::backoff::Backoff;
use crate::error::SinkError;
use crate::lake::{ERRORS, Lake};
use crate::layout::Layout;
use crate::metrics::Metrics;
use crate::progress::Progress;

/// What a run of the sink is told.
#[derive(Clone)]
pub struct Options {
    /// The log to read.
    pub log: Arc<dyn Log>,
    /// The registry of the topics' schemas.
    pub registry: Arc<dyn Registry>,
    /// The topics to write, each with its layout.
    pub topics: Vec<TopicOptions>,
    /// Where to write.
    pub lake: Lake,
    /// The consumer group, and how the sink takes part in it.
    pub consumer: ConsumerOptions,
    /// How dead letters are sent.
    pub producer: ProducerOptions,
    /// When a flush ends.
    pub flush: FlushOptions,
    /// The folder for temporary files.
    pub spill_dir: PathBuf,
    /// Pauses between attempts.
    pub backoff: Backoff,
    /// How many brokers must have what is written: topics are refused with less.
    pub durability: Durability,
    /// How long a start waits for a lake that can't be reached.
    pub start_deadline: Duration,
    /// How long a run that was told to stop waits for the lake.
    pub stop_deadline: Duration,
    /// Tells the run when to end.
    pub lifecycle: Lifecycle,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What the edges count.
    pub edge_metrics: EdgeMetrics,
    /// How far the run is.
    pub progress: Arc<Progress>,
}

/// A topic to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicOptions {
    /// Its name.
    pub name: String,
    /// The subject of its values in the registry: `<topic>-value` unless told otherwise.
    pub subject: String,
    /// Where its rows go.
    pub layout: Layout,
}

impl TopicOptions {
    /// A topic with the usual subject.
    pub fn new(name: impl Into<String>, layout: Layout) -> Self {
        let name = name.into();
        Self {
            subject: schemas::value_subject(&name),
            name,
            layout,
        }
    }
}

/// When a flush of a source partition ends: with the first of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushOptions {
    /// After about this many bytes of records.
    pub bytes: u64,
    /// After about this many records.
    pub rows: u64,
    /// This long after its first record.
    pub interval: Duration,
    /// As soon as the rows of all partitions take about this much memory, the largest flush ends.
    pub memory_bytes: usize,
    /// How many rows a row group has at most; one that is full goes to the temporary folder.
    pub row_group_rows: usize,
    /// How many objects of one flush are put at once.
    pub concurrency: usize,
}

impl Default for FlushOptions {
    fn default() -> Self {
        Self {
            bytes: 256 << 20,
            rows: 2_000_000,
            interval: Duration::from_secs(300),
            memory_bytes: 512 << 20,
            row_group_rows: 1 << 17,
            concurrency: 4,
        }
    }
}

impl Options {
    /// A run with the usual settings.
    pub fn new(
        log: Arc<dyn Log>,
        registry: Arc<dyn Registry>,
        topics: Vec<TopicOptions>,
        lake: Lake,
        group: &str,
        metrics: Arc<Metrics>,
        edge_metrics: EdgeMetrics,
    ) -> Self {
        Self {
            log,
            registry,
            topics,
            lake,
            consumer: ConsumerOptions::new(group),
            producer: ProducerOptions::idempotent(format!("{group}-dead-letters")),
            flush: FlushOptions::default(),
            spill_dir: std::env::temp_dir(),
            backoff: Backoff::default(),
            durability: Durability::default(),
            start_deadline: Duration::from_secs(30),
            stop_deadline: Duration::from_secs(30),
            lifecycle: Lifecycle::new(),
            metrics,
            edge_metrics,
            progress: Arc::new(Progress::default()),
        }
    }

    /// Waits, but not longer than until the run is told to stop.
    pub(crate) fn nap(&self, pause: Duration) {
        const SLICE: Duration = Duration::from_millis(50);
        let until = Instant::now() + pause;
        while !self.lifecycle.stopping() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(SLICE));
        }
        // who is told to stop still gives the other side a moment
        std::thread::sleep(pause.min(SLICE));
    }

    pub(crate) fn check(&self) -> Result<(), SinkError> {
        let wrong = |detail: &str| {
            Err(SinkError::Options {
                detail: detail.into(),
            })
        };
        if self.topics.is_empty() {
            return wrong("no topic is named");
        }
        for (index, topic) in self.topics.iter().enumerate() {
            if topic.name == ERRORS {
                return wrong(
                    "a topic named errors would lie in the folder of dead letters: write it under another prefix",
                );
            }
            if self.topics[..index]
                .iter()
                .any(|other| other.name == topic.name)
            {
                return wrong(&format!("topic {} is named twice", topic.name));
            }
        }
        if self.consumer.group.is_empty() {
            return wrong("the group has no name");
        }
        let FlushOptions {
            bytes,
            rows,
            interval,
            memory_bytes,
            row_group_rows,
            concurrency,
        } = self.flush;
        if bytes == 0
            || rows == 0
            || memory_bytes == 0
            || row_group_rows == 0
            || concurrency == 0
            || interval.is_zero()
        {
            return wrong(
                "a flush's bytes, rows, interval, memory, row groups and concurrency must be above 0",
            );
        }
        Ok(())
    }
}
