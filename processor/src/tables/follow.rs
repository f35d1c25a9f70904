//! A reference table whose rows are in a topic: read to its end at the start, and followed while the job runs.
//!
//! ```text
//!   session: bounds ──▶ read from each partition's start ──▶ its end at the start is reached ──▶ publish, then after each batch
//!      ▲                                                                                             │
//!      └── the topic is another one, has more partitions, lost records, or can't be read ◀───────────┘
//! ```
//!
//! Nothing that happens to the topic ends the run, once it could be read: a session that fails is followed by another one,
//! which reads everything again and replaces the table only when it has read all of it. Until then rows find what was known
//! before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use engine::reference::Layout;
use runtime::clock::Clock;
use runtime::log::{
    Batch, Class, ConsumerOptions, Event, Log, LogError, Offset, TopicDescription, TopicPartition,
};
use runtime::topics::{Durability, Unfit, Use, check};
use schemas::Registry;
use schemas::decode::{DecodeError, PushError};

use super::state::{Change, State};
use super::{ReferenceTables, TableTopic};
use crate::metrics::Metrics;
use crate::task::decoder::Decoder;
use crate::worker::chain;

/// How long a poll waits, and so how long the end of the run does.
const POLL: Duration = Duration::from_millis(100);
/// The most records in one poll.
const MAX_RECORDS: usize = 16_384;
/// How often the topic is looked at: it may have been made anew, or have more partitions.
const LOOK_MS: i64 = 10_000;
/// How long a reader rests after the registry could not be reached.
const REGISTRY_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause between two sessions.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How many records that can't be used are logged one by one in a session; all are counted.
const LOGGED: u64 = 20;

