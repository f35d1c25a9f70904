//! A look into the fold: the results that open windows and groups have now. Nothing in the fold changes.

use arrow::record_batch::RecordBatch;

use super::closed::{ClosedPieces, ClosedWindow, Source};
use super::{Fold, FoldError, State};
use crate::spill::bytes_of;

impl ClosedWindow {
    /// About how many bytes its partial rows take in memory.
    pub fn bytes(&self) -> usize {
        match &self.source {
            Source::Rows(rows) => rows.iter().map(bytes_of).sum(),
            Source::Runs { runs, .. } => {
                let blocks = runs.iter().flat_map(|run| run.blocks.iter());
                blocks.map(|block| block.bytes).sum()
            }
        }
    }
}

impl Fold {
    /// What is open now, as if it were closed, put together as the iterator goes on: windows in order of their ends, groups
    /// in that of their keys.
    pub fn open(&self) -> Box<dyn Iterator<Item = Result<ClosedWindow, FoldError>> + '_> {
        match &self.state {
            State::Panes(panes) => Box::new(panes.as_closed().map(Ok)),
            State::Keyed(keyed) => keyed.as_closed(self.keeping.block_rows),
        }
    }

    /// The next piece of the results that a window would have if nothing more came, `None` behind the last one: what
    /// `emit = 'changes'` would say of it, whatever the sink asks for.
    ///
    /// # Errors
    /// A fragment failed, or rows can't be read back.
    pub fn next_provisional(
        &self,
        pieces: &mut ClosedPieces,
    ) -> Result<Option<RecordBatch>, FoldError> {
        let Some(batches) = pieces.batches(&self.query)? else {
            return Ok(None);
        };
        // Only final results teach the history anything, and a copy shares all with its original.
        let results = self
            .query
            .finish(&batches, false, &mut self.history.clone())?;
        self.raised(results).map(Some)
    }

    /// Whether a window's results come in one piece, whatever their size: its groups are ranked.
    pub fn is_ranked(&self) -> bool {
        self.query.is_ranked()
    }
}
