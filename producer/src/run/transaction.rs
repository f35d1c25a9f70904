//! One transaction: rows and dead letters, the position behind them, commit.

use std::fs::File;
use std::time::Instant;

use runtime::dead_letter::{DeadLetterError, Origin, Refused};
use runtime::lifecycle::Phase;
use runtime::log::{LogError, NewRecord, Producer};

use super::recovery::Patience;
use super::resume::Checkpoint;
use super::setup::Job;
use super::{End, Failure, NAP, again, nap};
use crate::error::ProducerError;
use crate::input::{Next, RowReader, Taken, check_file, display_name, header, open};
use crate::mapping::Rejection;
use crate::position::current_index;
use crate::reason::Reason;

/// The file at hand.
pub(super) struct Reading {
    pub index: usize,
    pub name: String,
    pub reader: RowReader<File>,
    /// What the files before have together.
    pub bytes_before: u64,
}

/// What a transaction holds so far.
#[derive(Default)]
pub(super) struct Held {
    pub read: u64,
    pub rejected: u64,
    /// When its first record was sent.
    pub begun: Option<Instant>,
    /// Why no more is read.
    pub end: Option<End>,
    /// What ends the run once this is committed.
    pub failure: Option<ProducerError>,
}

/// What to do after a look at the input.
enum Step {
    /// Something was taken, or there is something else to look at.
    Go,
    /// Nothing can be taken now.
    Wait(std::time::Duration),
}

