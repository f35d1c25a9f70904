//! The logs that the suite runs against.

use std::any::Any;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use runtime::log::embedded::{EmbeddedLog, EmbeddedOptions};
use runtime::log::kafka::{KafkaLog, KafkaOptions};
use runtime::log::{ConsumerOptions, Log, ProducerOptions, TopicPartition, TopicSpec};

/// A log under test, with names of its own for each test and times that suit it.
pub struct Target {
    pub name: String,
    pub log: Arc<dyn Log>,
    /// The address of its brokers; `None` for a log in this process.
    pub address: Option<String>,
    /// The shortest session timeout that it allows by default.
    pub session: Duration,
    /// A transaction timeout that a test can wait for.
    pub transaction: Duration,
    /// How long a test waits for what must happen.
    pub patience: Duration,
}

impl Target {
    /// A name that no other test and no earlier run uses.
    pub fn unique(&self, what: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let since = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        format!(
            "{what}-{}-{}-{}",
            since.as_millis(),
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        )
    }

    /// A new topic; its partitions.
    pub fn topic(&self, partitions: i32) -> Vec<TopicPartition> {
        self.topic_with(partitions, &[])
    }

    /// A new topic with settings; its partitions.
    pub fn topic_with(&self, partitions: i32, config: &[(&str, &str)]) -> Vec<TopicPartition> {
        let mut spec = TopicSpec::new(self.unique("conformance"), partitions);
        for (key, value) in config {
            spec = spec.with(key, value);
        }
        assert!(self.log.create_topic(&spec).expect("a topic is created"));
        let topic: Arc<str> = spec.name.into();
        (0..partitions)
            .map(|partition| TopicPartition::new(Arc::clone(&topic), partition))
            .collect()
    }

    /// A member of a group with the shortest timeouts.
    pub fn impatient_member(&self, group: &str) -> ConsumerOptions {
        ConsumerOptions {
            session_timeout: self.session,
            max_poll_interval: self.session,
            ..ConsumerOptions::new(group)
        }
    }

    /// A transactional producer with the suite's usual timeouts.
    pub fn transactional(&self, id: &str) -> ProducerOptions {
        ProducerOptions {
            linger: Duration::from_millis(2),
            ..ProducerOptions::transactional(id)
        }
    }
}

/// Runs a property against the embedded log.
pub fn on_embedded(property: fn(&Target)) {
    let dir = tempfile::tempdir().expect("a folder for the log");
    let log = EmbeddedLog::open(dir.path(), EmbeddedOptions::default()).expect("the log opens");
    property(&Target {
        name: "embedded".into(),
        log,
        address: None,
        // As long as brokers have it: a test that stands still for a moment, on a busy machine, is no member that is gone.
        session: Duration::from_secs(6),
        transaction: Duration::from_secs(5),
        patience: Duration::from_secs(60),
    });
}

/// Runs a property against all brokers named, at the same time.
pub fn on_brokers(name: &str, property: fn(&Target)) {
    let Some(brokers) = std::env::var("HEADWAY_TEST_KAFKA")
        .ok()
        .filter(|list| !list.trim().is_empty())
    else {
        // Not a print macro: the test harness would hold its output back.
        let line = format!(
            "skipped: kafka::{name}: set HEADWAY_TEST_KAFKA=name=host:port,… (deploy/local up; deploy/local env)\n"
        );
        std::io::stderr().write_all(line.as_bytes()).ok();
        return;
    };
    let runs: Vec<_> = brokers
        .split(',')
        .map(|entry| {
            let (broker, address) = entry
                .trim()
                .split_once('=')
                .unwrap_or_else(|| panic!("HEADWAY_TEST_KAFKA: {entry:?} is not name=host:port"));
            let (broker, address) = (broker.to_string(), address.to_string());
            let run = std::thread::Builder::new().name(format!("{broker}::{name}"));
            (
                broker.clone(),
                run.spawn(move || property(&broker_target(broker, &address)))
                    .unwrap(),
            )
        })
        .collect();
    let failures: Vec<String> = runs
        .into_iter()
        .filter_map(|(broker, run)| {
            run.join()
                .err()
                .map(|panic| format!("on {broker}: {}", message(&*panic)))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

pub fn broker_target(name: String, address: &str) -> Target {
    let mut options = KafkaOptions::new(address);
    options.client_id = "conformance".into();
    // A queue that fills up, so that each test that sends much meets back-pressure.
    options
        .extra
        .insert("queue.buffering.max.messages".into(), "2000".into());
    let log = KafkaLog::connect(options).expect("the broker answers");
    Target {
        name,
        log,
        address: Some(address.into()),
        session: Duration::from_secs(6),
        transaction: Duration::from_secs(5),
        patience: Duration::from_secs(60),
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<String>(), panic.downcast_ref::<&str>()) {
        (Some(text), _) => text.clone(),
        (None, Some(text)) => (*text).to_string(),
        (None, None) => "a panic without a message".into(),
    }
}
