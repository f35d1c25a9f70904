//! The record's topic: how it is read, and how one at a time writes to it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use runtime::log::{
    Class, ConsumerOptions, Event, GroupMetadata, Log, LogError, NewRecord, OffsetCommit, Producer,
    ProducerOptions, TopicPartition, abort_leftovers,
};
use serde::Deserialize;

use super::{JobRecord, RecordError};
use crate::format::{NEWEST, check as check_format};
use crate::partial;
use crate::topics;

/// The key of the record.
const KEY: &[u8] = b"job";
/// For how long it is tried to write it, while others start or the brokers are away.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long it is waited until it is tried again.
const PAUSE: Duration = Duration::from_millis(100);

/// What stands on the log; `None` if no job has run under this application id.
///
/// # Errors
/// The log failed, or what stands there can't be read.
pub fn read(log: &dyn Log, application_id: &str) -> Result<Option<JobRecord>, RecordError> {
    read_to(log, application_id, NEWEST)
}

/// The same, where versions beyond `newest` are not read.
pub(crate) fn read_to(
    log: &dyn Log,
    application_id: &str,
    newest: u32,
) -> Result<Option<JobRecord>, RecordError> {
    let topic = topics::job(application_id);
    let failed = |source| RecordError::Log {
        topic: topic.clone(),
        source,
    };
    if log.topic(&topic).map_err(failed)?.is_none() {
        return Ok(None);
    }
    let mut found = None;
    let partition = TopicPartition::new(topic.as_str(), 0);
    let group = format!("{application_id}-job");
    each(log, &group, &partition, &mut |key, value, _| {
        if key == Some(KEY) {
            found = value.map(<[u8]>::to_vec);
        }
        true
    })
    .map_err(failed)?;
    let Some(found) = found else { return Ok(None) };
    let unreadable = |detail: String| RecordError::Unreadable {
        topic: topic.clone(),
        detail,
    };
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let Version { v } =
        serde_json::from_slice(&found).map_err(|error| unreadable(error.to_string()))?;
    check_format(v, newest).map_err(|source| RecordError::Format {
        application_id: application_id.into(),
        source,
    })?;
    serde_json::from_slice(&found)
        .map(Some)
        .map_err(|error| unreadable(error.to_string()))
}

/// Does something at the log again as long as that may help.
pub(super) fn patiently(
    attempt: &mut dyn FnMut() -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let error = match attempt() {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let class = match &error {
            RecordError::Log { source, .. } => source.class(),
            _ => Class::Fatal,
        };
        match class {
            // Another one that starts has overtaken this one, or nobody knows what was written: it is read again.
            Class::Retry | Class::Abort | Class::Restart | Class::Fenced
                if Instant::now() < deadline =>
            {
                tracing::info!(error = %crate::worker::chain(&error), "trying again");
                std::thread::sleep(PAUSE);
            }
            _ => return Err(error),
        }
    }
}

/// Settles what whoever wrote to the record last has left open.
///
/// # Errors
/// The log failed.
pub(crate) fn settle(log: &dyn Log, application_id: &str) -> Result<(), RecordError> {
    writer(log, application_id).map(|_| ())
}

/// Takes the right to write: whoever had it is fenced.
fn writer(log: &dyn Log, application_id: &str) -> Result<Box<dyn Producer>, RecordError> {
    let topic = topics::job(application_id);
    let failed = |source| RecordError::Log {
        topic: topic.clone(),
        source,
    };
    let mut producer = log
        .producer(&ProducerOptions {
            linger: Duration::ZERO,
            ..ProducerOptions::transactional(format!("{application_id}-job"))
        })
        .map_err(failed)?;
    producer.init_transactions().map_err(failed)?;
    abort_leftovers(log, producer.as_mut(), [topic.as_str()]).map_err(failed)?;
    Ok(producer)
}

