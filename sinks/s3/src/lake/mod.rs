//! The lake: a folder, or a prefix of an S3 bucket.
//!
//! ```text
//!   <lake>/<topic>/year=…/month=…/…/<topic>-<topic id>+<partition>+<start>-<end>.parquet
//!   <lake>/errors/<topic>/<topic>-<topic id>+<partition>+<start>-<end>.jsonl
//! ```
//!
//! Objects are created, never changed. A name is derived from what the object holds, so that an object that is there
//! already is the same one, and putting it again is harmless where a store can't refuse it.

mod cause;
mod error;
mod folder;
mod present;
mod probe;
mod profile;
mod s3;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::path::Path;
use object_store::{Error, ObjectStore, PutMode, PutOptions};
use runtime::config::Secret;

pub use self::cause::Cause;
pub use self::error::LakeError;
use crate::writer::Origin;

/// How long a request may take unless told otherwise.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How fast bytes must go at least, per second, beside the time that any request may take.
const SLOWEST: u64 = 1 << 20;
/// How often the time for a put is doubled at most.
const DOUBLINGS: u32 = 6;

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// `s3://bucket/prefix`, `file:///folder`, or a folder.
    pub url: String,
    /// The address of an S3 server other than AWS; the environment's if none is given.
    pub endpoint: Option<String>,
    /// The bucket's region; the environment's if none is given.
    pub region: Option<String>,
    /// Where a request names the bucket.
    pub addressing: Addressing,
    /// A PEM file with authorities that sign the server's certificate, beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The keys; without them the usual AWS places are asked: variables, web identity, a profile, the machine's role.
    pub credentials: Option<Credentials>,
    /// How long a request may take, beside a second for each mebibyte that it moves.
    pub request_timeout: Duration,
}

/// Where a request to S3 names the bucket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Addressing {
    /// In the host at AWS, in the path with an endpoint of one's own.
    #[default]
    Auto,
    /// In the path: `http://host/bucket/…`.
    Path,
    /// In the host: `http://bucket.host/…`.
    VirtualHost,
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
            endpoint: None,
            region: None,
            addressing: Addressing::Auto,
            ca_file: None,
            credentials: None,
            request_timeout: REQUEST_TIMEOUT,
        }
    }

    /// The store that it lies in, and the folder there: for those who read it.
    ///
    /// # Errors
    /// [`LakeError::Address`], [`LakeError::Settings`], [`LakeError::File`] and [`LakeError::Folder`].
    pub fn store(&self) -> Result<(Arc<dyn ObjectStore>, Path), LakeError> {
        self.open().map(|(store, prefix, _)| (store, prefix))
    }

    /// Whether it is a bucket and not a folder.
    pub(crate) fn is_bucket(&self) -> bool {
        self.url.starts_with("s3://")
    }

    fn open(&self) -> Result<(Arc<dyn ObjectStore>, Path, String), LakeError> {
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        if self.is_bucket() {
            s3::open(self, &environment)
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
    /// What errors call it.
    name: Arc<str>,
    request_timeout: Duration,
    /// Whether the store takes conditional puts, as far as is known.
    create_only: Arc<AtomicBool>,
}

impl OpenLake {
    /// Opens a lake; a folder is made if it is not there. The store itself tries nothing again, because the
    /// caller does, for as long as it takes.
    ///
    /// # Errors
    /// [`LakeError::Address`], [`LakeError::Settings`], [`LakeError::File`] and [`LakeError::Folder`].
    pub fn open(lake: &Lake) -> Result<Self, LakeError> {
        let (store, prefix, name, request_timeout) = match lake {
            Lake::Store { store, prefix } => (
                store.clone(),
                prefix.clone(),
                store.to_string(),
                REQUEST_TIMEOUT,
            ),
            Lake::At(location) => {
                let (store, prefix, name) = location.open()?;
                if !location.is_bucket() {
                    folder::check_writable(&name)?;
                }
                (store, prefix, name, location.request_timeout)
            }
        };
        Ok(Self {
            store,
            prefix,
            name: name.into(),
            request_timeout,
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
            let folder = self.path(&first, "");
            let mut objects = self.store.list(Some(&folder));
            while found.len() < partitions.len() {
                let object = match self.in_time(objects.try_next()).await {
                    Ok(Some(object)) => object,
                    Ok(None) => break,
                    Err(error) => return Err(self.failed("list", &folder, error)),
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

    /// Puts an object; if one of this name is there already, it is checked to be the same one. `failures` tells how often
    /// this failed before: the time that it may take is doubled each time.
    ///
    /// # Errors
    /// [`LakeError`]
    pub(crate) async fn put(
        &self,
        path: &Path,
        bytes: Bytes,
        failures: u32,
    ) -> Result<Put, LakeError> {
        // A store that has the object may say so before it has read what is sent, and close: the answer is then lost each
        // time, with what was still under way. Whoever failed looks first.
        if failures > 0 && self.is_present(path, &bytes).await? {
            return Ok(Put::Present);
        }
        let put = self.put_new(path, bytes.clone(), failures).await?;
        if put == Put::Present && !self.is_present(path, &bytes).await? {
            // refused for another put that is under way, and may fail yet
            let source = Error::Generic {
                store: "S3",
                source: "the put was refused, and there is no such object".into(),
            };
            return Err(LakeError::Store {
                action: "write",
                path: path.clone(),
                lake: self.name.clone(),
                cause: Cause::Conflict,
                source: Box::new(source),
            });
        }
        Ok(put)
    }

    /// Puts an object unless one of this name is there, as far as the store can see to that.
    async fn put_new(&self, path: &Path, bytes: Bytes, failures: u32) -> Result<Put, LakeError> {
        let put = |mode| {
            let options = PutOptions {
                mode,
                ..PutOptions::default()
            };
            let sent = self.store.put_opts(path, bytes.clone().into(), options);
            self.in_time_for(bytes.len(), failures, sent)
        };
        if self.create_only.load(Ordering::Relaxed) {
            match put(PutMode::Create).await {
                Ok(_) => return Ok(Put::Created),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => {
                    return Ok(Put::Present);
                }
                Err(error) if Cause::of(&error) == Cause::Unsupported => {
                    tracing::warn!(
                        lake = %self.name,
                        "the store has no conditional put: an object that is put again is written over by the same object"
                    );
                    self.create_only.store(false, Ordering::Relaxed);
                }
                Err(error) => return Err(self.failed("write", path, error)),
            }
        }
        let put = put(PutMode::Overwrite).await;
        put.map(|_| Put::Created)
            .map_err(|error| self.failed("write", path, error))
    }

    /// A call to the store, within the time of a small request.
    async fn in_time<T>(&self, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        self.in_time_for(0, 0, call).await
    }

    /// A call to the store that moves this many bytes.
    async fn in_time_for<T>(
        &self,
        bytes: usize,
        failures: u32,
        call: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let once = self.request_timeout + Duration::from_secs(bytes as u64 / SLOWEST);
        let time = once.saturating_mul(1 << failures.min(DOUBLINGS));
        match tokio::time::timeout(time, call).await {
            Ok(result) => result,
            Err(elapsed) => Err(Error::Generic {
                store: "S3",
                source: elapsed.into(),
            }),
        }
    }

    fn failed(&self, action: &'static str, path: &Path, source: Error) -> LakeError {
        LakeError::Store {
            action,
            path: path.clone(),
            lake: self.name.clone(),
            cause: Cause::of(&source),
            source: Box::new(source),
        }
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
