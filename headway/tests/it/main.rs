//! The binary as a user runs it, held against a naive fold.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod accounting;
mod analytics;
mod binaries;
mod cutover;
mod gaps;
mod kill;
mod oracle;
mod real;
mod refusals;
mod run;
mod servers;
mod setup;
mod whole_files;
