//! How long the result of a window takes: from the record that closes the window to the moment when a consumer of committed
//! records has the result.
//!
//! ```text
//!   trips, sent again at a steady rate ──▶ topic (LogAppendTime) ──▶ processor ──▶ results ──▶ a consumer, by this clock
//! ```
//!
//! A window is closed by the record with which the last of the partitions has come past its end and the out-of-orderness.
//! The time when the broker has that record is the broker's own (`message.timestamp.type = LogAppendTime`): the report of its
//! delivery comes to the client later, and would make the lag look shorter. Broker and benchmark must have the same clock: run
//! them on one machine. The records stand in no transaction; those of the producer can be read when it commits them, up to
//! `producer.commit_interval_ms` later.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use arrow::array::{Array, AsArray, Float64Array, Int64Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit};
use runtime::log::{ConsumerOptions, Event, Log, TopicPartition, TopicSpec};
use schemas::decode::BatchDecoder;

use crate::LagArgs;
use crate::bare;
use crate::delays::Delays;
use crate::processor::{self, Application};
use crate::replay::Replay;
use crate::running::Running;
use crate::world::World;

/// The shipped job's windows and out-of-orderness, in milliseconds.
const WINDOW_MS: i64 = 3_600_000;
const OUT_OF_ORDERNESS_MS: i64 = 300_000;
/// Where a 0 stands for an unknown place.
const PLACES: [&str; 4] = [
    "pickup_longitude",
    "pickup_latitude",
    "dropoff_longitude",
    "dropoff_latitude",
];
/// How long results may be awaited after the last one.
const PATIENCE: Duration = Duration::from_secs(60);

/// The window's start in milliseconds, and the vendor.
type Group = (i64, i64);

/// Sends the trips and follows the results, as often as there are runs.
pub fn run(world: &World, args: &LagArgs) -> anyhow::Result<Delays> {
    let common = &args.common;
    ensure!(args.rate > 0.0, "--rate must be more than 0");
    let (from, _) = world.trips_topic(common)?;
    let replay = Replay::read(world.log.as_ref(), &from)?;
    let (_, schema) = world.latest(&from)?;
    let mut delays = Delays::new("lag", common);
    for run in 1..=common.runs {
        let name = format!("{}-{run}", world.name);
        let (topic, output) = (format!("{name}-trips"), format!("{name}-statistics"));
        let spec = TopicSpec::new(&topic, common.partitions);
        world
            .log
            .create_topic(&spec.with("message.timestamp.type", "LogAppendTime"))?;
        world
            .log
            .create_topic(&TopicSpec::new(&output, common.partitions))?;
        let subject = schemas::value_subject(&topic);
        world.registry.register(&subject, &schema)?;
        let job = processor::job_for(&topic, &output)?;
        for told in ["INTERVAL '1 hour'", "INTERVAL '5 minutes'"] {
            ensure!(
                job.matches(told).count() == 1,
                "the taxi job has other times than this benchmark knows"
            );
        }
        // No producer writes the topic that is read; the ledger is told of the one that the trips were loaded into.
        let application = Application::new(world, &job, &name, &from, &output)?;
        let command = world.binary("processor", &[], &application.settings());
        let mut running = Running::start(command)?;
        running.until_ready()?;
        let follower = Follower::start(&world.log, &output, common.partitions)?;
        let took = replay.send(world.log.as_ref(), &topic, args.rate)?;
        let source = Source::read(world, &topic)?;
        let results = source.await_results(world, &output, &follower)?;
        follower.end()?;
        running.kill()?;
        let (closed, to_send, to_read) = source.lags(&results)?;
        delays.add("closing record to readable result", closed);
        delays.add("  of it until the result is sent", to_send);
        delays.add("  of it until it can be read", to_read);
        let (_, found) = application.once(common.rows)?;
        delays.check(format!(
            "{:.0} rows/s; {} results of closed windows, each once and as counted; {found}",
            common.rows as f64 / took.as_secs_f64(),
            results.len()
        ));
        world.forget(&[&topic, &output]);
    }
    Ok(delays)
}

fn now_ms() -> anyhow::Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() * 1000.0)
}

/// A record of results as it came.
struct Came {
    /// When, by this clock, in milliseconds since 1970.
    at_ms: f64,
    /// When the processor handed it to its client.
    sent_ms: f64,
    value: Vec<u8>,
}

