//! The lake: a folder, or a prefix of an S3 bucket.
//!
//! ```text
//!   <lake>/<topic>/year=…/month=…/…/<topic>-<topic id>+<partition>+<start>-<end>.parquet
//!   <lake>/errors/<topic>/<topic>-<topic id>+<partition>+<start>-<end>.jsonl
//! ```
//!
//! Objects are created, never changed. A name is derived from what the object holds, so that an object that is there
//! already is the same one, and putting it again is harmless where a store can't refuse it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{ClientOptions, ObjectStore, PutMode, PutOptions, RetryConfig};
use runtime::config::Secret;

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
}

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

    fn of(action: &'static str, path: &Path, source: object_store::Error) -> Self {
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
            Lake::At(location) if location.url.starts_with("s3://") => s3(location)?,
            Lake::At(location) => folder(location)?,
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

fn s3(location: &Location) -> Result<(Arc<dyn ObjectStore>, Path), LakeError> {
    let wrong = |detail: String| LakeError::Address {
        url: location.url.clone(),
        detail,
    };
    let rest = location.url.strip_prefix("s3://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(wrong("it names no bucket".into()));
    }
    let prefix = Path::parse(prefix).map_err(|error| wrong(error.to_string()))?;
    let plain = location
        .endpoint
        .as_deref()
        .is_some_and(|endpoint| endpoint.starts_with("http://"));
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_virtual_hosted_style_request(location.virtual_host_style)
        .with_retry(RetryConfig {
            max_retries: 3,
            retry_timeout: Duration::from_secs(30),
            ..RetryConfig::default()
        })
        .with_client_options(
            ClientOptions::new()
                .with_allow_http(plain)
                .with_connect_timeout(Duration::from_secs(5))
                .with_timeout(Duration::from_secs(120)),
        );
    if let Some(endpoint) = &location.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &location.region {
        builder = builder.with_region(region);
    }
    let store = builder.build().map_err(|error| wrong(error.to_string()))?;
    Ok((Arc::new(store), prefix))
}

fn folder(location: &Location) -> Result<(Arc<dyn ObjectStore>, Path), LakeError> {
    let wrong = |detail: String| LakeError::Address {
        url: location.url.clone(),
        detail,
    };
    let folder = if location.url.starts_with("file:") {
        let url = url::Url::parse(&location.url).map_err(|error| wrong(error.to_string()))?;
        url.to_file_path()
            .map_err(|()| wrong("it names no folder of this machine".into()))?
    } else if location.url.contains("://") {
        return Err(wrong("its kind is not known".into()));
    } else if location.url.is_empty() {
        return Err(wrong("it is empty".into()));
    } else {
        location.url.clone().into()
    };
    let unusable = |source| LakeError::Folder {
        folder: folder.display().to_string(),
        source,
    };
    std::fs::create_dir_all(&folder).map_err(unusable)?;
    let folder = folder.canonicalize().map_err(unusable)?;
    let store =
        LocalFileSystem::new_with_prefix(&folder).map_err(|error| wrong(error.to_string()))?;
    Ok((Arc::new(store), Path::default()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use object_store::memory::InMemory;

    use super::*;

    fn origin(topic: &str, id: &str, partition: i32) -> Origin {
        Origin {
            topic: topic.into(),
            topic_id: id.into(),
            partition,
            start: 0,
            end: 7,
        }
    }

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn names_are_derived_from_the_flush_and_the_folder() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let lake = OpenLake::open(&Lake::Store {
            store,
            prefix: Path::from("a/b"),
        })
        .unwrap();
        let origin = origin("trips", "Id_-", 3);
        assert_eq!(
            lake.data_path("x=1/y=a%2Fb", &origin).as_ref(),
            "a/b/trips/x=1/y=a%2Fb/trips-Id_-+3+0-7.parquet"
        );
        assert_eq!(
            lake.data_path("", &origin).as_ref(),
            "a/b/trips/trips-Id_-+3+0-7.parquet"
        );
        assert_eq!(
            lake.errors_path(&origin).as_ref(),
            "a/b/errors/trips/trips-Id_-+3+0-7.jsonl"
        );
    }

    #[test]
    fn an_object_in_a_folder_is_created_once_under_its_own_name() {
        let dir = tempfile::tempdir().unwrap();
        let address = format!("file://{}/lake", dir.path().display());
        let lake = OpenLake::open(&Lake::At(Location::new(address))).unwrap();
        let path = lake.data_path("name=a%2Fb %25", &origin("t", "I", 0));
        assert_eq!(
            block_on(lake.put(&path, Bytes::from_static(b"one"))).unwrap(),
            Put::Created
        );
        assert_eq!(
            block_on(lake.put(&path, Bytes::from_static(b"two"))).unwrap(),
            Put::Present
        );
        let file = dir.path().join("lake/t/name=a%2Fb %25/t-I+0+0-7.parquet");
        assert_eq!(std::fs::read(file).unwrap(), b"one");
    }

    #[test]
    fn only_files_of_this_topic_id_and_partition_count() {
        let dir = tempfile::tempdir().unwrap();
        let lake =
            OpenLake::open(&Lake::At(Location::new(dir.path().display().to_string()))).unwrap();
        let found = |id: &str, partitions: &[i32]| {
            block_on(lake.partitions_with_files("t", id, partitions)).unwrap()
        };
        assert!(found("I", &[0, 1]).is_empty());
        let put = |path: Path| block_on(lake.put(&path, Bytes::from_static(b"x"))).unwrap();
        put(lake.data_path("a=1", &origin("t", "I", 10)));
        put(lake.data_path("a=1", &origin("u", "I", 0)));
        put(lake.errors_path(&origin("t", "I", 2)));
        assert_eq!(found("I", &[0, 1, 2, 10]), [10, 2]);
        assert!(found("J", &[0, 1, 2, 10]).is_empty());
    }

    #[test]
    fn an_address_that_makes_no_sense_says_what_would() {
        for url in ["", "s3://", "ftp://x/y", "gs://bucket"] {
            let error = OpenLake::open(&Lake::At(Location::new(url))).unwrap_err();
            assert!(
                error.to_string().contains("Use s3://bucket/prefix"),
                "{error}"
            );
            assert!(!error.may_pass());
        }
    }

    #[test]
    fn each_failure_of_a_store_is_sorted_once() {
        use object_store::Error;
        let source = || "it says so".into();
        let path = || "p".to_owned();
        for (error, may_pass) in [
            (
                Error::Generic {
                    store: "S3",
                    source: source(),
                },
                true,
            ),
            (
                Error::NotFound {
                    path: path(),
                    source: source(),
                },
                false,
            ),
            (Error::NotSupported { source: source() }, false),
            (
                Error::PermissionDenied {
                    path: path(),
                    source: source(),
                },
                false,
            ),
            (
                Error::Unauthenticated {
                    path: path(),
                    source: source(),
                },
                false,
            ),
            (
                Error::NotImplemented {
                    operation: path(),
                    implementer: path(),
                },
                false,
            ),
        ] {
            let sorted = LakeError::of("write", &Path::from("p"), error);
            assert_eq!(sorted.may_pass(), may_pass, "{sorted}");
        }
    }
}
