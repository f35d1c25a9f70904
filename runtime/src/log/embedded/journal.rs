//! The journal: one append-only file for all that is not records. Topics, where partitions start, committed offsets,
//! and the decisions of transactions. An entry is written whole or, by its checksum, not at all.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::super::{LogError, Offset};
use super::storage_error;

const PREFIX_BYTES: usize = 8;

/// One entry.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(tag = "entry", rename_all = "snake_case")]
pub(super) enum Entry {
    /// A topic was created.
    Topic {
        name: String,
        id: String,
        partitions: i32,
        config: BTreeMap<String, String>,
    },
    /// A topic was deleted, and with it the offsets committed for it.
    TopicDeleted { name: String },
    /// Records were deleted: the partition starts here.
    Start {
        topic: String,
        partition: i32,
        offset: Offset,
    },
    /// A group committed offsets.
    Offsets {
        group: String,
        offsets: Vec<OffsetEntry>,
    },
    /// A group was deleted, and with it the offsets that it has committed.
    GroupDeleted { group: String },
    /// A transaction is committed, and these offsets with it. Its control records follow, or are written when the log
    /// is opened again.
    Decision {
        txn: u64,
        groups: Vec<(String, Vec<OffsetEntry>)>,
    },
}

/// A committed offset.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub(super) struct OffsetEntry {
    pub topic: String,
    pub partition: i32,
    pub offset: Offset,
    pub metadata: String,
}

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: File,
    len: u64,
    fsync: bool,
    rewritten_len: u64,
}

impl Journal {
    /// Opens the journal in a folder, and gives its entries; a torn last one is cut off.
    pub fn open(dir: &Path, fsync: bool) -> Result<(Self, Vec<Entry>), LogError> {
        let path = dir.join("journal");
        let broken = |what| storage_error(&path, what);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path);
        let file = file.map_err(broken("the journal can't be opened"))?;
        let bytes = fs::read(&path).map_err(broken("the journal can't be read"))?;
        let (mut entries, mut at) = (Vec::new(), 0);
        while let Some(payload) = next(&bytes[at..]) {
            let entry = serde_json::from_slice(payload).map_err(|error| LogError::Storage {
                path: path.clone(),
                detail: format!(
                    "the journal has an entry of another version at byte {at}: {error}"
                ),
                source: None,
            })?;
            entries.push(entry);
            at += PREFIX_BYTES + payload.len();
        }
        file.set_len(at as u64)
            .map_err(broken("a torn entry can't be cut off"))?;
        Ok((
            Self {
                path,
                file,
                len: at as u64,
                fsync,
                rewritten_len: 0,
            },
            entries,
        ))
    }

    /// Writes an entry. After an error the journal is as before.
    pub fn append(&mut self, entry: &Entry) -> Result<(), LogError> {
        let mut bytes = Vec::with_capacity(256);
        encode(entry, &mut bytes)?;
        let written = self.file.write_all_at(&bytes, self.len).and_then(|()| {
            if self.fsync {
                self.file.sync_data()
            } else {
                Ok(())
            }
        });
        if let Err(error) = written {
            let _ = self.file.set_len(self.len);
            return Err(storage_error(&self.path, "writing failed")(error));
        }
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Whether so much was written that it is worth while to rewrite it.
    pub fn outgrown(&self, least: u64) -> bool {
        self.len > least.max(self.rewritten_len * 4)
    }

    /// Replaces all entries, at one stroke.
    pub fn rewrite(&mut self, entries: impl Iterator<Item = Entry>) -> Result<(), LogError> {
        let mut bytes = Vec::new();
        for entry in entries {
            encode(&entry, &mut bytes)?;
        }
        let next = self.path.with_extension("tmp");
        let broken = || storage_error(&next, "the journal can't be rewritten");
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&next)
            .map_err(broken())?;
        file.write_all_at(&bytes, 0).map_err(broken())?;
        if self.fsync {
            file.sync_all().map_err(broken())?;
        }
        fs::rename(&next, &self.path).map_err(broken())?;
        self.file = file;
        self.len = bytes.len() as u64;
        self.rewritten_len = self.len;
        Ok(())
    }
}

fn encode(entry: &Entry, bytes: &mut Vec<u8>) -> Result<(), LogError> {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; PREFIX_BYTES]);
    serde_json::to_writer(&mut *bytes, entry).map_err(|error| LogError::State {
        detail: format!("an entry of the journal can't be written: {error}"),
    })?;
    let payload = &bytes[start + PREFIX_BYTES..];
    let (len, crc) = (payload.len() as u32, crc32fast::hash(payload));
    bytes[start..start + 4].copy_from_slice(&len.to_le_bytes());
    bytes[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

fn next(bytes: &[u8]) -> Option<&[u8]> {
    let prefix = bytes.get(..PREFIX_BYTES)?;
    let len = u32::from_le_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]) as usize;
    let crc = u32::from_le_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]);
    let payload = bytes.get(PREFIX_BYTES..PREFIX_BYTES.checked_add(len)?)?;
    (len > 0 && crc32fast::hash(payload) == crc).then_some(payload)
}
