//! What the user says of a topic: how its records become documents.

use std::path::PathBuf;

use chrono_tz::Tz;
use runtime::config::SinkOpenSearchConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::document::{PatternError, index_pattern};

/// How one topic's records become documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSettings {
    /// The topic.
    pub topic: String,
    /// The fields that make up a document's id, in order. Empty: topic, partition and offset, so that each record is a
    /// document of its own.
    #[serde(default)]
    pub keys: Vec<String>,
    /// The field that holds a document's version, growing with each emission. `None`: `version` if the schema has such
    /// a field, else the record's offset.
    #[serde(default)]
    pub version: Option<String>,
    /// The field with the event or window time that the index name is made of.
    #[serde(default)]
    pub time: Option<String>,
    /// The pattern of index names: `{topic}` and one of `{yyyy}`, `{yyyy.MM}`, `{yyyy.MM.dd}`. `None`:
    /// `{topic}-{yyyy.MM}` where `time` is given, else `{topic}`.
    #[serde(default)]
    pub index: Option<String>,
    /// The zone whose calendar dates the index names have.
    #[serde(default = "utc", with = "zone_name")]
    pub zone: Tz,
    /// Fields put together into points that maps can show.
    #[serde(default)]
    pub geo_points: Vec<GeoPoint>,
    /// Settings of the indices under OpenSearch's names, such as `number_of_shards`. Where none are given: a copy on a
    /// second node, if there is one.
    #[serde(default = "index_settings")]
    pub index_settings: Map<String, Value>,
}

fn index_settings() -> Map<String, Value> {
    Map::from_iter([("auto_expand_replicas".to_owned(), "0-1".into())])
}

fn utc() -> Tz {
    Tz::UTC
}

/// Zones by their IANA names.
mod zone_name {
    use chrono_tz::Tz;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(zone: &Tz, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(zone.name())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tz, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(|_| {
            D::Error::custom(format!("{name:?} is no time zone such as America/New_York"))
        })
    }
}

/// A point made of two fields, which stay in the document beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GeoPoint {
    /// The new field's name.
    pub name: String,
    /// The field with the latitude, in degrees.
    pub latitude: String,
    /// The field with the longitude, in degrees.
    pub longitude: String,
}

impl TopicSettings {
    /// Each record a document of its own, in one index.
    pub fn new(topic: impl Into<String>) -> Self {
        Self {
            topic: topic.into(),
            keys: Vec::new(),
            version: None,
            time: None,
            index: None,
            zone: Tz::UTC,
            geo_points: Vec::new(),
            index_settings: index_settings(),
        }
    }

    /// The same with these fields as the id.
    pub fn keyed_by(mut self, keys: &[&str]) -> Self {
        self.keys = keys.iter().map(|key| (*key).to_owned()).collect();
        self
    }

    /// The same with this field as the time that index names are made of.
    pub fn timed_by(mut self, time: &str) -> Self {
        self.time = Some(time.to_owned());
        self
    }

    /// The same with one more point.
    pub fn with_point(mut self, name: &str, latitude: &str, longitude: &str) -> Self {
        self.geo_points.push(GeoPoint {
            name: name.to_owned(),
            latitude: latitude.to_owned(),
            longitude: longitude.to_owned(),
        });
        self
    }

    /// The pattern of index names, as it is written.
    pub(crate) fn pattern(&self) -> &str {
        match (&self.index, &self.time) {
            (Some(pattern), _) => pattern,
            (None, Some(_)) => "{topic}-{yyyy.MM}",
            (None, None) => "{topic}",
        }
    }
}

/// A file of settings: a `[[topic]]` for each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DocumentsFile {
    /// The topics that it describes.
    #[serde(default)]
    topic: Vec<TopicSettings>,
}

/// A file of settings that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("sink_opensearch.documents: the file {} can't be used (shipped is: taxi)", path.display())]
pub struct DocumentsFileError {
    /// Which file.
    pub path: PathBuf,
    /// Why.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl DocumentsFile {
    /// The file for the taxi pipeline, as it is shipped.
    pub const TAXI: &str = include_str!("../documents/taxi.toml");

    /// The file that `[sink_opensearch]` names: a shipped one, one of the user's, or none, which describes no topic.
    ///
    /// # Errors
    /// A file that can't be read, or holds something else.
    pub fn from_config(config: &SinkOpenSearchConfig) -> Result<Self, DocumentsFileError> {
        let path = &config.documents;
        let read = || -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
            let text = match path.to_str() {
                Some("") => return Ok(Self::default()),
                Some("taxi") => Self::TAXI.to_owned(),
                _ => std::fs::read_to_string(path)?,
            };
            Ok(toml::from_str(&text)?)
        };
        read().map_err(|source| DocumentsFileError {
            path: path.clone(),
            source,
        })
    }

    /// The settings of a topic, if the file names it.
    pub fn named(&self, topic: &str) -> Option<&TopicSettings> {
        self.topic.iter().find(|settings| settings.topic == topic)
    }

    /// The settings of a topic; those of a topic that the file does not name make each record a document of its own.
    pub fn settings(&self, topic: &str) -> TopicSettings {
        self.named(topic)
            .cloned()
            .unwrap_or_else(|| TopicSettings::new(topic))
    }
}

