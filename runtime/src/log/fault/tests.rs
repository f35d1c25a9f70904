#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::time::Duration;

use super::*;
use crate::clock::{Clock, ManualClock};
use crate::log::Class;
use crate::log::embedded::{EmbeddedLog, EmbeddedOptions};
use crate::log::{Event, NewRecord, OffsetCommit};

const NOW: Duration = Duration::ZERO;
const ROWS: i64 = 6;

struct Fixture {
    _dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    log: Arc<dyn Log>,
}

impl Fixture {
    /// A log with rows in the topic `in`.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(0));
        let clock_of_log = Arc::clone(&clock) as Arc<dyn Clock>;
        let options = EmbeddedOptions {
            clock: clock_of_log,
            stable_offsets_wait: NOW,
            ..EmbeddedOptions::default()
        };
        let log: Arc<dyn Log> = EmbeddedLog::open(dir.path(), options).unwrap();
        for topic in ["in", "out"] {
            log.create_topic(&TopicSpec::new(topic, 1)).unwrap();
        }
        let mut producer = log.producer(&ProducerOptions::idempotent("rows")).unwrap();
        for row in 0..ROWS {
            put(&mut *producer, "in", &row.to_le_bytes()).unwrap();
        }
        producer.flush().unwrap();
        Self {
            _dir: dir,
            clock,
            log,
        }
    }

    fn out(&self) -> Vec<i64> {
        let partition = TopicPartition::new("out", 0);
        let mut consumer = self.log.consumer(&ConsumerOptions::new("check")).unwrap();
        consumer.assign(&[(partition, 0)]).unwrap();
        let mut found = Vec::new();
        while let Some(Event::Records(batch)) = consumer.poll(NOW, 100).unwrap() {
            let rows = batch
                .iter()
                .map(|record| record.value.unwrap().try_into().unwrap());
            found.extend(rows.map(i64::from_le_bytes));
        }
        found
    }
}

fn put(producer: &mut dyn Producer, topic: &str, value: &[u8]) -> Result<(), LogError> {
    let (partition, value, headers) = (Some(0), Some(value), [].as_slice());
    producer.send(NewRecord {
        topic,
        partition,
        key: None,
        value,
        headers,
        timestamp_ms: None,
    })
}

/// A worker that carries rows from `in` to `out` two at a time, each pair in a transaction, and handles errors as their
/// class says. Returns at the end of `in`, or with the error that ends it.
fn carry(log: &dyn Log) -> Result<(), LogError> {
    'life: loop {
        let mut consumer = log.consumer(&ConsumerOptions::new("g"))?;
        let mut producer = log.producer(&ProducerOptions::transactional("carry"))?;
        match work(&mut *consumer, &mut *producer) {
            Ok(()) => {
                consumer.close(NOW)?;
                return Ok(());
            }
            Err(error) => match error.class() {
                Class::Retry | Class::Abort | Class::Restart => {
                    // Whatever it was, a new member and a new producer begin from what is committed.
                    let _ = consumer.close(NOW);
                    continue 'life;
                }
                Class::Fenced | Class::Fatal => return Err(error),
            },
        }
    }
}

fn work(consumer: &mut dyn Consumer, producer: &mut dyn Producer) -> Result<(), LogError> {
    producer.init_transactions()?;
    consumer.subscribe(&["in"])?;
    loop {
        match consumer.poll(NOW, 2)? {
            Some(Event::Assigned(partitions)) => {
                let committed = consumer.committed(&partitions)?;
                let start = committed[0].as_ref().map_or(0, |held| held.offset);
                consumer.assign(&[(partitions[0].clone(), start)])?;
            }
            Some(Event::Records(batch)) => {
                producer.begin()?;
                for record in batch.iter() {
                    put(producer, "out", record.value.unwrap())?;
                }
                let (partition, offset) = (batch.partition.clone(), batch.next_position());
                let offsets = [OffsetCommit {
                    partition,
                    offset,
                    metadata: String::new(),
                }];
                producer.send_offsets(&offsets, &consumer.group_metadata()?)?;
                producer.commit()?;
            }
            Some(Event::End { .. }) => return Ok(()),
            Some(Event::Revoked(_) | Event::Lost(_)) => unreachable!("it is alone"),
            None => return Ok(()),
        }
    }
}

#[test]
fn a_clean_run_names_its_steps_and_is_the_same_each_time() {
    let trace = || {
        let fixture = Fixture::new();
        let faults = FaultLog::new(Arc::clone(&fixture.log));
        carry(&*faults).unwrap();
        assert_eq!(fixture.out(), (0..ROWS).collect::<Vec<_>>());
        assert!(!faults.crashed());
        assert_eq!(faults.steps(), faults.trace().len() as u64);
        faults.trace()
    };
    let steps = trace();
    assert_eq!(steps, trace());
    let count = |name| steps.iter().filter(|step| **step == name).count();
    assert_eq!((count("producer.commit"), count("producer.send")), (3, 6));
    assert_eq!(
        steps[..3],
        [
            "producer.init_transactions",
            "consumer.subscribe",
            "consumer.poll"
        ]
    );
    assert_eq!(steps.last(), Some(&"consumer.close"));
}

