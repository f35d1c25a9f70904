//! The connection to OpenSearch: who we are, what is trusted, and what the status of a whole call means.

use std::time::Duration;

use opensearch::OpenSearch;
use opensearch::auth::Credentials as ClientCredentials;
use opensearch::cert::{Certificate, CertificateValidation};
use opensearch::http::headers::HeaderMap;
use opensearch::http::transport::{SingleNodeConnectionPool, TransportBuilder};
use opensearch::http::{Method, Url};
use runtime::config::SinkOpenSearchConfig;
use serde::de::DeserializeOwned;
use tokio::runtime::Runtime;

use super::answer::{Cause, Failure};
use crate::target::TargetError;

/// Who the client says it is.
#[derive(Clone)]
pub enum Credentials {
    /// A user and a password.
    Basic {
        /// The user.
        user: String,
        /// The password.
        password: String,
    },
    /// A bearer token.
    Bearer(String),
}

/// How OpenSearch is reached.
#[derive(Clone)]
pub struct BulkOptions {
    /// The address, such as `https://search:9200`. A user and password in it are taken as credentials.
    pub address: String,
    /// Who the client says it is; `None`: nobody, or whom the address names.
    pub credentials: Option<Credentials>,
    /// Certificates to trust besides the system's, in PEM.
    pub ca_pem: Option<Vec<u8>>,
    /// How long a request may take, its answer included.
    pub request_timeout: Duration,
}

impl BulkOptions {
    /// An address without credentials, and 30 seconds for a request.
    pub fn new(address: impl Into<String>) -> Self {
        Self {
            address: address.into(),
            credentials: None,
            ca_pem: None,
            request_timeout: Duration::from_secs(30),
        }
    }

    /// As `[sink_opensearch]` says.
    ///
    /// # Errors
    /// When the file with certificates can't be read.
    pub fn from_config(config: &SinkOpenSearchConfig) -> Result<Self, TargetError> {
        let mut options = Self::new(&config.url);
        options.request_timeout = config.request_timeout_ms.duration();
        if !config.username.is_empty() {
            options.credentials = Some(Credentials::Basic {
                user: config.username.clone(),
                password: config.password.expose().to_owned(),
            });
        }
        if !config.ca_file.as_os_str().is_empty() {
            let pem = std::fs::read(&config.ca_file);
            options.ca_pem = Some(pem.map_err(|error| TargetError::Unusable {
                target: format!("sink_opensearch.ca_file {}", config.ca_file.display()),
                detail: error.to_string(),
            })?);
        }
        Ok(options)
    }
}

/// A client that blocks the calling thread.
pub(super) struct Client {
    /// The address, without credentials.
    pub(super) name: String,
    client: OpenSearch,
    runtime: Runtime,
    timeout: Duration,
}

impl Client {
    /// Prepares a client. Nothing is sent yet.
    pub(super) fn new(options: BulkOptions) -> Result<Self, TargetError> {
        let unusable = |target: &str, detail: String| TargetError::Unusable {
            target: target.to_owned(),
            detail,
        };
        let mut url = Url::parse(&options.address).map_err(|error| {
            unusable(
                "the OpenSearch address",
                format!("{error}; write one such as https://search:9200"),
            )
        })?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(unusable(
                "the OpenSearch address",
                "write one such as https://search:9200".to_owned(),
            ));
        }
        let mut credentials = options.credentials;
        if !url.username().is_empty() {
            let named = Credentials::Basic {
                user: decoded(url.username()),
                password: decoded(url.password().unwrap_or_default()),
            };
            credentials = credentials.or(Some(named));
        }
        // http and https addresses with a host can do without a user
        let _ = url.set_username("");
        let _ = url.set_password(None);
        let name = url.to_string().trim_end_matches('/').to_owned();

