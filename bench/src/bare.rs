//! The bounds: the same transport through the same client with the same settings, without the work.
//!
//! They go through the log port, as that is the one way to the broker; it hands out and takes borrowed bytes.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use runtime::config::Config;
use runtime::connect::connect_log;
use runtime::log::{
    Batch, ConsumerOptions, Event, Log, NewRecord, ProducerOptions, TopicPartition,
};
use serde::{Deserialize, Serialize};

use crate::Servers;
use crate::cost::{self, Cost};
use crate::world;

/// How many records a poll takes at most: as many as the processor's.
const BATCH: usize = 16_384;

/// Reads a topic from its start to its end.
#[derive(Args, Debug)]
pub struct ConsumerArgs {
    #[command(flatten)]
    servers: Servers,
    topic: String,
}

/// Reads the records of a topic into memory, then sends them to another one.
#[derive(Args, Debug)]
pub struct ProducerArgs {
    #[command(flatten)]
    servers: Servers,
    from: String,
    to: String,
}

/// What a bare client prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Moved {
    /// How many records.
    pub records: u64,
    /// How many bytes their values have.
    pub bytes: u64,
    /// What moving them cost, where that is not the whole process.
    pub cost: Option<Cost>,
}

/// The contestant that only reads.
pub fn consumer(args: &ConsumerArgs) -> anyhow::Result<()> {
    let log = connect_log(&world::config(&args.servers)?.log)?;
    say(&count(log.as_ref(), &args.topic)?)
}

/// The contestant that only sends.
pub fn producer(args: &ProducerArgs) -> anyhow::Result<()> {
    let config = world::config(&args.servers)?;
    let log = connect_log(&config.log)?;
    let records = Records::read(log.as_ref(), &args.from)?;
    let (cost, ()) = cost::measured(|| records.send(log.as_ref(), &config, &args.to))?;
    say(&Moved {
        records: records.ends.len() as u64,
        bytes: records.bytes,
        cost: Some(cost),
    })
}

fn say(moved: &Moved) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string(moved)?);
    Ok(())
}

/// How many records a topic has, and how many bytes in their values.
pub fn count(log: &dyn Log, topic: &str) -> anyhow::Result<Moved> {
    let mut moved = Moved::default();
    read(log, topic, |batch| {
        moved.records += batch.len() as u64;
        for index in 0..batch.len() {
            moved.bytes += batch.value(index).map_or(0, <[u8]>::len) as u64;
        }
        Ok(())
    })?;
    Ok(moved)
}

/// Reads a topic to the end that it has now.
pub fn read(
    log: &dyn Log,
    topic: &str,
    mut take: impl FnMut(&Batch) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let found = log
        .topic(topic)?
        .with_context(|| format!("there is no topic {topic}"))?;
    let (mut starts, mut ends) = (Vec::new(), BTreeMap::new());
    for partition in 0..found.partitions {
        let partition = TopicPartition::new(topic, partition);
        let bounds = log.bounds(&partition)?;
        ends.insert(partition.clone(), bounds.stable);
        starts.push((partition, bounds.start));
    }
    let mut consumer = log.consumer(&ConsumerOptions::new("headway-bench"))?;
    consumer.assign(&starts)?;
    while !ends.is_empty() {
        match consumer.poll(Duration::from_millis(100), BATCH)? {
            Some(Event::Records(batch)) => take(&batch)?,
            Some(Event::End {
                partition,
                position,
            }) if ends.get(&partition).is_some_and(|end| position >= *end) => {
                ends.remove(&partition);
            }
            _ => {}
        }
    }
    consumer.close(Duration::from_secs(5))?;
    Ok(())
}

/// Records in memory: keys and values one behind the other.
#[derive(Default)]
struct Records {
    data: Vec<u8>,
    /// Where each one's key and value end.
    ends: Vec<(usize, usize)>,
    bytes: u64,
}

impl Records {
    fn read(log: &dyn Log, topic: &str) -> anyhow::Result<Self> {
        let mut records = Self::default();
        read(log, topic, |batch| {
            for record in batch.iter() {
                records.data.extend(record.key.unwrap_or_default());
                let key = records.data.len();
                records.data.extend(record.value.unwrap_or_default());
                records.ends.push((key, records.data.len()));
                records.bytes += (records.data.len() - key) as u64;
            }
            Ok(())
        })?;
        Ok(records)
    }

    fn send(&self, log: &dyn Log, config: &Config, topic: &str) -> anyhow::Result<()> {
        let options = ProducerOptions {
            linger: config.log.linger_ms.duration(),
            ..ProducerOptions::idempotent("headway-bench")
        };
        let mut producer = log.producer(&options)?;
        let mut start = 0;
        for (key, end) in &self.ends {
            producer.send(NewRecord {
                topic,
                partition: None,
                key: Some(&self.data[start..*key]),
                value: Some(&self.data[*key..*end]),
                headers: &[],
                timestamp_ms: None,
            })?;
            start = *end;
        }
        let delivered: u64 = producer.flush()?.values().sum();
        anyhow::ensure!(
            delivered == self.ends.len() as u64,
            "{delivered} of {} records were delivered",
            self.ends.len()
        );
        Ok(())
    }
}
