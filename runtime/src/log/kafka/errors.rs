//! What each error code of librdkafka and of the brokers means for a caller: one table, complete.

use rdkafka::error::{KafkaError, RDKafkaErrorCode as Code};

use super::super::{LogError, Offset, TopicPartition};

/// What a code says, before it is known what was being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The brokers can't be reached now, or ask to be asked again.
    Unreachable,
    /// No answer in time.
    TimedOut,
    /// The transaction can't go on.
    MustAbort,
    /// The member's place in its group is over.
    StaleGeneration,
    /// Another producer has the transactional id.
    Fenced,
    /// Another member has the static id.
    InstanceFenced,
    /// No such topic or partition.
    UnknownTopic,
    /// The partition lacks the offset.
    OutOfRange,
    /// A record or a metadata string is too large.
    TooLarge,
    /// The brokers refuse this client.
    NotAllowed,
    /// The brokers, or the client, refuse what was asked.
    Config,
    /// A call out of turn, or a broken client.
    State,
}

/// The kind of a code; `None` for one that this table does not know.
#[rustfmt::skip]
pub(super) fn kind(code: Code) -> Option<Kind> {
    Some(match code {
        // the connection, leaders and coordinators: they come back
        Code::BrokerDestroy | Code::BrokerTransportFailure | Code::Resolve | Code::AllBrokersDown | Code::NodeUpdate
        | Code::WaitingForCoordinator | Code::InProgress | Code::PreviousInProgress | Code::Retry | Code::WaitCache
        | Code::UnknownBroker | Code::Interrupted | Code::ISRInsufficient | Code::Partial | Code::Outdated | Code::DestroyBroker
        | Code::LeaderNotAvailable | Code::NotLeaderForPartition | Code::BrokerNotAvailable | Code::ReplicaNotAvailable
        | Code::StaleControllerEpoch | Code::NetworkException | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable | Code::NotCoordinator | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend | Code::RebalanceInProgress | Code::NotController
        | Code::ConcurrentTransactions | Code::KafkaStorageError | Code::ReassignmentInProgress
        | Code::FetchSessionIdNotFound | Code::InvalidFetchSessionEpoch | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch | Code::StaleBrokerEpoch | Code::OffsetNotAvailable | Code::MemberIdRequired
        | Code::PreferredLeaderNotAvailable | Code::EligibleLeadersNotAvailable | Code::UnstableOffsetCommit
        | Code::ThrottlingQuotaExceeded | Code::UnknownTopicId | Code::ListenerNotFound | Code::QueueFull
        | Code::InvalidMessage | Code::BadMessage | Code::UnknownSubscriptionId | Code::RebootstrapRequired => Kind::Unreachable,

        Code::MessageTimedOut | Code::OperationTimedOut | Code::TimedOutQueue | Code::RequestTimedOut => Kind::TimedOut,

        // a transaction that the brokers no longer go on with
        Code::InvalidProducerIdMapping | Code::OutOfOrderSequenceNumber | Code::DuplicateSequenceNumber
        | Code::UnknownProducerId | Code::TransactionCoordinatorFenced | Code::OperationNotAttempted
        | Code::PurgeQueue | Code::PurgeInflight | Code::GaplessGuarantee => Kind::MustAbort,

        Code::IllegalGeneration | Code::UnknownMemberId | Code::AssignmentLost | Code::PollExceeded
        | Code::FencedMemberEpoch | Code::StaleMemberEpoch => Kind::StaleGeneration,

        Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => Kind::Fenced,
        Code::FencedInstanceId | Code::UnreleasedInstanceId => Kind::InstanceFenced,

        Code::UnknownPartition | Code::UnknownTopic | Code::UnknownTopicOrPartition | Code::InvalidTopic => Kind::UnknownTopic,
        Code::OffsetOutOfRange | Code::AutoOffsetReset | Code::NoOffset | Code::LogTruncation => Kind::OutOfRange,
        Code::MessageSizeTooLarge | Code::MessageBatchTooLarge | Code::OffsetMetadataTooLarge
        | Code::InvalidCommitOffsetSize => Kind::TooLarge,

        Code::Authentication | Code::SSL | Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed | Code::TransactionalIdAuthorizationFailed | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism | Code::IllegalSASLState | Code::SecurityDisabled
        | Code::DelegationTokenAuthDisabled | Code::DelegationTokenNotFound | Code::DelegationTokenOwnerMismatch
        | Code::DelegationTokenRequestNotAllowed | Code::DelegationTokenAuthorizationFailed | Code::DelegationTokenExpired
        | Code::InvalidPrincipalType | Code::UnacceptableCredential | Code::PrincipalDeserializationFailure
        | Code::TopicDeletionDisabled | Code::PolicyViolation => Kind::NotAllowed,

        // what was asked for is not possible as it was asked
        Code::BadCompression | Code::InvalidArgument | Code::UnknownProtocol | Code::NotImplemented
        | Code::UnsupportedFeature | Code::InvalidType | Code::NotConfigured | Code::Inconsistent | Code::UnknownGroup
        | Code::FileSystem | Code::CriticalSystemResource | Code::ReadOnly | Code::NoEnt
        | Code::InvalidMessageSize | Code::InvalidRequiredAcks | Code::InconsistentGroupProtocol | Code::InvalidGroupId
        | Code::InvalidSessionTimeout | Code::InvalidTimestamp | Code::UnsupportedVersion | Code::TopicAlreadyExists
        | Code::InvalidPartitions | Code::InvalidReplicationFactor | Code::InvalidReplicaAssignment
        | Code::InvalidConfig | Code::InvalidRequest | Code::UnsupportedForMessageFormat
        | Code::InvalidTransactionTimeout | Code::LogDirNotFound | Code::NonEmptyGroup | Code::GroupIdNotFound
        | Code::UnsupportedCompressionType | Code::GroupMaxSizeReached | Code::ElectionNotNeeded
        | Code::NoReassignmentInProgress | Code::GroupSubscribedToTopic | Code::InvalidRecord | Code::ResourceNotFound
        | Code::DuplicateResource | Code::InconsistentVoterSet | Code::InvalidUpdateVersion | Code::FeatureUpdateFailed
        | Code::UnsupportedAssignor | Code::InvalidDifferentRecord | Code::TelemetryTooLarge => Kind::Config,

        // calls out of turn, and codes that never reach a caller of this log
        Code::State | Code::Conflict | Code::ExistingSubscription | Code::AssignPartitions | Code::RevokePartitions
        | Code::PartitionEOF | Code::Fail | Code::Fatal | Code::Application | Code::Noop | Code::Underflow
        | Code::KeySerialization | Code::ValueSerialization | Code::KeyDeserialization | Code::ValueDeserialization
        | Code::InvalidTransactionalState | Code::Unknown | Code::NoError | Code::Begin | Code::End => Kind::State,

        _ => return None,
    })
}

