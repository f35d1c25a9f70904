//! The index template of a topic: an explicit, strict mapping made from its Avro schema.
//!
//! | Avro | OpenSearch |
//! |---|---|
//! | int, long, float, double, boolean | integer, long, float, double, boolean |
//! | timestamp-millis | date |
//! | timestamp-micros, timestamp-nanos | date_nanos (1970 to 2262) |
//! | date | date |
//! | string, enum, uuid, decimal, time | keyword |
//! | bytes, fixed | binary |
//! | record | object, strict as well |
//! | array | its items' type: any field may hold several values |
//! | map | object that is kept but not indexed |
//!
//! `dynamic: strict` has OpenSearch refuse a field that is not named here, instead of guessing its type.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::document::{IndexPattern, index_pattern};
use crate::settings::{SettingsError, TopicSettings};

/// Dates as documents have them: RFC 3339, or without a zone.
const DATE_FORMAT: &str = "strict_date_optional_time";
/// A keyword longer than this many characters stays in its document, but can't be searched for. (Lucene takes 32,766
/// bytes, and a character has up to four.)
const SEARCHABLE_CHARACTERS: u32 = 8_191;

/// The mark of templates that are ours, under `_meta.managed_by`.
pub(crate) const MANAGED_BY: &str = "headway";

/// Why no mapping can be made.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// Not a schema.
    #[error("the schema can't be read: {detail}")]
    Schema {
        /// What is wrong with it.
        detail: String,
    },
    /// A field whose type documents can't hold.
    #[error("the field {field} can't be mapped: {detail}")]
    Field {
        /// The field, with those around it.
        field: String,
        /// Why.
        detail: String,
    },
    /// The settings are at fault.
    #[error(transparent)]
    Settings(#[from] SettingsError),
}

/// The index template of a topic.
#[derive(Clone, Debug)]
pub struct Template {
    /// The topic.
    pub topic: String,
    /// Its name: `headway-` and the pattern of its indices' names, such as `headway-trip_statistics-date`; the same topic
    /// can so go to several places in one OpenSearch.
    pub name: String,
    /// The names of the indices that it is for.
    pub pattern: IndexPattern,
    /// What is put under the name (`PUT _index_template/…`).
    pub body: Value,
}

impl Template {
    /// The template for a topic with this Avro schema.
    ///
    /// # Errors
    /// When the schema can't be read, or has a type that documents can't hold.
    pub fn new(settings: &TopicSettings, avro_schema: &str) -> Result<Self, MappingError> {
        let schema: Value =
            serde_json::from_str(avro_schema).map_err(|error| MappingError::Schema {
                detail: format!("it is no JSON: {error}"),
            })?;
        let mut properties = Walker::default().properties(&schema, "")?;
        for point in &settings.geo_points {
            if properties
                .insert(point.name.clone(), json!({"type": "geo_point"}))
                .is_some()
            {
                return Err(SettingsError::NameTaken {
                    topic: settings.topic.clone(),
                    name: point.name.clone(),
                }
                .into());
            }
        }
        let record = schema.get("name").cloned().unwrap_or_default();
        let pattern = index_pattern(settings)?;
        let body = json!({
            "index_patterns": [pattern.wildcard()],
            "priority": 200,
            "_meta": {"managed_by": MANAGED_BY, "topic": settings.topic},
            "template": {
                "settings": settings.index_settings,
                "mappings": {
                    "dynamic": "strict",
                    "_meta": {"topic": settings.topic, "record": record},
                    "properties": properties,
                },
            },
        });
        Ok(Self {
            topic: settings.topic.clone(),
            name: format!("headway-{}", pattern.wildcard().replace('*', "date")),
            pattern,
            body,
        })
    }

    /// The mapping that its indices get.
    pub fn mappings(&self) -> &Value {
        &self.body["template"]["mappings"]
    }
}

/// Walks a schema, remembering named types: a later field may refer to them by name.
#[derive(Default)]
struct Walker {
    named: BTreeMap<String, Value>,
    /// The records that the walk is in.
    open: BTreeSet<String>,
}

