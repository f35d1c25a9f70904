//! Source partitions that are not read for a while: until the registry is back, or until slower ones have caught up.
//!
//! ```text
//!   partition 0  ───────────────────▶ 14:10  paused: more than max_drift ahead
//!   partition 1  ──────▶ 12:00        the slowest: never paused
//!   partition 2  ─▶ 09:00 (at its end, idle or ended: nobody waits for it)
//! ```
//!
//! Pausing saves memory, no more: what it decides never changes a result. So it can't be allowed to stop anything for good.
//! Of partitions that other processes read, only the partials tell, and they say nothing of ends; one that has not moved for
//! a while is not waited for.

use std::collections::{BTreeMap, BTreeSet};

use runtime::log::{Consumer, LogError, TopicPartition};

use super::Session;
use crate::progress::Reading;
use crate::task::scan::ScanTask;
use crate::worker::WorkerError;
use crate::worker::error::Doing;

/// For how long a partition that another process reads is waited for without a move.
const PATIENCE_MS: i64 = 10_000;

/// Which partitions are paused, and why.
#[derive(Debug, Default)]
pub(super) struct Pauses {
    /// Those that wait for the registry, and until when.
    resting: BTreeMap<TopicPartition, i64>,
    /// Those that wait for slower ones.
    drifting: BTreeSet<TopicPartition>,
}

impl Pauses {
    /// Lets a partition rest until a time by the clock.
    pub(super) fn rest(
        &mut self,
        consumer: &mut dyn Consumer,
        partition: &TopicPartition,
        until_ms: i64,
    ) -> Result<(), LogError> {
        consumer.pause(std::slice::from_ref(partition))?;
        self.resting.insert(partition.clone(), until_ms);
        Ok(())
    }

    /// Ends the rests that are over.
    pub(super) fn wake(
        &mut self,
        consumer: &mut dyn Consumer,
        now_ms: i64,
    ) -> Result<(), LogError> {
        let over: Vec<_> = self
            .resting
            .iter()
            .filter(|(partition, until)| **until <= now_ms && !self.drifting.contains(*partition))
            .map(|(partition, _)| partition.clone())
            .collect();
        if !over.is_empty() {
            consumer.resume(&over)?;
        }
        self.resting.retain(|_, until| *until > now_ms);
        Ok(())
    }

    /// Pauses exactly these of `among`, save those that rest anyway.
    fn drift(
        &mut self,
        consumer: &mut dyn Consumer,
        among: &BTreeSet<TopicPartition>,
        wanted: &BTreeSet<TopicPartition>,
    ) -> Result<(), LogError> {
        let new: Vec<_> = wanted.difference(&self.drifting).cloned().collect();
        let over: Vec<_> = among
            .intersection(&self.drifting)
            .filter(|partition| !wanted.contains(*partition))
            .cloned()
            .collect();
        if !new.is_empty() {
            consumer.pause(&new)?;
            self.drifting.extend(new);
        }
        for partition in &over {
            self.drifting.remove(partition);
        }
        let resume: Vec<_> = over
            .into_iter()
            .filter(|partition| !self.resting.contains_key(partition))
            .collect();
        if !resume.is_empty() {
            consumer.resume(&resume)?;
        }
        Ok(())
    }

    pub(super) fn is_drifting(&self, partition: &TopicPartition) -> bool {
        self.drifting.contains(partition)
    }

    pub(super) fn forget(&mut self, partition: &TopicPartition) {
        self.resting.remove(partition);
        self.drifting.remove(partition);
    }
}

/// Up to where the partitions of a source may go while those that are waited for are there; `None`: anywhere.
fn limit(waited_for: &[Option<i64>], drift_ms: i64) -> Option<i64> {
    let slowest = waited_for
        .iter()
        // One that has had no row yet is behind all others.
        .map(|watermark| watermark.unwrap_or(i64::MIN))
        .min()?;
    Some(slowest.saturating_add(drift_ms))
}

