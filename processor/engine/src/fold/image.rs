//! A fold as it is written down, and a fold from what was written down.
//!
//! The batches of a fold never change, and have numbers: whoever has written a batch down need not do so again. What is
//! restored from an image is the fold that it was drawn of, to the last bit of every later result.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::AsArray;
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::Int64Type;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::blocks::Block;
use super::{Counts, Fold, FoldError, State, by_panes, keyed::Keyed, panes::Panes, window_of};
use crate::history::History;
use crate::plan::{FragmentError, Query};
use crate::spill::{Spill, SpillError};
use crate::watermark::Watermark;

/// The version of the image's layout that this code writes, and the only one that it reads.
pub const IMAGE_VERSION: u32 = 1;

/// A fold, written down.
#[derive(Clone, Debug)]
pub struct Image {
    /// What is not in batches.
    pub head: Head,
    /// The batches, in the order of their numbers within each place.
    pub runs: Vec<ImageRun>,
    /// What `anomaly_score` remembers: groups and their windows; `None` if that is nothing.
    pub history: Option<RecordBatch>,
}

/// What a fold holds beside its batches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// [`IMAGE_VERSION`].
    pub version: u32,
    /// The job's fingerprint, hashed (see [`crate::partial::fingerprint_hash`]).
    pub fingerprint: u64,
    /// The source topic's id, once a partial has named it.
    pub topic_id: Option<String>,
    /// Where the next range of each source partition begins.
    pub ranges: std::collections::BTreeMap<i32, i64>,
    /// How far event time has come.
    pub watermark: Watermark,
    /// What was taken.
    pub counts: Counts,
    /// Windows that end here or before are closed; milliseconds since 1970.
    pub closed_to: i64,
    /// The number of the next batch.
    pub next_run: u64,
    /// Rows of batches that may be part of a group.
    pub held_rows: u64,
    /// Into blocks of how many rows its runs are cut.
    pub block_rows: usize,
}

/// A batch of an image.
#[derive(Clone, Debug)]
pub struct ImageRun {
    /// The start of the pane that it is in, in milliseconds since 1970; 0 where groups are kept by key.
    pub place: i64,
    /// Which part it is of a run that is cut by the hash of keys; the parts of a run stand behind one another.
    pub part: u32,
    /// How many parts the run has: a power of two.
    pub parts: u32,
    /// Which of its rows are still part of the state; `None`: all.
    pub live: Option<BooleanBuffer>,
    /// Its number, which no other batch of this fold has, ever, and its rows, with the columns of [`Query::partial`].
    pub block: Block,
}

impl ImageRun {
    /// A batch as it was written down, for the fold of this query.
    ///
    /// # Errors
    /// It has other columns, or is not of this place; or there is no room for it.
    pub fn read(
        query: &Query,
        number: u64,
        place: i64,
        (part, parts): (u32, u32),
        live: Option<BooleanBuffer>,
        rows: &RecordBatch,
        spill: &dyn Spill,
    ) -> Result<Self, ImageError> {
        let rows = columns_of(query, rows)?;
        let starts = rows.column(0).as_primitive::<Int64Type>();
        let astray = match by_panes(query) {
            Some(_) => starts.values().iter().any(|start| *start != place),
            None => place != 0,
        };
        if astray {
            return Err(ImageError::Run { number });
        }
        Ok(Self {
            place,
            part,
            parts,
            live,
            block: Block::new(number, rows, spill)?,
        })
    }
}

/// Why an image is not one of this query's fold.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// Written by another version of the program.
    #[error("the state is in format {found}; this program reads format {IMAGE_VERSION}")]
    Format {
        /// The image's format.
        found: u32,
    },
    /// Written by another job.
    #[error(
        "the state was written by a job with another fingerprint than this one's; run the changed job under a new application id"
    )]
    Fingerprint,
    /// The rows do not have the columns of this query's partials, or of its history.
    #[error("the rows of the state do not have this job's columns")]
    Columns,
    /// A batch contradicts what is said of it.
    #[error("batch {number} of the state is not what the manifest says of it")]
    Run {
        /// Which.
        number: u64,
    },
    /// Keys can't be worked out.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// Rows can't be kept, or not be read back.
    #[error(transparent)]
    Spill(#[from] SpillError),
}

