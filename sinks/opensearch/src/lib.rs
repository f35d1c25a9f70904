//! sink-opensearch: topics of Avro records to documents that dashboards read.
//!
//! ```text
//!   topic ──▶ worker ──▶ document: index, id, version, JSON ──▶ target: OpenSearch, or a SQLite file
//!                └──▶ <topic>.dlq: what makes no document, or is rejected
//! ```
//!
//! Every document has an id and a version that derive from its record alone, and a target stores only a higher version.
//! So records may be read twice and in any order: what stands there in the end is each document's last version.

mod document;
mod ledger;
mod mapping;
mod metrics;
mod settings;
mod start;
mod target;
mod worker;

pub use document::{Document, IndexPattern, Layout, MAX_ID_BYTES, PatternError, Refusal};
pub use ledger::{Counted, Ledger, LedgerError, ReadLedgerError, read_ledger};
pub use mapping::{MappingError, Template};
pub use metrics::Metrics;
pub use settings::{DocumentsFile, DocumentsFileError, GeoPoint, SettingsError, TopicSettings};
pub use start::{check_start, schema_of, wait_for};
pub use target::{
    Access, BulkOptions, BulkTarget, Change, Credentials, Outcome, Pacing, PacingOptions, Remedy,
    Setup, SqliteTarget, StoredDocument, Target, TargetError, open_target,
};
pub use worker::{Options, Progress, SinkError, Summary, run};
