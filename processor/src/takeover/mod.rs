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
mod chain;
mod error;

use std::collections::BTreeMap;

use engine::plan::Query;
use runtime::log::{Log, LogError, Offset, TopicPartition};

use crate::offsets::{self, ShardState, SourceState};
use crate::record::{
    self, HandedOver, HandedQuery, JobRecord, Kind, RecordError, TakenQuery, TakesOver,
};
use crate::topics;

pub use behind::{Behind, ShardBehind, behind};
pub(crate) use chain::{fits, fits_on_record};
pub use error::TakeoverError;

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
