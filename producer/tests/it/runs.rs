//! Whole runs: restarts, changed files, rivals, pace, and files of any bytes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use producer::{Inputs, Mapping, Next, POSITIONS_TOPIC, ProducerError, Source, run, setup_topics};
use proptest::prelude::*;
use runtime::log::fault::{At, Fault, FaultLog};
use runtime::log::{Log, NewRecord, ProducerOptions};

use crate::pipeline::{HEADER, TOPIC, World, ids, rows};
use crate::real_files::{files, mapping, oracle};

#[test]
fn what_is_sent_is_not_sent_again_and_what_was_added_is() {
    let world = World::new();
    let path = world.file("a.csv", &format!("{HEADER}{}", rows(0, 10, &[])));
    let first = run(world.options(std::slice::from_ref(&path))).unwrap();
    assert_eq!((first.read, first.read_now, first.finished), (10, 10, true));
    assert_eq!(first.delivered_by_partition.iter().sum::<u64>(), 10);
    let ends = |topic| {
        world
            .log
            .bounds(&runtime::log::TopicPartition::new(topic, 0))
            .unwrap()
            .end
    };
    let before = ends(POSITIONS_TOPIC);
    let second = run(world.options(std::slice::from_ref(&path))).unwrap();
    assert_eq!(
        (second.read, second.read_now, second.finished),
        (10, 0, true)
    );
    assert_eq!(
        ends(POSITIONS_TOPIC),
        before,
        "nothing to do writes nothing"
    );
    world.file("a.csv", &format!("{HEADER}{}", rows(0, 13, &[])));
    let third = run(world.options(std::slice::from_ref(&path))).unwrap();
    assert_eq!((third.read, third.read_now), (13, 3));
    let renamed = world.dir.path().join("renamed.csv");
    std::fs::rename(&path, &renamed).unwrap();
    let fourth = run(world.options(std::slice::from_ref(&renamed))).unwrap();
    assert_eq!((fourth.read, fourth.read_now), (13, 0));
    assert_eq!(fourth.input_set, first.input_set);
    world.assert_sent(&ids(0..13), &[]);
    // a copy is no renamed file: it is a set of its own
    std::fs::copy(&renamed, &path).unwrap();
    let copy = run(world.options(&[path])).unwrap();
    assert_eq!(
        copy.read_now, 0,
        "the old name is back: it is the first set again"
    );
}

#[test]
fn a_file_that_was_changed_stops_with_what_to_do() {
    let world = World::new();
    let text = format!("{HEADER}{}", rows(0, 10, &[]));
    let path = world.file("a.csv", &text);
    run(world.options(std::slice::from_ref(&path))).unwrap();
    for changed in [
        text.replace("id3,", "id4,"),
        text[..text.len() - 10].to_owned(),
    ] {
        world.file("a.csv", &changed);
        let error = run(world.options(std::slice::from_ref(&path))).unwrap_err();
        assert!(matches!(error, ProducerError::Changed { .. }), "{error:?}");
        let message = error.to_string();
        assert!(
            message.contains("a.csv")
                && message.contains("line 11")
                && message.contains("Put that file back"),
            "{message}"
        );
    }
    world.file("a.csv", &text);
    assert_eq!(run(world.options(&[path])).unwrap().read_now, 0);
    world.assert_sent(&ids(0..10), &[]);
}

