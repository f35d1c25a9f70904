//! What a session lets others look at: see [`crate::progress`].

use runtime::log::TopicPartition;

use super::Session;
use crate::progress::{ScanProgress, ShardProgress, ShardWindows};
use crate::query::views::ShardView;
use crate::task::merge::MergeTask;

/// How often what shards heard of source partitions is passed on.
const HEAR_INTERVAL_MS: i64 = 500;
/// The most windows of a shard that are shown.
const MAX_WINDOWS: usize = 1_000;

impl Session<'_> {
    /// Says how far restoring is.
    pub(super) fn show_restore(&self) {
        let worker = self.worker;
        if worker.progress.joining() {
            worker
                .ready
                .waiting("a worker waits for its consumer group to give it partitions");
            return;
        }
        match worker.progress.restoring(worker.clock.now_ms()) {
            None => {
                worker.metrics.restored_ratio.set(1.0);
                worker.metrics.restore_eta_seconds.set(0.0);
                worker.ready.ready();
            }
            Some((restored, to_go_ms)) => {
                worker.metrics.restored_ratio.set(restored);
                let mut what = "state is being restored".to_owned();
                if let Some(to_go_ms) = to_go_ms {
                    worker
                        .metrics
                        .restore_eta_seconds
                        .set(to_go_ms as f64 / 1000.0);
                    what.push_str(&format!(
                        ", about {} to go",
                        crate::words::length_ms((to_go_ms / 1000).max(1) * 1000)
                    ));
                }
                worker.ready.progress(restored * 100.0, what);
            }
        }
    }

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
        let now_ms = self.worker.clock.now_ms();
        let asked = self.worker.progress.windows_asked();
        if asked != self.answered {
            self.answered = asked;
            self.merges
                .values()
                .for_each(|merge| self.show_windows(merge, asked, now_ms));
        }
        self.answer_view(now_ms);
        if now_ms.saturating_sub(self.last_heard_ms) >= HEAR_INTERVAL_MS {
            self.last_heard_ms = now_ms;
            self.merges
                .values()
                .filter(|merge| !merge.restoring())
                .for_each(|merge| self.hear(merge, now_ms));
        }
    }

    /// Shows which windows are open; that a shard is here at all, if nobody `asked` yet.
    pub(super) fn show_windows(&self, merge: &MergeTask, asked: u64, now_ms: i64) {
        let plan = &self.worker.job.queries[merge.query_index].plan;
        let fold = merge.fold();
        let mut windows = ShardWindows {
            answers: asked,
            topic: plan.source.topic.clone(),
            open_count: fold.open_count(),
            watermark: fold.watermark().clone(),
            grace_ms: i64::try_from(plan.sink.grace.as_millis()).unwrap_or(i64::MAX),
            restored: merge.restored(),
            at_ms: now_ms,
            ..ShardWindows::default()
        };
        if asked > 0 {
            windows.open = fold.open_windows();
            windows.open.truncate(MAX_WINDOWS);
        }
        self.worker
            .progress
            .show_windows(&plan.name, merge.partition.partition, windows);
    }

    /// Hands out the committed state, if somebody asks for it.
    fn answer_view(&mut self, now_ms: i64) {
        let views = &self.worker.progress.views;
        let asked = views.asked();
        if asked == 0 || asked == self.answered_view {
            return;
        }
        self.answered_view = asked;
        for merge in self.merges.values() {
            let view = ShardView {
                fold: merge.committed_fold().clone(),
                closing: merge.committed_closing(),
                restored: merge.restored(),
                at_ms: now_ms,
                commit: 0,
            };
            let query = &self.worker.job.queries[merge.query_index].plan.name;
            views.answer(asked, query, merge.partition.partition, view);
        }
    }

    /// Passes on what a shard heard of source partitions.
    fn hear(&self, merge: &MergeTask, now_ms: i64) {
        let topic = &self.worker.job.queries[merge.query_index].plan.source.topic;
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