impl Fold {
    /// What is to be written down so that [`Fold::restore`] gives this fold. Changes that were not taken yet are not part
    /// of it.
    pub fn image(&self) -> Image {
        let mut image = Image {
            head: Head {
                version: IMAGE_VERSION,
                fingerprint: self.fingerprint,
                topic_id: self.topic_id.clone(),
                ranges: self.ranges.clone(),
                watermark: self.watermark.clone(),
                counts: self.counts,
                closed_to: i64::MIN,
                next_run: 0,
                held_rows: 0,
                block_rows: self.keeping.block_rows,
            },
            runs: Vec::new(),
            history: self.history.rows(self.query.scores()),
        };
        match &self.state {
            State::Panes(panes) => panes.draw(&mut image),
            State::Keyed(keyed) => keyed.draw(&mut image),
        }
        image
    }

    /// The fold that an image was drawn of.
    ///
    /// # Errors
    /// It is of another job or version, or contradicts itself.
    pub fn restore(
        query: Arc<Query>,
        fingerprint: u64,
        image: Image,
        spill: Arc<dyn Spill>,
    ) -> Result<Self, ImageError> {
        if image.head.version != IMAGE_VERSION {
            return Err(ImageError::Format {
                found: image.head.version,
            });
        }
        if image.head.fingerprint != fingerprint {
            return Err(ImageError::Fingerprint);
        }
        let mut fold = Self::with_spill(Arc::clone(&query), fingerprint, spill);
        if let Some(rows) = &image.history {
            fold.history = History::from_rows(rows, query.scores()).ok_or(ImageError::Columns)?;
        }
        fold.topic_id.clone_from(&image.head.topic_id);
        fold.ranges.clone_from(&image.head.ranges);
        fold.watermark = image.head.watermark.clone();
        fold.counts = image.head.counts;
        fold.keeping.block_rows = image.head.block_rows.max(1);
        let window = window_of(&query);
        fold.state = match by_panes(&query) {
            Some(size_ms) => State::Panes(Panes::restore(window, size_ms, image)?),
            None => State::Keyed(Keyed::restore(window, &query, image)?),
        };
        Ok(fold)
    }

    /// How many rows an image of this fold would have, about.
    pub fn held_rows(&self) -> usize {
        let rows = match &self.state {
            State::Panes(panes) => panes.rows(),
            State::Keyed(keyed) => keyed.rows(),
        };
        rows + self.history.len()
    }
}

impl From<FoldError> for ImageError {
    fn from(error: FoldError) -> Self {
        match error {
            FoldError::Fragment(error) => Self::Fragment(error),
            FoldError::Spill(error) => Self::Spill(error),
            _ => Self::Columns,
        }
    }
}

/// Whether numbers are new, and less than the fold's next one.
pub(super) struct Numbers {
    next: u64,
    seen: BTreeSet<u64>,
}

impl Numbers {
    pub(super) fn new(head: &Head) -> Self {
        Self {
            next: head.next_run,
            seen: BTreeSet::new(),
        }
    }

    pub(super) fn take(&mut self, number: u64) -> Result<(), ImageError> {
        match number < self.next && self.seen.insert(number) {
            true => Ok(()),
            false => Err(ImageError::Run { number }),
        }
    }
}

/// The rows with the query's own schema, after a check that they have its columns.
fn columns_of(query: &Query, rows: &RecordBatch) -> Result<RecordBatch, ImageError> {
    let fields = query.partial.fields();
    let same = rows.num_columns() == fields.len()
        && rows
            .schema_ref()
            .fields()
            .iter()
            .zip(fields)
            .all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
    if !same {
        return Err(ImageError::Columns);
    }
    RecordBatch::try_new(Arc::clone(&query.partial), rows.columns().to_vec())
        .map_err(|_| ImageError::Columns)
}
