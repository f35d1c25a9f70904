//! A thread for calls that may hang: the caller waits for each with a deadline.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use super::super::LogError;

type Job = Box<dyn FnOnce() + Send>;

/// Runs calls one at a time on a thread of its own. A call that does not come back in time is left there, and with it the
/// guard: whoever holds it must build everything anew.
pub(super) struct Guard {
    jobs: Option<Sender<Job>>,
}

impl Guard {
    pub(super) fn new(name: &str) -> Result<Self, LogError> {
        let (jobs, todo) = mpsc::channel::<Job>();
        std::thread::Builder::new()
            .name(name.to_string())
            .spawn(move || {
                for job in todo {
                    job();
                }
            })
            .map_err(|error| LogError::Config {
                detail: format!("no thread can be started: {error}"),
            })?;
        Ok(Self { jobs: Some(jobs) })
    }

    /// The call's answer.
    ///
    /// # Errors
    /// [`LogError::UnknownOutcome`] when it did not come in time, now or in an earlier call.
    pub(super) fn call<T: Send + 'static>(
        &mut self,
        action: &'static str,
        deadline: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, LogError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let job: Job = Box::new(move || {
            // Nobody listens any more when the deadline is over.
            answer.send(call()).ok();
        });
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(job).is_ok());
        let answer = if sent {
            answered.recv_timeout(deadline)
        } else {
            Err(RecvTimeoutError::Disconnected)
        };
        answer.map_err(|_| {
            if self.jobs.take().is_some() {
                tracing::error!(
                    action,
                    ?deadline,
                    "a call to the Kafka client hangs; its client is given up"
                );
            }
            LogError::UnknownOutcome { action }
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_call_that_hangs_is_given_up_and_so_is_each_later_one() {
        let mut guard = Guard::new("test").unwrap();
        assert_eq!(
            guard.call("add", Duration::from_secs(5), || 1 + 1).unwrap(),
            2
        );
        let (release, wait) = mpsc::channel::<()>();
        let error = guard
            .call("commit", Duration::from_millis(20), move || {
                wait.recv().ok()
            })
            .expect_err("it hangs");
        assert!(
            matches!(error, LogError::UnknownOutcome { action: "commit" }),
            "{error}"
        );
        drop(release);
        let error = guard
            .call("abort", Duration::from_secs(5), || ())
            .expect_err("the guard is given up");
        assert!(
            matches!(error, LogError::UnknownOutcome { action: "abort" }),
            "{error}"
        );
    }
}
