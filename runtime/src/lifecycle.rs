//! How a running part is told to end, and how far along that is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// What a part is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Go on.
    Running,
    /// No more input will be written: go on to the end of what is on the log, finish it, commit, and return.
    Draining,
    /// Finish what is in hand, commit, and return, as soon as possible.
    Stopping,
}

/// A handle that tells parts to end. Clones share it. A phase never goes back.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle(Arc<AtomicU8>);

impl Lifecycle {
    /// A handle that says [`Phase::Running`].
    pub fn new() -> Self {
        Self::default()
    }

    /// What to do now.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::SeqCst) {
            0 => Phase::Running,
            1 => Phase::Draining,
            _ => Phase::Stopping,
        }
    }

    /// Says that no more input will be written.
    pub fn drain(&self) {
        self.0.fetch_max(1, Ordering::SeqCst);
    }

    /// Says to stop as soon as possible.
    pub fn stop(&self) {
        self.0.fetch_max(2, Ordering::SeqCst);
    }

    /// Whether to stop as soon as possible.
    pub fn stopping(&self) -> bool {
        self.phase() == Phase::Stopping
    }
}
