//! A fold as it is written down, and a fold from what was written down.
//!
//! The batches of a fold never change, and have numbers: whoever has written a batch down need not do so again. What is
//! restored from an image is the fold that it was drawn of, to the last bit of every later result.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::buffer::BooleanBuffer;
use arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::{Counts, Fold, State, keyed::Keyed, panes::Panes};
use crate::history::History;
use crate::plan::{FragmentError, Query};
use crate::watermark::Watermark;

/// The version of the image's layout that this code writes, and the only one that it reads.
pub const IMAGE_VERSION: u32 = 1;

/// A fold, written down.
#[derive(Clone, Debug)]
pub struct Image {
    /// What is not in batches.
    pub head: Head,
    /// The batches, in no particular order but that those of one place stand in the order of their numbers.
    pub runs: Vec<ImageRun>,
    /// What [`anomaly_score`](crate::functions) remembers: groups and their windows; `None` if that is nothing.
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
}

/// A batch of an image.
#[derive(Clone, Debug)]
pub struct ImageRun {
    /// Its number: no other batch of this fold has it, ever.
    pub number: u64,
    /// The start of the pane that it is in, in milliseconds since 1970; 0 where groups are kept by key.
    pub place: i64,
    /// Which of its rows are still part of the state; `None`: all.
    pub live: Option<BooleanBuffer>,
    /// Its rows, with the columns of [`Query::partial`].
    pub rows: RecordBatch,
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
    pub fn restore(query: Arc<Query>, fingerprint: u64, image: Image) -> Result<Self, ImageError> {
        if image.head.version != IMAGE_VERSION {
            return Err(ImageError::Format {
                found: image.head.version,
            });
        }
        if image.head.fingerprint != fingerprint {
            return Err(ImageError::Fingerprint);
        }
        let mut fold = Self::new(Arc::clone(&query), fingerprint);
        if let Some(rows) = &image.history {
            fold.history = History::from_rows(rows, query.scores()).ok_or(ImageError::Columns)?;
        }
        fold.topic_id.clone_from(&image.head.topic_id);
        fold.ranges.clone_from(&image.head.ranges);
        fold.watermark = image.head.watermark.clone();
        fold.counts = image.head.counts;
        let window = fold.window();
        fold.state = match window.size_ms() {
            Some(size_ms) => State::Panes(Panes::restore(window, size_ms, &query, image)?),
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
pub(super) fn columns_of(query: &Query, rows: &RecordBatch) -> Result<RecordBatch, ImageError> {
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
