//! What librdkafka tells its clients between calls. The callbacks only record; they run inside a poll.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, RebalanceProtocol};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::ProducerContext;
use rdkafka::topic_partition_list::TopicPartitionList;
use rdkafka::types::RDKafkaRespErr;

use super::super::{Delivered, TopicPartition};

/// A lock whose data stays usable when a thread panicked while holding it: each change below is complete in itself.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a client said last, for error messages.
#[derive(Debug, Default)]
pub(super) struct ClientNotes {
    last: Mutex<Option<String>>,
    refusal: Mutex<Option<String>>,
    /// Topics that may not be written to, since that was asked for last.
    refused_topics: Mutex<BTreeSet<String>>,
}

/// How librdkafka tells that a broker refuses a topic to a transaction: by a line of its log alone. It then drops the
/// transaction's records.
const REFUSED_TOPIC: (&str, &str) = ("ADDPARTS", "Topic authorization failed");

impl ClientNotes {
    fn error(&self, error: &KafkaError, reason: &str) {
        let refused = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::Authentication
                    | RDKafkaErrorCode::SaslAuthenticationFailed
                    | RDKafkaErrorCode::SSL
            )
        );
        if refused {
            *lock(&self.refusal) = Some(reason.to_string());
        }
        // "All brokers are down" says less than what came before it.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *lock(&self.last) = Some(reason.to_string());
        }
        tracing::debug!(reason, code = %error, "the Kafka client reports an error");
    }

    /// The last thing that the client reported.
    pub(super) fn last(&self) -> Option<String> {
        lock(&self.last).clone()
    }

    /// Takes in a line of the client's log, such as `Failed to add partition "a" [1] to transaction: …`.
    fn line(&self, facility: &str, message: &str) {
        let (by, why) = REFUSED_TOPIC;
        let Some(topic) = message.split('"').nth(1) else {
            return;
        };
        if facility == by && message.ends_with(why) {
            lock(&self.refused_topics).insert(topic.to_owned());
        }
    }

    /// The topics that brokers have refused to the open transaction; told once.
    pub(super) fn refused_topics(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.refused_topics))
            .into_iter()
            .collect()
    }

    /// Why the brokers do not let this client in, if they said so.
    pub(super) fn refusal(&self) -> Option<String> {
        lock(&self.refusal).clone()
    }
}

fn log_line(level: RDKafkaLogLevel, facility: &str, message: &str) {
    match level {
        // librdkafka calls each lost connection an error, and recovers from it by itself; what it calls fatal is fatal to
        // one client, and comes back from the call in hand: whoever made that knows whether someone must act.
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error
        | RDKafkaLogLevel::Warning => {
            tracing::warn!(facility, message, "the Kafka client reports")
        }
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => {
            tracing::debug!(facility, message, "the Kafka client reports");
        }
    }
}

/// The context of a client that only asks.
pub(super) struct ReaderContext(Arc<ClientNotes>);

impl ReaderContext {
    pub(super) fn new(notes: Arc<ClientNotes>) -> Self {
        Self(notes)
    }
}

impl ClientContext for ReaderContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(&error, reason);
    }
}

impl ConsumerContext for ReaderContext {}

/// A change of the group's mind.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rebalance {
    /// Partitions in addition.
    Assigned(Vec<TopicPartition>),
    /// Partitions to be given back.
    Revoked(Vec<TopicPartition>),
    /// Partitions that are gone.
    Lost(Vec<TopicPartition>),
}

/// The context of a member of a group.
#[derive(Default)]
pub(super) struct MemberContext {
    pub(super) notes: ClientNotes,
    pub(super) rebalances: Mutex<VecDeque<Rebalance>>,
    /// The rebalance that was handed out and waits for the caller's answer.
    pub(super) unanswered: Mutex<Option<Rebalance>>,
    /// Set at each rebalance: librdkafka has paused and resumed what is being read.
    pub(super) disturbed: AtomicBool,
    /// Whether the group has given this member partitions, or said that there are none for it.
    pub(super) joined: AtomicBool,
    /// Once set, rebalances are answered at once: the member is leaving.
    pub(super) leaving: AtomicBool,
}

impl ClientContext for MemberContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        log_line(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        self.notes.error(&error, reason);
    }
}

impl ConsumerContext for MemberContext {
    fn rebalance(
        &self,
        client: &BaseConsumer<Self>,
        event: RDKafkaRespErr,
        list: &mut TopicPartitionList,
    ) {
        let assigned = event == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS;
        self.disturbed.store(true, Ordering::SeqCst);
        self.joined.fetch_or(assigned, Ordering::SeqCst);
        if self.leaving.load(Ordering::SeqCst) || list.count() == 0 {
            answer(client, assigned, list);
            return;
        }
        let partitions = partitions_of(list);
        lock(&self.rebalances).push_back(if assigned {
            Rebalance::Assigned(partitions)
        } else if client.assignment_lost() {
            Rebalance::Lost(partitions)
        } else {
            Rebalance::Revoked(partitions)
        });
    }
}

/// Tells librdkafka that a rebalance is done with.
pub(super) fn answer(
    client: &BaseConsumer<MemberContext>,
    assigned: bool,
    list: &TopicPartitionList,
) {
    let answered = match (client.rebalance_protocol(), assigned) {
        (RebalanceProtocol::Cooperative, true) => client.incremental_assign(list),
        (RebalanceProtocol::Cooperative, false) => client.incremental_unassign(list),
        (RebalanceProtocol::Eager | RebalanceProtocol::None, true) => client.assign(list),
        (RebalanceProtocol::Eager | RebalanceProtocol::None, false) => client.unassign(),
    };
    if let Err(error) = answered {
        tracing::debug!(%error, "a rebalance could not be answered");
    }
}