#[test]
fn files_in_another_order_or_in_another_set_are_refused() {
    let world = World::new();
    let a = world.file("a.csv", &format!("{HEADER}{}", rows(0, 3, &[])));
    let b = world.file("b.csv", &format!("{HEADER}{}", rows(3, 6, &[])));
    let set = run(world.options(&[a.clone(), b.clone()]))
        .unwrap()
        .input_set;
    let error = run(world.options(&[b.clone(), a.clone()])).unwrap_err();
    assert!(
        matches!(error, ProducerError::Order { number: 2, .. }),
        "{error:?}"
    );
    let c = world.file("c.csv", &format!("{HEADER}{}", rows(6, 9, &[])));
    let error = run(world.options(&[a.clone(), b.clone(), c.clone()])).unwrap_err();
    assert!(
        matches!(&error, ProducerError::SentBefore { input_set, .. } if *input_set == set),
        "{error:?}"
    );
    // what the message says to do
    let mut options = world.options(&[a, b, c]);
    options.input_set = Some(set);
    let summary = run(options).unwrap();
    assert_eq!((summary.read, summary.read_now), (9, 3));
    world.assert_sent(&ids(0..9), &[]);
}

#[test]
fn files_that_cannot_be_read_are_all_named_before_anything_is_sent() {
    let world = World::new();
    let good = world.file("good.csv", &format!("{HEADER}{}", rows(0, 3, &[])));
    let empty = world.file("empty.csv", "");
    let zipped = world.file("zipped.csv.gz", "\u{1f}");
    std::fs::write(&zipped, [0x1f, 0x8b, 8]).unwrap();
    let missing = world.dir.path().join("missing.csv");
    let list = [
        good.clone(),
        empty,
        missing,
        world.dir.path().to_owned(),
        zipped,
        good.clone(),
    ];
    let message = run(world.options(&list)).unwrap_err().to_string();
    for part in [
        "empty.csv: it is empty",
        "missing.csv: there is no such file",
        "it is a directory",
        "gunzip",
        "named twice",
    ] {
        assert!(message.contains(part), "{part} is not in {message}");
    }
    assert_eq!(
        run(world.options(&[])).unwrap_err().to_string(),
        "no input files are named"
    );
    let other = world.file("other.csv", "a,b\n1,2\n");
    let message = run(world.options(&[good.clone(), other.clone()]))
        .unwrap_err()
        .to_string();
    assert!(message.contains("no column `id`"), "{message}");
    let message = run(world.options(&[other])).unwrap_err().to_string();
    assert!(
        message.contains("aws, kaggle, headway") && message.contains("`a,b`"),
        "{message}"
    );
    let mut options = world.options(&[good]);
    options.topic = "nowhere".into();
    let message = run(options).unwrap_err().to_string();
    assert!(message.contains("there is no topic nowhere"), "{message}");
    assert!(world.read(TOPIC).is_empty());
}

#[test]
fn a_second_instance_fences_the_first_and_no_row_is_sent_twice() {
    for call in ["producer.begin", "producer.send", "producer.commit"] {
        let world = World::new();
        let path = world.file("a.csv", &format!("{HEADER}{}", rows(0, 60, &[])));
        let log = FaultLog::with_fault(world.log.clone(), At::Call(call, 5), Fault::Pause);
        let first = world.options_on(log.clone(), Source::Files(vec![path.clone()]));
        let first = std::thread::spawn(move || run(first));
        while !log.paused() {
            assert!(!first.is_finished(), "{call}: it was done before");
            std::thread::sleep(Duration::from_millis(1));
        }
        let second = run(world.options(&[path])).unwrap();
        assert!(second.finished, "{call}");
        log.wake();
        let error = first.join().unwrap().unwrap_err();
        assert!(
            matches!(error, ProducerError::Fenced { .. }),
            "{call}: {error:?}"
        );
        world.assert_sent(&ids(0..60), &[]);
    }
}

