//! A look at the start whether the lake can be used.

use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{Error, ObjectStoreExt as _};

use super::{ERRORS, LakeError, OpenLake, Put};

/// What lies in the object that is put. Hive, Spark and Trino pass over names that begin with `_`.
const NAME: &str = "_probe.txt";
const TEXT: &[u8] = b"sink-s3 looks here at its start whether it may write.\n";

impl OpenLake {
    /// Does once what a run does: puts an object, which stays, puts it again, reads it, and lists.
    ///
    /// # Errors
    /// [`LakeError::Store`] with what to do.
    pub(crate) async fn probe(&self) -> Result<(), LakeError> {
        let path = self.path(ERRORS, NAME);
        let text = Bytes::from_static(TEXT);
        if self.put_new(&path, text.clone(), 0).await? == Put::Created
            && self.create_only.load(Ordering::Relaxed)
            && self.put_new(&path, text, 0).await? == Put::Created
        {
            tracing::warn!(
                lake = %self.name,
                "the store ignores If-None-Match: an object that is put again is written over by the same object"
            );
            self.create_only.store(false, Ordering::Relaxed);
        }
        self.in_time(self.store.head(&path))
            .await
            .map_err(|error| self.failed("read", &path, error))?;
        let folder = self.path(ERRORS, "");
        let mut objects = self.store.list(Some(&folder));
        match self.in_time(objects.try_next()).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self.failed(
                "list",
                &folder,
                Error::Generic {
                    store: "S3",
                    source: "an object that was put is not listed".into(),
                },
            )),
            Err(error) => Err(self.failed("list", &folder, error)),
        }
    }
}
