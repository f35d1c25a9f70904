//! The work of a worker, one task per partition that it owns.
//!
//! ```text
//!   trips-0 ──▶ ScanTask ──▶ partials-0, partials-1, …      (a range of the source, one record per shard)
//!   partials-1 ──▶ MergeTask ──▶ results, late rows
//! ```
//!
//! Tasks do no I/O: batches go in, records to be sent come out. Each knows its state as of the last commit, and can go
//! back to it.

pub(crate) mod decoder;
pub mod merge;
pub mod scan;