/// Reads a topic as it grows, on a thread of its own.
struct Follower {
    came: Receiver<Came>,
    over: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<()>>,
}

impl Follower {
    fn start(log: &Arc<dyn Log>, topic: &str, partitions: i32) -> anyhow::Result<Self> {
        let (sender, came) = channel();
        let over = Arc::new(AtomicBool::new(false));
        let (log, until) = (Arc::clone(log), Arc::clone(&over));
        let starts: Vec<_> = (0..partitions)
            .map(|partition| (TopicPartition::new(topic, partition), 0))
            .collect();
        let thread = std::thread::spawn(move || follow(log.as_ref(), &starts, &until, &sender));
        Ok(Self { came, over, thread })
    }

    fn end(self) -> anyhow::Result<()> {
        self.over.store(true, Ordering::SeqCst);
        let ended = self.thread.join();
        ended.unwrap_or_else(|_| Err(anyhow::anyhow!("the reader of the results panicked")))
    }
}

fn follow(
    log: &dyn Log,
    starts: &[(TopicPartition, i64)],
    over: &AtomicBool,
    sender: &Sender<Came>,
) -> anyhow::Result<()> {
    let mut consumer = log.consumer(&ConsumerOptions::new("headway-bench"))?;
    consumer.assign(starts)?;
    while !over.load(Ordering::SeqCst) {
        let Some(Event::Records(batch)) = consumer.poll(Duration::from_millis(50), 1000)? else {
            continue;
        };
        let at_ms = now_ms()?;
        for record in batch.iter() {
            // Nobody listens any more once it is over.
            let _ = sender.send(Came {
                at_ms,
                sent_ms: record.timestamp_ms as f64,
                value: record.value.unwrap_or_default().to_vec(),
            });
        }
    }
    Ok(consumer.close(Duration::from_secs(5))?)
}

/// What stands in the source topic.
#[derive(Default)]
struct Source {
    /// How many trips each group has of which both places are known: the shipped job takes no others.
    counts: BTreeMap<Group, i64>,
    /// Of each partition: its latest event time so far, and when a record first reached it.
    reached: BTreeMap<i32, BTreeMap<i64, i64>>,
    latest: BTreeMap<i32, i64>,
}

impl Source {
    fn read(world: &World, topic: &str) -> anyhow::Result<Self> {
        let mut columns = vec!["pickup_at", "vendor_id"];
        columns.extend(PLACES);
        let mut decoder = decoder(world, topic, &columns)?;
        let mut source = Self::default();
        bare::read(world.log.as_ref(), topic, |batch| {
            for record in batch.iter() {
                decoder.push(record.value.unwrap_or_default())?;
            }
            let rows = decoder.flush()?.context("a batch has no rows")?;
            let (times, vendors) = (column(&rows, "pickup_at")?, column(&rows, "vendor_id")?);
            let places = PLACES
                .iter()
                .map(|name| floats(&rows, name))
                .collect::<anyhow::Result<Vec<_>>>()?;
            let partition = batch.partition.partition;
            let latest = source.latest.entry(partition).or_insert(i64::MIN);
            let reached = source.reached.entry(partition).or_default();
            for (row, record) in batch.iter().enumerate() {
                let time = times.value(row);
                let start = time.div_euclid(WINDOW_MS) * WINDOW_MS;
                if places.iter().all(|place| place.value(row) != 0.0) {
                    let group = (start, vendors.value(row));
                    *source.counts.entry(group).or_default() += 1;
                }
                if time > *latest {
                    *latest = time;
                    reached.insert(time, record.timestamp_ms);
                }
            }
            Ok(())
        })?;
        Ok(source)
    }

    /// When the record came that closed the window with this start; `None` while it is open.
    fn closed_ms(&self, start: i64) -> Option<i64> {
        let until = start + WINDOW_MS + OUT_OF_ORDERNESS_MS;
        let mut closed = None;
        for reached in self.reached.values() {
            let (_, at) = reached.range(until..).next()?;
            closed = closed.max(Some(*at));
        }
        closed
    }

    /// The groups of closed windows, and how many trips each has.
    fn closed(&self) -> BTreeMap<Group, i64> {
        let groups = self.counts.iter();
        groups
            .filter(|((start, _), _)| self.closed_ms(*start).is_some())
            .map(|(group, count)| (*group, *count))
            .collect()
    }

