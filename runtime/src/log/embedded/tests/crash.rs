//! What the death of the process leaves behind.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::segment::Segment;
use super::*;

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The last segment of a partition that holds anything.
fn tail(dir: &Path, topic: &str, partition: i32) -> PathBuf {
    let topics = fs::read_dir(dir.join("topics"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let prefix = format!("{topic}+");
    let mut topics = topics.filter(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(&prefix)
    });
    let topic = topics.next().unwrap();
    let segments = fs::read_dir(topic.join(partition.to_string()))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    segments
        .filter(|path| fs::metadata(path).unwrap().len() > 0)
        .max()
        .unwrap()
}

fn cut(path: &Path, len: u64) {
    OpenOptions::new()
        .write(true)
        .open(path)
        .unwrap()
        .set_len(len)
        .unwrap();
}

#[test]
fn a_segment_cut_at_any_byte_keeps_the_frames_before_and_can_be_written_again() {
    let fixture = Fixture::new();
    fixture.topic("t", 1);
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("p"))
        .unwrap();
    let mut lengths = vec![];
    for number in 0..14 {
        send(&mut *producer, "t", 0, "k", &format!("value {number}"));
        producer.flush().unwrap();
        let path = tail(fixture.dir.path(), "t", 0);
        lengths.push((fs::metadata(&path).unwrap().len(), path));
    }
    let last = lengths.last().unwrap().1.clone();
    for len in 0..=lengths.last().unwrap().0 {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(fixture.dir.path(), copy.path());
        cut(
            &copy
                .path()
                .join(last.strip_prefix(fixture.dir.path()).unwrap()),
            len,
        );
        let mut expected: Vec<_> = (0..lengths
            .iter()
            .filter(|(end, path)| *path != last || *end <= len)
            .count())
            .map(|number| (number as Offset, format!("value {number}")))
            .collect();
        for _ in 0..2 {
            let end = expected.len() as Offset;
            let log = EmbeddedLog::open(copy.path(), options(&fixture.clock)).unwrap();
            assert_eq!(
                read(&*log, &tp("t", 0)),
                (expected.clone(), end),
                "cut to {len} bytes"
            );
            let mut producer = log.producer(&ProducerOptions::idempotent("p")).unwrap();
            send(&mut *producer, "t", 0, "k", "again");
            producer.flush().unwrap();
            expected.push((end, "again".into()));
        }
    }
}

#[test]
fn a_journal_cut_at_any_byte_keeps_the_commits_before() {
    let fixture = Fixture::new();
    fixture.topic("t", 1);
    let partitions = [tp("t", 0)];
    let journal = fixture.dir.path().join("journal");
    let mut lengths = vec![fs::metadata(&journal).unwrap().len()];
    let mut consumer = fixture.log.consumer(&ConsumerOptions::new("g")).unwrap();
    for offset in 0..5 {
        consumer
            .commit(&[commit_of(&partitions[0], offset, &format!("at {offset}"))])
            .unwrap();
        lengths.push(fs::metadata(&journal).unwrap().len());
    }
    for len in lengths[0]..=*lengths.last().unwrap() {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(fixture.dir.path(), copy.path());
        cut(&copy.path().join("journal"), len);
        let log = EmbeddedLog::open(copy.path(), options(&fixture.clock)).unwrap();
        let whole = lengths.iter().filter(|end| **end <= len).count() as Offset - 2;
        let expected = (whole >= 0).then(|| Committed {
            offset: whole,
            metadata: format!("at {whole}"),
        });
        assert_eq!(
            log.committed("g", &partitions).unwrap(),
            [expected],
            "cut to {len} bytes"
        );
    }
}

#[test]
fn a_decided_transaction_is_completed_and_an_undecided_one_aborted_in_every_partition() {
    let fixture = Fixture::new();
    fixture.topic("t", 3);
    let mut producer = fixture.transactional("a");
    let consumer = fixture.log.consumer(&ConsumerOptions::new("g")).unwrap();
    producer.begin().unwrap();
    for partition in 0..3 {
        send(&mut *producer, "t", partition, "k", "x");
    }
    producer
        .send_offsets(
            &[commit_of(&tp("t", 0), 7, "m")],
            &consumer.group_metadata().unwrap(),
        )
        .unwrap();
    producer.flush().unwrap();
    let journal = fixture.dir.path().join("journal");
    let undecided = fs::metadata(&journal).unwrap().len();
    producer.commit().unwrap();
    for marked in 0..8 {
        for decided in [true, false] {
            if !decided && marked > 0 {
                continue;
            }
            let copy = tempfile::tempdir().unwrap();
            copy_folder(fixture.dir.path(), copy.path());
            for partition in (0..3).filter(|partition| marked & (1 << partition) == 0) {
                let path = tail(copy.path(), "t", partition);
                cut(
                    &path,
                    fs::metadata(&path).unwrap().len() - frame::HEADER_BYTES as u64,
                );
            }
            if !decided {
                cut(&copy.path().join("journal"), undecided);
            }
            // Twice: what the first opening completed must be complete for the second.
            for _ in 0..2 {
                let log = EmbeddedLog::open(copy.path(), options(&fixture.clock)).unwrap();
                for partition in 0..3 {
                    let expected = if decided {
                        vec![(0, "x".into())]
                    } else {
                        vec![]
                    };
                    assert_eq!(read(&*log, &tp("t", partition)), (expected, 2));
                }
                let offset = log.committed("g", &[tp("t", 0)]).unwrap()[0]
                    .as_ref()
                    .map(|committed| committed.offset);
                assert_eq!(offset, decided.then_some(7));
            }
        }
    }
}