/// Where credentials stand.
pub(super) const CREDENTIALS: &str = "check \"sasl.username\" and \"sasl.password\" under log.client (HEADWAY_LOG_CLIENT_SASL_USERNAME, HEADWAY_LOG_CLIENT_SASL_PASSWORD)";

/// What was being done, for the error's words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doing<'a> {
    action: &'static str,
    /// A topic or partition.
    name: &'a str,
    /// The topic, where the name is that of a partition; or several.
    topic: &'a str,
    group: &'a str,
    instance_id: &'a str,
    transactional_id: &'a str,
    bytes: usize,
}

impl<'a> Doing<'a> {
    pub(super) fn new(action: &'static str) -> Self {
        Self {
            action,
            name: "",
            topic: "",
            group: "",
            instance_id: "",
            transactional_id: "",
            bytes: 0,
        }
    }
    pub(super) fn action(self) -> &'static str {
        self.action
    }
    pub(super) fn name(self, name: &'a str) -> Self {
        Self { name, ..self }
    }
    pub(super) fn topic(self, topic: &'a str) -> Self {
        Self { topic, ..self }
    }
    pub(super) fn group(self, group: &'a str) -> Self {
        Self { group, ..self }
    }
    pub(super) fn instance_id(self, instance_id: &'a str) -> Self {
        Self {
            instance_id,
            ..self
        }
    }
    pub(super) fn transactional_id(self, transactional_id: &'a str) -> Self {
        Self {
            transactional_id,
            ..self
        }
    }
    pub(super) fn bytes(self, bytes: usize) -> Self {
        Self { bytes, ..self }
    }

    /// The error for a code.
    pub(super) fn error(&self, code: Code, said: &str) -> LogError {
        let name = code.to_string();
        let detail = if name.contains(said) {
            name
        } else {
            format!("{name}: {said}")
        };
        match kind(code) {
            Some(Kind::Unreachable) => LogError::Unreachable {
                action: self.action,
                detail,
            },
            Some(Kind::TimedOut) => LogError::TimedOut {
                action: self.action,
            },
            Some(Kind::MustAbort) => LogError::MustAbort { detail },
            Some(Kind::StaleGeneration) => LogError::StaleGeneration {
                group: self.group.into(),
                detail,
            },
            Some(Kind::Fenced) => LogError::Fenced {
                transactional_id: self.transactional_id.into(),
            },
            Some(Kind::InstanceFenced) => LogError::InstanceFenced {
                group: self.group.into(),
                instance_id: self.instance_id.into(),
            },
            Some(Kind::UnknownTopic) => LogError::UnknownTopic {
                name: if self.name.is_empty() {
                    detail
                } else {
                    self.name.into()
                },
            },
            Some(Kind::TooLarge) => LogError::TooLarge {
                what: if self.name.is_empty() {
                    "a record".into()
                } else {
                    format!("a record for {}", self.name)
                },
                bytes: self.bytes,
            },
            Some(Kind::NotAllowed) => LogError::NotAllowed {
                action: self.action,
                detail: format!("{detail}; {}", self.rights(code)),
            },
            Some(Kind::Config) if code == Code::InvalidTransactionTimeout => LogError::Config {
                detail: format!(
                    "to {}: log.transaction_timeout_ms is more than the brokers allow; make it shorter, or raise their transaction.max.timeout.ms",
                    self.action
                ),
            },
            Some(Kind::Config) if code == Code::InvalidReplicationFactor => LogError::Config {
                detail: format!(
                    "to {} {}: there are fewer brokers than log.replication asks for; ask for fewer copies, or add brokers",
                    self.action, self.name
                ),
            },
            Some(Kind::Config) => LogError::Config {
                detail: format!("to {}: {detail}", self.action),
            },
            // An offset out of range has words of its own where partition and bounds are known ([`out_of_range`]).
            Some(Kind::OutOfRange | Kind::State) | None => LogError::State {
                detail: format!("the Kafka client could not {}: {detail}", self.action),
            },
        }
    }

    /// What a refused client is to be given.
    fn rights(&self, code: Code) -> String {
        let or = |name: &str, other: &str| if name.is_empty() { other } else { name }.to_owned();
        let give = "give this client's user (ACLs)";
        match code {
            Code::TopicAuthorizationFailed => {
                let topic = match (self.topic, self.name) {
                    ("", "") => "each topic".to_owned(),
                    ("", name) | (name, _) => format!("topic {name}"),
                };
                match self.action {
                    "read" => format!("{give} Read on {topic}"),
                    "read a partition's bounds" => format!("{give} Describe on {topic}"),
                    "delete records" | "delete a topic" => format!("{give} Delete on {topic}"),
                    "create a topic" | "describe a topic" => format!(
                        "{give} Describe and DescribeConfigs on {topic}, and Create if it is to make it"
                    ),
                    "add partitions to a topic" => format!("{give} Alter on {topic}"),
                    "write a record" | "deliver records" => format!("{give} Write on {topic}"),
                    "add offsets to the transaction" | "commit offsets" => {
                        format!("{give} Read on {topic} whose offsets it commits")
                    }
                    _ => format!(
                        "{give} Describe on {topic}, Read where it reads it, and Write where it writes it"
                    ),
                }
            }
            Code::GroupAuthorizationFailed => {
                format!(
                    "{give} Read on group {}",
                    or(self.group, "that it reads with")
                )
            }
            Code::TransactionalIdAuthorizationFailed => format!(
                "{give} Describe and Write on transactional id {}",
                or(self.transactional_id, "that it writes under")
            ),
            Code::ClusterAuthorizationFailed => {
                format!(
                    "{give} IdempotentWrite, and Create if it is to make topics, on the cluster"
                )
            }
            _ => format!("{CREDENTIALS}, and its user's rights (ACLs)"),
        }
    }

    /// The error for an error of rust-rdkafka.
    pub(super) fn of(&self, error: &KafkaError) -> LogError {
        match error.rdkafka_error_code() {
            Some(code) => self.error(code, ""),
            None => match error {
                KafkaError::AdminOp(code) => self.error(*code, ""),
                KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_) => of_creation(error),
                other => LogError::State {
                    detail: format!("the Kafka client could not {}: {other}", self.action),
                },
            },
        }
    }
}

