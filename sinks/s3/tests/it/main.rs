//! The sink over the embedded log, against what was produced and a reader of Parquet that is not ours.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod crash;
mod flushes;
mod real;
mod rebalance;
mod refusals;
mod store;
mod world;
