//! The folder of a demo: everything that it leaves on disk.
//!
//! ```text
//!   DIR/headway.json      what this folder is, and what it was started with
//!   DIR/log/              the embedded log
//!   DIR/registry.json     the embedded schema registry
//!   DIR/input/            generated CSV files
//!   DIR/lake/             Parquet files, and errors/
//!   DIR/documents.sqlite  the documents
//! ```

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use fs4::fs_std::FileExt;
use serde::{Deserialize, Serialize};

/// The version of the folder's layout.
const FORMAT: u32 = 1;
/// The file that says what a folder is.
const NOTE: &str = "headway.json";

/// A demo's folder, held for as long as this lives.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    origin: Origin,
    _lock: File,
}

/// What a demo was started with. A folder goes on with the same.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Where rows come from.
    pub source: Source,
    /// Whether the input ends, and every window is closed then.
    pub once: bool,
    /// The job's text.
    pub job: String,
    /// How many partitions the topic of trips has.
    pub partitions: i32,
    /// How many shards each query has.
    pub shards: u32,
}

/// Where a demo's rows come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The user's files, in order.
    Csv(Vec<PathBuf>),
    /// Generated ones.
    Generated {
        /// The seed.
        seed: u64,
        /// How many rows; endless if not given.
        rows: Option<u64>,
    },
}

#[derive(Serialize, Deserialize)]
struct Note {
    format: u32,
    origin: Origin,
}

/// Why a folder can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// The file system refuses.
    #[error("the folder {path} can't be used: {doing}")]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process uses it.
    #[error(
        "the folder {path} is in use by another process: stop that one, or name another folder with --dir"
    )]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// It was written by another version.
    #[error(
        "the folder {path} is of format {found}, and this version uses format {FORMAT}: name another folder with --dir"
    )]
    Format {
        /// The folder.
        path: PathBuf,
        /// The format found.
        found: u64,
    },
    /// It holds something else.
    #[error("the folder {path} is not empty and holds no demo: name another folder with --dir")]
    Foreign {
        /// The folder.
        path: PathBuf,
    },
    /// It was started with something else.
    #[error(
        "the folder {path} holds a demo that was started with another {what}: name another folder with --dir, or remove this one"
    )]
    Differs {
        /// The folder.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
}

