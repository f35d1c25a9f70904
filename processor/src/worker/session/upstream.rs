//! How far event time has come in a topic that another query of the job writes.
//!
//! Its shards do not keep step: what one writes of an early window may stand behind what another writes of a late one,
//! so that the latest row says little. But each shard's watermark is committed with its results: once all results up
//! to there are read, no earlier one can follow.
//!
//! ```text
//!   1. the least committed watermark W of the writing shards        2. the topic's high watermark H, looked at after it
//!   3. when the reader has come to H, its event time has come to W
//! ```
//!
//! The high watermark and not the last stable offset, which may still lie in front of results whose offsets are
//! committed already: a transaction's markers do not reach all partitions at once.

use std::collections::BTreeMap;

use runtime::log::{Class, Offset, TopicPartition};

use super::Session;
use crate::offsets::{self, ShardState};
use crate::worker::WorkerError;
use crate::worker::error::Doing;

/// How often the writing shards' commits are looked at.
const LOOK_MS: i64 = 200;

/// What was seen of the writing shards.
#[derive(Default)]
pub(super) struct Upstream {
    last_look_ms: i64,
    /// By reading partition: how far event time will have come once it is read to an offset.
    seen: BTreeMap<TopicPartition, (i64, Offset)>,
}

impl Session<'_> {
    /// Looks at the writing shards, and tells the scans how far event time has come.
    pub(super) fn listen_upstream(&mut self, now_ms: i64) -> Result<(), WorkerError> {
        let job = &self.worker.job;
        if !job.sources.values().any(|source| !source.fed_by.is_empty()) {
            return Ok(());
        }
        if now_ms.saturating_sub(self.upstream.last_look_ms) >= LOOK_MS {
            self.upstream.last_look_ms = now_ms;
            for source in job
                .sources
                .values()
                .filter(|source| !source.fed_by.is_empty())
            {
                let Some(watermark) = self.written_up_to(&source.fed_by)? else {
                    continue;
                };
                for partition in self.scans.keys() {
                    if *partition.topic != *source.topic
                        || self.upstream.seen.contains_key(partition)
                    {
                        continue;
                    }
                    let bounds = match self.worker.log.bounds(partition) {
                        // The broker is away: it is looked at again.
                        Err(error) if error.class() == Class::Retry => continue,
                        other => other.doing("a partition can't be looked at")?,
                    };
                    let seen = (watermark, bounds.end);
                    self.upstream.seen.insert(partition.clone(), seen);
                }
            }
        }
        let scans = &mut self.scans;
        self.upstream.seen.retain(|partition, (watermark, end)| {
            let Some(scan) = scans.get_mut(partition) else {
                return false;
            };
            if scan.position() < *end {
                return true;
            }
            scan.hear(*watermark);
            false
        });
        Ok(())
    }

    /// Up to which end of window these queries have written all results; `None` while a shard has none.
    fn written_up_to(&self, queries: &[usize]) -> Result<Option<i64>, WorkerError> {
        let job = &self.worker.job;
        let mut least = i64::MAX;
        for query in queries {
            let query = &job.queries[*query];
            let Some(folded) = &query.folded else {
                return Ok(None);
            };
            let grace = i64::try_from(query.plan.sink.grace.as_millis()).unwrap_or(i64::MAX);
            let shards: Vec<_> = (0..job.options.shards)
                .map(|shard| TopicPartition::new(folded.partials_topic.as_str(), shard as i32))
                .collect();
            let committed = match self
                .worker
                .log
                .committed(&job.options.application_id, &shards)
            {
                Err(error) if error.class() == Class::Retry => return Ok(None),
                other => other.doing("the group's committed offsets can't be read")?,
            };
            for committed in committed {
                let state = committed
                    .and_then(|committed| offsets::decode::<ShardState>(&committed.metadata).ok());
                match state.and_then(|state| state.watermark) {
                    Some(watermark) => least = least.min(watermark.saturating_sub(grace)),
                    None => return Ok(None),
                }
            }
        }
        Ok(Some(least))
    }
}
