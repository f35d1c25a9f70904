//! Handing records over to librdkafka, one by one or many at a time; waiting while it has enough.

use std::time::{Duration, Instant};

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _};

use super::super::super::{LogError, NewRecord};
use super::phase::Phase;
use super::{KafkaProducer, native};

/// After how many records the delivery reports are looked at.
const REPORTS_EVERY: u32 = 256;
/// How many records are handed over in one call.
const BATCH: usize = 1024;
/// With how many records under way handing over many more of them waits until half are delivered. While a partition has its
/// five requests out and more to send, librdkafka's thread asks itself without a pause whether it may; and records that
/// wait for long have left the caches when it comes to them.
const MOST_UNDER_WAY: i32 = 32_768;
/// How long one wait for these deliveries lasts, which take several times as long.
const FEWER_TICK: Duration = Duration::from_millis(1);

impl KafkaProducer {
    /// One record.
    pub(super) fn hand_over(&mut self, record: NewRecord<'_>) -> Result<(), LogError> {
        const ACTION: &str = "write a record";
        self.expect(ACTION, &[Phase::Plain, Phase::Open])?;
        self.since_reports += 1;
        if self.since_reports >= REPORTS_EVERY {
            self.since_reports = 0;
            self.base().poll(Duration::ZERO);
        }
        let mut next =
            BaseRecord::<[u8], [u8], usize>::with_opaque_to(record.topic, self.transaction);
        next.partition = record.partition;
        next.key = record.key;
        next.payload = record.value;
        // librdkafka takes 0 for "now": the first millisecond of 1970 is written as the second.
        next.timestamp = record.timestamp_ms.map(|timestamp_ms| timestamp_ms.max(1));
        if !record.headers.is_empty() {
            let mut headers = OwnedHeaders::new_with_capacity(record.headers.len());
            for (key, value) in record.headers {
                headers = headers.insert(Header {
                    key,
                    value: Some(*value),
                });
            }
            next.headers = Some(headers);
        }
        let mut full_since = None;
        loop {
            let Err((error, unsent)) = self.client.send(next) else {
                return Ok(());
            };
            let code = error
                .rdkafka_error_code()
                .unwrap_or(RDKafkaErrorCode::Unknown);
            if code == RDKafkaErrorCode::QueueFull {
                self.wait_for_room(ACTION, &mut full_since)?;
                next = unsent;
                continue;
            }
            let bytes = record.key.map_or(0, <[u8]>::len) + record.value.map_or(0, <[u8]>::len);
            return Err(self.refused(ACTION, record.topic, bytes, code));
        }
    }

    /// Records of one topic, many in one call.
    pub(super) fn hand_over_all<'a>(
        &mut self,
        topic: &str,
        records: &mut dyn Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<(), LogError> {
        const ACTION: &str = "write records";
        self.expect(ACTION, &[Phase::Plain, Phase::Open])?;
        let name = native::c_name(topic)?;
        let mut waiting: Vec<native::Keyed<'a>> = Vec::with_capacity(BATCH);
        let mut full_since = None;
        loop {
            let before = waiting.len();
            waiting.extend((&mut *records).take(BATCH - before));
            if waiting.is_empty() {
                return Ok(());
            }
            let mut full = Vec::new();
            let mut failed = None;
            native::produce_batch(
                self.base().client().native_ptr(),
                &name,
                &waiting,
                self.transaction,
                |record, code| match code {
                    RDKafkaErrorCode::QueueFull => full.push(record),
                    _ => {
                        failed.get_or_insert((record.0.len() + record.1.len(), code));
                    }
                },
            )
            .map_err(|code| self.refused(ACTION, topic, 0, code))?;
            if let Some((bytes, code)) = failed {
                return Err(self.refused(ACTION, topic, bytes, code));
            }
            if full.len() == waiting.len() {
                self.wait_for_room(ACTION, &mut full_since)?;
            } else {
                full_since = None;
                self.base().poll(Duration::ZERO);
            }
            self.wait_for_fewer(ACTION)?;
            waiting = full;
        }
    }

    /// Waits for room in the queue, which has been full since then.
    fn wait_for_room(
        &self,
        action: &'static str,
        full_since: &mut Option<Instant>,
    ) -> Result<(), LogError> {
        let since = full_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.delivery_timeout {
            return Err(LogError::TimedOut { action });
        }
        self.serve();
        Ok(())
    }

    /// Waits while too many records are under way.
    fn wait_for_fewer(&self, action: &'static str) -> Result<(), LogError> {
        let mut under_way = self.base().in_flight_count();
        if under_way < MOST_UNDER_WAY {
            return Ok(());
        }
        let mut moved = Instant::now();
        while under_way > MOST_UNDER_WAY / 2 {
            if moved.elapsed() >= self.delivery_timeout {
                return Err(LogError::TimedOut { action });
            }
            std::thread::sleep(FEWER_TICK);
            self.base().poll(Duration::ZERO);
            let now = self.base().in_flight_count();
            if now < under_way {
                moved = Instant::now();
            }
            under_way = now;
        }
        Ok(())
    }

    /// What it means that a record was refused for another reason than a full queue.
    fn refused(
        &mut self,
        action: &'static str,
        topic: &str,
        bytes: usize,
        code: RDKafkaErrorCode,
    ) -> LogError {
        if let Some(fatal) = self.fatal(action) {
            return match self.phase {
                Phase::Plain => fatal,
                _ => self.fail(fatal),
            };
        }
        // In a transaction, the state that refuses a record is that of one to be aborted.
        if self.phase == Phase::Open && code == RDKafkaErrorCode::State {
            let error = self.not_allowed().unwrap_or_else(|| LogError::MustAbort {
                detail: format!("a record of {topic} was refused: {code}"),
            });
            return self.fail(error);
        }
        self.doing(action).name(topic).bytes(bytes).error(code, "")
    }
}
