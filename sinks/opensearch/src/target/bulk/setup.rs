//! `setup`: the index template of each topic, and the fields that its indices lack.

use std::fmt;

use opensearch::http::Method;
use serde_json::{Value, json};

use super::answer::{Ignored, Mappings, Templates};
use super::compare::{self, Difference, lacks, listed};
use super::{BulkTarget, template};
use crate::mapping::{MANAGED_BY, Template};
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
        let change = template_change(&template.body, found.as_ref());
        if change.is_some() {
            let rivals = self.rivals(&template)?;
            let (older, foreign): (Vec<_>, Vec<_>) =
                rivals.into_iter().partition(|rival| rival.older_of_ours);
            if !foreign.is_empty() {
                setup
                    .conflicts
                    .extend(foreign.iter().map(|rival| rival.conflict(&template)));
                return Ok(setup);
            }
            for rival in older {
                if apply {
                    let path = format!("/_index_template/{}", rival.name);
                    self.client
                        .call_or_missing::<Ignored>(Method::Delete, &path, None)?
                        .ok();
                }
                setup.changes.push(Change {
                    of: format!("index template {}", rival.name),
                    what: format!(
                        "removed: it is an older one for topic {}, and {} takes its place",
                        template.topic, template.name
                    ),
                });
            }
        }
        if let Some(what) = change {
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

    /// The other templates that take some of the same index names as firmly: OpenSearch takes only one of them.
    fn rivals(&self, template: &Template) -> Result<Vec<Rival>, TargetError> {
        let all: Result<Templates, _> =
            self.client
                .call_or_missing(Method::Get, "/_index_template", None)?;
        let all = all.ok().map(|all| all.index_templates).unwrap_or_default();
        let wanted = template.pattern.wildcard();
        Ok(all
            .into_iter()
            .filter(|other| other.name != template.name)
            .filter(|other| other.index_template["priority"] == template.body["priority"])
            .filter_map(|other| {
                let patterns: Vec<String> = other.index_template["index_patterns"]
                    .as_array()?
                    .iter()
                    .filter_map(|pattern| Some(pattern.as_str()?.to_owned()))
                    .collect();
                let overlap = patterns.iter().any(|pattern| overlap(pattern, &wanted));
                overlap.then(|| Rival {
                    older_of_ours: is_ours(&other.name, &other.index_template, &template.topic),
                    name: other.name,
                    patterns,
                })
            })
            .collect())
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

/// Another template that takes some of the same index names.
struct Rival {
    name: String,
    patterns: Vec<String>,
    /// Our `setup` put it there for the same topic, under other settings.
    older_of_ours: bool,
}

impl Rival {
    fn conflict(&self, template: &Template) -> Change {
        let (name, patterns) = (&self.name, self.patterns.join(", "));
        let (priority, wanted) = (&template.body["priority"], template.pattern.wildcard());
        Change {
            of: format!("index template {name}"),
            what: format!(
                "it takes indices named {patterns} with priority {priority}, as {} does for {wanted}, and OpenSearch lets \
                 only one do so: delete it (DELETE /_index_template/{name}), give it another priority, or set other index \
                 names for topic {} in the documents file (`index`)",
                template.name, template.topic
            ),
        }
    }
}

/// Whether our `setup` made a template for this topic. Before it left a mark, the name and the mapping told.
fn is_ours(name: &str, template: &Value, topic: &str) -> bool {
    let meta = &template["_meta"];
    if meta.is_object() {
        return meta["managed_by"] == MANAGED_BY && meta["topic"] == topic;
    }
    name.starts_with("headway-") && template["template"]["mappings"]["_meta"]["topic"] == topic
}

/// Whether some name fits both patterns, in which `*` stands for any text.
fn overlap(one: &str, other: &str) -> bool {
    fn meet(one: &[u8], other: &[u8]) -> bool {
        match (one.split_first(), other.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                meet(rest, other) || other.split_first().is_some_and(|(_, tail)| meet(one, tail))
            }
            (_, Some((b'*', _))) => meet(other, one),
            (Some((a, one)), Some((b, other))) => a == b && meet(one, other),
            _ => false,
        }
    }
    meet(one.as_bytes(), other.as_bytes())
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
    let whole = (wanted, found);
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
    for (wanted, found) in [
        (&whole.0["_meta"], &whole.1["_meta"]),
        (&wanted["_meta"], &found["_meta"]),
    ] {
        if wanted != found {
            changes.push(format!("_meta was {found}, now {wanted}"));
        }
    }
    (!changes.is_empty()).then(|| format!("changed: {}", changes.join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_where_a_name_fits_both() {
        for (one, other, expected) in [
            ("a", "a", true),
            ("a", "b", false),
            ("a-*", "a-2016.01", true),
            ("a-*", "a", false),
            ("a-*", "a-b-*", true),
            ("a-*", "b-*", false),
            ("*", "a-*", true),
            ("*-x", "a-*", true),
            ("*-x", "a-y", false),
            ("a*c", "ab*", true),
        ] {
            assert_eq!(overlap(one, other), expected, "{one} {other}");
            assert_eq!(overlap(other, one), expected, "{other} {one}");
        }
    }

    #[test]
    fn only_a_template_of_ours_for_the_same_topic_may_be_replaced() {
        let marked = |by: &str, topic: &str| json!({"_meta": {"managed_by": by, "topic": topic}});
        let before = json!({"template": {"mappings": {"_meta": {"topic": "t", "record": "R"}}}});
        assert!(is_ours("headway-t-date", &marked("headway", "t"), "t"));
        assert!(!is_ours("headway-t-date", &marked("headway", "u"), "t"));
        assert!(!is_ours("headway-t-date", &marked("other", "t"), "t"));
        assert!(is_ours("headway-t", &before, "t"));
        assert!(!is_ours("headway-t", &before, "u"));
        assert!(!is_ours("mine", &before, "t"));
        assert!(!is_ours("headway-t", &json!({}), "t"));
    }
}
