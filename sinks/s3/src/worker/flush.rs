//! Ending flushes: the plan, the upload, the dead letters, the end.

use std::time::Instant;

use runtime::dead_letter::DeadLetterError;
use runtime::lifecycle::Phase;
use runtime::log::{Class, TopicPartition};

use super::partition::{Cause, InFlight, Part, State};
use super::session::{Done, Session};
use super::{LOG_DEADLINE, Worker};
use crate::dead::{self, DeadLetter};
use crate::error::{SinkError, Step, Stop, chain};
use crate::gather::Sealed;
use crate::plan::{FlushPlan, Note, Refused, Totals, WRITER_VERSION, check_counts, fingerprint};
use crate::progress::add;
use crate::upload::{Upload, Uploaded};
use crate::writer::Origin;

impl Session<'_> {
    /// Ends the flushes whose time has come.
    pub(super) fn flush_what_is_due(&mut self) -> Step<()> {
        let due: Vec<(TopicPartition, Cause)> = self
            .parts
            .values()
            .filter_map(|part| Some((part.partition.clone(), self.cause(part)?)))
            .collect();
        for (partition, cause) in due {
            self.flush(&partition, cause)?;
        }
        // Memory: the largest flush ends, whole, until half of the room is free again.
        let bound = self.options().flush.memory_bytes;
        let total: usize = self.parts.values().map(Part::memory_bytes).sum();
        if total < bound {
            return Ok(());
        }
        loop {
            let open = self
                .parts
                .values()
                .filter(|part| part.open_flush().is_some());
            let sizes: Vec<(usize, TopicPartition)> = open
                .map(|part| (part.memory_bytes(), part.partition.clone()))
                .collect();
            let gathered: usize = sizes.iter().map(|(bytes, _)| bytes).sum();
            match sizes.into_iter().max() {
                Some((_, largest)) if gathered > bound / 2 => {
                    self.flush(&largest, Cause::Memory)?
                }
                _ => return Ok(()),
            }
        }
    }

    fn cause(&self, part: &Part) -> Option<Cause> {
        let gather = part.open_flush()?;
        let flush = &self.options().flush;
        match self.options().lifecycle.phase() {
            Phase::Stopping => return Some(Cause::Stop),
            Phase::Draining if self.at_target(part) => return Some(Cause::Drain),
            Phase::Draining | Phase::Running => {}
        }
        if gather.records >= flush.rows {
            Some(Cause::Rows)
        } else if gather.bytes >= flush.bytes {
            Some(Cause::Bytes)
        } else if gather.since.elapsed() >= flush.interval {
            Some(Cause::Interval)
        } else {
            None
        }
    }

    fn flush(&mut self, partition: &TopicPartition, cause: Cause) -> Step<()> {
        let Some(mut part) = self.parts.remove(partition) else {
            return Ok(());
        };
        let begun = self.begin_flush(&mut part, cause);
        self.parts.insert(part.partition.clone(), part);
        begun
    }

    /// Ends a part's open flush: commits its plan, unless it stands already, and begins the upload.
    pub(super) fn begin_flush(&mut self, part: &mut Part, cause: Cause) -> Step<()> {
        let State::Gathering(gather) = std::mem::replace(&mut part.state, State::Idle) else {
            return Ok(());
        };
        let sealed = gather.seal()?;
        let plan = self.stand(part, &sealed)?;
        let Sealed {
            start,
            end,
            files,
            dead,
            left_out_rows,
            memory_bytes,
            ..
        } = sealed;
        let origin = self.origin(part, start, end);
        let options = &self.worker.options;
        let upload = Upload {
            lake: self.worker.lake.clone(),
            files,
            errors: dead::lines(&dead, &origin),
            origin,
            backoff: options.backoff,
            concurrency: options.flush.concurrency,
            metrics: options.metrics.clone(),
        };
        let (partition, epoch, done) = (part.partition.clone(), part.epoch, self.done.0.clone());
        let upload = self.worker.uploads.spawn(async move {
            let result = upload.run().await;
            // when nobody listens any more, somebody else does the flush again
            let _ = done.send(Done {
                partition,
                epoch,
                result,
            });
        });
        let began = Instant::now();
        part.state = State::InFlight(Box::new(InFlight {
            plan,
            dead,
            left_out_rows,
            cause,
            began,
            memory_bytes,
            upload,
        }));
        Ok(())
    }

    /// Sees to it that the plan of a flush stands.
    fn stand(&mut self, part: &Part, sealed: &Sealed) -> Step<FlushPlan> {
        let (dead, files) = (sealed.dead.len() as u64, sealed.files.len() as u64);
        if let Some(plan) = &sealed.plan {
            check_counts(sealed.start, plan, sealed.rows, dead, files).map_err(|refusal| {
                Refused {
                    partition: part.partition.clone(),
                    refusal,
                }
            })?;
            return Ok(plan.clone());
        }
        let plan = FlushPlan {
            end: sealed.end,
            rows: sealed.rows,
            dead,
            files,
            schema_id: sealed.reader.id,
            row_group_rows: sealed.row_group_rows,
            writer: WRITER_VERSION,
            fingerprint: fingerprint(
                &sealed.layout,
                &sealed.reader.text,
                sealed.row_group_rows,
                WRITER_VERSION,
            ),
            layout: sealed.layout.clone(),
        };
        let topic_id = &self.topic_of(&part.partition).description.id;
        let note = Note::new(topic_id, part.totals, Some(plan.clone()));
        self.commit(part, sealed.start, &note)?;
        Ok(plan)
    }

    fn origin(&self, part: &Part, start: i64, end: i64) -> Origin {
        Origin {
            topic: part.partition.topic.clone(),
            topic_id: self
                .topic_of(&part.partition)
                .description
                .id
                .as_str()
                .into(),
            partition: part.partition.partition,
            start,
            end,
        }
    }

    /// Ends the flushes whose uploads have ended.
    pub(super) fn take_completions(&mut self) -> Step<()> {
        while let Ok(Done {
            partition,
            epoch,
            result,
        }) = self.done.1.try_recv()
        {
            let Some(mut part) = self.parts.remove(&partition) else {
                continue;
            };
            let ended = match &part.state {
                State::InFlight(_) if part.epoch == epoch => self.end_flush(&mut part, result),
                _ => Ok(()),
            };
            self.parts.insert(partition, part);
            ended?;
        }
        Ok(())
    }

    fn end_flush(&mut self, part: &mut Part, uploaded: Result<Uploaded, SinkError>) -> Step<()> {
        let uploaded = uploaded?;
        let State::InFlight(mut flight) = std::mem::replace(&mut part.state, State::Idle) else {
            return Ok(());
        };
        let letters = std::mem::take(&mut flight.dead);
        let reasons: Vec<&'static str> = letters.iter().map(|letter| letter.reason).collect();
        let plan = &flight.plan;
        self.send_dead_letters(&self.origin(part, part.at, plan.end), letters)?;
        let before = part.totals;
        let totals = Totals {
            from: before.from,
            rows: before.rows + plan.rows,
            dead: before.dead + plan.dead,
            files: before.files + plan.files,
        };
        let note = self.settled(part, totals);
        self.commit(part, plan.end, &note)?;
        part.totals = totals;
        part.at = plan.end;
        part.plan = None;

        let topic = &[&*part.partition.topic];
        let options = &self.worker.options;
        let metrics = &options.metrics;
        metrics.rows.with_label_values(topic).inc_by(plan.rows);
        metrics.files.with_label_values(topic).inc_by(plan.files);
        metrics
            .file_bytes
            .with_label_values(topic)
            .inc_by(uploaded.bytes);
        metrics
            .flushes
            .with_label_values(&[topic[0], flight.cause.word()])
            .inc();
        metrics
            .flush_seconds
            .observe(flight.began.elapsed().as_secs_f64());
        metrics
            .unknown_field_rows
            .with_label_values(topic)
            .inc_by(flight.left_out_rows);
        for reason in reasons {
            metrics
                .dead_letters
                .with_label_values(&[topic[0], reason])
                .inc();
        }
        let progress = &options.progress;
        add(&progress.rows, plan.rows);
        add(&progress.dead, plan.dead);
        add(&progress.files, plan.files);
        add(&progress.bytes, uploaded.bytes);
        add(&progress.flushes, 1);
        let cause = flight.cause.word();
        tracing::debug!(
            partition = %part.partition, end = plan.end, rows = plan.rows, dead = plan.dead, files = plan.files, cause,
            "a flush is done"
        );
        Ok(())
    }

    /// Sends a flush's dead letters to their topic and waits until they are there.
    fn send_dead_letters(&mut self, origin: &Origin, letters: Vec<DeadLetter>) -> Step<()> {
        if letters.is_empty() {
            return Ok(());
        }
        tracing::warn!(topic = %origin.topic, partition = origin.partition, letters = letters.len(), "records are dead letters");
        let (began, mut failures) = (Instant::now(), 0);
        loop {
            let Err(error) = self.deliver(origin, &letters) else {
                return Ok(());
            };
            // whatever became of them, they may be sent again: they are counted by their origin
            self.worker.producer = None;
            failures += 1;
            match error.class() {
                Class::Retry | Class::Abort | Class::Restart => {
                    let reason = chain(&error);
                    if began.elapsed() > LOG_DEADLINE
                        || (failures > 3 && self.options().lifecycle.stopping())
                    {
                        return Err(Stop::Rejoin(reason));
                    }
                    let pause = self.backoff().pause(failures);
                    tracing::warn!(
                        reason,
                        pause_ms = pause.as_millis(),
                        "dead letters were not delivered, trying again"
                    );
                    self.options().nap(pause);
                }
                Class::Fenced | Class::Fatal => {
                    let topic = origin.topic.to_string();
                    return Err(SinkError::DeadLetters {
                        topic,
                        source: error,
                    }
                    .into());
                }
            }
        }
    }

    fn deliver(&mut self, origin: &Origin, letters: &[DeadLetter]) -> Result<(), DeadLetterError> {
        let Worker {
            producer,
            letters: writer,
            options,
            ..
        } = &mut *self.worker;
        let producer = match producer {
            Some(producer) => producer,
            none => none.insert(options.log.producer(&options.producer)?),
        };
        for letter in letters {
            writer.send(producer.as_mut(), &origin.topic, &letter.refused(origin))?;
        }
        producer.flush()?;
        Ok(())
    }
}