#[test]
fn whatever_strikes_at_whichever_step_each_row_is_carried_once() {
    let clean = Fixture::new();
    let counting = FaultLog::new(Arc::clone(&clean.log));
    carry(&*counting).unwrap();
    for step in 0..counting.steps() {
        for fault in [
            Fault::CrashBefore,
            Fault::CrashAfter,
            Fault::UnknownButDone,
            Fault::UnknownAndNotDone,
            Fault::Unreachable,
            Fault::MustAbort,
            Fault::TimedOut,
        ] {
            if fault == Fault::TimedOut && !counting.trace()[step as usize].starts_with("producer.")
            {
                continue;
            }
            let fixture = Fixture::new();
            let faults = FaultLog::with_fault(Arc::clone(&fixture.log), At::Step(step), fault);
            let outcome = carry(&*faults);
            let crash = matches!(fault, Fault::CrashBefore | Fault::CrashAfter);
            assert_eq!(faults.crashed(), crash);
            if crash {
                assert!(matches!(outcome, Err(LogError::Closed)), "{outcome:?}");
                assert!(matches!(faults.topic("in"), Err(LogError::Closed)));
                assert_eq!(faults.steps(), step + 1, "nothing counts after a crash");
            }
            // Another process goes on when the first one's session is over.
            fixture.clock.advance(Duration::from_secs(10));
            carry(&*fixture.log).unwrap();
            let name = counting.trace()[step as usize];
            assert_eq!(
                fixture.out(),
                (0..ROWS).collect::<Vec<_>>(),
                "{fault:?} at step {step}, {name}"
            );
        }
    }
}

#[test]
fn a_fault_strikes_at_the_nth_call_of_a_name() {
    let fixture = Fixture::new();
    let at = At::Call("producer.commit", 1);
    let faults = FaultLog::with_fault(Arc::clone(&fixture.log), at, Fault::CrashAfter);
    assert!(matches!(carry(&*faults), Err(LogError::Closed)));
    assert_eq!(fixture.out(), [0, 1, 2, 3], "two transactions took effect");
    let at = At::Call("producer.commit", 0);
    let faults = FaultLog::with_fault(Arc::clone(&fixture.log), at, Fault::CrashBefore);
    assert!(
        carry(&*faults).is_ok(),
        "the dead member holds the partition still, so that there is nothing to do"
    );
    fixture.clock.advance(Duration::from_secs(10));
    assert!(matches!(carry(&*faults), Err(LogError::Closed)));
    assert_eq!(fixture.out(), [0, 1, 2, 3]);
}

#[test]
fn a_transaction_that_must_be_aborted_takes_nothing_until_it_is() {
    let fixture = Fixture::new();
    let at = At::Call("producer.send", 1);
    let faults = FaultLog::with_fault(Arc::clone(&fixture.log), at, Fault::MustAbort);
    let mut producer = faults
        .producer(&ProducerOptions::transactional("a"))
        .unwrap();
    producer.init_transactions().unwrap();
    producer.begin().unwrap();
    put(&mut *producer, "out", &1_i64.to_le_bytes()).unwrap();
    let refused = [
        put(&mut *producer, "out", &2_i64.to_le_bytes()),
        producer.commit(),
    ];
    assert!(
        refused
            .iter()
            .all(|refused| matches!(refused, Err(LogError::MustAbort { .. })))
    );
    producer.abort().unwrap();
    producer.begin().unwrap();
    put(&mut *producer, "out", &3_i64.to_le_bytes()).unwrap();
    producer.commit().unwrap();
    assert_eq!(fixture.out(), [3]);
}

#[test]
fn a_crashed_member_keeps_its_place_until_its_session_is_over() {
    let fixture = Fixture::new();
    let faults = FaultLog::new(Arc::clone(&fixture.log));
    let join = |log: &dyn Log| {
        let mut consumer = log.consumer(&ConsumerOptions::new("g")).unwrap();
        consumer.subscribe(&["in"]).unwrap();
        consumer
    };
    let mut first = join(&*faults);
    assert!(matches!(
        first.poll(NOW, 1).unwrap(),
        Some(Event::Assigned(_))
    ));
    faults.crash();
    assert!(matches!(first.close(NOW), Err(LogError::Closed)));
    let mut second = join(&*fixture.log);
    assert!(second.poll(NOW, 1).unwrap().is_none());
    fixture.clock.advance(Duration::from_secs(10));
    assert!(matches!(
        second.poll(NOW, 1).unwrap(),
        Some(Event::Assigned(_))
    ));
}
