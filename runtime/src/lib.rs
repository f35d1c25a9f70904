//! What every binary does at its edges: the log port, configuration, telemetry, shutdown, dead letters. Nothing of a
//! pipeline's meaning.

pub mod cli;
pub mod clock;
pub mod config;
pub mod lifecycle;
pub mod log;
pub mod shutdown;
pub mod telemetry;
