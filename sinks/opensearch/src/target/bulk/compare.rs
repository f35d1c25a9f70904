//! Two mappings side by side: what one asks for, and what OpenSearch has.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};

/// One thing in which an index, or a template, is not what the topic's schema asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Difference {
    /// A field that is not there.
    Missing { field: String, wanted: String },
    /// A field that is there in another way.
    Other {
        field: String,
        wanted: String,
        found: String,
    },
    /// Unknown fields would be mapped by guessing.
    Dynamic { field: String, found: String },
}

impl Difference {
    /// Whether it can be mended while the index has documents.
    pub(super) fn can_be_added(&self) -> bool {
        match self {
            Self::Missing { .. } | Self::Dynamic { .. } => true,
            Self::Other { .. } => false,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { field, wanted } => write!(f, "field {field} ({wanted}) is missing"),
            Self::Other {
                field,
                wanted,
                found,
            } => write!(f, "field {field} is {found}, and must be {wanted}"),
            Self::Dynamic { field, found } => {
                let of = match field.as_str() {
                    "" => String::new(),
                    field => format!(" of field {field}"),
                };
                write!(f, "dynamic{of} is {found}, and must be strict")
            }
        }
    }
}

/// All differences, one behind the other.
pub(super) fn listed(differences: &[Difference]) -> String {
    let texts: Vec<String> = differences.iter().map(Difference::to_string).collect();
    texts.join("; ")
}

/// What a mapping lacks of another. Fields and parameters that only the found one has do no harm.
pub(super) fn lacks(wanted: &Value, found: &Value) -> Vec<Difference> {
    let mut differences = Vec::new();
    object("", wanted, found, &mut differences);
    differences
}

fn object(path: &str, wanted: &Value, found: &Value, differences: &mut Vec<Difference>) {
    let dynamic = text(&found["dynamic"]);
    // without guessing, too: what is unknown is kept, and not indexed
    if text(&wanted["dynamic"]) == "strict" && dynamic != "strict" && dynamic != "false" {
        differences.push(Difference::Dynamic {
            field: path.to_owned(),
            found: match dynamic.as_str() {
                "" => "true".to_owned(),
                _ => dynamic,
            },
        });
    }
    let none = Map::new();
    let fields = |mapping: &'_ Value| mapping["properties"].as_object().cloned();
    let (wanted, found) = (
        fields(wanted).unwrap_or_default(),
        fields(found).unwrap_or(none),
    );
    for (name, wanted) in &wanted {
        let path = match path {
            "" => name.clone(),
            path => format!("{path}.{name}"),
        };
        let Some(found) = found.get(name) else {
            differences.push(Difference::Missing {
                field: path,
                wanted: kind(wanted),
            });
            continue;
        };
        if parameters(wanted)
            .iter()
            .any(|(name, value)| parameters(found).get(name) != Some(value))
        {
            differences.push(Difference::Other {
                field: path,
                wanted: described(wanted),
                found: described(found),
            });
        } else if wanted["properties"].is_object() {
            object(&path, wanted, found, differences);
        }
    }
}

/// What a field is, without the fields in it. An object does not say that it is one.
fn parameters(field: &Value) -> BTreeMap<String, String> {
    let mut parameters: BTreeMap<String, String> = field
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, value)| {
            !matches!(name.as_str(), "properties" | "dynamic") && !value.is_object()
        })
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    parameters.insert("type".to_owned(), kind(field));
    parameters
}

fn kind(field: &Value) -> String {
    field["type"].as_str().unwrap_or("object").to_owned()
}

/// As people read it: `date (format strict_date)`.
fn described(field: &Value) -> String {
    let mut parameters = parameters(field);
    let kind = parameters.remove("type").unwrap_or_default();
    if parameters.is_empty() {
        return kind;
    }
    let rest: Vec<String> = parameters
        .into_iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    format!("{kind} ({})", rest.join(", "))
}

/// A mapping or the settings of a template in one form, whichever of those that OpenSearch takes they have.
pub(super) fn settings(settings: &Value) -> BTreeMap<String, String> {
    let mut flat = BTreeMap::new();
    flatten("", settings, &mut flat);
    flat.into_iter()
        .map(|(name, value)| match name.strip_prefix("index.") {
            Some(_) => (name, value),
            None => (format!("index.{name}"), value),
        })
        .collect()
}

fn flatten(path: &str, value: &Value, flat: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(entries) => {
            for (name, value) in entries {
                let path = match path {
                    "" => name.clone(),
                    path => format!("{path}.{name}"),
                };
                flatten(&path, value, flat);
            }
        }
        Value::Null => {}
        value => {
            flat.insert(path.to_owned(), text(value));
        }
    }
}

/// Numbers and booleans come back as texts from some of OpenSearch's calls.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mapping_that_has_more_lacks_nothing_and_each_lack_is_named() {
        let wanted = json!({"dynamic": "strict", "properties": {
            "at": {"type": "date", "format": "strict_date_optional_time"},
            "id": {"type": "keyword", "ignore_above": 8191},
            "in": {"type": "object", "dynamic": "strict", "properties": {"x": {"type": "float"}}},
            "tags": {"type": "object", "enabled": false},
        }});
        let same = json!({"dynamic": "strict", "_meta": {}, "properties": {
            "at": {"type": "date", "format": "strict_date_optional_time"},
            "id": {"type": "keyword", "ignore_above": 8191, "fields": {"text": {"type": "text"}}},
            "in": {"dynamic": "strict", "properties": {"x": {"type": "float"}, "y": {"type": "long"}}},
            "tags": {"type": "object", "enabled": false},
            "more": {"type": "long"},
        }});
        assert_eq!(lacks(&wanted, &same), []);
        let other = json!({"properties": {
            "at": {"type": "date"},
            "id": {"type": "text", "fields": {"keyword": {"type": "keyword"}}},
            "in": {"dynamic": "false", "properties": {}},
        }});
        let found = lacks(&wanted, &other);
        assert_eq!(
            listed(&found),
            "dynamic is true, and must be strict; \
             field at is date, and must be date (format strict_date_optional_time); \
             field id is text, and must be keyword (ignore_above 8191); \
             field in.x (float) is missing; field tags (object) is missing"
        );
        assert_eq!(found.iter().filter(|one| one.can_be_added()).count(), 3);
        assert_eq!(lacks(&wanted, &json!({})).len(), 5);
    }

    #[test]
    fn settings_are_the_same_in_each_of_their_forms() {
        let ours = json!({"number_of_shards": 2, "auto_expand_replicas": "0-1"});
        let theirs =
            json!({"index": {"number_of_shards": "2", "auto_expand_replicas": "0-1", "x": null}});
        assert_eq!(settings(&ours), settings(&theirs));
        assert_eq!(
            settings(&json!({"index.a.b": true})),
            settings(&json!({"index": {"a": {"b": "true"}}}))
        );
    }
}
