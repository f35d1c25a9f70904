//! All metrics of sink-opensearch.

use prometheus::{
    Error, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts,
    Registry, exponential_buckets,
};

/// The sink's metrics, registered once.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Records read, by topic.
    pub records: IntCounterVec,
    /// Documents settled, by outcome: stored, conflict (that version or a higher one was there), rejected.
    pub documents: IntCounterVec,
    /// Documents sent again after a pause, by whether the target was overloaded.
    pub retried: IntCounterVec,
    /// Calls to the target that came to nothing.
    pub failed_calls: IntCounter,
    /// How long calls to the target took.
    pub call_seconds: HistogramVec,
    /// How large bulks were.
    pub bulk_bytes: Histogram,
    /// The most bytes for the next bulk.
    pub bulk_limit_bytes: IntGauge,
    /// Documents and records in memory, in bytes.
    pub in_hand_bytes: IntGauge,
    /// 1 while partitions are paused because the target can't take more, else 0.
    pub paused: IntGauge,
    /// Commits of offsets that took effect.
    pub commits: IntCounter,
    /// How often the worker had to join its group anew.
    pub rejoins: IntCounter,
}

impl Metrics {
    /// Registers the metrics.
    pub fn new(registry: &Registry) -> Result<Self, Error> {
        let counter = |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, Error> {
            let counter =
                IntCounterVec::new(Opts::new(format!("sink_opensearch_{name}"), help), labels)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let count = |name: &str, help: &str| -> Result<IntCounter, Error> {
            let counter = IntCounter::new(format!("sink_opensearch_{name}"), help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, Error> {
            let gauge = IntGauge::new(format!("sink_opensearch_{name}"), help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let call_seconds = HistogramVec::new(
            HistogramOpts::new(
                "sink_opensearch_call_seconds",
                "How long calls to the target took, by result",
            )
            .buckets(exponential_buckets(0.001, 2.0, 16)?),
            &["result"],
        )?;
        registry.register(Box::new(call_seconds.clone()))?;
        let bulk_bytes = Histogram::with_opts(
            HistogramOpts::new("sink_opensearch_bulk_bytes", "How large bulks were")
                .buckets(exponential_buckets(1024.0, 4.0, 9)?),
        )?;
        registry.register(Box::new(bulk_bytes.clone()))?;
        Ok(Self {
            records: counter("records_total", "Records read", &["topic"])?,
            documents: counter("documents_total", "Documents settled", &["outcome"])?,
            retried: counter(
                "retried_documents_total",
                "Documents sent again after a pause",
                &["cause"],
            )?,
            failed_calls: count(
                "failed_calls_total",
                "Calls to the target that came to nothing",
            )?,
            call_seconds,
            bulk_bytes,
            bulk_limit_bytes: gauge("bulk_limit_bytes", "The most bytes for the next bulk")?,
            in_hand_bytes: gauge("in_hand_bytes", "Documents and records in memory, in bytes")?,
            paused: gauge(
                "paused",
                "1 while partitions are paused because the target can't take more",
            )?,
            commits: count("commits_total", "Commits of offsets that took effect")?,
            rejoins: count(
                "rejoins_total",
                "How often the worker had to join its group anew",
            )?,
        })
    }
}
