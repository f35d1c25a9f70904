//! The groups as they are written down, and from what was written down.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::BooleanBufferBuilder;
use arrow::record_batch::RecordBatch;

use super::{Interval, Key, Keyed};
use crate::fold::Run;
use crate::fold::blocks::Block;
use crate::fold::image::{Image, ImageError, ImageRun, Numbers};
use crate::plan::Query;
use crate::spill::InMemory;
use crate::window::Window;

impl Keyed {
    /// Puts the batches into an image, and which of their rows are part of a group.
    pub(in crate::fold) fn draw(&self, image: &mut Image) {
        image.head.closed_to = self.closed_to;
        image.head.next_run = self.next_run;
        image.head.held_rows = self.held_rows as u64;
        let mut live: BTreeMap<u64, (&RecordBatch, BooleanBufferBuilder)> = BTreeMap::new();
        let intervals = self.groups.values().flat_map(|group| group.iter());
        for (run, row) in intervals.flat_map(|interval| &interval.pieces) {
            let (_, live) = live.entry(run.number).or_insert_with(|| {
                let mut none = BooleanBufferBuilder::new(run.rows.num_rows());
                none.append_n(run.rows.num_rows(), false);
                (&run.rows, none)
            });
            live.set_bit(*row as usize, true);
        }
        for (number, (rows, mut live)) in live {
            let live = live.finish();
            // What is in memory has room there.
            let Ok(block) = Block::new(number, rows.clone(), &InMemory) else {
                continue;
            };
            image.runs.push(ImageRun {
                place: 0,
                part: 0,
                parts: 1,
                live: (live.count_set_bits() < live.len()).then_some(live),
                block,
            });
        }
    }

    /// The groups of an image.
    pub(in crate::fold) fn restore(
        window: Window,
        query: &Query,
        image: Image,
    ) -> Result<Self, ImageError> {
        let mut keyed = Self::new(window);
        keyed.closed_to = image.head.closed_to;
        keyed.next_run = image.head.next_run;
        keyed.held_rows = usize::try_from(image.head.held_rows).unwrap_or(usize::MAX);
        let mut numbers = Numbers::new(&image.head);
        let mut by_key: HashMap<Key, Vec<Interval>> = HashMap::new();
        for run in image.runs {
            let number = run.block.number;
            let wrong = || ImageError::Run { number };
            numbers.take(number)?;
            let rows = run.block.load()?;
            let total = rows.num_rows();
            let other_live = run.live.as_ref().is_some_and(|live| live.len() != total);
            if other_live || run.parts != 1 || run.place != 0 {
                return Err(wrong());
            }
            let keys = query.key_bytes(&rows)?;
            let (starts, ends) = keyed.times_of(&rows);
            let batch = Arc::new(Run { number, rows });
            for row in 0..total {
                if run.live.as_ref().is_some_and(|live| !live.value(row)) {
                    continue;
                }
                let key = keys.as_ref().map(|keys| keys.row(row));
                let key = key.as_ref().map_or(&[][..], |key| key.data());
                let piece = Interval {
                    start: starts[row],
                    end: ends[row],
                    pieces: vec![(Arc::clone(&batch), row as u32)],
                };
                match by_key.get_mut(key) {
                    Some(pieces) => pieces.push(piece),
                    None => {
                        by_key.insert(Key::from(key), vec![piece]);
                    }
                }
            }
        }
        for (key, pieces) in by_key {
            let intervals = keyed.unite(pieces);
            for interval in &intervals {
                keyed.pieces += interval.pieces.len();
                keyed.note_time(interval, &key);
            }
            keyed.groups.insert_mut(key, Arc::new(intervals));
        }
        Ok(keyed)
    }
}