/// The other process: it commits one transaction after the other, each with a record in both partitions and an offset,
/// and says so. On its way it deletes records, compacts, and lets the journal be rewritten.
#[test]
fn writes_until_it_is_killed() {
    let Ok(dir) = std::env::var("HEADWAY_TEST_KILLED_LOG") else {
        return;
    };
    let options = EmbeddedOptions {
        segment_bytes: 900,
        journal_bytes: 2000,
        ..EmbeddedOptions::default()
    };
    let log = EmbeddedLog::open(Path::new(&dir), options).unwrap();
    log.create_topic(&TopicSpec::new("t", 2)).unwrap();
    log.create_topic(&TopicSpec::new("c", 1).with("cleanup.policy", "compact"))
        .unwrap();
    let mut consumer = log.consumer(&ConsumerOptions::new("g")).unwrap();
    let mut producer = log.producer(&ProducerOptions::transactional("a")).unwrap();
    producer.init_transactions().unwrap();
    let first = consumer.committed(&[tp("t", 0)]).unwrap()[0]
        .as_ref()
        .map_or(0, |committed| committed.offset);
    for number in first.. {
        producer.begin().unwrap();
        for partition in 0..2 {
            send(&mut *producer, "t", partition, "k", &number.to_string());
        }
        send(
            &mut *producer,
            "c",
            0,
            &(number % 3).to_string(),
            &number.to_string(),
        );
        if number % 4 == 3 {
            producer.flush().unwrap();
            producer.abort().unwrap();
            producer.begin().unwrap();
            for partition in 0..2 {
                send(&mut *producer, "t", partition, "k", &number.to_string());
            }
            send(
                &mut *producer,
                "c",
                0,
                &(number % 3).to_string(),
                &number.to_string(),
            );
        }
        let offsets = [commit_of(&tp("t", 0), number + 1, "m")];
        producer
            .send_offsets(&offsets, &consumer.group_metadata().unwrap())
            .unwrap();
        producer.commit().unwrap();
        println!("committed {number}");
        if number % 50 == 49 {
            let stable = log.bounds(&tp("t", 1)).unwrap().stable;
            log.delete_records(&tp("t", 1), stable - 40).unwrap();
        }
    }
}

#[test]
fn a_killed_process_loses_no_acknowledged_transaction_and_leaves_none_in_part() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = -1_i64;
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "log::embedded::tests::crash::writes_until_it_is_killed",
                "--nocapture",
            ])
            .env("HEADWAY_TEST_KILLED_LOG", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let killer = child.id();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = 0;
        // The moment differs from round to round, and lies anywhere between two acknowledgements.
        while let Some(Ok(line)) = lines.next() {
            if let Some(number) = line.strip_prefix("committed ") {
                acknowledged = number.parse().unwrap();
                seen += 1;
            }
            if seen == 40 + round * 13 {
                std::thread::sleep(Duration::from_micros(round * 37));
                child.kill().unwrap();
                break;
            }
        }
        assert!(seen > 0, "process {killer} wrote nothing");
        for line in lines.map_while(Result::ok) {
            if let Some(number) = line
                .strip_prefix("committed ")
                .and_then(|number| number.parse().ok())
            {
                acknowledged = number;
            }
        }
        child.wait().unwrap();

        let log = EmbeddedLog::open(dir.path(), EmbeddedOptions::default()).unwrap();
        let values = |partition: &TopicPartition| -> Vec<i64> {
            read(&*log, partition)
                .0
                .into_iter()
                .map(|(_, value)| value.parse().unwrap())
                .collect()
        };
        let done = log.committed("g", &[tp("t", 0)]).unwrap()[0]
            .as_ref()
            .unwrap()
            .offset;
        assert!(
            done > acknowledged,
            "{done} is committed, {acknowledged} was acknowledged"
        );
        assert_eq!(values(&tp("t", 0)), (0..done).collect::<Vec<_>>());
        let second = values(&tp("t", 1));
        assert_eq!(
            second,
            (done - second.len() as i64..done).collect::<Vec<_>>()
        );
        assert!(second.len() >= 10);
        let compacted = values(&tp("c", 0));
        let distinct: BTreeSet<i64> = compacted.iter().copied().collect();
        assert_eq!(distinct.len(), compacted.len());
        assert!(
            (done.max(3) - 3..done).all(|number| distinct.contains(&number)),
            "the last of each key is there"
        );
    }
}

