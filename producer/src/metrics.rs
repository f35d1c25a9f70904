//! The producer's metrics.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntGauge, Registry};

/// What the producer counts. Counters count what this process did, aborted transactions excluded.
#[derive(Clone)]
pub struct Metrics {
    /// Rows taken from the input.
    pub rows_read: IntCounter,
    /// Rows sent to the topic.
    pub rows_delivered: IntCounter,
    /// Rows that became dead letters; `headway_dead_letters_total` has them by reason.
    pub rows_rejected: IntCounter,
    /// Bytes of input taken.
    pub bytes_read: IntCounter,
    /// Transactions committed.
    pub commits: IntCounter,
    /// Transactions aborted.
    pub aborts: IntCounter,
    /// Producers built anew after a commit of unknown outcome.
    pub restarts: IntCounter,
    /// How long flush and commit take.
    pub commit_seconds: Histogram,
    /// What the read buffer takes.
    pub buffer_bytes: IntGauge,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered there already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let commit_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "producer_commit_seconds",
                "How long flushing and committing a transaction takes.",
            )
            .buckets(vec![
                0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
            ]),
        )?;
        registry.register(Box::new(commit_seconds.clone()))?;
        let buffer_bytes = IntGauge::new("producer_buffer_bytes", "What the read buffer takes.")?;
        registry.register(Box::new(buffer_bytes.clone()))?;
        Ok(Self {
            rows_read: counter(
                "producer_rows_read_total",
                "Rows taken from the input and committed.",
            )?,
            rows_delivered: counter(
                "producer_rows_delivered_total",
                "Rows sent to the topic and committed.",
            )?,
            rows_rejected: counter(
                "producer_rows_rejected_total",
                "Rows that became dead letters, committed.",
            )?,
            bytes_read: counter(
                "producer_bytes_read_total",
                "Bytes of input taken and committed.",
            )?,
            commits: counter("producer_commits_total", "Transactions committed.")?,
            aborts: counter("producer_aborts_total", "Transactions aborted.")?,
            restarts: counter(
                "producer_restarts_total",
                "Producers built anew after an unknown outcome.",
            )?,
            commit_seconds,
            buffer_bytes,
        })
    }
}
