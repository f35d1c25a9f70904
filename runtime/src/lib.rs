//! What every binary does at its edges: the log port, configuration, telemetry, shutdown, dead letters. Nothing of a
//! pipeline's meaning.

pub mod cli;
pub mod clock;
pub mod config;
pub mod connect;
pub mod dead_letter;
pub mod lifecycle;
pub mod log;
pub mod metrics;
pub mod shutdown;
pub mod telemetry;
pub mod topics;
