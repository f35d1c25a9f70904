//! The generator's files: chunks of rows, each written whole before the producer sees it.
//!
//! A chunk's rows follow from the seed and the chunk's number alone, so that a demo that was killed goes on as if it had
//! not been. The newest chunk is written just before it is needed; old ones stay only as long as they may be read again.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::generate::{Generator, HEADER, Settings};

/// How many rows a chunk has.
pub const CHUNK_ROWS: u64 = 20_000;
/// How many chunks behind the one being read stay on disk.
const KEPT: u64 = 2;

/// Writes chunks, in order.
pub struct Chunks {
    folder: PathBuf,
    settings: Settings,
    rows: Option<u64>,
    generator: Option<(u64, Generator)>,
}

impl Chunks {
    /// Chunks of a sequence, `rows` long or endless.
    pub fn new(folder: PathBuf, settings: Settings, rows: Option<u64>) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self {
            folder,
            settings,
            rows,
            generator: None,
        })
    }

    /// The file of chunk `number`, written if it is not there; `None` behind the last one.
    pub fn file(&mut self, number: u64) -> io::Result<Option<PathBuf>> {
        let first = number * CHUNK_ROWS;
        let rows = self.rows.map_or(CHUNK_ROWS, |rows| {
            rows.saturating_sub(first).min(CHUNK_ROWS)
        });
        if rows == 0 {
            return Ok(None);
        }
        let path = self.path(number);
        if !path.exists() {
            self.write(number, rows, &path)?;
        }
        if let Some(old) = number.checked_sub(KEPT + 1) {
            // It may never have been there, or be gone already.
            let _ = fs::remove_file(self.path(old));
        }
        Ok(Some(path))
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("trips-{number:06}.csv"))
    }

    fn write(&mut self, number: u64, rows: u64, path: &Path) -> io::Result<()> {
        let mut generator = match self.generator.take() {
            Some((next, generator)) if next == number => generator,
            _ => {
                let mut generator = Generator::new(self.settings.clone());
                generator.skip(number * CHUNK_ROWS);
                generator
            }
        };
        let fresh = path.with_extension("csv.new");
        let mut out = BufWriter::new(File::create(&fresh)?);
        writeln!(out, "{HEADER}")?;
        for _ in 0..rows {
            generator.write_row(&mut out)?;
        }
        out.into_inner()
            .map_err(io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&fresh, path)?;
        self.generator = Some((number + 1, generator));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn chunks_follow_from_the_seed_whoever_wrote_those_before() {
        let rows = Some(CHUNK_ROWS + 10);
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let mut one = Chunks::new(a.path().into(), Settings::default(), rows).unwrap();
        one.file(0).unwrap().unwrap();
        let second = fs::read(one.file(1).unwrap().unwrap()).unwrap();
        let mut fresh = Chunks::new(b.path().into(), Settings::default(), rows).unwrap();
        assert_eq!(second, fs::read(fresh.file(1).unwrap().unwrap()).unwrap());
        assert_eq!(second.iter().filter(|byte| **byte == b'\n').count(), 11);
        assert_eq!(one.file(2).unwrap(), None);
    }
}
