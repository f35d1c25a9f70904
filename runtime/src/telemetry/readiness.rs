//! Whether a process is ready for its work, and if not, why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

/// Named conditions, all of which must hold. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, State>>>);

#[derive(Clone, Debug)]
struct State {
    ready: bool,
    detail: String,
    percent: Option<f64>,
}

impl Readiness {
    /// Without conditions: ready.
    pub fn new() -> Self {
        Self::default()
    }

    /// A condition of this name, which does not hold yet. Name all of them before the HTTP edge starts, so that
    /// "ready" is never said too early. A name that is there already is begun again.
    pub fn condition(&self, name: impl Into<String>) -> Condition {
        let name = name.into();
        let state = State {
            ready: false,
            detail: "not begun".into(),
            percent: None,
        };
        self.lock().insert(name.clone(), state);
        Condition {
            all: self.clone(),
            name,
        }
    }

    /// Whether all conditions hold, and each of them as JSON, by name.
    pub(super) fn report(&self) -> (bool, Value) {
        let states = self.lock();
        let ready = states.values().all(|state| state.ready);
        let conditions: Vec<Value> = states
            .iter()
            .map(|(name, state)| {
                let mut shown = json!({"name": name, "ready": state.ready, "detail": state.detail});
                if let Some(percent) = state.percent {
                    shown["percent"] = json!((percent * 10.0).round() / 10.0);
                }
                shown
            })
            .collect();
        (ready, json!({"ready": ready, "conditions": conditions}))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, State>> {
        // Nothing that can panic runs under the lock; what a poisoned one holds is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One condition, in the hands of the part that knows.
#[derive(Clone, Debug)]
pub struct Condition {
    all: Readiness,
    name: String,
}

impl Condition {
    /// It holds.
    pub fn ready(&self) {
        self.put(State {
            ready: true,
            detail: "ok".into(),
            percent: None,
        });
    }

    /// It does not hold, and why.
    pub fn waiting(&self, why: impl Into<String>) {
        self.put(State {
            ready: false,
            detail: why.into(),
            percent: None,
        });
    }

    /// It does not hold, and how far it has come, from 0 to 100, as with a restore.
    pub fn progress(&self, percent: f64, what: impl Into<String>) {
        self.put(State {
            ready: false,
            detail: what.into(),
            percent: Some(percent.clamp(0.0, 100.0)),
        });
    }

    fn put(&self, state: State) {
        self.all.lock().insert(self.name.clone(), state);
    }
}