impl Walker {
    fn properties(
        &mut self,
        record: &Value,
        path: &str,
    ) -> Result<Map<String, Value>, MappingError> {
        let Some(fields) = record
            .get("fields")
            .and_then(Value::as_array)
            .filter(|_| record["type"] == "record")
        else {
            let detail = "it is no record with fields".to_owned();
            return Err(match path {
                "" => MappingError::Schema { detail },
                _ => MappingError::Field {
                    field: path.to_owned(),
                    detail,
                },
            });
        };
        let name = self.remember(record);
        if !self.open.insert(name.clone()) {
            return Err(refuse(path, "it contains itself"));
        }
        let mut properties = Map::new();
        for field in fields {
            let name = field["name"].as_str().unwrap_or_default();
            let path = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            };
            properties.insert(name.to_owned(), self.property(&field["type"], &path)?);
        }
        self.open.remove(&name);
        Ok(properties)
    }

    /// The mapping of one type.
    fn property(&mut self, kind: &Value, path: &str) -> Result<Value, MappingError> {
        match kind {
            Value::String(name) => self.by_name(name, path),
            Value::Array(branches) => {
                let branches: Vec<_> = branches
                    .iter()
                    .filter(|branch| **branch != "null")
                    .collect();
                match branches[..] {
                    [one] => self.property(one, path),
                    _ => Err(refuse(path, "a union of several types has no one mapping")),
                }
            }
            Value::Object(object) => {
                match (logical(kind), object.get("type").and_then(Value::as_str)) {
                    (Some(property), _) => {
                        self.remember(kind);
                        Ok(property)
                    }
                    (None, Some("record")) => {
                        let properties = self.properties(kind, path)?;
                        Ok(json!({"type": "object", "dynamic": "strict", "properties": properties}))
                    }
                    (None, Some("enum")) => {
                        self.remember(kind);
                        Ok(keyword())
                    }
                    (None, Some("fixed")) => {
                        self.remember(kind);
                        Ok(json!({"type": "binary"}))
                    }
                    (None, Some("array")) => self.property(&kind["items"], path),
                    (None, Some("map")) => {
                        self.property(&kind["values"], path)?;
                        Ok(json!({"type": "object", "enabled": false}))
                    }
                    // {"type": "string"}, and {"type": {"type": ...}}
                    _ => self.property(&kind["type"], path),
                }
            }
            _ => Err(refuse(path, "its type is missing")),
        }
    }

    fn by_name(&mut self, name: &str, path: &str) -> Result<Value, MappingError> {
        Ok(match name {
            "int" => json!({"type": "integer"}),
            "long" | "float" | "double" | "boolean" => json!({"type": name}),
            "string" => keyword(),
            "bytes" => json!({"type": "binary"}),
            _ => {
                let short = name.rsplit('.').next().unwrap_or(name);
                let named = self
                    .named
                    .get(short)
                    .cloned()
                    .ok_or_else(|| refuse(path, &format!("type {name:?} is unknown")))?;
                if self.open.contains(short) {
                    return Err(refuse(path, "it contains itself"));
                }
                return self.property(&named, path);
            }
        })
    }

    /// Remembers a named type by the last part of its name; returns that.
    fn remember(&mut self, kind: &Value) -> String {
        let name = kind["name"].as_str().unwrap_or_default();
        let short = name.rsplit('.').next().unwrap_or_default().to_owned();
        if !short.is_empty() {
            self.named.insert(short.clone(), kind.clone());
        }
        short
    }
}

fn logical(kind: &Value) -> Option<Value> {
    Some(match kind.get("logicalType")?.as_str()? {
        "timestamp-millis" | "local-timestamp-millis" => {
            json!({"type": "date", "format": DATE_FORMAT})
        }
        "timestamp-micros"
        | "local-timestamp-micros"
        | "timestamp-nanos"
        | "local-timestamp-nanos" => {
            json!({"type": "date_nanos", "format": "strict_date_optional_time_nanos"})
        }
        "date" => json!({"type": "date", "format": "strict_date"}),
        "decimal" | "uuid" | "time-millis" | "time-micros" => keyword(),
        // an unknown logical type is its underlying type, as Avro has it
        _ => return None,
    })
}

fn keyword() -> Value {
    json!({"type": "keyword", "ignore_above": SEARCHABLE_CHARACTERS})
}

