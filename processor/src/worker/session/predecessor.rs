//! The application that the job takes over: how far it is, and so how far this one may go.
//!
//! It is looked at now and then, until every task knows where it goes on: that stands beside the task's own offset then, and
//! nobody asks the other application any more.

use std::collections::{BTreeMap, BTreeSet};

use engine::fold::Handover;
use runtime::log::{Batch, Class, Offset, TopicPartition};

use super::Session;
use crate::job::Job;
use crate::record::HandedOver;
use crate::takeover::{Predecessor, Standing, TakeoverError};
use crate::worker::WorkerError;
use crate::worker::error::{Doing, chain};

/// How often the other application's commits are looked at.
const LOOK_MS: i64 = 200;

/// What was seen of the application that is taken over.
#[derive(Default)]
pub(super) struct Following {
    last_look_ms: i64,
    standing: Option<Standing>,
    /// Partials partitions that wait for it.
    waiting: BTreeSet<TopicPartition>,
}

impl Following {
    pub(super) fn forget(&mut self, partition: &TopicPartition) {
        self.waiting.remove(partition);
    }
}

impl Session<'_> {
    /// Looks how far the application is that is taken over, and tells the tasks.
    pub(super) fn follow(&mut self, now_ms: i64) -> Result<(), WorkerError> {
        let worker = self.worker;
        let Some(predecessor) = &worker.job.predecessor else {
            return Ok(());
        };
        let mut sources = self.scans.keys();
        let follows = self.merges.values().any(|merge| merge.follows())
            || self.scans.values().any(|scan| scan.follows())
            || !self.all_give() && sources.any(|of| is_taken_over(&worker.job, of));
        if !follows && self.following.waiting.is_empty() {
            worker.metrics.takeover_behind_seconds.set(0.0);
            return Ok(());
        }
        if !self.all_give() && now_ms.saturating_sub(self.following.last_look_ms) >= LOOK_MS {
            self.following.last_look_ms = now_ms;
            match predecessor.standing(worker.log.as_ref()) {
                Ok(standing) => self.following.standing = Some(standing),
                Err(error) if error.log().is_some_and(|of| of.class() == Class::Retry) => {
                    tracing::warn!(error = %chain(&error), "the application that is taken over can't be looked at; trying again");
                }
                Err(error) => return Err(error.into()),
            }
            if let Some(Standing::HandedOver(handed_over)) = &self.following.standing {
                tracing::info!(
                    application = predecessor.application_id(),
                    to = handed_over.to,
                    "the application was handed over; results are given from now on"
                );
            }
        }
        match self.following.standing.take() {
            None => {}
            Some(standing) => {
                let told = self.tell(predecessor, &standing);
                self.following.standing = Some(standing);
                told?;
            }
        }
        self.let_waiting_go_on()
    }

    /// Whether all queries give results: none waits until an earlier application is handed over.
    fn all_give(&self) -> bool {
        let over = matches!(self.following.standing, Some(Standing::HandedOver(_)));
        over || self.worker.job.predecessor.is_none()
    }

    /// Lets the scans look at the clock. What is written by those who wait themselves is not silent by that.
    pub(super) fn tick(&mut self, now_ms: i64) {
        if !self.worker.options.idle_marks {
            return;
        }
        let all_give = self.all_give();
        for (partition, scan) in &mut self.scans {
            match all_give || !is_taken_over(&self.worker.job, partition) {
                true => scan.tick(now_ms),
                false => scan.hold(now_ms),
            }
        }
    }

    fn tell(&mut self, predecessor: &Predecessor, standing: &Standing) -> Result<(), WorkerError> {
        match standing {
            Standing::Running { given_to, sources } => {
                for merge in self.merges.values_mut() {
                    if let Some(given_to) = given_to.get(&merge.query_index) {
                        merge.predecessor_at(*given_to);
                    }
                }
                for (partition, scan) in &mut self.scans {
                    if let Some(offset) = sources.get(partition) {
                        scan.predecessor_at(*offset);
                    }
                }
                self.show_behind(given_to);
            }
            Standing::HandedOver(handed_over) => {
                for merge in self.merges.values_mut().filter(|merge| merge.follows()) {
                    if let Some(handed) = predecessor.handed(merge.query_index, handed_over)? {
                        merge.handed_over(Handover {
                            given_to: handed.given_to.unwrap_or(i64::MIN),
                            versions_from: handed.versions_from,
                        });
                    }
                }
                for (partition, scan) in &mut self.scans {
                    if scan.follows() {
                        let topic = &self.worker.job.sources[partition.topic.as_ref()];
                        let from =
                            source_from(predecessor, handed_over, partition, &topic.topic_id)?;
                        scan.handed_over(from);
                    }
                }
                self.worker.metrics.takeover_behind_seconds.set(0.0);
            }
        }
        Ok(())
    }

    /// Lets the shards read on that no longer wait.
    pub(super) fn let_waiting_go_on(&mut self) -> Result<(), WorkerError> {
        let over: Vec<_> = self
            .following
            .waiting
            .iter()
            .filter(|partition| {
                let merge = self.merges.get(*partition);
                merge.is_none_or(|merge| !merge.is_waiting())
            })
            .cloned()
            .collect();
        for partition in &over {
            self.following.waiting.remove(partition);
        }
        let resume: Vec<_> = over
            .into_iter()
            .filter(|partition| self.merges.contains_key(partition))
            .collect();
        if resume.is_empty() {
            return Ok(());
        }
        self.consumer
            .resume(&resume)
            .doing("a partition can't be resumed")
    }

    /// Lets a shard wait whose next record would close windows that the application that is taken over may still give.
    pub(super) fn hold_waiting(&mut self, partition: &TopicPartition) -> Result<(), WorkerError> {
        let Some(merge) = self
            .merges
            .get(partition)
            .filter(|merge| merge.is_waiting())
        else {
            return Ok(());
        };
        let position = merge.position();
        self.consumer
            .seek(partition, position)
            .doing("a partition can't be read again")?;
        if self.following.waiting.insert(partition.clone()) {
            self.consumer
                .pause(std::slice::from_ref(partition))
                .doing("a partition can't be paused")?;
        }
        Ok(())
    }

    /// Leaves out of a source's batch what the application that is taken over has not read yet, where queries without state
    /// take its queries over. `None` if that is all of it.
    pub(super) fn up_to_predecessor(&mut self, batch: Batch) -> Result<Option<Batch>, WorkerError> {
        let Some(limit) = self
            .scans
            .get(&batch.partition)
            .and_then(|scan| scan.limit())
        else {
            return Ok(Some(batch));
        };
        let taken = batch
            .iter()
            .take_while(|record| record.offset < limit)
            .count();
        if taken == batch.len() {
            return Ok(Some(batch));
        }
        let partition = batch.partition.clone();
        let next = batch.get(taken).offset;
        let now_ms = self.worker.clock.now_ms();
        self.consumer
            .seek(&partition, next)
            .doing("a partition can't be read again")?;
        self.pauses
            .rest(self.consumer.as_mut(), &partition, now_ms + LOOK_MS)
            .doing("a partition can't be paused")?;
        Ok(batch.first(taken))
    }

    /// Says by how much event time the shards here are behind the application that they take over.
    fn show_behind(&self, given_to: &BTreeMap<usize, i64>) {
        let behind = self
            .merges
            .values()
            .filter(|merge| merge.follows() && !merge.is_waiting())
            .filter_map(|merge| {
                let given_to = given_to
                    .get(&merge.query_index)
                    .filter(|to| **to > i64::MIN)?;
                let at = merge.fold().closes_to()?;
                Some(given_to.saturating_sub(at).max(0))
            })
            .max();
        let seconds = behind.unwrap_or(0) as f64 / 1000.0;
        self.worker.metrics.takeover_behind_seconds.set(seconds);
    }
}

/// Whether a source partition's topic is one that queries of the job write, once they have taken over those of an earlier
/// application.
fn is_taken_over(job: &Job, partition: &TopicPartition) -> bool {
    let source = job.sources.get(partition.topic.as_ref());
    source.is_some_and(|source| source.is_taken_over)
}

/// Where queries without state go on in a source partition.
fn source_from(
    predecessor: &Predecessor,
    handed_over: &HandedOver,
    partition: &TopicPartition,
    topic_id: &str,
) -> Result<Offset, TakeoverError> {
    let mut sources = handed_over.sources.iter();
    let Some(source) = sources.find(|source| *source.topic == *partition.topic) else {
        return Ok(0);
    };
    if source.topic_id != topic_id {
        return Err(TakeoverError::Source {
            application_id: predecessor.application_id().into(),
            topic: source.topic.clone(),
        });
    }
    let place = usize::try_from(partition.partition).unwrap_or(usize::MAX);
    // A partition that was added since was not read.
    Ok(source.offsets.get(place).copied().unwrap_or(0))
}
