//! A job, ready to run: its text parsed, planned against the registry's schemas, and its topics' names worked out.

mod error;
mod query;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use engine::plan::{Query, RECORD_TIME, Settings};
use engine::sql::{Insert, Script};
use engine::window::Window;
use runtime::dead_letter::dlq_topic;
use runtime::log::Log;
use runtime::topics::{Durability, Use, Wanted, check};
use schemas::{Registry, SchemaId};

use crate::columns;
use crate::format::Format;
use crate::offsets;
use crate::record::{self, JobRecord};
use crate::tables::{self, ReferenceTables};
use crate::takeover::{self, Predecessor};
use crate::topics::{self, TopicError};
pub use error::JobLoadError;

/// What a job is made from.
#[derive(Clone)]
pub struct JobOptions {
    /// The SQL text.
    pub sql: String,
    /// Where the paths of its reference tables begin: the folder of its file. Empty: where this process runs.
    pub folder: PathBuf,
    /// The name of the job's consumer group, and the first part of its topics' names.
    pub application_id: String,
    /// How many shards each query's state has. Fixed when the job first runs.
    pub shards: u32,
    /// The secret that masked coordinates are moved by.
    pub mask_salt: Vec<u8>,
    /// How many brokers must have what is written: topics are created so, and refused with less.
    pub durability: Durability,
    /// The newest version of what is on the log that is read: [`crate::format::NEWEST`], or less where a member is to be as one of
    /// the release before.
    pub newest_format: u32,
    /// The application whose queries this one takes over (see [`crate::takeover`]); `None`: none, unless it has begun so.
    pub takes_over: Option<String>,
}

/// A job, planned.
pub struct Job {
    /// Its options.
    pub options: JobOptions,
    /// Its sources by topic.
    pub sources: BTreeMap<String, SourceTopic>,
    /// Its queries, in the order of its text.
    pub queries: Vec<Arc<JobQuery>>,
    /// Its reference tables: those that are files are loaded.
    pub tables: Arc<ReferenceTables>,
    /// The version that it is written in.
    pub format: Format,
    /// The application that it takes over.
    pub predecessor: Option<Predecessor>,
}

/// A topic that a job reads.
pub struct SourceTopic {
    /// Its name.
    pub topic: String,
    /// Its id.
    pub topic_id: String,
    /// What its values are read as: only the columns that some query needs.
    pub reader: Reader,
    /// Which queries read it, by their place in [`Job::queries`].
    pub queries: Vec<usize>,
    /// Whether queries of this job write it.
    pub is_fed: bool,
    /// Those queries, if all of them have windows: event time is then as far as their shards' watermarks. Empty otherwise,
    /// and where event time is when the record was written.
    pub fed_by: Vec<usize>,
    /// Whether such a query takes one of an earlier application over, and so writes nothing before that is handed over.
    pub is_taken_over: bool,
}

/// What a topic's values are read as.
#[derive(Clone, Debug)]
pub enum Reader {
    /// As Avro, with this schema.
    Avro(String),
    /// As JSON, with these columns.
    Json(SchemaRef),
}

/// A query, with all that is needed to run it.
pub struct JobQuery {
    /// The plan.
    pub plan: Arc<Query>,
    /// The fingerprint, hashed: the plan's and the number of shards.
    pub fingerprint: u64,
    /// The topics of its state; `None` if it has none, because each row gives a result.
    pub folded: Option<Folded>,
    /// Its results' Avro schema.
    pub output_schema: String,
    /// Its results' schema number.
    pub output_schema_id: SchemaId,
    /// The newest version of its partials and snapshots that is read.
    pub newest_format: u32,
}

/// The topics between a query's scan and its results.
#[derive(Clone, Debug)]
pub struct Folded {
    /// Where its partial rows go.
    pub partials_topic: String,
    /// That topic's id.
    pub partials_topic_id: String,
    /// Where snapshots of its state go.
    pub state_topic: String,
    /// Where its late rows are reported.
    pub late_topic: String,
}

