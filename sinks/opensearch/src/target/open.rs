//! From configuration to a target.

use std::sync::Arc;

use runtime::config::SinkOpenSearchConfig;

use super::{BulkOptions, BulkTarget, SqliteTarget, Target, TargetError};

/// What a target is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To store documents; a document file that is not there is made.
    Write,
    /// To count them; nothing is changed.
    Read,
}

/// The target that `[sink_opensearch]` names. Nothing is asked of a server yet.
///
/// # Errors
/// An address, a file with authorities, or a document file that can't be used.
pub fn open_target(
    sink: &SinkOpenSearchConfig,
    access: Access,
) -> Result<Arc<dyn Target>, TargetError> {
    Ok(match (sink.url.strip_prefix("sqlite:"), access) {
        (Some(file), Access::Write) => Arc::new(SqliteTarget::open(file)?),
        (Some(file), Access::Read) => Arc::new(SqliteTarget::open_to_read(file)?),
        (None, _) => Arc::new(BulkTarget::from_config(sink)?),
    })
}

impl BulkTarget {
    /// The server that `[sink_opensearch]` names. Nothing is asked of it yet.
    ///
    /// # Errors
    /// An address, or a file with authorities, that can't be used.
    pub fn from_config(sink: &SinkOpenSearchConfig) -> Result<Self, TargetError> {
        Self::new(BulkOptions::from_config(sink)?)
    }
}
