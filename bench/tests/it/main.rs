//! The benchmarks themselves, small: that they still run, and that what they measure comes out right.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod real;
