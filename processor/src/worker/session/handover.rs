//! An application is handed over to its successor: a session that reads no source folds what is left, brings all shards of
//! a query to one watermark, and marks all committed offsets.
//!
//! ```text
//!   1. partials that are left ──fold──▶ results, as ever
//!   2. shards differ? marks with the furthest watermark ──fold──▶ all have given the windows up to D, and no others
//!   3. one transaction: the record of the job (to whom, D, versions) and all offsets, marked ─▶ handed over
//! ```
//!
//! Shards can differ even at the end of their partials: the order in which the ranges of several workers stand there is
//! another one in each. Before the third step the application could go on as if nothing had been.

use std::collections::BTreeMap;

use engine::partial::Header;
use engine::window::Window;
use runtime::log::{Event, NewRecord, Offset, OffsetCommit, TopicPartition};

use super::commit::commit_of;
use super::{LEAVE_DEADLINE, Session};
use crate::job::JobQuery;
use crate::offsets::SourceState;
use crate::partial;
use crate::record::{self, HandedOver, HandedQuery, HandedSource};
use crate::task::merge::MergeTask;
use crate::worker::WorkerError;
use crate::worker::error::Doing;

/// For how long nothing may move before it is given up.
const PATIENCE_MS: i64 = 60_000;

/// What a session knows that hands the application over.
#[derive(Default)]
pub(super) struct Handing {
    /// Where each source partition stands committed.
    pub(super) sources: BTreeMap<TopicPartition, (Offset, SourceState)>,
    /// Up to where partials were delivered.
    delivered: BTreeMap<TopicPartition, Offset>,
    /// Where the end of partials was reached last.
    ends: BTreeMap<TopicPartition, Offset>,
}

impl Handing {
    /// Takes note of what a poll brings.
    pub(super) fn see(&mut self, event: &Event) -> Result<(), WorkerError> {
        match event {
            Event::Records(batch) => {
                self.delivered
                    .insert(batch.partition.clone(), batch.next_position());
            }
            Event::End {
                partition,
                position,
            } => {
                self.ends.insert(partition.clone(), *position);
            }
            Event::Assigned(_) => {}
            Event::Revoked(_) | Event::Lost(_) => return Err(WorkerError::Joined),
        }
        Ok(())
    }
}

