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
            match end_in_order(&client, Instant::now() + PATIENCE) {
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

/// Leaves the group, of which a static member keeps its place, and waits until that is done.
pub(super) fn end_in_order(
    client: &BaseConsumer<MemberContext>,
    until: Instant,
) -> Result<Result<(), LogError>, KafkaError> {
    if !answer_the_last(client) {
        return Ok(Ok(()));
    }
    client.close_queue()?;
    Ok(poll_until(client, until, || client.closed()))
}

/// Gives up a static member's place. librdkafka does that where the member unsubscribes, and not where it closes; the request is
/// on its way once the member has no id any more, and closing waits for its answer.
pub(super) fn give_up_place(
    client: &BaseConsumer<MemberContext>,
    until: Instant,
) -> Result<Result<(), LogError>, KafkaError> {
    if !answer_the_last(client) {
        return Ok(Ok(()));
    }
    client.unsubscribe();
    Ok(poll_until(client, until, || {
        native::member_id(client).is_none() || client.client().fatal_error().is_some()
    }))
}

/// From now on rebalances are answered at once, and one that the caller has not answered is answered now: leaving waits for
/// it. False if this client has ended already.
fn answer_the_last(client: &BaseConsumer<MemberContext>) -> bool {
    let context = client.client().context();
    context.leaving.store(true, Ordering::SeqCst);
    if client.client().fatal_error().is_some() || client.closed() {
        return false;
    }
    let recorded = lock(&context.rebalances).pop_front();
    match recorded.or(lock(&context.unanswered).take()) {
        None => {}
        // with nothing, since nothing will be read
        Some(Rebalance::Assigned(_)) => context::answer(client, true, &TopicPartitionList::new()),
        Some(Rebalance::Revoked(partitions) | Rebalance::Lost(partitions)) => {
            context::answer(client, false, &offsets::list_of(&partitions));
        }
    }
    true
}

fn poll_until(
    client: &BaseConsumer<MemberContext>,
    until: Instant,
    done: impl Fn() -> bool,
) -> Result<(), LogError> {
    while !done() {
        if Instant::now() >= until {
            return Err(LogError::TimedOut {
                action: "leave the group",
            });
        }
        client.poll(Duration::from_millis(10));
    }
    Ok(())
}
