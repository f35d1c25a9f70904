//! What a registry has said, remembered: schemas for ever, failures for a while.
//!
//! A number never changes its schema, so hits stay. A failure is answered from memory until its time is up, which keeps a
//! dead registry, or a topic full of records with a number that nobody knows, from being asked at the rate of the records.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use super::{Registry, RegistryError, SchemaId};

/// How long the registry is left alone after a first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a refusal that the registry has decided on is remembered.
const REFUSAL: Duration = Duration::from_secs(30);
/// How many failures are remembered at a time.
const MAX_FAILURES: usize = 10_000;

/// Where the time comes from; tests have their own.
pub(crate) type Now = Arc<dyn Fn() -> Instant + Send + Sync>;

/// A registry with a memory.
pub(crate) struct Cached<R> {
    inner: R,
    now: Now,
    by_id: RwLock<HashMap<SchemaId, Arc<str>>>,
    registered: RwLock<HashMap<(String, String), SchemaId>>,
    failures: Mutex<HashMap<Key, Failure>>,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Id(SchemaId),
    Register(String, String),
    Latest(String),
}

struct Failure {
    error: RegistryError,
    until: Instant,
    pause: Duration,
}

impl<R: Registry> Cached<R> {
    pub(crate) fn new(inner: R, now: Now) -> Self {
        Self {
            inner,
            now,
            by_id: RwLock::default(),
            registered: RwLock::default(),
            failures: Mutex::default(),
        }
    }

    /// The registry itself, for questions whose answers are not remembered.
    pub(crate) fn inner(&self) -> &R {
        &self.inner
    }

    /// Asks, unless the same question failed too short a time ago.
    fn ask<T>(
        &self,
        key: Key,
        question: impl FnOnce(&R) -> Result<T, RegistryError>,
    ) -> Result<T, RegistryError> {
        if let Some(failure) = self.failures().get(&key)
            && (self.now)() < failure.until
        {
            return Err(failure.error.clone());
        }
        let answer = question(&self.inner);
        let mut failures = self.failures();
        match &answer {
            Ok(_) => {
                failures.remove(&key);
            }
            Err(error) => {
                let now = (self.now)();
                let before = failures.get(&key).map(|failure| failure.pause);
                let pause = match error {
                    RegistryError::Unavailable { .. }
                    | RegistryError::NotAllowed { .. }
                    | RegistryError::Storage { .. } => {
                        before.map_or(FIRST_PAUSE, |pause| (pause * 2).min(LONGEST_PAUSE))
                    }
                    RegistryError::Unknown { .. }
                    | RegistryError::Incompatible { .. }
                    | RegistryError::Invalid { .. } => REFUSAL,
                };
                if failures.len() >= MAX_FAILURES {
                    failures.retain(|_, failure| failure.until > now);
                    if failures.len() >= MAX_FAILURES {
                        failures.clear();
                    }
                }
                failures.insert(
                    key,
                    Failure {
                        error: error.clone(),
                        until: now + pause,
                        pause,
                    },
                );
            }
        }
        answer
    }

    fn failures(&self) -> MutexGuard<'_, HashMap<Key, Failure>> {
        // Every change is one insertion or removal, so a panic elsewhere leaves a good map.
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R: Registry> Registry for Cached<R> {
    fn register(&self, subject: &str, schema: &str) -> Result<SchemaId, RegistryError> {
        let key = (subject.to_owned(), schema.to_owned());
        if let Some(id) = self
            .registered
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Ok(*id);
        }
        let id = self.ask(Key::Register(key.0.clone(), key.1.clone()), |r| {
            r.register(subject, schema)
        })?;
        self.registered
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, id);
        Ok(id)
    }

    fn by_id(&self, id: SchemaId) -> Result<Arc<str>, RegistryError> {
        if let Some(schema) = self
            .by_id
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
        {
            return Ok(Arc::clone(schema));
        }
        let schema = self.ask(Key::Id(id), |r| r.by_id(id))?;
        self.by_id
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, Arc::clone(&schema));
        Ok(schema)
    }

    /// The newest version may change, so an answer is not kept.
    fn latest(&self, subject: &str) -> Result<Option<(SchemaId, Arc<str>)>, RegistryError> {
        self.ask(Key::Latest(subject.to_owned()), |r| r.latest(subject))
    }
}