    /// Waits for the results of the closed windows, and holds them against the trips themselves.
    fn await_results(
        &self,
        world: &World,
        topic: &str,
        follower: &Follower,
    ) -> anyhow::Result<BTreeMap<Group, Came>> {
        let expected = self.closed();
        ensure!(
            !expected.is_empty(),
            "no window is closed: take more --rows"
        );
        let mut came = Vec::new();
        while came.len() < expected.len() {
            let next = follower.came.recv_timeout(PATIENCE);
            came.push(next.with_context(|| {
                format!("{} of {} results have come", came.len(), expected.len())
            })?);
        }
        let mut decoder = decoder(world, topic, &["window_start", "vendor_id", "trip_count"])?;
        for came in &came {
            decoder.push(&came.value)?;
        }
        let rows = decoder.flush()?.context("the results have no rows")?;
        let (starts, vendors) = (column(&rows, "window_start")?, column(&rows, "vendor_id")?);
        let counts = column(&rows, "trip_count")?;
        let mut results = BTreeMap::new();
        for (row, came) in came.into_iter().enumerate() {
            let group = (starts.value(row), vendors.value(row));
            let count = counts.value(row);
            ensure!(
                expected.get(&group) == Some(&count),
                "the result of {group:?} has {count} trips instead of {:?}",
                expected.get(&group)
            );
            ensure!(
                results.insert(group, came).is_none(),
                "there are two results of {group:?}"
            );
        }
        Ok(results)
    }

    /// Of each closed window, in seconds: how long its last result took, and of that until it was sent and from then on.
    fn lags(
        &self,
        results: &BTreeMap<Group, Came>,
    ) -> anyhow::Result<(Vec<f64>, Vec<f64>, Vec<f64>)> {
        let mut last: BTreeMap<i64, &Came> = BTreeMap::new();
        for ((start, _), came) in results {
            let last = last.entry(*start).or_insert(came);
            if came.at_ms > last.at_ms {
                *last = came;
            }
        }
        let (mut all, mut to_send, mut to_read) = (Vec::new(), Vec::new(), Vec::new());
        for (start, came) in last {
            let closed = self.closed_ms(start).context("the window is open")? as f64;
            all.push((came.at_ms - closed) / 1000.0);
            to_send.push((came.sent_ms - closed) / 1000.0);
            to_read.push((came.at_ms - came.sent_ms) / 1000.0);
        }
        Ok((all, to_send, to_read))
    }
}

fn decoder(world: &World, topic: &str, columns: &[&str]) -> anyhow::Result<BatchDecoder> {
    let (_, schema) = world.latest(topic)?;
    let schema = schemas::projected_schema(&schema, columns)?;
    Ok(BatchDecoder::new(world.registry.clone(), &schema)?)
}

/// A column of whole numbers; of instants, their milliseconds since 1970.
fn column(rows: &RecordBatch, name: &str) -> anyhow::Result<Int64Array> {
    let column = rows
        .column_by_name(name)
        .with_context(|| format!("there is no column {name}"))?;
    ensure!(column.null_count() == 0, "a row has no {name}");
    let column = match column.data_type() {
        DataType::Timestamp(_, zone) => cast(
            column,
            &DataType::Timestamp(TimeUnit::Millisecond, zone.clone()),
        )?,
        _ => Arc::clone(column),
    };
    let column = cast(&column, &DataType::Int64)?;
    Ok(column.as_primitive::<Int64Type>().clone())
}

/// A column of numbers.
fn floats(rows: &RecordBatch, name: &str) -> anyhow::Result<Float64Array> {
    let column = rows
        .column_by_name(name)
        .with_context(|| format!("there is no column {name}"))?;
    let column = cast(column, &DataType::Float64)?;
    Ok(column.as_primitive::<Float64Type>().clone())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn a_window_is_closed_by_the_partition_that_is_last() {
        let until = WINDOW_MS + OUT_OF_ORDERNESS_MS;
        let source = Source {
            reached: [
                (0, [(5, 100), (until, 110), (until + 7, 900)].into()),
                (1, [(until - 1, 120), (until + 3, 130)].into()),
            ]
            .into(),
            counts: [((0, 1), 3), ((WINDOW_MS, 1), 4)].into(),
            ..Source::default()
        };
        assert_eq!(source.closed_ms(0), Some(130));
        assert_eq!(source.closed_ms(WINDOW_MS), None);
        assert_eq!(source.closed(), [((0, 1), 3)].into());
    }
}
