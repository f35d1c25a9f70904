//! sink-opensearch over the embedded log: SQLite documents, an OpenSearch that answers from memory, faults at every step;
//! and, in the module `real`, an OpenSearch server.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bulk;
mod crash;
mod http;
mod outage;
mod real;
mod server;
mod sqlite;
mod support;
mod topics;
