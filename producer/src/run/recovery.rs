//! What each failure of the log asks for, and for how long it is answered.

use std::time::{Duration, Instant};

use runtime::lifecycle::Lifecycle;
use runtime::log::{Class, LogError};

use crate::error::ProducerError;

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Make the same call again after a pause.
    TryAgain,
    /// Abort the transaction, and read again from the last committed position.
    Rollback,
    /// Build a new producer under the same transactional id, and ask the log for the position.
    Reconnect,
    /// Stop: another instance has this input.
    Yield,
    /// Stop: someone must act.
    Stop,
}

impl Recovery {
    /// What a failure asks for.
    pub fn of(error: &LogError) -> Self {
        match error.class() {
            Class::Retry => Self::TryAgain,
            Class::Abort => Self::Rollback,
            Class::Restart => Self::Reconnect,
            Class::Fenced => Self::Yield,
            Class::Fatal => Self::Stop,
        }
    }
}

/// Failures since something last went well: how long to wait after each, and when to give up.
#[derive(Debug)]
pub struct Patience {
    give_up_after: Duration,
    lifecycle: Lifecycle,
    since: Option<Instant>,
    attempts: u32,
}

impl Patience {
    const FIRST: Duration = Duration::from_millis(50);
    const LONGEST: Duration = Duration::from_secs(5);

    /// How long it lasts at most for a run that was told to stop.
    const WHILE_STOPPING: Duration = Duration::from_secs(10);

    /// Patience that lasts for `give_up_after` from the first failure in a row.
    pub fn new(give_up_after: Duration, lifecycle: Lifecycle) -> Self {
        Self {
            give_up_after,
            lifecycle,
            since: None,
            attempts: 0,
        }
    }

    /// Something went well.
    pub fn restored(&mut self) {
        self.since = None;
        self.attempts = 0;
    }

    /// How long to wait after a failure.
    ///
    /// # Errors
    /// When it lasts for too long.
    pub fn pause(&mut self, error: LogError) -> Result<Duration, ProducerError> {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.attempts += 1;
        let stopping = self.lifecycle.stopping();
        let most = if stopping {
            self.give_up_after.min(Self::WHILE_STOPPING)
        } else {
            self.give_up_after
        };
        if since.elapsed() >= most {
            return Err(ProducerError::GaveUp {
                attempts: self.attempts,
                seconds: since.elapsed().as_secs(),
                source: error,
            });
        }
        let pause = Self::FIRST
            .saturating_mul(1 << (self.attempts - 1).min(10))
            .min(Self::LONGEST);
        tracing::warn!(error = %error, attempt = self.attempts, pause_ms = pause.as_millis() as u64, "the log failed; trying again");
        Ok(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use runtime::log::TopicPartition;

    #[test]
    fn every_failure_of_the_log_has_one_recovery() {
        let text = String::new;
        let table = [
            (
                LogError::Unreachable {
                    action: "x",
                    detail: text(),
                },
                Recovery::TryAgain,
            ),
            (LogError::TimedOut { action: "x" }, Recovery::TryAgain),
            (LogError::MustAbort { detail: text() }, Recovery::Rollback),
            (
                LogError::StaleGeneration {
                    group: text(),
                    detail: text(),
                },
                Recovery::Rollback,
            ),
            (
                LogError::UnknownOutcome { action: "x" },
                Recovery::Reconnect,
            ),
            (
                LogError::Fenced {
                    transactional_id: text(),
                },
                Recovery::Yield,
            ),
            (
                LogError::InstanceFenced {
                    group: text(),
                    instance_id: text(),
                },
                Recovery::Yield,
            ),
            (LogError::UnknownTopic { name: text() }, Recovery::Stop),
            (
                LogError::OffsetOutOfRange {
                    partition: TopicPartition::new("t", 0),
                    offset: 0,
                    start: 0,
                    end: 0,
                },
                Recovery::Stop,
            ),
            (
                LogError::TooLarge {
                    what: text(),
                    bytes: 0,
                },
                Recovery::Stop,
            ),
            (
                LogError::NotAllowed {
                    action: "x",
                    detail: text(),
                },
                Recovery::Stop,
            ),
            (LogError::Config { detail: text() }, Recovery::Stop),
            (LogError::State { detail: text() }, Recovery::Stop),
            (
                LogError::Storage {
                    path: "x".into(),
                    detail: text(),
                    source: None,
                },
                Recovery::Stop,
            ),
            (LogError::Closed, Recovery::Stop),
        ];
        for (error, recovery) in table {
            assert_eq!(Recovery::of(&error), recovery, "{error}");
        }
    }

    #[test]
    fn patience_grows_and_ends() {
        let mut patience = Patience::new(Duration::from_secs(60), Lifecycle::new());
        let mut fail = || patience.pause(LogError::TimedOut { action: "x" });
        let pauses: Vec<_> = (0..9)
            .map(|_| fail().map(|pause| pause.as_millis()).unwrap_or(0))
            .collect();
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        let ended = Patience::new(Duration::ZERO, Lifecycle::new())
            .pause(LogError::TimedOut { action: "x" });
        assert!(matches!(
            ended,
            Err(ProducerError::GaveUp { attempts: 1, .. })
        ));
    }
}
