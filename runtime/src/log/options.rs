//! What a consumer, a producer or a topic is asked for with.

use std::collections::BTreeMap;
use std::time::Duration;

/// How a consumer takes part in its group.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// The consumer group; for a consumer that only assigns partitions by itself, a name for its requests.
    pub group: String,
    /// What the broker's logs call this client.
    pub client_id: String,
    /// The static member id (KIP-345): a member that comes back under it within the session timeout keeps its partitions.
    pub instance_id: Option<String>,
    /// How long the group waits for a silent member before it gives its partitions to others.
    pub session_timeout: Duration,
    /// How long the group waits for a member that does not poll.
    pub max_poll_interval: Duration,
}

impl ConsumerOptions {
    /// A member of `group` with the usual timeouts: 10 s of silence, 5 minutes without a poll.
    pub fn new(group: impl Into<String>) -> Self {
        let group = group.into();
        Self {
            client_id: group.clone(),
            group,
            instance_id: None,
            session_timeout: Duration::from_secs(10),
            max_poll_interval: Duration::from_secs(300),
        }
    }
}

/// How a producer writes.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// What the broker's logs call this client.
    pub client_id: String,
    /// The transactional id: a later producer with the same id fences this one. `None`: idempotent, no transactions.
    pub transactional_id: Option<String>,
    /// How long the broker lets a transaction stand open before it aborts it.
    pub transaction_timeout: Duration,
    /// How long a record may wait for its delivery, retries included.
    pub delivery_timeout: Duration,
    /// How long a record waits for others to share its batch.
    pub linger: Duration,
    /// Whether [`Producer::flush`](super::Producer::flush) says how many records went where. Without that only failures are told, which costs less;
    /// a flush then lets no record wait for others.
    pub counts: bool,
}

impl ProducerOptions {
    /// An idempotent producer without transactions.
    pub fn idempotent(client_id: impl Into<String>) -> Self {
        Self {
            client_id: client_id.into(),
            transactional_id: None,
            transaction_timeout: Duration::from_secs(30),
            delivery_timeout: Duration::from_secs(120),
            linger: Duration::from_millis(20),
            counts: true,
        }
    }

    /// A transactional producer.
    pub fn transactional(transactional_id: impl Into<String>) -> Self {
        let id = transactional_id.into();
        Self {
            client_id: id.clone(),
            transactional_id: Some(id),
            ..Self::idempotent("")
        }
    }
}

/// A topic to be created.
#[derive(Clone, Debug)]
pub struct TopicSpec {
    /// Its name.
    pub name: String,
    /// How many partitions it has.
    pub partitions: i32,
    /// How many brokers keep a copy (`-1`: the broker's default). The embedded log keeps one whatever this says.
    pub replication: i32,
    /// Topic settings under Kafka's names, such as `cleanup.policy`.
    pub config: BTreeMap<String, String>,
}

impl TopicSpec {
    /// A topic with the broker's own replication and settings.
    pub fn new(name: impl Into<String>, partitions: i32) -> Self {
        Self {
            name: name.into(),
            partitions,
            replication: -1,
            config: BTreeMap::new(),
        }
    }

    /// The same with one more setting.
    pub fn with(mut self, key: &str, value: &str) -> Self {
        self.config.insert(key.into(), value.into());
        self
    }
}