impl Job {
    /// Parses and plans a job, registers its results' schemas, and creates the topics that are its own. The source
    /// topics and their schemas must be there.
    pub fn load(
        log: &dyn Log,
        registry: &Arc<dyn Registry>,
        options: JobOptions,
    ) -> Result<Self, JobLoadError> {
        let script = engine::sql::parse(&options.sql).map_err(JobLoadError::Sql)?;
        let settings = Settings {
            mask_salt: options.mask_salt.clone(),
        };
        let (sources_columns, errors) =
            columns::of_job(&script, &options.folder, &settings, &mut |topic| {
                source_schema(registry.as_ref(), topic)
            })?;
        if !errors.is_empty() {
            return Err(JobLoadError::Sql(errors));
        }
        for source in script.sources.values() {
            let fed = script.feeding(&source.name).next().is_some();
            if !fed && !sources_columns.contains_key(&source.name) {
                return Err(JobLoadError::NoSchema {
                    topic: source.topic.clone(),
                });
            }
        }
        let arrow_schemas: BTreeMap<String, SchemaRef> = sources_columns
            .iter()
            .map(|(name, source)| (name.clone(), Arc::clone(&source.columns)))
            .collect();
        let plans =
            engine::plan::plan(&script, &arrow_schemas, &settings).map_err(JobLoadError::Sql)?;

        let (record, predecessor) = record_of(log, &options, &plans)?;
        let most = offsets::most_queries(predecessor.is_some());
        for plan in &plans {
            let topic = &plan.source.topic;
            let queries = plans.iter().filter(|plan| plan.source.topic == *topic);
            let queries = queries.count();
            if queries > most {
                return Err(JobLoadError::TooManyQueries {
                    topic: topic.clone(),
                    queries,
                    most,
                });
            }
        }
        let tables = tables::open(log, &script, &plans, &sources_columns, &options)?;

        let mut sources: BTreeMap<String, SourceTopic> = BTreeMap::new();
        let mut columns: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut texts: BTreeMap<String, String> = BTreeMap::new();
        let mut queries: Vec<Option<Arc<JobQuery>>> = vec![None; plans.len()];
        let mut plans: Vec<Option<Query>> = plans.into_iter().map(Some).collect();
        // A topic that another query writes is there once that one is prepared.
        for index in script.in_order() {
            let Some(plan) = plans.get_mut(index).and_then(Option::take) else {
                continue;
            };
            let topic = plan.source.topic.clone();
            let read = plan.input.fields().iter().map(|field| field.name());
            let of_values = read.filter(|name| !(plan.reads_record_time && *name == RECORD_TIME));
            columns
                .entry(topic.clone())
                .or_default()
                .extend(of_values.cloned());
            let known = sources_columns.get(&plan.source.name);
            if let Some(text) = known.and_then(|source| source.text.clone()) {
                texts.insert(topic.clone(), text);
            }
            if !sources.contains_key(&topic) {
                let found = topics::existing_source(log, &topic)?;
                check(&found, Use::Records, options.durability).map_err(TopicError::from)?;
                sources.insert(
                    topic.clone(),
                    SourceTopic {
                        topic: topic.clone(),
                        topic_id: found.id,
                        reader: Reader::Avro(String::new()),
                        queries: vec![],
                        is_fed: script.feeding(&plan.source.name).next().is_some(),
                        // Their watermarks say nothing about when their results were written.
                        fed_by: match plan.is_by_record_time() {
                            true => vec![],
                            false => fed_by(&script, &plan.source.name),
                        },
                        is_taken_over: predecessor.as_ref().is_some_and(|of| {
                            let mut feeding = script.feeding(&plan.source.name);
                            feeding.any(|(place, _)| of.queries.contains_key(&place))
                        }),
                    },
                );
            }
            if let Some(source) = sources.get_mut(&topic) {
                source.queries.push(index);
                source.queries.sort_unstable();
            }
            queries[index] = Some(Arc::new(JobQuery::prepare(log, registry, &options, plan)?));
        }
        let queries: Vec<Arc<JobQuery>> = queries.into_iter().flatten().collect();
        for (topic, source) in &mut sources {
            let wanted: Vec<&str> = columns
                .get(topic)
                .into_iter()
                .flatten()
                .map(String::as_str)
                .collect();
            let unusable = |detail: String| JobLoadError::Schema {
                topic: topic.clone(),
                detail,
            };
            let first = source.queries.first().map(|index| &queries[*index].plan);
            let declared = first.and_then(|plan| plan.source.columns.as_ref());
            source.reader = Reader::of(texts.get(topic), declared, &wanted).map_err(unusable)?;
        }
        ensure_fitting(
            log,
            topics::job_wanted(&options.application_id),
            options.durability,
        )?;
        let fingerprints: BTreeMap<&str, u64> = queries
            .iter()
            .filter(|query| query.folded.is_some())
            .map(|query| (query.plan.name.as_str(), query.fingerprint))
            .collect();
        let written = record::keep(log, &options.application_id, &record, &fingerprints)?;
        Ok(Self {
            format: Format::new(options.newest_format, written),
            options,
            sources,
            queries,
            tables: Arc::new(tables),
            predecessor,
        })
    }

