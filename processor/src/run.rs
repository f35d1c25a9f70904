//! Runs a job's workers and the readers of its reference tables, each on a thread of its own.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use engine::spill::Spill;
use runtime::clock::Clock;
use runtime::lifecycle::{Lifecycle, Phase};
use runtime::log::Log;
use runtime::telemetry::Condition;
use schemas::Registry;

use crate::job::{Job, JobLoadError, JobOptions};
use crate::metrics::Metrics;
use crate::progress::Progress;
use crate::spill::DiskSpill;
use crate::tables::Readers;
use crate::takeover::{Standing, TakeoverError};
use crate::worker::{Worker, WorkerError, WorkerOptions};

/// What a processor is made from.
#[derive(Clone)]
pub struct Options {
    /// The job.
    pub job: JobOptions,
    /// How many workers this process has.
    pub workers: u32,
    /// This process's name among those of the application, the same after a restart: its workers' transactional ids
    /// begin with it, so that a restarted process fences what is left of its predecessor.
    pub instance: String,
    /// How each worker works.
    pub worker: WorkerOptions,
    /// Where to read and write.
    pub log: Arc<dyn Log>,
    /// Where schemas are.
    pub registry: Arc<dyn Registry>,
    /// When to end.
    pub lifecycle: Lifecycle,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What is counted of dead letters.
    pub edge_metrics: runtime::metrics::Metrics,
    /// What can be looked at.
    pub progress: Arc<Progress>,
    /// Holds while no state is being restored.
    pub ready: Condition,
    /// How many bytes of state this process holds in memory; more goes to disk.
    pub state_memory_bytes: usize,
    /// The folder for what goes to disk.
    pub spill_dir: PathBuf,
    /// Holds when the reference tables have been read.
    pub tables_ready: Condition,
}

/// Why a processor stopped.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// The job can't run.
    #[error(transparent)]
    Job(#[from] JobLoadError),
    /// It would wait for another application.
    #[error(
        "application {application_id} can't come to the end of its input while {of} gives the results: hand that one over first (`processor cutover`), or run without --once"
    )]
    StillFollowing {
        /// The application.
        application_id: String,
        /// The application that it takes over.
        of: String,
    },
    /// The application that it takes over can't be looked at.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// A worker failed.
    #[error("worker {slot} stopped")]
    Worker {
        /// Which.
        slot: String,
        /// Why.
        #[source]
        source: Box<WorkerError>,
    },
    /// A reference table's topic is refused.
    #[error("the reference table {table} can't be read")]
    Table {
        /// Which.
        table: String,
        /// Why.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A worker's thread could not be started, or panicked.
    #[error("worker {slot} could not be run: {detail}")]
    Thread {
        /// Which.
        slot: String,
        /// Why.
        detail: String,
    },
}

/// Loads the job, reads its reference tables, and runs its workers until the lifecycle says to end, or until the input has
/// ended if it says to drain.
///
/// # Errors
/// The first failure of a worker that a new session can't heal; the other workers then stop as well.
pub fn run(options: &Options) -> Result<(), ProcessorError> {
    let job = Arc::new(Job::load(
        options.log.as_ref(),
        &options.registry,
        options.job.clone(),
    )?);
    if let Some(predecessor) = &job.predecessor
        && options.lifecycle.phase() == Phase::Draining
        && let Standing::Running { .. } = predecessor.standing(options.log.as_ref())?
    {
        return Err(ProcessorError::StillFollowing {
            application_id: job.options.application_id.clone(),
            of: predecessor.application_id().into(),
        });
    }
    options.progress.views.run(&job, &options.log);
    let abandon = Arc::new(AtomicBool::new(false));
    let readers = Readers::start(options, &job, &abandon)?;
    let result = match all_read(options, &job, &abandon) {
        true => work(options, &job, &abandon),
        false => Ok(()),
    };
    result.and(readers.end())
}

/// Waits until all reference tables have been read once; `false` if the run is to end before.
fn all_read(options: &Options, job: &Job, abandon: &AtomicBool) -> bool {
    for (name, rows) in job.tables.now() {
        options
            .metrics
            .table_rows
            .with_label_values(&[&name])
            .set(i64::try_from(rows.rows()).unwrap_or(i64::MAX));
    }
    let show = |behind: &BTreeMap<String, f64>| {
        let least = behind.values().copied().fold(1.0, f64::min);
        let names: Vec<&str> = behind.keys().map(String::as_str).collect();
        let what = format!("reading {}", names.join(", "));
        options.tables_ready.progress(100.0 * least, what);
    };
    let give_up = || options.lifecycle.stopping() || abandon.load(Ordering::SeqCst);
    let all = job.tables.wait(&give_up, &show);
    if all {
        options.tables_ready.ready();
    }
    all
}

/// Runs the workers.
fn work(
    options: &Options,
    job: &Arc<Job>,
    abandon: &Arc<AtomicBool>,
) -> Result<(), ProcessorError> {
    let spill: Arc<dyn Spill> = Arc::new(DiskSpill::new(
        options.spill_dir.clone(),
        options.state_memory_bytes,
        options.metrics.state_memory_bytes.clone(),
        options.metrics.state_disk_bytes.clone(),
    ));
    let slots: Vec<String> = (0..options.workers.max(1))
        .map(|index| format!("{}-{index}", options.instance))
        .collect();
    // All of them before the first one runs: it alone must not make the process ready.
    slots.iter().for_each(|slot| options.progress.joins(slot));
    let mut threads = Vec::new();
    let mut result = Ok(());
    for slot in slots {
        let worker = Worker {
            job: Arc::clone(job),
            log: Arc::clone(&options.log),
            registry: Arc::clone(&options.registry),
            slot: slot.clone(),
            options: options.worker.clone(),
            lifecycle: options.lifecycle.clone(),
            abandon: Arc::clone(abandon),
            clock: Arc::clone(&options.clock),
            metrics: Arc::clone(&options.metrics),
            edge_metrics: options.edge_metrics.clone(),
            progress: Arc::clone(&options.progress),
            ready: options.ready.clone(),
            spill: Arc::clone(&spill),
            spill_dir: options.spill_dir.clone(),
        };
        let failed = Arc::clone(abandon);
        let spawned = std::thread::Builder::new()
            .name(format!("worker-{slot}"))
            .spawn(move || {
                let result = worker.run();
                if result.is_err() {
                    failed.store(true, Ordering::SeqCst);
                }
                result
            });
        match spawned {
            Ok(thread) => threads.push((slot, thread)),
            Err(error) => {
                abandon.store(true, Ordering::SeqCst);
                result = Err(ProcessorError::Thread {
                    slot,
                    detail: error.to_string(),
                });
                break;
            }
        }
    }
    for (slot, thread) in threads {
        let ended = match thread.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(source)) => Err(ProcessorError::Worker {
                slot,
                source: Box::new(source),
            }),
            Err(_) => {
                abandon.store(true, Ordering::SeqCst);
                Err(ProcessorError::Thread {
                    slot,
                    detail: "it panicked".into(),
                })
            }
        };
        result = result.and(ended);
    }
    result
}
