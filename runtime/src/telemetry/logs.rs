//! Log lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use super::TelemetryError;
use crate::config::{LogFormat, TelemetryConfig};

/// Sets up log lines for the whole process: text (with colour on a terminal, unless NO_COLOR is set) or JSON.
///
/// # Errors
/// [`TelemetryError::Level`], or [`TelemetryError::Twice`] when the process has been set up before.
pub fn init(config: &TelemetryConfig) -> Result<(), TelemetryError> {
    let filter = filter(&config.log_level)?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let done = match config.log_format {
        LogFormat::Text => lines.with_ansi(colour()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).with_ansi(false).try_init(),
    };
    done.map_err(|_| TelemetryError::Twice)
}

fn filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    let refused = |source| TelemetryError::Level {
        level: level.into(),
        source,
    };
    let mut filter = EnvFilter::builder().parse(level).map_err(refused)?;
    // A user's own directive for one stands.
    for quieted in QUIETED {
        if !level.contains(quieted)
            && let Ok(off) = format!("{quieted}=off").parse()
        {
            filter = filter.add_directive(off);
        }
    }
    Ok(filter)
}

/// What reports at ERROR what nobody needs to act on, or what is said elsewhere: rdkafka, that a consumer which was closed
/// can't be closed again when it is dropped; the verifier of certificates, each one that is not trusted.
const QUIETED: [&str; 2] = [
    "rdkafka::consumer::base_consumer",
    "rustls_platform_verifier",
];

/// Whether standard error takes colour: it is a terminal, and NO_COLOR is not set (<https://no-color.org>).
pub fn colour() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_level_or_directives_are_taken_and_others_are_named() {
        for level in ["info", "WARN", "info,runtime::log=debug"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        let error = filter("info,runtime=loud").map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("info,runtime=loud"), "{error}");
    }
}