impl Job {
    /// Reads for one commit interval, and commits. Says how the run ended, if it did.
    pub(super) fn transaction(
        &mut self,
        producer: &mut dyn Producer,
        committed: &mut Checkpoint,
        patience: &mut Patience,
    ) -> Result<Option<End>, Failure> {
        let mut held = Held::default();
        let mut looks = 0_u32;
        while held.end.is_none() && held.failure.is_none() && held.read < self.options.commit_rows {
            let deadline = held.begun.map(|begun| begun + self.options.commit_interval);
            looks = looks.wrapping_add(1);
            if looks.is_multiple_of(64) {
                self.options.progress.set_in_hand(held.read);
                if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                    break;
                }
            }
            if self.options.lifecycle.stopping() {
                held.end = Some(End::Stopped);
                break;
            }
            match self.step(producer, committed, &mut held, patience)? {
                Step::Go => {}
                Step::Wait(wait) => {
                    self.options.progress.set_in_hand(held.read);
                    if nap(wait, deadline) {
                        break;
                    }
                }
            }
        }
        let finishes = held.end == Some(End::Finished) && !committed.position.finished;
        if held.read > 0 || finishes {
            self.commit(producer, committed, &held, patience)?;
        }
        match held.failure {
            Some(failure) => Err(failure.into()),
            None => Ok(held.end),
        }
    }

    /// Takes one row, or opens a file.
    fn step(
        &mut self,
        producer: &mut dyn Producer,
        committed: &Checkpoint,
        held: &mut Held,
        patience: &mut Patience,
    ) -> Result<Step, Failure> {
        let wait = self.pace.wait();
        if !wait.is_zero() {
            return Ok(Step::Wait(wait));
        }
        let Some(reading) = &mut self.reading else {
            return self.open_first(committed, held);
        };
        if reading.reader.is_at_end() {
            return self.open_next(held);
        }
        let taken = match reading.reader.next_row() {
            Ok(Some(taken)) => taken,
            Ok(None) => return Ok(Step::Go),
            Err(source) => {
                let line = reading.reader.mark().lines();
                held.failure = Some(ProducerError::Read {
                    file: reading.name.clone(),
                    line,
                    source,
                });
                return Ok(Step::Go);
            }
        };
        if !self.in_transaction {
            again(patience, || producer.begin())?;
            self.in_transaction = true;
            held.begun = Some(Instant::now());
        }
        let refused = match taken {
            Taken::Broken(broken) => {
                Some((broken.line, broken.raw, Rejection::whole_row(broken.reason)))
            }
            Taken::Row(row) => {
                self.row.clear();
                schemas::wire::frame(self.row_schema, &mut self.row);
                match self.encoder.encode(&row, &mut self.row) {
                    Err(rejection) => Some((row.line, row.raw, rejection)),
                    Ok(()) => {
                        let record = NewRecord {
                            topic: &self.options.topic,
                            partition: None,
                            key: self.encoder.key(&row),
                            value: Some(&self.row),
                            headers: &[],
                            timestamp_ms: Some(self.options.clock.now_ms()),
                        };
                        match again(patience, || producer.send(record)) {
                            Ok(()) => None,
                            Err(Failure::Log(LogError::TooLarge { .. })) => {
                                Some((row.line, row.raw, Rejection::whole_row(Reason::TooLarge)))
                            }
                            Err(failure) => return Err(failure),
                        }
                    }
                }
            }
        };
        if let Some((line, raw, rejection)) = refused {
            let refused = Refused {
                reason: rejection.reason.code(),
                detail: rejection.detail,
                origin: Origin::Row {
                    file: &reading.name,
                    line,
                },
                column: rejection.column.as_deref(),
                schema_id: None,
                raw,
            };
            let (letters, topic) = (&mut self.dead_letters, &self.options.topic);
            again(patience, || {
                letters
                    .send(producer, topic, &refused)
                    .map_err(dead_letter_failure)
            })?;
            held.rejected += 1;
        }
        held.read += 1;
        self.pace.taken();
        Ok(Step::Go)
    }

    /// Opens the file that the committed position is in.
    fn open_first(&mut self, committed: &Checkpoint, held: &mut Held) -> Result<Step, Failure> {
        let index = current_index(&committed.position);
        self.open(index, committed.bytes_before, Some(committed), held)
    }

    /// Opens the file behind the one that is read to its end.
    fn open_next(&mut self, held: &mut Held) -> Result<Step, Failure> {
        let Some(reading) = &self.reading else {
            return Ok(Step::Go);
        };
        self.open(
            reading.index + 1,
            reading.bytes_before + reading.reader.byte(),
            None,
            held,
        )
    }

    fn open(
        &mut self,
        index: usize,
        bytes_before: u64,
        resume: Option<&Checkpoint>,
        held: &mut Held,
    ) -> Result<Step, Failure> {
        let path = match self.set.inputs.file(index) {
            Ok(Next::File(path)) => path,
            Ok(Next::NotYet) if self.options.lifecycle.phase() == Phase::Running => {
                return Ok(Step::Wait(NAP));
            }
            Ok(Next::NotYet) => {
                held.end = Some(End::Stopped);
                return Ok(Step::Go);
            }
            Ok(Next::NoMore) => {
                held.end = Some(End::Finished);
                return Ok(Step::Go);
            }
            Err(source) => {
                held.failure = Some(ProducerError::Source(source));
                return Ok(Step::Go);
            }
        };
        match self.open_file(index, bytes_before, &path, resume) {
            Ok(reading) => {
                tracing::info!(file = reading.name, byte = reading.reader.byte(), "reading");
                self.options
                    .metrics
                    .buffer_bytes
                    .set(reading.reader.buffer_bytes() as i64);
                self.reading = Some(reading);
            }
            Err(error) => held.failure = Some(error),
        }
        Ok(Step::Go)
    }

    fn open_file(
        &mut self,
        index: usize,
        bytes_before: u64,
        path: &std::path::Path,
        resume: Option<&Checkpoint>,
    ) -> Result<Reading, ProducerError> {
        let name = display_name(path);
        let file_error = |source| ProducerError::File {
            file: name.clone(),
            source,
        };
        check_file(path).map_err(file_error)?;
        let mark = match resume {
            Some(checkpoint) => self.verified(checkpoint, path)?,
            None => crate::input::Mark::start(),
        };
        let at_start = mark.byte == 0;
        let read_error = |source| ProducerError::Read {
            file: name.clone(),
            line: mark.lines(),
            source,
        };
        let mut reader = open(path, mark.clone()).map_err(read_error)?;
        if self.encoder.has_header() {
            let names = header(path).map_err(file_error)?;
            self.encoder
                .bind(&names)
                .map_err(|source| ProducerError::Header {
                    file: name.clone(),
                    source,
                })?;
            if at_start {
                reader.next_row().map_err(read_error)?;
            }
        }
        Ok(Reading {
            index,
            name,
            reader,
            bytes_before,
        })
    }
}

/// The log's own failure, or the end of the run.
fn dead_letter_failure(error: DeadLetterError) -> Failure {
    match error {
        DeadLetterError::Log(error) => Failure::Log(error),
        DeadLetterError::Registry(error) => Failure::Other(ProducerError::Registry(error)),
        DeadLetterError::Encoding { .. } => Failure::Other(ProducerError::DeadLetter(error)),
    }
}
