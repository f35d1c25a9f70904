//! Settings of the clients.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};

use super::super::{ConsumerOptions, LogError, ProducerOptions};

/// The largest record that the clients take, in bytes; a topic's own `max.message.bytes` may be lower.
const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;

/// How long a record waits at least for others to share its batch where a flush ends that wait, so that it costs nothing.
/// Small batches cost much: while one of a partition is under way and the next is due, librdkafka's thread asks itself without
/// a pause whether it may go out.
const LEAST_LINGER: Duration = Duration::from_millis(20);

/// How to reach a cluster, and what all its clients share.
#[derive(Clone, Debug)]
pub struct KafkaOptions {
    /// The first addresses to ask, `host:port` separated by commas.
    pub brokers: String,
    /// What the brokers' logs call this program; consumers and producers add their own name.
    pub client_id: String,
    /// Further settings of librdkafka, such as `security.protocol`, `sasl.*`, `ssl.*`. They win over this log's own,
    /// save those on which its guarantees rest (offsets, isolation, idempotence, assignment).
    pub extra: BTreeMap<String, String>,
    /// How long [`super::KafkaLog::connect`] waits for a first answer.
    pub connect_timeout: Duration,
    /// How long a request may take, retries included.
    pub request_timeout: Duration,
    /// How long, beyond its own timeout, a transactional call may hang before it is given up.
    pub hang_timeout: Duration,
    /// The most memory that records waiting for delivery take in one producer.
    pub producer_queue_bytes: usize,
    /// How many bytes of records are read ahead for one partition; what stands beside each record in memory comes on top.
    pub consumer_queue_bytes: usize,
}

impl KafkaOptions {
    /// The cluster at these addresses, with the usual settings.
    pub fn new(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: "headway".into(),
            extra: BTreeMap::new(),
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(30),
            hang_timeout: Duration::from_secs(5),
            producer_queue_bytes: 256 * 1024 * 1024,
            consumer_queue_bytes: 512 * 1024,
        }
    }

    /// Says at once what no client could be built with.
    pub(super) fn check(&self) -> Result<(), LogError> {
        let protocol = self
            .extra
            .get("security.protocol")
            .map(|protocol| protocol.to_ascii_lowercase());
        let tls = matches!(protocol.as_deref(), Some("ssl" | "sasl_ssl"));
        if tls && !cfg!(feature = "tls") {
            return Err(LogError::Config {
                detail: format!(
                    "security.protocol = {} needs TLS, which this program was built without: build it with the feature `tls` \
                     of package runtime (it needs OpenSSL)",
                    protocol.unwrap_or_default()
                ),
            });
        }
        let mechanism = self
            .extra
            .get("sasl.mechanism")
            .or_else(|| self.extra.get("sasl.mechanisms"));
        let scram =
            mechanism.is_some_and(|mechanism| mechanism.to_ascii_uppercase().starts_with("SCRAM"));
        if scram && !cfg!(feature = "tls") {
            return Err(LogError::Config {
                detail: "SCRAM authentication needs OpenSSL, which this program was built without: build it with the feature \
                         `tls` of package runtime"
                    .into(),
            });
        }
        let bad = self.brokers.split(',').find(|address| {
            let host_and_port = address.trim().rsplit_once(':');
            !host_and_port
                .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok())
        });
        match bad {
            Some(address) => Err(LogError::Config {
                detail: format!(
                    "the broker address {address:?} is not host:port, such as 127.0.0.1:9092"
                ),
            }),
            None => Ok(()),
        }
    }

    fn base(&self, client_id: &str) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(RDKafkaLogLevel::Info);
        config.set("bootstrap.servers", &self.brokers);
        config.set(
            "client.id",
            if client_id.is_empty() {
                &self.client_id
            } else {
                client_id
            },
        );
        config.set("socket.nagle.disable", "true");
        config.set("socket.keepalive.enable", "true");
        // No telemetry to the brokers, whose end a client would wait for.
        config.set("enable.metrics.push", "false");
        config.set("socket.timeout.ms", millis(self.request_timeout));
        // A broker that restarts is found again soon.
        config.set("reconnect.backoff.max.ms", "2000");
        config.set("message.max.bytes", MAX_MESSAGE_BYTES.to_string());
        config
    }

    fn finish(&self, mut config: ClientConfig, fixed: &[(&str, &str)]) -> ClientConfig {
        for (key, value) in &self.extra {
            config.set(key, value);
        }
        for (key, value) in fixed {
            config.set(*key, *value);
        }
        config
    }

    /// A client that only asks. With `committed`, the end of a partition is its last stable offset, else its end.
    pub(super) fn reader(&self, committed: bool) -> ClientConfig {
        let isolation = if committed {
            "read_committed"
        } else {
            "read_uncommitted"
        };
        let fixed = [
            ("isolation.level", isolation),
            ("enable.auto.commit", "false"),
        ];
        self.finish(self.base(""), &fixed)
    }

    /// A client for administration.
    pub(super) fn administrator(&self) -> ClientConfig {
        let mut config = self.finish(self.base(""), &[]);
        // Nobody polls this client's log queue.
        config.set_log_level(RDKafkaLogLevel::Emerg);
        config
    }

    pub(super) fn consumer(&self, options: &ConsumerOptions) -> ClientConfig {
        let mut config = self.base(&options.client_id);
        config.set("group.id", &options.group);
        if let Some(instance_id) = &options.instance_id {
            config.set("group.instance.id", instance_id);
        }
        config.set("session.timeout.ms", millis(options.session_timeout));
        config.set("max.poll.interval.ms", millis(options.max_poll_interval));
        // A member hears of a rebalance by its heartbeat.
        let heartbeat = options.session_timeout / 10;
        config.set(
            "heartbeat.interval.ms",
            millis(heartbeat.clamp(Duration::from_millis(100), Duration::from_secs(3))),
        );
        // A partition newly assigned waits for the fetch that is under way.
        config.set("fetch.wait.max.ms", "100");
        config.set("fetch.queue.backoff.ms", "1");
        config.set("fetch.error.backoff.ms", "100");
        config.set(
            "queued.max.messages.kbytes",
            (self.consumer_queue_bytes / 1024).max(1).to_string(),
        );
        // An answer holds that much of a partition as it lies on the broker, compressed: unpacked it may go far beyond the
        // queue's bound, which is looked at between answers only. A larger batch comes whole (KIP-74).
        config.set(
            "fetch.message.max.bytes",
            (self.consumer_queue_bytes / 4)
                .clamp(64 * 1024, 1024 * 1024)
                .to_string(),
        );
        // Members of a group are given new partitions once the client has seen them.
        config.set("topic.metadata.refresh.interval.ms", "10000");
        let fixed = [
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            ("auto.offset.reset", "error"),
            ("isolation.level", "read_committed"),
            ("enable.partition.eof", "true"),
            ("allow.auto.create.topics", "false"),
            ("partition.assignment.strategy", "cooperative-sticky"),
        ];
        self.finish(config, &fixed)
    }

    pub(super) fn producer(&self, options: &ProducerOptions) -> ClientConfig {
        let mut config = self.base(&options.client_id);
        config.set("compression.type", "lz4");
        let linger = match options.counts {
            true => options.linger,
            false => options.linger.max(LEAST_LINGER),
        };
        config.set("linger.ms", linger.as_millis().to_string());
        config.set(
            "queue.buffering.max.kbytes",
            (self.producer_queue_bytes / 1024).max(1).to_string(),
        );
        config.set("topic.metadata.propagation.max.ms", "10000");
        let mut delivery = options.delivery_timeout;
        if let Some(id) = &options.transactional_id {
            // No record may outlive its transaction.
            delivery = delivery.min(options.transaction_timeout);
            config.set(
                "socket.timeout.ms",
                millis(self.request_timeout.min(options.transaction_timeout)),
            );
            config.set("transactional.id", id);
            config.set(
                "transaction.timeout.ms",
                millis(options.transaction_timeout),
            );
        }
        config.set("message.timeout.ms", millis(delivery));
        let only_failures = if options.counts { "false" } else { "true" };
        let fixed = [
            ("enable.idempotence", "true"),
            ("partitioner", "murmur2_random"),
            ("delivery.report.only.error", only_failures),
        ];
        self.finish(config, &fixed)
    }
}

