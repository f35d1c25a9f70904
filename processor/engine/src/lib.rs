//! The pure heart of the processor: batches in, batches out. No I/O, no clock, no randomness.
//!
//! ```text
//!   job text ──sql──▶ Script ──plan──▶ Query { scan, merge, finish }
//!   source batches ──scan──▶ partial rows ──shard──▶ (the log) ──fold, merge──▶ windows ──finish──▶ output rows
//! ```

pub mod fold;
mod functions;
pub mod history;
pub mod partial;
pub mod plan;
pub mod reference;
pub mod shard;
pub mod spill;
pub mod sql;
pub mod watermark;
pub mod window;
