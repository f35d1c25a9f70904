//! The part of a schema that a reader wants.

use std::collections::BTreeMap;

use serde_json::Value;

/// Why a schema can't be cut down to some of its fields.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProjectError {
    /// The text is no Avro schema of a record.
    #[error("not the Avro schema of a record: {detail}")]
    Invalid {
        /// Why.
        detail: String,
    },
    /// There is no field of this name.
    #[error("the schema has no field `{field}`; it has {fields}")]
    NoField {
        /// The name asked for.
        field: String,
        /// The names of those there are.
        fields: String,
    },
}

/// The schema with only these top-level fields, in the schema's order, its name and namespace kept: a reader schema for a
/// job that needs no others.
///
/// # Errors
/// [`ProjectError`] when the text is no record's schema, or lacks a field.
pub fn projected_schema(schema: &str, fields: &[&str]) -> Result<String, ProjectError> {
    let invalid = |detail: String| ProjectError::Invalid { detail };
    crate::avro::parse(schema).map_err(invalid)?;
    let mut json: Value = serde_json::from_str(schema).map_err(|e| invalid(e.to_string()))?;
    let namespace = namespace_of(&json, "");
    let Some(all) = json.get_mut("fields").and_then(Value::as_array_mut) else {
        return Err(invalid("it is no record".to_owned()));
    };
    let names: Vec<String> = all
        .iter()
        .filter_map(|f| f.get("name").and_then(Value::as_str))
        .map(str::to_owned)
        .collect();
    if let Some(missing) = fields
        .iter()
        .find(|wanted| !names.iter().any(|n| n == *wanted))
    {
        return Err(ProjectError::NoField {
            field: (*missing).to_owned(),
            fields: names.join(", "),
        });
    }
    let mut types = NamedTypes::default();
    let mut kept = Vec::with_capacity(fields.len());
    for mut field in std::mem::take(all) {
        let wanted = field
            .get("name")
            .and_then(Value::as_str)
            .is_some_and(|name| fields.contains(&name));
        if let Some(of_field) = field.get_mut("type") {
            if wanted {
                types.complete(of_field, &namespace);
            } else {
                types.gather(of_field, &namespace);
            }
        }
        if wanted {
            kept.push(field);
        }
    }
    *all = kept;
    let text = json.to_string();
    crate::avro::parse(&text).map_err(invalid)?;
    Ok(text)
}

/// Named types that were defined in a dropped field: the first kept field that uses one takes its definition over.
#[derive(Default)]
struct NamedTypes(BTreeMap<String, Value>);

impl NamedTypes {
    /// Remembers the types that a dropped field defines.
    fn gather(&mut self, schema: &Value, namespace: &str) {
        match schema {
            Value::Array(branches) => branches.iter().for_each(|b| self.gather(b, namespace)),
            Value::Object(attributes) => {
                let inner = namespace_of(schema, namespace);
                if let Some(name) = full_name(schema, namespace) {
                    let mut definition = schema.clone();
                    // Moved elsewhere, it must not take another namespace over.
                    definition["name"] = Value::String(name.clone());
                    if let Some(attributes) = definition.as_object_mut() {
                        attributes.remove("namespace");
                    }
                    self.0.insert(name, definition);
                }
                for inside in inside(attributes) {
                    self.gather(inside, &inner);
                }
            }
            _ => {}
        }
    }

