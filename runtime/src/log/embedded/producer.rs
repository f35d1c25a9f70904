//! The producer of the embedded log.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::super::{
    Delivered, GroupMetadata, LogError, NewRecord, OffsetCommit, Producer, ProducerOptions,
    partition_for_key,
};
use super::Shared;
use super::frame::{Builder, size_of};
use super::group::Membership;
use super::partition::Partition;
use super::topic::Topic;
use super::transaction::{Hold, Transactions};

/// Records for one partition are gathered up to this size, and written as one frame.
const FRAME_BYTES: usize = 64 * 1024;

pub(super) struct EmbeddedProducer {
    shared: Arc<Shared>,
    options: ProducerOptions,
    hold: Option<Hold>,
    in_transaction: bool,
    /// Why the open transaction can't be committed.
    broken: Option<String>,
    outboxes: HashMap<String, Outbox>,
    /// Since when something waits to be written.
    waiting_since: Option<Instant>,
    delivered: Delivered,
}

/// What waits for the partitions of one topic.
struct Outbox {
    topic: Arc<Topic>,
    frames: Vec<Builder>,
    turn: usize,
}

impl EmbeddedProducer {
    pub fn new(shared: Arc<Shared>, options: &ProducerOptions) -> Self {
        Self {
            shared,
            options: options.clone(),
            hold: None,
            in_transaction: false,
            broken: None,
            outboxes: HashMap::new(),
            waiting_since: None,
            delivered: Delivered::new(),
        }
    }

    /// The transactional id, which must be held still.
    fn hold(&self) -> Result<&Hold, LogError> {
        self.shared.usable()?;
        let hold = self
            .hold
            .as_ref()
            .ok_or_else(|| state("transactions were not initialised by this producer"))?;
        hold.check()?;
        Ok(hold)
    }

    fn open(&self) -> Result<&Hold, LogError> {
        let hold = self.hold()?;
        if self.in_transaction {
            Ok(hold)
        } else {
            Err(state("no transaction is open"))
        }
    }

