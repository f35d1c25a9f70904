//! What is refused, because rows would be lost or written twice.

use std::sync::Arc;

use runtime::log::fault::{At, Fault, FaultLog};
use runtime::log::{ConsumerOptions, Log as _, OffsetCommit, TopicPartition, TopicSpec};
use schemas::{Registry, RegistryError, SchemaId};
use sink_s3::plan::{Refusal, Refused};
use sink_s3::{Layout, Options, SinkError, TopicOptions};

use crate::world::{GROUP, SCHEMA, TOPIC, World};

fn refusal(error: SinkError) -> Refusal {
    match error {
        SinkError::Refused(Refused { refusal, .. }) => refusal,
        other => panic!("not refused: {other}"),
    }
}

/// A world in which the first flush's plan stands, and nothing else.
fn with_a_plan() -> World {
    let mut world = World::new(1);
    world.produce(100, None);
    let log = FaultLog::with_fault(
        world.log.clone(),
        At::Call("consumer.commit", 0),
        Fault::CrashAfter,
    );
    sink_s3::run(world.options_on(log)).unwrap_err();
    world.restart();
    world
}

#[test]
fn a_compacted_topic_is_refused() {
    let mut world = World::with_topic(TopicSpec::new(TOPIC, 1).with("cleanup.policy", "compact"));
    world.produce(1, None);
    let error = world.run().unwrap_err();
    assert!(matches!(error, SinkError::Topic(_)), "{error}");
    assert!(
        error
            .to_string()
            .contains("cleanup.policy is compact and must be delete"),
        "{error}"
    );
}

#[test]
fn a_lake_with_files_and_a_group_without_offsets_are_refused() {
    let mut world = World::new(2);
    world.produce(100, None);
    world.run().unwrap();
    let other_group = Options {
        consumer: ConsumerOptions::new("another"),
        ..world.options()
    };
    assert_eq!(
        refusal(sink_s3::run(other_group).unwrap_err()),
        Refusal::FilesWithoutOffset
    );
    world.check();
}

#[test]
fn an_offset_that_somebody_else_committed_is_refused() {
    let mut world = World::new(1);
    world.produce(100, None);
    let mut consumer = world.log.consumer(&ConsumerOptions::new(GROUP)).unwrap();
    let partition = TopicPartition::new(TOPIC, 0);
    consumer
        .commit(&[OffsetCommit {
            partition,
            offset: 10,
            metadata: String::new(),
        }])
        .unwrap();
    drop(consumer);
    assert!(matches!(
        refusal(world.run().unwrap_err()),
        Refusal::ForeignOffset { offset: 10, .. }
    ));
}

#[test]
fn a_log_that_begins_after_the_plan_is_refused() {
    let world = with_a_plan();
    world
        .log
        .delete_records(&TopicPartition::new(TOPIC, 0), 1)
        .unwrap();
    assert_eq!(
        refusal(world.run().unwrap_err()),
        Refusal::Overtaken {
            offset: 0,
            log_start: 1
        }
    );
}

#[test]
fn a_log_that_begins_after_the_committed_offset_is_refused() {
    let mut world = World::new(1);
    world.produce(100, None);
    world.run().unwrap();
    world.produce(100, None);
    world
        .log
        .delete_records(&TopicPartition::new(TOPIC, 0), 150)
        .unwrap();
    assert_eq!(
        refusal(world.run().unwrap_err()),
        Refusal::Overtaken {
            offset: 100,
            log_start: 150
        }
    );
}

#[test]
fn a_topic_that_was_created_again_never_mixes_with_the_old_one() {
    let mut world = World::new(1);
    world.produce(100, None);
    world.run().unwrap();
    world.log.delete_topic(TOPIC).unwrap();
    world.log.create_topic(&TopicSpec::new(TOPIC, 1)).unwrap();
    world.produce(60, None);
    match world.run() {
        // where the broker deletes the group's offsets with the topic, the new one is read from its start
        Ok(summary) => assert_eq!(summary.counts.rows, 60),
        Err(error) => assert!(matches!(refusal(error), Refusal::OtherTopic { .. })),
    }
}

/// A registry whose schemas of a number are other ones than were registered.
struct Swapped(Arc<dyn Registry>);

impl Registry for Swapped {
    fn register(&self, subject: &str, schema: &str) -> Result<SchemaId, RegistryError> {
        self.0.register(subject, schema)
    }
    fn by_id(&self, _: SchemaId) -> Result<Arc<str>, RegistryError> {
        Ok(SCHEMA.replace("vendor", "seller").into())
    }
    fn latest(&self, subject: &str) -> Result<Option<(SchemaId, Arc<str>)>, RegistryError> {
        self.0.latest(subject)
    }
}

#[test]
fn a_plan_under_another_schema_is_refused() {
    let world = with_a_plan();
    let registry = Arc::new(Swapped(world.registry.clone()));
    let error = sink_s3::run(Options {
        registry,
        ..world.options()
    })
    .unwrap_err();
    assert!(matches!(
        refusal(error),
        Refusal::OtherFingerprint { start: 0, .. }
    ));
    world.run().unwrap();
    world.check();
}

#[test]
fn a_plan_is_finished_under_its_own_layout_whatever_is_configured_now() {
    let world = with_a_plan();
    let topics = vec![TopicOptions::new(TOPIC, Layout::new())];
    sink_s3::run(Options {
        topics,
        ..world.options()
    })
    .unwrap();
    let files = world.files();
    let first: Vec<_> = files.iter().filter(|file| file.range.start == 0).collect();
    let rest: Vec<_> = files.iter().filter(|file| file.range.start > 0).collect();
    assert!(
        first.len() > 1
            && first
                .iter()
                .all(|file| file.folder.starts_with("year=2016/"))
    );
    assert!(!rest.is_empty() && rest.iter().all(|file| file.folder.is_empty()));
    assert_eq!(files.iter().map(|file| file.rows.len()).sum::<usize>(), 100);
}

#[test]
fn settings_and_schemas_that_make_no_sense_say_what_to_do() {
    let world = World::new(1);
    let layout = Layout::new().by_hour("when", "UTC").unwrap();
    let run = |topics: Vec<TopicOptions>| {
        sink_s3::run(Options {
            topics,
            ..world.options()
        })
        .unwrap_err()
    };
    assert!(matches!(run(Vec::new()), SinkError::Options { .. }));
    assert!(matches!(
        run(vec![TopicOptions::new("errors", Layout::new())]),
        SinkError::Options { .. }
    ));
    let error = run(vec![TopicOptions::new("nowhere", Layout::new())]);
    assert!(matches!(error, SinkError::Log { .. }), "{error}");

    let mut world = World::new(1);
    world.produce(1, None);
    let run = |topic: TopicOptions| {
        sink_s3::run(Options {
            topics: vec![topic],
            ..world.options()
        })
        .unwrap_err()
    };
    let error = run(TopicOptions::new(TOPIC, layout));
    assert!(matches!(error, SinkError::Layout { .. }), "{error}");
    let subject = TopicOptions {
        subject: "none".into(),
        ..TopicOptions::new(TOPIC, Layout::new())
    };
    assert!(run(subject).to_string().contains("register the schema"));
}
