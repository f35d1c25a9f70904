//! An application that takes over the queries of an earlier one, which runs on beside it until it is handed over
//! (`processor cutover`).
//!
//! ```text
//!   OLD   ──gives──────────────────▶ D ┊ handed over
//!   NEW   ──folds, gives nothing──▶    ┊ gives what ends behind D ──▶
//! ```
//!
//! Until then a shard of the new one stays behind the old one: a record that would close windows behind D, the least end up
//! to which all shards of the old query have given theirs, waits. Queries belong together that have the same name.

mod behind;

use std::collections::BTreeMap;

use engine::plan::Query;
use engine::sql::Script;
use runtime::log::{Log, LogError, Offset, TopicPartition};

use crate::offsets::{self, MetadataError, ShardState, SourceState};
use crate::record::{
    self, HandedOver, HandedQuery, JobRecord, Kind, RecordError, TakenQuery, TakesOver,
};
use crate::topics;

pub use behind::{Behind, ShardBehind, behind};

/// The application that a job takes over.
#[derive(Clone, Debug)]
pub struct Predecessor {
    /// The application that takes it over.
    pub successor: String,
    /// What stands on the successor's record.
    pub takes_over: TakesOver,
    /// Its queries that are taken over, by the successor's query's place in its job.
    pub queries: BTreeMap<usize, TakenQuery>,
}

/// Why an application can't be taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// It is the application itself.
    #[error(
        "application {application_id} can't take over itself: processor.takes_over names another one"
    )]
    Itself {
        /// The application.
        application_id: String,
    },
    /// There is no such application.
    #[error(
        "there is no application {application_id} to be taken over: correct processor.takes_over, or leave it empty to give everything"
    )]
    Unknown {
        /// Its id.
        application_id: String,
    },
    /// It is another one's by now.
    #[error("application {application_id} was handed over to {to}: take over that one instead")]
    HandedToOther {
        /// Its id.
        application_id: String,
        /// Its successor.
        to: String,
    },
    /// No query has a counterpart.
    #[error(
        "no query of this job has the name of one of application {application_id} ({queries}), so that there is nothing to take over: leave processor.takes_over empty"
    )]
    Nothing {
        /// Its id.
        application_id: String,
        /// Its queries.
        queries: String,
    },
    /// A query is not what its counterpart was.
    #[error(
        "query {query} can't take over that of application {application_id}: {detail}; give it another name, so that it begins as a new query"
    )]
    Misfit {
        /// The query.
        query: String,
        /// The application that is taken over.
        application_id: String,
        /// How they differ.
        detail: String,
    },
    /// Its queries read each other's results.
    #[error(
        "application {application_id} has queries over the results of others (source {source_name} reads {topic}): such jobs can't be taken over yet, as the results of both would be read; run it without processor.takes_over, into topics of its own"
    )]
    Chained {
        /// The application.
        application_id: String,
        /// The source.
        source_name: String,
        /// Its topic.
        topic: String,
    },
    /// A source is another topic than the one that was read.
    #[error(
        "the topic {topic} was deleted and created again since application {application_id} was handed over: offsets say nothing of it"
    )]
    Source {
        /// The application that is taken over.
        application_id: String,
        /// The topic.
        topic: String,
    },
    /// What it says of a query is missing.
    #[error("application {application_id} was handed over without a word of query {query}")]
    Missing {
        /// The application that is taken over.
        application_id: String,
        /// The query.
        query: String,
    },
    /// Its metadata can't be used.
    #[error("how far application {application_id} is with {partition} can't be read")]
    Metadata {
        /// The application that is taken over.
        application_id: String,
        /// The partition.
        partition: TopicPartition,
        /// Why.
        #[source]
        source: MetadataError,
    },
    /// Its record can't be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The log failed.
    #[error("how far application {application_id} is can't be read")]
    Log {
        /// The application that is taken over.
        application_id: String,
        /// Why.
        #[source]
        source: LogError,
    },
}

/// How far the application that is taken over has given results.
#[derive(Clone, Debug)]
pub enum Standing {
    /// It may go on.
    Running {
        /// By the successor's query's place: up to which end of window all of its shards have given theirs.
        given_to: BTreeMap<usize, i64>,
        /// By partition of the sources of queries without state: up to which offset it has given their results.
        sources: BTreeMap<TopicPartition, Offset>,
    },
    /// It gives nothing more.
    HandedOver(HandedOver),
}

