//! `headway setup`, and what the binaries refuse to run on, over each broker that is named, with the registry that is named.

use std::time::{SystemTime, UNIX_EPOCH};

use runtime::log::kafka::{KafkaLog, KafkaOptions};

use super::world::alone;
use crate::run::{generate, text};
use crate::setup::{Pipeline, everything_is_there_the_second_time, losing_topics_are_refused};

/// Runs a test on every broker. They all have positions in one topic, so that there is one registry for all runs.
fn on_brokers(test: &str, run: impl Fn(&str, &Pipeline)) {
    let named = |name| std::env::var(name).ok();
    let (Some(brokers), Some(registry)) =
        (named("HEADWAY_TEST_KAFKA"), named("HEADWAY_TEST_REGISTRY"))
    else {
        assert!(
            named("HEADWAY_CI_REAL").is_none(),
            "HEADWAY_CI_REAL is set, and HEADWAY_TEST_KAFKA or HEADWAY_TEST_REGISTRY is not"
        );
        eprintln!(
            "skipped: real::setup::{test}: set HEADWAY_TEST_KAFKA and HEADWAY_TEST_REGISTRY (deploy/local up; export $(deploy/local env))"
        );
        return;
    };
    let _alone = alone();
    for (broker, address) in brokers.split(',').filter_map(|entry| entry.split_once('=')) {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let settings = [
            ("LOG_BROKERS", address),
            ("REGISTRY_URL", registry.as_str()),
        ];
        let at = address.to_owned();
        let name = format!("{test}-{broker}-{}", since.as_millis());
        let pipeline = Pipeline::new(&name, &settings, move |_| {
            KafkaLog::connect(KafkaOptions::new(at.as_str())).unwrap()
        });
        eprintln!("{broker}: {name}");
        run(broker, &pipeline);
    }
}

#[test]
fn the_second_time_everything_is_there_and_a_check_changes_nothing() {
    on_brokers("second-time", |_, pipeline| {
        everything_is_there_the_second_time(pipeline);
    });
}

#[test]
fn topics_that_would_lose_data_are_refused_by_whoever_relies_on_them() {
    on_brokers("losing", |_, pipeline| {
        losing_topics_are_refused(pipeline);
    });
}

#[test]
fn more_than_the_brokers_have_or_allow_is_refused_with_the_key_named() {
    on_brokers("too-much", |broker, pipeline| {
        // kfake takes any number of copies and any timeout.
        if !broker.starts_with("kafka") {
            return;
        }
        let copies = pipeline.with("headway", &["setup", "--replication", "3"], &[]);
        pipeline.refused(&copies, &["log.replication", "fewer brokers"]);
        let created = pipeline.with("headway", &["setup"], &[]);
        assert!(created.status.success(), "{}", text(&created.stderr));
        let csv = generate(pipeline.folder.path(), 50, 3);
        let long = [
            ("HEADWAY_LOG_TRANSACTION_TIMEOUT_MS", "1000000"),
            ("HEADWAY_LOG_SESSION_TIMEOUT_MS", "1500000"),
        ];
        let output = pipeline.with("producer", &[csv.to_str().unwrap()], &long);
        pipeline.refused(
            &output,
            &["log.transaction_timeout_ms", "transaction.max.timeout.ms"],
        );
    });
}
