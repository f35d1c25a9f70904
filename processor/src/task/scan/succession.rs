//! A source partition that queries without state read which take over queries of an earlier application: it is read no
//! further than that one has read it, and what that one gave is left out.

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use runtime::log::Offset;

use super::ScanTask;

/// How far the application is that is taken over.
#[derive(Clone, Copy)]
pub(super) enum Ahead {
    /// It has given the results of what lies below this offset, and may go on.
    Running(Offset),
    /// It gives nothing more.
    HandedOver(Offset),
}

impl ScanTask {
    /// Whether it is not known yet where results are to be given for another application.
    pub fn follows(&self) -> bool {
        let known = self.state.succession.as_ref();
        known.is_some_and(|known| known.from.is_none())
    }

    /// Up to which offset the partition may be read; `None`: anywhere.
    pub fn limit(&self) -> Option<Offset> {
        match self.ahead {
            Ahead::Running(offset) if self.follows() => Some(offset),
            _ => None,
        }
    }

    /// Takes note that the application that is taken over has given the results of what lies below this offset.
    pub fn predecessor_at(&mut self, offset: Offset) {
        if !matches!(self.ahead, Ahead::HandedOver(_)) {
            self.ahead = Ahead::Running(offset);
        }
    }

    /// Takes note that it gives nothing more, and what lies below this offset is given.
    pub fn handed_over(&mut self, from: Offset) {
        self.ahead = Ahead::HandedOver(from);
        self.settle();
    }

    pub(super) fn settle(&mut self) {
        if let (Ahead::HandedOver(from), Some(known)) = (self.ahead, &mut self.state.succession)
            && known.from.is_none()
        {
            known.from = Some(from);
            // So that it is committed, whether rows come or not.
            self.range.mark_due = true;
        }
    }

    /// Below which offset results are given by another application; nothing else is read before that is certain.
    pub(super) fn given_before(&self) -> Offset {
        let known = self.state.succession.as_ref();
        match known.and_then(|known| known.from) {
            Some(from) => from,
            None => Offset::MAX,
        }
    }
}

/// The results of source records from this offset on; counts the others.
pub(super) fn leave_out(
    results: RecordBatch,
    offsets: &[Offset],
    given_before: Offset,
    left_out: &mut u64,
) -> Result<RecordBatch, ArrowError> {
    let keep: BooleanArray = offsets
        .iter()
        .map(|offset| Some(*offset >= given_before))
        .collect();
    *left_out += keep.false_count() as u64;
    filter_record_batch(&results, &keep)
}
