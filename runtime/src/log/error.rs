//! What can go wrong at the log, and what the caller must do then.

use super::{Offset, TopicPartition};

/// What a failure asks of the caller. Each failure is sorted once, by [`LogError::class`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Nothing happened yet: the same call may be made again, after a pause.
    Retry,
    /// The open transaction can't be committed: abort it, go back to what was committed last, and go on.
    Abort,
    /// Nobody knows what was committed: drop producer and consumer without a further call, build new ones under the
    /// same ids, and read the committed offsets again.
    Restart,
    /// Another instance has taken this one's place: stop, and leave the work to it.
    Fenced,
    /// Someone must act: stop and say what is wrong.
    Fatal,
}

/// A failure at the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The broker can't be reached, or broke off; it may come back.
    #[error("the log can't be reached while trying to {action}: {detail}")]
    Unreachable {
        /// What was being done, as in "commit offsets".
        action: &'static str,
        /// What the client says.
        detail: String,
    },
    /// A call took longer than its deadline, and nothing was changed.
    #[error("the log did not answer in time while trying to {action}")]
    TimedOut {
        /// What was being done.
        action: &'static str,
    },
    /// A commit of which nobody knows whether it took effect.
    #[error("the log did not say whether it took effect: {action}")]
    UnknownOutcome {
        /// What was being done.
        action: &'static str,
    },
    /// The open transaction must be aborted.
    #[error("the transaction must be aborted: {detail}")]
    MustAbort {
        /// What the client says.
        detail: String,
    },
    /// This member no longer holds its place in the group: its generation is over.
    #[error("this member's place in group {group} is over: {detail}")]
    StaleGeneration {
        /// The group.
        group: String,
        /// What the broker says.
        detail: String,
    },
    /// A newer producer holds the same transactional id.
    #[error("another instance has taken over transactional id {transactional_id}")]
    Fenced {
        /// The id.
        transactional_id: String,
    },
    /// A newer consumer holds the same static member id.
    #[error("another instance has taken over member {instance_id} of group {group}")]
    InstanceFenced {
        /// The group.
        group: String,
        /// The static member id.
        instance_id: String,
    },
    /// There is no such topic or partition.
    #[error("there is no topic or partition {name}: create it with `headway setup`")]
    UnknownTopic {
        /// Its name.
        name: String,
    },
    /// A partition does not have the offset to be read.
    #[error("{partition} has no offset {offset}: it holds {start} to {end}")]
    OffsetOutOfRange {
        /// The partition.
        partition: TopicPartition,
        /// The offset asked for.
        offset: Offset,
        /// The first offset there.
        start: Offset,
        /// The end.
        end: Offset,
    },
    /// A record, or an offset's metadata, is larger than the broker takes.
    #[error("{what} has {bytes} bytes, more than the log takes")]
    TooLarge {
        /// What is too large.
        what: String,
        /// Its size.
        bytes: usize,
    },
    /// The broker refuses this client.
    #[error("the log refuses to {action}: {detail}")]
    NotAllowed {
        /// What was being done.
        action: &'static str,
        /// What the broker says.
        detail: String,
    },
    /// A setting, of the client or of a topic, is not acceptable.
    #[error("the log can't be used as configured: {detail}")]
    Config {
        /// What is wrong.
        detail: String,
    },
    /// A call that can't be made in this state, such as a commit without a transaction.
    #[error("{detail}")]
    State {
        /// What is wrong.
        detail: String,
    },
    /// The folder of the embedded log can't be used.
    #[error("the log under {path} can't be used: {detail}")]
    Storage {
        /// The folder or file.
        path: std::path::PathBuf,
        /// What is wrong, and what to do.
        detail: String,
        /// The operating system's reason.
        #[source]
        source: Option<std::io::Error>,
    },
    /// The log was closed by its owner.
    #[error("the log is closed")]
    Closed,
}

impl LogError {
    /// What this failure asks of the caller.
    pub fn class(&self) -> Class {
        match self {
            Self::Unreachable { .. } | Self::TimedOut { .. } => Class::Retry,
            Self::MustAbort { .. } | Self::StaleGeneration { .. } => Class::Abort,
            Self::UnknownOutcome { .. } => Class::Restart,
            Self::Fenced { .. } | Self::InstanceFenced { .. } => Class::Fenced,
            Self::UnknownTopic { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::TooLarge { .. }
            | Self::NotAllowed { .. }
            | Self::Config { .. }
            | Self::State { .. }
            | Self::Storage { .. }
            | Self::Closed => Class::Fatal,
        }
    }
}

/// A topic can't lose partitions.
pub(super) fn fewer(name: &str, partitions: i32, total: i32) -> LogError {
    LogError::Config {
        detail: format!(
            "topic {name} has {partitions} partitions, and can't have {total}: a topic never loses any"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_asks_for_what_its_docs_say() {
        let text = || "x".to_owned();
        let partition = TopicPartition::new("t", 0);
        let table = [
            (
                LogError::Unreachable {
                    action: "x",
                    detail: text(),
                },
                Class::Retry,
            ),
            (LogError::TimedOut { action: "x" }, Class::Retry),
            (LogError::UnknownOutcome { action: "x" }, Class::Restart),
            (LogError::MustAbort { detail: text() }, Class::Abort),
            (
                LogError::StaleGeneration {
                    group: text(),
                    detail: text(),
                },
                Class::Abort,
            ),
            (
                LogError::Fenced {
                    transactional_id: text(),
                },
                Class::Fenced,
            ),
            (
                LogError::InstanceFenced {
                    group: text(),
                    instance_id: text(),
                },
                Class::Fenced,
            ),
            (LogError::UnknownTopic { name: text() }, Class::Fatal),
            (
                LogError::OffsetOutOfRange {
                    partition,
                    offset: 0,
                    start: 1,
                    end: 2,
                },
                Class::Fatal,
            ),
            (
                LogError::TooLarge {
                    what: text(),
                    bytes: 1,
                },
                Class::Fatal,
            ),
            (
                LogError::NotAllowed {
                    action: "x",
                    detail: text(),
                },
                Class::Fatal,
            ),
            (LogError::Config { detail: text() }, Class::Fatal),
            (LogError::State { detail: text() }, Class::Fatal),
            (
                LogError::Storage {
                    path: "x".into(),
                    detail: text(),
                    source: None,
                },
                Class::Fatal,
            ),
            (LogError::Closed, Class::Fatal),
        ];
        for (error, class) in table {
            assert_eq!(error.class(), class, "{error}");
        }
    }
}
