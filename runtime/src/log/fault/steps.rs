//! The steps that are counted, and what strikes there.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::{At, Fault};
use crate::log::LogError;

#[derive(Debug)]
pub(super) struct Steps {
    pub(super) crashed: AtomicBool,
    pub(super) state: Mutex<State>,
    pub(super) woken: Condvar,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) plan: Vec<(At, Fault)>,
    pub(super) trace: Vec<&'static str>,
    pub(super) pause: Pause,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Pause {
    #[default]
    NotYet,
    Paused,
    Over,
}

impl Steps {
    pub(super) fn pause(&self) {
        let mut state = self.state();
        if state.pause == Pause::NotYet {
            state.pause = Pause::Paused;
        }
        while state.pause == Pause::Paused {
            state = self
                .woken
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn alive(&self) -> Result<(), LogError> {
        if self.crashed.load(Ordering::SeqCst) {
            Err(LogError::Closed)
        } else {
            Ok(())
        }
    }

    /// Counts a step, and says what strikes there.
    pub(super) fn count(&self, name: &'static str) -> Option<Fault> {
        let mut state = self.state();
        let step = state.trace.len() as u64;
        let nth = state
            .trace
            .iter()
            .filter(|earlier| **earlier == name)
            .count() as u64;
        state.trace.push(name);
        let strikes = |at: &At| match at {
            At::Step(number) => *number == step,
            At::Call(call, number) => *call == name && *number == nth,
        };
        state
            .plan
            .iter()
            .find(|(at, _)| strikes(at))
            .map(|(_, fault)| *fault)
    }

    /// Makes a call, or lets it fail.
    pub(super) fn step<T>(
        &self,
        name: &'static str,
        call: impl FnOnce() -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        self.alive()?;
        match self.count(name) {
            None => call(),
            Some(Fault::CrashBefore) => Err(self.crash()),
            Some(Fault::CrashAfter) => {
                // Whether the call itself failed is lost with the process.
                let _ = call();
                Err(self.crash())
            }
            Some(Fault::UnknownButDone) => {
                call().and(Err(LogError::UnknownOutcome { action: name }))
            }
            Some(Fault::UnknownAndNotDone) => Err(LogError::UnknownOutcome { action: name }),
            Some(Fault::Unreachable) => Err(unreachable(name)),
            Some(Fault::MustAbort) => Err(must_abort()),
            Some(Fault::NotAllowed) => Err(LogError::NotAllowed {
                action: name,
                detail: "a fault was asked for".into(),
            }),
            Some(Fault::TimedOut) => Err(fenced()),
            Some(Fault::Pause) => {
                self.pause();
                call()
            }
            Some(Fault::PauseAfter) => {
                let outcome = call();
                self.pause();
                outcome
            }
        }
    }

    pub(super) fn crash(&self) -> LogError {
        self.crashed.store(true, Ordering::SeqCst);
        LogError::Closed
    }
}

pub(super) fn unreachable(action: &'static str) -> LogError {
    LogError::Unreachable {
        action,
        detail: "a fault was asked for".into(),
    }
}

pub(super) fn fenced() -> LogError {
    LogError::Fenced {
        transactional_id: "that a fault was asked for".into(),
    }
}

pub(super) fn must_abort() -> LogError {
    LogError::MustAbort {
        detail: "a fault was asked for".into(),
    }
}
