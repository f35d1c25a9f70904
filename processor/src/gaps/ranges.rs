//! The ranges that a shard's partials cover.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use runtime::log::{ConsumerOptions, Event, Log, LogError, Offset, TopicPartition};

use super::GapError;
use crate::format::NEWEST;
use crate::partial;

/// For how long a partials partition may stay silent before it is given up.
const PATIENCE: Duration = Duration::from_secs(30);

/// The last range of a source partition, as the partials have it.
#[derive(Clone, Copy)]
pub(super) struct LastRange {
    pub(super) end: Offset,
    pub(super) watermark: Option<i64>,
}

/// The last range of each source partition in a shard's partials.
pub(super) fn last_ranges(
    log: &dyn Log,
    application_id: &str,
    partition: &TopicPartition,
) -> Result<BTreeMap<i32, LastRange>, GapError> {
    let mut ranges: BTreeMap<i32, LastRange> = BTreeMap::new();
    each_header(log, application_id, partition, &mut |header| {
        let last = LastRange {
            end: header.end,
            watermark: header.watermark,
        };
        let known = ranges.entry(header.partition).or_insert(last);
        if header.end >= known.end {
            *known = last;
        }
    })?;
    Ok(ranges)
}

/// Reads the headers of a partials partition, from its start to where it ends now.
pub(super) fn each_header(
    log: &dyn Log,
    application_id: &str,
    partition: &TopicPartition,
    take: &mut dyn FnMut(&engine::partial::Header),
) -> Result<(), GapError> {
    let failed = |source| GapError::Log {
        what: partition.to_string(),
        source,
    };
    if log.topic(&partition.topic).map_err(failed)?.is_none() {
        return Ok(());
    }
    let bounds = log.bounds(partition).map_err(failed)?;
    if bounds.start >= bounds.stable {
        return Ok(());
    }
    let mut reader = log
        .consumer(&ConsumerOptions::new(format!("{application_id}-offsets")))
        .map_err(failed)?;
    reader
        .assign(&[(partition.clone(), bounds.start)])
        .map_err(failed)?;
    let mut deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match reader
            .poll(Duration::from_millis(500), 1_000)
            .map_err(failed)?
        {
            Some(Event::Records(batch)) => {
                deadline = Instant::now() + PATIENCE;
                for index in 0..batch.len() {
                    let header = partial::header_of(&batch, index, NEWEST).map_err(|source| {
                        GapError::Partials {
                            partition: partition.clone(),
                            source,
                        }
                    })?;
                    take(&header);
                }
            }
            Some(Event::End { position, .. }) if position >= bounds.stable => return Ok(()),
            _ => {}
        }
    }
    Err(failed(LogError::TimedOut {
        action: "read a topic to its end",
    }))
}
