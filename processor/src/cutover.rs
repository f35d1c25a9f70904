//! Hands an application over to its successor (`processor cutover`): one transaction decides.
//!
//! ```text
//!   OLD runs, NEW follows it in silence        takeover, for NEW
//!   OLD's members are stopped
//!   what is left of OLD's partials is folded, its shards come to one watermark W; D = W less grace
//!   ── one transaction: OLD's record (to NEW, D, versions), all of OLD's offsets marked ──
//!   OLD refuses to start; NEW gives what ends behind D, wherever it is, whenever it starts
//! ```
//!
//! It can be run again wherever it was interrupted: before the transaction OLD can go on as well, behind it nothing is left
//! to be done.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use engine::spill::Spill;
use engine::sql::Script;
use runtime::log::{Log, LogError, Offset, TopicPartition};
use serde::Serialize;

use crate::Options;
use crate::job::{Job, JobLoadError};
use crate::offsets::{ShardState, SourceState};
use crate::record::{self, HandedOver, Kind, RecordError, TakesOver};
use crate::reset::{ResetError, none_left};
use crate::spill::DiskSpill;
use crate::status::{self, StatusError};
use crate::takeover::{self, Behind, TakeoverError};
use crate::worker::{Worker, WorkerError};

/// What is to be handed over.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cutover {
    /// The application that is handed over.
    pub from: String,
    /// Its successor.
    pub to: String,
    /// How many shards the first one has.
    pub shards: u32,
    /// What stands on the successor's record.
    pub takes_over: TakesOver,
    /// Queries of the first one that the successor does not have: they end.
    pub ending: Vec<String>,
    /// How far the successor is behind.
    pub behind: Behind,
    /// Whether it was done before, and nothing is left to be done.
    pub done: bool,
}

