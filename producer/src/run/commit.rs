//! The end of a transaction: delivery, the position behind the rows, commit, counts.

use std::time::Instant;

use runtime::log::{Delivered, LogError, NewRecord, Producer};
use schemas::record::Position;

use super::recovery::Patience;
use super::resume::Checkpoint;
use super::setup::Job;
use super::transaction::Held;
use super::{End, Failure, again};
use crate::error::ProducerError;
use crate::position::POSITIONS_TOPIC;

/// What was committed when it was last counted.
#[derive(Clone, Copy)]
pub(super) struct Counted {
    pub read: u64,
    rejected: u64,
    delivered: u64,
    bytes: u64,
}

impl Job {
    /// Commits what is held, with the position behind it.
    pub(super) fn commit(
        &mut self,
        producer: &mut dyn Producer,
        committed: &mut Checkpoint,
        held: &Held,
        patience: &mut Patience,
    ) -> Result<(), Failure> {
        if !self.in_transaction {
            again(patience, || producer.begin())?;
            self.in_transaction = true;
        }
        let start = Instant::now();
        let rows = held.read - held.rejected;
        let by_partition = self.delivered(&producer.flush()?, rows)?;
        let next = self.next_checkpoint(committed, held, &by_partition);
        let value =
            self.positions
                .encode(&next.position)
                .map_err(|error| ProducerError::Position {
                    input_set: self.set.id.clone(),
                    detail: error.to_string(),
                })?;
        let record = NewRecord {
            topic: POSITIONS_TOPIC,
            partition: None,
            key: Some(self.set.id.as_bytes()),
            value: Some(&value),
            headers: &[],
            timestamp_ms: Some(self.options.clock.now_ms()),
        };
        again(patience, || producer.send(record))?;
        again(patience, || producer.commit())?;
        self.in_transaction = false;
        patience.restored();
        self.options
            .metrics
            .commit_seconds
            .observe(start.elapsed().as_secs_f64());
        self.options.metrics.commits.inc();
        self.count(&next);
        *committed = next;
        Ok(())
    }

    /// Counts what a committed position adds to the last one that was counted.
    pub(super) fn count(&mut self, checkpoint: &Checkpoint) {
        let Checkpoint {
            position,
            bytes_before,
            ..
        } = checkpoint;
        let now = Counted {
            read: position.rows_read.cast_unsigned(),
            rejected: position.rows_rejected.cast_unsigned(),
            delivered: position.rows_delivered.cast_unsigned(),
            bytes: bytes_before + position.byte.cast_unsigned(),
        };
        // The first one is what earlier runs did.
        let before = self.counted.replace(now).unwrap_or(now);
        let metrics = &self.options.metrics;
        metrics
            .rows_read
            .inc_by(now.read.saturating_sub(before.read));
        metrics
            .rows_rejected
            .inc_by(now.rejected.saturating_sub(before.rejected));
        metrics
            .rows_delivered
            .inc_by(now.delivered.saturating_sub(before.delivered));
        metrics
            .bytes_read
            .inc_by(now.bytes.saturating_sub(before.bytes));
        self.options.progress.committed(position, *bytes_before);
    }

    /// How many rows each partition took, by the log's own count, which must be what was sent.
    fn delivered(&self, counts: &Delivered, rows: u64) -> Result<Vec<i64>, LogError> {
        let mut by_partition = vec![0_i64; self.partitions];
        for (partition, count) in counts
            .iter()
            .filter(|(partition, _)| *partition.topic == *self.options.topic)
        {
            let index = usize::try_from(partition.partition).unwrap_or(usize::MAX);
            match by_partition.get_mut(index) {
                Some(delivered) => *delivered += count.cast_signed(),
                None => {
                    let detail = format!(
                        "{partition} is a partition that came during the run: start the producer again"
                    );
                    return Err(LogError::Config { detail });
                }
            }
        }
        let delivered: i64 = by_partition.iter().sum();
        if delivered.cast_unsigned() != rows {
            tracing::warn!(
                sent = rows,
                delivered,
                "the log counts other deliveries than were sent; asking it anew"
            );
            return Err(LogError::UnknownOutcome {
                action: "deliver rows",
            });
        }
        Ok(by_partition)
    }

    fn next_checkpoint(
        &mut self,
        committed: &Checkpoint,
        held: &Held,
        by_partition: &[i64],
    ) -> Checkpoint {
        let before = &committed.position;
        let mut position = Position {
            input_set: self.set.id.clone(),
            rows_read: before.rows_read + held.read.cast_signed(),
            rows_rejected: before.rows_rejected + held.rejected.cast_signed(),
            rows_delivered: before.rows_delivered + (held.read - held.rejected).cast_signed(),
            delivered_by_partition: before
                .delivered_by_partition
                .iter()
                .zip(by_partition)
                .map(|(a, b)| a + b)
                .collect(),
            finished: held.end == Some(End::Finished),
            ..before.clone()
        };
        let (mut mark, mut bytes_before) = (committed.mark.clone(), committed.bytes_before);
        if let Some(reading) = &mut self.reading {
            let here = reading.reader.mark();
            position.file_index = reading.index as i32;
            position.file.clone_from(&reading.name);
            position.byte = here.byte.cast_signed();
            position.line = here.lines().cast_signed();
            position.sha256 = here.sha256();
            bytes_before = reading.bytes_before;
            mark = Some(here);
            if position.finished {
                position.file_index += 1;
            }
        }
        Checkpoint {
            position,
            mark,
            bytes_before,
        }
    }
}
