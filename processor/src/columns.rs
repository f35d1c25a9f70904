//! The columns of a job's sources: from the registry, or, for a query over another's results, from that query.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use engine::plan::{Settings, plan};
use engine::sql::{JobError, Script, Source};
use schemas::EmbeddedRegistry;
use schemas::decode::BatchDecoder;

/// The namespace of schemas that are derived from queries.
pub const NAMESPACE: &str = "headway.job";

/// What is known of a source.
#[derive(Clone, Debug)]
pub struct SourceColumns {
    /// Its Avro schema; `None` if the job itself declares its columns.
    pub text: Option<String>,
    /// The columns that its values are decoded to.
    pub columns: SchemaRef,
}

/// Each source's columns by its name; `find` asks the registry for a topic's schema. A source that is not among them has
/// no schema yet. What can't be used as columns comes back as errors.
///
/// # Errors
/// Those of `find`.
pub fn of_sources<E>(
    script: &Script,
    settings: &Settings,
    find: &mut dyn FnMut(&str) -> Result<Option<String>, E>,
) -> Result<(BTreeMap<String, SourceColumns>, Vec<JobError>), E> {
    let mut found = BTreeMap::new();
    let mut errors = Vec::new();
    let mut add = |source: &Source, text: String, found: &mut BTreeMap<_, _>| match decoded(&text) {
        Ok(columns) => {
            let text = Some(text);
            found.insert(source.name.clone(), SourceColumns { text, columns });
        }
        Err(detail) => errors.push(unusable(source, &detail)),
    };
    for source in script.sources.values() {
        if let Some(declared) = &source.columns {
            let columns = Arc::clone(declared);
            let known = SourceColumns {
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

/// The schema of a query's results; `None` if it can't be planned, which the planner reports by itself.
fn derived(
    script: &Script,
    place: usize,
    settings: &Settings,
    known: &BTreeMap<String, SourceColumns>,
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

fn unusable(source: &Source, detail: &str) -> JobError {
    JobError {
        at: source.at,
        what: format!(
            "the columns of the topic {} are not known: {detail}",
            source.topic
        ),
        help: Some("register a schema that is a record of types that have columns".into()),
    }
}
