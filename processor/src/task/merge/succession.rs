//! A shard whose query takes over one of an earlier application: it stays behind that one, and gives nothing before that
//! one is handed over. Then it gives what ends later, and tells what is open.

use engine::fold::{Applied, Handover};
use engine::partial::Header;
use runtime::log::Offset;

use super::{Ahead, MergeError, MergeTask};

impl MergeTask {
    /// Whether it is not known yet where it goes on for another application.
    pub fn follows(&self) -> bool {
        let known = self.live.succession;
        known.is_some_and(|known| known.from.is_none())
    }

    /// Takes note that the query that is taken over has given the windows that end here or before.
    pub fn predecessor_at(&mut self, given_to: i64) {
        if !matches!(self.predecessor, Some(Ahead::HandedOver(_))) {
            self.predecessor = Some(Ahead::Running(given_to));
            self.settle();
        }
    }

    /// Takes note that the query that is taken over gives nothing more.
    pub fn handed_over(&mut self, handover: Handover) {
        self.predecessor = Some(Ahead::HandedOver(handover));
        self.settle();
    }

    /// Whether the next record is not to be folded before the predecessor is further, or is handed over.
    pub fn is_waiting(&self) -> bool {
        self.live.waits_for.is_some()
    }

    /// Acts on what is known of the predecessor.
    pub(super) fn settle(&mut self) {
        if self.restoring() {
            return;
        }
        let (Some(known), Some(ahead)) = (&mut self.live.succession, self.predecessor) else {
            return;
        };
        let further = match ahead {
            Ahead::HandedOver(handover) => {
                if known.from.is_none() {
                    known.from = Some(handover);
                }
                if let Some(from) = known.from {
                    self.live.fold.go_on_from(from);
                }
                true
            }
            Ahead::Running(given_to) => self
                .live
                .waits_for
                .is_none_or(|waits_for| waits_for <= given_to),
        };
        if further {
            self.live.waits_for = None;
            known.waits = false;
        }
    }

    /// Whether the record of this header waits: it would close windows that the predecessor may still give. If it does not,
    /// what it closes is known to be given.
    pub(super) fn must_wait(&mut self, header: &Header) -> bool {
        self.settle();
        let Some(known) = &mut self.live.succession else {
            return false;
        };
        if known.from.is_some() {
            return false;
        }
        let given_to = match self.predecessor {
            Some(Ahead::Running(given_to)) => given_to,
            _ => i64::MIN,
        };
        let bounded = self
            .query
            .plan
            .window
            .is_some_and(engine::window::Window::is_bounded);
        let closes = self.live.fold.would_close_to(header);
        if let Some(closes) = closes.filter(|closes| bounded && *closes > given_to) {
            self.live.waits_for = Some(closes);
            known.waits = true;
            return true;
        }
        self.live.fold.go_on_from(Handover {
            given_to: i64::MAX,
            versions_from: 0,
        });
        false
    }

    /// Counts the windows of a record that the predecessor gave, and lets history learn from them.
    pub(super) fn leave_out(
        &mut self,
        applied: &Applied,
        offset: Offset,
    ) -> Result<(), MergeError> {
        // What was counted already stands beside the offset of a record whose results are partly out.
        let counted = self.live.out.is_some();
        for window in &applied.given_before {
            if self.query.plan.has_history() {
                self.results_of(window, offset)?;
            }
            if counted {
                continue;
            }
            let pairs = self
                .live
                .fold
                .pairs_of(window)
                .map_err(|source| MergeError::Fold {
                    partition: self.partition.clone(),
                    offset,
                    source,
                })?;
            if let Some(known) = &mut self.live.succession {
                known.pairs += pairs;
                known.windows += window.windows;
            }
        }
        Ok(())
    }

    /// Whether changes are told. Who has just taken over tells all that is open, once.
    pub(super) fn tells(&mut self) -> bool {
        self.settle();
        if self.restoring() {
            return true;
        }
        let Some(known) = &mut self.live.succession else {
            return true;
        };
        if known.from.is_none() {
            self.live.fold.forget_changes();
            return false;
        }
        if !known.told {
            known.told = true;
            self.live.fold.all_changed();
        }
        true
    }
}
