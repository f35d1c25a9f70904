//! What is looked at before a run: that the target answers, and that it is set up for the topics whose schemas are
//! known. An outage at the start is waited for, but not for ever, so that a wrong address is soon seen.

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemas::{Registry, RegistryError, value_subject};

use crate::settings::{TopicSettings, check};
use crate::target::{Remedy, Target, TargetError};
use crate::worker::SinkError;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

/// Looks whether a run can begin, waiting up to `patience` for what can't be reached. A topic that has no schema yet is
/// looked at when its first record comes.
///
/// # Errors
/// What someone must act on; each says what to do.
pub fn check_start(
    topics: &[TopicSettings],
    registry: &dyn Registry,
    target: &dyn Target,
    patience: Duration,
) -> Result<(), SinkError> {
    check(topics)?;
    let until = Instant::now() + patience;
    wait_for(target, patience)?;
    for settings in topics {
        patiently(until, || match schema_of(settings, registry) {
            Ok(schema) => target.prepare(settings, &schema).map_err(SinkError::Target),
            Err(SinkError::NoSchema { topic, subject }) => {
                tracing::info!(
                    topic,
                    subject,
                    "no schema yet: the topic is looked at when its first record comes"
                );
                Ok(())
            }
            Err(error) => Err(error),
        })?;
    }
    Ok(())
}

/// Waits up to `patience` for a target's first answer.
///
/// # Errors
/// The target's last one.
pub fn wait_for(target: &dyn Target, patience: Duration) -> Result<(), SinkError> {
    let until = Instant::now() + patience;
    patiently(until, || target.reach().map_err(SinkError::Target))
}

/// The newest schema of a topic's records.
///
/// # Errors
/// [`SinkError::NoSchema`], or the registry's.
pub fn schema_of(settings: &TopicSettings, registry: &dyn Registry) -> Result<Arc<str>, SinkError> {
    let subject = value_subject(&settings.topic);
    match registry.latest(&subject).map_err(SinkError::Registry)? {
        Some((_, schema)) => Ok(schema),
        None => Err(SinkError::NoSchema {
            topic: settings.topic.clone(),
            subject,
        }),
    }
}

fn patiently(
    until: Instant,
    mut what: impl FnMut() -> Result<(), SinkError>,
) -> Result<(), SinkError> {
    let mut told = false;
    loop {
        match what() {
            Err(error) if passes(&error) && Instant::now() + PAUSE < until => {
                if !told {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    tracing::warn!(cause, "waiting for an answer");
                    told = true;
                }
                std::thread::sleep(PAUSE);
            }
            done => return done,
        }
    }
}

/// Whether it may be otherwise in a moment.
fn passes(error: &SinkError) -> bool {
    match error {
        SinkError::Target(error) => waits(error),
        SinkError::Registry(RegistryError::Unavailable { .. }) => true,
        _ => false,
    }
}

fn waits(error: &TargetError) -> bool {
    matches!(error.remedy(), Remedy::Wait | Remedy::Ease)
}
