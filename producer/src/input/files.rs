//! Files: checked before anything is sent, verified before a run goes on in the middle of one.

use std::collections::BTreeSet;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::row::{Mark, Taken};
use super::rows::RowReader;
use super::{Inputs, Next, Source};

/// What is wrong with a file before it is read.
#[derive(Debug, thiserror::Error)]
pub enum InputFault {
    /// There is none of that name.
    #[error("there is no such file")]
    Missing,
    /// It is a directory.
    #[error("it is a directory: name the files in it")]
    Directory,
    /// It is a device, a pipe or a socket.
    #[error("it is no ordinary file: a run that is stopped could not go on in it")]
    Special,
    /// It has no bytes.
    #[error("it is empty")]
    Empty,
    /// It is compressed.
    #[error("it is compressed with gzip: decompress it first (gunzip)")]
    Compressed,
    /// Its first line is no header.
    #[error("its first line is no header: {0}")]
    BadHeader(&'static str),
    /// It is named twice.
    #[error("it is named twice: its rows would be sent twice")]
    Twice,
    /// The operating system refuses it.
    #[error("it can't be read: {0}")]
    Unreadable(#[source] io::Error),
}

/// Files that can't be read, all of them.
#[derive(Debug)]
pub struct InputError(pub Vec<(PathBuf, InputFault)>);

impl fmt::Display for InputError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0[..] {
            [] => f.write_str("no input files are named"),
            [(path, fault)] => write!(f, "{}: {fault}", path.display()),
            faults => {
                f.write_str("some input files can't be used; nothing was sent:")?;
                faults
                    .iter()
                    .try_for_each(|(path, fault)| write!(f, "\n  {}: {fault}", path.display()))
            }
        }
    }
}

impl std::error::Error for InputError {}

/// The files of a run, under their id.
pub struct InputSet {
    /// The id: the key of the position and the base of the transactional id.
    pub id: String,
    /// The names of the files, where they are known from the start.
    pub names: Vec<String>,
    /// The files.
    pub inputs: Box<dyn Inputs>,
    /// Whether the id was derived from the files.
    pub derived: bool,
}

impl InputSet {
    /// The set of a source, its files checked, under an id of the caller's or a derived one.
    ///
    /// # Errors
    /// Every file that can't be used.
    pub fn new(source: Source, id: Option<String>, topic: &str) -> Result<Self, InputError> {
        match source {
            Source::Named { id, inputs } => Ok(Self {
                id,
                names: Vec::new(),
                inputs,
                derived: false,
            }),
            Source::Files(paths) => {
                let list = FileList::new(paths)?;
                let names: Vec<String> = list.paths.iter().map(|path| display_name(path)).collect();
                let derived = id.is_none();
                let id = id.unwrap_or_else(|| derived_id(&names, topic));
                Ok(Self {
                    id,
                    names,
                    inputs: Box::new(list),
                    derived,
                })
            }
        }
    }

    /// How many bytes the files before number `index` have.
    pub fn bytes_before(&mut self, index: usize) -> u64 {
        (0..index)
            .filter_map(|index| match self.inputs.file(index) {
                Ok(Next::File(path)) => path.metadata().ok().map(|metadata| metadata.len()),
                _ => None,
            })
            .sum()
    }
}

/// The id of a set of files on their way to a topic: the same for the same files, in whichever order.
pub fn derived_id(names: &[String], topic: &str) -> String {
    let sorted: BTreeSet<&str> = names.iter().map(String::as_str).collect();
    let mut hash = Sha256::new();
    for part in [topic].into_iter().chain(sorted) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize()
        .iter()
        .take(12)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// A file's name as positions and dead letters have it.
pub(crate) fn display_name(path: &Path) -> String {
    path.canonicalize()
        .unwrap_or_else(|_| path.to_owned())
        .to_string_lossy()
        .into_owned()
}

/// Files that are known from the start.
struct FileList {
    paths: Vec<PathBuf>,
    bytes: u64,
}

impl FileList {
    fn new(paths: Vec<PathBuf>) -> Result<Self, InputError> {
        let (mut faults, mut seen, mut bytes) = (Vec::new(), BTreeSet::new(), 0);
        for path in &paths {
            match check_file(path) {
                Ok(length) => bytes += length,
                Err(fault) => {
                    faults.push((path.clone(), fault));
                    continue;
                }
            }
            if !seen.insert(display_name(path)) {
                faults.push((path.clone(), InputFault::Twice));
            }
        }
        if faults.is_empty() && !paths.is_empty() {
            Ok(Self { paths, bytes })
        } else {
            Err(InputError(faults))
        }
    }
}

impl Inputs for FileList {
    fn file(&mut self, index: usize) -> Result<Next, Box<dyn std::error::Error + Send + Sync>> {
        Ok(self
            .paths
            .get(index)
            .map_or(Next::NoMore, |path| Next::File(path.clone())))
    }

    fn total_bytes(&self) -> Option<u64> {
        Some(self.bytes)
    }
}

/// Looks whether a file can be read; its size.
pub(crate) fn check_file(path: &Path) -> Result<u64, InputFault> {
    let metadata = path.metadata().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => InputFault::Missing,
        _ => InputFault::Unreadable(error),
    })?;
    if metadata.is_dir() {
        return Err(InputFault::Directory);
    }
    if !metadata.is_file() {
        return Err(InputFault::Special);
    }
    if metadata.len() == 0 {
        return Err(InputFault::Empty);
    }
    let mut first = Vec::new();
    File::open(path)
        .and_then(|file| file.take(2).read_to_end(&mut first))
        .map_err(InputFault::Unreadable)?;
    if first == [0x1f, 0x8b] {
        return Err(InputFault::Compressed);
    }
    Ok(metadata.len())
}

/// The names in a file's first row.
pub(crate) fn header(path: &Path) -> Result<Vec<String>, InputFault> {
    let file = File::open(path).map_err(InputFault::Unreadable)?;
    let mut reader = RowReader::new(file, Mark::start());
    match reader.next_row().map_err(InputFault::Unreadable)? {
        Some(Taken::Row(row)) => {
            let name =
                |index| std::str::from_utf8(row.field(index)).map(|name| name.trim().to_owned());
            (0..row.len())
                .map(name)
                .collect::<Result<_, _>>()
                .map_err(|_| InputFault::BadHeader("it is not UTF-8"))
        }
        Some(Taken::Broken(broken)) => Err(InputFault::BadHeader(broken.reason.explanation())),
        None => Err(InputFault::BadHeader("the file has empty lines only")),
    }
}

/// Opens a file at a mark.
pub(crate) fn open(path: &Path, mark: Mark) -> io::Result<RowReader<File>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(mark.byte))?;
    Ok(RowReader::new(file, mark))
}

/// The mark behind the first `bytes` bytes of a file; `None` if it has fewer.
pub(crate) fn verify(path: &Path, bytes: u64) -> io::Result<Option<Mark>> {
    let mut file = File::open(path)?.take(bytes);
    let mut mark = Mark::start();
    let mut buffer = vec![0; 256 << 10];
    while mark.byte < bytes {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(None),
            Ok(read) => mark.take(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(mark))
}
