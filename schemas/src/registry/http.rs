//! A registry behind Confluent's REST API: Confluent's own, Redpanda's, Karapace, Apicurio's compatible one.
//!
//! The blocking HTTP client may not be used on a thread of an async runtime, so each call runs on a thread of its own.
//! Calls are rare: the cache in front answers all but the first of each.

use std::collections::BTreeSet;
use std::error::Error as _;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use apache_avro::Schema;
use schema_registry_converter::blocking::schema_registry::{
    SrSettings, get_referenced_schema, get_schema_by_id, perform_sr_call, post_schema,
};
use schema_registry_converter::error::SRCError;
use schema_registry_converter::schema_registry_common::{
    RawError, RegisteredReference, RegisteredSchema, SchemaType, SrCall, SuppliedSchema,
};
use url::Url;

use super::cache::{Cached, Now};
use super::compatibility::{self, Rule};
use super::{Registry, RegistryError, SchemaId};
use crate::avro;

/// How many schemas one may refer to, directly and through others.
const MAX_REFERENCES: usize = 256;

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
    urls: Vec<String>,
    credentials: Credentials,
    timeout: Duration,
    now: Now,
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
            .map(|url| Endpoint::new(url, &options.credentials, options.timeout))
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
}

/// One base address.
struct Endpoint {
    address: String,
    /// `Some` until dropped.
    settings: Option<SrSettings>,
}

impl Endpoint {
    fn new(url: &str, credentials: &Credentials, timeout: Duration) -> Result<Self, AddressError> {
        let address = shown(url);
        let refuse = |detail: String| AddressError {
            address: address.clone(),
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
        let base = parsed.as_str().trim_end_matches('/').to_owned();
        let credentials = inline.as_ref().unwrap_or(credentials);
        let settings = on_own_thread(|| {
            let mut builder = SrSettings::new_builder(base);
            match credentials {
                Credentials::None => {}
                Credentials::Basic { user, password } => {
                    builder.set_basic_authorization(user, Some(password));
                }
                Credentials::Bearer(token) => {
                    builder.set_token_authorization(token);
                }
            }
            builder
                .set_timeout(timeout)
                .build()
                .map_err(|e| e.cause.unwrap_or(e.error))
        })
        .and_then(|built| built)
        .map_err(refuse)?;
        Ok(Self {
            address,
            settings: Some(settings),
        })
    }

    /// Asks this address.
    fn ask<T: Send>(
        &self,
        question: impl Fn(&SrSettings) -> Result<T, SRCError> + Send + Sync,
    ) -> Result<T, Refusal> {
        let settings = self
            .settings
            .as_ref()
            .ok_or_else(|| Refusal::Away("the client is closed".to_owned()))?;
        on_own_thread(|| question(settings).map_err(Refusal::from))
            .map_err(Refusal::Away)
            .and_then(|answer| answer)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let settings = self.settings.take();
        // The client may not be closed on a thread of an async runtime either.
        let _ = on_own_thread(move || drop(settings));
    }
}

/// Runs a call of the HTTP client where no async runtime is.
fn on_own_thread<T: Send>(call: impl FnOnce() -> T + Send) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("schema-registry".to_owned())
            .spawn_scoped(scope, call);
        let thread = thread.map_err(|e| format!("no thread for the call: {e}"))?;
        thread
            .join()
            .map_err(|_| "the HTTP client panicked".to_owned())
    })
}