    fn sound(&self) -> Result<(), LogError> {
        match &self.broken {
            Some(detail) => Err(LogError::MustAbort {
                detail: detail.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Writes everything that waits.
    fn deliver_all(&mut self) -> Result<(), LogError> {
        self.waiting_since = None;
        let mut outcome = Ok(());
        for outbox in self.outboxes.values_mut() {
            // Records without a key keep to one partition for a batch.
            let turn = outbox.turn % outbox.frames.len();
            outbox.turn = turn + usize::from(outbox.frames[turn].records() > 0);
            for (partition, frame) in outbox.topic.partitions.iter().zip(&mut outbox.frames) {
                let delivered = deliver(
                    &self.shared,
                    self.hold.as_ref(),
                    partition,
                    frame,
                    &mut self.delivered,
                );
                outcome = outcome.and(delivered);
            }
        }
        self.after(outcome)
    }

    /// Remembers a failed delivery until the transaction is aborted.
    fn after(&mut self, outcome: Result<(), LogError>) -> Result<(), LogError> {
        if let Err(error) = &outcome {
            self.broken = self.in_transaction.then(|| error.to_string());
            // The topic may be there again under another id.
            self.outboxes.retain(|_, outbox| {
                outbox
                    .topic
                    .partitions
                    .iter()
                    .all(|part| part.bounds().is_ok())
            });
        }
        outcome
    }
}

impl Producer for EmbeddedProducer {
    fn init_transactions(&mut self) -> Result<(), LogError> {
        self.shared.usable()?;
        let Some(id) = &self.options.transactional_id else {
            return Err(state("this producer has no transactional id"));
        };
        if self.hold.is_some() {
            return Err(state("transactions were initialised already"));
        }
        Transactions::expire(&self.shared)?;
        self.hold = Some(Transactions::take(
            &self.shared,
            id,
            self.options.transaction_timeout,
        )?);
        Ok(())
    }

    fn begin(&mut self) -> Result<(), LogError> {
        Transactions::expire(&self.shared)?;
        self.hold()?;
        if self.in_transaction {
            return Err(state("a transaction is open already"));
        }
        self.in_transaction = true;
        Ok(())
    }

    fn send(&mut self, record: NewRecord<'_>) -> Result<(), LogError> {
        if self.options.transactional_id.is_some() {
            self.open()?;
            self.sound()?;
        } else {
            self.shared.usable()?;
        }
        if !self.outboxes.contains_key(record.topic) {
            let topic = self.shared.topic(record.topic)?;
            let frames = topic.partitions.iter().map(|_| Builder::new()).collect();
            let turn = topic.turn.fetch_add(1, Ordering::Relaxed);
            self.outboxes.insert(
                record.topic.into(),
                Outbox {
                    topic,
                    frames,
                    turn,
                },
            );
        }
        let Some(outbox) = self.outboxes.get_mut(record.topic) else {
            return Err(LogError::UnknownTopic {
                name: record.topic.into(),
            });
        };
        if record.partition >= Some(outbox.frames.len() as i32) {
            // The topic may have more partitions than it had.
            outbox.topic = self.shared.topic(record.topic)?;
            let partitions = outbox.topic.partitions.len();
            outbox.frames.resize_with(partitions, Builder::new);
        }
        let count = outbox.frames.len();
        let number = match (record.partition, record.key) {
            (Some(number), _) => {
                outbox.topic.partition(number)?;
                number as usize
            }
            (None, Some(key)) => partition_for_key(key, count as i32) as usize,
            (None, None) => outbox.turn % count,
        };
        let bytes = size_of(record.key, record.value, record.headers);
        if bytes > outbox.topic.settings.max_message_bytes {
            return Err(LogError::TooLarge {
                what: format!("a record for {}-{number}", record.topic),
                bytes,
            });
        }
        if outbox.topic.settings.compact && record.key.is_none() {
            let detail = format!(
                "topic {} is compacted, so that each record needs a key",
                record.topic
            );
            return Err(LogError::NotAllowed {
                action: "write a record",
                detail,
            });
        }
        let frame = &mut outbox.frames[number];
        let timestamp_ms = record.timestamp_ms.unwrap_or_else(|| self.shared.now_ms());
        frame.push(timestamp_ms, record.key, record.value, record.headers);
        if frame.len() >= FRAME_BYTES {
            if record.partition.is_none() && record.key.is_none() {
                outbox.turn = number + 1;
            }
            let partition = &outbox.topic.partitions[number];
            let delivered = deliver(
                &self.shared,
                self.hold.as_ref(),
                partition,
                frame,
                &mut self.delivered,
            );
            self.after(delivered)?;
        } else {
            self.waiting_since.get_or_insert_with(Instant::now);
        }
        if self
            .waiting_since
            .is_some_and(|since| since.elapsed() >= self.options.linger)
        {
            self.deliver_all()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<Delivered, LogError> {
        if self.options.transactional_id.is_some() {
            self.hold()?;
        } else {
            self.shared.usable()?;
        }
        self.sound()?;
        self.deliver_all()?;
        Ok(mem::take(&mut self.delivered))
    }

    fn send_offsets(
        &mut self,
        offsets: &[OffsetCommit],
        group: &GroupMetadata,
    ) -> Result<(), LogError> {
        Transactions::expire(&self.shared)?;
        self.sound()?;
        super::check_offsets(offsets)?;
        let Some(member) = group.0.downcast_ref::<Membership>() else {
            return Err(state("this proof of membership comes from another log"));
        };
        self.open()?.add_offsets(&self.shared, offsets, member)
    }

    fn commit(&mut self) -> Result<(), LogError> {
        Transactions::expire(&self.shared)?;
        self.open()?;
        self.sound()?;
        self.deliver_all()?;
        self.open()?.commit(&self.shared)?;
        self.in_transaction = false;
        Ok(())
    }

    fn abort(&mut self) -> Result<(), LogError> {
        Transactions::expire(&self.shared)?;
        for frame in self
            .outboxes
            .values_mut()
            .flat_map(|outbox| &mut outbox.frames)
        {
            frame.clear();
        }
        self.waiting_since = None;
        self.delivered.clear();
        self.open()?.abort(&self.shared)?;
        self.in_transaction = false;
        self.broken = None;
        Ok(())
    }
}

/// Writes a frame, if there is anything in it.
fn deliver(
    shared: &Shared,
    hold: Option<&Hold>,
    partition: &Arc<Partition>,
    frame: &mut Builder,
    delivered: &mut Delivered,
) -> Result<(), LogError> {
    if frame.records() == 0 {
        return Ok(());
    }
    let written = match hold {
        Some(hold) => hold.append(shared, partition, frame),
        None => partition.append(frame, 0, shared.now_ms()),
    };
    let records = u64::from(frame.records());
    frame.clear();
    let written = written?;
    *delivered.entry(partition.name.clone()).or_default() += records;
    if written.stable_moved {
        shared.signal.raise();
    }
    if written.rolled {
        partition.compact_if_dirty(shared.now_ms())?;
    }
    Ok(())
}

fn state(detail: &str) -> LogError {
    LogError::State {
        detail: detail.into(),
    }
}