/// What is wrong with a topic's settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// The index pattern is not acceptable.
    #[error("topic {topic}: the index names can't be made")]
    Pattern {
        /// The topic.
        topic: String,
        /// Why.
        #[source]
        source: PatternError,
    },
    /// A field that the schema does not have.
    #[error(
        "topic {topic}: {role} is the field {field:?}, which the schema does not have; it has {fields}"
    )]
    NoField {
        /// The topic.
        topic: String,
        /// What the field is named as.
        role: &'static str,
        /// The field.
        field: String,
        /// Those that there are.
        fields: String,
    },
    /// A field of a type that can't be used so.
    #[error(
        "topic {topic}: the field {field:?} can't be {role}: it is {found}, and must be {wanted}"
    )]
    WrongType {
        /// The topic.
        topic: String,
        /// What the field is named as.
        role: &'static str,
        /// The field.
        field: String,
        /// Its type.
        found: String,
        /// Types that can be used.
        wanted: &'static str,
    },
    /// A field whose values have no place in a document.
    #[error("topic {topic}: documents can't hold the field {field}")]
    Unsupported {
        /// The topic.
        topic: String,
        /// The field and its type.
        field: String,
    },
    /// Index names with a date, and no time to take it from.
    #[error(
        "topic {topic}: the index pattern {pattern:?} has a date: name the `time` field to take it from"
    )]
    NoTime {
        /// The topic.
        topic: String,
        /// The pattern.
        pattern: String,
    },
    /// Versions of one document could land in several indices.
    #[error(
        "topic {topic}: the index is chosen by {time:?}, which is not among the keys: two versions of a document could land in two indices; add it to the keys, or take the date out of the index pattern"
    )]
    TimeNotInKey {
        /// The topic.
        topic: String,
        /// The time field.
        time: String,
    },
    /// A point whose name is taken, or that appears twice.
    #[error("topic {topic}: the point {name:?} has the name of another field")]
    NameTaken {
        /// The topic.
        topic: String,
        /// The point's name.
        name: String,
    },
    /// Two topics whose indices can't be told apart.
    #[error(
        "topics {first} and {second}: index names of both match {pattern}: give one of them another pattern"
    )]
    Overlap {
        /// One topic.
        first: String,
        /// The other.
        second: String,
        /// The wildcard that both match.
        pattern: String,
    },
    /// A topic named twice, or none at all.
    #[error("name each topic once, and at least one (sink_opensearch.topics)")]
    Topics,
}

impl TopicSettings {
    /// The wildcard that the names of all its indices match, to count its documents by ([`crate::Target::count`]).
    ///
    /// # Errors
    /// When the index pattern is not acceptable.
    pub fn indices(&self) -> Result<String, SettingsError> {
        Ok(index_pattern(self)?.wildcard())
    }
}

/// Whether settings are acceptable side by side, before any schema is known.
pub(crate) fn check(topics: &[TopicSettings]) -> Result<(), SettingsError> {
    if topics.is_empty() {
        return Err(SettingsError::Topics);
    }
    let patterns = topics
        .iter()
        .map(index_pattern)
        .collect::<Result<Vec<_>, _>>()?;
    for (at, first) in topics.iter().enumerate() {
        for (second, pattern) in topics.iter().zip(&patterns).skip(at + 1) {
            if first.topic == second.topic {
                return Err(SettingsError::Topics);
            }
            if patterns[at].overlaps(pattern) {
                return Err(SettingsError::Overlap {
                    first: first.topic.clone(),
                    second: second.topic.clone(),
                    pattern: pattern.wildcard(),
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn topics_whose_indices_could_not_be_told_apart_are_refused() {
        let dated = |topic: &str| TopicSettings::new(topic).timed_by("at");
        assert_eq!(check(&[]), Err(SettingsError::Topics));
        assert_eq!(check(&[dated("a"), dated("a")]), Err(SettingsError::Topics));
        assert_eq!(
            check(&[dated("a"), dated("b"), TopicSettings::new("c")]),
            Ok(())
        );
        let error = check(&[dated("a"), dated("a-late")]).unwrap_err();
        assert!(matches!(error, SettingsError::Overlap { .. }), "{error}");
        assert_eq!(dated("a").indices().unwrap(), "a-*");
    }

    #[test]
    fn settings_refuse_unknown_keys() {
        let read = |text: &str| serde_json::from_str::<TopicSettings>(text);
        let full = r#"{"topic":"t","keys":["a"],"time":"a","zone":"America/New_York",
            "geo_points":[{"name":"p","latitude":"x","longitude":"y"}]}"#;
        let expected = TopicSettings {
            zone: Tz::America__New_York,
            ..TopicSettings::new("t")
        };
        assert_eq!(
            read(full).unwrap(),
            expected
                .keyed_by(&["a"])
                .timed_by("a")
                .with_point("p", "x", "y")
        );
        assert!(read(r#"{"topic":"t","key":["a"]}"#).is_err());
    }

    #[test]
    fn the_shipped_file_fits_the_shipped_schemas() {
        let file: DocumentsFile = toml::from_str(DocumentsFile::TAXI).unwrap();
        let registry = std::sync::Arc::new(schemas::EmbeddedRegistry::in_memory());
        let topics = [
            ("trip_statistics", schemas::shipped::TRIP_STATISTICS),
            ("trips", schemas::shipped::TAXI_TRIP),
        ];
        for (topic, schema) in topics {
            let settings = file.settings(topic);
            assert!(settings.time.is_some(), "{topic} is in the file");
            let decoder = schemas::decode::BatchDecoder::new(registry.clone(), schema).unwrap();
            crate::Layout::new(&settings, &decoder.schema()).unwrap();
            crate::Template::new(&settings, schema).unwrap();
        }
        assert_eq!(file.settings("other"), TopicSettings::new("other"));
        check(&topics.map(|(topic, _)| file.settings(topic))).unwrap();
    }
}
