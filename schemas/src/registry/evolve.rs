//! A schema's way into a registry, for people: compared with the last version, its subject's rule seen to, registered.

use super::compatibility::{self, Rule};
use super::{Admin, RegistryError, SchemaId};
use crate::avro;

/// The rule that a subject needs: readers of the new version can read what was written with the last one.
pub(crate) const BACKWARD: &str = "BACKWARD";

/// Rules that hold BACKWARD, and more.
const AT_LEAST_BACKWARD: [&str; 4] = [BACKWARD, "BACKWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"];

/// Why one schema can't replace another.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The old text is no Avro schema.
    #[error("the old schema is no Avro schema: {0}")]
    Old(String),
    /// The new text is no Avro schema.
    #[error("the new schema is no Avro schema: {0}")]
    New(String),
    /// Readers of the new schema could not read what was written with the old one.
    #[error("{0}")]
    Incompatible(String),
}

/// Whether readers of `new` can read what was written with `old` (BACKWARD).
///
/// # Errors
/// [`Refused::Incompatible`] names the field at fault, and says why and what to do.
pub fn can_replace(old: &str, new: &str) -> Result<(), Refused> {
    let old = avro::parse(old).map_err(Refused::Old)?;
    let new = avro::parse(new).map_err(Refused::New)?;
    compatibility::check(&old, &new, Rule::Every).map_err(Refused::Incompatible)
}

/// What became of a schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evolved {
    /// Its number.
    pub id: SchemaId,
    /// The number of the subject's last version before, if there was one.
    pub before: Option<SchemaId>,
    /// The rule that was there before, where it was another and has been set to BACKWARD.
    pub rule_before: Option<String>,
}

impl Evolved {
    /// Whether the subject's last version was this one already.
    pub fn known(&self) -> bool {
        self.before == Some(self.id)
    }
}

/// Registers a schema under a subject whose rule is BACKWARD, or stricter, afterwards.
///
/// # Errors
/// [`RegistryError::Incompatible`] names the field at fault; nothing is changed then.
pub fn evolve(registry: &dyn Admin, subject: &str, schema: &str) -> Result<Evolved, RegistryError> {
    let before = registry.latest(subject)?.map(|(id, _)| id);
    // The comparison is part of it, and comes before any change; a subject has a rule only once it has a version, to some
    // registries.
    let id = registry.register(subject, schema)?;
    let rule = registry.compatibility(subject)?;
    let enough = AT_LEAST_BACKWARD.contains(&rule.as_str());
    if !enough {
        registry.set_compatibility(subject, BACKWARD)?;
    }
    Ok(Evolved {
        id,
        before,
        rule_before: (!enough).then_some(rule),
    })
}
