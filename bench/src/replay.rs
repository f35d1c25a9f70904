//! The records of a topic, sent again to another one at a steady rate.

use std::time::{Duration, Instant};

use anyhow::ensure;
use runtime::log::{Log, NewRecord, ProducerOptions};

use crate::bare;

/// How long it rests when nothing is due.
const REST: Duration = Duration::from_millis(1);

/// Records in memory, in the order in which they were written, over all partitions.
#[derive(Default)]
pub struct Replay {
    /// Keys and values, one behind the other.
    data: Vec<u8>,
    records: Vec<Place>,
}

/// A record's place.
struct Place {
    timestamp_ms: i64,
    partition: i32,
    start: usize,
    key_end: usize,
    end: usize,
}

impl Replay {
    /// Reads a topic to its end.
    pub fn read(log: &dyn Log, topic: &str) -> anyhow::Result<Self> {
        let mut replay = Self::default();
        bare::read(log, topic, |batch| {
            for record in batch.iter() {
                let start = replay.data.len();
                replay.data.extend(record.key.unwrap_or_default());
                let key_end = replay.data.len();
                replay.data.extend(record.value.unwrap_or_default());
                replay.records.push(Place {
                    timestamp_ms: record.timestamp_ms,
                    partition: batch.partition.partition,
                    start,
                    key_end,
                    end: replay.data.len(),
                });
            }
            Ok(())
        })?;
        // Within a partition records keep their order: the sort is stable.
        replay.records.sort_by_key(|place| place.timestamp_ms);
        Ok(replay)
    }

    /// Sends all to a topic with as many partitions, `rate` of them in a second. It can be read at once: there is no
    /// transaction. Returns how long it took.
    ///
    /// # Errors
    /// A record was not delivered.
    pub fn send(&self, log: &dyn Log, topic: &str, rate: f64) -> anyhow::Result<Duration> {
        let mut producer = log.producer(&ProducerOptions::idempotent("headway-bench"))?;
        let started = Instant::now();
        let mut sent = 0;
        while sent < self.records.len() {
            let due = (started.elapsed().as_secs_f64() * rate) as usize;
            if sent >= due {
                std::thread::sleep(REST);
                continue;
            }
            let due = due.min(self.records.len());
            for place in &self.records[sent..due] {
                producer.send(NewRecord {
                    topic,
                    partition: Some(place.partition),
                    key: Some(&self.data[place.start..place.key_end]),
                    value: Some(&self.data[place.key_end..place.end]),
                    headers: &[],
                    timestamp_ms: None,
                })?;
            }
            sent = due;
        }
        let delivered: u64 = producer.flush()?.values().sum();
        let took = started.elapsed();
        ensure!(
            delivered == self.records.len() as u64,
            "{delivered} of {} records were delivered",
            self.records.len()
        );
        Ok(took)
    }
}
