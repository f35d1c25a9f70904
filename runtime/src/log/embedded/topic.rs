//! Topics.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::super::{LogError, TopicDescription};
use super::partition::Partition;
use super::settings::Settings;

/// A topic. One that was deleted stays with those who hold it, and refuses everything.
#[derive(Debug)]
pub(super) struct Topic {
    pub name: Arc<str>,
    pub id: String,
    pub settings: Settings,
    pub partitions: Vec<Arc<Partition>>,
    /// Where the next record without a key begins its turn.
    pub turn: AtomicUsize,
    pub config: BTreeMap<String, String>,
    pub dir: PathBuf,
}

impl Topic {
    /// What is told of it.
    pub fn describe(&self) -> TopicDescription {
        TopicDescription {
            name: self.name.to_string(),
            id: self.id.clone(),
            partitions: self.partitions.len() as i32,
            replication: 1,
            config: self.settings.describe(&self.config),
        }
    }

    /// One of its partitions.
    pub fn partition(&self, number: i32) -> Result<&Arc<Partition>, LogError> {
        usize::try_from(number)
            .ok()
            .and_then(|number| self.partitions.get(number))
            .ok_or_else(|| LogError::UnknownTopic {
                name: format!("{}-{number}", self.name),
            })
    }
}

/// A new topic id: 128 random bits in unpadded URL-safe base64, never with a leading dash, as in Kafka.
pub(super) fn topic_id() -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    loop {
        let bits = uuid::Uuid::new_v4().as_u128();
        // 22 digits of 6 bits; the last one holds 2 bits, and 4 of filling.
        let digit = |place: u32| {
            if place < 21 {
                bits >> (122 - 6 * place)
            } else {
                bits << 4
            }
        };
        let id: String = (0..22)
            .map(|place| char::from(DIGITS[(digit(place) & 63) as usize]))
            .collect();
        if !id.starts_with('-') {
            return id;
        }
    }
}
