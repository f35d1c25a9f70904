//! What is refused at the start, with what to do.

use std::error::Error as _;
use std::sync::Arc;

use runtime::log::{Log, TopicPartition, TopicSpec};
use sink_opensearch::{SinkError, SqliteTarget, TopicSettings, run};

use crate::support::{GROUP, TOPIC, World};

struct Start {
    folder: tempfile::TempDir,
    world: World,
    target: Arc<SqliteTarget>,
}

fn begin() -> Start {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(&folder.path().join("log"));
    world.write(50, false);
    let target = Arc::new(SqliteTarget::open(folder.path().join("documents")).unwrap());
    Start {
        folder,
        world,
        target,
    }
}

impl Start {
    fn refused(&self, topics: Vec<TopicSettings>) -> String {
        let mut options = self
            .world
            .options(self.world.log.clone(), self.target.clone());
        options.topics = topics;
        options.lifecycle.drain();
        let error = run(options).unwrap_err();
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

#[test]
fn what_can_not_be_read_is_refused_with_what_to_do() {
    let start = begin();
    let missing = start.refused(vec![TopicSettings::new("nowhere")]);
    assert!(missing.contains("headway setup"), "{missing}");
    let field = start.refused(vec![TopicSettings::new(TOPIC).keyed_by(&["driver"])]);
    assert!(field.contains("it has window_start, vendor_id"), "{field}");
    start
        .world
        .log
        .create_topic(&TopicSpec::new("raw", 1))
        .unwrap();
    let mut producer = start
        .world
        .log
        .producer(&runtime::log::ProducerOptions::idempotent("w"))
        .unwrap();
    let record = runtime::log::NewRecord {
        topic: "raw",
        partition: Some(0),
        key: None,
        value: Some(b"x"),
        headers: &[],
        timestamp_ms: None,
    };
    producer.send(record).unwrap();
    producer.flush().unwrap();
    let schema = start.refused(vec![TopicSettings::new("raw")]);
    assert!(
        schema.contains("raw-value") && schema.contains("schemas register"),
        "{schema}"
    );
}

#[test]
fn a_group_that_stands_where_the_topic_has_nothing_is_refused() {
    let start = begin();
    start.world.drain(start.target.clone()).unwrap();
    let settings = || vec![crate::support::settings()];
    let mut world = start.world;
    world.write(200, false);
    for number in 0..crate::support::PARTITIONS {
        let partition = TopicPartition::new(TOPIC, number);
        let end = world.log.bounds(&partition).unwrap().end;
        world.log.delete_records(&partition, end).unwrap();
    }
    world.write(20, false);
    let start = Start { world, ..start };
    let gap = start.refused(settings());
    assert!(gap.contains("reset the group's offset by hand"), "{gap}");

    start.world.log.delete_topic(TOPIC).unwrap();
    start
        .world
        .log
        .create_topic(&TopicSpec::new(TOPIC, crate::support::PARTITIONS))
        .unwrap();
    let error = {
        let committed = start
            .world
            .log
            .committed(GROUP, &[TopicPartition::new(TOPIC, 0)])
            .unwrap();
        // a broker may forget the offsets with the topic; then there is nothing to refuse
        committed[0].is_some().then(|| start.refused(settings()))
    };
    if let Some(error) = error {
        assert!(error.contains("deleted and created again"), "{error}");
    }
    drop(start.folder);
}

#[test]
fn settings_errors_come_before_anything_is_read() {
    let start = begin();
    let mut options = start
        .world
        .options(start.world.log.clone(), start.target.clone());
    options.topics = vec![];
    assert!(matches!(run(options), Err(SinkError::Settings(_))));
}
