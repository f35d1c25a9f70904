//! What a session lets others look at: see [`crate::progress`].

use runtime::log::TopicPartition;

use super::Session;
use crate::progress::{ScanProgress, ShardProgress, ShardWindows};
use crate::task::merge::MergeTask;

/// How often open windows are shown: there may be many.
const WINDOWS_INTERVAL_MS: i64 = 500;

impl Session<'_> {
    pub(super) fn show_all(&mut self) {
        for (partition, scan) in &self.scans {
            let state = scan.state();
            let dead = state.undecodable
                + state
                    .queries
                    .iter()
                    .map(|query| query.dead)
                    .max()
                    .unwrap_or(0);
            self.worker.progress.scan(
                &partition.topic,
                partition.partition,
                ScanProgress {
                    rows_in: state.rows_in,
                    dead,
                    watermark: scan.watermark(),
                },
            );
            self.show_reading(partition, scan);
        }
        self.merges
            .keys()
            .for_each(|partition| self.show(partition));
        self.show_windows();
    }

    /// Shows which windows are open, and what shards heard of source partitions, from time to time.
    pub(super) fn show_windows(&mut self) {
        let now_ms = self.worker.clock.now_ms();
        if now_ms.saturating_sub(self.last_shown_ms) < WINDOWS_INTERVAL_MS {
            return;
        }
        self.last_shown_ms = now_ms;
        for (partition, merge) in &self.merges {
            let plan = &self.worker.job.queries[merge.query_index].plan;
            let fold = merge.fold();
            if !merge.restoring() {
                self.hear(&plan.source.topic, merge, now_ms);
            }
            let windows = ShardWindows {
                topic: plan.source.topic.clone(),
                open: fold.open_windows().collect(),
                watermark: fold.watermark().clone(),
                grace_ms: i64::try_from(plan.sink.grace.as_millis()).unwrap_or(i64::MAX),
                restored: merge.restored(),
                at_ms: now_ms,
            };
            self.worker
                .progress
                .show_windows(&plan.name, partition.partition, windows);
        }
    }

    fn hear(&self, topic: &str, merge: &MergeTask, now_ms: i64) {
        let fold = merge.fold();
        for (partition, time) in fold.watermark().partitions() {
            if let Some(position) = fold.ranges().get(partition) {
                self.worker
                    .progress
                    .hear(topic, *partition, *time, *position, now_ms);
            }
        }
    }

    pub(super) fn show(&self, partition: &TopicPartition) {
        let Some(merge) = self.merges.get(partition) else {
            return;
        };
        let state = merge.state();
        let query = &self.worker.job.queries[merge.query_index].plan.name;
        self.worker.progress.shard(
            query,
            partition.partition,
            ShardProgress {
                merged: state.merged,
                late: state.late,
                closed: state.closed,
                open: merge.fold().open_count() as u64,
                emitted: state.emitted,
                watermark: merge.fold().watermark().now(),
                restored: merge.restored(),
            },
        );
    }
}
