//! Windows whose results are too many for one transaction: their shard's partials wait, and with each commit goes a part.
//!
//! ```text
//!   record X closes windows ─▶ results ─▶ commit X { given: so many }      the record is not done yet
//!                              results ─▶ commit X { given: more }
//!                              results ─▶ commit X + 1                     partials are read on
//! ```

use runtime::log::TopicPartition;

use super::Session;
use crate::worker::WorkerError;
use crate::worker::error::Doing;

impl Session<'_> {
    /// Gives more of what closed windows have come to, as far as a transaction has room.
    pub(super) fn go_on(&mut self) -> Result<(), WorkerError> {
        for partition in self.closing.clone() {
            let Some(merge) = self.merges.get_mut(&partition) else {
                continue;
            };
            let mut given = Vec::new();
            merge.go_on(&mut given)?;
            for given in given {
                let sent = self.outputs.given(
                    &mut self.transaction,
                    merge.query_index,
                    Some(partition.partition),
                    given,
                );
                if let Err(error) = sent {
                    return self.abort_or(error, "results can't be sent");
                }
            }
        }
        self.hold_closing()
    }

    /// Lets exactly those partitions wait whose results are not all out.
    pub(super) fn hold_closing(&mut self) -> Result<(), WorkerError> {
        let is_closing = |partition: &TopicPartition| {
            self.merges
                .get(partition)
                .is_some_and(|merge| merge.is_closing())
        };
        let over: Vec<_> = self
            .closing
            .iter()
            .filter(|partition| !is_closing(partition))
            .cloned()
            .collect();
        let new: Vec<_> = self
            .merges
            .iter()
            .filter(|(partition, merge)| merge.is_closing() && !self.closing.contains(*partition))
            .map(|(partition, _)| partition.clone())
            .collect();
        if !new.is_empty() {
            self.consumer
                .pause(&new)
                .doing("a partition can't be paused")?;
            self.closing.extend(new);
        }
        for partition in &over {
            self.closing.remove(partition);
        }
        // What was let go meanwhile is no longer ours to resume.
        let resume: Vec<_> = over
            .into_iter()
            .filter(|partition| self.merges.contains_key(partition))
            .collect();
        if !resume.is_empty() {
            self.consumer
                .resume(&resume)
                .doing("a partition can't be resumed")?;
        }
        Ok(())
    }
}
