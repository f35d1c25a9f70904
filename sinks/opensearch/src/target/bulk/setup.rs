//! `setup`: the index template of each topic, and the fields that its indices lack.

use std::fmt;

use opensearch::http::Method;
use serde_json::{Value, json};

use super::answer::{Ignored, Mappings};
use super::compare::{self, Difference, lacks, listed};
use super::{BulkTarget, template};
use crate::settings::TopicSettings;
use crate::target::TargetError;

/// Something that was changed, or would be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of what: an index template, or an index.
    pub of: String,
    /// What is changed.
    pub what: String,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.of, self.what)
    }
}

/// What became of a setup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Setup {
    /// What was changed, or would be.
    pub changes: Vec<Change>,
    /// What can't be changed, and what to do.
    pub conflicts: Vec<Change>,
}

impl BulkTarget {
    /// Puts the index template of a topic there and adds to its indices what they lack, if `apply`; says what was
    /// changed, or would be. What is as it should be is left alone.
    ///
    /// # Errors
    /// When the schema has no mapping, or OpenSearch refuses.
    pub fn setup(
        &self,
        settings: &TopicSettings,
        schema: &str,
        apply: bool,
    ) -> Result<Setup, TargetError> {
        let template = template(settings, schema)?;
        let mut setup = Setup::default();
        let found = self.found_template(&template.name)?;
        if let Some(what) = template_change(&template.body, found.as_ref()) {
            if apply {
                let path = format!("/_index_template/{}", template.name);
                self.put(&path, &template.body)?;
            }
            setup.changes.push(Change {
                of: format!("index template {}", template.name),
                what,
            });
        }
        let path = format!("/{}/_mapping", template.pattern.wildcard());
        let indices: Result<Mappings, _> = self.client.call_or_missing(Method::Get, &path, None)?;
        for (index, found) in indices.unwrap_or_default() {
            if !template.pattern.matches(&index) {
                continue;
            }
            let differences = lacks(template.mappings(), &found.mappings);
            let (added, conflicts): (Vec<_>, Vec<_>) =
                differences.into_iter().partition(Difference::can_be_added);
            let of = format!("index {index}");
            if !conflicts.is_empty() {
                let what = format!(
                    "{}; a mapping can't be changed: delete the index and let a new group write it again, or reindex it",
                    listed(&conflicts)
                );
                setup.conflicts.push(Change { of, what });
            } else if !added.is_empty() {
                if apply {
                    let mappings = template.mappings();
                    let body = json!({"dynamic": mappings["dynamic"], "properties": mappings["properties"]});
                    self.put(&format!("/{index}/_mapping"), &body)?;
                }
                let what = listed(&added);
                setup.changes.push(Change { of, what });
            }
        }
        Ok(setup)
    }

    fn put(&self, path: &str, body: &Value) -> Result<(), TargetError> {
        let body = Some(body.to_string().into_bytes());
        match self.client.call::<Ignored>(Method::Put, path, body) {
            Ok(_) => Ok(()),
            Err(TargetError::Malformed { detail, .. }) => {
                Err(self.client.unusable(format!("it refuses {path}: {detail}")))
            }
            Err(error) => Err(error),
        }
    }
}

/// In what a template is not as it should be; `None`: in nothing.
fn template_change(wanted: &Value, found: Option<&Value>) -> Option<String> {
    let Some(found) = found else {
        let (patterns, fields) = (
            &wanted["index_patterns"][0],
            &wanted["template"]["mappings"]["properties"],
        );
        let fields = fields.as_object().map_or(0, serde_json::Map::len);
        return Some(format!(
            "created for {} with {fields} fields",
            patterns.as_str().unwrap_or_default()
        ));
    };
    let mut changes = Vec::new();
    for key in ["index_patterns", "priority"] {
        if wanted[key] != found[key] {
            changes.push(format!("{key} was {}, now {}", found[key], wanted[key]));
        }
    }
    let settings = |template: &Value| compare::settings(&template["template"]["settings"]);
    if settings(wanted) != settings(found) {
        changes.push(format!(
            "settings were {:?}, now {:?}",
            settings(found),
            settings(wanted)
        ));
    }
    let mappings = |template: &Value| template["template"]["mappings"].clone();
    let (wanted, found) = (mappings(wanted), mappings(found));
    let lacking = lacks(&wanted, &found);
    if !lacking.is_empty() {
        changes.push(listed(&lacking));
    }
    for extra in lacks(&found, &wanted) {
        if let Difference::Missing { field, .. } = extra {
            changes.push(format!("field {field} is not in the schema"));
        }
    }
    if wanted["_meta"] != found["_meta"] {
        changes.push(format!(
            "_meta was {}, now {}",
            found["_meta"], wanted["_meta"]
        ));
    }
    (!changes.is_empty()).then(|| format!("changed: {}", changes.join("; ")))
}
