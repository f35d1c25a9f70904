//! The end of a run that takes what is there and no more.
//!
//! ```text
//!   source read to its end ─▶ end-of-input marks ─▶ shards close every window ─▶ results
//!                                                                                  └─▶ a source of another query …
//! ```

use std::collections::{BTreeMap, BTreeSet};

use runtime::log::{Class, Offset, TopicPartition};

use super::Session;
use crate::offsets::{self, ShardState, SourceState};
use crate::task::merge::MergeTask;
use crate::task::scan::ScanTask;
use crate::worker::WorkerError;
use crate::worker::error::Doing;

/// How often the group's offsets are looked at.
const CHECK_MS: i64 = 200;
/// How often it is looked whether partials have come to their end.
const PARTIALS_MS: i64 = 20;

/// What is finished, here or in other processes of the group, as of the last look.
#[derive(Default)]
pub(super) struct Drained {
    last_check_ms: i64,
    /// Where the input of each source partition ends, once that is certain.
    ends: BTreeMap<TopicPartition, Offset>,
    /// Topics that no more rows will come to.
    complete: BTreeSet<String>,
    all: bool,
    /// How far each partials partition was read when it brought nothing more.
    partials: BTreeMap<TopicPartition, Offset>,
    last_partials_ms: i64,
}

impl Drained {
    /// Notes that a partials partition brings nothing more.
    pub(super) fn reached_end(&mut self, partition: &TopicPartition, position: Offset) {
        self.partials.insert(partition.clone(), position);
    }
}

impl Session<'_> {
    /// Announces the end of source partitions that are read to it, and says whether the whole job, here or elsewhere, is
    /// finished.
    pub(super) fn drained(&mut self) -> Result<bool, WorkerError> {
        let now_ms = self.worker.clock.now_ms();
        let sources = &self.worker.job.sources;
        let is_fed = sources.values().any(|source| source.is_fed);
        if !is_fed && self.drained.complete.is_empty() {
            // What no query of the job writes, all that is there can be taken of at once.
            self.drained.complete = sources.keys().cloned().collect();
        }
        // The look waits for the brokers. What others have finished matters once all is finished here, and to sources that
        // they write.
        let here = self.joined && self.ended_here();
        if (is_fed || here) && now_ms.saturating_sub(self.drained.last_check_ms) >= CHECK_MS {
            self.drained.last_check_ms = now_ms;
            self.look()?;
        }
        for (partition, scan) in &mut self.scans {
            if !self.drained.complete.contains(partition.topic.as_ref()) {
                continue;
            }
            let end = match self.drained.ends.get(partition) {
                Some(end) => *end,
                None => {
                    let bounds = self
                        .worker
                        .log
                        .bounds(partition)
                        .doing("a partition can't be looked at")?;
                    let source = self.worker.job.sources.get(partition.topic.as_ref());
                    // The last results of another query may not be stable yet, though their offsets are.
                    let end = match source.is_some_and(|source| source.is_fed) {
                        true => bounds.end,
                        false => bounds.stable,
                    };
                    self.drained.ends.insert(partition.clone(), end);
                    end
                }
            };
            scan.end_at(end);
        }
        Ok(self.ended_here() && self.drained.all && self.through(now_ms)?)
    }

    /// Whether the end of the input of all that is here has been announced and committed.
    fn ended_here(&self) -> bool {
        self.restores.is_empty()
            && self.scans.values().all(ScanTask::ended)
            && self.merges.values().all(MergeTask::ended)
    }

    /// Whether what is here has taken all that there is. It may have been finished before, and more have come since: that is
    /// late.
    fn through(&mut self, now_ms: i64) -> Result<bool, WorkerError> {
        let ends = &self.drained.ends;
        let scanned = |(partition, scan): (&TopicPartition, &ScanTask)| {
            let end = ends.get(partition);
            end.is_some_and(|end| scan.is_through(*end))
        };
        // Before the group has answered there is nothing here.
        if !self.joined
            || !self.scans.iter().all(scanned)
            || now_ms.saturating_sub(self.drained.last_partials_ms) < PARTIALS_MS
        {
            return Ok(false);
        }
        self.drained.last_partials_ms = now_ms;
        for (partition, merge) in &self.merges {
            let stable = match self.worker.log.bounds(partition) {
                Err(error) if error.class() == Class::Retry => return Ok(false),
                other => other.doing("a partition can't be looked at")?.stable,
            };
            let reached = self.drained.partials.get(partition).copied().unwrap_or(0);
            if merge.to_commit().is_some() || merge.position().max(reached) < stable {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Looks at the group's committed offsets.
    fn look(&mut self) -> Result<(), WorkerError> {
        let job = &self.worker.job;
        let mut all = true;
        let mut ended_sources = BTreeSet::new();
        for (topic, partitions) in &self.partitions {
            let partitions =
                (0..*partitions).map(|partition| TopicPartition::new(topic.as_str(), partition));
            let ended = self.every(partitions.collect(), |state: &SourceState| state.ended)?;
            if ended {
                ended_sources.insert(topic.as_str());
            }
            all &= ended;
        }
        let mut unfinished = BTreeSet::new();
        for query in &job.queries {
            let ended = match &query.folded {
                None => ended_sources.contains(query.plan.source.topic.as_str()),
                Some(folded) => {
                    let shards = (0..job.options.shards).map(|shard| {
                        TopicPartition::new(folded.partials_topic.as_str(), shard as i32)
                    });
                    self.every(shards.collect(), |state: &ShardState| state.ended)?
                }
            };
            if !ended {
                unfinished.insert(query.plan.sink.topic.as_str());
            }
            all &= ended;
        }
        let complete = job
            .sources
            .keys()
            .filter(|topic| !unfinished.contains(topic.as_str()))
            .cloned()
            .collect();
        (self.drained.complete, self.drained.all) = (complete, all);
        Ok(())
    }

    /// Whether all of these partitions stand committed in a state that is finished.
    fn every<T: serde::de::DeserializeOwned>(
        &self,
        partitions: Vec<TopicPartition>,
        is_finished: impl Fn(&T) -> bool,
    ) -> Result<bool, WorkerError> {
        let application_id = &self.worker.job.options.application_id;
        let committed = match self.worker.log.committed(application_id, &partitions) {
            Err(error) if error.class() == Class::Retry => return Ok(false),
            other => other.doing("the group's committed offsets can't be read")?,
        };
        Ok(committed.iter().all(|committed| {
            let state = committed
                .as_ref()
                .map(|committed| offsets::decode::<T>(&committed.metadata));
            matches!(state, Some(Ok(state)) if is_finished(&state))
        }))
    }
}