/// An address without the credentials in it.
fn shown(url: &str) -> String {
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

/// A subject as a part of a path; `/` is left to the client, which escapes it.
fn path_part(subject: &str) -> String {
    subject
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

/// What an address answers instead of what it was asked for.
#[derive(Clone, Debug)]
enum Refusal {
    /// No answer, or none of a schema registry's: another address may do better.
    Away(String),
    /// A registry's own error.
    Said {
        status: u16,
        code: u32,
        message: String,
    },
}

impl From<SRCError> for Refusal {
    fn from(error: SRCError) -> Self {
        let status = error
            .error
            .rsplit_once("with status ")
            .and_then(|(_, status)| status.get(..3)?.parse::<u16>().ok());
        if let Some(status) = status {
            let said = error
                .source()
                .and_then(|source| source.downcast_ref::<RawError>());
            let (code, message) =
                said.map_or((0, ""), |said| (said.error_code, said.message.as_str()));
            return Self::Said {
                status,
                code,
                message: message.to_owned(),
            };
        }
        let mut detail = error.error.clone();
        let mut cause = error.source();
        while let Some(inner) = cause {
            detail = format!("{detail}: {inner}");
            cause = inner.source();
        }
        Self::Away(detail)
    }
}

/// The registry at one of several addresses.
struct Remote {
    endpoints: Vec<Endpoint>,
}

impl Remote {
    /// Asks the addresses in turn until one has an answer of its own; `refused` says what an HTTP error means as one.
    fn ask<T: Send>(
        &self,
        question: impl Fn(&SrSettings) -> Result<T, SRCError> + Send + Sync,
        refused: impl Fn(u16, u32, &str) -> Option<Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let mut away: Option<RegistryError> = None;
        for endpoint in &self.endpoints {
            let address = || endpoint.address.clone();
            let error = match endpoint.ask(&question) {
                Ok(answer) => return Ok(answer),
                Err(Refusal::Away(detail)) => RegistryError::Unavailable {
                    address: address(),
                    detail,
                },
                Err(Refusal::Said {
                    status,
                    code,
                    message,
                }) => {
                    if let Some(answer) = refused(status, code, &message) {
                        return answer;
                    }
                    let detail = format!("it answers HTTP {status} (code {code}): {message}");
                    match status {
                        401 | 403 => {
                            let detail =
                                format!("{detail}; check the credentials and their permissions");
                            return Err(RegistryError::NotAllowed {
                                address: address(),
                                detail,
                            });
                        }
                        404 | 408 | 429 | 500.. => RegistryError::Unavailable {
                            address: address(),
                            detail,
                        },
                        _ => {
                            return Err(RegistryError::NotAllowed {
                                address: address(),
                                detail,
                            });
                        }
                    }
                }
            };
            away = Some(error);
        }
        Err(away.unwrap_or_else(|| RegistryError::Unavailable {
            address: "(none)".to_owned(),
            detail: "there is no address".to_owned(),
        }))
    }
}

impl Registry for Remote {
    fn register(&self, subject: &str, schema: &str) -> Result<SchemaId, RegistryError> {
        let path = path_part(subject);
        let registered = self.ask(
            |settings| {
                let supplied = SuppliedSchema::new(None, SchemaType::Avro, schema.to_owned());
                post_schema(settings, path.clone(), supplied)
            },
            |status, code, message| match (status, code) {
                (409, _) => Some(Err(RegistryError::Incompatible {
                    subject: subject.to_owned(),
                    detail: message.to_owned(),
                })),
                (422, 42201) => Some(Err(RegistryError::Invalid {
                    detail: message.to_owned(),
                })),
                _ => None,
            },
        );
        match registered {
            Ok(registered) => Ok(registered.id),
            Err(RegistryError::Incompatible { subject, detail }) => {
                let detail = self.fault(&subject, schema).unwrap_or(detail);
                Err(RegistryError::Incompatible { subject, detail })
            }
            Err(other) => Err(other),
        }
    }

    fn by_id(&self, id: SchemaId) -> Result<Arc<str>, RegistryError> {
        let found = self.ask(
            |settings| {
                let registered = get_schema_by_id(id, settings)?;
                self_contained(settings, registered)
            },
            |status, code, _| {
                (status == 404 && code == 40403).then_some(Err(RegistryError::Unknown { id }))
            },
        )?;
        found
            .map(Into::into)
            .map_err(|detail| RegistryError::Invalid {
                detail: format!("schema number {id}: {detail}"),
            })
    }

    fn latest(&self, subject: &str) -> Result<Option<(SchemaId, Arc<str>)>, RegistryError> {
        let path = path_part(subject);
        let found = self.ask(
            |settings| perform_sr_call(settings, SrCall::GetLatest(&path)).map(Some),
            |status, code, _| (status == 404 && matches!(code, 40401 | 40402)).then_some(Ok(None)),
        )?;
        match found.map(|raw| raw.id) {
            None => Ok(None),
            Some(Some(id)) => Ok(Some((id, self.by_id(id)?))),
            Some(None) => Err(RegistryError::Invalid {
                detail: format!("the answer for subject {subject} has no number"),
            }),
        }
    }
}

impl Remote {
    /// Which field keeps a schema from replacing the subject's last version, by our own comparison.
    fn fault(&self, subject: &str, schema: &str) -> Option<String> {
        let (_, last) = self.latest(subject).ok()??;
        let (last, next) = (avro::parse(&last).ok()?, avro::parse(schema).ok()?);
        compatibility::check(&last, &next, Rule::Every).err()
    }
}

/// The text of a schema, with those that it refers to written into it; the inner error says why it can't be used.
fn self_contained(
    settings: &SrSettings,
    registered: RegisteredSchema,
) -> Result<Result<String, String>, SRCError> {
    if registered.schema_type != SchemaType::Avro {
        return Ok(Err(format!(
            "it is of type {:?}, not Avro",
            registered.schema_type
        )));
    }
    if registered.references.is_empty() {
        return Ok(Ok(registered.schema));
    }
    let mut texts = vec![registered.schema];
    let mut seen = BTreeSet::new();
    let mut open: Vec<RegisteredReference> = registered.references;
    while let Some(reference) = open.pop() {
        if !seen.insert((reference.subject.clone(), reference.version)) {
            continue;
        }
        if seen.len() > MAX_REFERENCES {
            return Ok(Err(format!(
                "it refers to more than {MAX_REFERENCES} others"
            )));
        }
        let found = get_referenced_schema(settings, &reference)?;
        open.extend(found.references);
        texts.push(found.schema);
    }
    Ok(joined(texts))
}

/// One text of a schema and those that it refers to.
fn joined(texts: Vec<String>) -> Result<String, String> {
    let mut parsed = Schema::parse_list(texts).map_err(|e| e.to_string())?;
    let others = parsed.split_off(1);
    let mut whole = parsed.pop().ok_or_else(|| "it is empty".to_owned())?;
    whole.denormalize(&others).map_err(|e| e.to_string())?;
    serde_json::to_string(&whole).map_err(|e| e.to_string())
}
