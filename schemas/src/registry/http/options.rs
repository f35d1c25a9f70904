//! Where a registry is, and who asks.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use url::Url;

use super::super::cache::Now;

/// How a client says who it is. Debug shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Credentials {
    /// It does not.
    #[default]
    None,
    /// HTTP basic authentication.
    Basic {
        /// The user, or the key's name.
        user: String,
        /// The password, or the key's secret.
        password: String,
    },
    /// A bearer token.
    Bearer(String),
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Basic { user, .. } => write!(f, "Basic {{ user: {user:?}, password: *** }}"),
            Self::Bearer(_) => f.write_str("Bearer(***)"),
        }
    }
}

/// Where a registry is, and how it is talked to.
#[derive(Clone)]
pub struct HttpRegistryOptions {
    pub(super) urls: Vec<String>,
    pub(super) credentials: Credentials,
    pub(super) timeout: Duration,
    pub(super) ca_pem: Option<Vec<u8>>,
    pub(super) now: Now,
}

impl HttpRegistryOptions {
    /// The registry at these base addresses (`http://host:8081`), tried in this order; 10 s per call.
    ///
    /// A user and password in an address are taken as [`Credentials::Basic`] for it.
    pub fn new(urls: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            urls: urls.into_iter().map(Into::into).collect(),
            credentials: Credentials::None,
            timeout: Duration::from_secs(10),
            ca_pem: None,
            now: Arc::new(Instant::now),
        }
    }

    /// Says who the client is.
    #[must_use]
    pub fn with_credentials(mut self, credentials: Credentials) -> Self {
        self.credentials = credentials;
        self
    }

    /// How long a call to one address may take, connecting included.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Authorities to trust beside the system's, in PEM, for https.
    #[must_use]
    pub fn with_ca_pem(mut self, pem: Vec<u8>) -> Self {
        self.ca_pem = Some(pem);
        self
    }

    /// Another source of time for the pauses after failures, for tests.
    #[must_use]
    pub fn with_clock(mut self, now: impl Fn() -> Instant + Send + Sync + 'static) -> Self {
        self.now = Arc::new(now);
        self
    }
}

impl fmt::Debug for HttpRegistryOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<String> = self.urls.iter().map(|url| shown(url)).collect();
        f.debug_struct("HttpRegistryOptions")
            .field("urls", &urls)
            .field("credentials", &self.credentials)
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// An address that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the schema registry's address {address} can't be used: {detail}")]
pub struct AddressError {
    /// The address, without credentials.
    pub address: String,
    /// What is wrong.
    pub detail: String,
}

/// An address without the credentials in it.
pub(super) fn shown(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if parsed.has_host() => {
            let _ = parsed.set_username("");
            let _ = parsed.set_password(None);
            parsed.set_query(None);
            parsed.set_fragment(None);
            parsed.to_string().trim_end_matches('/').to_owned()
        }
        // Whatever stands before an @ may be a password.
        _ => url.rsplit('@').next().unwrap_or_default().to_owned(),
    }
}

/// Taken apart: the base without a slash at its end, and the credentials that stand in it.
pub(super) fn taken_apart(url: &str) -> Result<(String, Option<Credentials>), AddressError> {
    let refuse = |detail: String| AddressError {
        address: shown(url),
        detail,
    };
    let mut parsed = Url::parse(url).map_err(|e| refuse(e.to_string()))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none() {
        return Err(refuse(
            "it must begin with http:// or https:// and name a host".to_owned(),
        ));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Err(refuse(
            "it has a ? or # part, and must end with its path".to_owned(),
        ));
    }
    let inline = match (parsed.username(), parsed.password()) {
        ("", None) => None,
        (user, password) => {
            let plain = |text: &str| {
                percent_decoded(text)
                    .ok_or_else(|| refuse("its user or password is no text".to_owned()))
            };
            Some(Credentials::Basic {
                user: plain(user)?,
                password: plain(password.unwrap_or_default())?,
            })
        }
    };
    // Both succeed for an address with a host.
    let _ = parsed.set_username("");
    let _ = parsed.set_password(None);
    Ok((parsed.as_str().trim_end_matches('/').to_owned(), inline))
}

fn percent_decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| bytes.get(at + 1..at + 3))
            .flatten()
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(out).ok()
}