pub(super) fn partitions_of(list: &TopicPartitionList) -> Vec<TopicPartition> {
    list.elements()
        .iter()
        .map(|element| TopicPartition::new(element.topic(), element.partition()))
        .collect()
}

/// A delivery that failed.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) code: RDKafkaErrorCode,
    pub(super) partition: TopicPartition,
    pub(super) bytes: usize,
}

/// Delivery reports, counted.
#[derive(Default)]
pub(super) struct Tally {
    /// The transaction that is counted: reports on earlier ones come too late to matter.
    pub(super) transaction: usize,
    /// For each topic, how many records each partition took.
    topics: Vec<(Arc<str>, Vec<u64>)>,
    /// The first failure since the last flush.
    first: Option<Failure>,
    /// How many deliveries failed since the last flush.
    pub(super) failed: u64,
}

impl Tally {
    fn delivered(&mut self, topic: &str, partition: i32) {
        let index = match self.topics.iter().position(|(name, _)| &**name == topic) {
            Some(index) => index,
            None => {
                self.topics.push((topic.into(), Vec::new()));
                self.topics.len() - 1
            }
        };
        let counts = &mut self.topics[index].1;
        let Ok(partition) = usize::try_from(partition) else {
            return;
        };
        if counts.len() <= partition {
            counts.resize(partition + 1, 0);
        }
        counts[partition] += 1;
    }

    /// Forgets a transaction that was given up.
    pub(super) fn next(&mut self) {
        *self = Self {
            transaction: self.transaction + 1,
            ..Self::default()
        };
    }

    /// What was delivered since the last time, or the first failure; then the delivered stay counted for the next time.
    pub(super) fn take(&mut self) -> Result<Delivered, (Failure, u64)> {
        if let Some(failure) = self.first.take() {
            return Err((failure, std::mem::take(&mut self.failed)));
        }
        let mut delivered = Delivered::new();
        for (topic, counts) in &mut self.topics {
            for (partition, count) in (0_i32..).zip(counts) {
                if *count > 0 {
                    delivered.insert(
                        TopicPartition::new(Arc::clone(topic), partition),
                        std::mem::take(count),
                    );
                }
            }
        }
        Ok(delivered)
    }
}

/// The context of a producer.
#[derive(Default)]
pub(super) struct WriterContext {
    pub(super) notes: ClientNotes,
    pub(super) tally: Mutex<Tally>,
}

impl ClientContext for WriterContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.notes.line(facility, message);
        log_line(level, facility, message);
    }
    fn error(&self, error: KafkaError, reason: &str) {
        self.notes.error(&error, reason);
    }
}

impl ProducerContext for WriterContext {
    /// In which transaction the record was sent, counted from 0.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, transaction: usize) {
        let mut tally = lock(&self.tally);
        // A record of a transaction that was given up.
        if transaction != tally.transaction {
            return;
        }
        match result {
            Ok(message) => tally.delivered(message.topic(), message.partition()),
            Err((error, message)) => {
                tally.failed += 1;
                if tally.first.is_none() {
                    tally.first = Some(Failure {
                        code: error
                            .rdkafka_error_code()
                            .unwrap_or(RDKafkaErrorCode::Unknown),
                        partition: TopicPartition::new(message.topic(), message.partition()),
                        bytes: message.payload_len() + message.key_len(),
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_topic_that_is_refused_is_known_by_the_clients_own_words() {
        let notes = ClientNotes::default();
        let refused = |topic: &str| {
            format!(
                "TxnCoordinator/1: Failed to add partition \"{topic}\" [1] to transaction: Broker: Topic authorization failed"
            )
        };
        notes.line("ADDPARTS", &refused("b"));
        notes.line("ADDPARTS", &refused("a"));
        notes.line("ADDPARTS", &refused("b"));
        notes.line("ADDPARTS", "TxnCoordinator/1: Failed to add partition \"c\" [1] to transaction: Broker: Unknown topic or partition");
        notes.line(
            "TXNERR",
            "Current transaction failed in state InTransaction: (TOPIC_AUTHORIZATION_FAILED)",
        );
        assert_eq!(notes.refused_topics(), ["a", "b"]);
        assert_eq!(notes.refused_topics(), [""; 0]);
    }

    #[test]
    fn a_failure_is_reported_once_and_hides_no_delivery() {
        let mut tally = Tally::default();
        tally.delivered("a", 2);
        tally.delivered("b", 0);
        tally.delivered("a", 2);
        tally.failed = 3;
        tally.first = Some(Failure {
            code: RDKafkaErrorCode::MessageTimedOut,
            partition: TopicPartition::new("a", 1),
            bytes: 7,
        });
        let (failure, count) = tally.take().expect_err("it failed");
        assert_eq!(
            (failure.code, count),
            (RDKafkaErrorCode::MessageTimedOut, 3)
        );
        let expected: Delivered = [
            (TopicPartition::new("a", 2), 2),
            (TopicPartition::new("b", 0), 1),
        ]
        .into();
        assert_eq!(tally.take().unwrap(), expected);
        assert!(tally.take().unwrap().is_empty());
    }
}
