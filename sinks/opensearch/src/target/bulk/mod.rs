//! Documents in OpenSearch, through its `_bulk` API.
//!
//! Each document is an `index` operation with an external version: OpenSearch stores it only if the version is higher
//! than that of what it has, deleted documents of the last minute included. A bulk's response has a status per document:
//!
//! | status of an item | outcome |
//! |---|---|
//! | 200, 201 | stored |
//! | 409 version conflict | this version or a higher one is there: success |
//! | 429, or a block for want of disk | sent again, in smaller bulks |
//! | 5xx, other 409 | sent again |
//! | 401, 403, 404 | someone must act: no permission, or the index may not be created |
//! | 400 and other 4xx | rejected, with OpenSearch's reason |

mod answer;

use std::time::Duration;

use opensearch::auth::Credentials as ClientCredentials;
use opensearch::cert::{Certificate, CertificateValidation};
use opensearch::http::transport::{SingleNodeConnectionPool, TransportBuilder};
use opensearch::http::{Url, response::Response};
use opensearch::indices::IndicesRefreshParts;
use opensearch::{BulkParts, CountParts, OpenSearch};
use tokio::runtime::Runtime;

use answer::{BulkResponse, Cause, Count, Failure, Item};

use super::{Outcome, Target, TargetError};
use crate::document::{Document, put_json};

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
}

/// OpenSearch, or what answers like it. It blocks the calling thread, which must not belong to an async runtime.
pub struct BulkTarget {
    name: String,
    client: OpenSearch,
    runtime: Runtime,
    timeout: Duration,
}

impl BulkTarget {
    /// Prepares a client. Nothing is sent yet.
    ///
    /// # Errors
    /// When the address or a certificate can't be read.
    pub fn new(options: BulkOptions) -> Result<Self, TargetError> {
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

    fn unreachable(&self, error: &opensearch::Error) -> TargetError {
        let detail = if error.is_timeout() {
            format!("no answer within {:?}", self.timeout)
        } else {
            causes(error)
        };
        TargetError::Unreachable {
            target: self.name.clone(),
            detail,
        }
    }

    async fn read(&self, response: Response, request_bytes: usize) -> Result<Vec<u8>, TargetError> {
        let status = response.status_code().as_u16();
        let after = response
            .headers()
            .get("retry-after")
            .and_then(|value| value.to_str().ok()?.parse().ok());
        let body = response
            .bytes()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if (200..300).contains(&status) {
            return Ok(body.to_vec());
        }
        Err(self.refused(status, &body, request_bytes, after.map(Duration::from_secs)))
    }

    /// What the status of a whole call means.
    fn refused(
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
            None => String::from_utf8_lossy(body).chars().take(300).collect(),
        };
        let detail = format!("HTTP {status}: {said}");
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
            408 | 500.. => TargetError::Unreachable { target, detail },
            _ => TargetError::Unusable {
                target,
                detail: format!("{detail}; check the address: is this OpenSearch?"),
            },
        }
    }

    async fn bulk(&self, body: Vec<u8>) -> Result<BulkResponse, TargetError> {
        let bytes = body.len();
        let sent = self
            .client
            .bulk(BulkParts::None)
            .request_timeout(self.timeout)
            .body(vec![body])
            .send()
            .await;
        let answer = self
            .read(sent.map_err(|error| self.unreachable(&error))?, bytes)
            .await?;
        serde_json::from_slice(&answer).map_err(|error| TargetError::Unusable {
            target: self.name.clone(),
            detail: format!("its answer to a bulk can't be read ({error}); check the address: is this OpenSearch?"),
        })
    }

    fn outcome(&self, item: Item) -> Result<Outcome, TargetError> {
        let status = item.index.status;
        let cause = item.index.error.unwrap_or_default();
        let reason = format!("HTTP {status}: {cause}");
        Ok(match status {
            200..300 => Outcome::Stored,
            409 if cause.kind == "version_conflict_engine_exception" => Outcome::Conflict,
            403 if cause.is_block() => Outcome::Retry {
                reason,
                overloaded: true,
            },
            429 => Outcome::Retry {
                reason,
                overloaded: true,
            },
            409 | 408 | 500.. => Outcome::Retry {
                reason,
                overloaded: false,
            },
            401 | 403 => {
                return Err(TargetError::NotAllowed {
                    target: self.name.clone(),
                    status,
                    detail: cause.to_string(),
                });
            }
            404 => {
                let detail = format!(
                    "{reason}; create the index, or let OpenSearch create it from its template"
                );
                return Err(TargetError::Unusable {
                    target: self.name.clone(),
                    detail,
                });
            }
            _ => Outcome::Rejected { reason },
        })
    }
}

