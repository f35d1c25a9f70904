//! What workers and those who ask for state share: questions, committed state in answer, the last results.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use engine::fold::{ClosedWindow, Fold};
use runtime::log::Log;

use super::recent::{Recent, RecentBounds};
use crate::job::Job;

/// How often it is looked whether workers have answered.
const STEP: Duration = Duration::from_millis(5);

/// A shard of a query: the query's name and the shard's number.
pub type ShardId = (String, i32);

/// The committed state of a shard, at one moment. A copy of the fold shares everything with the worker's.
#[derive(Clone, Debug)]
pub struct ShardView {
    /// The state.
    pub fold: Fold,
    /// Windows that are closed in it and whose results are not all out: each from this piece on.
    pub closing: Vec<(ClosedWindow, usize)>,
    /// How far it is restored, from 0 to 1.
    pub restored: f64,
    /// When this was so, by the clock.
    pub at_ms: i64,
    /// Results that later commits brought are still provisional in this state. [`Views::answer`] sets it.
    pub commit: u64,
}

/// The right to ask, which one has at a time: so is bounded what all questions together cost.
pub struct Turn<'a> {
    views: &'a Views,
    last: MutexGuard<'a, u64>,
}

impl Turn<'_> {
    /// Asks the workers for their committed state, and waits until all of the shards `expected` have answered, or `until`.
    pub fn ask(
        &mut self,
        expected: &dyn Fn() -> Vec<ShardId>,
        until: Instant,
    ) -> BTreeMap<ShardId, ShardView> {
        *self.last += 1;
        self.views.asked.store(*self.last, Ordering::SeqCst);
        loop {
            let expected = expected();
            let mut inner = self.views.lock();
            let all = expected.iter().all(|id| inner.answers.contains_key(id));
            if all || Instant::now() >= until {
                self.views.asked.store(0, Ordering::SeqCst);
                return std::mem::take(&mut inner.answers);
            }
            drop(inner);
            std::thread::sleep(STEP);
        }
    }
}

/// The meeting place of workers and those who ask.
#[derive(Default)]
pub struct Views {
    /// The question that is open; 0: none is.
    asked: AtomicU64,
    /// The last question; held by the one who asks.
    asking: Mutex<u64>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    running: Option<(Arc<Job>, Arc<dyn Log>)>,
    answers: BTreeMap<ShardId, ShardView>,
    /// How many commits have brought results.
    commits: u64,
    recent: BTreeMap<String, Recent>,
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Views").finish_non_exhaustive()
    }
}

impl Views {
    /// Notes which job runs here, and over which log.
    pub fn run(&self, job: &Arc<Job>, log: &Arc<dyn Log>) {
        self.lock().running = Some((Arc::clone(job), Arc::clone(log)));
    }

    /// The job that runs here, and its log, once it is loaded.
    pub fn running(&self) -> Option<(Arc<Job>, Arc<dyn Log>)> {
        self.lock().running.clone()
    }

    /// The question that is open; 0: none is. A worker answers each once, with [`Views::answer`].
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    /// Takes a shard's committed state in, unless nobody waits for it any more.
    pub fn answer(&self, asked: u64, query: &str, shard: i32, mut view: ShardView) {
        let mut inner = self.lock();
        if self.asked() == asked {
            view.commit = inner.commits;
            inner.answers.insert((query.into(), shard), view);
        }
    }

    /// Waits until nobody else asks; `None` if somebody still does at `until`.
    pub fn turn(&self, until: Instant) -> Option<Turn<'_>> {
        loop {
            let last = match self.asking.try_lock() {
                Ok(last) => last,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) if Instant::now() < until => {
                    std::thread::sleep(STEP);
                    continue;
                }
                Err(TryLockError::WouldBlock) => return None,
            };
            return Some(Turn { views: self, last });
        }
    }

    /// Takes in final results that are committed now, and leaves `later` empty.
    pub fn results(&self, query: &str, later: &mut Recent, bounds: RecentBounds) {
        let mut inner = self.lock();
        inner.commits += 1;
        let commit = inner.commits;
        inner
            .recent
            .entry(query.into())
            .or_default()
            .append(later, commit, bounds);
    }

    /// The last final results of a query.
    pub fn recent(&self, query: &str) -> Recent {
        self.lock().recent.get(query).cloned().unwrap_or_default()
    }

    /// Forgets the results of a shard that is no longer here.
    pub fn gone(&self, query: &str, shard: i32) {
        if let Some(recent) = self.lock().recent.get_mut(query) {
            recent.forget(shard);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // The maps are whole after every statement, so that a panic elsewhere leaves them usable.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
