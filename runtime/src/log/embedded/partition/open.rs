//! A partition as an earlier process left it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Partition;
use crate::log::embedded::frame::Kind;
use crate::log::embedded::segment::Segment;
use crate::log::embedded::settings::Settings;
use crate::log::embedded::signal::lock;
use crate::log::embedded::storage_error;
use crate::log::{LogError, Offset, TopicPartition};

impl Partition {
    /// Opens what an earlier process left. A torn end, written when that process died, is cut off.
    /// Returns the highest transaction number in it, too.
    pub fn open(
        dir: PathBuf,
        name: TopicPartition,
        settings: Settings,
        fsync: bool,
        start: Offset,
    ) -> Result<(Self, u64), LogError> {
        let mut found = list(&dir)?;
        if found.is_empty() {
            let detail =
                "its segments are missing: restore the folder, or begin with an empty one".into();
            return Err(LogError::Storage {
                path: dir,
                detail,
                source: None,
            });
        }
        let mut open = BTreeMap::new();
        let mut aborted = BTreeMap::new();
        let (mut segments, mut end, mut highest): (Vec<Segment>, Offset, u64) = (Vec::new(), 0, 0);
        found.sort_unstable();
        // Only the last file that holds anything can be torn: a new one is begun after its predecessor is complete.
        let mut tail = found.len() - 1;
        while tail > 0 && fs::metadata(&found[tail].1).is_ok_and(|file| file.len() == 0) {
            tail -= 1;
        }
        for (number, (base, path)) in found.iter().enumerate() {
            if *base < end {
                // Its frames were merged into the segment before, and the process died before it was removed.
                fs::remove_file(path)
                    .map_err(storage_error(path, "a left-over segment can't be removed"))?;
                continue;
            }
            let unreadable = || storage_error(path, "the segment can't be read");
            let mut segment = Segment::open(path.clone(), *base).map_err(unreadable())?;
            end = *base;
            segment
                .scan(number >= tail, |header| {
                    end = header.next();
                    highest = highest.max(header.txn);
                    match header.kind {
                        Kind::Data if header.txn == 0 => {}
                        Kind::Data => {
                            open.entry(header.txn).or_insert(header.base);
                        }
                        Kind::Commit => {
                            open.remove(&header.txn);
                        }
                        Kind::Abort => {
                            open.remove(&header.txn);
                            aborted.insert(header.txn, header.base);
                        }
                    }
                })
                .map_err(unreadable())?;
            let size = segment.file.metadata().map_err(unreadable())?.len();
            if size > segment.len {
                if number < tail {
                    let detail = format!(
                        "the segment is damaged at byte {}: restore it from a copy, or begin with an empty folder",
                        segment.len
                    );
                    return Err(LogError::Storage {
                        path: path.clone(),
                        detail,
                        source: None,
                    });
                }
                tracing::info!(path = %path.display(), bytes = size - segment.len, "cut off a torn write");
                segment
                    .file
                    .set_len(segment.len)
                    .map_err(storage_error(path, "a torn write can't be cut off"))?;
            }
            segments.push(segment);
        }
        let end = end.max(start);
        let partition = Self::over(dir, name, settings, fsync, segments, 0, end);
        {
            let mut state = lock(&partition.state);
            state.open = open;
            state.aborted = Arc::new(aborted);
            partition.drop_below(&mut state, start)?;
        }
        Ok((partition, highest))
    }
}

/// The segments in a folder; files that are none of ours are refused, those of unfinished compactions removed.
fn list(dir: &Path) -> Result<Vec<(Offset, PathBuf)>, LogError> {
    let unreadable = || storage_error(dir, "the folder can't be read");
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(unreadable())? {
        let path = entry.map_err(unreadable())?.path();
        let base = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .and_then(|stem| stem.parse().ok());
        match (
            base,
            path.extension().and_then(|extension| extension.to_str()),
        ) {
            (Some(base), Some("seg")) => found.push((base, path)),
            (_, Some("tmp")) => {
                fs::remove_file(&path)
                    .map_err(storage_error(&path, "a left-over file can't be removed"))?;
            }
            _ => {
                let detail = "the file is not part of a log: move it away".into();
                return Err(LogError::Storage {
                    path,
                    detail,
                    source: None,
                });
            }
        }
    }
    Ok(found)
}