impl Target for BulkTarget {
    fn write(&self, documents: &[&Document]) -> Result<Vec<Outcome>, TargetError> {
        if documents.is_empty() {
            return Ok(Vec::new());
        }
        let response = self.runtime.block_on(self.bulk(request(documents)))?;
        if response.items.len() != documents.len() {
            let detail = format!(
                "it answered for {} of {} documents",
                response.items.len(),
                documents.len()
            );
            return Err(TargetError::Unreachable {
                target: self.name.clone(),
                detail,
            });
        }
        response
            .items
            .into_iter()
            .map(|item| self.outcome(item))
            .collect()
    }

    fn count(&self, pattern: &str) -> Result<u64, TargetError> {
        self.runtime.block_on(async {
            let indices = [pattern];
            let refreshed = self
                .client
                .indices()
                .refresh(IndicesRefreshParts::Index(&indices))
                .ignore_unavailable(true)
                .request_timeout(self.timeout)
                .send()
                .await;
            self.read(refreshed.map_err(|error| self.unreachable(&error))?, 0)
                .await?;
            let counted = self
                .client
                .count(CountParts::Index(&indices))
                .ignore_unavailable(true)
                .request_timeout(self.timeout)
                .send()
                .await;
            let answer = self
                .read(counted.map_err(|error| self.unreachable(&error))?, 0)
                .await?;
            let count: Count =
                serde_json::from_slice(&answer).map_err(|error| TargetError::Unusable {
                    target: self.name.clone(),
                    detail: format!("its answer to a count can't be read: {error}"),
                })?;
            if count.shards.failed > 0 {
                let detail = format!("{} shards did not answer to a count", count.shards.failed);
                return Err(TargetError::Unreachable {
                    target: self.name.clone(),
                    detail,
                });
            }
            Ok(count.count)
        })
    }

    fn name(&self) -> &str {
        &self.name
    }
}

/// The lines of a bulk: for each document its operation, and itself.
fn request(documents: &[&Document]) -> Vec<u8> {
    let mut body = Vec::with_capacity(documents.iter().map(|document| document.bytes() + 32).sum());
    for document in documents {
        body.extend_from_slice(b"{\"index\":{\"_index\":");
        put_json(&mut body, &*document.index);
        body.extend_from_slice(b",\"_id\":");
        put_json(&mut body, document.id.as_str());
        body.extend_from_slice(b",\"version\":");
        put_json(&mut body, &document.version);
        body.extend_from_slice(b",\"version_type\":\"external\"}}\n");
        body.extend_from_slice(&document.source);
        body.push(b'\n');
    }
    body
}

