//! What ends a flush and what does not, and what is in it.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use object_store::path::Path;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use runtime::lifecycle::Lifecycle;
use runtime::log::{Log as _, NewRecord, ProducerOptions, TopicPartition};
use schemas::Registry as _;
use sink_s3::{FlushOptions, Lake, Layout, Options, SinkError, TopicOptions};

use crate::store::{FaultStore, PutFault};
use crate::world::{HOUR, Row, START, TOPIC, World, folder, long, text};

#[test]
fn every_row_is_in_the_lake_once_and_in_its_folder() {
    let mut world = World::new(3);
    world.produce(5_000, Some(97));
    let summary = world.run().unwrap();
    assert_eq!(summary.counts.rows, 5_000);
    assert_eq!(summary.counts.dead as usize, world.bad.len());
    assert!(summary.counts.flushes > 100);
    world.check();
    // a second run finds nothing to do, and more records go on where the first ended
    assert_eq!(world.run().unwrap().counts.rows, 0);
    world.produce(500, None);
    assert_eq!(world.run().unwrap().counts.rows, 500);
    world.check();
}

#[test]
fn a_local_folder_holds_the_same_as_any_store() {
    let mut world = World::new(2);
    world.produce(300, Some(50));
    let (path, lake) = folder(&world);
    sink_s3::run(Options {
        lake,
        ..world.options()
    })
    .unwrap();
    world.store = Arc::new(object_store::local::LocalFileSystem::new_with_prefix(&path).unwrap());
    let objects = world.objects(&world.store);
    let rows: usize = objects
        .iter()
        .filter(|(name, _)| name.starts_with(&format!("{TOPIC}/year=2016/")))
        .map(|(_, bytes)| {
            let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).unwrap();
            builder.metadata().file_metadata().num_rows() as usize
        })
        .sum();
    assert_eq!(rows, 300);
    assert!(
        objects
            .keys()
            .any(|name| name.starts_with(&format!("errors/{TOPIC}/")))
    );
}

#[test]
fn control_records_and_aborted_rows_leave_no_trace() {
    let mut world = World::new(1);
    world.produce(10, None);
    let mut producer = world
        .log
        .producer(&ProducerOptions::transactional("tx"))
        .unwrap();
    producer.init_transactions().unwrap();
    for (number, commits) in [(1_000, true), (2_000, false), (3_000, true), (4_000, false)] {
        producer.begin().unwrap();
        let row = Row::new(number);
        let offset = world
            .log
            .bounds(&TopicPartition::new(TOPIC, 0))
            .unwrap()
            .end;
        let value = row.encode(world.schema);
        let record = NewRecord {
            topic: TOPIC,
            partition: Some(0),
            key: None,
            value: Some(&value),
            headers: &[],
            timestamp_ms: None,
        };
        producer.send(record).unwrap();
        producer.flush().unwrap();
        if commits {
            producer.commit().unwrap();
            world.good.push(crate::world::Produced {
                partition: 0,
                offset,
                row,
            });
        } else {
            producer.abort().unwrap();
        }
    }
    world.run().unwrap();
    world.check();
    world.run().unwrap();
    world.check();
}

#[test]
fn an_interval_ends_a_flush_and_stopping_writes_the_rest() {
    let mut world = World::new(1);
    world.produce(100, None);
    let options = Options {
        lifecycle: Lifecycle::new(),
        flush: FlushOptions {
            interval: Duration::from_millis(150),
            ..FlushOptions::default()
        },
        ..world.options()
    };
    let (lifecycle, progress) = (options.lifecycle.clone(), options.progress.clone());
    let running = thread::spawn(move || sink_s3::run(options));
    wait_until(|| progress.counts().rows == 100);
    world.produce(7, None);
    wait_until(|| progress.counts().read >= 107);
    lifecycle.stop();
    let summary = running.join().unwrap().unwrap();
    assert_eq!(summary.counts.rows, 107);
    world.check();
}

