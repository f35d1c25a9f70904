//! A topic's settings, held against the schema of its batches.

use arrow::datatypes::{DataType, Schema};

use super::index::IndexNames;
use super::{index_pattern, json};
use crate::settings::{SettingsError, TopicSettings};

/// How the batches of one topic become documents: its settings, held against its schema.
#[derive(Debug)]
pub struct Layout {
    pub(super) keys: Vec<usize>,
    pub(super) version: Option<usize>,
    pub(super) time: Option<usize>,
    pub(super) names: IndexNames,
    pub(super) points: Vec<Point>,
    /// `"name":` of each column.
    pub(super) members: Vec<Vec<u8>>,
}

#[derive(Debug)]
pub(super) struct Point {
    pub(super) name: String,
    pub(super) member: Vec<u8>,
    pub(super) latitude: usize,
    pub(super) longitude: usize,
}

impl Layout {
    /// Holds a topic's settings against the schema of its batches.
    ///
    /// # Errors
    /// When a named field is missing or of the wrong type, when the schema has a field that documents can't hold, or
    /// when versions of one document could land in several indices.
    pub fn new(settings: &TopicSettings, schema: &Schema) -> Result<Self, SettingsError> {
        let topic = || settings.topic.clone();
        let find = |role: &'static str, name: &str| {
            schema.index_of(name).map_err(|_| SettingsError::NoField {
                topic: topic(),
                role,
                field: name.to_owned(),
                fields: schema
                    .fields()
                    .iter()
                    .map(|field| field.name().as_str())
                    .collect::<Vec<_>>()
                    .join(", "),
            })
        };
        let wrong =
            |role: &'static str, at: usize, wanted: &'static str| SettingsError::WrongType {
                topic: topic(),
                role,
                field: schema.field(at).name().clone(),
                found: schema.field(at).data_type().to_string(),
                wanted,
            };
        for field in schema.fields() {
            json::supported(field).map_err(|field| SettingsError::Unsupported {
                topic: topic(),
                field,
            })?;
        }

        let mut keys = Vec::new();
        for name in &settings.keys {
            let at = find("a key", name)?;
            if !json::can_be_key(schema.field(at)) {
                return Err(wrong(
                    "a key",
                    at,
                    "a whole number, text, enum, boolean, uuid, date or timestamp",
                ));
            }
            keys.push(at);
        }
        let whole = |at: usize| {
            matches!(
                schema.field(at).data_type(),
                DataType::Int32 | DataType::Int64
            )
        };
        let version = match &settings.version {
            Some(name) => {
                let at = find("the version", name)?;
                if !whole(at) {
                    return Err(wrong("the version", at, "an int or long"));
                }
                Some(at)
            }
            None => schema.index_of("version").ok().filter(|at| whole(*at)),
        };
        let pattern = index_pattern(settings)?;
        let time = match (&settings.time, pattern.dated()) {
            (Some(name), true) => {
                let at = find("the time", name)?;
                if !matches!(
                    schema.field(at).data_type(),
                    DataType::Timestamp(_, _) | DataType::Date32
                ) {
                    return Err(wrong("the time", at, "a timestamp or date"));
                }
                if !keys.is_empty() && !keys.contains(&at) {
                    return Err(SettingsError::TimeNotInKey {
                        topic: topic(),
                        time: name.clone(),
                    });
                }
                Some(at)
            }
            (Some(name), false) => {
                find("the time", name)?;
                None
            }
            (None, true) => {
                return Err(SettingsError::NoTime {
                    topic: topic(),
                    pattern: settings.pattern().to_owned(),
                });
            }
            (None, false) => None,
        };
        let mut points: Vec<Point> = Vec::new();
        for point in &settings.geo_points {
            let coordinate = |role, name: &str| {
                let at = find(role, name)?;
                match schema.field(at).data_type() {
                    DataType::Float32 | DataType::Float64 => Ok(at),
                    _ => Err(wrong(role, at, "a float or double")),
                }
            };
            let (latitude, longitude) = (
                coordinate("a latitude", &point.latitude)?,
                coordinate("a longitude", &point.longitude)?,
            );
            if schema.index_of(&point.name).is_ok()
                || points.iter().any(|other| other.name == point.name)
            {
                return Err(SettingsError::NameTaken {
                    topic: topic(),
                    name: point.name.clone(),
                });
            }
            let member = json::member_name(&point.name);
            points.push(Point {
                name: point.name.clone(),
                member,
                latitude,
                longitude,
            });
        }
        let members = schema
            .fields()
            .iter()
            .map(|field| json::member_name(field.name()))
            .collect();
        Ok(Self {
            keys,
            version,
            time,
            names: IndexNames::new(pattern),
            points,
            members,
        })
    }
}
