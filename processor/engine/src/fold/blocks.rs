//! A run of partial rows of one pane, cut into blocks by the hash of the group key, so that neither a merge nor a result
//! needs all of it in memory at once.
//!
//! ```text
//!   bits = 0      [ all keys ]
//!   bits = 2      [ 00… ][ 01… ][ 10… ][ 11… ]        block i: the keys whose hash begins with i
//! ```
//!
//! Runs that are merged may be cut differently: a coarser one's block is taken apart when the finer ones reach it, one
//! block of each run in memory.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use arrow::record_batch::RecordBatch;

use super::FoldError;
use crate::plan::Query;
use crate::shard;
use crate::spill::{Kept, Spill, SpillError, bytes_of};

/// How many rows a block has at most, about. Frozen, because how far results are out is committed in pieces of this size.
pub(super) const BLOCK_ROWS: usize = 65_536;
/// The finest cut.
const MAX_BITS: u32 = 14;

/// How the batches of a fold are kept.
#[derive(Clone, Debug)]
pub(super) struct Keeping {
    pub(super) spill: Arc<dyn Spill>,
    pub(super) block_rows: usize,
}

/// An immutable batch of the state.
#[derive(Clone, Debug)]
pub struct Block {
    /// Its number: given in the order of the fold, so that whoever folds the same partials numbers them alike.
    pub number: u64,
    /// How many rows it has.
    pub rows: usize,
    /// About how many bytes they take in memory.
    pub bytes: usize,
    kept: Arc<dyn Kept>,
}

impl Block {
    pub(super) fn new(
        number: u64,
        rows: RecordBatch,
        spill: &dyn Spill,
    ) -> Result<Self, SpillError> {
        Ok(Self {
            number,
            rows: rows.num_rows(),
            bytes: bytes_of(&rows),
            kept: spill.keep(rows)?,
        })
    }

    /// The rows.
    ///
    /// # Errors
    /// They can't be read back.
    pub fn load(&self) -> Result<RecordBatch, SpillError> {
        self.kept.rows()
    }
}

/// A run: its blocks, 2^bits of them.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    pub(super) blocks: Arc<Vec<Block>>,
    pub(super) rows: usize,
}

impl Blocks {
    /// A run of one block.
    pub(super) fn one(
        next: &mut u64,
        rows: RecordBatch,
        keeping: &Keeping,
    ) -> Result<Self, FoldError> {
        let block = Block::new(number(next), rows, keeping.spill.as_ref())?;
        Ok(Self::of(vec![block]))
    }

    /// A run of these blocks, whose number is a power of two.
    pub(super) fn of(blocks: Vec<Block>) -> Self {
        Self {
            rows: blocks.iter().map(|block| block.rows).sum(),
            blocks: Arc::new(blocks),
        }
    }

    /// The number of its first block: later runs have higher ones.
    pub(super) fn number(&self) -> u64 {
        self.blocks.first().map_or(0, |block| block.number)
    }

    fn bits(&self) -> u32 {
        self.blocks.len().ilog2()
    }

    /// Whether it is not cut.
    pub(super) fn is_one(&self) -> bool {
        self.blocks.len() == 1
    }

    /// One run of the rows of several.
    pub(super) fn merge(
        query: &Query,
        runs: &[Self],
        next: &mut u64,
        keeping: &Keeping,
    ) -> Result<Self, FoldError> {
        let mut pieces = Pieces::new(query, runs, 0, keeping.block_rows);
        let mut blocks = Vec::new();
        while let Some(batches) = pieces.next(query)? {
            let merged = query.merge(&batches)?;
            blocks.push(Block::new(number(next), merged, keeping.spill.as_ref())?);
        }
        Ok(Self::of(blocks))
    }
}

fn number(next: &mut u64) -> u64 {
    let number = *next;
    *next += 1;
    number
}

/// Runs side by side, a piece of the hashes after the other.
#[derive(Debug)]
pub(super) struct Pieces {
    runs: Vec<(Blocks, VecDeque<RecordBatch>)>,
    bits: u32,
    at: usize,
}

impl Pieces {
    /// All pieces from the given one on.
    pub(super) fn new(query: &Query, runs: &[Blocks], from: usize, block_rows: usize) -> Self {
        let rows: usize = runs.iter().map(|run| run.rows).sum();
        let finest = runs.iter().map(Blocks::bits).max().unwrap_or(0);
        let wanted = match query.keys {
            0 => 0,
            _ => rows.div_ceil(block_rows).next_power_of_two().ilog2(),
        };
        Self {
            runs: runs
                .iter()
                .map(|run| (run.clone(), VecDeque::new()))
                .collect(),
            bits: wanted.min(MAX_BITS).max(finest),
            at: from,
        }
    }

    /// The batches of all pieces at once, those of earlier runs first.
    pub(super) fn all(runs: &[Blocks]) -> Result<Vec<RecordBatch>, FoldError> {
        let blocks = runs.iter().flat_map(|run| run.blocks.iter());
        let filled = blocks.filter(|block| block.rows > 0);
        Ok(filled.map(Block::load).collect::<Result<_, _>>()?)
    }

    /// The batches of the next piece, those of earlier runs first.
    pub(super) fn next(&mut self, query: &Query) -> Result<Option<Vec<RecordBatch>>, FoldError> {
        if self.at >= 1 << self.bits {
            return Ok(None);
        }
        let mut batches = Vec::with_capacity(self.runs.len());
        for (run, waiting) in &mut self.runs {
            if waiting.is_empty() {
                let finer = self.bits - run.bits();
                let rows = run.blocks[self.at >> finer].load()?;
                waiting.extend(cut(query, &rows, run.bits(), finer)?);
                // Where it begins in the middle of a block, the pieces before are over.
                waiting.drain(..self.at & ((1 << finer) - 1));
            }
            batches.extend(waiting.pop_front().filter(|rows| rows.num_rows() > 0));
        }
        self.at += 1;
        Ok(Some(batches))
    }
}

/// Takes a block of `bits` apart into 2^finer pieces. Rows keep their order.
fn cut(
    query: &Query,
    rows: &RecordBatch,
    bits: u32,
    finer: u32,
) -> Result<Vec<RecordBatch>, FoldError> {
    if finer == 0 {
        return Ok(vec![rows.clone()]);
    }
    let keys = &rows.columns()[1..=query.keys];
    let hashes = shard::hashes(keys, rows.num_rows()).map_err(|_| FoldError::Columns)?;
    let mut places: Vec<Vec<u32>> = vec![Vec::new(); 1 << finer];
    for (row, hash) in hashes.iter().enumerate() {
        let piece = (hash << bits) >> (64 - finer);
        // A batch has fewer rows than u32 can count: Arrow's own kernels index rows with it.
        places[piece as usize].push(row as u32);
    }
    places
        .into_iter()
        .map(|places| {
            take_record_batch(rows, &UInt32Array::from(places)).map_err(|_| FoldError::Columns)
        })
        .collect()
}