fn millis(duration: Duration) -> String {
    duration.as_millis().max(1).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_guarantees_settings_can_not_be_overridden() {
        let mut options = KafkaOptions::new("a:1");
        for key in [
            "enable.auto.commit",
            "isolation.level",
            "auto.offset.reset",
            "enable.idempotence",
            "linger.ms",
        ] {
            options.extra.insert(key.into(), "77".into());
        }
        let consumer = options.consumer(&ConsumerOptions::new("g"));
        assert_eq!(consumer.get("enable.auto.commit"), Some("false"));
        assert_eq!(consumer.get("isolation.level"), Some("read_committed"));
        assert_eq!(consumer.get("auto.offset.reset"), Some("error"));
        let producer = options.producer(&ProducerOptions::transactional("t"));
        assert_eq!(producer.get("enable.idempotence"), Some("true"));
        assert_eq!(producer.get("linger.ms"), Some("77"));
    }

    #[test]
    fn a_record_never_outlives_its_transaction() {
        let options = ProducerOptions::transactional("t");
        let config = KafkaOptions::new("a:1").producer(&options);
        assert_eq!(config.get("message.timeout.ms"), Some("30000"));
    }

    #[test]
    fn addresses_that_are_none_are_refused_by_name() {
        for brokers in ["", "localhost", "a:1,b", "a:x", ":9092", "a:99999"] {
            let error = KafkaOptions::new(brokers).check().expect_err(brokers);
            assert!(matches!(error, LogError::Config { .. }), "{error}");
        }
        KafkaOptions::new("a:1, [::1]:9092").check().unwrap();
    }

    #[test]
    #[cfg(not(feature = "tls"))]
    fn tls_without_its_feature_is_refused_with_what_to_build() {
        let mut options = KafkaOptions::new("a:1");
        options
            .extra
            .insert("security.protocol".into(), "SASL_SSL".into());
        let error = options.check().expect_err("no TLS");
        assert!(error.to_string().contains("feature `tls`"), "{error}");
    }
}
