//! A member's client: how it leaves its group, and how it ends.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::topic_partition_list::TopicPartitionList;

use super::super::LogError;
use super::context::{self, MemberContext, Rebalance, lock};
use super::native::{self, Ending};
use super::offsets;

/// How long a member that was dropped takes to leave, on a thread of its own.
const PATIENCE: Duration = Duration::from_secs(30);

/// The client itself. It ends when the consumer and the last of its batches are gone.
pub(super) type Client = Ending<BaseConsumer<MemberContext>>;

/// Ends a client on a thread of its own, since librdkafka may block there. A member that was not closed leaves its group:
/// librdkafka can't do without (its way to end a client in silence keeps a thread spinning). A static member's place is
/// kept for it either way.
pub(super) fn end(client: BaseConsumer<MemberContext>) {
    native::on_thread(move || {
        if !client.closed() {
            match leave(&client, Instant::now() + PATIENCE) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "a Kafka client that was dropped could not leave its group")
                }
                Err(error) => {
                    tracing::warn!(%error, "a Kafka client that was dropped could not leave its group")
                }
            }
        }
        drop(client);
    });
}

/// Leaves the group and waits until that is done.
pub(super) fn leave(
    client: &BaseConsumer<MemberContext>,
    until: Instant,
) -> Result<Result<(), LogError>, KafkaError> {
    let context = client.client().context();
    context.leaving.store(true, Ordering::SeqCst);
    if client.client().fatal_error().is_some() || client.closed() {
        return Ok(Ok(()));
    }
    // A rebalance that the caller has not answered is answered now: leaving waits for it. An assignment is answered with
    // nothing, since nothing will be read.
    let recorded = lock(&context.rebalances).pop_front();
    match recorded.or(lock(&context.unanswered).take()) {
        None => {}
        Some(Rebalance::Assigned(_)) => context::answer(client, true, &TopicPartitionList::new()),
        Some(Rebalance::Revoked(partitions) | Rebalance::Lost(partitions)) => {
            context::answer(client, false, &offsets::list_of(&partitions));
        }
    }
    client.close_queue()?;
    while !client.closed() {
        if Instant::now() >= until {
            return Ok(Err(LogError::TimedOut {
                action: "leave the group",
            }));
        }
        client.poll(Duration::from_millis(10));
    }
    Ok(Ok(()))
}
