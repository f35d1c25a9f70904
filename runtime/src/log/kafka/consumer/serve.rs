//! What the client's queues bring: rebalances, errors, records.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::topic_partition_list::{Offset as ListOffset, TopicPartitionList};

use super::super::super::{Event, LogError, Offset, TopicPartition};
use super::super::batch::Fetched;
use super::super::context::{Rebalance, lock};
use super::super::errors::{self, Doing, Kind};
use super::KafkaConsumer;

/// How long a call that may be made again waits before it is.
const PAUSE: Duration = Duration::from_millis(20);

impl KafkaConsumer {
    /// Serves the main queue until it is empty: rebalances, commit answers, errors and log lines.
    pub(super) fn pump(&mut self) {
        self.serve_main();
        if self
            .base()
            .client()
            .context()
            .disturbed
            .swap(false, Ordering::SeqCst)
        {
            self.realign();
        }
    }

    pub(super) fn serve_main(&mut self) {
        // The queue refills only by the brokers' doing; a bound keeps a flood of errors from holding the caller.
        for _ in 0..1000 {
            match self.client.poll(Duration::ZERO) {
                None => {
                    if self.main.is_empty() {
                        return;
                    }
                }
                Some(Ok(message)) => {
                    use rdkafka::Message as _;
                    let detail = format!(
                        "a record of {}-{} came outside its queue",
                        message.topic(),
                        message.partition()
                    );
                    self.errors.push_back(LogError::State { detail });
                }
                Some(Err(error)) => self.note(&error),
            }
        }
    }

    pub(super) fn note(&mut self, error: &KafkaError) {
        let doing = Doing::new("read")
            .group(&self.group)
            .instance_id(&self.instance_id);
        let fatal = self.client.client().fatal_error();
        let error = match (fatal, error.rdkafka_error_code()) {
            (Some((code, said)), _) => doing.error(code, &said),
            // A rebalance tells the member of it as lost partitions.
            (None, Some(RDKafkaErrorCode::PollExceeded)) => return,
            (None, Some(code)) => doing.error(
                code,
                &self
                    .client
                    .client()
                    .context()
                    .notes
                    .last()
                    .unwrap_or_default(),
            ),
            (None, None) => doing.of(error),
        };
        self.errors.push_back(error);
    }

    pub(super) fn rebalance(&mut self) -> Option<Event> {
        let rebalance = lock(&self.base().client().context().rebalances).pop_front()?;
        let event = match &rebalance {
            Rebalance::Assigned(partitions) => Event::Assigned(partitions.clone()),
            Rebalance::Revoked(partitions) => Event::Revoked(partitions.clone()),
            Rebalance::Lost(partitions) => {
                // They may be read by others already: nothing more of them is handed out.
                for partition in partitions {
                    self.forget(partition);
                }
                Event::Lost(partitions.clone())
            }
        };
        *lock(&self.base().client().context().unanswered) = Some(rebalance);
        Some(event)
    }

    /// Sets librdkafka's own position right where it is one too high. It uses that position only when it resumes what was
    /// paused, by the caller or by a rebalance.
    pub(super) fn realign(&mut self) {
        let skewed: Vec<_> = self
            .reading
            .iter()
            .filter(|(_, reading)| reading.skewed)
            .map(|(partition, reading)| (partition.clone(), reading.position))
            .collect();
        for (partition, position) in skewed {
            match self.go_to(&partition, position) {
                Ok(()) => {
                    if let Some(reading) = self.reading.get_mut(&partition) {
                        reading.skewed = false;
                    }
                }
                Err(error) => self.errors.push_back(error),
            }
        }
    }

    /// Tells librdkafka where to go on.
    pub(super) fn go_to(&self, partition: &TopicPartition, offset: Offset) -> Result<(), LogError> {
        let deadline = Instant::now() + self.timeout;
        loop {
            let mut list = TopicPartitionList::new();
            list.add_partition_offset(
                &partition.topic,
                partition.partition,
                ListOffset::Offset(offset),
            )
            .map_err(|error| self.doing("seek").of(&error))?;
            let failed = match self.base().seek_partitions(list, self.timeout) {
                Ok(answer) => answer
                    .elements()
                    .first()
                    .and_then(|element| element.error().err()),
                Err(error) => Some(error),
            };
            let Some(error) = failed else { return Ok(()) };
            // A partition just assigned may not have begun.
            if Instant::now() + PAUSE >= deadline {
                return Err(LogError::Unreachable {
                    action: "seek",
                    detail: error.to_string(),
                });
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Stops reading a partition on this side.
    pub(super) fn forget(&mut self, partition: &TopicPartition) {
        self.reading.remove(partition);
        self.pending.retain(|(of, _)| of != partition);
        if let Some(owned) = &mut *lock(&self.owned) {
            owned.retain(|of| of != partition);
        }
    }

    /// Hands out what was fetched earlier, save of paused partitions.
    pub(super) fn next_pending(&mut self) -> Option<Result<Event, LogError>> {
        while let Some(index) = self
            .pending
            .iter()
            .position(|(partition, _)| self.reading.get(partition).is_some_and(|r| !r.paused))
        {
            let (partition, fetched) = self.pending.remove(index)?;
            let Some(reading) = self.reading.get_mut(&partition) else {
                continue;
            };
            match fetched {
                Fetched::Records(batch) => {
                    reading.ended = None;
                    return Some(Ok(Event::Records(batch)));
                }
                // librdkafka reports an end again after a pause.
                Fetched::End(position) if reading.ended == Some(position) => {}
                Fetched::End(position) => {
                    reading.ended = Some(position);
                    return Some(Ok(Event::End {
                        partition,
                        position,
                    }));
                }
                Fetched::Failed(code, said, offset) => {
                    return Some(Err(self.fetch_error(&partition, code, &said, offset)));
                }
            }
        }
        None
    }

    pub(super) fn fetch_error(
        &self,
        partition: &TopicPartition,
        code: RDKafkaErrorCode,
        said: &str,
        offset: Offset,
    ) -> LogError {
        if errors::kind(code) == Some(Kind::OutOfRange) {
            // The bounds are only words in the error: without an answer it says that they are not known.
            let bounds =
                self.base()
                    .fetch_watermarks(&partition.topic, partition.partition, self.timeout);
            let (start, end) = bounds.unwrap_or((-1, -1));
            return errors::out_of_range(partition, offset, start, end);
        }
        self.doing("read")
            .name(&partition.to_string())
            .topic(&partition.topic)
            .error(code, said)
    }

    /// Fetches from the next partition that has something.
    pub(super) fn fetch(&mut self, most: usize) {
        let count = self.reading.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            let Some((partition, reading)) = self.reading.iter_mut().nth(index) else {
                continue;
            };
            if reading.paused {
                continue;
            }
            let fetched = reading.queue.fetch(most);
            if let Some(last) = fetched.last() {
                match last {
                    Fetched::Records(batch) => {
                        reading.position = batch.next_position();
                        reading.skewed = false;
                    }
                    Fetched::End(position) => {
                        reading.position = *position;
                        reading.skewed = true;
                    }
                    Fetched::Failed(..) => {}
                }
                self.pending.extend(
                    fetched
                        .into_iter()
                        .map(|fetched| (partition.clone(), fetched)),
                );
                self.turn = index + 1;
                return;
            }
        }
    }
}
