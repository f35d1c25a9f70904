//! What a run is told, and what it tells.

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::{Clock, SystemClock};
use runtime::lifecycle::Lifecycle;
use runtime::log::Log;
use runtime::metrics::Metrics as EdgeMetrics;
use runtime::topics::Durability;
use schemas::Registry;

use crate::input::Source;
use crate::mapping::Mapping;
use crate::metrics::Metrics;
use crate::progress::Progress;

/// What a run is told.
pub struct Options {
    /// Where records go.
    pub log: Arc<dyn Log>,
    /// Where schemas are numbered.
    pub registry: Arc<dyn Registry>,
    /// The topic of the rows. Rows that can't be read go to the same name with `.dlq`.
    pub topic: String,
    /// What is read.
    pub inputs: Source,
    /// The id of the input set, where it is not to be derived from the files: to go on with a set to which files were
    /// added at the end.
    pub input_set: Option<String>,
    /// How columns become fields. `None`: the shipped mapping that reads exactly the columns of the first file.
    pub mapping: Option<Mapping>,
    /// The rows' Avro schema. `None`: the newest version of the subject `<topic>-value`; if it has none, the shipped
    /// schema of taxi trips.
    pub schema: Option<String>,
    /// The most rows a second. `None`: as fast as possible.
    pub rate: Option<f64>,
    /// How often rows are committed, together with the position.
    pub commit_interval: Duration,
    /// A transaction is committed at the latest with this many rows.
    pub commit_rows: u64,
    /// How long the broker lets a transaction stand open. Longer than `commit_interval`.
    pub transaction_timeout: Duration,
    /// How many brokers must have what is written: topics with less are refused.
    pub durability: Durability,
    /// How long a record may wait for its delivery, the client's own retries included.
    pub delivery_timeout: Duration,
    /// How long a record waits for others to share its batch.
    pub linger: Duration,
    /// How long failures in a row are answered by trying again.
    pub give_up_after: Duration,
    /// Says when to stop.
    pub lifecycle: Lifecycle,
    /// Counts.
    pub metrics: Metrics,
    /// Counts dead letters by reason.
    pub edge_metrics: EdgeMetrics,
    /// Shows how far the run is.
    pub progress: Arc<Progress>,
    /// Dates the records.
    pub clock: Arc<dyn Clock>,
}

impl Options {
    /// A run at full speed, committed once a second.
    pub fn new(
        log: Arc<dyn Log>,
        registry: Arc<dyn Registry>,
        topic: impl Into<String>,
        inputs: Source,
        metrics: Metrics,
        edge_metrics: EdgeMetrics,
    ) -> Self {
        Self {
            log,
            registry,
            topic: topic.into(),
            inputs,
            input_set: None,
            mapping: None,
            schema: None,
            rate: None,
            commit_interval: Duration::from_secs(1),
            commit_rows: 200_000,
            transaction_timeout: Duration::from_secs(30),
            durability: Durability::default(),
            delivery_timeout: Duration::from_secs(120),
            linger: Duration::from_millis(20),
            give_up_after: Duration::from_secs(300),
            lifecycle: Lifecycle::new(),
            metrics,
            edge_metrics,
            progress: Arc::new(Progress::default()),
            clock: Arc::new(SystemClock),
        }
    }
}

/// What a run tells. All counts but `read_now` are of the input set, over all runs, as they were committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The input set's id.
    pub input_set: String,
    /// Rows taken.
    pub read: u64,
    /// Rows that became dead letters.
    pub rejected: u64,
    /// Rows sent to the topic.
    pub delivered: u64,
    /// The same by partition.
    pub delivered_by_partition: Vec<u64>,
    /// Rows that this run took: 0 when everything had been sent before.
    pub read_now: u64,
    /// Whether every file was read to its end; otherwise the run was stopped.
    pub finished: bool,
}
