//! What the sink counts.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    exponential_buckets,
};

/// The sink's metrics. Labels are topics, partitions, and words of this program: bounded.
#[derive(Debug)]
pub struct Metrics {
    /// Rows written and committed, by topic.
    pub rows: IntCounterVec,
    /// Dead letters sent and committed, by topic and reason.
    pub dead_letters: IntCounterVec,
    /// Parquet files written and committed, by topic.
    pub files: IntCounterVec,
    /// Their bytes, by topic.
    pub file_bytes: IntCounterVec,
    /// Flushes committed, by topic and cause.
    pub flushes: IntCounterVec,
    /// Seconds from a flush's plan to its end, committed.
    pub flush_seconds: Histogram,
    /// Rows of which the reader's schema left out a field, by topic.
    pub unknown_field_rows: IntCounterVec,
    /// Puts that failed and were tried again.
    pub upload_retries: IntCounter,
    /// Objects that could not be put yet and are tried again: above 0 for long, the store needs somebody.
    pub uploads_waiting: IntGauge,
    /// Objects that were there already, put by an earlier try or an earlier owner.
    pub objects_present: IntCounter,
    /// Times that the sink left its group and joined again.
    pub rejoins: IntCounter,
    /// Bytes of rows in memory.
    pub memory_bytes: IntGauge,
    /// Records between the committed offset and the end, by topic and partition.
    pub lag_records: IntGaugeVec,
    /// Records between the start of the log and the committed offset, by topic and partition: when it comes to 0 with a
    /// lag beside it, retention overtakes the sink.
    pub headroom_records: IntGaugeVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When the registry has metrics of these names already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters =
            |name: &str, help: &str, labels: &[&str]| -> Result<IntCounterVec, prometheus::Error> {
                let counters = IntCounterVec::new(Opts::new(name, help), labels)?;
                registry.register(Box::new(counters.clone()))?;
                Ok(counters)
            };
        let gauges = |name: &str, help: &str| -> Result<IntGaugeVec, prometheus::Error> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), &["topic", "partition"])?;
            registry.register(Box::new(gauges.clone()))?;
            Ok(gauges)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, prometheus::Error> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok(counter)
        };
        let flush_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "headway_sink_s3_flush_seconds",
                "Seconds from a flush's plan to its end, committed.",
            )
            .buckets(exponential_buckets(0.01, 2.0, 15)?),
        )?;
        registry.register(Box::new(flush_seconds.clone()))?;
        let memory_bytes =
            IntGauge::new("headway_sink_s3_memory_bytes", "Bytes of rows in memory.")?;
        registry.register(Box::new(memory_bytes.clone()))?;
        let uploads_waiting = IntGauge::new(
            "headway_sink_s3_uploads_waiting",
            "Objects that could not be put yet and are tried again.",
        )?;
        registry.register(Box::new(uploads_waiting.clone()))?;
        Ok(Self {
            rows: counters(
                "headway_sink_s3_rows_total",
                "Rows written and committed.",
                &["topic"],
            )?,
            dead_letters: counters(
                "headway_sink_s3_dead_letters_total",
                "Dead letters sent and committed.",
                &["topic", "reason"],
            )?,
            files: counters(
                "headway_sink_s3_files_total",
                "Parquet files written and committed.",
                &["topic"],
            )?,
            file_bytes: counters(
                "headway_sink_s3_file_bytes_total",
                "Bytes of the Parquet files written.",
                &["topic"],
            )?,
            flushes: counters(
                "headway_sink_s3_flushes_total",
                "Flushes committed, by cause.",
                &["topic", "cause"],
            )?,
            flush_seconds,
            unknown_field_rows: counters(
                "headway_sink_s3_unknown_field_rows_total",
                "Rows of which the reader's schema left out a field.",
                &["topic"],
            )?,
            upload_retries: counter(
                "headway_sink_s3_upload_retries_total",
                "Puts that failed and were tried again.",
            )?,
            uploads_waiting,
            objects_present: counter(
                "headway_sink_s3_objects_present_total",
                "Objects that were there already when they were put.",
            )?,
            rejoins: counter(
                "headway_sink_s3_rejoins_total",
                "Times that the sink left its group and joined it again.",
            )?,
            memory_bytes,
            lag_records: gauges(
                "headway_sink_s3_lag_records",
                "Records between the committed offset and the end of the log.",
            )?,
            headroom_records: gauges(
                "headway_sink_s3_retention_headroom_records",
                "Records between the start of the log and the committed offset.",
            )?,
        })
    }
}
