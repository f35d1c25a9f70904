//! The topic settings that this log acts on.

use std::collections::BTreeMap;

use super::super::LogError;

const TIMESTAMP_TYPE: &str = "message.timestamp.type";
const CREATE_TIME: &str = "CreateTime";
const APPEND_TIME: &str = "LogAppendTime";

/// The settings of a topic, under Kafka's names in the comments. Others are kept and told, but nothing follows from
/// them; above all, records are never deleted by age or size.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings {
    /// `cleanup.policy` names `compact`.
    pub compact: bool,
    /// `max.message.bytes`.
    pub max_message_bytes: usize,
    /// `segment.bytes`.
    pub segment_bytes: u64,
    /// `segment.ms`.
    pub segment_ms: i64,
    /// `min.cleanable.dirty.ratio`.
    pub dirty_ratio: f64,
    /// `delete.retention.ms`.
    pub delete_retention_ms: i64,
    /// `message.timestamp.type` is `LogAppendTime`: records get this log's time, whatever their writer says.
    pub append_time: bool,
}

impl Settings {
    /// Reads the settings of a topic.
    pub fn read(config: &BTreeMap<String, String>, segment_bytes: u64) -> Result<Self, LogError> {
        let policy = config
            .get("cleanup.policy")
            .map_or("delete", String::as_str);
        let mut compact = false;
        for part in policy.split(',') {
            match part.trim() {
                "compact" => compact = true,
                "delete" => {}
                other => return Err(refused("cleanup.policy", other)),
            }
        }
        let append_time = match config.get(TIMESTAMP_TYPE).map(|text| text.trim()) {
            None | Some(CREATE_TIME) => false,
            Some(APPEND_TIME) => true,
            Some(other) => return Err(refused(TIMESTAMP_TYPE, other)),
        };
        Ok(Self {
            compact,
            append_time,
            max_message_bytes: number(config, "max.message.bytes", 1_048_588)?,
            segment_bytes: number(config, "segment.bytes", segment_bytes)?.max(1),
            segment_ms: number(config, "segment.ms", 604_800_000)?,
            dirty_ratio: number(config, "min.cleanable.dirty.ratio", 0.5_f64)?.clamp(0.0, 0.99),
            delete_retention_ms: number(config, "delete.retention.ms", 86_400_000)?,
        })
    }

    /// What is told of a topic: what it was created with, and the defaults of what is acted on.
    pub fn describe(&self, config: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        let mut all = BTreeMap::from([
            ("cleanup.policy".into(), "delete".into()),
            ("retention.ms".into(), "-1".into()),
            ("retention.bytes".into(), "-1".into()),
            (
                "max.message.bytes".into(),
                self.max_message_bytes.to_string(),
            ),
            ("segment.bytes".into(), self.segment_bytes.to_string()),
            ("segment.ms".into(), self.segment_ms.to_string()),
            (TIMESTAMP_TYPE.into(), CREATE_TIME.into()),
            (
                "min.cleanable.dirty.ratio".into(),
                self.dirty_ratio.to_string(),
            ),
            (
                "delete.retention.ms".into(),
                self.delete_retention_ms.to_string(),
            ),
        ]);
        all.extend(config.clone());
        all
    }
}

fn number<T: std::str::FromStr>(
    config: &BTreeMap<String, String>,
    name: &str,
    default: T,
) -> Result<T, LogError> {
    config.get(name).map_or(Ok(default), |text| {
        text.trim().parse().map_err(|_| refused(name, text))
    })
}

fn refused(name: &str, value: &str) -> LogError {
    LogError::Config {
        detail: format!("a topic can't have {name} = {value:?}"),
    }
}
