//! Records into open flushes.

use runtime::log::{Batch, Record, TopicPartition};
use schemas::{RegistryError, SchemaId};

use super::attempt;
use super::partition::{Cause, Part, State};
use super::session::Session;
use crate::error::{SinkError, Step};
use crate::fields::left_out;
use crate::gather::{Gather, Reader, Taken};
use crate::plan::{Refusal, Refused, check_schema};
use crate::progress::add;
use crate::writer::WriterOptions;

/// Whether the rest of a batch is taken too.
#[derive(PartialEq, Eq)]
enum Go {
    On,
    /// No: it will be read again.
    Halt,
}

impl Session<'_> {
    pub(super) fn on_records(&mut self, batch: &Batch) -> Step<()> {
        if self.options().lifecycle.stopping() {
            return Ok(());
        }
        let Some(mut part) = self.parts.remove(&batch.partition) else {
            return Ok(());
        };
        // behind records that were not taken nothing is taken before a seek has brought them again
        let taken = if part.in_line() {
            self.take_all(&mut part, batch)
        } else {
            Ok(())
        };
        part.delivered = part.delivered.max(batch.next_position());
        self.parts.insert(part.partition.clone(), part);
        add(&self.options().progress.read, batch.len() as u64);
        taken
    }

    fn take_all(&mut self, part: &mut Part, batch: &Batch) -> Step<()> {
        for record in batch.iter() {
            if record.offset < part.next() {
                continue;
            }
            if part.in_flight() || part.is_blocked() || self.take_one(part, &record)? == Go::Halt {
                break;
            }
        }
        Ok(())
    }

    fn take_one(&mut self, part: &mut Part, record: &Record<'_>) -> Step<Go> {
        loop {
            if matches!(part.state, State::Idle) {
                match self.open(part)? {
                    Some(gather) => part.state = State::Gathering(Box::new(gather)),
                    None => return Ok(Go::Halt),
                }
            }
            let State::Gathering(gather) = &mut part.state else {
                return Ok(Go::Halt);
            };
            if let Some(plan) = &gather.plan
                && record.offset >= plan.end
            {
                let detail = format!("offset {} is not on the log any more", plan.end - 1);
                let refusal = Refusal::OtherRecords {
                    start: gather.start,
                    end: plan.end,
                    detail,
                };
                return Err(Refused {
                    partition: part.partition.clone(),
                    refusal,
                }
                .into());
            }
            match gather.take(record)? {
                Taken::Yes => {
                    if gather
                        .plan
                        .as_ref()
                        .is_some_and(|plan| plan.end == gather.next)
                    {
                        self.begin_flush(part, Cause::Plan)?;
                        return Ok(Go::Halt);
                    }
                    part.unblock();
                    return Ok(Go::On);
                }
                Taken::Unanswered(error) => return self.wait_for_registry(part, error),
                Taken::NewWriter(writer) => {
                    if self.meet(part, writer)? == Go::Halt {
                        return Ok(Go::Halt);
                    }
                }
            }
        }
    }

    /// A writer's schema appears in a flush. If there is a newer reader's schema by now, the flush ends before it, so that
    /// none of its fields is left out.
    fn meet(&mut self, part: &mut Part, writer: SchemaId) -> Step<Go> {
        let State::Gathering(gather) = &mut part.state else {
            return Ok(Go::Halt);
        };
        if gather.plan.is_none() {
            let subject = &self.worker.topics[&part.partition.topic].options.subject;
            match self.worker.options.registry.latest(subject) {
                Err(error) => return self.wait_for_registry(part, error),
                Ok(Some((latest, _))) if latest != gather.reader.id => {
                    if gather.records > 0 {
                        self.begin_flush(part, Cause::Schema)?;
                        return Ok(Go::Halt);
                    }
                    part.state = State::Idle;
                    return Ok(Go::On);
                }
                Ok(_) => {}
            }
        }
        let fields = match self.worker.options.registry.by_id(writer) {
            Ok(text) => left_out(&gather.reader.text, &text),
            // the decoder makes it a dead letter
            Err(RegistryError::Unknown { .. } | RegistryError::Invalid { .. }) => Vec::new(),
            Err(error) => return self.wait_for_registry(part, error),
        };
        gather.know(writer, !fields.is_empty());
        let reader = gather.reader.id;
        // there is a topic for each partition that is assigned
        if let Some(topic) = self.worker.topics.get_mut(&part.partition.topic)
            && !fields.is_empty()
            && topic.reported.insert((reader, writer))
        {
            let (topic, fields) = (&topic.options.name, fields.join(", "));
            tracing::warn!(
                topic,
                reader,
                writer,
                fields,
                "fields are left out: register a schema that has them"
            );
        }
        Ok(Go::On)
    }

    /// Opens a flush at the part's position; `None` while the registry does not answer.
    fn open(&mut self, part: &mut Part) -> Step<Option<Gather>> {
        let topic = &self.worker.topics[&part.partition.topic].options;
        let (registry, options) = (&self.worker.options.registry, &self.worker.options);
        let reader = match &part.plan {
            None => match registry.latest(&topic.subject) {
                Ok(Some((id, text))) => Reader { id, text },
                Ok(None) => {
                    let detail = format!(
                        "the registry has no subject {}: register the schema there",
                        topic.subject
                    );
                    return Err(SinkError::Schema {
                        topic: topic.name.clone(),
                        detail,
                    }
                    .into());
                }
                Err(error) => return self.wait_for_registry(part, error).map(|_| None),
            },
            Some(plan) => {
                let refused = |refusal| Refused {
                    partition: part.partition.clone(),
                    refusal,
                };
                match registry.by_id(plan.schema_id) {
                    Ok(text) => {
                        check_schema(part.at, plan, &text).map_err(refused)?;
                        Reader {
                            id: plan.schema_id,
                            text,
                        }
                    }
                    Err(
                        error @ (RegistryError::Unknown { .. } | RegistryError::Invalid { .. }),
                    ) => {
                        let (start, end) = (part.at, plan.end);
                        let refusal = Refusal::OtherFingerprint {
                            start,
                            end,
                            detail: error.to_string(),
                        };
                        return Err(refused(refusal).into());
                    }
                    Err(error) => return self.wait_for_registry(part, error).map(|_| None),
                }
            }
        };
        let writer = WriterOptions {
            row_group_rows: options.flush.row_group_rows,
            spill_dir: options.spill_dir.clone(),
        };
        let plan = part.plan.clone();
        let gather = Gather::new(
            &topic.name,
            part.at,
            registry,
            reader,
            &topic.layout,
            writer,
            plan,
        )?;
        Ok(Some(gather))
    }

    /// Takes no records of the partition until the registry may answer again.
    fn wait_for_registry(&self, part: &mut Part, error: RegistryError) -> Step<Go> {
        match error {
            RegistryError::Unavailable { .. } => {
                let pause = part.block(&self.backoff());
                let TopicPartition { topic, partition } = &part.partition;
                tracing::warn!(%topic, partition, reason = %error, pause_ms = pause.as_millis(), "waiting for the registry");
                Ok(Go::Halt)
            }
            RegistryError::Unknown { .. }
            | RegistryError::Incompatible { .. }
            | RegistryError::Invalid { .. }
            | RegistryError::NotAllowed { .. }
            | RegistryError::Storage { .. } => Err(SinkError::Registry {
                topic: part.partition.topic.to_string(),
                source: error,
            }
            .into()),
        }
    }

    /// Brings what the consumer delivers in line with what can be taken.
    pub(super) fn pause_and_resume(&mut self) -> Step<()> {
        let memory: usize = self.parts.values().map(Part::memory_bytes).sum();
        let full = memory >= self.options().flush.memory_bytes;
        let stopping = self.options().lifecycle.stopping();
        for part in self.parts.values_mut() {
            // a flush that was decided is read to its end whatever it takes
            let held = full && part.plan.is_none();
            let paused = part.in_flight() || part.is_blocked() || held || stopping;
            let one = std::slice::from_ref(&part.partition);
            let consumer = &mut self.consumer;
            let options = &self.worker.options;
            if !paused && !part.in_line() {
                let next = part.next();
                attempt(options, "seek", || consumer.seek(&part.partition, next))?;
                part.delivered = next;
                part.end_seen = None;
            }
            match (part.paused, paused) {
                (false, true) => attempt(options, "pause", || consumer.pause(one))?,
                (true, false) => attempt(options, "resume", || consumer.resume(one))?,
                (false, false) | (true, true) => {}
            }
            part.paused = paused;
        }
        Ok(())
    }
}
