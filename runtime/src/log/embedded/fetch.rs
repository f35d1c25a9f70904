//! Reading a partition: whole chunks of frames into one buffer, from which records are borrowed.

use std::sync::Arc;

use super::super::{LogError, Offset, Record, Records};
use super::frame::{self, Entry, HEADER_BYTES, Header, Kind};
use super::partition::{Partition, Place};
use super::segment::fill;
use super::storage_error;

/// Where a reader stands in a partition.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    /// The next offset to be read into a chunk.
    position: Offset,
    /// The segment and the byte in it where that is, if known.
    hint: Option<(u64, u64)>,
    chunk: Option<Chunk>,
    /// A buffer that may be used again once nobody borrows from it.
    spare: Option<Arc<Vec<u8>>>,
}

#[derive(Debug)]
struct Chunk {
    buffer: Arc<Vec<u8>>,
    entries: Arc<Vec<Entry>>,
    taken: usize,
}

/// Records of one chunk.
struct Slice {
    buffer: Arc<Vec<u8>>,
    entries: Arc<Vec<Entry>>,
    from: usize,
    to: usize,
}

impl Records for Slice {
    fn len(&self) -> usize {
        self.to - self.from
    }

    fn get(&self, index: usize) -> Record<'_> {
        frame::record(&self.buffer, self.entries[self.from..self.to][index])
    }

    fn header(&self, index: usize, name: &str) -> Option<&[u8]> {
        frame::header(&self.buffer, self.entries[self.from..self.to][index], name)
    }
}

/// What a reader finds.
pub(super) enum Found {
    Records(Box<dyn Records>),
    /// All below this last stable offset was read.
    End(Offset),
}

impl Cursor {
    /// A reader that begins at an offset.
    pub fn at(position: Offset) -> Self {
        Self {
            position,
            ..Self::default()
        }
    }

    /// The next records.
    pub fn next(
        &mut self,
        partition: &Partition,
        max_records: usize,
        bytes: usize,
    ) -> Result<Found, LogError> {
        loop {
            if let Some(chunk) = &mut self.chunk {
                let from = chunk.taken;
                chunk.taken = chunk.entries.len().min(from + max_records.max(1));
                if from < chunk.taken {
                    let (buffer, entries) = (Arc::clone(&chunk.buffer), Arc::clone(&chunk.entries));
                    return Ok(Found::Records(Box::new(Slice {
                        buffer,
                        entries,
                        from,
                        to: chunk.taken,
                    })));
                }
                self.spare = self.chunk.take().map(|chunk| chunk.buffer);
            }
            match partition.place(self.position, self.hint)? {
                Err(stable) => {
                    self.position = self.position.max(stable);
                    return Ok(Found::End(self.position));
                }
                Ok(place) => self.read(&place, bytes)?,
            }
        }
    }

    fn read(&mut self, place: &Place, bytes: usize) -> Result<(), LogError> {
        let left = usize::try_from(place.to - place.from).unwrap_or(usize::MAX);
        let mut want = bytes.max(HEADER_BYTES).min(left);
        let mut buffer = self
            .spare
            .take()
            .and_then(Arc::into_inner)
            .unwrap_or_default();
        loop {
            // Only what a larger buffer adds is cleared.
            buffer.resize(want, 0);
            let filled = fill(&place.file, &mut buffer, place.from)
                .map_err(storage_error(&place.path, "the segment can't be read"))?;
            let damaged = |at: usize| LogError::Storage {
                path: place.path.clone(),
                detail: format!(
                    "the segment is damaged at byte {}: restore it from a copy",
                    place.from + at as u64
                ),
                source: None,
            };
            let first = Header::parse(&buffer[..filled]).ok_or_else(|| damaged(0))?;
            if first.len > filled {
                if first.len > left {
                    return Err(damaged(0));
                }
                want = first.len;
                continue;
            }
            let (mut entries, mut at, mut position) = (Vec::new(), 0, self.position);
            while let Some(header) = Header::parse(&buffer[at..filled]) {
                if header.base >= place.stable {
                    position = position.max(place.stable);
                    break;
                }
                if at + header.len > filled {
                    break;
                }
                let wanted = header.kind == Kind::Data && header.next() > position;
                if wanted && !(header.txn != 0 && place.aborted.contains_key(&header.txn)) {
                    let intact = frame::intact(&buffer[at..at + header.len]);
                    let indexed =
                        intact.then(|| frame::index(&buffer, at, &header, position, &mut entries));
                    indexed.flatten().ok_or_else(|| damaged(at))?;
                }
                position = position.max(header.next());
                at += header.len;
            }
            self.position = position;
            self.hint = Some((place.uid, place.from + at as u64));
            let buffer = Arc::new(buffer);
            if entries.is_empty() {
                self.spare = Some(buffer);
            } else {
                self.chunk = Some(Chunk {
                    buffer,
                    entries: Arc::new(entries),
                    taken: 0,
                });
            }
            return Ok(());
        }
    }
}
