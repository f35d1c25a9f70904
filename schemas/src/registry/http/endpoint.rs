//! One base address of a registry: requests out, JSON or a refusal back.
//!
//! The blocking HTTP client may not be used on a thread of an async runtime, so each call runs on a thread of its own.
//! Calls are rare: the cache in front answers all but the first of each.

use std::error::Error as _;

use reqwest::blocking::Client;
use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Certificate, Method};
use serde_json::Value;

use super::options::{AddressError, Credentials, HttpRegistryOptions, shown, taken_apart};

/// The media type of Confluent's API.
const MEDIA_TYPE: &str = "application/vnd.schemaregistry.v1+json";

/// One base address.
pub(super) struct Endpoint {
    /// Without credentials, to be shown.
    pub address: String,
    base: String,
    credentials: Credentials,
    /// `Some` until dropped.
    client: Option<Client>,
}

/// What an address answers instead of what it was asked for.
#[derive(Clone, Debug)]
pub(super) enum Refusal {
    /// No answer: another address may do better.
    Away(String),
    /// An answer that is none of a schema registry's.
    Foreign(String),
    /// A registry's own error.
    Said(Said),
}

/// An HTTP error, with Confluent's code where there is one (0 where not).
#[derive(Clone, Debug)]
pub(super) struct Said {
    pub status: u16,
    pub code: u32,
    pub message: String,
}

impl Endpoint {
    pub fn new(url: &str, options: &HttpRegistryOptions) -> Result<Self, AddressError> {
        let refuse = |detail| AddressError {
            address: shown(url),
            detail,
        };
        let (base, inline) = taken_apart(url)?;
        let mut builder = Client::builder().timeout(options.timeout);
        if let Some(pem) = &options.ca_pem {
            let certificates = Certificate::from_pem_bundle(pem)
                .map_err(in_words)
                .and_then(|found| match found.is_empty() {
                    true => Err("it holds none".to_owned()),
                    false => Ok(found),
                })
                .map_err(|why| {
                    refuse(format!(
                        "registry.ca_file must hold certificates in PEM: {why}"
                    ))
                })?;
            builder = builder.tls_certs_merge(certificates);
        }
        let client = on_own_thread(|| builder.build())
            .and_then(|built| built.map_err(in_words))
            .map_err(refuse)?;
        Ok(Self {
            address: shown(url),
            base,
            credentials: inline.unwrap_or_else(|| options.credentials.clone()),
            client: Some(client),
        })
    }

    pub fn get(&self, path: &str) -> Result<Value, Refusal> {
        self.call(Method::GET, path, None)
    }

    pub fn post(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        self.call(Method::POST, path, Some(body))
    }

    pub fn put(&self, path: &str, body: Value) -> Result<Value, Refusal> {
        self.call(Method::PUT, path, Some(body))
    }

    fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value, Refusal> {
        let client = self
            .client
            .as_ref()
            .ok_or_else(|| Refusal::Away("the client is closed".to_owned()))?;
        let mut request = client
            .request(method, format!("{}/{path}", self.base))
            .header(ACCEPT, format!("{MEDIA_TYPE}, application/json"));
        request = match &self.credentials {
            Credentials::None => request,
            Credentials::Basic { user, password } => request.basic_auth(user, Some(password)),
            Credentials::Bearer(token) => request.bearer_auth(token),
        };
        if let Some(body) = body {
            request = request
                .header(CONTENT_TYPE, MEDIA_TYPE)
                .body(body.to_string());
        }
        let (status, text) = on_own_thread(move || {
            let response = request.send()?;
            let status = response.status();
            Ok((status, response.text()?))
        })
        .map_err(Refusal::Away)?
        .map_err(|error| unanswered(error, &self.base))?;
        let json = serde_json::from_str::<Value>(&text);
        if status.is_success() {
            return json.map_err(|_| {
                Refusal::Foreign(format!(
                    "what answers there is no schema registry; correct registry.url, {PATH}"
                ))
            });
        }
        let said = json.unwrap_or_default();
        if status.as_u16() == 404 && !said["error_code"].is_u64() {
            return Err(Refusal::Foreign(format!(
                "there is no schema registry under that path (HTTP 404); correct registry.url, {PATH}"
            )));
        }
        Err(Refusal::Said(Said {
            status: status.as_u16(),
            code: said["error_code"]
                .as_u64()
                .and_then(|code| u32::try_from(code).ok())
                .unwrap_or_default(),
            message: said["message"].as_str().unwrap_or_default().to_owned(),
        }))
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let client = self.client.take();
        // The client may not be closed on a thread of an async runtime either.
        let _ = on_own_thread(move || drop(client));
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

/// What an address must have.
const PATH: &str =
    "with the path of its Confluent API where that is not the root (at Apicurio /apis/ccompat/v7)";

/// Why a call had no answer, and what to do.
fn unanswered(error: reqwest::Error, base: &str) -> Refusal {
    let timeout = error.is_timeout();
    let text = in_words(error);
    let says = |words: &[&str]| words.iter().any(|word| text.contains(word));
    if says(&["certificate"]) {
        return Refusal::Foreign(format!(
            "its certificate is not trusted ({text}); set registry.ca_file to the PEM file of the authority that signed it"
        ));
    }
    if says(&["InvalidContentType", "corrupt message"]) {
        return Refusal::Foreign(format!(
            "it does not speak TLS ({text}); begin registry.url with http://"
        ));
    }
    let advice = if timeout {
        "look after the server, or correct registry.url (registry.timeout_ms says how long a call may take)"
    } else if says(&["dns error", "failed to lookup"]) {
        "the host's name is not known: correct registry.url"
    } else if base.starts_with("http:")
        && says(&["reset by peer", "connection closed", "invalid HTTP"])
    {
        "see that it runs; if it speaks TLS, begin registry.url with https://"
    } else if base.starts_with("https:") && says(&["handshake eof", "reset by peer"]) {
        "see that it runs; if it does not speak TLS, begin registry.url with http://"
    } else {
        "start it, or correct registry.url"
    };
    Refusal::Away(format!("no answer ({text}); {advice}"))
}

/// An error of the client with its causes, without the address, which is said elsewhere.
fn in_words(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// A subject as a part of a path.
pub(super) fn path_part(subject: &str) -> String {
    subject
        .bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}
