//! A lake that can't be used, and what to do.

use std::path::PathBuf;
use std::sync::Arc;

use object_store::path::Path;

use super::Cause;

/// A lake that can't be used.
#[derive(Debug, thiserror::Error)]
pub enum LakeError {
    /// The address makes no sense.
    #[error(
        "{url} is no lake's address: {detail}. Use s3://bucket/prefix, file:///folder or a folder's path"
    )]
    Address {
        /// The address given.
        url: String,
        /// What is wrong.
        detail: String,
    },
    /// Settings of the store that make no sense.
    #[error("the lake can't be reached as configured: {detail}")]
    Settings {
        /// What is wrong, and what to do.
        detail: String,
    },
    /// A file with settings can't be read.
    #[error("{} can't be read: {what}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What it is for.
        what: &'static str,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The folder can't be made.
    #[error("the lake's folder {folder} can't be used: check that it may be written")]
    Folder {
        /// The folder.
        folder: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The store did not do what it was asked to.
    #[error("can't {action} {path} in {lake}: {cause}")]
    Store {
        /// What was being done.
        action: &'static str,
        /// To which object.
        path: Path,
        /// The lake's address.
        lake: Arc<str>,
        /// Why, and what to do.
        cause: Cause,
        /// What the store says.
        #[source]
        source: Box<object_store::Error>,
    },
    /// Under a name of ours lies something else.
    #[error(
        "{path} in {lake} is there already and is not what this sink writes under that name: {detail}. Move it away, and start the sink again"
    )]
    Foreign {
        /// The object.
        path: Path,
        /// The lake's address.
        lake: Arc<str>,
        /// How it differs.
        detail: String,
    },
}

impl LakeError {
    /// Whether the same call may succeed later, as long as it succeeded before.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Store { cause, .. } => cause.may_pass(),
            _ => false,
        }
    }

    /// Whether the same call may succeed a little later, though it never did.
    pub(crate) fn may_pass_at_start(&self) -> bool {
        match self {
            Self::Store { cause, .. } => cause.may_pass_at_start(),
            _ => false,
        }
    }
}
