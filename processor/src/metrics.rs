//! The processor's metrics: every name in one place.

use prometheus::{
    Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// What the processor counts.
#[derive(Debug)]
pub struct Metrics {
    /// Records read from sources.
    pub records_in: IntCounter,
    /// Records read from partials topics.
    pub partials_in: IntCounter,
    /// Bytes of partial rows written, compressed.
    pub partial_bytes: IntCounter,
    /// Result rows written.
    pub results_out: IntCounter,
    /// Row × window pairs that were late.
    pub late_rows: IntCounter,
    /// How long a transaction's commit took, from its flush to the broker's answer.
    pub commit_seconds: Histogram,
    /// Transactions rolled back.
    pub aborts: IntCounter,
    /// Sessions given up and begun again.
    pub sessions: IntCounter,
    /// Source partitions that wait for slower ones.
    pub paused_partitions: IntGauge,
    /// Snapshots of shards committed.
    pub snapshots: IntCounter,
    /// Bytes of snapshots written, compressed.
    pub snapshot_bytes: IntCounter,
    /// Bytes of state in memory.
    pub state_memory_bytes: IntGauge,
    /// Bytes of state on local disk.
    pub state_disk_bytes: IntGauge,
    /// How far the state of this process's shards is restored: the least share, from 0 to 1.
    pub restored_ratio: Gauge,
    /// How long restoring will take, by what it has taken so far.
    pub restore_eta_seconds: Gauge,
    /// By how much event time this process's shards are behind the application that they take over.
    pub takeover_behind_seconds: Gauge,
    /// Rows of each reference table, by its name.
    pub table_rows: IntGaugeVec,
    /// Records read for each reference table that is a topic.
    pub table_records: IntCounterVec,
    /// Those of them that could not be used.
    pub table_unusable: IntCounterVec,
    /// How often such a topic had to be read again from its start.
    pub table_sessions: IntCounterVec,
}

impl Metrics {
    /// The metrics, registered.
    ///
    /// # Errors
    /// If one of the names is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::with_opts(Opts::new(name, help))?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let by_table = |name: &str, help: &str| {
            let counter = IntCounterVec::new(Opts::new(name, help), &["table"])?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        let table_rows = IntGaugeVec::new(
            Opts::new(
                "headway_processor_table_rows",
                "Rows of each reference table",
            ),
            &["table"],
        )?;
        registry.register(Box::new(table_rows.clone()))?;
        let commit_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "headway_processor_commit_seconds",
                "How long a transaction's commit took",
            )
            .buckets(prometheus::exponential_buckets(0.002, 2.0, 12)?),
        )?;
        registry.register(Box::new(commit_seconds.clone()))?;
        let int_gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let gauge = |name: &str, help: &str| {
            let gauge = Gauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        Ok(Self {
            snapshots: counter(
                "headway_processor_snapshots_total",
                "Snapshots of shards committed",
            )?,
            snapshot_bytes: counter(
                "headway_processor_snapshot_bytes_total",
                "Bytes of snapshots written",
            )?,
            restored_ratio: gauge(
                "headway_processor_restored_ratio",
                "How far the state of this process's shards is restored: the least share",
            )?,
            restore_eta_seconds: gauge(
                "headway_processor_restore_eta_seconds",
                "How long restoring will go on, by what it has taken so far",
            )?,
            takeover_behind_seconds: gauge(
                "headway_processor_takeover_behind_seconds",
                "By how much event time shards are behind the application that is taken over",
            )?,
            paused_partitions: int_gauge(
                "headway_processor_paused_partitions",
                "Source partitions that are paused until slower ones have caught up (max_drift)",
            )?,
            state_memory_bytes: int_gauge(
                "headway_processor_state_memory_bytes",
                "Bytes of state in memory",
            )?,
            state_disk_bytes: int_gauge(
                "headway_processor_state_disk_bytes",
                "Bytes of state on local disk",
            )?,
            table_rows,
            table_records: by_table(
                "headway_processor_table_records_total",
                "Records read for reference tables",
            )?,
            table_unusable: by_table(
                "headway_processor_table_unusable_records_total",
                "Records of reference tables that could not be used",
            )?,
            table_sessions: by_table(
                "headway_processor_table_sessions_total",
                "Times that a reference table's topic had to be read again from its start",
            )?,
            records_in: counter(
                "headway_processor_records_in_total",
                "Records read from sources",
            )?,
            partials_in: counter(
                "headway_processor_partials_in_total",
                "Records read from partials topics",
            )?,
            partial_bytes: counter(
                "headway_processor_partial_bytes_total",
                "Bytes of partial rows written",
            )?,
            results_out: counter("headway_processor_results_out_total", "Result rows written")?,
            late_rows: counter(
                "headway_processor_late_rows_total",
                "Row and window pairs that were late",
            )?,
            commit_seconds,
            aborts: counter("headway_processor_aborts_total", "Transactions rolled back")?,
            sessions: counter(
                "headway_processor_sessions_total",
                "Sessions given up and begun again",
            )?,
        })
    }
}
