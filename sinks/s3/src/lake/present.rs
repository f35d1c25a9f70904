//! Whether an object that is there already is the one that was to be put.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{Error, ObjectStoreExt as _};
use parquet::file::metadata::ParquetMetaDataReader;

use super::{LakeError, OpenLake};

/// How much of an object's end is compared. The footer of a Parquet file is there, with the counts, sizes and bounds of all
/// its columns.
const TAIL: usize = 64 << 10;

impl OpenLake {
    /// Whether there is an object of this name; it is checked to be the one that was to be put: by size and end, or else by
    /// what it says of itself.
    ///
    /// # Errors
    /// [`LakeError::Foreign`] if it is another one, [`LakeError::Store`] if it can't be read.
    pub(super) async fn is_present(&self, path: &Path, ours: &Bytes) -> Result<bool, LakeError> {
        let failed = |error| self.failed("read", path, error);
        let found = match self.in_time(self.store.head(path)).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(false),
            Err(error) => return Err(failed(error)),
        };
        if found.size == ours.len() as u64 {
            let from = ours.len().saturating_sub(TAIL);
            let range = from as u64..ours.len() as u64;
            let tail = self.in_time(self.store.get_range(path, range)).await;
            if tail.map_err(failed)?[..] == ours[from..] {
                return Ok(true);
            }
        }
        let whole = async { self.store.get(path).await?.bytes().await };
        let size = usize::try_from(found.size).unwrap_or(usize::MAX);
        let theirs = self.in_time_for(size, 0, whole).await.map_err(failed)?;
        let (theirs, ours) = (describe(&theirs), describe(ours));
        if theirs == ours {
            return Ok(true);
        }
        Err(LakeError::Foreign {
            path: path.clone(),
            lake: self.name.clone(),
            detail: format!("it has {theirs}, and {ours} was to be put"),
        })
    }
}

/// What an object says of itself: rows and origin of a Parquet file, offsets of dead letters.
fn describe(bytes: &Bytes) -> String {
    if let Ok(metadata) = ParquetMetaDataReader::new().parse_and_finish(bytes) {
        let file = metadata.file_metadata();
        let mut pairs: Vec<String> = file
            .key_value_metadata()
            .into_iter()
            .flatten()
            .filter(|pair| pair.key.starts_with("headway."))
            .map(|pair| format!("{} {}", pair.key, pair.value.as_deref().unwrap_or("-")))
            .collect();
        pairs.sort();
        return format!("{} rows ({})", file.num_rows(), pairs.join(", "));
    }
    let offsets: Option<Vec<String>> = std::str::from_utf8(bytes).ok().and_then(|text| {
        text.lines()
            .map(|line| {
                let line: serde_json::Value = serde_json::from_str(line).ok()?;
                Some(format!(
                    "{}/{}",
                    line.get("partition")?,
                    line.get("offset")?
                ))
            })
            .collect()
    });
    match offsets {
        Some(offsets) => format!("dead letters {}", offsets.join(", ")),
        None => format!("{} bytes of another kind", bytes.len()),
    }
}