impl Session<'_> {
    /// Hands the application over to `successor`, and leaves the group.
    pub(in crate::worker) fn hand_over(
        mut self,
        successor: &str,
    ) -> Result<HandedOver, WorkerError> {
        self.handing = Some(Handing::default());
        let handed_over = self.hand_over_to(successor);
        let all: Vec<_> = self
            .merges
            .keys()
            .chain(self.restores.keys())
            .cloned()
            .collect();
        self.forget(&all);
        let left = self.consumer.close(LEAVE_DEADLINE);
        let handed_over = handed_over?;
        left.doing("the group can't be left")?;
        Ok(handed_over)
    }

    fn hand_over_to(&mut self, successor: &str) -> Result<HandedOver, WorkerError> {
        self.fold_all()?;
        if self.level()? {
            self.fold_all()?;
        }
        let handed_over = self.what_is_handed_over(successor)?;
        let offsets = self.marked()?;
        let group = self
            .consumer
            .group_metadata()
            .doing("the group's generation can't be had")?;
        record::hand_over(
            self.worker.log.as_ref(),
            &self.worker.job.options.application_id,
            &handed_over,
            &offsets,
            &group,
        )?;
        Ok(handed_over)
    }

    /// Folds all partials that are there, and commits that.
    fn fold_all(&mut self) -> Result<(), WorkerError> {
        let mut moved_ms = self.worker.clock.now_ms();
        loop {
            if self.worker.leaving() {
                return Err(WorkerError::NotFolded);
            }
            let event = self
                .consumer
                .poll(self.wait(), self.worker.options.max_poll_records)
                .doing("the log can't be read")?;
            let quiet = event.is_none();
            if let Some(event) = event {
                moved_ms = self.worker.clock.now_ms();
                if let Some(handing) = &mut self.handing {
                    handing.see(&event)?;
                }
                self.take(event)?;
            }
            self.wake()?;
            if self.commit_is_due() {
                self.commit()?;
            }
            if quiet && self.all_folded()? {
                self.commit()?;
                // An aborted transaction has taken it back.
                if self.all_folded()? && self.merges.values().all(|of| of.to_commit().is_none()) {
                    return Ok(());
                }
            }
            if self.worker.clock.now_ms().saturating_sub(moved_ms) > PATIENCE_MS {
                return Err(WorkerError::NotFolded);
            }
        }
    }

    /// Whether all partitions are here, and all partials folded.
    fn all_folded(&self) -> Result<bool, WorkerError> {
        let Some(handing) = &self.handing else {
            return Ok(false);
        };
        let job = &self.worker.job;
        let sources: i32 = self.partitions.values().sum();
        let folded = job.queries.iter().filter(|query| query.folded.is_some());
        let shards = folded.count() * job.options.shards as usize;
        if handing.sources.len() < usize::try_from(sources).unwrap_or(0)
            || self.merges.len() < shards
        {
            return Ok(false);
        }
        for (partition, merge) in &self.merges {
            let taken = merge.position() >= handing.delivered.get(partition).copied().unwrap_or(0);
            if merge.restoring() || merge.is_closing() || merge.follows() || !taken {
                return Ok(false);
            }
            let bounds = self
                .worker
                .log
                .bounds(partition)
                .doing("a partition can't be looked at")?;
            // Not the last stable offset: what is in a transaction that is still open may be committed.
            let end = handing.ends.get(partition).copied();
            if bounds.end > bounds.start && end.is_none_or(|end| end < bounds.end) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Writes marks, so that all shards of each query come to one watermark; whether any were needed.
    fn level(&mut self) -> Result<bool, WorkerError> {
        let job = &self.worker.job;
        let mut marks: Vec<(String, i32, Header)> = Vec::new();
        for (index, query) in job.queries.iter().enumerate() {
            let (true, Some(folded)) = (is_windowed(query), &query.folded) else {
                continue;
            };
            let shards = || self.merges.values().filter(|of| of.query_index == index);
            let furthest = shards().filter_map(|of| of.fold().watermark().now()).max();
            let behind = shards().filter(|of| of.fold().watermark().now() < furthest);
            let topic = query.plan.source.topic.as_str();
            for merge in behind {
                for partition in 0..merge.fold().watermark().expected() {
                    let header = self.mark(query, merge, topic, partition, furthest);
                    let shard = merge.partition.partition;
                    marks.push((folded.partials_topic.clone(), shard, header));
                }
            }
        }
        if marks.is_empty() {
            return Ok(false);
        }
        tracing::info!(marks = marks.len(), "shards are brought to one watermark");
        for (topic, shard, header) in &marks {
            let record = partial::encode(header, None)?;
            self.transaction
                .send(NewRecord {
                    topic,
                    partition: Some(*shard),
                    key: None,
                    value: None,
                    headers: &record.headers(),
                    timestamp_ms: None,
                })
                .doing("marks can't be sent")?;
        }
        let format = job.format.written();
        // The offsets are those that stand committed: with them, members of an older generation can't write marks.
        let offsets = self
            .merges
            .iter()
            .map(|(partition, merge)| {
                commit_of(partition, merge.position(), &merge.state(), format)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let group = self
            .consumer
            .group_metadata()
            .doing("the group's generation can't be had")?;
        self.transaction
            .commit(&offsets, &group)
            .doing("marks can't be committed")?;
        Ok(true)
    }

    /// A mark of a source partition: nothing is read, and event time is this far.
    fn mark(
        &self,
        query: &JobQuery,
        merge: &MergeTask,
        topic: &str,
        partition: i32,
        watermark: Option<i64>,
    ) -> Header {
        let ends = merge.fold().ranges().get(&partition).copied();
        let at = ends.unwrap_or_else(|| {
            let handing = self.handing.as_ref();
            let sources = handing.map(|handing| &handing.sources);
            let source = sources.and_then(|of| of.get(&TopicPartition::new(topic, partition)));
            source.map_or(0, |(offset, _)| *offset)
        });
        let source = self.worker.job.sources.get(topic);
        Header {
            version: self.worker.job.format.written(),
            fingerprint: query.fingerprint,
            topic_id: source.map_or(String::new(), |source| source.topic_id.clone()),
            partition,
            partitions: merge.fold().watermark().expected(),
            start: at,
            end: at,
            rows_in: 0,
            filtered: 0,
            dead: 0,
            watermark,
            idle: false,
            advance_to: None,
            ended: false,
        }
    }

    /// What each query has given, and how far sources are read.
    fn what_is_handed_over(&self, successor: &str) -> Result<HandedOver, WorkerError> {
        let job = &self.worker.job;
        let mut queries = Vec::new();
        for (index, query) in job.queries.iter().enumerate() {
            queries.push(self.handed(index, query)?);
        }
        let none = BTreeMap::new();
        let read = self.handing.as_ref().map_or(&none, |of| &of.sources);
        let sources = job.sources.values().map(|source| HandedSource {
            topic: source.topic.clone(),
            topic_id: source.topic_id.clone(),
            offsets: read
                .iter()
                .filter(|(partition, _)| *partition.topic == *source.topic)
                .map(|(_, (offset, _))| *offset)
                .collect(),
        });
        Ok(HandedOver {
            to: successor.into(),
            queries,
            sources: sources.collect(),
        })
    }

    fn handed(&self, index: usize, query: &JobQuery) -> Result<HandedQuery, WorkerError> {
        let plan = &query.plan;
        let mut handed = HandedQuery {
            query: plan.name.clone(),
            sink: plan.sink.topic.clone(),
            given_to: None,
            versions_from: 0,
            results: Some(0),
            changes: Some(0),
        };
        let (mut results, mut changes, mut end, mut versions_from) = (0, 0, 0, 0);
        for (partition, merge) in &self.merges {
            if merge.query_index != index {
                continue;
            }
            let state = merge.state();
            results += state.emitted;
            changes += state.changes;
            let from = state.succession.and_then(|known| known.from);
            versions_from = from.map_or(0, |from| from.versions_from).max(versions_from);
            let bounds = self.worker.log.bounds(partition);
            end = end.max(bounds.doing("a partition can't be looked at")?.end);
            if is_windowed(query) {
                // All shards have the same by now. What an application before this one gave may lie behind that.
                let before = from.map(|from| from.given_to);
                let before = before.filter(|to| *to > i64::MIN);
                handed.given_to = merge.fold().closes_to().max(before);
            }
        }
        if query.folded.is_none() {
            results = self.rows_given(index, &plan.source.topic);
        }
        // A version is 2 × an offset below the end, or one more.
        handed.versions_from = versions_from.saturating_add(end.saturating_mul(2));
        let before = self.given_before(query);
        handed.results = before.and_then(|(before, _)| Some(before? + results));
        handed.changes = before.and_then(|(_, before)| Some(before? + changes));
        Ok(handed)
    }

    /// Results that applications before this one wrote to the same topic, and changes; none if that is not known.
    fn given_before(&self, query: &JobQuery) -> Option<(Option<u64>, Option<u64>)> {
        let Some(predecessor) = &self.worker.job.predecessor else {
            return Some((Some(0), Some(0)));
        };
        let handed_over = predecessor.takes_over.handed_over.as_ref()?;
        let mut before = handed_over.queries.iter();
        let of = before.find(|of| of.query == query.plan.name && of.sink == query.plan.sink.topic);
        Some(of.map_or((Some(0), Some(0)), |of| (of.results, of.changes)))
    }

    /// How many results a query without state has given.
    fn rows_given(&self, index: usize, topic: &str) -> u64 {
        let source = self.worker.job.sources.get(topic);
        let place = source.and_then(|source| source.queries.iter().position(|of| *of == index));
        let (Some(place), Some(handing)) = (place, &self.handing) else {
            return 0;
        };
        handing
            .sources
            .iter()
            .filter(|(partition, _)| *partition.topic == *topic)
            .map(|(_, (_, state))| state.results(place))
            .sum()
    }

    /// All offsets, marked.
    fn marked(&self) -> Result<Vec<OffsetCommit>, WorkerError> {
        let format = self.worker.job.format.written();
        let mut offsets = Vec::new();
        for (partition, (offset, state)) in self.handing.iter().flat_map(|of| &of.sources) {
            let mut state = state.clone();
            state.handed_over = true;
            offsets.push(commit_of(partition, *offset, &state, format)?);
        }
        for (partition, merge) in &self.merges {
            let mut state = merge.state();
            state.handed_over = true;
            offsets.push(commit_of(partition, merge.position(), &state, format)?);
        }
        Ok(offsets)
    }
}

fn is_windowed(query: &JobQuery) -> bool {
    query.plan.window.is_some_and(Window::is_bounded)
}