#[test]
fn a_stopped_run_commits_what_it_read_and_goes_on_from_there() {
    let world = World::new();
    let path = world.file("a.csv", &format!("{HEADER}{}", rows(0, 300, &[7])));
    // It stands still in the middle of the input, with rows in hand, while it is told to stop.
    let log = FaultLog::with_fault(
        world.log.clone(),
        At::Call("producer.send", 150),
        Fault::Pause,
    );
    let mut options = world.options_on(log.clone(), Source::Files(vec![path.clone()]));
    options.rate = Some(1000.0);
    options.commit_rows = 1_000_000;
    let (lifecycle, progress) = (options.lifecycle.clone(), options.progress.clone());
    let start = Instant::now();
    let running = std::thread::spawn(move || run(options));
    while !log.paused() {
        assert!(!running.is_finished(), "it did not come so far");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(progress.in_hand() >= 100);
    lifecycle.stop();
    log.wake();
    let stopped = running.join().unwrap().unwrap();
    assert!(!stopped.finished);
    assert!((100..300).contains(&stopped.read), "{stopped:?}");
    // paced: row n is due after n milliseconds
    assert!(
        start.elapsed() >= Duration::from_millis(stopped.read - 1),
        "{:?} {stopped:?}",
        start.elapsed()
    );
    let rest = run(world.options(std::slice::from_ref(&path))).unwrap();
    assert_eq!(rest.read_now, 300 - stopped.read);
    world.assert_sent(&ids((0..300).filter(|number| *number != 7)), &[(path, 9)]);
}

#[test]
fn a_position_behind_an_open_transaction_of_another_producer_is_waited_for() {
    let world = World::new();
    let path = world.file("a.csv", &format!("{HEADER}{}", rows(0, 5, &[])));
    let mut other = world
        .log
        .producer(&ProducerOptions::transactional("other"))
        .unwrap();
    other.init_transactions().unwrap();
    other.begin().unwrap();
    let tombstone = NewRecord {
        topic: POSITIONS_TOPIC,
        partition: None,
        key: Some(b"other"),
        value: None,
        headers: &[],
        timestamp_ms: None,
    };
    other.send(tombstone).unwrap();
    other.flush().unwrap();
    let log = FaultLog::new(world.log.clone());
    let options = world.options_on(log.clone(), Source::Files(vec![path.clone()]));
    let running = std::thread::spawn(move || run(options));
    while !log.trace().contains(&"consumer.poll") {
        assert!(!running.is_finished(), "it read no positions");
        std::thread::sleep(Duration::from_millis(1));
    }
    // It has come to the open transaction. This is time for it to go on, if it did not wait.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(log.trace().last(), Some(&"consumer.poll"));
    other.commit().unwrap();
    assert_eq!(running.join().unwrap().unwrap().read_now, 5);
    assert_eq!(run(world.options(&[path])).unwrap().read_now, 0);
    world.assert_sent(&ids(0..5), &[]);
}

/// Chunks that appear one after the other.
struct Growing {
    chunks: Vec<PathBuf>,
    ready: Arc<AtomicUsize>,
}

impl Inputs for Growing {
    fn file(&mut self, index: usize) -> Result<Next, Box<dyn std::error::Error + Send + Sync>> {
        Ok(match self.chunks.get(index) {
            None => Next::NoMore,
            Some(_) if index >= self.ready.load(Ordering::SeqCst) => Next::NotYet,
            Some(path) => Next::File(path.clone()),
        })
    }
}

#[test]
fn files_that_come_one_by_one_are_sent_as_they_come() {
    let world = World::new();
    let chunks: Vec<PathBuf> = (0..4)
        .map(|index| {
            world.file(
                &format!("{index}.csv"),
                &format!("{HEADER}{}", rows(index * 3, index * 3 + 3, &[])),
            )
        })
        .collect();
    let ready = Arc::new(AtomicUsize::new(0));
    let start = |id: &str| {
        let inputs = Growing {
            chunks: chunks.clone(),
            ready: ready.clone(),
        };
        let source = Source::Named {
            id: id.into(),
            inputs: Box::new(inputs),
        };
        let mut options = world.options_on(world.log.clone(), source);
        options.commit_interval = Duration::from_millis(20);
        options.commit_rows = 1000;
        options
    };
    let options = start("demo");
    let (lifecycle, progress) = (options.lifecycle.clone(), options.progress.clone());
    let running = std::thread::spawn(move || run(options));
    for count in 1..=2 {
        ready.store(count, Ordering::SeqCst);
        let deadline = Instant::now() + Duration::from_secs(10);
        while progress.delivered() < 3 * count as u64 {
            assert!(
                Instant::now() < deadline,
                "rows wait for no next file to be committed"
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    lifecycle.drain();
    assert!(!running.join().unwrap().unwrap().finished);
    ready.store(4, Ordering::SeqCst);
    let rest = run(start("demo")).unwrap();
    assert_eq!((rest.read, rest.read_now, rest.finished), (12, 6, true));
    assert_eq!(run(start("demo")).unwrap().read_now, 0);
    world.assert_sent(&ids(0..12), &[]);
}

#[test]
fn real_files_are_sent_row_by_row_as_the_oracle_has_them() {
    for path in files("real_files_are_sent_row_by_row_as_the_oracle_has_them") {
        let world = World::new();
        let mapping = mapping(&path);
        let expected = oracle(&path, mapping.name());
        let mut options = world.options(std::slice::from_ref(&path));
        options.mapping = Some(mapping);
        options.commit_rows = 1000;
        let start = Instant::now();
        let summary = run(options).unwrap();
        eprintln!(
            "{}: {} rows in {:?}",
            path.display(),
            summary.read,
            start.elapsed()
        );
        let good = expected.iter().flatten().count() as u64;
        assert_eq!(
            (summary.read, summary.delivered),
            (expected.len() as u64, good)
        );
        assert_eq!(
            world.read("trips.dlq").len() as u64,
            expected.len() as u64 - good
        );
        let trips = world.read(TOPIC);
        let ids: BTreeSet<String> = trips.iter().map(|got| got.text("id")).collect();
        assert_eq!(
            (ids.len(), trips.len()),
            (good as usize, good as usize),
            "each id once"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(48) })]

    #[test]
    fn of_a_file_of_any_bytes_every_row_is_delivered_or_dead(
        pieces in prop::collection::vec(prop_oneof![
            3 => Just(b"id7,1,1/1/16 0:00,1/1/16 0:01,1,-73.9,40.7,-73.8,40.8,N,1,60,,\n".to_vec()),
            2 => Just(b"\"id8\",1,1/1/16 0:00,1/1/16 0:01,1,-73.9,40.7,-73.8,40.8,\"N\",1,60,,\r\n".to_vec()),
            1 => Just(b"\"".to_vec()),
            1 => Just(b"\n".to_vec()),
            1 => Just(b",".to_vec()),
            1 => prop::collection::vec(any::<u8>(), 1..10),
        ], 1..12),
        commit_rows in 1_u64..5,
    ) {
        let world = World::new();
        let bytes = pieces.concat();
        let path = world.dir.path().join("any.csv");
        std::fs::write(&path, &bytes).unwrap();
        prop_assume!(!bytes.starts_with(&[0x1f, 0x8b]));
        let mut options = world.options(&[path]);
        options.mapping = Mapping::shipped("aws");
        options.commit_rows = commit_rows;
        let summary = run(options).unwrap();
        prop_assert!(summary.finished);
        prop_assert_eq!(summary.read, summary.delivered + summary.rejected);
        prop_assert_eq!(world.read(TOPIC).len() as u64, summary.delivered);
        prop_assert_eq!(world.read("trips.dlq").len() as u64, summary.rejected);
    }
}

#[test]
fn topics_are_set_up_once_and_positions_are_compacted() {
    let world = World::new();
    setup_topics(world.log.as_ref(), TOPIC, 7, Default::default()).unwrap();
    assert_eq!(world.log.topic(TOPIC).unwrap().unwrap().partitions, 3);
    let positions = world.log.topic(POSITIONS_TOPIC).unwrap().unwrap();
    assert_eq!(
        positions.config.get("cleanup.policy").map(String::as_str),
        Some("compact")
    );
}
