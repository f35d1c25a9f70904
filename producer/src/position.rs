//! How far input sets have been sent: the newest record of each in the positions topic.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use runtime::log::{ConsumerOptions, Event, Log, LogError, Offset, TopicPartition};
use schemas::record::{Codec, CodecError, Position};

use crate::error::ProducerError;

/// The compacted topic of positions, one key for each input set.
pub use schemas::shipped::POSITIONS_TOPIC;

/// Which file of its set a position goes on in.
pub(crate) fn current_index(position: &Position) -> usize {
    let index = usize::try_from(position.file_index).unwrap_or(0);
    if position.finished {
        index.saturating_sub(1)
    } else {
        index
    }
}

/// The newest position of every input set, as of now. It waits up to `wait` until transactions that are open now have
/// ended, since one of them may hide a committed position behind it.
///
/// # Errors
/// [`ReadError`], whose log errors have their own class.
pub fn read_positions(
    log: &dyn Log,
    codec: &Codec<Position>,
    wait: Duration,
) -> Result<BTreeMap<String, Position>, ReadError> {
    let Some(topic) = log.topic(POSITIONS_TOPIC)? else {
        return Err(LogError::UnknownTopic {
            name: POSITIONS_TOPIC.into(),
        }
        .into());
    };
    let mut remaining: BTreeMap<TopicPartition, Offset> = BTreeMap::new();
    let mut starts = Vec::new();
    for number in 0..topic.partitions {
        let partition = TopicPartition::new(POSITIONS_TOPIC, number);
        let bounds = log.bounds(&partition)?;
        if bounds.start < bounds.end {
            starts.push((partition.clone(), bounds.start));
            remaining.insert(partition, bounds.end);
        }
    }
    let mut found = BTreeMap::new();
    if remaining.is_empty() {
        return Ok(found);
    }
    let mut consumer = log.consumer(&ConsumerOptions::new("headway-producer-positions"))?;
    consumer.assign(&starts)?;
    let deadline = Instant::now() + wait;
    while !remaining.is_empty() {
        let reached = match consumer.poll(Duration::from_millis(100), 1000)? {
            Some(Event::Records(batch)) => {
                for record in batch.iter() {
                    take(record.key, record.value, codec, &mut found)?;
                }
                Some((batch.partition.clone(), batch.next_position()))
            }
            Some(Event::End {
                partition,
                position,
            }) => Some((partition, position)),
            Some(Event::Assigned(_) | Event::Revoked(_) | Event::Lost(_)) | None => None,
        };
        if let Some((partition, position)) = reached
            && remaining
                .get(&partition)
                .is_some_and(|end| position >= *end)
        {
            remaining.remove(&partition);
        }
        if !remaining.is_empty() && Instant::now() > deadline {
            let topic = POSITIONS_TOPIC.into();
            return Err(ProducerError::OpenTransactions {
                topic,
                seconds: wait.as_secs(),
            }
            .into());
        }
    }
    consumer.close(Duration::from_secs(5))?;
    Ok(found)
}

fn take(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    codec: &Codec<Position>,
    found: &mut BTreeMap<String, Position>,
) -> Result<(), ReadError> {
    let set = String::from_utf8_lossy(key.unwrap_or_default()).into_owned();
    match value.map(|value| codec.decode(value)) {
        None => found.remove(&set),
        Some(Ok(position)) => found.insert(set, position),
        Some(Err(CodecError::Registry(error))) => return Err(ProducerError::Registry(error).into()),
        Some(Err(error)) => {
            return Err(ProducerError::Position {
                input_set: set,
                detail: error.to_string(),
            }
            .into());
        }
    };
    Ok(())
}

/// Why positions could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Something else is wrong, for good.
    #[error(transparent)]
    Other(#[from] ProducerError),
}