/// Follows the topic of one reference table.
pub(crate) struct Follow {
    /// The table's name.
    pub(crate) name: String,
    /// Its columns and its key.
    pub(crate) layout: Arc<Layout>,
    /// Its topic.
    pub(crate) topic: TableTopic,
    /// Whose job it is: what the brokers' logs call this reader.
    pub(crate) application_id: String,
    /// Where the rows go.
    pub(crate) tables: Arc<ReferenceTables>,
    /// Where the topic is.
    pub(crate) log: Arc<dyn Log>,
    /// Where its schemas are.
    pub(crate) registry: Arc<dyn Registry>,
    /// The time.
    pub(crate) clock: Arc<dyn Clock>,
    /// What is counted.
    pub(crate) metrics: Arc<Metrics>,
    /// Set when the run is over.
    pub(crate) stop: Arc<AtomicBool>,
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FollowError {
    #[error("the log can't be read")]
    Log(#[from] LogError),
    #[error("the topic does not exist")]
    Missing,
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error("the topic has been made anew, or has more partitions")]
    Changed,
    #[error("records can't be decoded")]
    Decode(#[from] DecodeError),
    #[error("the table can't be built")]
    Build(#[from] arrow::error::ArrowError),
}

/// What a session has heard of the topic.
#[derive(Default)]
struct Heard {
    anything: bool,
    /// Whether that is all that was there when it began.
    all: bool,
}

struct Session<'a> {
    of: &'a Follow,
    decoder: Decoder,
    state: State,
    /// How far each partition has been read.
    positions: BTreeMap<i32, Offset>,
    /// Where each partition started and ended when the session began.
    bounds: BTreeMap<i32, (Offset, Offset)>,
    caught_up: bool,
    unusable: u64,
}

impl Follow {
    /// Follows the topic until the run is over.
    ///
    /// # Errors
    /// The brokers refuse the topic from the first: someone must allow it.
    pub(crate) fn run(&self) -> Result<(), FollowError> {
        let mut pause = POLL;
        let mut allowed = false;
        while !self.stopped() {
            let mut heard = Heard::default();
            let Err(error) = self.session(&mut heard) else {
                return Ok(());
            };
            allowed |= heard.anything;
            if !allowed && matches!(error, FollowError::Log(LogError::NotAllowed { .. })) {
                return Err(error);
            }
            tracing::warn!(
                table = self.name,
                topic = self.topic.topic,
                error = %chain(&error),
                "a reference table can't be followed; reading its topic again"
            );
            self.metrics
                .table_sessions
                .with_label_values(&[&self.name])
                .inc();
            if heard.anything && heard.all {
                pause = POLL;
            }
            self.rest(pause);
            pause = (pause * 2).min(MAX_PAUSE);
        }
        Ok(())
    }

    fn session(&self, heard: &mut Heard) -> Result<(), FollowError> {
        let topic = self.topic()?;
        let mut bounds = BTreeMap::new();
        let mut starts = Vec::new();
        for number in 0..topic.partitions {
            let partition = TopicPartition::new(topic.name.as_str(), number);
            let found = self.log.bounds(&partition)?;
            bounds.insert(number, (found.start, found.end));
            starts.push((partition, found.start));
        }
        let mut consumer = self.log.consumer(&ConsumerOptions::new(format!(
            "{}.{}.table",
            self.application_id, self.name
        )))?;
        consumer.assign(&starts)?;
        let mut session = Session {
            of: self,
            decoder: Decoder::new(Arc::clone(&self.registry), &self.topic.reader)?,
            state: State::new(&self.layout),
            positions: bounds
                .iter()
                .map(|(number, (start, _))| (*number, *start))
                .collect(),
            bounds,
            caught_up: false,
            unusable: 0,
        };
        let mut looked_ms = self.clock.now_ms();
        session.publish();
        while !self.stopped() {
            let polled = consumer.poll(POLL, MAX_RECORDS);
            heard.anything |= matches!(polled, Ok(Some(_)));
            match polled {
                Ok(Some(Event::Records(batch))) => session.take(&batch)?,
                Ok(Some(Event::End {
                    partition,
                    position,
                })) => session.reached(partition.partition, position),
                // A reader without a group is given nothing, and nothing is taken from it.
                Ok(Some(Event::Assigned(_) | Event::Revoked(_) | Event::Lost(_)) | None) => {}
                Err(error) if error.class() == Class::Retry => {
                    tracing::warn!(table = self.name, error = %chain(&error), "a reference table's topic can't be read; trying again");
                    self.rest(POLL);
                }
                Err(error) => return Err(error.into()),
            }
            heard.all = session.caught_up;
            let now_ms = self.clock.now_ms();
            if now_ms.saturating_sub(looked_ms) >= LOOK_MS {
                looked_ms = now_ms;
                self.look(&topic)?;
            }
        }
        Ok(())
    }

    fn topic(&self) -> Result<TopicDescription, FollowError> {
        let found = self
            .log
            .topic(&self.topic.topic)?
            .ok_or(FollowError::Missing)?;
        check(&found, Use::Table, Durability::default())?;
        Ok(found)
    }

    /// Whether the topic is still the one that is read. A log that does not answer is asked again later.
    fn look(&self, reading: &TopicDescription) -> Result<(), FollowError> {
        match self.topic() {
            Ok(found) if (&found.id, found.partitions) == (&reading.id, reading.partitions) => {
                Ok(())
            }
            Ok(_) => Err(FollowError::Changed),
            Err(FollowError::Log(error)) if error.class() == Class::Retry => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Waits, but not beyond the end of the run.
    fn rest(&self, pause: Duration) {
        let mut left = pause;
        while !left.is_zero() && !self.stopped() {
            let step = left.min(POLL);
            std::thread::sleep(step);
            left -= step;
        }
    }
}

impl Session<'_> {
    /// Takes a batch of records.
    fn take(&mut self, batch: &Batch) -> Result<(), FollowError> {
        let mut changes = Vec::with_capacity(batch.len());
        // Which record each decoded row is.
        let mut rows: Vec<usize> = Vec::new();
        let mut index = 0;
        while index < batch.len() {
            let record = batch.get(index);
            let key = record.key.map(Arc::from);
            let Some(value) = record.value else {
                match key {
                    Some(key) => changes.push(Change::Gone(key)),
                    None => self.unusable(batch, index, "no_key", "it has neither key nor value"),
                }
                index += 1;
                continue;
            };
            match self.decoder.push(value) {
                Ok(()) => {
                    // A batch has fewer records than u32 can count: see MAX_RECORDS.
                    changes.push(Change::Row(key, rows.len() as u32));
                    rows.push(index);
                }
                Err(PushError::Bad(bad)) => self.unusable(batch, index, bad.reason, &bad.detail),
                Err(PushError::Full) => {
                    self.apply(batch, &mut rows, &mut changes)?;
                    continue;
                }
                Err(PushError::Registry(error)) => {
                    tracing::warn!(table = self.of.name, offset = record.offset, error = %chain(&error), "a reference table waits for the schema registry");
                    self.apply(batch, &mut rows, &mut changes)?;
                    self.publish();
                    self.of.rest(REGISTRY_PAUSE);
                    if self.of.stopped() {
                        return Ok(());
                    }
                    continue;
                }
            }
            index += 1;
        }
        self.apply(batch, &mut rows, &mut changes)?;
        self.reached(batch.partition.partition, batch.next_position());
        // Counted behind what it counts: whoever sees it may rely on the rows.
        let metrics = &self.of.metrics;
        metrics
            .table_records
            .with_label_values(&[&self.of.name])
            .inc_by(batch.len() as u64);
        Ok(())
    }

    /// Puts what is decoded into the table.
    fn apply(
        &mut self,
        batch: &Batch,
        rows: &mut Vec<usize>,
        changes: &mut Vec<Change>,
    ) -> Result<(), FollowError> {
        let decoded = self.decoder.flush()?;
        let without_key = self.state.take(decoded.as_ref(), std::mem::take(changes))?;
        let rows = std::mem::take(rows);
        for row in without_key {
            let index = rows[row as usize];
            self.unusable(
                batch,
                index,
                "no_key",
                "a column of the table's key is null",
            );
        }
        Ok(())
    }

    /// Counts a record that can't be used. What came before it under its key stays.
    fn unusable(&mut self, batch: &Batch, index: usize, reason: &str, detail: &str) {
        let of = self.of;
        of.metrics
            .table_unusable
            .with_label_values(&[&of.name])
            .inc();
        self.unusable += 1;
        if self.unusable <= LOGGED {
            tracing::warn!(
                table = of.name,
                partition = %batch.partition,
                offset = batch.get(index).offset,
                reason,
                detail,
                "a record of a reference table can't be used; the row that its key had before stays"
            );
        }
        if self.unusable == LOGGED {
            tracing::warn!(
                table = of.name,
                "further records of this kind are only counted, in headway_processor_table_unusable_records_total"
            );
        }
    }

    /// Notes how far a partition has been read, and publishes the table if all of it has been read once.
    fn reached(&mut self, partition: i32, position: Offset) {
        let before = self.positions.insert(partition, position);
        if before != Some(position) {
            self.publish();
        }
    }

    fn publish(&mut self) {
        let of = self.of;
        let (mut read, mut all) = (0, 0);
        for (partition, (start, end)) in &self.bounds {
            let position = self.positions.get(partition).copied().unwrap_or(*start);
            read += (position.min(*end) - start).max(0);
            all += end - start;
        }
        if read < all {
            // Shares of offsets, for people.
            of.tables.reading(&of.name, read as f64 / all as f64);
            return;
        }
        if !self.caught_up {
            self.caught_up = true;
            tracing::info!(
                table = of.name,
                topic = of.topic.topic,
                rows = self.state.len(),
                "a reference table has been read"
            );
        }
        of.metrics
            .table_rows
            .with_label_values(&[&of.name])
            .set(i64::try_from(self.state.len()).unwrap_or(i64::MAX));
        of.tables.publish(&of.name, self.state.rows().clone());
    }
}
