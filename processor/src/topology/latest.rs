//! What the log said last of an application. It is asked on a thread of its own: a broker that is away must not hold up
//! the page that says so.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runtime::clock::Clock;
use runtime::log::Log;

use super::Seen;
use crate::job::Job;
use crate::status;
use crate::worker::chain;

/// For how long what was said is good enough.
const FRESH: Duration = Duration::from_secs(1);
/// How long the log is waited for.
const WAIT: Duration = Duration::from_secs(3);

/// What the log said last, for all who look.
pub struct Latest {
    inner: Mutex<Inner>,
    answered: Condvar,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Inner {
    seen: Seen,
    asked: Option<Instant>,
    asking: bool,
}

impl Latest {
    /// Nothing yet; `clock` says when something was said.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            inner: Mutex::default(),
            answered: Condvar::new(),
            clock,
        }
    }

    /// How far a job is: asks the log, unless it was asked a moment ago, and waits a little for it.
    pub fn look(self: &Arc<Self>, job: &Arc<Job>, log: &Arc<dyn Log>) -> Seen {
        let mut inner = self.lock();
        let stale = inner.asked.is_none_or(|asked| asked.elapsed() >= FRESH);
        if stale && !inner.asking {
            inner.asking = true;
            inner.asked = Some(Instant::now());
            let (latest, job, log) = (Arc::clone(self), Arc::clone(job), Arc::clone(log));
            let asking = std::thread::Builder::new()
                .name("topology".into())
                .spawn(move || latest.ask(&job, log.as_ref()));
            if let Err(error) = asking {
                inner.asking = false;
                inner.seen.error = Some(error.to_string());
            }
        }
        let waited = self
            .answered
            .wait_timeout_while(inner, WAIT, |inner| inner.asking);
        let (inner, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        let mut seen = inner.seen.clone();
        if waited.timed_out() {
            seen.error = Some("the log has not answered yet".into());
        }
        seen
    }

    fn ask(&self, job: &Job, log: &dyn Log) {
        let queries = job.queries.iter();
        let stateful = queries.filter(|query| query.folded.is_some());
        let read = status::read(
            log,
            &job.options.application_id,
            job.sources.keys().map(String::as_str),
            stateful.map(|query| query.plan.name.as_str()),
        );
        let mut inner = self.lock();
        inner.asking = false;
        match read {
            Ok(status) => {
                inner.seen = Seen {
                    status,
                    at_ms: Some(self.clock.now_ms()),
                    error: None,
                };
            }
            Err(error) => inner.seen.error = Some(chain(&error)),
        }
        self.answered.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
