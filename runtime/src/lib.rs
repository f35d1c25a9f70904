//! What every binary does at its edges: the log port, configuration, telemetry, shutdown, dead letters. Nothing of a
//! pipeline's meaning.

pub mod clock;
pub mod lifecycle;
pub mod log;
