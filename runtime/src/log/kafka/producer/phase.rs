//! Where a transactional producer stands, and what failures make of it.

use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer as _;

use super::super::super::LogError;
use super::super::errors::{self, Kind};
use super::KafkaProducer;

/// Where a transactional producer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Without transactions.
    Plain,
    /// The transactional id is not taken yet.
    New,
    /// Between transactions.
    Ready,
    /// In a transaction.
    Open,
    /// In a transaction that can only be aborted.
    Doomed,
    /// Another holds the id.
    Fenced,
    /// Nobody knows what the brokers did: a new producer must find out.
    Unknown,
}

/// What an error of a transactional call says.
pub(super) enum Meaning {
    /// The client is at its end.
    Fatal,
    /// The transaction must be aborted.
    Abort(RDKafkaErrorCode, String),
    /// The same call may be made again.
    Retry(RDKafkaErrorCode, String),
    Other(RDKafkaErrorCode, String),
}

impl Meaning {
    fn of(error: &RDKafkaError) -> Self {
        let (code, said) = (error.code(), error.string());
        if error.is_fatal() {
            Self::Fatal
        } else if error.txn_requires_abort() {
            Self::Abort(code, said)
        } else if error.is_retriable() {
            Self::Retry(code, said)
        } else {
            Self::Other(code, said)
        }
    }
}

impl KafkaProducer {
    /// Fails unless the producer stands in one of these phases.
    pub(super) fn expect(&self, action: &'static str, phases: &[Phase]) -> Result<(), LogError> {
        if phases.contains(&self.phase) {
            return Ok(());
        }
        let out_of_turn = |why: &str| {
            Err(LogError::State {
                detail: format!("can't {action}: {why}"),
            })
        };
        match self.phase {
            Phase::Plain => out_of_turn("this producer has no transactional id"),
            Phase::New => out_of_turn("the transactional id was not taken (init_transactions)"),
            Phase::Ready => out_of_turn("no transaction is open"),
            Phase::Open => out_of_turn("a transaction is open"),
            Phase::Doomed => Err(LogError::MustAbort {
                detail: "an earlier call in it failed".into(),
            }),
            Phase::Fenced => Err(LogError::Fenced {
                transactional_id: self.transactional_id.clone(),
            }),
            Phase::Unknown => Err(LogError::UnknownOutcome { action }),
        }
    }

    /// What a failure within a transaction makes of it.
    pub(super) fn fail(&mut self, error: LogError) -> LogError {
        self.phase = match &error {
            LogError::Fenced { .. } => Phase::Fenced,
            LogError::UnknownOutcome { .. } => Phase::Unknown,
            _ => Phase::Doomed,
        };
        error
    }

    /// The reason why the client is at its end, if it is.
    pub(super) fn fatal(&self, action: &'static str) -> Option<LogError> {
        let (code, said) = self.base().client().fatal_error()?;
        Some(match errors::kind(code) {
            Some(Kind::Fenced) => self.doing(action).error(code, &said),
            // Refused from the start: a new producer would hear the same.
            Some(Kind::Config | Kind::NotAllowed) if self.phase == Phase::New => {
                self.doing(action).error(code, &said)
            }
            // What the brokers did last is for a new producer under the same id to find out.
            _ if self.phase != Phase::Plain => LogError::UnknownOutcome { action },
            _ => self.doing(action).error(code, &said),
        })
    }

    pub(super) fn meaning(&self, action: &'static str, error: &KafkaError) -> Meaning {
        match error {
            KafkaError::Transaction(error) => Meaning::of(error),
            other => Meaning::Other(
                other
                    .rdkafka_error_code()
                    .unwrap_or(RDKafkaErrorCode::Unknown),
                action.into(),
            ),
        }
    }
}