/// Why an application can't be handed over.
#[derive(Debug, thiserror::Error)]
pub enum CutoverError {
    /// There is no successor.
    #[error(
        "there is no application {to}: start it first with processor.takes_over = \"{from}\" (--takes-over {from}), and let it catch up"
    )]
    NoSuccessor {
        /// What is to be handed over.
        from: String,
        /// To whom.
        to: String,
    },
    /// The successor gives everything itself.
    #[error(
        "application {to} does not take over {from}{}: it gives everything itself; a successor is started with processor.takes_over = \"{from}\" from its first start on",
        match .takes_over {
            Some(other) => format!(", but {other}"),
            None => String::new(),
        }
    )]
    NotTakingOver {
        /// What is to be handed over.
        from: String,
        /// To whom.
        to: String,
        /// What that one takes over.
        takes_over: Option<String>,
    },
    /// It has not taken over its own predecessor.
    #[error(
        "application {from} has not taken over {of} yet, and gives nothing itself: hand {of} over to {from} first, or to {to} instead"
    )]
    StillFollowing {
        /// What is to be handed over.
        from: String,
        /// To whom.
        to: String,
        /// Whom it takes over.
        of: String,
    },
    /// It has not come to where its own predecessor stopped.
    #[error(
        "application {from} has read {partition} to offset {at} only, and {of}, which it took over, has given the rows up to {given}: let {from} run until it has come to there, and hand it over then"
    )]
    Behind {
        /// What is to be handed over.
        from: String,
        /// Whom it took over.
        of: String,
        /// The partition.
        partition: TopicPartition,
        /// Up to which offset it is read.
        at: Offset,
        /// Up to which offset that one has given results.
        given: Offset,
    },
    /// Its input has ended.
    #[error(
        "application {from} has come to the end of its input (--once) and closed every window: there is no window left to go on with; run {to} without processor.takes_over, into topics of its own"
    )]
    Ended {
        /// What is to be handed over.
        from: String,
        /// To whom.
        to: String,
    },
    /// A partition can't go on.
    #[error(
        "{partition} of application {from} can't go on: {problem}; see `processor offsets accept-gap`"
    )]
    Stuck {
        /// What is to be handed over.
        from: String,
        /// The partition.
        partition: String,
        /// Why.
        problem: String,
    },
    /// The job is not the one on record.
    #[error("the job of application {from} can't be loaded")]
    Job {
        /// What is to be handed over.
        from: String,
        /// Why.
        #[source]
        source: Box<JobLoadError>,
    },
    /// It could not be handed over; it can go on.
    #[error("application {from} was not handed over")]
    Worker {
        /// What is to be handed over.
        from: String,
        /// Why.
        #[source]
        source: Box<WorkerError>,
    },
    /// It has members, or the log failed.
    #[error(transparent)]
    Members(#[from] ResetError),
    /// It can't be taken over.
    #[error(transparent)]
    Takeover(#[from] TakeoverError),
    /// A record can't be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// How far they are can't be read.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// The log failed.
    #[error("application {from} can't be looked at")]
    Log {
        /// What is to be handed over.
        from: String,
        /// Why.
        #[source]
        source: LogError,
    },
}

impl Cutover {
    /// What is to be done: for the application `from`, whose job is `script`, and `to`.
    ///
    /// # Errors
    /// They do not belong together, the first one has members or can't be handed over; or the log failed. That the successor
    /// is behind is no error: see [`Cutover::behind`].
    pub fn plan(
        log: &dyn Log,
        from: &str,
        to: &str,
        script: &Script,
    ) -> Result<Self, CutoverError> {
        let old = record::read(log, from)?.ok_or_else(|| TakeoverError::Unknown {
            application_id: from.into(),
        })?;
        if old.resetting {
            return Err(CutoverError::Record(RecordError::Resetting {
                application_id: from.into(),
            }));
        }
        let done = takeover::handed_to(from, to, &old)?.is_some();
        let new = record::read(log, to)?.filter(|new| !new.resetting);
        let new = new.ok_or_else(|| CutoverError::NoSuccessor {
            from: from.into(),
            to: to.into(),
        })?;
        let other = new.takes_over.as_ref().map(|of| of.application_id.clone());
        let takes_over = new.takes_over.filter(|of| of.application_id == from);
        let takes_over = takes_over.ok_or_else(|| CutoverError::NotTakingOver {
            from: from.into(),
            to: to.into(),
            takes_over: other,
        })?;
        if let Some(of) = old.takes_over.clone().filter(|of| of.handed_over.is_none()) {
            return Err(CutoverError::StillFollowing {
                from: from.into(),
                to: to.into(),
                of: of.application_id,
            });
        }
        if !done {
            // What the job's text says of sinks counts: it may be another than at the last start.
            let mut queries = old.queries.clone();
            for query in &mut queries {
                if let Some(sink) = script.sinks.get(&query.query) {
                    query.sink = Some(sink.topic.clone());
                }
            }
            takeover::fits(&takes_over, &queries, to, &new.queries)?;
            none_left(log, from)?;
            let sources = old.queries.iter().map(|query| &*query.topic);
            let queries = old.queries.iter().filter(|query| query.state);
            let queries = queries.map(|query| &*query.query);
            fit(log, from, to, sources, queries)?;
            if let Some(before) = &old.takes_over {
                come_to(log, from, before)?;
            }
        }
        let is_taken = |name: &str| takes_over.queries.iter().any(|of| of.query == name);
        let ending = old.queries.iter().map(|query| query.query.clone());
        Ok(Self {
            ending: ending.filter(|query| !is_taken(query)).collect(),
            behind: takeover::behind(log, to, &takes_over)?,
            from: from.into(),
            to: to.into(),
            shards: old.shards,
            takes_over,
            done,
        })
    }

    /// Does it; `options` are those of the application that is handed over, with its job.
    ///
    /// # Errors
    /// Somebody has joined meanwhile, or the log failed: nothing is decided then, and it can be run again.
    pub fn run(&self, options: &Options) -> Result<HandedOver, CutoverError> {
        let job = Job::load(options.log.as_ref(), &options.registry, options.job.clone());
        let job = match job {
            Ok(job) => Arc::new(job),
            // It was decided meanwhile, perhaps by this very command.
            Err(JobLoadError::Record(RecordError::HandedOver { to, .. })) if to == self.to => {
                let known = record::read(options.log.as_ref(), &self.from)?;
                let known = known.map(|known| takeover::handed_to(&self.from, &self.to, &known));
                let unknown = || TakeoverError::Unknown {
                    application_id: self.from.clone(),
                };
                return Ok(known.transpose()?.flatten().ok_or_else(unknown)?);
            }
            Err(source) => {
                return Err(CutoverError::Job {
                    from: self.from.clone(),
                    source: Box::new(source),
                });
            }
        };
        let spill: Arc<dyn Spill> = Arc::new(DiskSpill::new(
            options.spill_dir.clone(),
            options.state_memory_bytes,
            options.metrics.state_memory_bytes.clone(),
            options.metrics.state_disk_bytes.clone(),
        ));
        let worker = Worker {
            job,
            log: Arc::clone(&options.log),
            registry: Arc::clone(&options.registry),
            slot: "cutover".into(),
            options: options.worker.clone(),
            lifecycle: options.lifecycle.clone(),
            abandon: Arc::new(AtomicBool::new(false)),
            clock: Arc::clone(&options.clock),
            metrics: Arc::clone(&options.metrics),
            edge_metrics: options.edge_metrics.clone(),
            progress: Arc::clone(&options.progress),
            ready: options.ready.clone(),
            spill,
            spill_dir: options.spill_dir.clone(),
        };
        worker
            .hand_over(&self.to)
            .map_err(|source| CutoverError::Worker {
                from: self.from.clone(),
                source: Box::new(source),
            })
    }
}

/// Fails if an application has not read yet what the one before it gave results of, row by row: its offsets do not say yet
/// what was given.
fn come_to(log: &dyn Log, from: &str, before: &TakesOver) -> Result<(), CutoverError> {
    let handed_over = before.handed_over.iter();
    for source in handed_over.flat_map(|handed_over| &handed_over.sources) {
        let mut queries = before.queries.iter();
        if !queries.any(|of| of.kind == Kind::Rows && of.topic == source.topic) {
            continue;
        }
        let partitions: Vec<_> = (0..)
            .zip(&source.offsets)
            .map(|(partition, _)| TopicPartition::new(source.topic.as_str(), partition))
            .collect();
        let committed = log
            .committed(from, &partitions)
            .map_err(|source| CutoverError::Log {
                from: from.into(),
                source,
            })?;
        for ((partition, given), committed) in
            partitions.into_iter().zip(&source.offsets).zip(committed)
        {
            let at = committed.map_or(0, |committed| committed.offset);
            if at < *given {
                return Err(CutoverError::Behind {
                    from: from.into(),
                    of: before.application_id.clone(),
                    partition,
                    at,
                    given: *given,
                });
            }
        }
    }
    Ok(())
}

/// Fails if the application can't be handed over as it stands committed.
fn fit<'a>(
    log: &dyn Log,
    from: &str,
    to: &str,
    sources: impl Iterator<Item = &'a str>,
    queries: impl Iterator<Item = &'a str>,
) -> Result<(), CutoverError> {
    let mut topics: Vec<&str> = sources.collect();
    topics.sort_unstable();
    topics.dedup();
    let status = status::read(log, from, topics, queries)?;
    let sources = status.sources.iter().map(|of| {
        let ended = of
            .place
            .state
            .as_ref()
            .is_some_and(|state: &SourceState| state.ended);
        (&of.topic, of.place.partition, &of.place.problem, ended)
    });
    let shards = status.shards.iter().map(|of| {
        let ended = of
            .place
            .state
            .as_ref()
            .is_some_and(|state: &ShardState| state.ended);
        (&of.topic, of.place.partition, &of.place.problem, ended)
    });
    for (topic, partition, problem, ended) in sources.chain(shards) {
        if let Some(problem) = problem {
            return Err(CutoverError::Stuck {
                from: from.into(),
                partition: format!("{topic}-{partition}"),
                problem: problem.clone(),
            });
        }
        if ended {
            return Err(CutoverError::Ended {
                from: from.into(),
                to: to.into(),
            });
        }
    }
    Ok(())
}