impl Session<'_> {
    /// Pauses source partitions that are too far ahead of the slowest one, and resumes those that no longer are.
    pub(super) fn align(&mut self, now_ms: i64) -> Result<(), WorkerError> {
        let worker = self.worker;
        let drifts: Vec<(&str, i64)> = worker
            .job
            .sources
            .values()
            .filter_map(|source| {
                let plan = &worker.job.queries[*source.queries.first()?].plan;
                let drift = plan.source.max_drift?;
                let drift_ms = i64::try_from(drift.as_millis()).unwrap_or(i64::MAX);
                Some((source.topic.as_str(), drift_ms))
            })
            .collect();
        if drifts.is_empty() {
            return Ok(());
        }
        for (partition, scan) in &self.scans {
            self.show_reading(partition, scan);
        }
        let (here, heard) = (worker.progress.here(), worker.progress.heard());
        let mut changed = false;
        for (topic, drift_ms) in drifts {
            let ours = here
                .iter()
                .filter(|((of, _), reading)| of == topic && !reading.at_end)
                .map(|(_, reading)| reading.watermark);
            let others = heard
                .iter()
                .filter(|(key, heard)| {
                    key.0 == topic
                        && !here.contains_key(*key)
                        && !heard.time.idle
                        && !heard.time.ended
                        && heard.time.watermark.is_some()
                        && now_ms.saturating_sub(heard.changed_ms) < PATIENCE_MS
                })
                .map(|(_, heard)| heard.time.watermark);
            let waited_for: Vec<_> = ours.chain(others).collect();
            let limit_to_go = limit(&waited_for, drift_ms);
            // Who is paused waits until half of the lead is gone: to pause and to resume costs fetches.
            let limit_to_resume = limit(&waited_for, drift_ms / 2);
            let among: BTreeSet<_> = self
                .scans
                .keys()
                .filter(|partition| *partition.topic == *topic)
                .cloned()
                .collect();
            let ahead = |partition: &TopicPartition, scan: &ScanTask| {
                let limit = if self.pauses.is_drifting(partition) {
                    limit_to_resume
                } else {
                    limit_to_go
                };
                // Who is at the end has nothing to be kept from.
                !scan.at_end()
                    && limit.is_some_and(|limit| scan.watermark().is_some_and(|at| at > limit))
            };
            let wanted: BTreeSet<_> = self
                .scans
                .iter()
                .filter(|(partition, scan)| among.contains(*partition) && ahead(partition, scan))
                .map(|(partition, _)| partition.clone())
                .collect();
            let before = self.pauses.drifting.len();
            let kept = wanted
                .iter()
                .all(|partition| self.pauses.is_drifting(partition));
            self.pauses
                .drift(self.consumer.as_mut(), &among, &wanted)
                .doing("partitions can't be paused or resumed")?;
            changed |= !kept || before != self.pauses.drifting.len();
        }
        if changed {
            for (partition, scan) in &self.scans {
                self.show_reading(partition, scan);
            }
            self.count_paused();
        }
        Ok(())
    }

    /// Lets the workers of this process, and whoever looks, know how far a source partition is.
    pub(super) fn show_reading(&self, partition: &TopicPartition, scan: &ScanTask) {
        let reading = Reading {
            watermark: scan.watermark(),
            at_end: scan.at_end(),
            idle: scan.idle(),
            paused: self.pauses.is_drifting(partition),
        };
        self.worker
            .progress
            .reading(&partition.topic, partition.partition, reading);
    }

    /// Counts the partitions of this process that wait for slower ones.
    pub(super) fn count_paused(&self) {
        let here = self.worker.progress.here();
        let paused = here.values().filter(|reading| reading.paused).count();
        let paused = i64::try_from(paused).unwrap_or(i64::MAX);
        self.worker.metrics.paused_partitions.set(paused);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_sets_the_limit_and_one_without_a_row_holds_all() {
        assert_eq!(limit(&[], 10), None);
        assert_eq!(limit(&[Some(5), Some(50)], 10), Some(15));
        assert_eq!(limit(&[Some(5), None], 10), Some(i64::MIN + 10));
        assert_eq!(limit(&[Some(i64::MAX - 1)], 10), Some(i64::MAX));
    }
}
