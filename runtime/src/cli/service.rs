//! How a binary starts: its configuration, its log lines, its HTTP edge, its log and its registry.

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use clap::CommandFactory;
use schemas::Registry;

use super::{Completions, Flags, Usage};
use crate::config::{Config, ConfigArgs};
use crate::connect::{connect_log, connect_registry, wait_for_registry};
use crate::log::{Log, LogError};
use crate::metrics::Metrics;
use crate::telemetry::{self, Condition, HttpEdge, Readiness};

/// The configuration, with log lines set up after it; `None` when there is nothing more to do, as what was asked for, a
/// completion script or the configuration itself, is printed.
///
/// # Errors
/// A configuration that can't be used, or standard output that can't be written.
pub fn configure<Cli: CommandFactory>(
    args: &ConfigArgs,
    flags: Flags,
    completions: Option<&Completions>,
) -> anyhow::Result<Option<Config>> {
    if let Some(completions) = completions {
        completions.print::<Cli>()?;
        return Ok(None);
    }
    let config = Config::load(args, &flags.table())?;
    if args.print_config {
        config
            .print()
            .context("the configuration can't be printed")?;
        return Ok(None);
    }
    telemetry::init_logs(&config.telemetry)?;
    Ok(Some(config))
}

/// A process that works until it is stopped, and tells of itself meanwhile.
pub struct Service {
    /// Where it registers its metrics.
    pub metrics: prometheus::Registry,
    /// Those that all binaries have.
    pub edge_metrics: Metrics,
    readiness: Readiness,
    connected: Condition,
    // It serves as long as it lives.
    _edge: Option<HttpEdge>,
}

impl Service {
    /// Opens the HTTP edge where the configuration says; it is not ready before [`Service::connect`].
    ///
    /// # Errors
    /// An address that can't be used.
    pub fn start(config: &Config) -> anyhow::Result<Self> {
        Self::start_with(config, Router::new())
    }

    /// The same with `more` routes, such as [`telemetry::json_page`] makes.
    ///
    /// # Errors
    /// An address that can't be used.
    pub fn start_with(config: &Config, more: Router) -> anyhow::Result<Self> {
        let metrics = prometheus::Registry::new();
        let edge_metrics = Metrics::new(&metrics)?;
        let readiness = Readiness::new();
        let connected = readiness.condition("log and registry");
        let edge = telemetry::serve(&config.telemetry, metrics.clone(), readiness.clone(), more)?;
        Ok(Self {
            metrics,
            edge_metrics,
            readiness,
            connected,
            _edge: edge,
        })
    }

    /// A further condition for readiness. Name it before [`Service::connect`], so that "ready" is never said too early.
    pub fn condition(&self, name: &str) -> Condition {
        self.readiness.condition(name)
    }

    /// The log and the registry that the configuration names, both of which answer; the process is ready then.
    ///
    /// # Errors
    /// When one of them can't be used.
    pub fn connect(&self, config: &Config) -> anyhow::Result<(Arc<dyn Log>, Arc<dyn Registry>)> {
        let log = connect_log(&config.log).map_err(|error| match error {
            LogError::Config { .. } => anyhow::Error::new(Usage(error.into())),
            error => error.into(),
        })?;
        let registry = connect_registry(&config.registry).map_err(|error| Usage(error.into()))?;
        wait_for_registry(&*registry, config.log.connect_timeout_ms.duration())?;
        self.connected.ready();
        Ok((log, registry))
    }
}
