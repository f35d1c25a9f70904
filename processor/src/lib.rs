//! The stateful stream processor: SQL over event-time windows, exactly once, its state in the log.
//!
//! ```text
//!   job text ──job──▶ Job ──▶ workers, each: consumer + transactional producer + tasks
//!     trips-p ──ScanTask──▶ <app>.<query>.partials ──MergeTask──▶ results, <app>.<query>.late
//!                                                        └─ now and then ─▶ <app>.<query>.state
//! ```

pub mod check;
pub mod columns;
pub mod cutover;
pub mod format;
pub mod gaps;
pub mod job;
pub mod ledger;
pub mod metrics;
pub mod offsets;
pub mod pages;
pub mod partial;
pub mod progress;
pub mod query;
pub mod record;
pub mod reset;
mod run;
pub mod snapshot;
pub mod spill;
pub mod status;
pub mod tables;
pub mod takeover;
pub mod task;
pub mod topics;
pub mod topology;
pub mod windows;
mod words;
pub mod worker;

pub use words::instant;

pub use run::{Options, ProcessorError, run};
