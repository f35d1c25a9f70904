//! The log against a model that does everything in the simplest way: a list of records and control records.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Step {
    Begin(usize),
    Send(usize, i32),
    Offset(usize),
    Flush(usize),
    Commit(usize),
    Abort(usize),
    /// Another producer takes the transactional id.
    Take(usize),
    /// Written outside any transaction.
    Plain(i32),
    Delete(i32, u8),
    Compact,
    Restart,
    Timeout,
}

fn step() -> impl Strategy<Value = Step> {
    let (producer, partition) = (0..2_usize, 0..2_i32);
    prop_oneof![
        4 => producer.clone().prop_map(Step::Begin),
        8 => (producer.clone(), partition.clone()).prop_map(|(producer, partition)| Step::Send(producer, partition)),
        1 => producer.clone().prop_map(Step::Offset),
        3 => producer.clone().prop_map(Step::Flush),
        3 => producer.clone().prop_map(Step::Commit),
        2 => producer.clone().prop_map(Step::Abort),
        1 => producer.prop_map(Step::Take),
        3 => partition.clone().prop_map(Step::Plain),
        1 => (partition, any::<u8>()).prop_map(|(partition, share)| Step::Delete(partition, share)),
        1 => Just(Step::Compact),
        1 => Just(Step::Restart),
        1 => Just(Step::Timeout),
    ]
}

#[derive(Clone, Debug, PartialEq)]
enum Slot {
    /// The transaction it belongs to, its key and its value.
    Record(Option<usize>, String, String),
    Control,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    Open,
    Committed,
    Aborted,
}

#[derive(Default)]
struct ModelProducer {
    begun: bool,
    transaction: Option<usize>,
    buffered: Vec<(i32, String, String)>,
    offset: Option<Offset>,
    fenced: bool,
}

#[derive(Default)]
struct Model {
    partitions: [Vec<Slot>; 2],
    starts: [Offset; 2],
    outcomes: Vec<Outcome>,
    producers: [ModelProducer; 2],
    committed: Option<Offset>,
}

impl Model {
    fn flush(&mut self, number: usize) {
        let producer = &mut self.producers[number];
        for (partition, key, value) in producer.buffered.drain(..) {
            let transaction = *producer.transaction.get_or_insert_with(|| {
                self.outcomes.push(Outcome::Open);
                self.outcomes.len() - 1
            });
            self.partitions[partition as usize].push(Slot::Record(Some(transaction), key, value));
        }
    }

    fn end(&mut self, number: usize, outcome: Outcome) {
        let producer = &mut self.producers[number];
        if let Some(transaction) = producer.transaction.take() {
            for partition in &mut self.partitions {
                if partition
                    .iter()
                    .any(|slot| matches!(slot, Slot::Record(Some(t), ..) if *t == transaction))
                {
                    partition.push(Slot::Control);
                }
            }
            self.outcomes[transaction] = outcome;
        }
        if let (Outcome::Committed, Some(offset)) = (outcome, producer.offset) {
            self.committed = Some(offset);
        }
        *producer = ModelProducer::default();
    }

    fn stable(&self, partition: usize) -> Offset {
        let open = |slot: &Slot| matches!(slot, Slot::Record(Some(t), ..) if self.outcomes[*t] == Outcome::Open);
        let slots = &self.partitions[partition];
        slots.iter().position(open).unwrap_or(slots.len()) as Offset
    }

    fn visible(&self, partition: usize) -> Vec<(Offset, String, String)> {
        let stable = self.stable(partition);
        let range = (0..stable)
            .zip(&self.partitions[partition])
            .filter(|(offset, _)| *offset >= self.starts[partition]);
        range
            .filter_map(|(offset, slot)| match slot {
                Slot::Record(Some(t), ..) if self.outcomes[*t] != Outcome::Committed => None,
                Slot::Record(_, key, value) => Some((offset, key.clone(), value.clone())),
                Slot::Control => None,
            })
            .collect()
    }
}

fn check(log: &dyn Log, model: &Model, compacted: bool) -> Result<(), TestCaseError> {
    for partition in 0..2 {
        let name = tp("t", partition as i32);
        let bounds = log.bounds(&name).unwrap();
        let end = model.partitions[partition].len() as Offset;
        prop_assert_eq!(
            bounds,
            Bounds {
                start: model.starts[partition],
                stable: model.stable(partition),
                end
            }
        );
        let (found, position) = read(log, &name);
        prop_assert_eq!(position, bounds.stable.max(bounds.start));
        let expected = model.visible(partition);
        let all: Vec<_> = expected
            .iter()
            .map(|(offset, _, value)| (*offset, value.clone()))
            .collect();
        if compacted {
            prop_assert!(
                found.iter().all(|record| all.contains(record)),
                "{:?} of {:?}",
                found,
                all
            );
            for (number, (offset, key, _)) in expected.iter().enumerate() {
                let last = !expected[number + 1..]
                    .iter()
                    .any(|(_, later, _)| later == key);
                prop_assert!(
                    !last || found.iter().any(|(kept, _)| kept == offset),
                    "{} is missing",
                    offset
                );
            }
        } else {
            prop_assert_eq!(found, all);
        }
    }
    let committed = log
        .committed("g", &[tp("t", 0)])
        .unwrap()
        .remove(0)
        .map(|committed| committed.offset);
    prop_assert_eq!(committed, model.committed);
    Ok(())
}

