//! A registry behind Confluent's REST API: Confluent's own, Redpanda's, Karapace, Apicurio's compatible one.
//!
//! ```text
//!   HttpRegistry ──▶ cache ──▶ Remote: what is asked, what answers mean ──▶ Endpoint: one address, HTTP
//! ```

mod endpoint;
mod options;
mod references;
mod remote;

use std::fmt;
use std::sync::Arc;

use super::cache::Cached;
use super::{Admin, Registry, RegistryError, SchemaId, Unreached};
use crate::avro;
use endpoint::Endpoint;
use remote::Remote;

pub use options::{AddressError, Credentials, HttpRegistryOptions};

/// A schema registry over HTTP, with a cache.
pub struct HttpRegistry {
    cached: Cached<Remote>,
}

impl HttpRegistry {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// [`AddressError`] when an address or the credentials can't be used.
    pub fn new(options: HttpRegistryOptions) -> Result<Self, AddressError> {
        if options.urls.is_empty() {
            let detail = "give at least one, such as http://localhost:8081".to_owned();
            return Err(AddressError {
                address: "(none)".to_owned(),
                detail,
            });
        }
        let endpoints = options
            .urls
            .iter()
            .map(|url| Endpoint::new(url, &options))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            cached: Cached::new(Remote { endpoints }, options.now),
        })
    }
}

impl fmt::Debug for HttpRegistry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpRegistry").finish_non_exhaustive()
    }
}

impl Registry for HttpRegistry {
    fn register(&self, subject: &str, schema: &str) -> Result<SchemaId, RegistryError> {
        avro::parse(schema).map_err(|detail| RegistryError::Invalid { detail })?;
        self.cached.register(subject, schema)
    }

    fn by_id(&self, id: SchemaId) -> Result<Arc<str>, RegistryError> {
        self.cached.by_id(id)
    }

    fn latest(&self, subject: &str) -> Result<Option<(SchemaId, Arc<str>)>, RegistryError> {
        self.cached.latest(subject)
    }

    fn reach(&self) -> Result<(), Unreached> {
        self.cached.inner().reach()
    }
}

/// What people ask for is asked anew each time.
impl Admin for HttpRegistry {
    fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        self.cached.inner().subjects()
    }

    fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        self.cached.inner().versions(subject)
    }

    fn compatibility(&self, subject: &str) -> Result<String, RegistryError> {
        self.cached.inner().compatibility(subject)
    }

    fn set_compatibility(&self, subject: &str, level: &str) -> Result<(), RegistryError> {
        self.cached.inner().set_compatibility(subject, level)
    }
}