    /// Every topic that the job's workers write to.
    pub fn written_topics(&self) -> Vec<String> {
        let dead_letters = self.sources.keys().map(|source| dlq_topic(source));
        self.queries
            .iter()
            .flat_map(|query| {
                let folded = query.folded.iter().flat_map(|folded| {
                    [
                        folded.partials_topic.clone(),
                        folded.state_topic.clone(),
                        folded.late_topic.clone(),
                    ]
                });
                folded.chain([query.plan.sink.topic.clone()])
            })
            .chain(dead_letters)
            .collect()
    }

    /// Every topic that the job's workers read: the sources and the partials.
    pub fn subscription(&self) -> Vec<&str> {
        let partials = self
            .queries
            .iter()
            .filter_map(|query| Some(query.folded.as_ref()?.partials_topic.as_str()));
        self.sources
            .keys()
            .map(String::as_str)
            .chain(partials)
            .collect()
    }
}

impl Reader {
    /// Of a topic whose Avro schema or declared columns are known; only the columns that are wanted are read.
    pub(crate) fn of(
        text: Option<&String>,
        declared: Option<&SchemaRef>,
        wanted: &[&str],
    ) -> Result<Self, String> {
        if let Some(text) = text {
            return schemas::projected_schema(text, wanted)
                .map(Self::Avro)
                .map_err(|error| error.to_string());
        }
        let declared = declared.ok_or("it has no columns")?;
        let wanted: Vec<usize> = (0..declared.fields().len())
            .filter(|index| wanted.contains(&declared.field(*index).name().as_str()))
            .collect();
        let columns = declared
            .project(&wanted)
            .map_err(|error| error.to_string())?;
        Ok(Self::Json(Arc::new(columns)))
    }
}

/// Creates a topic, or finds one that can be used.
fn ensure_fitting(
    log: &dyn Log,
    wanted: Wanted,
    durability: Durability,
) -> Result<String, TopicError> {
    let wanted = wanted.durable(durability);
    topics::ensure(log, &wanted.spec)?;
    let found = topics::existing_source(log, &wanted.spec.name)?;
    check(&found, wanted.role, durability)?;
    Ok(wanted.spec.name)
}

/// What the job's state depends on, which agrees with what stands on the log; and the application that it takes over.
fn record_of(
    log: &dyn Log,
    options: &JobOptions,
    plans: &[Query],
) -> Result<(JobRecord, Option<Predecessor>), JobLoadError> {
    let id = options.application_id.as_str();
    let queries: Vec<(usize, &Query)> = plans.iter().enumerate().collect();
    let record = JobRecord::new(options.shards, plans).reading_to(options.newest_format);
    let known = record::read_to(log, id, options.newest_format)?;
    let begun = known.as_ref().and_then(|known| known.takes_over.clone());
    let predecessor = match (&options.takes_over, begun) {
        (Some(from), Some(begun)) if *from == begun.application_id => {
            Some(Predecessor::on_record(begun, id, &queries))
        }
        // Who has begun to take over goes on with it, whether it is still asked to or not.
        (None, Some(begun)) => Some(Predecessor::on_record(begun, id, &queries)),
        (Some(from), _) => Some(Predecessor::open(log, from, id, &queries)?),
        (None, None) => None,
    };
    let takes_over = predecessor.as_ref().map(|of| of.takes_over.clone());
    let record = record.taking_over(takes_over);
    if let Some(known) = &known {
        record::agree(id, known, &record)?;
    }
    if let Some(predecessor) = &predecessor {
        takeover::fits_on_record(log, predecessor, &record)?;
    }
    Ok((record, predecessor))
}

fn fed_by(script: &Script, source: &str) -> Vec<usize> {
    let feeding: Vec<_> = script.feeding(source).collect();
    let windowed = |insert: &Insert| insert.window.is_some_and(Window::is_bounded);
    match feeding.iter().all(|(_, insert)| windowed(insert)) {
        true => feeding.into_iter().map(|(place, _)| place).collect(),
        false => vec![],
    }
}

fn source_schema(registry: &dyn Registry, topic: &str) -> Result<Option<String>, JobLoadError> {
    let latest = registry
        .latest(&schemas::value_subject(topic))
        .map_err(|source| JobLoadError::Registry {
            topic: topic.into(),
            source,
        })?;
    Ok(latest.map(|(_, text)| text.to_string()))
}
