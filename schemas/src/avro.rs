//! What the other modules need of Avro schemas: parsing, and a walk over their JSON text.

use apache_avro::Schema;
use serde_json::Value;

/// Schemas nest no deeper than this: what is compiled from them recurses.
pub(crate) const MAX_DEPTH: usize = 32;

/// Parses a schema's JSON text.
pub(crate) fn parse(text: &str) -> Result<Schema, String> {
    let json: Value = serde_json::from_str(text).map_err(|e| format!("it is no JSON: {e}"))?;
    if let Some(field) = duplicate_field(&json) {
        return Err(format!("field `{field}` is there twice"));
    }
    Schema::parse(&json).map_err(|e| e.to_string())
}

/// What two texts must have in common to be the same schema: everything but `doc`, the order of attributes and white space.
///
/// Avro's own canonical form leaves defaults and logical types out, which readers need.
pub(crate) fn normal_form(text: &str) -> Result<String, String> {
    let json: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    Ok(sorted(&without_docs(&json)))
}

/// A schema without its docs, `{"type": "int"}` written as `"int"`.
fn without_docs(schema: &Value) -> Value {
    match schema {
        Value::Array(branches) => branches.iter().map(without_docs).collect(),
        Value::Object(attributes) => {
            let mut kept = serde_json::Map::new();
            for (key, value) in attributes {
                let value = match key.as_str() {
                    "doc" => continue,
                    "type" | "items" | "values" => without_docs(value),
                    "fields" => match value {
                        Value::Array(fields) => fields.iter().map(without_docs).collect(),
                        other => other.clone(),
                    },
                    _ => value.clone(),
                };
                kept.insert(key.clone(), value);
            }
            match kept.get("type") {
                Some(Value::String(only)) if kept.len() == 1 => Value::String(only.clone()),
                _ => Value::Object(kept),
            }
        }
        other => other.clone(),
    }
}

/// JSON text with the attributes of each object in order.
fn sorted(json: &Value) -> String {
    match json {
        Value::Object(attributes) => {
            let ordered: std::collections::BTreeMap<_, _> = attributes.iter().collect();
            let inner: Vec<String> = ordered
                .iter()
                .map(|(k, v)| format!("{}:{}", Value::String((*k).clone()), sorted(v)))
                .collect();
            format!("{{{}}}", inner.join(","))
        }
        Value::Array(items) => format!(
            "[{}]",
            items.iter().map(sorted).collect::<Vec<_>>().join(",")
        ),
        other => other.to_string(),
    }
}

/// A field name that one record has twice.
fn duplicate_field(schema: &Value) -> Option<String> {
    match schema {
        Value::Array(branches) => branches.iter().find_map(duplicate_field),
        Value::Object(attributes) => {
            if let Some(Value::Array(fields)) = attributes.get("fields") {
                let mut seen = std::collections::BTreeSet::new();
                for field in fields {
                    if let Some(name) = field.get("name").and_then(Value::as_str)
                        && !seen.insert(name)
                    {
                        return Some(name.to_owned());
                    }
                }
                if let Some(name) = fields
                    .iter()
                    .filter_map(|f| f.get("type"))
                    .find_map(duplicate_field)
                {
                    return Some(name);
                }
            }
            ["type", "items", "values"]
                .iter()
                .filter_map(|key| attributes.get(*key))
                .find_map(duplicate_field)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn every_shipped_schema_parses() {
        use crate::shipped::*;
        for text in [TAXI_TRIP, TRIP_STATISTICS, DEAD_LETTER, POSITION, LATE] {
            assert!(matches!(parse(text), Ok(Schema::Record(_))), "{text}");
        }
    }

    #[test]
    fn docs_order_and_white_space_make_no_other_schema_but_defaults_and_logical_types_do() {
        let a = r#"{"type":"record","name":"R","doc":"x","fields":[{"name":"t","type":{"type":"long"},"doc":"y"}]}"#;
        let b = r#"{ "name":"R", "type":"record", "fields":[ {"type":"long","name":"t"} ] }"#;
        let c = r#"{"type":"record","name":"R","fields":[{"name":"t","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
        let d = r#"{"type":"record","name":"R","fields":[{"name":"t","type":"long","default":0}]}"#;
        assert_eq!(normal_form(a), normal_form(b));
        assert_ne!(normal_form(b), normal_form(c));
        assert_ne!(normal_form(b), normal_form(d));
    }

    #[test]
    fn a_field_that_is_there_twice_is_refused() {
        let twice = r#"{"type":"record","name":"R","fields":[{"name":"t","type":"long"},{"name":"t","type":"int"}]}"#;
        assert_eq!(parse(twice).unwrap_err(), "field `t` is there twice");
        assert!(parse("{").unwrap_err().starts_with("it is no JSON"));
    }
}
