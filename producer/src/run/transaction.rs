//! One transaction: rows and dead letters, the position behind them, commit.

use std::fs::File;
use std::time::Instant;

use runtime::lifecycle::Phase;
use runtime::log::{Delivered, LogError, NewRecord, Producer};

use super::recovery::Patience;
use super::resume::Checkpoint;
use super::setup::Job;
use super::{End, Failure, NAP, again, nap};
use crate::dead_letter::DeadLetter;
use crate::error::ProducerError;
use crate::input::{Next, RowReader, Taken, check_file, display_name, header, open};
use crate::position::{POSITIONS_TOPIC, Position};
use crate::reason::Reason;

/// The file at hand.
pub(super) struct Reading {
    index: usize,
    name: String,
    reader: RowReader<File>,
    /// What the files before have together.
    bytes_before: u64,
}

/// What a transaction holds so far.
#[derive(Default)]
struct Held {
    read: u64,
    rejected: u64,
    by_reason: [u64; Reason::ALL.len()],
    /// When its first record was sent.
    begun: Option<Instant>,
    /// Why no more is read.
    end: Option<End>,
    /// What ends the run once this is committed.
    failure: Option<ProducerError>,
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
        self.row.clear();
        schemas::wire::frame(self.ids.row, &mut self.row);
        let now = Some(self.options.clock.now_ms());
        let mut dead = match taken {
            Taken::Broken(broken) => Some(DeadLetter {
                reason: broken.reason,
                detail: broken.reason.explanation().into(),
                column: None,
                line: broken.line,
                raw: broken.raw,
            }),
            Taken::Row(row) => match self.encoder.encode(&row, &mut self.row) {
                Err(rejection) => Some(DeadLetter {
                    reason: rejection.reason,
                    detail: rejection.detail.into(),
                    column: rejection.column,
                    line: row.line,
                    raw: row.raw,
                }),
                Ok(()) => {
                    let record = NewRecord {
                        topic: &self.options.topic,
                        partition: None,
                        key: self.encoder.key(&row),
                        value: Some(&self.row),
                        headers: &[],
                        timestamp_ms: now,
                    };
                    match again(patience, || producer.send(record)) {
                        Ok(()) => None,
                        Err(Failure::Log(LogError::TooLarge { .. })) => Some(DeadLetter {
                            reason: Reason::TooLarge,
                            detail: Reason::TooLarge.explanation().into(),
                            column: None,
                            line: row.line,
                            raw: row.raw,
                        }),
                        Err(failure) => return Err(failure),
                    }
                }
            },
        };
        if let Some(dead) = dead.take() {
            self.row.clear();
            schemas::wire::frame(self.ids.dead_letter, &mut self.row);
            dead.encode(&reading.name, &mut self.row);
            let record = NewRecord {
                topic: &self.dead_letters,
                partition: None,
                key: None,
                value: Some(&self.row),
                headers: &[],
                timestamp_ms: now,
            };
            again(patience, || producer.send(record))?;
            held.rejected += 1;
            held.by_reason[dead.reason as usize] += 1;
        }
        held.read += 1;
        self.pace.taken();
        Ok(Step::Go)
    }

    /// Opens the file that the committed position is in.
    fn open_first(&mut self, committed: &Checkpoint, held: &mut Held) -> Result<Step, Failure> {
        let index = committed.position.current_index();
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

    fn commit(
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
        self.row.clear();
        schemas::wire::frame(self.ids.position, &mut self.row);
        next.position.encode(&mut self.row);
        let record = NewRecord {
            topic: POSITIONS_TOPIC,
            partition: None,
            key: Some(self.set.id.as_bytes()),
            value: Some(&self.row),
            headers: &[],
            timestamp_ms: Some(self.options.clock.now_ms()),
        };
        again(patience, || producer.send(record))?;
        again(patience, || producer.commit())?;
        self.in_transaction = false;
        patience.restored();
        let metrics = &self.options.metrics;
        metrics
            .commit_seconds
            .observe(start.elapsed().as_secs_f64());
        metrics.commits.inc();
        metrics.rows_read.inc_by(held.read);
        metrics.rows_delivered.inc_by(rows);
        for (reason, count) in Reason::ALL
            .iter()
            .zip(held.by_reason)
            .filter(|(_, count)| *count > 0)
        {
            metrics
                .rows_rejected
                .with_label_values(&[reason.code()])
                .inc_by(count);
        }
        let bytes = |checkpoint: &Checkpoint| checkpoint.bytes_before + checkpoint.position.byte;
        metrics
            .bytes_read
            .inc_by(bytes(&next).saturating_sub(bytes(committed)));
        *committed = next;
        self.options
            .progress
            .committed(&committed.position, committed.bytes_before);
        Ok(())
    }

    /// How many rows each partition took, by the log's own count, which must be what was sent.
    fn delivered(&self, counts: &Delivered, rows: u64) -> Result<Vec<u64>, LogError> {
        let mut by_partition = vec![0; self.partitions];
        for (partition, count) in counts
            .iter()
            .filter(|(partition, _)| *partition.topic == *self.options.topic)
        {
            let index = usize::try_from(partition.partition).unwrap_or(usize::MAX);
            match by_partition.get_mut(index) {
                Some(delivered) => *delivered += count,
                None => {
                    let detail = format!(
                        "{partition} is a partition that came during the run: start the producer again"
                    );
                    return Err(LogError::Config { detail });
                }
            }
        }
        let delivered: u64 = by_partition.iter().sum();
        if delivered != rows {
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
        by_partition: &[u64],
    ) -> Checkpoint {
        let before = &committed.position;
        let mut position = Position {
            input_set: self.set.id.clone(),
            rows_read: before.rows_read + held.read,
            rows_rejected: before.rows_rejected + held.rejected,
            rows_delivered: before.rows_delivered + held.read - held.rejected,
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
            position.file_index = reading.index as u32;
            position.file.clone_from(&reading.name);
            position.byte = here.byte;
            position.line = here.lines();
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
