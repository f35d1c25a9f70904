//! A store that fails where it is told to.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What happens at a put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PutFault {
    /// It fails, and the object is not there.
    FailBefore,
    /// It fails, and the object is there.
    FailAfter,
    /// The process dies before the object is there.
    CrashBefore,
    /// The process dies when the object is there.
    CrashAfter,
    /// The store refuses the credentials.
    Refuse,
    /// The store does not know conditional puts. Not counted as a put.
    NoConditions,
}

/// A store whose puts number `from` to `to` fail.
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    fault: PutFault,
    from: u64,
    to: u64,
    puts: AtomicU64,
    dead: AtomicBool,
    on_crash: Box<dyn Fn() + Send + Sync>,
}

impl FaultStore {
    pub fn new(
        inner: Arc<dyn ObjectStore>,
        fault: PutFault,
        puts: std::ops::Range<u64>,
        on_crash: impl Fn() + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            inner,
            fault,
            from: puts.start,
            to: puts.end,
            puts: AtomicU64::new(0),
            dead: AtomicBool::new(false),
            on_crash: Box::new(on_crash),
        })
    }

    /// How many puts were asked for.
    pub fn puts(&self) -> u64 {
        self.puts.load(Ordering::SeqCst)
    }

    fn failed(&self) -> Error {
        Error::Generic {
            store: "fault",
            source: "a fault was asked for".into(),
        }
    }

    fn die(&self) -> Error {
        self.dead.store(true, Ordering::SeqCst);
        (self.on_crash)();
        self.failed()
    }
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "FaultStore({:?} at {}..{})",
            self.fault, self.from, self.to
        )
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        if self.dead.load(Ordering::SeqCst) {
            return Err(self.failed());
        }
        if self.fault == PutFault::NoConditions && opts.mode == PutMode::Create {
            return Err(Error::NotImplemented {
                operation: "put".into(),
                implementer: "fault".into(),
            });
        }
        let put = self.puts.fetch_add(1, Ordering::SeqCst);
        if !(self.from..self.to).contains(&put) {
            return self.inner.put_opts(location, payload, opts).await;
        }
        match self.fault {
            PutFault::FailBefore => Err(self.failed()),
            PutFault::FailAfter => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(self.failed())
            }
            PutFault::CrashBefore => Err(self.die()),
            PutFault::CrashAfter => {
                self.inner.put_opts(location, payload, opts).await?;
                Err(self.die())
            }
            PutFault::Refuse => Err(Error::PermissionDenied {
                path: location.to_string(),
                source: "AccessDenied".into(),
            }),
            PutFault::NoConditions => self.inner.put_opts(location, payload, opts).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
