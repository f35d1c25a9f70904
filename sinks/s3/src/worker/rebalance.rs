//! Taking up partitions, and giving them back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use runtime::log::TopicPartition;

use super::partition::Part;
use super::session::Session;
use super::{LOG_DEADLINE, attempt};
use crate::error::{Step, Stop, chain};
use crate::plan::{Decision, Facts, Refused, Totals, decide};

/// How long a revoked partition's upload may go on, so that the next owner need not do it again.
const REVOKE_GRACE: Duration = Duration::from_secs(3);

impl Session<'_> {
    pub(super) fn on_assigned(&mut self, partitions: &[TopicPartition]) -> Step<()> {
        if partitions.is_empty() {
            return Ok(());
        }
        self.worker.describe_topics()?;
        let consumer = &mut self.consumer;
        let committed = attempt(&self.worker.options, "read committed offsets", || {
            consumer.committed(partitions)
        })?;
        let fresh: Vec<&TopicPartition> = partitions
            .iter()
            .zip(&committed)
            .filter(|(_, found)| found.is_none())
            .map(|(partition, _)| partition)
            .collect();
        let written = self.written(&fresh)?;

        self.epoch += 1;
        let mut starts = Vec::with_capacity(partitions.len());
        for (partition, committed) in partitions.iter().zip(&committed) {
            let options = &self.worker.options;
            let bounds = attempt(options, "find the partition's bounds", || {
                options.log.bounds(partition)
            })?;
            let topic = &self.topic_of(partition).description;
            let facts = Facts {
                topic_id: &topic.id,
                cleanup_policy: topic
                    .config
                    .get("cleanup.policy")
                    .map_or("", String::as_str),
                bounds,
                committed: committed.as_ref(),
                files_exist: written.contains(partition),
            };
            let (at, totals, plan) = match decide(&facts) {
                Decision::Begin { at } => (
                    at,
                    Totals {
                        from: at,
                        ..Totals::default()
                    },
                    None,
                ),
                Decision::GoOn { at, totals } => (at, totals, None),
                Decision::Finish {
                    start,
                    totals,
                    plan,
                } => {
                    tracing::info!(%partition, start, end = plan.end, "a flush is half done, finishing it");
                    (start, totals, Some(plan))
                }
                Decision::Refuse(refusal) => {
                    return Err(Refused {
                        partition: partition.clone(),
                        refusal,
                    }
                    .into());
                }
            };
            starts.push((partition.clone(), at));
            self.parts.insert(
                partition.clone(),
                Part::new(partition.clone(), self.epoch, at, totals, plan),
            );
        }
        let consumer = &mut self.consumer;
        attempt(&self.worker.options, "begin to read", || {
            consumer.assign(&starts)
        })?;
        tracing::info!(partitions = partitions.len(), "partitions were assigned");
        Ok(())
    }

    /// Which of these partitions the lake has files of.
    fn written(&self, partitions: &[&TopicPartition]) -> Step<Vec<TopicPartition>> {
        let mut by_topic: BTreeMap<Arc<str>, Vec<i32>> = BTreeMap::new();
        for partition in partitions {
            by_topic
                .entry(partition.topic.clone())
                .or_default()
                .push(partition.partition);
        }
        let mut written = Vec::new();
        for (topic, numbers) in by_topic {
            let id = &self.worker.topics[&topic].description.id;
            let (began, mut failures) = (Instant::now(), 0);
            let found = loop {
                let listing = self.worker.lake.partitions_with_files(&topic, id, &numbers);
                match self.worker.uploads.block_on(listing) {
                    Ok(found) => break found,
                    Err(error) if error.may_pass() && !self.options().lifecycle.stopping() => {
                        failures += 1;
                        let pause = self.backoff().pause(failures);
                        let reason = chain(&error);
                        // the group must hear of this member, which can't poll here
                        if began.elapsed() > LOG_DEADLINE {
                            return Err(Stop::Rejoin(reason));
                        }
                        tracing::warn!(
                            reason,
                            pause_ms = pause.as_millis(),
                            "the lake can't be listed, trying again"
                        );
                        self.options().nap(pause);
                    }
                    Err(error) => return Err(crate::error::SinkError::from(error).into()),
                }
            };
            written.extend(
                found
                    .into_iter()
                    .map(|number| TopicPartition::new(topic.clone(), number)),
            );
        }
        Ok(written)
    }

    pub(super) fn on_revoked(&mut self, partitions: &[TopicPartition]) -> Step<()> {
        // Open flushes are dropped: nothing of them was uploaded, and the next owner reads them again.
        let began = Instant::now();
        while began.elapsed() < REVOKE_GRACE
            && partitions
                .iter()
                .any(|partition| self.parts.get(partition).is_some_and(Part::in_flight))
        {
            self.take_completions()?;
            std::thread::sleep(Duration::from_millis(5));
        }
        self.give_up(partitions)
    }

    pub(super) fn on_lost(&mut self, partitions: &[TopicPartition]) -> Step<()> {
        tracing::warn!(
            partitions = partitions.len(),
            "partitions were lost to other members"
        );
        self.give_up(partitions)
    }

    fn give_up(&mut self, partitions: &[TopicPartition]) -> Step<()> {
        for partition in partitions {
            self.parts.remove(partition);
            let number = partition.partition.to_string();
            let labels = [&*partition.topic, number.as_str()];
            let metrics = &self.options().metrics;
            // no gauge is there before the first measurement
            let _ = metrics.lag_records.remove_label_values(&labels);
            let _ = metrics.headroom_records.remove_label_values(&labels);
        }
        let consumer = &mut self.consumer;
        attempt(&self.worker.options, "give partitions back", || {
            consumer.unassign(partitions)
        })
    }
}
