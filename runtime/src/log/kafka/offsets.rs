//! Committed offsets, and who may commit them.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, ConsumerGroupMetadata};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::topic_partition_list::{Offset as ListOffset, TopicPartitionList};

use super::super::{Committed, LogError, MAX_METADATA_BYTES, OffsetCommit, TopicPartition};
use super::context::lock;
use super::errors::{self, Doing, Kind};
use super::native;

/// How long a call that may be made again waits before it is.
const PAUSE: Duration = Duration::from_millis(20);

/// Which partitions a member has now; `None` for a reader that subscribed to nothing.
pub(super) type Owned = Arc<Mutex<Option<Vec<TopicPartition>>>>;

/// Proof of membership, as this log's producers read it.
pub(super) struct Membership {
    pub(super) metadata: Arc<ConsumerGroupMetadata>,
    pub(super) group: String,
    pub(super) instance_id: String,
    pub(super) owned: Owned,
}

impl Membership {
    /// Fails unless the member still has these partitions: a fresh generation is no proof of that.
    pub(super) fn check(&self, offsets: &[OffsetCommit]) -> Result<(), LogError> {
        check_owned(&self.owned, &self.group, offsets)
    }
}

pub(super) fn check_owned(
    owned: &Owned,
    group: &str,
    offsets: &[OffsetCommit],
) -> Result<(), LogError> {
    let owned = lock(owned);
    let Some(owned) = &*owned else { return Ok(()) };
    match offsets
        .iter()
        .find(|commit| !owned.contains(&commit.partition))
    {
        None => Ok(()),
        Some(commit) => Err(LogError::StaleGeneration {
            group: group.into(),
            detail: format!("{} is no longer this member's", commit.partition),
        }),
    }
}

/// Fails when a metadata string is larger than Kafka takes.
pub(super) fn check_sizes(offsets: &[OffsetCommit]) -> Result<(), LogError> {
    match offsets
        .iter()
        .find(|commit| commit.metadata.len() > MAX_METADATA_BYTES)
    {
        None => Ok(()),
        Some(commit) => Err(LogError::TooLarge {
            what: format!(
                "the metadata of the offset committed for {}",
                commit.partition
            ),
            bytes: commit.metadata.len(),
        }),
    }
}

/// Commits offsets, again while the group refuses for the moment.
///
/// # Errors
/// [`LogError::UnknownOutcome`] when an attempt may have taken effect and no answer came.
pub(super) fn commit<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    offsets: &[OffsetCommit],
    timeout: Duration,
    doing: &Doing<'_>,
) -> Result<(), LogError> {
    let list = list_of_commits(offsets)?;
    let deadline = Instant::now() + timeout;
    let mut unsure = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = native::commit(client, &list, left);
        let retry = Instant::now() + PAUSE < deadline;
        match answer {
            Some(Ok(())) => return Ok(()),
            Some(Err(code)) => {
                if !matches!(errors::kind(code), Some(Kind::Unreachable | Kind::TimedOut)) {
                    return Err(doing.error(code, ""));
                }
                // While the group rebalances, or its coordinator moves, a commit is refused. It is made again; to make it
                // twice changes nothing.
                unsure |= !refused(code);
                if !retry && !unsure {
                    return Err(doing.error(code, ""));
                }
            }
            None => unsure = true,
        }
        if !retry {
            return Err(LogError::UnknownOutcome {
                action: doing.action(),
            });
        }
        std::thread::sleep(PAUSE);
    }
}

/// Whether a code says that the coordinator did not take a commit, as against that its answer is not known.
fn refused(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::RebalanceInProgress
            | RDKafkaErrorCode::WaitingForCoordinator
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::CoordinatorNotAvailable
            | RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::ThrottlingQuotaExceeded
    )
}

pub(super) fn list_of_commits(offsets: &[OffsetCommit]) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::with_capacity(offsets.len());
    for commit in offsets {
        let mut element = list.add_partition(&commit.partition.topic, commit.partition.partition);
        element
            .set_offset(ListOffset::from_raw(commit.offset))
            .map_err(|error| Doing::new("commit offsets").of(&error))?;
        element.set_metadata(&commit.metadata);
    }
    Ok(list)
}

pub(super) fn list_of<'a>(
    partitions: impl IntoIterator<Item = &'a TopicPartition>,
) -> TopicPartitionList {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition(&partition.topic, partition.partition);
    }
    list
}

/// A group's committed offsets, one answer per partition, in order.
pub(super) fn committed<C: ConsumerContext>(
    client: &BaseConsumer<C>,
    partitions: &[TopicPartition],
    timeout: Duration,
    doing: &Doing<'_>,
) -> Result<Vec<Option<Committed>>, LogError> {
    if partitions.is_empty() {
        return Ok(Vec::new());
    }
    let deadline = Instant::now() + timeout;
    let answer = loop {
        let left = deadline
            .saturating_duration_since(Instant::now())
            .max(PAUSE);
        let error = match client.committed_offsets(list_of(partitions), left) {
            Ok(answer) => break answer,
            // Some brokers say so of a group that has never committed.
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::GroupIdNotFound) => {
                return Ok(vec![None; partitions.len()]);
            }
            Err(error) => doing.of(&error),
        };
        // An open transaction that holds an offset, or a coordinator that moves: asked again until the time is over.
        if !matches!(error, LogError::Unreachable { .. }) || Instant::now() + PAUSE >= deadline {
            return Err(error);
        }
        std::thread::sleep(PAUSE);
    };
    partitions
        .iter()
        .map(|partition| {
            let Some(element) = answer.find_partition(&partition.topic, partition.partition) else {
                return Ok(None);
            };
            match element.error() {
                // A group has no offsets in a topic that does not exist.
                Err(error) => match doing.of(&error) {
                    LogError::UnknownTopic { .. } => Ok(None),
                    error => Err(error),
                },
                Ok(()) => Ok(match element.offset() {
                    ListOffset::Offset(offset) => Some(Committed {
                        offset,
                        metadata: element.metadata().to_string(),
                    }),
                    _ => None,
                }),
            }
        })
        .collect()
}
