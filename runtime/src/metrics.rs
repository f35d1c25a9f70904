//! The metrics of this package, all of them.

use prometheus::{IntCounterVec, Opts, Registry};

/// What the edges count. Make one per process, and clone it.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Dead letters written, by stage and reason. Those of an aborted transaction count too.
    pub dead_letters: IntCounterVec,
}

impl Metrics {
    /// Registers them.
    ///
    /// # Errors
    /// When they are registered there already.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let help = "Dead letters written, those of aborted transactions included.";
        let dead_letters = IntCounterVec::new(
            Opts::new("headway_dead_letters_total", help),
            &["stage", "reason"],
        )?;
        registry.register(Box::new(dead_letters.clone()))?;
        Ok(Self { dead_letters })
    }
}
