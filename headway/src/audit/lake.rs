//! Counts the rows of a lake by its files' footers.

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::file::metadata::ParquetMetaDataReader;

use sink_s3::Cause;

use super::AuditError;

/// How many files of a topic there are in a lake, and how many rows they hold.
pub(super) fn count(
    store: &Arc<dyn ObjectStore>,
    prefix: &Path,
    topic: &str,
) -> Result<(u64, u64), AuditError> {
    let failed = |detail: String| AuditError::Lake { detail };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failed(error.to_string()))?;
    runtime.block_on(async {
        let files: Vec<_> = store
            .list(Some(&prefix.clone().join(topic)))
            .try_filter(|file| std::future::ready(file.location.extension() == Some("parquet")))
            .try_collect()
            .await
            .map_err(|error| failed(in_words(&error)))?;
        if files.is_empty() {
            no_other_server(store, prefix).await?;
        }
        let mut rows = futures::stream::iter(
            files
                .iter()
                .map(|file| rows(store, &file.location, file.size)),
        )
        .buffer_unordered(16);
        let mut total = 0;
        while let Some(count) = rows.next().await {
            total += count?;
        }
        Ok((files.len() as u64, total))
    })
}

/// A server that answers everything with a page of its own looks like an empty lake: it also has what can't be there.
async fn no_other_server(store: &Arc<dyn ObjectStore>, prefix: &Path) -> Result<(), AuditError> {
    match store.head(&prefix.clone().join("_no-such-object")).await {
        Err(object_store::Error::NotFound { .. }) => Ok(()),
        Ok(_) => Err(AuditError::Lake {
            detail: format!(
                "what answers for {store} seems not to be an object store; correct sink_s3.endpoint"
            ),
        }),
        Err(error) => Err(AuditError::Lake {
            detail: in_words(&error),
        }),
    }
}

/// What to do about a store's failure, and what it says.
fn in_words(error: &object_store::Error) -> String {
    format!("{} ({error})", Cause::of(error))
}

async fn rows(store: &Arc<dyn ObjectStore>, file: &Path, size: u64) -> Result<u64, AuditError> {
    let failed = |detail: String| AuditError::Lake {
        detail: format!("{file}: {detail}"),
    };
    let mut reader = ParquetMetaDataReader::new();
    // The footer is nearly always in the last bytes; when it is not, the reader says how many it needs.
    let mut wanted = 64 * 1024;
    loop {
        let start = size.saturating_sub(wanted);
        let bytes = store
            .get_range(file, start..size)
            .await
            .map_err(|error| failed(in_words(&error)))?;
        match reader.try_parse_sized(&bytes, size) {
            Ok(()) => break,
            Err(parquet::errors::ParquetError::NeedMoreData(needed))
                if (needed as u64) > wanted && wanted < size =>
            {
                wanted = (needed as u64).min(size);
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    let metadata = reader.finish().map_err(|error| failed(error.to_string()))?;
    u64::try_from(metadata.file_metadata().num_rows()).map_err(|error| failed(error.to_string()))
}
