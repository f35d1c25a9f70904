//! The columns of a job's sources and reference tables: from the registry, from files, or, for a query over another's
//! results, from that query.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use engine::plan::{Settings, plan};
use engine::sql::{JobError, Location, Script, Source, TableOrigin};
use schemas::EmbeddedRegistry;
use schemas::decode::BatchDecoder;

use crate::tables;

/// The namespace of schemas that are derived from queries.
pub const NAMESPACE: &str = "headway.job";

/// What is known of a source or a reference table.
#[derive(Clone, Debug)]
pub struct KnownColumns {
    /// Its Avro schema; `None` if the job itself declares its columns, or a file has them.
    pub text: Option<String>,
    /// The columns that its values are decoded to.
    pub columns: SchemaRef,
}

type Known = (BTreeMap<String, KnownColumns>, Vec<JobError>);

/// The columns of each source and reference table by its name; `find` asks the registry for a topic's schema, and `folder`
/// is where the paths of files begin. What is not among them has no schema yet. What can't be used as columns comes back as
/// errors.
///
/// # Errors
/// Those of `find`.
pub fn of_job<E>(
    script: &Script,
    folder: &Path,
    settings: &Settings,
    find: &mut dyn FnMut(&str) -> Result<Option<String>, E>,
) -> Result<Known, E> {
    let (mut found, mut errors) = of_tables(script, folder, find)?;
    let mut add = |source: &Source, text: String, found: &mut BTreeMap<_, _>| match decoded(&text) {
        Ok(columns) => {
            let text = Some(text);
            found.insert(source.name.clone(), KnownColumns { text, columns });
        }
        Err(detail) => errors.push(unusable(&source.topic, source.at, &detail)),
    };
    for source in script.sources.values() {
        if let Some(declared) = &source.columns {
            let columns = Arc::clone(declared);
            let known = KnownColumns {
                text: None,
                columns,
            };
            found.insert(source.name.clone(), known);
        } else if let Some(text) = find(&source.topic)? {
            add(source, text, &mut found);
        }
    }
    // Each query stands behind those that it reads the results of.
    for place in script.in_order() {
        let insert = &script.inserts[place];
        let Some(sink) = script.sinks.get(&insert.sink) else {
            continue;
        };
        let readers: Vec<&Source> = script
            .sources
            .values()
            .filter(|source| source.topic == sink.topic && !found.contains_key(&source.name))
            .collect();
        if readers.is_empty() {
            continue;
        }
        if let Some(text) = derived(script, place, settings, &found) {
            for source in readers {
                add(source, text.clone(), &mut found);
            }
        }
    }
    Ok((found, errors))
}

/// The columns of each reference table.
fn of_tables<E>(
    script: &Script,
    folder: &Path,
    find: &mut dyn FnMut(&str) -> Result<Option<String>, E>,
) -> Result<Known, E> {
    let mut found = BTreeMap::new();
    let mut errors = Vec::new();
    for table in script.tables.values() {
        let known = match (&table.origin, &table.columns) {
            (TableOrigin::Csv(_) | TableOrigin::Parquet(_), _) => tables::columns(table, folder)
                .map(|columns| {
                    let text = None;
                    KnownColumns { text, columns }
                }),
            (TableOrigin::Topic { .. }, Some(declared)) => Ok(KnownColumns {
                text: None,
                columns: Arc::clone(declared),
            }),
            (TableOrigin::Topic { topic, .. }, None) => match find(topic)? {
                None => continue,
                Some(text) => decoded(&text)
                    .map(|columns| KnownColumns {
                        text: Some(text),
                        columns,
                    })
                    .map_err(|detail| vec![unusable(topic, table.origin_at, &detail)]),
            },
        };
        match known {
            Ok(known) => {
                found.insert(table.name.clone(), known);
            }
            Err(more) => errors.extend(more),
        }
    }
    Ok((found, errors))
}

/// The schema of a query's results; `None` if it can't be planned, which the planner reports by itself.
fn derived(
    script: &Script,
    place: usize,
    settings: &Settings,
    known: &BTreeMap<String, KnownColumns>,
) -> Option<String> {
    let mut alone = script.clone();
    alone.inserts = vec![script.inserts[place].clone()];
    let (source, sink) = (&alone.inserts[0].source, &alone.inserts[0].sink);
    alone.sources.retain(|name, _| name == source);
    alone.sinks.retain(|name, _| name == sink);
    let columns = known
        .iter()
        .map(|(name, known)| (name.clone(), Arc::clone(&known.columns)))
        .collect();
    let query = plan(&alone, &columns, settings).ok()?.pop()?;
    schemas::encode::avro_schema_for(&query.output, &query.name, NAMESPACE).ok()
}

/// The columns that a topic's values are decoded to.
fn decoded(schema: &str) -> Result<SchemaRef, String> {
    let nothing = Arc::new(EmbeddedRegistry::in_memory());
    BatchDecoder::new(nothing, schema)
        .map(|decoder| decoder.schema())
        .map_err(|error| error.to_string())
}

fn unusable(topic: &str, at: Location, detail: &str) -> JobError {
    JobError {
        at,
        what: format!("the columns of the topic {topic} are not known: {detail}"),
        help: Some("register a schema that is a record of types that have columns".into()),
    }
}
