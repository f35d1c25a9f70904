//! The engine against folds that are written without DataFusion.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod bounds;
mod errors;
mod fold;
mod functions;
mod lookup;
mod partials;
mod properties;
mod speed;
mod support;
mod taxi;
mod time;
mod windows;
