//! A window that is over, and its results: a piece at a time, so that a window of any size can be given.

use arrow::compute::concat_batches;
use arrow::record_batch::RecordBatch;

use super::blocks::{Blocks, Pieces};
use super::{Fold, FoldError, source_rows, with_start};
use crate::plan::Query;

/// A window that the watermark has passed, or several sessions.
#[derive(Clone, Debug)]
pub struct ClosedWindow {
    /// The window's start, in milliseconds since 1970; of sessions, the first one's.
    pub start: i64,
    /// The first millisecond behind it; of sessions, behind the last one to end.
    pub end: i64,
    /// How many: one, or the number of sessions.
    pub windows: u64,
    pub(super) source: Source,
}

/// What a window's results are made of.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Runs of panes, to be put under the window's start if they are of several.
    Runs {
        runs: Vec<Blocks>,
        under: Option<i64>,
    },
    /// Rows, no group in more than one batch.
    Rows(Vec<RecordBatch>),
}

/// The results of a closed window that are still to be given.
#[derive(Debug)]
pub struct ClosedPieces {
    rest: Rest,
    next: usize,
}

#[derive(Debug)]
enum Rest {
    Pieces {
        pieces: Pieces,
        under: Option<i64>,
    },
    All {
        runs: Vec<Blocks>,
        under: Option<i64>,
    },
    Rows(Vec<RecordBatch>),
}

impl ClosedPieces {
    /// Which piece comes next. Whoever folds the same partials has the same pieces.
    pub fn position(&self) -> usize {
        self.next
    }

    pub(super) fn batches(&mut self, query: &Query) -> Result<Option<Vec<RecordBatch>>, FoldError> {
        let (found, under) = match &mut self.rest {
            Rest::Pieces { pieces, under } => (pieces.next(query)?, *under),
            Rest::All { runs, under } => match self.next {
                0 => (Some(Pieces::all(runs)?), *under),
                _ => (None, None),
            },
            Rest::Rows(rows) => {
                let piece = rows.get(self.next).cloned();
                (piece.map(|rows| vec![rows]), None)
            }
        };
        self.next += usize::from(found.is_some());
        let (Some(batches), Some(start)) = (&found, under) else {
            return Ok(found);
        };
        let moved = batches.iter().map(|rows| with_start(rows, start));
        Ok(Some(moved.collect::<Result<_, _>>()?))
    }
}

impl Fold {
    /// The results of a closed window from this piece on. Each piece must be asked for once, in the order in which windows
    /// were closed, also while state is restored: scores compare with the windows before (see
    /// [`Query::has_history`](crate::plan::Query::has_history)).
    pub fn pieces(&self, closed: &ClosedWindow, from: usize) -> ClosedPieces {
        let rest = match &closed.source {
            Source::Rows(rows) => Rest::Rows(rows.clone()),
            // The first of all groups can be told only from all groups.
            Source::Runs { runs, under } if self.query.is_ranked() => Rest::All {
                runs: runs.clone(),
                under: *under,
            },
            Source::Runs { runs, under } => Rest::Pieces {
                pieces: Pieces::new(&self.query, runs, from, self.keeping.block_rows),
                under: *under,
            },
        };
        ClosedPieces { rest, next: from }
    }

    /// The next piece of a closed window's results, `None` behind the last one. A piece may be empty.
    ///
    /// # Errors
    /// A fragment failed, or rows can't be read back.
    pub fn next_results(
        &mut self,
        pieces: &mut ClosedPieces,
    ) -> Result<Option<RecordBatch>, FoldError> {
        let Some(batches) = pieces.batches(&self.query)? else {
            return Ok(None);
        };
        let results = self.query.finish(&batches, true, &mut self.history)?;
        self.raised(results).map(Some)
    }

    /// How many of these closed windows, from the first on, are so small that [`Fold::results_together`] may give them at
    /// once: each is of one piece, and all of them have at most this many partial rows.
    pub fn together(&self, closed: &[ClosedWindow], most_rows: usize) -> usize {
        let mut rows = 0;
        let small = |closed: &&ClosedWindow| {
            let Source::Runs { runs, .. } = &closed.source else {
                return false;
            };
            let of_this: usize = runs.iter().map(|run| run.rows).sum();
            rows += of_this;
            rows <= most_rows
                && of_this <= self.keeping.block_rows
                && runs.iter().all(Blocks::is_one)
        };
        closed.iter().take_while(small).count()
    }

    /// The results of several closed windows that are of one piece each, in their order: what [`Fold::next_results`] gives
    /// of one after the other.
    ///
    /// # Errors
    /// A fragment failed, or rows can't be read back.
    pub fn results_together(&mut self, closed: &[ClosedWindow]) -> Result<RecordBatch, FoldError> {
        let mut all = Vec::new();
        for closed in closed {
            let mut pieces = self.pieces(closed, 0);
            while let Some(batches) = pieces.batches(&self.query)? {
                all.extend(batches);
            }
        }
        let results = self.query.finish(&all, true, &mut self.history)?;
        self.raised(results)
    }

    /// How many row × window pairs are in a closed window.
    ///
    /// # Errors
    /// Rows can't be read back.
    pub fn pairs_of(&self, closed: &ClosedWindow) -> Result<u64, FoldError> {
        let mut pieces = self.pieces(closed, 0);
        let mut pairs = 0;
        while let Some(batches) = pieces.batches(&self.query)? {
            pairs += batches.iter().map(source_rows).sum::<u64>();
        }
        Ok(pairs)
    }

    /// All results of a closed window.
    ///
    /// # Errors
    /// A fragment failed, or rows can't be read back.
    pub fn results(&mut self, closed: &ClosedWindow) -> Result<RecordBatch, FoldError> {
        let mut pieces = self.pieces(closed, 0);
        let mut results = Vec::new();
        while let Some(piece) = self.next_results(&mut pieces)? {
            results.push(piece);
        }
        if let [one] = results.as_slice() {
            return Ok(one.clone());
        }
        concat_batches(&self.query.output, &results).map_err(|_| FoldError::Columns)
    }
}
