//! Segments: the append-only files that hold a partition's frames, each named by the offset at which it begins.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::Offset;
use super::frame::{self, HEADER_BYTES, Header};

/// One place in the index for at least so many bytes of frames.
const INDEX_EVERY: u64 = 64 * 1024;
const SCAN_BYTES: usize = 128 * 1024;
static NEXT_UID: AtomicU64 = AtomicU64::new(1);

/// A segment.
#[derive(Debug)]
pub(super) struct Segment {
    /// No offset in it is below.
    pub base: Offset,
    pub path: PathBuf,
    pub file: Arc<File>,
    /// Bytes of whole frames.
    pub len: u64,
    /// Differs from every other segment's, those of earlier contents of the same file included.
    pub uid: u64,
    index: Vec<(Offset, u64)>,
}

impl Segment {
    /// The file name of a segment that begins at this offset.
    pub fn file_name(base: Offset) -> String {
        format!("{base:020}.seg")
    }

    /// A new, empty segment.
    pub fn create(dir: &Path, base: Offset) -> io::Result<Self> {
        let path = dir.join(Self::file_name(base));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)?;
        Ok(Self::over(path, file, base))
    }

    /// The segment in an existing file; its frames are made known by [`Segment::scan`].
    pub fn open(path: PathBuf, base: Offset) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(&path)?;
        Ok(Self::over(path, file, base))
    }

    fn over(path: PathBuf, file: File, base: Offset) -> Self {
        let uid = NEXT_UID.fetch_add(1, Ordering::Relaxed);
        Self {
            base,
            path,
            file: Arc::new(file),
            len: 0,
            uid,
            index: Vec::new(),
        }
    }

    /// Appends a whole frame. After an error the segment is as before.
    pub fn append(&mut self, frame: &[u8], base: Offset, fsync: bool) -> io::Result<()> {
        let written = self
            .file
            .write_all_at(frame, self.len)
            .and_then(|()| if fsync { self.file.sync_data() } else { Ok(()) });
        if let Err(error) = written {
            // What stays behind if this fails too is no whole frame in its place, and is cut when the log is opened.
            let _ = self.file.set_len(self.len);
            return Err(error);
        }
        self.note(base, self.len);
        self.len += frame.len() as u64;
        Ok(())
    }

    fn note(&mut self, base: Offset, at: u64) {
        if self
            .index
            .last()
            .is_none_or(|(_, last)| at >= last + INDEX_EVERY)
        {
            self.index.push((base, at));
        }
    }

    /// A place at or before the first frame that reaches `offset`.
    pub fn locate(&self, offset: Offset) -> u64 {
        let after = self.index.partition_point(|(base, _)| *base <= offset);
        if after == 0 {
            0
        } else {
            self.index[after - 1].1
        }
    }

    /// Walks the frames of the file from its beginning, and takes them into the segment, up to the first bytes that
    /// are no whole frame (that is where `len` stands afterwards). With `verify`, checksums count too.
    pub fn scan(&mut self, verify: bool, mut each: impl FnMut(&Header)) -> io::Result<()> {
        let size = self.file.metadata()?.len();
        let mut buffer = vec![0; SCAN_BYTES];
        let (mut from, mut filled) = (0_u64, 0_usize);
        let mut next = self.base;
        self.len = 0;
        self.index.clear();
        loop {
            let left = size - self.len;
            if left < HEADER_BYTES as u64 {
                return Ok(());
            }
            if self.len + HEADER_BYTES as u64 > from + filled as u64 {
                from = self.len;
                filled = fill(
                    &self.file,
                    &mut buffer[..SCAN_BYTES.min(left as usize)],
                    from,
                )?;
            }
            let Some(header) = Header::parse(&buffer[(self.len - from) as usize..filled]) else {
                return Ok(());
            };
            if header.len as u64 > left || header.base < next {
                return Ok(());
            }
            if verify {
                if self.len + header.len as u64 > from + filled as u64 {
                    from = self.len;
                    let want = header.len.max(SCAN_BYTES).min(left as usize);
                    if buffer.len() < want {
                        buffer.resize(want, 0);
                    }
                    filled = fill(&self.file, &mut buffer[..want], from)?;
                }
                let start = (self.len - from) as usize;
                if !buffer
                    .get(start..start + header.len)
                    .is_some_and(frame::intact)
                {
                    return Ok(());
                }
            }
            self.note(header.base, self.len);
            next = header.next();
            self.len += header.len as u64;
            each(&header);
        }
    }
}

/// Reads until the buffer is full or the file ends.
pub(super) fn fill(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
