//! Any Avro topic to Snappy Parquet in Hive partitions of a folder or an S3 bucket, each row exactly once.
//!
//! ```text
//!   topic ──▶ worker: gather [start, end) ──▶ writer: rows by Hive partition ──▶ upload ──▶ lake/<topic>/year=…/…parquet
//!                       │                                                        ▲
//!                       └──▶ plan, in the committed offset's metadata ───────────┘ whoever finds it does the same again
//!                       └──▶ dead letters: <topic>.dlq and lake/errors/<topic>/…
//! ```
//!
//! - **Nothing is uploaded before its plan is committed**, and names are derived from the plan: a flush that is done twice
//!   writes the same names with the same rows. No listing, no lock, no transaction of the store is needed.
//! - **A bad record never ends a run and is never dropped**: it is a dead letter.
//! - What can't be done without losing rows or writing some twice is refused ([`plan::Refusal`]), with what to do.

mod backoff;
mod config;
mod dead;
mod error;
mod fields;
mod gather;
mod lake;
pub mod layout;
mod ledger;
mod metrics;
mod options;
pub mod plan;
mod progress;
mod upload;
mod worker;
pub mod writer;

pub use backoff::Backoff;
pub use error::SinkError;
pub use lake::{Addressing, Cause, Credentials, Lake, LakeError, Location};
pub use layout::Layout;
pub use ledger::{LedgerError, PartitionLedger, read_ledger};
pub use metrics::Metrics;
pub use options::{FlushOptions, Options, TopicOptions};
pub use progress::{Counts, Progress};
pub use worker::{Summary, run};
