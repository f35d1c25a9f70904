//! What a Kafka client says of brokers that are not there, or no longer. librdkafka's own mock broker stands in for them:
//! it is good for outages, not for transactions.

use std::time::{Duration, Instant};

use rdkafka::mocking::MockCluster;
use runtime::log::kafka::{KafkaLog, KafkaOptions};
use runtime::log::{Class, ConsumerOptions, Log, LogError, ProducerOptions, TopicPartition};

use super::support::{commit_of, put};

fn options(brokers: &str) -> KafkaOptions {
    let mut options = KafkaOptions::new(brokers);
    options.connect_timeout = Duration::from_secs(2);
    options.request_timeout = Duration::from_secs(2);
    options.hang_timeout = Duration::from_secs(1);
    options
}

#[test]
fn brokers_that_are_not_there_are_named() {
    let Err(error) = KafkaLog::connect(options("127.0.0.1:1")) else {
        panic!("there is nothing at port 1")
    };
    assert_eq!(error.class(), Class::Retry);
    let text = error.to_string();
    assert!(
        text.contains("127.0.0.1:1") && text.contains("correct log.brokers"),
        "{text}"
    );
}

#[test]
fn a_commit_without_an_answer_is_of_unknown_outcome_within_its_deadline() {
    let cluster = MockCluster::new(1).expect("a mock broker");
    cluster.create_topic("t", 1, 1).expect("a topic");
    let log = KafkaLog::connect(options(&cluster.bootstrap_servers())).expect("it answers");
    let partition = TopicPartition::new("t", 0);
    let mut producer = log
        .producer(&ProducerOptions {
            linger: Duration::ZERO,
            transaction_timeout: Duration::from_secs(10),
            ..ProducerOptions::transactional("id")
        })
        .expect("a producer");
    producer.init_transactions().expect("taken");
    producer.begin().expect("begun");
    put(&mut *producer, &partition, "x");
    producer.flush().expect("delivered");
    let mut consumer = log
        .consumer(&ConsumerOptions::new("group"))
        .expect("a consumer");
    consumer
        .commit(&[commit_of(&partition, 1, "")])
        .expect("committed");

    cluster.broker_down(1).expect("down");
    let start = Instant::now();
    let error = producer.commit().expect_err("nobody answers");
    assert!(matches!(error, LogError::UnknownOutcome { .. }), "{error}");
    let error = producer
        .begin()
        .expect_err("only a new producer can find out");
    assert_eq!(error.class(), Class::Restart, "{error}");
    let error = consumer
        .commit(&[commit_of(&partition, 2, "")])
        .expect_err("nobody answers");
    assert!(
        matches!(error.class(), Class::Retry | Class::Restart),
        "{error}"
    );
    drop(producer);
    drop(consumer);
    assert!(
        start.elapsed() < Duration::from_secs(9),
        "it took {:?}",
        start.elapsed()
    );
}