impl Folder {
    /// Opens a demo's folder, or makes one.
    pub fn open(root: &Path, origin: &Origin) -> Result<Self, FolderError> {
        let failed = |doing| {
            move |source| FolderError::Io {
                path: root.to_owned(),
                doing,
                source,
            }
        };
        fs::create_dir_all(root).map_err(failed("it can't be made"))?;
        let root = root.canonicalize().map_err(failed("it can't be found"))?;
        let note = root.join(NOTE);
        let known = note.exists();
        let entries = fs::read_dir(&root).map_err(failed("it can't be listed"))?;
        let others = entries.flatten().any(|entry| {
            !["lock", "headway.json.new"].contains(&&*entry.file_name().to_string_lossy())
        });
        if !known && others {
            return Err(FolderError::Foreign { path: root });
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(root.join("lock"))
            .map_err(failed("its lock can't be opened"))?;
        if !FileExt::try_lock_exclusive(&lock).map_err(failed("its lock can't be taken"))? {
            return Err(FolderError::InUse { path: root });
        }
        if known {
            check(&root, origin)?;
        } else {
            write(&note, origin).map_err(failed("its note can't be written"))?;
        }
        Ok(Self {
            root,
            origin: origin.clone(),
            _lock: lock,
        })
    }

    /// Opens the folder of a demo that is not running.
    pub fn reopen(root: &Path) -> Result<Self, FolderError> {
        let failed = |doing| {
            move |source| FolderError::Io {
                path: root.to_owned(),
                doing,
                source,
            }
        };
        let root = root.canonicalize().map_err(failed("it can't be found"))?;
        if !root.join(NOTE).exists() {
            return Err(FolderError::Foreign { path: root });
        }
        let origin = read(&root)?;
        Self::open(&root, &origin)
    }

    /// What its demo was started with.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where the embedded log is.
    pub fn log(&self) -> PathBuf {
        self.root.join("log")
    }

    /// The embedded registry's file.
    pub fn registry(&self) -> PathBuf {
        self.root.join("registry.json")
    }

    /// Where generated files are.
    pub fn input(&self) -> PathBuf {
        self.root.join("input")
    }

    /// Where Parquet files are.
    pub fn lake(&self) -> PathBuf {
        self.root.join("lake")
    }

    /// The file of documents.
    pub fn documents(&self) -> PathBuf {
        self.root.join("documents.sqlite")
    }
}

fn read(root: &Path) -> Result<Origin, FolderError> {
    let note = root.join(NOTE);
    let failed = |doing| {
        move |source| FolderError::Io {
            path: root.join(NOTE),
            doing,
            source,
        }
    };
    let text = fs::read_to_string(&note).map_err(failed("its note can't be read"))?;
    let unreadable = |error| failed("its note can't be read")(io::Error::other(error));
    let found: serde_json::Value = serde_json::from_str(&text).map_err(unreadable)?;
    match found["format"].as_u64() {
        Some(format) if format == u64::from(FORMAT) => {}
        format => {
            return Err(FolderError::Format {
                path: root.to_owned(),
                found: format.unwrap_or(0),
            });
        }
    }
    let note: Note = serde_json::from_value(found).map_err(unreadable)?;
    Ok(note.origin)
}

fn check(root: &Path, origin: &Origin) -> Result<(), FolderError> {
    let known = read(root)?;
    let differs = |what| FolderError::Differs {
        path: root.to_owned(),
        what,
    };
    if known.source != origin.source {
        return Err(differs("input"));
    }
    if known.once != origin.once {
        return Err(differs("--once"));
    }
    if known.job != origin.job {
        return Err(differs("job"));
    }
    if (known.partitions, known.shards) != (origin.partitions, origin.shards) {
        return Err(differs("number of partitions or shards"));
    }
    Ok(())
}

fn write(note: &Path, origin: &Origin) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(&Note {
        format: FORMAT,
        origin: origin.clone(),
    })
    .map_err(io::Error::other)?;
    let fresh = note.with_extension("json.new");
    let mut file = File::create(&fresh)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(fresh, note)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn origin() -> Origin {
        Origin {
            source: Source::Generated {
                seed: 1,
                rows: Some(5),
            },
            once: true,
            job: "x".into(),
            partitions: 4,
            shards: 2,
        }
    }

    #[test]
    fn a_folder_goes_on_with_what_it_was_started_with() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("demo");
        drop(Folder::open(&root, &origin()).unwrap());
        drop(Folder::open(&root, &origin()).unwrap());
        let other = Origin {
            source: Source::Generated {
                seed: 2,
                rows: Some(5),
            },
            ..origin()
        };
        assert!(matches!(
            Folder::open(&root, &other),
            Err(FolderError::Differs { what: "input", .. })
        ));
    }

    #[test]
    fn a_folder_in_use_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let held = Folder::open(dir.path(), &origin()).unwrap();
        assert!(matches!(
            Folder::open(dir.path(), &origin()),
            Err(FolderError::InUse { .. })
        ));
        drop(held);
        Folder::open(dir.path(), &origin()).unwrap();
    }

    #[test]
    fn a_folder_of_another_version_or_of_something_else_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("headway.json"), r#"{"format": 99}"#).unwrap();
        assert!(matches!(
            Folder::open(dir.path(), &origin()),
            Err(FolderError::Format { found: 99, .. })
        ));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "").unwrap();
        assert!(matches!(
            Folder::open(dir.path(), &origin()),
            Err(FolderError::Foreign { .. })
        ));
    }
}
