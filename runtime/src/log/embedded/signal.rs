//! Waking those who wait for something to change.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Waiting threads look again after this time at the latest: clocks that tests own move without a signal.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// Takes a lock. A thread that panicked while it held one left nothing half done that later checks do not find.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Counts changes.
#[derive(Debug, Default)]
pub(super) struct Signal {
    changes: Mutex<u64>,
    changed: Condvar,
    waiting: AtomicUsize,
}

impl Signal {
    /// How many changes there were.
    pub fn now(&self) -> u64 {
        *lock(&self.changes)
    }

    /// Says that something changed.
    pub fn raise(&self) {
        *lock(&self.changes) += 1;
        if self.waiting.load(Ordering::SeqCst) > 0 {
            self.changed.notify_all();
        }
    }

    /// Waits until something changed since `seen`, for a short while at most. False when the time is over.
    pub fn wait(&self, seen: u64, until: Option<Instant>) -> bool {
        let left = match until {
            Some(until) => until.saturating_duration_since(Instant::now()),
            None => LOOK_AGAIN,
        };
        if left.is_zero() {
            return false;
        }
        let changes = lock(&self.changes);
        if *changes == seen {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            drop(
                self.changed
                    .wait_timeout_while(changes, left.min(LOOK_AGAIN), |changes| *changes == seen),
            );
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        true
    }
}
