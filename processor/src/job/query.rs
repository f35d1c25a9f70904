//! What a query needs beside its plan: its topics, and the schema of its results.

use std::sync::Arc;

use engine::partial::fingerprint_hash;
use engine::plan::Query;
use runtime::log::Log;
use runtime::topics::Wanted;
use schemas::{Registry, SchemaId};

use super::{Folded, JobLoadError, JobOptions, JobQuery, ensure_fitting};
use crate::columns;
use crate::topics::{self, QueryTopics};

impl JobQuery {
    /// A planned query, with its topics created and its results' schema registered.
    pub(super) fn prepare(
        log: &dyn Log,
        registry: &Arc<dyn Registry>,
        options: &JobOptions,
        plan: Query,
    ) -> Result<Self, JobLoadError> {
        let app = &options.application_id;
        let source = topics::existing_source(log, &plan.source.topic)?;
        let QueryTopics {
            partials,
            state,
            late,
            output,
        } = QueryTopics::new(
            app,
            &plan.name,
            &plan.sink.topic,
            options.shards,
            source.partitions,
        );
        let fitting = |wanted: Wanted| ensure_fitting(log, wanted, options.durability);
        fitting(output)?;
        let folded = match plan.window {
            None => None,
            Some(_) => {
                let sharded = |wanted: Wanted| {
                    let wanted = wanted.durable(options.durability);
                    topics::ensure_sharded(log, &wanted, options.durability)
                };
                let partials = sharded(partials)?;
                Some(Folded {
                    partials_topic: partials.name,
                    partials_topic_id: partials.id,
                    state_topic: sharded(state)?.name,
                    late_topic: fitting(late)?,
                })
            }
        };
        let (output_schema_id, output_schema) = output_schema(registry.as_ref(), &plan)?;
        Ok(Self {
            fingerprint: fingerprint_hash(&format!(
                "{}\nshards {}",
                plan.fingerprint, options.shards
            )),
            folded,
            output_schema,
            output_schema_id,
            newest_format: options.newest_format,
            plan: Arc::new(plan),
        })
    }
}

/// The schema that results are written with: the sink topic's registered one, if there is one, which they must fit;
/// otherwise one that is derived from the query and registered.
fn output_schema(
    registry: &dyn Registry,
    plan: &Query,
) -> Result<(SchemaId, String), JobLoadError> {
    let topic = &plan.sink.topic;
    let subject = schemas::value_subject(topic);
    let failed = |source| JobLoadError::Registry {
        topic: topic.clone(),
        source,
    };
    let misfit = |detail: String| JobLoadError::Output {
        query: plan.name.clone(),
        topic: topic.clone(),
        detail,
    };
    let (id, text) = match registry.latest(&subject).map_err(failed)? {
        Some((id, text)) => (id, text.to_string()),
        None => {
            let text =
                schemas::encode::avro_schema_for(&plan.output, &plan.name, columns::NAMESPACE)
                    .map_err(|error| misfit(error.to_string()))?;
            (registry.register(&subject, &text).map_err(failed)?, text)
        }
    };
    schemas::encode::BatchEncoder::new(&text, id, Arc::clone(&plan.output))
        .map_err(|error| misfit(error.to_string()))?;
    Ok((id, text))
}
