//! Reads the ends of topics: what some part has not taken yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array};
use arrow::record_batch::RecordBatch;
use engine::plan::{ROWS, WINDOW_START};
use engine::window::Window;
use processor::format::NEWEST;
use processor::partial;
use runtime::log::{Batch, ConsumerOptions, Event, Log, LogError, Offset, TopicPartition};
use schemas::Registry;
use schemas::record::{Codec, Position};

use super::{AuditError, partitions};

/// The topic of the producers' positions.
const POSITIONS: &str = "headway.positions";
/// The group name of the audit's requests; it never joins one.
const GROUP: &str = "headway-audit";

/// How many records there are from these offsets to the end.
pub(super) fn records(
    log: &dyn Log,
    starts: impl Iterator<Item = (TopicPartition, Offset)>,
) -> Result<u64, LogError> {
    let mut count = 0;
    read_to_end(log, starts, |batch| {
        count += batch.len() as u64;
        Ok::<(), LogError>(())
    })?;
    Ok(count)
}

/// How many row × window pairs the partials of a query hold that its shards have not taken yet.
pub(super) fn partial_pairs(
    log: &dyn Log,
    application_id: &str,
    query: &str,
    window: Window,
) -> Result<u64, AuditError> {
    let topic = processor::topics::partials(application_id, query);
    let partitions = partitions(log, &topic)?;
    let committed = log.committed(application_id, &partitions)?;
    let starts = partitions
        .into_iter()
        .zip(committed.into_iter().map(|at| at.map_or(0, |at| at.offset)));
    let mut pairs = 0;
    read_to_end(log, starts, |batch| {
        for index in 0..batch.len() {
            let (_, rows) = partial::decode(batch, index, NEWEST)?;
            if let Some(rows) = rows {
                let (pieces, counts) = (integers(&rows, WINDOW_START)?, integers(&rows, ROWS)?);
                let counts = counts.values().iter();
                let counts = counts.map(|count| u64::try_from(*count).unwrap_or(0));
                pairs += window.pairs(pieces.values().iter().copied().zip(counts));
            }
        }
        Ok::<(), AuditError>(())
    })?;
    Ok(pairs)
}

fn integers<'a>(rows: &'a RecordBatch, name: &str) -> Result<&'a Int64Array, AuditError> {
    let column = rows.column_by_name(name);
    let integers = column.and_then(|column| column.as_primitive_opt());
    integers.ok_or_else(|| AuditError::PartialColumn { name: name.into() })
}

/// The newest position of each input set.
pub(super) fn positions(
    log: &dyn Log,
    registry: &Arc<dyn Registry>,
) -> Result<BTreeMap<String, Position>, AuditError> {
    let failed = |detail: String| AuditError::Positions { detail };
    let codec = Codec::<Position>::new(Arc::clone(registry), &schemas::value_subject(POSITIONS))
        .map_err(|error| failed(error.to_string()))?;
    let mut starts = Vec::new();
    for partition in partitions(log, POSITIONS)? {
        let start = log.bounds(&partition)?.start;
        starts.push((partition, start));
    }
    let mut newest = BTreeMap::new();
    read_to_end(log, starts.into_iter(), |batch| {
        for record in batch.iter() {
            let Some(value) = record.value else { continue };
            let position = codec
                .decode(value)
                .map_err(|error| failed(error.to_string()))?;
            newest.insert(position.input_set.clone(), position);
        }
        Ok::<(), AuditError>(())
    })?;
    Ok(newest)
}

/// Reads partitions from these offsets to their last stable offsets as they are now.
fn read_to_end<E: From<LogError>>(
    log: &dyn Log,
    starts: impl Iterator<Item = (TopicPartition, Offset)>,
    mut take: impl FnMut(&Batch) -> Result<(), E>,
) -> Result<(), E> {
    let mut ends = BTreeMap::new();
    let mut assigned = Vec::new();
    for (partition, offset) in starts {
        let bounds = log.bounds(&partition)?;
        let offset = offset.max(bounds.start);
        if offset < bounds.stable {
            ends.insert(partition.clone(), bounds.stable);
            assigned.push((partition, offset));
        }
    }
    if assigned.is_empty() {
        return Ok(());
    }
    let mut consumer = log.consumer(&ConsumerOptions::new(GROUP))?;
    consumer.assign(&assigned)?;
    while !ends.is_empty() {
        match consumer.poll(Duration::from_millis(500), 10_000)? {
            Some(Event::Records(batch)) => {
                take(&batch)?;
                if ends
                    .get(&batch.partition)
                    .is_some_and(|end| batch.next_position() >= *end)
                {
                    ends.remove(&batch.partition);
                }
            }
            Some(Event::End {
                partition,
                position,
            }) if ends.get(&partition).is_some_and(|end| position >= *end) => {
                ends.remove(&partition);
            }
            _ => {}
        }
    }
    consumer.close(Duration::from_secs(5))?;
    Ok(())
}