        let own_machine = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
        let mut builder = TransportBuilder::new(SingleNodeConnectionPool::new(url));
        if own_machine {
            builder = builder.disable_proxy();
        }
        builder = match credentials {
            Some(Credentials::Basic { user, password }) => {
                builder.auth(ClientCredentials::Basic(user, password))
            }
            Some(Credentials::Bearer(token)) => builder.auth(ClientCredentials::Bearer(token)),
            None => builder,
        };
        if let Some(pem) = options.ca_pem {
            let certificate = Certificate::from_pem(&pem).map_err(|error| {
                unusable(&name, format!("the CA certificate can't be read: {error}"))
            })?;
            builder = builder.cert_validation(CertificateValidation::Full(certificate));
        }
        let transport = builder
            .build()
            .map_err(|error| unusable(&name, format!("no client can be made: {error}")))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| unusable(&name, format!("no client can be made: {error}")))?;
        Ok(Self {
            name,
            client: OpenSearch::new(transport),
            runtime,
            timeout: options.request_timeout,
        })
    }

    /// One call; what it answers, if it is a success.
    pub(super) fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<T, TargetError> {
        match self.call_or_missing(method, path, body)? {
            Ok(answer) => Ok(answer),
            Err(said) => Err(self.refused(404, &said, 0, None)),
        }
    }

    /// One call; what it answers, or what the server says with a 404.
    pub(super) fn call_or_missing<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Vec<u8>>,
    ) -> Result<Result<T, Vec<u8>>, TargetError> {
        let bytes = body.as_ref().map_or(0, Vec::len);
        let (status, after, answer) = self
            .runtime
            .block_on(async {
                let timeout = Some(self.timeout);
                let response = self
                    .client
                    .send(method, path, HeaderMap::new(), None::<&()>, body, timeout)
                    .await?;
                let status = response.status_code().as_u16();
                let after = response
                    .headers()
                    .get("retry-after")
                    .and_then(|value| value.to_str().ok()?.parse().ok())
                    .map(Duration::from_secs);
                Ok((status, after, response.bytes().await?))
            })
            .map_err(|error| self.unreachable(&error))?;
        match status {
            200..300 => serde_json::from_slice(&answer).map(Ok).map_err(|error| {
                self.unusable(format!(
                    "its answer to {path} can't be read ({error}); what answers there seems not to be OpenSearch: correct sink_opensearch.url"
                ))
            }),
            404 => Ok(Err(answer.to_vec())),
            _ => Err(self.refused(status, &answer, bytes, after)),
        }
    }

    pub(super) fn unusable(&self, detail: String) -> TargetError {
        TargetError::Unusable {
            target: self.name.clone(),
            detail,
        }
    }

    fn unreachable(&self, error: &opensearch::Error) -> TargetError {
        let detail = if error.is_timeout() {
            format!(
                "no answer within {:?} (sink_opensearch.request_timeout_ms); look after it, or correct sink_opensearch.url",
                self.timeout
            )
        } else {
            let causes = causes(error);
            let says = |words: &[&str]| words.iter().any(|word| causes.contains(word));
            let advice = if says(&["certificate"]) {
                "set sink_opensearch.ca_file to the PEM file of the authority that signed its certificate"
            } else if says(&["InvalidContentType", "corrupt message"]) {
                "it does not speak TLS: begin sink_opensearch.url with http://"
            } else if says(&["dns error", "failed to lookup"]) {
                "the host's name is not known: correct sink_opensearch.url"
            } else if self.name.starts_with("http:")
                && says(&[
                    "reset by peer",
                    "connection closed",
                    "invalid HTTP",
                    "IncompleteMessage",
                ])
            {
                "see that it runs; if it speaks TLS, begin sink_opensearch.url with https://"
            } else if self.name.starts_with("https:") && says(&["handshake eof", "reset by peer"]) {
                "see that it runs; if it does not speak TLS, begin sink_opensearch.url with http://"
            } else {
                "start it, or correct sink_opensearch.url"
            };
            format!("{causes}; {advice}")
        };
        TargetError::Unreachable {
            target: self.name.clone(),
            detail,
        }
    }

    /// What the status of a whole call means.
    pub(super) fn refused(
        &self,
        status: u16,
        body: &[u8],
        bytes: usize,
        after: Option<Duration>,
    ) -> TargetError {
        let target = self.name.clone();
        let failure = serde_json::from_slice::<Failure>(body)
            .ok()
            .and_then(|failure| failure.error);
        let said = match &failure {
            Some(cause) => cause.to_string(),
            None => String::from_utf8_lossy(body)
                .trim()
                .chars()
                .take(300)
                .collect(),
        };
        let detail = match said.as_str() {
            "" => format!("HTTP {status}"),
            said => format!("HTTP {status}: {said}"),
        };
        match status {
            401 | 403 if !failure.as_ref().is_some_and(Cause::is_block) => {
                TargetError::NotAllowed {
                    target,
                    status,
                    detail: said,
                }
            }
            403 | 429 => TargetError::Overloaded {
                target,
                detail,
                after,
            },
            413 => TargetError::TooLarge {
                target,
                bytes,
                detail,
            },
            400 if failure.is_some() => TargetError::Malformed { target, detail },
            408 | 500.. => TargetError::Unreachable {
                target,
                detail: format!("{detail}; look after it, or correct sink_opensearch.url"),
            },
            _ => TargetError::Unusable {
                target,
                detail: format!(
                    "{detail}; what answers there seems not to be OpenSearch: correct sink_opensearch.url"
                ),
            },
        }
    }
}

/// What is behind an error: the client's own text leaves that out, and names the address once more.
fn causes(error: &opensearch::Error) -> String {
    let mut causes: Vec<String> = Vec::new();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let text = cause.to_string();
        if !causes.iter().any(|said| said.contains(&text))
            && !text.starts_with("error sending request for url")
        {
            causes.push(text);
        }
        source = cause.source();
    }
    match causes.is_empty() {
        true => error.to_string(),
        false => causes.join(": "),
    }
}

/// Undoes the percent encoding of a user or password in an address.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let pair = tail
            .get(..2)
            .and_then(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        match pair {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
