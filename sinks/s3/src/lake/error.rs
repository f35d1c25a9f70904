//! A lake that can't be used, and what to do.

use object_store::path::Path;

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
    /// The folder can't be made.
    #[error("the lake's folder {folder} can't be used: check that it may be written")]
    Folder {
        /// The folder.
        folder: String,
        /// The system's reason.
        #[source]
        source: std::io::Error,
    },
    /// The bucket is not there.
    #[error("the lake has no place for {path}: create the bucket, or correct the address")]
    NoBucket {
        /// What was to be written.
        path: Path,
        /// What the store says.
        #[source]
        source: object_store::Error,
    },
    /// The store refuses.
    #[error(
        "the lake refuses to {action} {path}: the credentials need s3:PutObject and s3:ListBucket there"
    )]
    Refused {
        /// What was being done.
        action: &'static str,
        /// To which object.
        path: Path,
        /// What the store says.
        #[source]
        source: object_store::Error,
    },
    /// The store can't do what is needed.
    #[error("the lake can't {action} {path}")]
    Unable {
        /// What was being done.
        action: &'static str,
        /// To which object.
        path: Path,
        /// What the store says.
        #[source]
        source: object_store::Error,
    },
    /// The store can't be reached, or fails; it may come back.
    #[error("the lake did not {action} {path}")]
    Unavailable {
        /// What was being done.
        action: &'static str,
        /// To which object.
        path: Path,
        /// What the store says.
        #[source]
        source: object_store::Error,
    },
}

impl LakeError {
    /// Whether the same call may succeed later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Address { .. }
            | Self::Folder { .. }
            | Self::NoBucket { .. }
            | Self::Refused { .. }
            | Self::Unable { .. } => false,
        }
    }

    pub(super) fn of(action: &'static str, path: &Path, source: object_store::Error) -> Self {
        use object_store::Error;
        let path = path.clone();
        match source {
            Error::NotFound { .. } => Self::NoBucket { path, source },
            Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Self::Refused {
                action,
                path,
                source,
            },
            Error::InvalidPath { .. }
            | Error::NotSupported { .. }
            | Error::NotImplemented { .. }
            | Error::UnknownConfigurationKey { .. } => Self::Unable {
                action,
                path,
                source,
            },
            // `object_store::Error` is open: what is not known may pass
            _ => Self::Unavailable {
                action,
                path,
                source,
            },
        }
    }
}