/// Takes the right to write, reads what stands there, and writes what `next` makes of it, if anything, together with
/// offsets.
pub(super) fn write(
    log: &dyn Log,
    application_id: &str,
    offsets: Option<(&[OffsetCommit], &GroupMetadata)>,
    next: &mut dyn FnMut(Option<JobRecord>) -> Result<Option<JobRecord>, RecordError>,
) -> Result<(), RecordError> {
    let topic = topics::job(application_id);
    let failed = |source| RecordError::Log {
        topic: topic.clone(),
        source,
    };
    let mut producer = writer(log, application_id)?;
    // Whatever others have written is to be seen now, and nobody can write without fencing this producer.
    let Some(record) = next(read(log, application_id)?)? else {
        return Ok(());
    };
    let value = serde_json::to_vec(&record).map_err(|error| RecordError::Unreadable {
        topic: topic.clone(),
        detail: error.to_string(),
    })?;
    let mut send = || {
        producer.begin()?;
        producer.send(NewRecord {
            topic: &topic,
            partition: Some(0),
            key: Some(KEY),
            value: Some(&value),
            headers: &[],
            timestamp_ms: None,
        })?;
        producer.flush()?;
        if let Some((offsets, group)) = offsets {
            producer.send_offsets(offsets, group)?;
        }
        producer.commit()
    };
    send().map_err(failed)
}

/// Whether there are partials; fails if they were written by another job than that of these fingerprints.
pub(super) fn begun_with(
    log: &dyn Log,
    application_id: &str,
    fingerprints: &BTreeMap<&str, u64>,
) -> Result<bool, RecordError> {
    let mut begun = false;
    for (query, fingerprint) in fingerprints {
        let found = first_fingerprint(log, application_id, query)?;
        begun |= found.is_some();
        if found.is_some_and(|found| found != *fingerprint) {
            return Err(RecordError::Unknown {
                application_id: application_id.into(),
                query: (*query).into(),
                topic: topics::job(application_id),
            });
        }
    }
    Ok(begun)
}

/// The fingerprint in the first partials record that is still there.
fn first_fingerprint(
    log: &dyn Log,
    application_id: &str,
    query: &str,
) -> Result<Option<u64>, RecordError> {
    let topic = topics::partials(application_id, query);
    let failed = |source| RecordError::Log {
        topic: topic.clone(),
        source,
    };
    let partitions = log
        .topic(&topic)
        .map_err(failed)?
        .map_or(0, |found| found.partitions);
    let group = format!("{application_id}-job");
    for partition in 0..partitions {
        let partition = TopicPartition::new(topic.as_str(), partition);
        let mut first = None;
        each(log, &group, &partition, &mut |_, _, header| {
            first = Some(partial::decode_header(header));
            false
        })
        .map_err(failed)?;
        if let Some(header) = first {
            let header = header.map_err(|source| RecordError::Partials {
                topic: topic.clone(),
                source,
            })?;
            return Ok(Some(header.fingerprint));
        }
    }
    Ok(None)
}

/// Takes a record's key, value and header of partials, and says whether it wants more.
type Take<'a> = dyn FnMut(Option<&[u8]>, Option<&[u8]>, Option<&[u8]>) -> bool + 'a;

/// Reads a partition from its start to where it ends now, as long as `take` wants more: key, value and the header of
/// partials.
fn each(
    log: &dyn Log,
    group: &str,
    partition: &TopicPartition,
    take: &mut Take<'_>,
) -> Result<(), LogError> {
    let bounds = log.bounds(partition)?;
    if bounds.start >= bounds.stable {
        return Ok(());
    }
    let mut reader = log.consumer(&ConsumerOptions::new(group))?;
    reader.assign(&[(partition.clone(), bounds.start)])?;
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        match reader.poll(Duration::from_millis(500), 100)? {
            Some(Event::Records(batch)) => {
                for (index, record) in batch.iter().enumerate() {
                    let header = batch.header(index, partial::HEADER);
                    if !take(record.key, record.value, header) {
                        return Ok(());
                    }
                }
            }
            Some(Event::End { position, .. }) if position >= bounds.stable => return Ok(()),
            _ => {}
        }
    }
    Err(LogError::TimedOut {
        action: "read a topic to its end",
    })
}
