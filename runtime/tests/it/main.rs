//! Integration tests of the package `runtime`.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod log;
