//! The indices that documents go to: made from their template before the first document, never by OpenSearch's guess.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use opensearch::http::Method;
use serde_json::Value;

use super::BulkTarget;
use super::answer::{Ignored, Mappings, Templates};
use super::compare::{lacks, listed};
use crate::document::Document;
use crate::mapping::Template;
use crate::target::TargetError;

/// How long indices may be made in one call; at least one is. A replay of years by day needs many.
const MAKING_BUDGET: Duration = Duration::from_secs(5);
/// So many names are remembered; more would be odd, and cost only a look.
const MOST_NAMES: usize = 10_000;

/// What is known of the indices.
#[derive(Default)]
pub(super) struct Indices {
    /// The templates of the topics at work.
    expected: Vec<Arc<Template>>,
    /// Those that were looked at, or made.
    ready: HashSet<Arc<str>>,
}

impl Indices {
    /// Indices of this template are to be what it says.
    pub(super) fn expect(&mut self, template: Template) {
        self.expected.retain(|other| other.name != template.name);
        self.expected.push(Arc::new(template));
        self.ready.clear();
    }

    /// An index is gone.
    pub(super) fn forget(&mut self, index: &str) {
        self.ready.remove(index);
    }

    /// The template that an index must be as, if that is still to be seen to.
    fn open(&self, index: &str) -> Option<Arc<Template>> {
        if self.ready.contains(index) {
            return None;
        }
        let mut expected = self.expected.iter();
        expected
            .find(|template| template.pattern.matches(index))
            .cloned()
    }

    fn made_ready(&mut self, index: &Arc<str>) {
        if self.ready.len() >= MOST_NAMES {
            self.ready.clear();
        }
        self.ready.insert(Arc::clone(index));
    }
}

impl BulkTarget {
    /// The template of this name as OpenSearch has it.
    pub(super) fn found_template(&self, name: &str) -> Result<Option<Value>, TargetError> {
        let path = format!("/_index_template/{name}");
        let found: Result<Templates, _> = self.client.call_or_missing(Method::Get, &path, None)?;
        Ok(found
            .ok()
            .and_then(|found| found.index_templates.into_iter().next())
            .map(|found| found.index_template))
    }

    /// Refuses to work without the template, or with one that lacks something.
    pub(super) fn require(&self, template: &Template) -> Result<(), TargetError> {
        let (name, topic) = (&template.name, &template.topic);
        let Some(found) = self.found_template(name)? else {
            return Err(self.client.unusable(format!(
                "it has no index template {name} for topic {topic}: run `sink-opensearch setup` once"
            )));
        };
        let differences = lacks(template.mappings(), &found["template"]["mappings"]);
        if !differences.is_empty() {
            return Err(self.client.unusable(format!(
                "its index template {name} is not what the schema of topic {topic} asks for ({}): run `sink-opensearch setup`",
                listed(&differences)
            )));
        }
        Ok(())
    }

    /// Sees to the indices of these documents; says of which documents the index is ready.
    pub(super) fn make_ready(&self, documents: &[&Document]) -> Result<Vec<bool>, TargetError> {
        let started = Instant::now();
        let mut left: HashSet<&str> = HashSet::new();
        let mut ready = Vec::with_capacity(documents.len());
        for document in documents {
            let index = &document.index;
            let open = self.indices().open(index);
            let Some(template) = open else {
                ready.push(true);
                continue;
            };
            if left.contains(&**index) || started.elapsed() >= MAKING_BUDGET {
                left.insert(index);
                ready.push(false);
                continue;
            }
            self.make(index, &template)?;
            self.indices().made_ready(index);
            ready.push(true);
        }
        Ok(ready)
    }

    /// Makes an index unless it is there, and looks at its mapping.
    fn make(&self, index: &str, template: &Template) -> Result<(), TargetError> {
        let path = format!("/{index}");
        let mapping = format!("/{index}/_mapping");
        let mut found: Result<Mappings, _> =
            self.client.call_or_missing(Method::Get, &mapping, None)?;
        if found.is_err() {
            match self.client.call::<Ignored>(Method::Put, &path, None) {
                Ok(_) => tracing::info!(index, template = template.name, "made an index"),
                // another instance was faster
                Err(TargetError::Malformed { detail, .. })
                    if detail.contains("resource_already_exists_exception") => {}
                Err(TargetError::Malformed { detail, .. }) => {
                    return Err(self
                        .client
                        .unusable(format!("it does not make the index {index}: {detail}")));
                }
                Err(error) => return Err(error),
            }
            found = self.client.call_or_missing(Method::Get, &mapping, None)?;
        }
        // by then it may be deleted again: the bulk will say so
        let Some(found) = found.ok().and_then(|found| found.into_values().next()) else {
            return Ok(());
        };
        let differences = lacks(template.mappings(), &found.mappings);
        if differences.is_empty() {
            return Ok(());
        }
        let remedy = if differences.iter().all(|one| one.can_be_added()) {
            "run `sink-opensearch setup`, which adds what is missing"
        } else {
            "a mapping can't be changed: delete the index and let a new group write it again, or reindex it, or choose other index names"
        };
        Err(self.client.unusable(format!(
            "its index {index} is not what the schema of topic {} asks for ({}): {remedy}",
            template.topic,
            listed(&differences)
        )))
    }
}