    /// Puts definitions in place of all references.
    fn inline(&self, schema: &mut Value, namespace: &str, depth: usize) -> Result<(), String> {
        if depth > 2 * crate::avro::MAX_DEPTH {
            return Err("the schema contains itself".to_owned());
        }
        match schema {
            Value::String(name) => {
                let found = self
                    .0
                    .get(&referred(name, namespace))
                    .or_else(|| self.0.get(name.as_str()));
                if let Some(definition) = found {
                    *schema = definition.clone();
                    self.inline(schema, namespace, depth + 1)?;
                }
                Ok(())
            }
            Value::Array(branches) => branches
                .iter_mut()
                .try_for_each(|branch| self.inline(branch, namespace, depth + 1)),
            Value::Object(_) => {
                let inner = namespace_of(schema, namespace);
                let full = full_name(schema, namespace);
                let Value::Object(attributes) = schema else {
                    return Ok(());
                };
                if let Some(full) = full {
                    attributes.insert("name".to_owned(), Value::String(full));
                    attributes.remove("namespace");
                    if let Some(Value::Array(aliases)) = attributes.get_mut("aliases") {
                        for alias in aliases {
                            if let Value::String(name) = alias {
                                *name = referred(name, &inner);
                            }
                        }
                    }
                }
                for inside in parts_mut(attributes) {
                    self.inline(inside, &inner, depth + 1)?;
                }
                if let Some(Value::Array(fields)) = attributes.get_mut("fields") {
                    for of_field in fields.iter_mut().filter_map(|f| f.get_mut("type")) {
                        self.inline(of_field, &inner, depth + 1)?;
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Puts definitions in place of the first references to dropped types.
    fn complete(&mut self, schema: &mut Value, namespace: &str) {
        match schema {
            Value::String(name) => {
                let full = referred(name, namespace);
                let found = self
                    .0
                    .remove(&full)
                    .or_else(|| self.0.remove(name.as_str()));
                if let Some(definition) = found {
                    *schema = definition;
                    self.complete(schema, namespace);
                }
            }
            Value::Array(branches) => branches
                .iter_mut()
                .for_each(|b| self.complete(b, namespace)),
            Value::Object(_) => {
                let inner = namespace_of(schema, namespace);
                if let Some(name) = full_name(schema, namespace) {
                    self.0.remove(&name);
                }
                let Value::Object(attributes) = schema else {
                    return;
                };
                for inside in parts_mut(attributes) {
                    self.complete(inside, &inner);
                }
                if let Some(Value::Array(fields)) = attributes.get_mut("fields") {
                    for of_field in fields.iter_mut().filter_map(|f| f.get_mut("type")) {
                        self.complete(of_field, &inner);
                    }
                }
            }
            _ => {}
        }
    }
}

/// The schema with every reference to a named type replaced by its definition, and every name written in full. What
/// contains itself is refused.
///
/// arrow-avro takes the reader's definition where the writer only refers to one, even if the two differ.
pub(crate) fn inlined(schema: &str) -> Result<String, String> {
    let mut json: Value = serde_json::from_str(schema).map_err(|e| e.to_string())?;
    let mut types = NamedTypes::default();
    types.gather(&json, "");
    types.inline(&mut json, "", 0)?;
    Ok(json.to_string())
}

/// The schemas that stand in another.
fn inside(attributes: &serde_json::Map<String, Value>) -> Vec<&Value> {
    let mut all: Vec<&Value> = ["type", "items", "values"]
        .iter()
        .filter_map(|key| attributes.get(*key))
        .collect();
    if let Some(Value::Array(fields)) = attributes.get("fields") {
        all.extend(fields.iter().filter_map(|f| f.get("type")));
    }
    all
}

/// What a schema that is no reference is put together from, its fields aside. The word for its kind is none of it: Flink
/// names its records `record`.
fn parts_mut(attributes: &mut serde_json::Map<String, Value>) -> impl Iterator<Item = &mut Value> {
    attributes.iter_mut().filter_map(|(key, part)| {
        let kind = matches!(
            part.as_str(),
            Some("record" | "error" | "enum" | "fixed" | "array" | "map")
        );
        match key.as_str() {
            "type" => (!kind).then_some(part),
            "items" | "values" => Some(part),
            _ => None,
        }
    })
}

/// The full name that a reference means.
fn referred(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}.{name}")
    }
}

/// The namespace that holds inside a schema.
fn namespace_of(schema: &Value, enclosing: &str) -> String {
    match full_name(schema, enclosing) {
        Some(full) => full
            .rsplit_once('.')
            .map(|(namespace, _)| namespace.to_owned())
            .unwrap_or_default(),
        None => enclosing.to_owned(),
    }
}

/// The full name of a named type's definition.
fn full_name(schema: &Value, enclosing: &str) -> Option<String> {
    let name = schema.get("name")?.as_str()?;
    if name.contains('.') {
        return Some(name.trim_start_matches('.').to_owned());
    }
    match schema
        .get("namespace")
        .and_then(Value::as_str)
        .unwrap_or(enclosing)
    {
        "" => Some(name.to_owned()),
        namespace => Some(format!("{namespace}.{name}")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use apache_avro::Schema;

    use super::*;

    fn fields(schema: &str) -> (String, Vec<String>) {
        let Schema::Record(record) = Schema::parse_str(schema).unwrap() else {
            panic!("no record")
        };
        (
            record.name.fullname(None),
            record.fields.into_iter().map(|f| f.name).collect(),
        )
    }

    #[test]
    fn a_projection_keeps_the_name_and_the_wanted_fields_in_the_schemas_order() {
        let cut = projected_schema(
            crate::shipped::TAXI_TRIP,
            &["trip_duration", "vendor_id", "google_distance"],
        )
        .unwrap();
        let (name, fields) = fields(&cut);
        assert_eq!(name, "headway.taxi.TaxiTrip");
        assert_eq!(fields, ["vendor_id", "trip_duration", "google_distance"]);
    }

    #[test]
    fn a_record_may_have_the_word_for_its_kind_as_its_name() {
        let schema = |b: &str| {
            format!(
                r#"{{"type":"record","name":"record","namespace":"f","fields":[{{"name":"a","type":"int"}},{{"name":"b","type":{b}}}]}}"#
            )
        };
        let inner = r#"{"type":"record","name":"enum","fields":[{"name":"c","type":"long"}]}"#;
        let parsed = |schema: &str| Schema::parse_str(schema).unwrap();
        for b in ["\"long\"", inner] {
            let schema = schema(b);
            assert_eq!(parsed(&inlined(&schema).unwrap()), parsed(&schema));
            let cut = projected_schema(&schema, &["a"]).unwrap();
            assert_eq!(fields(&cut), ("f.record".into(), vec!["a".to_owned()]));
        }
        let itself = inlined(&schema(r#"["null","record"]"#)).unwrap_err();
        assert_eq!(itself, "the schema contains itself");
    }

    #[test]
    fn a_missing_field_is_named_with_those_there_are() {
        let schema = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"},{"name":"b","type":"int"}]}"#;
        let refused = projected_schema(schema, &["c"]).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "the schema has no field `c`; it has a, b"
        );
        assert!(matches!(
            projected_schema("\"int\"", &[]),
            Err(ProjectError::Invalid { .. })
        ));
        assert!(
            projected_schema(schema, &[])
                .unwrap()
                .contains("\"fields\":[]")
        );
    }

    #[test]
    fn a_type_that_a_dropped_field_defines_moves_to_where_it_is_used() {
        let schema = r#"{"type":"record","name":"R","namespace":"n","fields":[
            {"name":"a","type":{"type":"record","name":"P","namespace":"m","fields":[{"name":"e","type":{"type":"enum","name":"E","symbols":["X"]}}]}},
            {"name":"b","type":["null","m.P"]},
            {"name":"c","type":"m.E"}]}"#;
        assert_eq!(
            fields(&projected_schema(schema, &["b", "c"]).unwrap()).1,
            ["b", "c"]
        );
        assert_eq!(fields(&projected_schema(schema, &["c"]).unwrap()).1, ["c"]);
        assert_eq!(
            fields(&projected_schema(schema, &["a", "b"]).unwrap()).1,
            ["a", "b"]
        );
    }
}
