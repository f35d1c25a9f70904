//! The settings as types, one struct per section of `defaults.toml`. A key stands in both, and nowhere else.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::secret::{Secret, names_a_secret};

/// A length of time, in whole milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// As a duration.
    pub fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

/// Which log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// A Kafka-protocol broker.
    Kafka,
    /// In this process.
    Embedded,
}

/// Settings for librdkafka, under its own names. Debug shows no secret.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct ClientSettings(pub BTreeMap<String, String>);

impl fmt::Debug for ClientSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self
            .0
            .iter()
            .map(|(name, value)| (name, if names_a_secret(name) { "***" } else { value }));
        f.debug_map().entries(shown).finish()
    }
}

/// `[log]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// Which log.
    pub kind: LogKind,
    /// The brokers, host:port, separated by commas.
    pub brokers: String,
    /// The embedded log's folder.
    pub dir: PathBuf,
    /// What the broker calls this client.
    pub client_id: String,
    /// How long a silent group member keeps its partitions.
    pub session_timeout_ms: Millis,
    /// How long a member may go without polling.
    pub max_poll_interval_ms: Millis,
    /// How long a transaction may stand open.
    pub transaction_timeout_ms: Millis,
    /// How long a record may wait for its delivery.
    pub delivery_timeout_ms: Millis,
    /// How long a record waits for others.
    pub linger_ms: Millis,
    /// How long a start waits for a first answer.
    pub connect_timeout_ms: Millis,
    /// How long a request may take, retries included.
    pub request_timeout_ms: Millis,
    /// The most memory for records waiting for delivery, for each producer.
    pub producer_queue_bytes: usize,
    /// How many bytes of records are read ahead, for each partition.
    pub consumer_queue_bytes: usize,
    /// Copies of each topic; −1 is the broker's default.
    pub replication: i32,
    /// Copies that must have a record before it counts as written; −1 is the broker's default.
    pub min_insync_replicas: i32,
    /// Settings for librdkafka.
    pub client: ClientSettings,
}

/// Which registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RegistryKind {
    /// A server with Confluent's API.
    Http,
    /// A file.
    Embedded,
}

/// `[registry]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegistryConfig {
    /// Which registry.
    pub kind: RegistryKind,
    /// The server's address.
    pub url: String,
    /// The embedded registry's file.
    pub file: PathBuf,
    /// The user name; empty: none.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// Authorities to trust; empty: the system's.
    pub ca_file: PathBuf,
    /// How long a call may take.
    pub timeout_ms: Millis,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// `[telemetry]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetryConfig {
    /// A level, or directives by module.
    pub log_level: String,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Where the HTTP edge listens; empty: nowhere.
    pub http_address: String,
}

/// `[producer]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProducerConfig {
    /// The topic that rows go to.
    pub topic: String,
    /// The mapping file.
    pub mapping: PathBuf,
    /// The most rows a second; 0: no limit.
    pub rate: f64,
    /// The most rows in one commit.
    pub commit_rows: u64,
    /// How often rows are committed.
    pub commit_interval_ms: Millis,
}

/// `[processor]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessorConfig {
    /// The job's file.
    pub job: PathBuf,
    /// The name under which the job runs.
    pub application_id: String,
    /// The application whose queries it takes over; empty: none.
    pub takes_over: String,
    /// How many workers run in this process.
    pub workers: u16,
    /// Whether a process that is stopped keeps its partitions for a moment.
    pub keep_partitions_on_stop: bool,
    /// How many shards a new job gets.
    pub shards: u16,
    /// How often results are committed.
    pub commit_interval_ms: Millis,
    /// After how many rows to be folded again a snapshot is taken.
    pub snapshot_after_rows: u64,
    /// How many bytes of state are held in memory.
    pub state_memory_bytes: u64,
    /// The folder for state that goes to disk; empty: the system's for temporary files.
    pub spill_dir: PathBuf,
    /// What the jitter of `mask_coordinate` is derived from.
    pub mask_salt: Secret,
    /// Whether state can be asked for over HTTP.
    pub query_enabled: bool,
    /// The most rows of an answer.
    pub query_rows: usize,
    /// The longest that an answer may take.
    pub query_timeout_ms: Millis,
    /// The most memory of copied rows, and of an answer.
    pub query_memory_bytes: usize,
    /// How many last results are kept of each query.
    pub recent_rows: usize,
    /// The most memory of them.
    pub recent_bytes: usize,
}

/// Where a request to S3 names the bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum S3Addressing {
    /// In the host at AWS, in the path with an endpoint of one's own.
    Auto,
    /// In the path.
    Path,
    /// In the host.
    Host,
}

/// `[sink_s3]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkS3Config {
    /// The topics to write.
    pub topics: Vec<String>,
    /// The consumer group.
    pub group: String,
    /// The lake: `s3://bucket/prefix`, or a local folder.
    pub url: String,
    /// The store's address, where it is not AWS; empty: AWS.
    pub endpoint: String,
    /// The region; empty: from AWS_REGION, else us-east-1.
    pub region: String,
    /// Where a request names the bucket.
    pub addressing: S3Addressing,
    /// A PEM file with further authorities for the store's certificate; empty: none.
    pub ca_file: PathBuf,
    /// The access key; empty: from the usual AWS places.
    pub access_key_id: Secret,
    /// The secret key.
    pub secret_access_key: Secret,
    /// The session token.
    pub session_token: Secret,
    /// How long a start waits for a first answer.
    pub connect_timeout_ms: Millis,
    /// How long a request may take, beside a second for each mebibyte.
    pub request_timeout_ms: Millis,
    /// Flush after about this many bytes of Parquet.
    pub flush_bytes: u64,
    /// Flush after this many rows.
    pub flush_rows: u64,
    /// Flush after this time.
    pub flush_interval_ms: Millis,
    /// The most memory that gathered rows take.
    pub memory_bytes: u64,
    /// The folder for temporary files; empty: the system's.
    pub spill_dir: PathBuf,
    /// The timestamp column that year, month, day and hour are taken from; empty: none.
    pub partition_time: String,
    /// Their time zone, an IANA name.
    pub partition_zone: String,
    /// The columns that partition files further.
    pub partition_columns: Vec<String>,
    /// The timestamp columns of topics that have another one.
    pub partition_time_by_topic: BTreeMap<String, String>,
}

/// `[sink_opensearch]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SinkOpenSearchConfig {
    /// The topics to write.
    pub topics: Vec<String>,
    /// How each topic's records become documents: a file, or a shipped one's name; empty: none.
    pub documents: PathBuf,
    /// The consumer group.
    pub group: String,
    /// OpenSearch's address, or `sqlite:FILE`.
    pub url: String,
    /// The user name; empty: none.
    pub username: String,
    /// The password.
    pub password: Secret,
    /// A file with certificates to trust; empty: the system's alone.
    pub ca_file: PathBuf,
    /// How long a start waits for a first answer.
    pub connect_timeout_ms: Millis,
    /// How long a request may take.
    pub request_timeout_ms: Millis,
    /// Send a bulk request after this many bytes.
    pub bulk_bytes: u64,
    /// Send a bulk request after this time.
    pub flush_interval_ms: Millis,
}
