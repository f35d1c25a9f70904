//! What must hold between keys.

use std::collections::BTreeMap;

use super::layers::Setting;
use super::problem::{Origin, Problem};
use super::{Config, Millis};

/// Adds what is wrong between keys that are right by themselves.
pub(super) fn between_keys(
    config: &Config,
    settings: &BTreeMap<String, Setting>,
    problems: &mut Vec<Problem>,
) {
    // The setting at fault is the one that somebody wrote; where both were written, the first named.
    let origin = |names: [&str; 2]| {
        names
            .iter()
            .find_map(|name| settings.get(*name))
            .map_or(Origin::Default, |setting| setting.origin.clone())
    };
    let mut shorter = |a: (&str, Millis), b: (&str, Millis), why: &str| {
        if a.1 >= b.1 {
            let what = format!(
                "{} ({}) must be less than {} ({}): {why}",
                a.0, a.1.0, b.0, b.1.0
            );
            problems.push(Problem::new(origin([a.0, b.0]), what));
        }
    };
    let transaction = (
        "log.transaction_timeout_ms",
        config.log.transaction_timeout_ms,
    );
    let session = ("log.session_timeout_ms", config.log.session_timeout_ms);
    shorter(
        transaction,
        session,
        "a dead member's transaction must be over before its partitions are given to others",
    );
    let long = "the broker would abort transactions before they are committed";
    shorter(
        (
            "processor.commit_interval_ms",
            config.processor.commit_interval_ms,
        ),
        transaction,
        long,
    );
    shorter(
        (
            "producer.commit_interval_ms",
            config.producer.commit_interval_ms,
        ),
        transaction,
        long,
    );

    let mut at_least_one = |name: &str, value: u64| {
        if value == 0 {
            problems.push(Problem::new(
                origin([name, name]),
                format!("{name} must be at least 1"),
            ));
        }
    };
    at_least_one(
        "log.producer_queue_bytes",
        config.log.producer_queue_bytes as u64,
    );
    at_least_one(
        "log.consumer_queue_bytes",
        config.log.consumer_queue_bytes as u64,
    );
    at_least_one("processor.workers", config.processor.workers.into());
    at_least_one("processor.shards", config.processor.shards.into());
    at_least_one(
        "processor.commit_interval_ms",
        config.processor.commit_interval_ms.0,
    );
    at_least_one("processor.query_rows", config.processor.query_rows as u64);
    at_least_one(
        "processor.query_timeout_ms",
        config.processor.query_timeout_ms.0,
    );
    at_least_one(
        "processor.query_memory_bytes",
        config.processor.query_memory_bytes as u64,
    );
    at_least_one(
        "producer.commit_interval_ms",
        config.producer.commit_interval_ms.0,
    );
    at_least_one("producer.commit_rows", config.producer.commit_rows);
    at_least_one("sink_s3.flush_bytes", config.sink_s3.flush_bytes);
    at_least_one("sink_s3.flush_rows", config.sink_s3.flush_rows);
    at_least_one("sink_s3.memory_bytes", config.sink_s3.memory_bytes);
    at_least_one(
        "sink_s3.flush_interval_ms",
        config.sink_s3.flush_interval_ms.0,
    );
    at_least_one(
        "sink_s3.request_timeout_ms",
        config.sink_s3.request_timeout_ms.0,
    );
    at_least_one(
        "sink_opensearch.bulk_bytes",
        config.sink_opensearch.bulk_bytes,
    );
    at_least_one(
        "sink_opensearch.request_timeout_ms",
        config.sink_opensearch.request_timeout_ms.0,
    );
    for (name, value) in [
        ("log.replication", config.log.replication),
        ("log.min_insync_replicas", config.log.min_insync_replicas),
    ] {
        if value == 0 || value < -1 {
            problems.push(Problem::new(
                origin([name, name]),
                format!("{name} must be at least 1, or -1 for the broker's default"),
            ));
        }
    }
    let (copies, in_sync) = (config.log.replication, config.log.min_insync_replicas);
    if copies > 0 && in_sync > copies {
        problems.push(Problem::new(
            origin(["log.min_insync_replicas", "log.replication"]),
            format!("log.min_insync_replicas ({in_sync}) can't be more than log.replication ({copies}): nothing could be written"),
        ));
    }
    if !(config.producer.rate >= 0.0 && config.producer.rate.is_finite()) {
        let name = "producer.rate";
        problems.push(Problem::new(
            origin([name, name]),
            format!("{name} must be 0 (no limit) or more"),
        ));
    }
}