#[test]
fn memory_ends_a_whole_flush_and_never_one_file() {
    let mut world = World::new(1);
    world.produce(60_000, None);
    let memory_bytes = 400_000;
    let flush = FlushOptions {
        memory_bytes,
        row_group_rows: 1 << 17,
        ..FlushOptions::default()
    };
    let options = Options {
        flush,
        ..world.options()
    };
    let metrics = options.metrics.clone();
    sink_s3::run(options).unwrap();
    assert!(metrics.flushes.with_label_values(&[TOPIC, "memory"]).get() > 1);
    world.check();
    // each flush has one file for each folder at most, and flushes follow one another
    let ranges = world.ranges(0);
    assert!(ranges.len() > 2);
    for pair in ranges.windows(2) {
        assert_eq!(pair[0].end, pair[1].start);
    }
    let mut names: Vec<(String, i64)> = world
        .files()
        .iter()
        .map(|file| (file.folder.clone(), file.range.start))
        .collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn interleaved_schema_versions_do_not_cut_files() {
    let mut world = World::new(1);
    let subject = format!("{TOPIC}-value");
    let v2 = crate::world::SCHEMA.replace(
        r#"{"name":"vendor","type":"int"}"#,
        r#"{"name":"vendor","type":"int"},{"name":"extra","type":"long","default":-1}"#,
    );
    let v2 = world.registry.register(&subject, &v2).unwrap();
    let mut values = Vec::new();
    for number in 0..1_000 {
        let row = Row::new(number);
        let value = if number % 2 == 0 {
            row.encode(world.schema)
        } else {
            let mut out = vec![0];
            out.extend_from_slice(&v2.to_be_bytes());
            text(&mut out, &row.id);
            long(&mut out, i64::from(row.vendor));
            long(&mut out, 7);
            long(&mut out, row.at);
            match &row.note {
                None => long(&mut out, 0),
                Some(note) => {
                    long(&mut out, 1);
                    text(&mut out, note);
                }
            }
            out
        };
        values.push((0, value, Some(row)));
    }
    world.send(values);
    let options = Options {
        flush: FlushOptions::default(),
        ..world.options()
    };
    let metrics = options.metrics.clone();
    sink_s3::run(options).unwrap();
    world.check();
    assert_eq!(world.ranges(0), vec![0..1_000]);
    assert_eq!(
        metrics.unknown_field_rows.with_label_values(&[TOPIC]).get(),
        0
    );
    // the newer field is there, with its default for the older rows
    let (mut sevens, mut defaults) = (0, 0);
    for (name, bytes) in world.objects(&world.store) {
        if name.ends_with(".parquet") {
            for batch in ParquetRecordBatchReaderBuilder::try_new(bytes)
                .unwrap()
                .build()
                .unwrap()
            {
                let batch = batch.unwrap();
                let extra = batch
                    .column_by_name("extra")
                    .unwrap()
                    .as_primitive::<arrow::datatypes::Int64Type>();
                sevens += extra.values().iter().filter(|value| **value == 7).count();
                defaults += extra.values().iter().filter(|value| **value == -1).count();
            }
        }
    }
    assert_eq!((sevens, defaults), (500, 500));
}

#[test]
fn a_new_readers_schema_ends_a_flush_once() {
    let mut world = World::new(1);
    world.produce(50, None);
    let options = Options {
        lifecycle: Lifecycle::new(),
        flush: FlushOptions::default(),
        ..world.options()
    };
    let (lifecycle, progress, metrics) = (
        options.lifecycle.clone(),
        options.progress.clone(),
        options.metrics.clone(),
    );
    let running = thread::spawn(move || sink_s3::run(options));
    wait_until(|| progress.counts().read >= 50);
    let v2 = crate::world::SCHEMA.replace(
        r#""default":null}"#,
        r#""default":null},{"name":"extra","type":"long","default":-1}"#,
    );
    let v2 = world
        .registry
        .register(&format!("{TOPIC}-value"), &v2)
        .unwrap();
    let mut values = Vec::new();
    for number in 50..150 {
        let row = Row::new(number);
        let mut value = row.encode(if number % 2 == 0 { v2 } else { world.schema });
        if number % 2 == 0 {
            long(&mut value, 7);
        }
        values.push((0, value, Some(row)));
    }
    world.send(values);
    lifecycle.drain();
    running.join().unwrap().unwrap();
    world.check();
    assert_eq!(world.ranges(0), [0..50, 50..150]);
    assert_eq!(
        metrics.flushes.with_label_values(&[TOPIC, "schema"]).get(),
        1
    );
}

#[test]
fn fields_that_the_readers_schema_lacks_are_counted() {
    let mut world = World::new(1);
    // a writer whose schema is registered elsewhere
    let wide = crate::world::SCHEMA.replace(
        r#""default":null}"#,
        r#""default":null},{"name":"extra","type":"long","default":-1}"#,
    );
    let wide = world.registry.register("elsewhere-value", &wide).unwrap();
    let mut values = Vec::new();
    for number in 0..30 {
        let row = Row::new(number);
        let mut value = row.encode(if number % 3 == 0 { wide } else { world.schema });
        if number % 3 == 0 {
            long(&mut value, 7);
        }
        values.push((0, value, Some(row)));
    }
    world.send(values);
    let options = world.options();
    let metrics = options.metrics.clone();
    sink_s3::run(options).unwrap();
    world.check();
    assert_eq!(
        metrics.unknown_field_rows.with_label_values(&[TOPIC]).get(),
        10
    );
}

#[test]
fn folders_follow_the_zone_and_values_are_escaped() {
    let mut world = World::new(1);
    // New York set its clocks back on 6 November 2016 at 06:00 UTC
    let back = 1_478_412_000_000;
    let notes = [Some("a/b"), Some("x=1 %"), None, Some("")];
    let values =
        notes
            .iter()
            .zip([-HOUR, 0, 0, HOUR])
            .enumerate()
            .map(|(number, (note, shift))| {
                let row = Row {
                    at: back + shift,
                    note: note.map(str::to_owned),
                    ..Row::new(number as i64)
                };
                (0, row.encode(1), Some(row))
            });
    let values: Vec<_> = values.collect();
    world.send(values);
    let layout = Layout::new()
        .by_hour("at", "America/New_York")
        .unwrap()
        .by_column("note")
        .unwrap();
    let options = Options {
        topics: vec![TopicOptions::new(TOPIC, layout)],
        ..world.options()
    };
    sink_s3::run(options).unwrap();
    let mut folders: Vec<(String, Vec<String>)> = world
        .files()
        .iter()
        .map(|file| {
            (
                file.folder.clone(),
                file.rows.iter().map(|row| row.id.clone()).collect(),
            )
        })
        .collect();
    folders.sort();
    let day = "year=2016/month=11/day=06";
    let expected = [
        (
            format!("{day}/hour=01/note=__HIVE_DEFAULT_PARTITION__"),
            vec!["r2".to_owned()],
        ),
        (format!("{day}/hour=01/note=a%2Fb"), vec!["r0".to_owned()]),
        (
            format!("{day}/hour=01/note=x%3D1 %25"),
            vec!["r1".to_owned()],
        ),
        (
            format!("{day}/hour=02/note=__HIVE_DEFAULT_PARTITION__"),
            vec!["r3".to_owned()],
        ),
    ];
    assert_eq!(folders, expected);
}

#[test]
fn several_topics_have_a_folder_and_a_layout_each() {
    let mut world = World::new(1);
    world.produce(20, None);
    world
        .log
        .create_topic(&runtime::log::TopicSpec::new("other", 2))
        .unwrap();
    let id = world
        .registry
        .register("other-value", crate::world::SCHEMA)
        .unwrap();
    let mut producer = world
        .log
        .producer(&ProducerOptions::idempotent("p"))
        .unwrap();
    let value = Row {
        at: START,
        ..Row::new(1)
    }
    .encode(id);
    for partition in [0, 1, 1] {
        let record = NewRecord {
            topic: "other",
            partition: Some(partition),
            key: None,
            value: Some(&value),
            headers: &[],
            timestamp_ms: None,
        };
        producer.send(record).unwrap();
    }
    producer.flush().unwrap();
    let other = TopicOptions::new("other", Layout::new());
    let topics = vec![TopicOptions::new(TOPIC, World::layout()), other];
    let summary = sink_s3::run(Options {
        topics,
        ..world.options()
    })
    .unwrap();
    assert_eq!(summary.counts.rows, 23);
    let names: Vec<String> = world
        .objects(&world.store)
        .into_keys()
        .filter(|name| name.contains("/other/"))
        .collect();
    assert_eq!(names.len(), 2);
    assert!(names[1].ends_with("+1+0-2.parquet"), "{names:?}");
    assert!(
        names
            .iter()
            .all(|name| name.starts_with("lake/other/other-"))
    );
}

#[test]
fn an_outage_at_stopping_is_no_success_and_the_next_run_finishes() {
    let mut world = World::new(1);
    world.produce(100, None);
    let store = FaultStore::new(
        world.store.clone(),
        PutFault::FailBefore,
        0..u64::MAX,
        || {},
    );
    let options = Options {
        lake: Lake::Store {
            store: store.clone(),
            prefix: Path::from("lake"),
        },
        lifecycle: Lifecycle::new(),
        stop_deadline: Duration::from_millis(100),
        ..world.options()
    };
    let lifecycle = options.lifecycle.clone();
    let running = thread::spawn(move || sink_s3::run(options));
    wait_until(|| store.puts() > 3);
    lifecycle.stop();
    let error = running.join().unwrap().unwrap_err();
    assert!(matches!(error, SinkError::Unfinished { .. }), "{error}");
    world.run().unwrap();
    world.check();
}

#[test]
fn a_store_that_refuses_ends_the_run_and_says_what_it_needs() {
    let mut world = World::new(1);
    world.produce(100, None);
    let store = FaultStore::new(world.store.clone(), PutFault::Refuse, 0..u64::MAX, || {});
    let options = Options {
        lake: Lake::Store {
            store,
            prefix: Path::from("lake"),
        },
        ..world.options()
    };
    let error = sink_s3::run(options).unwrap_err();
    assert!(error.to_string().contains("s3:PutObject"), "{error}");
    world.run().unwrap();
    world.check();
}

/// Waits until something is so, for forty seconds at most.
pub fn wait_until(so: impl Fn() -> bool) {
    let began = Instant::now();
    while !so() {
        assert!(
            began.elapsed() < Duration::from_secs(40),
            "it did not come to be so"
        );
        thread::sleep(Duration::from_millis(5));
    }
}