impl Predecessor {
    /// The application of this id, for these queries of `successor`, which must fit it.
    ///
    /// # Errors
    /// There is none, or it can't be taken over by them; or the log failed.
    pub fn open(
        log: &dyn Log,
        application_id: &str,
        successor: &str,
        queries: &[(usize, &Query)],
    ) -> Result<Self, TakeoverError> {
        if application_id == successor {
            return Err(TakeoverError::Itself {
                application_id: application_id.into(),
            });
        }
        let known = record::read(log, application_id)?.ok_or_else(|| TakeoverError::Unknown {
            application_id: application_id.into(),
        })?;
        if known.resetting {
            return Err(TakeoverError::Record(RecordError::Resetting {
                application_id: application_id.into(),
            }));
        }
        handed_to(application_id, successor, &known)?;
        let takes_over = TakesOver {
            application_id: application_id.into(),
            shards: known.shards,
            queries: pairs(application_id, &known, queries)?,
            handed_over: None,
        };
        if takes_over.queries.is_empty() {
            let names: Vec<&str> = known.queries.iter().map(|query| &*query.query).collect();
            return Err(TakeoverError::Nothing {
                application_id: application_id.into(),
                queries: names.join(", "),
            });
        }
        Ok(Self::on_record(takes_over, successor, queries))
    }

    /// The application that `successor`, of these queries, has begun to take over.
    pub fn on_record(takes_over: TakesOver, successor: &str, queries: &[(usize, &Query)]) -> Self {
        let of = |query: &Query| takes_over.queries.iter().find(|of| of.query == query.name);
        let pairs = queries
            .iter()
            .filter_map(|(place, query)| Some((*place, of(query)?.clone())));
        Self {
            queries: pairs.collect(),
            successor: successor.into(),
            takes_over,
        }
    }

    /// Its application id.
    pub fn application_id(&self) -> &str {
        &self.takes_over.application_id
    }

    /// How far it is now.
    ///
    /// # Errors
    /// The log failed; or it was handed over to another one.
    pub fn standing(&self, log: &dyn Log) -> Result<Standing, TakeoverError> {
        if let Some(handed_over) = &self.takes_over.handed_over {
            return Ok(Standing::HandedOver(handed_over.clone()));
        }
        let mut given_to = BTreeMap::new();
        let mut sources = BTreeMap::new();
        let mut handed_over = false;
        for (place, taken) in &self.queries {
            if taken.kind == Kind::Rows {
                for (partition, offset, state) in self.sources(log, &taken.topic)? {
                    handed_over |= state.handed_over;
                    sources.insert(partition, offset);
                }
                continue;
            }
            let states = self.shard_states(log, &taken.query)?;
            handed_over |= states.iter().any(|state| state.handed_over);
            let least = states.iter().map(|state| state.watermark).min().flatten();
            let ends = least.map_or(i64::MIN, |at| at.saturating_sub(taken.grace_ms));
            given_to.insert(*place, ends);
        }
        if handed_over {
            // The record was written in the same transaction; its topic may show it a moment later.
            let id = self.application_id();
            let known = record::read(log, id)?;
            let known = known.map(|known| handed_to(id, &self.successor, &known));
            if let Some(handed_over) = known.transpose()?.flatten() {
                // From now on nothing of the other application is needed any more.
                record::keep_handed_over(log, &self.successor, &handed_over)?;
                return Ok(Standing::HandedOver(handed_over));
            }
        }
        Ok(Standing::Running { given_to, sources })
    }

    /// What stands committed of each shard of a query: the beginning where nothing does.
    pub(crate) fn shard_states(
        &self,
        log: &dyn Log,
        query: &str,
    ) -> Result<Vec<ShardState>, TakeoverError> {
        let topic = topics::partials(self.application_id(), query);
        let shards = i32::try_from(self.takes_over.shards).unwrap_or(i32::MAX);
        let states = self.committed::<ShardState>(log, &topic, shards)?;
        Ok(states.into_iter().map(|(_, _, state)| state).collect())
    }

    /// What stands committed of each partition of a source: the beginning where nothing does.
    pub(crate) fn sources(
        &self,
        log: &dyn Log,
        topic: &str,
    ) -> Result<Vec<(TopicPartition, Offset, SourceState)>, TakeoverError> {
        let found = log.topic(topic).map_err(|source| self.failed(source))?;
        self.committed(log, topic, found.map_or(0, |found| found.partitions))
    }

