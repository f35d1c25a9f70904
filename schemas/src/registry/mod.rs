//! The schema registry: numbers for schemas, and schemas for numbers.

use std::sync::Arc;

mod cache;
pub(crate) mod compatibility;
mod embedded;
mod evolve;
mod http;

pub use embedded::EmbeddedRegistry;
pub use evolve::{Evolved, Refused, can_replace, evolve};
pub use http::{AddressError, Credentials, HttpRegistry, HttpRegistryOptions};

/// The subject under which a topic's values are registered (Confluent's TopicNameStrategy).
pub fn value_subject(topic: &str) -> String {
    format!("{topic}-value")
}

/// A schema's number in its registry.
pub type SchemaId = u32;

/// A schema registry with Confluent's rules: a subject holds versions of a schema, each schema has one number.
///
/// Calls may block on the network; answers, refusals included, are cached.
pub trait Registry: Send + Sync {
    /// The number of `schema` under `subject`, registering it as the subject's next version if it is not there.
    ///
    /// # Errors
    /// [`RegistryError::Incompatible`] when readers of the new version could not read the last one (BACKWARD).
    fn register(&self, subject: &str, schema: &str) -> Result<SchemaId, RegistryError>;

    /// The schema of a number.
    ///
    /// # Errors
    /// [`RegistryError::Unknown`] only after the registry itself has said that it has none of this number.
    fn by_id(&self, id: SchemaId) -> Result<Arc<str>, RegistryError>;

    /// The newest version under `subject`: its number and text. `None` when the registry knows no such subject.
    fn latest(&self, subject: &str) -> Result<Option<(SchemaId, Arc<str>)>, RegistryError>;

    /// Whether it answers at all, for a look at the start.
    ///
    /// # Errors
    /// Why it does not, and whether waiting a little may help.
    fn reach(&self) -> Result<(), Unreached> {
        Ok(())
    }
}

/// A registry that does not answer as one.
#[derive(Debug)]
pub struct Unreached {
    /// Why, and what to do.
    pub error: RegistryError,
    /// Whether it may answer a little later; not so where another server answers, or refuses this client.
    pub may_pass: bool,
}

/// What people ask a registry for, beside what records need.
pub trait Admin: Registry {
    /// All subjects, sorted.
    ///
    /// # Errors
    /// The registry's.
    fn subjects(&self) -> Result<Vec<String>, RegistryError>;

    /// The numbers of a subject's versions, oldest first; none when the registry knows no such subject.
    ///
    /// # Errors
    /// The registry's.
    fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError>;

    /// The rule that new versions of a subject must keep, such as `BACKWARD`: its own, or else the registry's.
    ///
    /// # Errors
    /// The registry's.
    fn compatibility(&self, subject: &str) -> Result<String, RegistryError>;

    /// Sets a subject's own rule.
    ///
    /// # Errors
    /// The registry's.
    fn set_compatibility(&self, subject: &str, level: &str) -> Result<(), RegistryError>;
}

/// What a registry can refuse, or fail at. Clones, because failures are cached too.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RegistryError {
    /// It can't be reached, or answers with a server's error; it may come back.
    #[error("the schema registry at {address} can't be used: {detail}")]
    Unavailable {
        /// Its address, without credentials.
        address: String,
        /// What is known, and what to do.
        detail: String,
    },
    /// It has no schema of this number.
    #[error("the schema registry has no schema number {id}")]
    Unknown {
        /// The number asked for.
        id: SchemaId,
    },
    /// The schema can't follow the subject's last version.
    #[error("the schema can't replace the last version of subject {subject}: {detail}")]
    Incompatible {
        /// The subject.
        subject: String,
        /// Which field is at fault, and what to do.
        detail: String,
    },
    /// The text is no Avro schema.
    #[error("not an Avro schema: {detail}")]
    Invalid {
        /// Where and why.
        detail: String,
    },
    /// It refuses this client.
    #[error("the schema registry at {address} refuses the request: {detail}")]
    NotAllowed {
        /// Its address, without credentials.
        address: String,
        /// What it says.
        detail: String,
    },
    /// The embedded registry's file can't be used.
    #[error("the schema registry's file {path} can't be used: {detail}")]
    Storage {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong.
        detail: String,
    },
}
