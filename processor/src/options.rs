//! What runs of the processor are made from, of the configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use processor::Options;
use processor::cutover::Cutover;
use processor::job::JobOptions;
use processor::metrics::Metrics;
use processor::progress::Progress;
use processor::query::recent::RecentBounds;
use processor::worker::WorkerOptions;
use runtime::cli::Service;
use runtime::clock::SystemClock;
use runtime::config::{Config, ProcessorConfig};
use runtime::lifecycle::Lifecycle;
use runtime::log::Log;
use runtime::shutdown::on_signals;
use runtime::telemetry::Readiness;
use runtime::topics::Durability;
use schemas::Registry;

use crate::{folder, job};

/// The job of this text and file, under the configured application id.
pub(crate) fn of_job(config: &Config, sql: String, file: &Path) -> JobOptions {
    let settings = &config.processor;
    JobOptions {
        sql,
        folder: folder(file),
        application_id: settings.application_id.clone(),
        shards: settings.shards.into(),
        mask_salt: settings.mask_salt.expose().as_bytes().to_vec(),
        durability: Durability::of(&config.log),
        newest_format: processor::format::NEWEST,
        takes_over: Some(settings.takes_over.clone()).filter(|name| !name.is_empty()),
    }
}

/// How workers work; `once`: input is read to its end.
pub(crate) fn of_workers(config: &Config, once: bool) -> WorkerOptions {
    let settings = &config.processor;
    WorkerOptions {
        commit_interval: settings.commit_interval_ms.duration(),
        session_timeout: config.log.session_timeout_ms.duration(),
        successor_wait: config.log.session_timeout_ms.duration() / 4,
        transaction_timeout: config.log.transaction_timeout_ms.duration(),
        keep_partitions_on_stop: settings.keep_partitions_on_stop,
        idle_marks: !once,
        snapshot_cost: settings.snapshot_after_rows,
        recent: RecentBounds {
            rows: settings.recent_rows,
            bytes: settings.recent_bytes,
        },
        ..WorkerOptions::default()
    }
}

/// The folder for state that goes to disk.
pub(crate) fn spill_dir(settings: &ProcessorConfig) -> PathBuf {
    match settings.spill_dir.as_os_str().is_empty() {
        true => std::env::temp_dir(),
        false => settings.spill_dir.clone(),
    }
}

/// A run of an application that is handed over, whose job is in `file`: it serves nothing over HTTP.
pub(crate) fn of_predecessor(
    config: &Config,
    file: &Path,
    cutover: &Cutover,
    (log, registry): (Arc<dyn Log>, Arc<dyn Registry>),
) -> anyhow::Result<Options> {
    let metrics = prometheus::Registry::new();
    let readiness = Readiness::new();
    let lifecycle = Lifecycle::new();
    on_signals(lifecycle.clone(), || {
        eprintln!("left at once: run the command again, whatever was done");
    })?;
    Ok(Options {
        job: JobOptions {
            application_id: cutover.from.clone(),
            shards: cutover.shards,
            takes_over: None,
            ..of_job(config, job(file)?, file)
        },
        workers: 1,
        instance: "cutover".into(),
        worker: WorkerOptions {
            // It is gone when the command ends, and its members have names of their own.
            keep_partitions_on_stop: false,
            ..of_workers(config, true)
        },
        log,
        registry,
        lifecycle,
        clock: Arc::new(SystemClock),
        metrics: Arc::new(Metrics::new(&metrics)?),
        edge_metrics: runtime::metrics::Metrics::new(&metrics)?,
        progress: Arc::new(Progress::default()),
        ready: readiness.condition("state"),
        state_memory_bytes: usize::try_from(config.processor.state_memory_bytes)
            .unwrap_or(usize::MAX),
        spill_dir: spill_dir(&config.processor),
        tables_ready: readiness.condition("reference tables"),
    })
}

/// A run of the configured job, which serves what the configuration says.
pub(crate) fn of_service(
    config: &Config,
    instance: &str,
    once: bool,
    service: &Service,
    progress: Arc<Progress>,
) -> anyhow::Result<Options> {
    let settings = &config.processor;
    let sql = job(&settings.job)?;
    let ready = service.condition("state");
    let tables_ready = service.condition("reference tables");
    let (log, registry) = service.connect(config)?;
    Ok(Options {
        job: of_job(config, sql, &settings.job),
        workers: settings.workers.into(),
        instance: instance.into(),
        worker: of_workers(config, once),
        log,
        registry,
        lifecycle: Lifecycle::new(),
        clock: Arc::new(SystemClock),
        metrics: Arc::new(Metrics::new(&service.metrics)?),
        edge_metrics: service.edge_metrics.clone(),
        progress,
        ready,
        state_memory_bytes: usize::try_from(settings.state_memory_bytes).unwrap_or(usize::MAX),
        spill_dir: spill_dir(settings),
        tables_ready,
    })
}
