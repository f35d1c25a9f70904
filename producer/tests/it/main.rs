//! The producer from the outside.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod binary;
mod crashes;
mod mappings;
mod pipeline;
mod real_files;
mod rows;
mod runs;