fn refuse(path: &str, detail: &str) -> MappingError {
    MappingError::Field {
        field: path.to_owned(),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn the_shipped_statistics_have_a_strict_mapping() {
        let settings = TopicSettings::new("trip_statistics")
            .keyed_by(&["window_start", "vendor_id"])
            .timed_by("window_start")
            .with_point("pickup_location", "pickup_latitude", "pickup_longitude");
        let template = Template::new(&settings, schemas::shipped::TRIP_STATISTICS).unwrap();
        assert_eq!(template.name, "headway-trip_statistics-date");
        let date = json!({"type": "date", "format": "strict_date_optional_time"});
        let (long, double) = (json!({"type": "long"}), json!({"type": "double"}));
        let expected = json!({
            "index_patterns": ["trip_statistics-*"],
            "priority": 200,
            "_meta": {"managed_by": "headway", "topic": "trip_statistics"},
            "template": {"settings": {"auto_expand_replicas": "0-1"}, "mappings": {
                "dynamic": "strict",
                "_meta": {"topic": "trip_statistics", "record": "TripStatistics"},
                "properties": {
                    "window_start": date, "window_end": date, "vendor_id": {"type": "integer"}, "trip_count": long,
                    "passenger_count": long, "total_trip_duration": long, "average_trip_duration": double,
                    "average_trip_distance": double, "trips_during_peak": long, "peak_hour": {"type": "integer"},
                    "pickup_longitude": double, "pickup_latitude": double, "anomaly_score": double, "version": long, "is_final": {"type": "boolean"},
                    "pickup_location": {"type": "geo_point"},
                },
            }},
        });
        assert_eq!(template.body, expected);
    }

    fn properties(fields: Value) -> Result<Value, MappingError> {
        let schema = json!({"type": "record", "name": "a.R", "fields": fields});
        let template = Template::new(&TopicSettings::new("t"), &schema.to_string())?;
        Ok(template.mappings()["properties"].clone())
    }

    #[test]
    fn every_avro_type_has_its_mapping() {
        let keyword = json!({"type": "keyword", "ignore_above": 8191});
        let inner =
            json!({"type": "record", "name": "In", "fields": [{"name": "x", "type": "float"}]});
        let object =
            json!({"type": "object", "dynamic": "strict", "properties": {"x": {"type": "float"}}});
        let cases = [
            (json!(["null", "int"]), json!({"type": "integer"})),
            (json!(["long", "null"]), json!({"type": "long"})),
            (json!({"type": "string"}), keyword.clone()),
            (
                json!({"type": "enum", "name": "E", "symbols": ["A"]}),
                keyword.clone(),
            ),
            (json!("E"), keyword.clone()),
            (
                json!({"type": "string", "logicalType": "uuid"}),
                keyword.clone(),
            ),
            (
                json!({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}),
                keyword.clone(),
            ),
            (
                json!({"type": "int", "logicalType": "time-millis"}),
                keyword.clone(),
            ),
            (
                json!({"type": "int", "logicalType": "date"}),
                json!({"type": "date", "format": "strict_date"}),
            ),
            (
                json!(["null", {"type": "long", "logicalType": "timestamp-micros"}]),
                json!({"type": "date_nanos", "format": "strict_date_optional_time_nanos"}),
            ),
            (
                json!({"type": "long", "logicalType": "of-our-own"}),
                json!({"type": "long"}),
            ),
            (json!("bytes"), json!({"type": "binary"})),
            (
                json!({"type": "fixed", "name": "F", "size": 4}),
                json!({"type": "binary"}),
            ),
            (
                json!({"type": "array", "items": "double"}),
                json!({"type": "double"}),
            ),
            (
                json!({"type": "map", "values": "long"}),
                json!({"type": "object", "enabled": false}),
            ),
            (inner, object.clone()),
            (json!("a.In"), object.clone()),
            (json!({"type": "array", "items": "In"}), object),
        ];
        let fields: Vec<_> = cases
            .iter()
            .enumerate()
            .map(|(at, (kind, _))| json!({"name": format!("f{at}"), "type": kind}))
            .collect();
        let found = properties(json!(fields)).unwrap();
        for (at, (kind, expected)) in cases.iter().enumerate() {
            assert_eq!(&found[format!("f{at}")], expected, "{kind}");
        }
    }

    #[test]
    fn what_has_no_mapping_is_refused_with_the_field() {
        let inner = json!({"type": "record", "name": "In", "fields": [{"name": "x", "type": ["int", "string"]}]});
        for (kind, part) in [
            (
                json!(["null", "int", "string"]),
                "f can't be mapped: a union",
            ),
            (inner, "f.x can't be mapped"),
            (json!("Nowhere"), "unknown"),
            (json!(["null", "R"]), "contains itself"),
            (json!(null), "missing"),
        ] {
            let error = properties(json!([{"name": "f", "type": kind}]))
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{error}");
        }
        for text in ["", "\"string\"", "{\"type\":\"enum\"}"] {
            assert!(matches!(
                Template::new(&TopicSettings::new("t"), text),
                Err(MappingError::Schema { .. })
            ));
        }
    }
}
