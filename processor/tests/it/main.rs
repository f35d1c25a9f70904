//! The processor over the embedded log, held against a naive fold.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod apart;
mod check;
mod closes;
mod commands;
mod crash;
mod cutover;
mod fixture;
mod foreign;
mod fuzz;
mod golden;
mod lookup;
mod nexmark;
mod offsets;
mod query;
mod record_time;
mod refusals;
mod snapshots;
mod time;
mod topology;
mod upgrade;
mod windows;
mod workers;
