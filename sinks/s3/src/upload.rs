//! Brings the files of one flush into the lake.
//!
//! ```text
//!   PendingFile ──encode (a blocking thread)──▶ bytes ──put, again until it is there──▶ lake
//! ```
//!
//! A put of unknown outcome is put again: the name says what the object holds, so that it can't come to be there twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bytes::Bytes;
use futures::{TryStreamExt as _, stream};
use object_store::path::Path;
use prometheus::IntGauge;

use crate::backoff::Backoff;
use crate::error::SinkError;
use crate::lake::{OpenLake, Put};
use crate::metrics::Metrics;
use crate::writer::{Origin, PendingFile};

/// What is to be brought into the lake.
pub(crate) struct Upload {
    pub lake: OpenLake,
    pub origin: Origin,
    pub files: Vec<PendingFile>,
    /// The dead letters as lines of JSON, if there are any.
    pub errors: Option<Bytes>,
    pub backoff: Backoff,
    /// How many objects are under way at once.
    pub concurrency: usize,
    pub metrics: Arc<Metrics>,
}

/// What was brought there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Uploaded {
    /// Bytes of Parquet.
    pub bytes: u64,
}

impl Upload {
    /// Puts every object. Failures that may pass are tried again, for as long as it takes.
    ///
    /// # Errors
    /// [`SinkError::Lake`] when the store refuses, [`SinkError::Write`] when a file can't be encoded.
    pub async fn run(self) -> Result<Uploaded, SinkError> {
        let Self {
            lake,
            origin,
            files,
            errors,
            backoff,
            concurrency,
            metrics,
        } = self;
        let put = Putter {
            lake: lake.clone(),
            backoff,
            metrics,
        };
        if let Some(errors) = errors {
            put.until_there(&lake.errors_path(&origin), errors).await?;
        }
        let bytes = AtomicU64::new(0);
        let (origin, put, total) = (&origin, &put, &bytes);
        stream::iter(files.into_iter().map(Ok::<_, SinkError>))
            .try_for_each_concurrent(concurrency.max(1), |file| async move {
                let path = put.lake.data_path(&file.folder, origin);
                let of = origin.clone();
                let encoded = tokio::task::spawn_blocking(move || file.encode(&of)).await;
                let encoded = encoded.map_err(|error| SinkError::Panicked {
                    detail: error.to_string(),
                })??;
                total.fetch_add(encoded.len() as u64, Ordering::Relaxed);
                put.until_there(&path, encoded).await
            })
            .await?;
        Ok(Uploaded {
            bytes: bytes.into_inner(),
        })
    }
}

struct Putter {
    lake: OpenLake,
    backoff: Backoff,
    metrics: Arc<Metrics>,
}

/// Counts an object that can't be put at the moment, for as long as it lives.
struct Waiting(IntGauge);

impl Waiting {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Putter {
    async fn until_there(&self, path: &Path, bytes: Bytes) -> Result<(), SinkError> {
        let began = Instant::now();
        let mut failures: u32 = 0;
        let mut waiting = None;
        loop {
            match self.lake.put(path, bytes.clone(), failures).await {
                Ok(put) => {
                    if put == Put::Present {
                        self.metrics.objects_present.inc();
                        tracing::debug!(%path, "an object is there already");
                    }
                    if failures > 0 {
                        let after_s = began.elapsed().as_secs();
                        tracing::info!(%path, failures, after_s, "an object is in the lake after all");
                    }
                    return Ok(());
                }
                Err(error) if error.may_pass() => {
                    failures = failures.saturating_add(1);
                    self.metrics.upload_retries.inc();
                    waiting.get_or_insert_with(|| Waiting::new(&self.metrics.uploads_waiting));
                    let pause = self.backoff.pause(failures);
                    // an outage may last for hours: it is told ever more rarely
                    if failures.is_power_of_two() {
                        let reason = crate::error::chain(&error);
                        tracing::warn!(%path, failures, pause_ms = pause.as_millis(), reason, "an object could not be put, trying again");
                    }
                    tokio::time::sleep(pause).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }
}
