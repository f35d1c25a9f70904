//! Where a run goes on, and whether it may.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use schemas::record::Position;

use super::Failure;
use super::recovery::{Patience, Recovery};
use super::setup::Job;
use crate::error::ProducerError;
use crate::input::{Mark, Next, display_name, verify};
use crate::position::{ReadError, current_index, read_positions};

/// Between two looks at the positions.
const PAUSE: Duration = Duration::from_millis(200);

/// A committed position, and the place in the file that it means.
pub(super) struct Checkpoint {
    pub position: Position,
    /// `None`: the file must be verified before it is read.
    pub mark: Option<Mark>,
    /// What the files before have together.
    pub bytes_before: u64,
}

impl Job {
    pub(super) fn newest_positions(&self) -> Result<BTreeMap<String, Position>, Failure> {
        let wait = self.options.transaction_timeout * 2 + Duration::from_secs(60);
        read_positions(self.options.log.as_ref(), &self.positions, wait).map_err(
            |error| match error {
                ReadError::Log(error) => Failure::Log(error),
                ReadError::Other(error) => Failure::Other(error),
            },
        )
    }

    /// Whether another instance commits rows of this set, beyond what this one has committed.
    ///
    /// The client says "fenced" also where the coordinator has timed the transaction out and raised the epoch, as after a
    /// moment in which this process or the broker stood still (KIP-588; librdkafka does not tell the two apart). An
    /// instance that has taken over commits at least once in the time of a transaction.
    pub(super) fn another_goes_on(
        &self,
        committed: Option<u64>,
        patience: &mut Patience,
    ) -> Result<bool, ProducerError> {
        let committed = committed.unwrap_or(0);
        let until = Instant::now() + self.options.transaction_timeout;
        loop {
            match self.newest_positions() {
                Ok(positions) => {
                    let position = positions.get(&self.set.id);
                    if position.is_some_and(|now| now.rows_read.cast_unsigned() > committed) {
                        return Ok(true);
                    }
                }
                Err(Failure::Log(error)) if Recovery::of(&error) == Recovery::TryAgain => {
                    std::thread::sleep(patience.pause(error)?);
                }
                Err(Failure::Log(error)) => return Err(ProducerError::Log(error)),
                Err(Failure::Other(error)) => return Err(error),
            }
            if Instant::now() >= until || self.options.lifecycle.stopping() {
                return Ok(false);
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Where to go on, by the newest position of this set.
    pub(super) fn checkpoint(&mut self, found: Option<Position>) -> Result<Checkpoint, Failure> {
        let mut position = match found {
            None => Position {
                input_set: self.set.id.clone(),
                topic: self.options.topic.clone(),
                ..Position::default()
            },
            Some(position) => position,
        };
        let wrong = |detail| ProducerError::Position {
            input_set: position.input_set.clone(),
            detail,
        };
        if position.topic != self.options.topic {
            let detail = format!(
                "it is of topic {}: use another input set for another topic",
                position.topic
            );
            return Err(wrong(detail).into());
        }
        if position.byte < 0
            || position.rows_read != position.rows_rejected + position.rows_delivered
        {
            return Err(
                wrong("it does not add up: was it written by another program?".into()).into(),
            );
        }
        if position.delivered_by_partition.len() > self.partitions {
            let detail = format!(
                "topic {} had {} partitions and has {} now. If it was created anew, send the files under another input set (--input-set)",
                position.topic,
                position.delivered_by_partition.len(),
                self.partitions
            );
            return Err(wrong(detail).into());
        }
        position.delivered_by_partition.resize(self.partitions, 0);
        let mark = (position.byte == 0).then(Mark::start);
        let bytes_before = self.set.bytes_before(current_index(&position));
        if !std::mem::replace(&mut self.resumed, true) {
            self.read_before = position.rows_read;
        }
        let checkpoint = Checkpoint {
            position,
            mark,
            bytes_before,
        };
        self.count(&checkpoint);
        Ok(checkpoint)
    }

    /// Looks for the position of this set's files under another id: files that were renamed keep theirs.
    ///
    /// A file counts as renamed when its old name is gone, and the same bytes stand in the file that has its place now.
    ///
    /// # Errors
    /// When a file of this set was sent as part of another set.
    pub(super) fn earlier_id(
        &mut self,
        positions: &BTreeMap<String, Position>,
    ) -> Result<Option<String>, Failure> {
        if !self.set.derived {
            return Ok(None);
        }
        for (id, position) in positions {
            if position.topic != self.options.topic || position.byte == 0 {
                continue;
            }
            if self.set.names.contains(&position.file) {
                return Err(ProducerError::SentBefore {
                    file: position.file.clone(),
                    topic: position.topic.clone(),
                    input_set: id.clone(),
                }
                .into());
            }
            let index = current_index(position);
            if index >= self.set.names.len() || Path::new(&position.file).exists() {
                continue;
            }
            if let Next::File(path) = self.set.inputs.file(index).map_err(ProducerError::Source)?
                && path
                    .metadata()
                    .is_ok_and(|metadata| metadata.len() >= position.byte.cast_unsigned())
                && let Ok(Some(mark)) = verify(&path, position.byte.cast_unsigned())
                && mark.sha256() == position.sha256
            {
                tracing::info!(from = position.file, to = %path.display(), input_set = id, "the file was renamed; going on with it");
                return Ok(Some(id.clone()));
            }
        }
        Ok(None)
    }

    /// The mark of a checkpoint in its file, verified.
    pub(super) fn verified(
        &self,
        checkpoint: &Checkpoint,
        path: &Path,
    ) -> Result<Mark, ProducerError> {
        if let Some(mark) = &checkpoint.mark {
            return Ok(mark.clone());
        }
        let position = &checkpoint.position;
        let file = display_name(path);
        if file != position.file && self.set.names.contains(&position.file) {
            return Err(ProducerError::Order {
                number: current_index(position) + 1,
                expected: position.file.clone(),
                found: file,
            });
        }
        let changed = |what| ProducerError::Changed {
            file: file.clone(),
            byte: position.byte.cast_unsigned(),
            line: position.line.cast_unsigned(),
            what,
        };
        let read = |source| ProducerError::Read {
            file: file.clone(),
            line: 0,
            source,
        };
        let mark = verify(path, position.byte.cast_unsigned())
            .map_err(read)?
            .ok_or_else(|| changed("it is shorter now"))?;
        if mark.sha256() != position.sha256 {
            return Err(changed("its bytes up to there are different"));
        }
        if file != position.file {
            tracing::info!(
                from = position.file,
                to = file,
                "the file was renamed; going on with it"
            );
        }
        Ok(mark)
    }
}
