//! How many partitions each source has: more may be added while the job runs.
//!
//! Shards wait for all partitions that they have been told of. So whoever reads a source looks now and then how many it has,
//! and tells the shards at once; and the first thing that is said of a new partition, before any of its rows, is that it is
//! there.

use runtime::log::Class;

use super::Session;
use crate::task::scan::ScanTask;
use crate::worker::WorkerError;
use crate::worker::error::Doing;

/// How often it is looked.
const LOOK_MS: i64 = 5_000;

impl Session<'_> {
    /// Looks whether sources have got more partitions.
    pub(super) fn look_for_partitions(&mut self, now_ms: i64) -> Result<(), WorkerError> {
        if now_ms.saturating_sub(self.last_partitions_ms) < LOOK_MS {
            return Ok(());
        }
        self.last_partitions_ms = now_ms;
        self.look_for_format()?;
        for (topic, known) in &mut self.partitions {
            let found = match self.worker.log.topic(topic) {
                Err(error) if error.class() == Class::Retry => continue,
                other => other.doing("the source topic can't be looked at")?,
            };
            let Some(found) = found.filter(|found| found.partitions > *known) else {
                continue;
            };
            tracing::info!(
                topic,
                partitions = found.partitions,
                "a source has got more partitions"
            );
            *known = found.partitions;
            self.scans
                .iter_mut()
                .filter(|(partition, _)| *partition.topic == **topic)
                .for_each(|(_, scan)| scan.announce());
        }
        Ok(())
    }

    /// Announces partitions that nothing was committed of, before their first row is read.
    pub(super) fn announce_new(&mut self) -> Result<(), WorkerError> {
        for partition in self.scans.keys() {
            let known = self
                .partitions
                .entry(partition.topic.to_string())
                .or_default();
            *known = (*known).max(partition.partition + 1);
        }
        match self.scans.values().any(ScanTask::is_unannounced) {
            true => self.commit(),
            false => Ok(()),
        }
    }
}
