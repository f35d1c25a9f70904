//! What an earlier transaction of the same id has left open, though the brokers call it ended.

use super::{Log, LogError, NewRecord, Producer, TopicPartition};

/// The key of the records that [`abort_leftovers`] writes. Their transaction is aborted, so that no consumer of ours sees
/// them.
const KEY: &[u8] = b"headway.abort";

/// Aborts records that an earlier transaction of this producer's id has left open in these topics. To be called when
/// [`Producer::init_transactions`] has taken the id over, before anything is read or written.
///
/// A broker can end a transaction without a marker in a partition whose leader it does not know yet. Seen with Apache
/// Kafka 4.3.1, one node, killed for longer than the transaction's timeout: while it starts, the coordinator times the
/// transaction out, and passes over partitions as if they were deleted. Records without a marker stay open, hold back all
/// readers, and become part of the **next** transaction of the same producer id: its commit would make them visible
/// beside those that were sent again. So where a partition has anything open, a transaction of this id writes there and is
/// aborted: its marker closes what was left. Transactions of other ids are not touched. Returns how many partitions had
/// something open, be it of this id or of another one.
///
/// # Errors
/// The log's; the producer's transaction may be open then.
pub fn abort_leftovers<'a>(
    log: &dyn Log,
    producer: &mut dyn Producer,
    topics: impl IntoIterator<Item = &'a str>,
) -> Result<usize, LogError> {
    let mut open = Vec::new();
    for name in topics {
        let partitions = log.topic(name)?.map_or(0, |topic| topic.partitions);
        for number in 0..partitions {
            let partition = TopicPartition::new(name, number);
            let bounds = log.bounds(&partition)?;
            if bounds.stable < bounds.end {
                open.push(partition);
            }
        }
    }
    if open.is_empty() {
        return Ok(0);
    }
    producer.begin()?;
    for partition in &open {
        producer.send(NewRecord {
            topic: &partition.topic,
            partition: Some(partition.partition),
            key: Some(KEY),
            value: None,
            headers: &[],
            timestamp_ms: None,
        })?;
    }
    producer.flush()?;
    producer.abort()?;
    tracing::info!(
        partitions = open.len(),
        "open records of earlier transactions were aborted, where they were this producer's"
    );
    Ok(open.len())
}
