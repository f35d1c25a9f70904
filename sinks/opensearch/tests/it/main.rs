//! sink-opensearch against the embedded log: SQLite documents and an OpenSearch that answers from memory, faults at
//! every step.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bulk;
mod crash;
mod outage;
mod server;
mod sqlite;
mod support;
mod topics;