/// An error and what is behind it: the client's own text leaves the causes out.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// Undoes the percent encoding of a user or password in an address.
fn decoded(text: &str) -> String {
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;
    use crate::target::Remedy;

    fn target() -> BulkTarget {
        BulkTarget::new(BulkOptions::new("http://user:p%40ss@127.0.0.1:1/base/")).unwrap()
    }

    #[test]
    fn credentials_in_the_address_are_used_and_never_shown() {
        assert_eq!(target().name(), "http://127.0.0.1:1/base");
        assert_eq!(decoded("p%40ss%zz%"), "p@ss%zz%");
        let bad = BulkTarget::new(BulkOptions::new("search:9200"))
            .err()
            .unwrap();
        assert!(bad.to_string().contains("https://search:9200"), "{bad}");
    }

    #[test]
    fn each_item_status_has_its_outcome() {
        let target = target();
        let outcome = |status: u16, kind: &str| {
            let text = format!(
                r#"{{"index":{{"status":{status},"error":{{"type":"{kind}","reason":"r"}}}}}}"#
            );
            target.outcome(serde_json::from_str(&text).unwrap())
        };
        let retry = |status, kind: &str, overloaded| Outcome::Retry {
            reason: format!("HTTP {status}: {kind}: r"),
            overloaded,
        };
        for (status, kind, expected) in [
            (200, "", Outcome::Stored),
            (201, "", Outcome::Stored),
            (409, "version_conflict_engine_exception", Outcome::Conflict),
            (409, "other", retry(409, "other", false)),
            (
                429,
                "rejected_execution_exception",
                retry(429, "rejected_execution_exception", true),
            ),
            (
                403,
                "cluster_block_exception",
                retry(403, "cluster_block_exception", true),
            ),
            (500, "x", retry(500, "x", false)),
            (
                503,
                "unavailable_shards_exception",
                retry(503, "unavailable_shards_exception", false),
            ),
            (
                400,
                "mapper_parsing_exception",
                Outcome::Rejected {
                    reason: "HTTP 400: mapper_parsing_exception: r".into(),
                },
            ),
            (
                413,
                "x",
                Outcome::Rejected {
                    reason: "HTTP 413: x: r".into(),
                },
            ),
        ] {
            assert_eq!(outcome(status, kind).unwrap(), expected, "{status} {kind}");
        }
        for status in [401, 403, 404] {
            assert_eq!(
                outcome(status, "x").unwrap_err().remedy(),
                Remedy::Stop,
                "{status}"
            );
        }
    }

    #[test]
    fn each_status_of_a_whole_call_has_its_remedy() {
        let target = target();
        let said = br#"{"error":{"type":"t","reason":"r","caused_by":{"type":"u","reason":"s"}},"status":400}"#;
        let block = br#"{"error":{"type":"cluster_block_exception","reason":"disk"},"status":403}"#;
        for (status, body, remedy) in [
            (400, &said[..], Remedy::Split),
            (
                400,
                b"<html>plain HTTP request sent to HTTPS port",
                Remedy::Stop,
            ),
            (401, b"Unauthorized", Remedy::Stop),
            (403, &said[..], Remedy::Stop),
            (403, &block[..], Remedy::Ease),
            (404, b"", Remedy::Stop),
            (405, b"", Remedy::Stop),
            (302, b"", Remedy::Stop),
            (408, b"", Remedy::Wait),
            (413, b"", Remedy::Split),
            (429, b"", Remedy::Ease),
            (500, b"", Remedy::Wait),
            (502, b"", Remedy::Wait),
            (503, b"", Remedy::Wait),
        ] {
            let error = target.refused(status, body, 10, None);
            assert_eq!(error.remedy(), remedy, "{status}: {error}");
        }
        let text = target.refused(400, said, 10, None).to_string();
        assert!(text.contains("HTTP 400: t: r: u: s"), "{text}");
        let text = target
            .refused(500, br#"{"error":"plain text"}"#, 10, None)
            .to_string();
        assert!(text.contains("plain text"), "{text}");
    }

    #[test]
    fn a_server_that_is_not_there_is_waited_for() {
        let document = Document {
            index: "i".into(),
            id: "x".into(),
            version: 1,
            source: b"{}".to_vec(),
        };
        let error = target().write(&[&document]).unwrap_err();
        assert_eq!(error.remedy(), Remedy::Wait);
        assert!(error.to_string().contains("refused"), "{error}");
        assert!(!error.to_string().contains("p@ss"), "{error}");
    }
}