fn run(steps: &[Step], compacted: bool) -> Result<(), TestCaseError> {
    let mut fixture = Fixture::new();
    let policy = if compacted { "compact" } else { "delete" };
    fixture
        .log
        .create_topic(&TopicSpec::new("t", 2).with("cleanup.policy", policy))
        .unwrap();
    let producer = |log: &Arc<EmbeddedLog>, number: usize| {
        // Only what a step says is written, however slow the machine is.
        let linger = Duration::from_secs(3600);
        let options = ProducerOptions {
            linger,
            ..ProducerOptions::transactional(format!("id {number}"))
        };
        let mut producer = log.producer(&options).unwrap();
        producer.init_transactions().unwrap();
        producer
    };
    let mut producers = [producer(&fixture.log, 0), producer(&fixture.log, 1)];
    let mut model = Model::default();
    for (number, step) in steps.iter().enumerate() {
        let value = number.to_string();
        let key = (number % 5).to_string();
        match *step {
            Step::Begin(p) => {
                let allowed = !model.producers[p].begun && !model.producers[p].fenced;
                prop_assert_eq!(producers[p].begin().is_ok(), allowed);
                model.producers[p].begun |= allowed;
            }
            Step::Send(p, partition) => {
                if model.producers[p].begun && !model.producers[p].fenced {
                    send(&mut *producers[p], "t", partition, &key, &value);
                    model.producers[p].buffered.push((partition, key, value));
                }
            }
            Step::Offset(p) => {
                let consumer = fixture.log.consumer(&ConsumerOptions::new("g")).unwrap();
                let offsets = [commit_of(&tp("t", 0), number as Offset, "")];
                let allowed = model.producers[p].begun && !model.producers[p].fenced;
                let sent = producers[p].send_offsets(&offsets, &consumer.group_metadata().unwrap());
                prop_assert_eq!(sent.is_ok(), allowed);
                if allowed {
                    model.producers[p].offset = Some(number as Offset);
                    model.producers[p].transaction.get_or_insert_with(|| {
                        model.outcomes.push(Outcome::Open);
                        model.outcomes.len() - 1
                    });
                }
            }
            Step::Flush(p) => {
                prop_assert_eq!(producers[p].flush().is_ok(), !model.producers[p].fenced);
                model.flush(p);
            }
            Step::Commit(p) => {
                let allowed = model.producers[p].begun && !model.producers[p].fenced;
                prop_assert_eq!(producers[p].commit().is_ok(), allowed);
                if allowed {
                    model.flush(p);
                    model.end(p, Outcome::Committed);
                }
            }
            Step::Abort(p) => {
                let allowed = model.producers[p].begun && !model.producers[p].fenced;
                prop_assert_eq!(producers[p].abort().is_ok(), allowed);
                if allowed {
                    model.producers[p].buffered.clear();
                    model.end(p, Outcome::Aborted);
                }
            }
            Step::Take(p) => {
                producers[p] = producer(&fixture.log, p);
                model.end(p, Outcome::Aborted);
            }
            Step::Plain(partition) => {
                let mut plain = fixture
                    .log
                    .producer(&ProducerOptions::idempotent("p"))
                    .unwrap();
                send(&mut *plain, "t", partition, &key, &value);
                plain.flush().unwrap();
                model.partitions[partition as usize].push(Slot::Record(None, key, value));
            }
            Step::Delete(partition, share) => {
                let before = model.stable(partition as usize) * i64::from(share) / 255;
                fixture
                    .log
                    .delete_records(&tp("t", partition), before)
                    .unwrap();
                let start = &mut model.starts[partition as usize];
                *start = before.max(*start);
            }
            Step::Compact => fixture.log.compact_now().unwrap(),
            Step::Restart => {
                fixture.reopen();
                // Which transaction's control record comes first in a partition is the order of their beginnings.
                let mut order = [0, 1];
                order.sort_by_key(|p| model.producers[*p].transaction);
                for p in order {
                    model.end(p, Outcome::Aborted);
                }
                producers = [producer(&fixture.log, 0), producer(&fixture.log, 1)];
            }
            Step::Timeout => {
                fixture.clock.advance(Duration::from_secs(31));
                // Whose id comes first does not show: control records look the same.
                for p in 0..2 {
                    if model.producers[p].transaction.is_some() {
                        model.end(p, Outcome::Aborted);
                        model.producers[p].fenced = true;
                    }
                }
            }
        }
        check(&*fixture.log, &model, compacted)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn it_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps, false)?;
    }

    #[test]
    fn compacted_it_keeps_what_the_model_says_must_be_kept(steps in prop::collection::vec(step(), 1..60)) {
        run(&steps, true)?;
    }
}
