//! Documents in OpenSearch, through its `_bulk` API.
//!
//! ```text
//!   prepare: is the topic's index template there, as its schema asks?        (`sink-opensearch setup` puts it there)
//!   write:   an index seen for the first time ─▶ made from the template, or its mapping looked at ─▶ _bulk ─▶ outcomes
//! ```
//!
//! No document goes to an index whose mapping OpenSearch would guess. Each document is an `index` operation with an
//! external version: OpenSearch stores it only if the version is higher than that of what it has, deleted documents of
//! the last minute included. A bulk's response has a status per document:
//!
//! | status of an item | outcome |
//! |---|---|
//! | 200, 201 | stored |
//! | 409 version conflict | this version or a higher one is there: success |
//! | 429, or a block for want of disk | sent again, in smaller bulks |
//! | 404, the index is gone | sent again, after the index is made anew |
//! | 5xx, other 409 | sent again |
//! | 401, 403, other 404, a closed index | someone must act |
//! | 400 and other 4xx | rejected, with OpenSearch's reason |

mod answer;
mod client;
mod compare;
mod indices;
mod setup;

use std::sync::{Mutex, PoisonError};

use opensearch::http::Method;

use answer::{About, BulkResponse, Count, Ignored, Item};
use client::Client;
pub use client::{BulkOptions, Credentials};
use indices::Indices;
pub use setup::{Change, Setup};

use super::{Outcome, Target, TargetError};
use crate::document::{Document, put_json};
use crate::mapping::Template;
use crate::settings::TopicSettings;

/// OpenSearch, or what answers like it. It blocks the calling thread, which must not belong to an async runtime.
pub struct BulkTarget {
    client: Client,
    indices: Mutex<Indices>,
}

impl BulkTarget {
    /// Prepares a client. Nothing is sent yet.
    ///
    /// # Errors
    /// When the address or a certificate can't be read.
    pub fn new(options: BulkOptions) -> Result<Self, TargetError> {
        Ok(Self {
            client: Client::new(options)?,
            indices: Mutex::default(),
        })
    }

    /// Sends a bulk. Whether each document is among those sent says `chosen`.
    fn send(&self, documents: &[&Document], chosen: &[bool]) -> Result<Vec<Item>, TargetError> {
        let sent: Vec<&Document> = documents
            .iter()
            .zip(chosen)
            .filter_map(|(document, chosen)| chosen.then_some(*document))
            .collect();
        if sent.is_empty() {
            return Ok(Vec::new());
        }
        let response: BulkResponse =
            self.client
                .call(Method::Post, "/_bulk", Some(request(&sent)))?;
        if response.items.len() != sent.len() {
            let detail = format!(
                "it answered for {} of {} documents",
                response.items.len(),
                sent.len()
            );
            return Err(TargetError::Unreachable {
                target: self.client.name.clone(),
                detail,
            });
        }
        Ok(response.items)
    }

    fn outcome(&self, item: Item, index: &str) -> Result<Outcome, TargetError> {
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
            404 if cause.kind == "index_not_found_exception" => {
                self.indices().forget(index);
                Outcome::Retry {
                    reason,
                    overloaded: false,
                }
            }
            409 | 408 | 500.. => Outcome::Retry {
                reason,
                overloaded: false,
            },
            401 | 403 => {
                return Err(TargetError::NotAllowed {
                    target: self.client.name.clone(),
                    status,
                    detail: cause.to_string(),
                });
            }
            400 if cause.kind == "index_closed_exception" => {
                return Err(self.client.unusable(format!(
                    "{reason}; open the index again (POST /{index}/_open), or delete it"
                )));
            }
            404 => return Err(self.client.unusable(reason)),
            _ => Outcome::Rejected { reason },
        })
    }

    fn indices(&self) -> std::sync::MutexGuard<'_, Indices> {
        // what a panic can leave is whole: entries are put in one by one
        self.indices.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Target for BulkTarget {
    fn reach(&self) -> Result<(), TargetError> {
        match self.client.call::<About>(Method::Get, "/", None) {
            Ok(about) => {
                let version = about.version.number;
                tracing::info!(address = self.client.name, version, "OpenSearch answers");
                Ok(())
            }
            // a role that may write need not be one that may look at the cluster
            Err(TargetError::NotAllowed { status: 403, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn prepare(&self, settings: &TopicSettings, schema: &str) -> Result<(), TargetError> {
        let template = template(settings, schema)?;
        self.require(&template)?;
        self.indices().expect(template);
        Ok(())
    }

    fn write(&self, documents: &[&Document]) -> Result<Vec<Outcome>, TargetError> {
        let ready = self.make_ready(documents)?;
        let mut items = self.send(documents, &ready)?.into_iter();
        documents
            .iter()
            .zip(ready)
            .map(
                |(document, ready)| match ready.then(|| items.next()).flatten() {
                    Some(item) => self.outcome(item, &document.index),
                    None => Ok(Outcome::Retry {
                        reason: format!("the index {} is not made yet", document.index),
                        overloaded: false,
                    }),
                },
            )
            .collect()
    }

    fn count(&self, pattern: &str, only: Option<&str>) -> Result<u64, TargetError> {
        let path = |what: &str| format!("/{pattern}/{what}?ignore_unavailable=true");
        let _: Ignored = self.client.call(Method::Post, &path("_refresh"), None)?;
        let only = only.map(|field| {
            let query = serde_json::json!({"query": {"term": {field: true}}});
            query.to_string().into_bytes()
        });
        let count: Count = self.client.call(Method::Post, &path("_count"), only)?;
        if count.shards.failed > 0 {
            let detail = format!("{} shards did not answer to a count", count.shards.failed);
            return Err(TargetError::Unreachable {
                target: self.client.name.clone(),
                detail,
            });
        }
        Ok(count.count)
    }

    fn name(&self) -> &str {
        &self.client.name
    }
}

/// The template for a topic.
fn template(settings: &TopicSettings, schema: &str) -> Result<Template, TargetError> {
    Template::new(settings, schema).map_err(|source| TargetError::Mapping {
        topic: settings.topic.clone(),
        source: Box::new(source),
    })
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

#[cfg(test)]
mod tests;