/// The error of a client that could not be made.
pub(super) fn of_creation(error: &KafkaError) -> LogError {
    LogError::Config {
        detail: format!("the Kafka client refuses its settings: {error}"),
    }
}

/// The error for an offset that a partition lacks.
pub(super) fn out_of_range(
    partition: &TopicPartition,
    offset: Offset,
    start: Offset,
    end: Offset,
) -> LogError {
    LogError::OffsetOutOfRange {
        partition: partition.clone(),
        offset,
        start,
        end,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::super::super::Class;
    use super::super::native;
    use super::*;

    #[test]
    fn every_code_that_librdkafka_knows_is_classified() {
        let codes = native::all_codes();
        assert!(codes.len() > 150, "{}", codes.len());
        let unknown: Vec<_> = codes
            .into_iter()
            .filter(|code| kind(*code).is_none())
            .collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }

    #[test]
    fn what_a_code_asks_of_the_caller() {
        let doing = Doing::new("commit")
            .group("g")
            .transactional_id("t")
            .instance_id("i")
            .name("topic-0");
        for (code, class) in [
            (Code::BrokerTransportFailure, Class::Retry),
            (Code::NotCoordinator, Class::Retry),
            (Code::CoordinatorLoadInProgress, Class::Retry),
            (Code::ConcurrentTransactions, Class::Retry),
            (Code::RebalanceInProgress, Class::Retry),
            (Code::RequestTimedOut, Class::Retry),
            (Code::UnstableOffsetCommit, Class::Retry),
            (Code::OutOfOrderSequenceNumber, Class::Abort),
            (Code::InvalidProducerIdMapping, Class::Abort),
            (Code::IllegalGeneration, Class::Abort),
            (Code::UnknownMemberId, Class::Abort),
            (Code::AssignmentLost, Class::Abort),
            (Code::ProducerFenced, Class::Fenced),
            (Code::InvalidProducerEpoch, Class::Fenced),
            (Code::Fenced, Class::Fenced),
            (Code::FencedInstanceId, Class::Fenced),
            (Code::TopicAuthorizationFailed, Class::Fatal),
            (Code::SaslAuthenticationFailed, Class::Fatal),
            (Code::UnknownTopicOrPartition, Class::Fatal),
            (Code::OffsetMetadataTooLarge, Class::Fatal),
            (Code::MessageSizeTooLarge, Class::Fatal),
            (Code::InvalidTransactionTimeout, Class::Fatal),
            (Code::State, Class::Fatal),
            (Code::Fatal, Class::Fatal),
        ] {
            assert_eq!(doing.error(code, "").class(), class, "{code:?}");
        }
    }

    #[test]
    fn who_is_refused_a_topic_is_told_which_right_it_lacks() {
        for (action, right) in [
            ("read", "Read on topic t"),
            ("read a partition's bounds", "Describe on topic t"),
            ("delete records", "Delete on topic t"),
            (
                "describe a topic",
                "Describe and DescribeConfigs on topic t",
            ),
            ("deliver records", "Write on topic t"),
            ("begin to read", "Describe on topic t, Read where"),
        ] {
            let doing = Doing::new(action).name("t-0").topic("t");
            let text = doing.error(Code::TopicAuthorizationFailed, "").to_string();
            assert!(text.contains(&format!("(ACLs) {right}")), "{text}");
        }
        let of_all = Doing::new("add offsets to the transaction");
        let text = of_all.error(Code::TopicAuthorizationFailed, "").to_string();
        assert!(
            text.ends_with("Read on each topic whose offsets it commits"),
            "{text}"
        );
    }

    #[test]
    fn an_error_names_what_it_is_about() {
        let doing = Doing::new("commit offsets")
            .group("g")
            .transactional_id("t")
            .instance_id("i")
            .name("topic-0")
            .bytes(9);
        for (code, word) in [
            (Code::ProducerFenced, "transactional id t"),
            (Code::FencedInstanceId, "member i of group g"),
            (Code::IllegalGeneration, "group g"),
            (Code::UnknownTopicOrPartition, "topic-0"),
            (Code::MessageSizeTooLarge, "9 bytes"),
            (Code::GroupAuthorizationFailed, "commit offsets"),
            (Code::GroupAuthorizationFailed, "(ACLs) Read on group g"),
            (
                Code::TopicAuthorizationFailed,
                "(ACLs) Read on topic topic-0 whose offsets it commits",
            ),
            (
                Code::TransactionalIdAuthorizationFailed,
                "transactional id t",
            ),
            (
                Code::SaslAuthenticationFailed,
                "HEADWAY_LOG_CLIENT_SASL_USERNAME",
            ),
        ] {
            let text = doing.error(code, "").to_string();
            assert!(text.contains(word), "{text:?} does not say {word:?}");
        }
    }
}