#[test]
fn a_folder_is_for_one_process_one_format_and_a_log_alone() {
    let fixture = Fixture::new();
    let refused = |dir: &Path| match EmbeddedLog::open(dir, EmbeddedOptions::default()) {
        Err(error @ LogError::Storage { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened"),
    };
    assert!(refused(fixture.dir.path()).contains("in use by another process"));
    fixture.log.close();
    fs::write(
        fixture.dir.path().join("format"),
        "headway embedded log, format 2\n",
    )
    .unwrap();
    assert!(refused(fixture.dir.path()).contains("format 2"));
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("letter.txt"), "Dear").unwrap();
    assert!(refused(other.path()).contains("letter.txt"));
}

#[test]
fn a_deleted_topic_is_gone_with_its_offsets_and_comes_back_with_another_id() {
    let mut fixture = Fixture::new();
    fixture.topic("t", 1);
    let id = fixture.log.topic("t").unwrap().unwrap().id;
    assert_eq!(id.len(), 22);
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("p"))
        .unwrap();
    send(&mut *producer, "t", 0, "k", "x");
    producer.flush().unwrap();
    let mut consumer = fixture.log.consumer(&ConsumerOptions::new("g")).unwrap();
    consumer.assign(&[(tp("t", 0), 0)]).unwrap();
    consumer.commit(&[commit_of(&tp("t", 0), 1, "")]).unwrap();
    fixture.log.delete_topic("t").unwrap();
    assert!(matches!(
        consumer.poll(NOW, 1),
        Err(LogError::UnknownTopic { .. })
    ));
    send(&mut *producer, "t", 0, "k", "y");
    assert!(matches!(
        producer.flush(),
        Err(LogError::UnknownTopic { .. })
    ));
    assert_eq!(fixture.log.topic("t").unwrap(), None);
    fixture.reopen();
    fixture.topic("t", 1);
    assert_ne!(fixture.log.topic("t").unwrap().unwrap().id, id);
    assert_eq!(read(&*fixture.log, &tp("t", 0)), (vec![], 0));
    assert_eq!(fixture.log.committed("g", &[tp("t", 0)]).unwrap(), [None]);
}

#[test]
fn a_changed_byte_is_found_wherever_it_is() {
    let fixture = Fixture::new();
    fixture.topic("t", 1);
    let mut producer = fixture
        .log
        .producer(&ProducerOptions::idempotent("p"))
        .unwrap();
    for number in 0..14 {
        send(&mut *producer, "t", 0, "k", &format!("value {number}"));
        producer.flush().unwrap();
    }
    let last = tail(fixture.dir.path(), "t", 0);
    let first = last.with_file_name(Segment::file_name(0));
    assert_ne!(first, last);
    let change = |path: &Path, at: usize| {
        let copy = tempfile::tempdir().unwrap();
        copy_folder(fixture.dir.path(), copy.path());
        let path = copy
            .path()
            .join(path.strip_prefix(fixture.dir.path()).unwrap());
        let mut bytes = fs::read(&path).unwrap();
        bytes[at] ^= 0x10;
        fs::write(path, bytes).unwrap();
        copy
    };
    // In the last segment it is taken for a torn write; in the others nothing can be torn.
    let copy = change(&last, frame::HEADER_BYTES + 30);
    let log = EmbeddedLog::open(copy.path(), options(&fixture.clock)).unwrap();
    assert!(read(&*log, &tp("t", 0)).1 < 14);
    let copy = change(&first, frame::HEADER_BYTES + 30);
    let log = EmbeddedLog::open(copy.path(), options(&fixture.clock)).unwrap();
    let mut consumer = log.consumer(&ConsumerOptions::new("r")).unwrap();
    consumer.assign(&[(tp("t", 0), 0)]).unwrap();
    let refused = consumer.poll(NOW, 1);
    assert!(
        matches!(&refused, Err(LogError::Storage { detail, .. }) if detail.contains("damaged")),
        "{refused:?}"
    );
    let copy = change(&first, 1);
    let refused = EmbeddedLog::open(copy.path(), options(&fixture.clock)).err();
    assert!(
        matches!(&refused, Some(LogError::Storage { detail, .. }) if detail.contains("damaged at byte 0"))
    );
}

#[cfg(target_os = "linux")]
#[test]
fn of_a_closed_log_no_segment_stays_open_whoever_was_abandoned_in_it() {
    let fixture = Fixture::new();
    fixture.topic("t", 3);
    let open = || {
        let files = fs::read_dir("/proc/self/fd").unwrap().flatten();
        let paths = files.filter_map(|file| fs::read_link(file.path()).ok());
        let ours = paths.filter(|path| path.starts_with(fixture.dir.path()));
        let segments = ours.filter(|path| path.extension().is_some_and(|found| found == "seg"));
        segments.count()
    };
    let mut producer = fixture.transactional("p");
    producer.begin().unwrap();
    send(&mut *producer, "t", 0, "k", "x");
    producer.flush().unwrap();
    let mut consumer = fixture.member("g", &["t"]);
    assert!(consumer.poll(NOW, 10).unwrap().is_some());
    assert!(open() >= 3);
    // Neither closed nor dropped, as those of a process that was killed.
    std::mem::forget((producer, consumer));
    fixture.log.close();
    assert_eq!(open(), 0);
}