    fn committed<T: serde::de::DeserializeOwned + Default>(
        &self,
        log: &dyn Log,
        topic: &str,
        partitions: i32,
    ) -> Result<Vec<(TopicPartition, Offset, T)>, TakeoverError> {
        let partitions: Vec<_> = (0..partitions)
            .map(|partition| TopicPartition::new(topic, partition))
            .collect();
        let committed = log
            .committed(self.application_id(), &partitions)
            .map_err(|source| self.failed(source))?;
        partitions
            .into_iter()
            .zip(committed)
            .map(|(partition, committed)| match committed {
                None => Ok((partition, 0, T::default())),
                Some(committed) => match offsets::decode(&committed.metadata) {
                    Ok(state) => Ok((partition, committed.offset, state)),
                    Err(source) => Err(TakeoverError::Metadata {
                        application_id: self.application_id().into(),
                        partition,
                        source,
                    }),
                },
            })
            .collect()
    }

    fn failed(&self, source: LogError) -> TakeoverError {
        TakeoverError::Log {
            application_id: self.application_id().into(),
            source,
        }
    }

    /// What was handed over of the query that the one at this place takes over; `None` if it takes none over.
    ///
    /// # Errors
    /// Nothing was said of it.
    pub fn handed<'a>(
        &self,
        place: usize,
        handed_over: &'a HandedOver,
    ) -> Result<Option<&'a HandedQuery>, TakeoverError> {
        let Some(taken) = self.queries.get(&place) else {
            return Ok(None);
        };
        let mut queries = handed_over.queries.iter();
        let found = queries.find(|query| query.query == taken.query);
        found.map(Some).ok_or_else(|| TakeoverError::Missing {
            application_id: self.application_id().into(),
            query: taken.query.clone(),
        })
    }
}

impl TakeoverError {
    /// The log's failure, if that is what it is.
    pub fn log(&self) -> Option<&LogError> {
        match self {
            Self::Log { source, .. } | Self::Record(RecordError::Log { source, .. }) => {
                Some(source)
            }
            _ => None,
        }
    }
}

/// Fails if queries of a job read the results of others.
///
/// # Errors
/// [`TakeoverError::Chained`].
pub fn unchained(application_id: &str, script: &Script) -> Result<(), TakeoverError> {
    let mut sources = script.sources.values();
    match sources.find(|source| script.feeding(&source.name).next().is_some()) {
        None => Ok(()),
        Some(source) => Err(TakeoverError::Chained {
            application_id: application_id.into(),
            source_name: source.name.clone(),
            topic: source.topic.clone(),
        }),
    }
}

/// That it was handed over to `successor`; `None` if to nobody yet.
pub(crate) fn handed_to(
    application_id: &str,
    successor: &str,
    known: &JobRecord,
) -> Result<Option<HandedOver>, TakeoverError> {
    match &known.handed_over {
        Some(handed_over) if handed_over.to != successor => Err(TakeoverError::HandedToOther {
            application_id: application_id.into(),
            to: handed_over.to.clone(),
        }),
        handed_over => Ok(handed_over.clone()),
    }
}

/// The queries that have a counterpart of their name, which must be of their kind and source.
fn pairs(
    application_id: &str,
    known: &JobRecord,
    queries: &[(usize, &Query)],
) -> Result<Vec<TakenQuery>, TakeoverError> {
    let mut pairs = Vec::new();
    for (_, query) in queries {
        let Some(was) = known.queries.iter().find(|was| was.query == query.name) else {
            continue;
        };
        let misfit = |detail: String| TakeoverError::Misfit {
            query: query.name.clone(),
            application_id: application_id.into(),
            detail,
        };
        let (kind, is) = (Kind::on_record(was), Kind::of(query.window));
        if kind != is {
            let (was, is) = (kind.words(), is.words());
            return Err(misfit(format!("that one gives {was}, this one {is}")));
        }
        if was.topic != query.source.topic {
            return Err(misfit(format!(
                "that one reads {}, this one {}",
                was.topic, query.source.topic
            )));
        }
        let grace = record::value(&was.text, "grace");
        let grace = grace.and_then(|text| text.strip_suffix(" ms")?.parse().ok());
        let grace_ms = match (kind, grace) {
            (_, Some(grace)) => grace,
            (Kind::Windows, None) => {
                return Err(misfit("its record does not say its grace".into()));
            }
            (Kind::Groups | Kind::Rows, None) => 0,
        };
        pairs.push(TakenQuery {
            query: was.query.clone(),
            topic: was.topic.clone(),
            kind,
            grace_ms,
            same_groups: record::same_groups(&was.text, &query.fingerprint),
        });
    }
    Ok(pairs)
}
