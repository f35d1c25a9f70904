//! Where rows come from: files in an order, and the rows in them.

mod files;
mod quoted;
mod row;
mod rows;

pub use files::{InputError, InputFault, InputSet, derived_id};
pub(crate) use files::{check_file, display_name, header, open, verify};
pub use row::{Broken, MAX_RAW_BYTES, Mark, Row, Taken};
pub use rows::{MAX_ROW_BYTES, RowReader};

use std::path::PathBuf;

/// The next file of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Here it is, complete.
    File(PathBuf),
    /// There will be one, but not yet.
    NotYet,
    /// There is none, and there will be none.
    NoMore,
}

/// A source of files in a fixed order. A file, once given, must be given again under its number after a restart, with
/// the same bytes.
pub trait Inputs: Send {
    /// The file of this number, from 0.
    ///
    /// # Errors
    /// Anything that ends the run: its rows up to here are committed, and the error is returned.
    fn file(&mut self, index: usize) -> Result<Next, Box<dyn std::error::Error + Send + Sync>>;

    /// How many bytes all files have together, where that is known.
    fn total_bytes(&self) -> Option<u64> {
        None
    }
}

/// What a run reads.
pub enum Source {
    /// These files, in this order. The input set's id is derived from their paths and the topic.
    Files(Vec<PathBuf>),
    /// These files, under an id of the caller's: a restart with the same id goes on, and two instances with the same id
    /// fence each other.
    Named {
        /// The input set's id.
        id: String,
        /// The files.
        inputs: Box<dyn Inputs>,
    },
}
