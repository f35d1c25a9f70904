//! What OpenSearch answers, as far as the sink reads it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
pub(super) struct BulkResponse {
    pub(super) items: Vec<Item>,
}

#[derive(Deserialize)]
pub(super) struct Item {
    pub(super) index: ItemResult,
}

#[derive(Deserialize)]
pub(super) struct ItemResult {
    pub(super) status: u16,
    #[serde(default)]
    pub(super) error: Option<Cause>,
}

#[derive(Deserialize)]
pub(super) struct Failure {
    pub(super) error: Option<Cause>,
}

/// OpenSearch's account of a failure: an object, or, from some parts of it, a text.
#[derive(Debug, Default, Deserialize)]
#[serde(from = "AnyCause")]
pub(super) struct Cause {
    pub(super) kind: String,
    pub(super) reason: String,
    pub(super) caused_by: Option<Box<Cause>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum AnyCause {
    Object {
        #[serde(rename = "type", default)]
        kind: String,
        #[serde(default)]
        reason: Option<String>,
        #[serde(default)]
        caused_by: Option<Box<Cause>>,
    },
    Text(String),
}

impl From<AnyCause> for Cause {
    fn from(any: AnyCause) -> Self {
        match any {
            AnyCause::Object {
                kind,
                reason,
                caused_by,
            } => Self {
                kind,
                reason: reason.unwrap_or_default(),
                caused_by,
            },
            AnyCause::Text(reason) => Self {
                kind: String::new(),
                reason,
                caused_by: None,
            },
        }
    }
}

impl Cause {
    /// The index takes no writes for now, as when its disk is almost full.
    pub(super) fn is_block(&self) -> bool {
        self.kind == "cluster_block_exception"
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.kind.as_str(), self.reason.as_str()) {
            ("", "") => f.write_str("no reason given")?,
            ("", reason) => f.write_str(reason)?,
            (kind, reason) => write!(f, "{kind}: {reason}")?,
        }
        match &self.caused_by {
            Some(cause) => write!(f, ": {cause}"),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Count {
    pub(super) count: u64,
    #[serde(rename = "_shards")]
    pub(super) shards: Shards,
}

#[derive(Deserialize)]
pub(super) struct Shards {
    pub(super) failed: u64,
}

/// What a server says of itself.
#[derive(Deserialize)]
pub(super) struct About {
    pub(super) version: Version,
}

#[derive(Deserialize)]
pub(super) struct Version {
    pub(super) number: String,
}

/// An answer of which only the success counts.
#[derive(Deserialize)]
pub(super) struct Ignored {}

/// The index templates of one name.
#[derive(Deserialize)]
pub(super) struct Templates {
    pub(super) index_templates: Vec<NamedTemplate>,
}

#[derive(Deserialize)]
pub(super) struct NamedTemplate {
    pub(super) name: String,
    pub(super) index_template: Value,
}

/// The mappings of indices, by index.
pub(super) type Mappings = BTreeMap<String, IndexMapping>;

#[derive(Deserialize)]
pub(super) struct IndexMapping {
    #[serde(default)]
    pub(super) mappings: Value,
}
