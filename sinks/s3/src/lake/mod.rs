//! The lake: a folder, or a prefix of an S3 bucket.
//!
//! ```text
//!   <lake>/<topic>/year=…/month=…/…/<topic>-<topic id>+<partition>+<start>-<end>.parquet
//!   <lake>/errors/<topic>/<topic>-<topic id>+<partition>+<start>-<end>.jsonl
//! ```
//!
//! Objects are created, never changed. A name is derived from what the object holds, so that an object that is there
//! already is the same one, and putting it again is harmless where a store can't refuse it.

mod error;
mod folder;
mod s3;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{ObjectStore, PutMode, PutOptions};
use runtime::config::Secret;

pub use self::error::LakeError;
use crate::writer::Origin;

/// The folder of dead letters; no topic may have this name.
pub(crate) const ERRORS: &str = "errors";

/// Where files go.
#[derive(Clone, Debug)]
pub enum Lake {
    /// A folder or a bucket, by its address.
    At(Location),
    /// A store that is open already.
    Store {
        /// The store.
        store: Arc<dyn ObjectStore>,
        /// The prefix of everything in it.
        prefix: Path,
    },
}

/// A lake's address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Location {
    /// `s3://bucket/prefix`, `file:///folder`, or a folder.
    pub url: String,
    /// The address of an S3 server other than AWS.
    pub endpoint: Option<String>,
    /// The bucket's region; the environment's if none is given.
    pub region: Option<String>,
    /// Whether the bucket is part of the host name (AWS's own style) rather than of the path, as most other servers want.
    pub virtual_host_style: bool,
    /// The keys; without them the usual AWS places are asked (`AWS_ACCESS_KEY_ID`, …, web identity, the machine's role).
    pub credentials: Option<Credentials>,
}

/// Keys of an S3 store. Debug shows none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Credentials {
    /// The access key's id.
    pub access_key_id: Secret,
    /// The secret key.
    pub secret_access_key: Secret,
    /// The session token; empty for keys that last.
    pub session_token: Secret,
}

impl Location {
    /// An address without further settings.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ..Self::default()
        }
    }

    /// The store that it lies in, and the folder there: for those who read it.
    ///
    /// # Errors
    /// [`LakeError::Address`] and [`LakeError::Folder`].
    pub fn store(&self) -> Result<(Arc<dyn ObjectStore>, Path), LakeError> {
        if self.url.starts_with("s3://") {
            s3::open(self)
        } else {
            folder::open(self)
        }
    }
}

/// An open lake. Clones share it.
#[derive(Clone, Debug)]
pub struct OpenLake {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// Whether the store takes conditional puts, as far as is known.
    create_only: Arc<AtomicBool>,
}

impl OpenLake {
    /// Opens a lake; a folder is made if it is not there. The store's own retries are kept short, because the caller
    /// tries again for as long as it takes.
    ///
    /// # Errors
    /// [`LakeError::Address`] and [`LakeError::Folder`].
    pub fn open(lake: &Lake) -> Result<Self, LakeError> {
        let (store, prefix) = match lake {
            Lake::Store { store, prefix } => (store.clone(), prefix.clone()),
            Lake::At(location) => location.store()?,
        };
        Ok(Self {
            store,
            prefix,
            create_only: Arc::new(AtomicBool::new(true)),
        })
    }

    /// The name of a flush's Parquet file in a Hive partition.
    pub(crate) fn data_path(&self, folder: &str, origin: &Origin) -> Path {
        let name = format!("{}.parquet", origin.stem());
        let inner = if folder.is_empty() {
            name
        } else {
            format!("{folder}/{name}")
        };
        self.path(&origin.topic, &inner)
    }

    /// The name of the object with a flush's dead letters.
    pub(crate) fn errors_path(&self, origin: &Origin) -> Path {
        self.path(ERRORS, &format!("{}/{}.jsonl", origin.topic, origin.stem()))
    }

    fn path(&self, first: &str, rest: &str) -> Path {
        let raw = format!("{}/{first}/{rest}", self.prefix.as_ref());
        // Folders are escaped, so that only characters remain that a path may have; should one slip through, the store's
        // own escaping keeps the name unique.
        Path::parse(&raw).unwrap_or_else(|_| Path::from(raw))
    }

    /// Which of these partitions the lake has objects of, for a topic id.
    ///
    /// # Errors
    /// [`LakeError`]
    pub(crate) async fn partitions_with_files(
        &self,
        topic: &str,
        topic_id: &str,
        partitions: &[i32],
    ) -> Result<Vec<i32>, LakeError> {
        let mut found = Vec::new();
        for first in [topic.to_owned(), format!("{ERRORS}/{topic}")] {
            let raw = format!("{}/{first}", self.prefix.as_ref());
            let folder = Path::parse(&raw).unwrap_or_else(|_| Path::from(raw));
            let mut objects = self.store.list(Some(&folder));
            let failed = |source| LakeError::of("list", &folder, source);
            while found.len() < partitions.len() {
                let object = match objects.try_next().await {
                    Ok(Some(object)) => object,
                    Ok(None) | Err(object_store::Error::NotFound { .. }) => break,
                    Err(error) => return Err(failed(error)),
                };
                let name = object.location.filename().unwrap_or_default();
                for partition in partitions {
                    let stem = format!("{topic}-{topic_id}+{partition}+");
                    if name.starts_with(&stem) && !found.contains(partition) {
                        found.push(*partition);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Puts an object; one of this name that is there already is the same one.
    ///
    /// # Errors
    /// [`LakeError`]
    pub(crate) async fn put(&self, path: &Path, bytes: Bytes) -> Result<Put, LakeError> {
        if self.create_only.load(Ordering::Relaxed) {
            let options = PutOptions {
                mode: PutMode::Create,
                ..PutOptions::default()
            };
            match self
                .store
                .put_opts(path, bytes.clone().into(), options)
                .await
            {
                Ok(_) => return Ok(Put::Created),
                Err(
                    object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. },
                ) => {
                    return Ok(Put::Present);
                }
                Err(
                    object_store::Error::NotImplemented { .. }
                    | object_store::Error::NotSupported { .. },
                ) => {
                    tracing::info!(
                        "the lake has no conditional put: objects are put without it, under the same names"
                    );
                    self.create_only.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(LakeError::of("write", path, error)),
            }
        }
        let put = self
            .store
            .put_opts(path, bytes.into(), PutOptions::default())
            .await;
        put.map(|_| Put::Created)
            .map_err(|error| LakeError::of("write", path, error))
    }
}

/// What a put found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Put {
    /// The object was not there.
    Created,
    /// It was.
    Present,
}
