//! What a session lets others look at: see [`crate::progress`].

use runtime::log::TopicPartition;

use super::Session;
use crate::progress::{ScanProgress, ShardProgress};

impl Session<'_> {
    pub(super) fn show_all(&self) {
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
        }
        self.merges
            .keys()
            .for_each(|partition| self.show(partition));
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
