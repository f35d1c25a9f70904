//! What a process tells of itself: log lines, and an HTTP edge with metrics, health and readiness.

mod http;
mod logs;
mod readiness;

use std::net::SocketAddr;

use prometheus::Registry;

use crate::config::TelemetryConfig;

pub use axum::Router;
pub use http::{HttpEdge, PageAnswer, asked_page, json_page};
pub use logs::colour;
pub use logs::init as init_logs;
pub use readiness::{Condition, Readiness};

/// What can go wrong while telemetry starts.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level can't be read.
    #[error(
        "telemetry.log_level {level:?} is neither a level (error, warn, info, debug, trace) nor directives by module"
    )]
    Level {
        /// As it was given.
        level: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The process has a subscriber already.
    #[error("log lines are set up twice in one process")]
    Twice,
    /// The address can't be read.
    #[error("telemetry.http_address {address:?} is not host:port, such as 127.0.0.1:9464")]
    Address {
        /// As it was given.
        address: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The address can't be listened on.
    #[error(
        "can't listen on {address} for /metrics, /health and /ready: give telemetry.http_address another port (0 takes a free one)"
    )]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The thread or its runtime can't be started.
    #[error("the HTTP edge can't be started")]
    Start(#[source] std::io::Error),
}

/// Serves `/metrics`, `/health`, `/ready` and `more` routes where the configuration says; `None` where it says nowhere.
///
/// # Errors
/// As [`HttpEdge::start`] has them.
pub fn serve(
    config: &TelemetryConfig,
    metrics: Registry,
    readiness: Readiness,
    more: Router,
) -> Result<Option<HttpEdge>, TelemetryError> {
    match config.http_address.as_str() {
        "" => Ok(None),
        address => HttpEdge::start(address, metrics, readiness, more).map(Some),
    }
}
