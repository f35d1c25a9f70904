//! Reads one source partition: decodes, scans, and closes ranges into partials.
//!
//! It keeps no state but how far its event time has come, which stands in the committed offset's metadata.

use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, Int64Array};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::{DataType, Int64Type, TimeUnit, TimestampMillisecondType};
use arrow::record_batch::RecordBatch;
use engine::partial::{FORMAT_VERSION, Header};
use engine::plan::FragmentError;
use engine::shard;
use engine::window::Window;
use runtime::log::{Batch, Offset, TopicPartition};
use schemas::decode::{DecodeError, PushError};
use schemas::{Registry, RegistryError, SchemaId};

use super::decoder::Decoder;
use crate::job::{Job, SourceTopic};
use crate::offsets::{ScanCounts, SourceState};
use crate::words;

/// How long an idle partition waits before it says again where its event time would be by the clock.
const ADVANCE_INTERVAL_MS: i64 = 1000;

/// The scan of one source partition.
pub struct ScanTask {
    /// Which partition.
    pub partition: TopicPartition,
    job: Arc<Job>,
    queries: Vec<ScanQuery>,
    topic_id: String,
    event_time: usize,
    out_of_orderness_ms: i64,
    idle_timeout_ms: Option<i64>,
    idle_advance: bool,
    max_ahead_ms: Option<i64>,
    /// How far back a window may end that this partition's clock still has to close.
    longest_wait_ms: i64,
    /// Whether another query says how far event time has come.
    is_fed: bool,
    decoder: Decoder,
    start: Offset,
    next: Offset,
    state: SourceState,
    committed: SourceState,
    range: Range,
    quiet: Quiet,
}

struct ScanQuery {
    index: usize,
    columns: Vec<usize>,
}

/// What was taken since the last commit.
#[derive(Default)]
struct Range {
    rows_in: u64,
    undecodable: u64,
    /// Records without a value: they say that a key is gone, which nothing here asks for.
    tombstones: u64,
    queries: Vec<RangeQuery>,
    mark_due: bool,
}

#[derive(Default, Clone)]
struct RangeQuery {
    /// Partial rows, or results of a query without state.
    partials: Vec<RecordBatch>,
    counts: ScanCounts,
}

/// What is known of a partition that brings nothing.
#[derive(Default)]
struct Quiet {
    /// Since when its end is reached, by the clock.
    since_ms: Option<i64>,
    /// Where that end is.
    end: Offset,
    idle: bool,
    last_mark_ms: i64,
    advance_to: Option<i64>,
}

/// A record that can't be processed.
#[derive(Debug)]
pub struct Dead {
    /// Its offset.
    pub offset: Offset,
    /// A short code, the same for all of a kind.
    pub reason: &'static str,
    /// What exactly is wrong.
    pub detail: String,
    /// Its writer's schema, if that could be read.
    pub schema_id: Option<SchemaId>,
    /// Its value.
    pub raw: Vec<u8>,
}

/// What became of a batch.
#[derive(Debug, Default)]
pub struct Taken {
    /// Its records that can't be processed.
    pub dead: Vec<Dead>,
    /// Where the task stopped because the registry can't be reached: the record at this offset was not taken.
    pub stopped: Option<(Offset, RegistryError)>,
}

/// What a range gives.
#[derive(Debug)]
pub enum Outgoing {
    /// A record for the partials topic, one per query and shard.
    Partial {
        /// Which query, by its place in [`Job::queries`].
        query: usize,
        /// To which shard.
        shard: i32,
        /// What stands beside the rows.
        header: Header,
        /// The rows; `None` if there are none for this shard.
        rows: Option<RecordBatch>,
    },
    /// Results of a query without state.
    Results {
        /// Which query, by its place in [`Job::queries`].
        query: usize,
        /// The rows.
        rows: RecordBatch,
    },
}

/// Why a scan can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The decoder failed as a whole.
    #[error("records can't be decoded into columns")]
    Decode(#[from] DecodeError),
    /// A fragment failed.
    #[error(transparent)]
    Fragment(#[from] FragmentError),
    /// Rows can't be left out, or spread over shards.
    #[error("rows can't be filtered, or spread over shards")]
    Rows(#[from] arrow::error::ArrowError),
    /// The decoder has not the columns that the plan asks for.
    #[error("column {column} of topic {topic} is missing, or is not a timestamp")]
    Column {
        /// Which column.
        column: String,
        /// Of which topic.
        topic: String,
    },
}

impl ScanTask {
    /// A scan that goes on at `start` with the state that was committed there.
    pub fn new(
        job: &Arc<Job>,
        source: &SourceTopic,
        registry: Arc<dyn Registry>,
        partition: TopicPartition,
        start: Offset,
        state: SourceState,
    ) -> Result<Self, ScanError> {
        let decoder = Decoder::new(registry, &source.reader)?;
        let schema = decoder.schema();
        let column = |name: &str| {
            schema.index_of(name).map_err(|_| ScanError::Column {
                column: name.into(),
                topic: source.topic.clone(),
            })
        };
        let mut queries = Vec::new();
        let mut longest_wait_ms = 0;
        for &index in &source.queries {
            let plan = &job.queries[index].plan;
            let columns = plan
                .input
                .fields()
                .iter()
                .map(|field| column(field.name()))
                .collect::<Result<_, _>>()?;
            let longest = plan.window.map_or(0, Window::longest_ms);
            longest_wait_ms = longest_wait_ms.max(longest.saturating_add(millis(plan.sink.grace)));
            queries.push(ScanQuery { index, columns });
        }
        let definition = &job.queries[source.queries[0]].plan.source;
        let mut task = Self {
            partition,
            is_fed: !source.fed_by.is_empty(),
            event_time: column(&definition.event_time)?,
            topic_id: source.topic_id.clone(),
            out_of_orderness_ms: millis(definition.out_of_orderness),
            idle_timeout_ms: definition.idle_timeout.map(millis),
            idle_advance: definition.idle_advance,
            max_ahead_ms: definition.max_ahead.map(millis),
            longest_wait_ms,
            job: Arc::clone(job),
            queries,
            decoder,
            start,
            next: start,
            committed: state.clone(),
            state,
            range: Range::default(),
            quiet: Quiet::default(),
        };
        task.state
            .queries
            .resize(task.queries.len(), ScanCounts::default());
        task.committed = task.state.clone();
        task.range.queries = vec![RangeQuery::default(); task.queries.len()];
        Ok(task)
    }

    /// Takes a batch of the partition's records, which must follow on the last one, at this time by the clock.
    pub fn take(&mut self, batch: &Batch, now_ms: i64) -> Result<Taken, ScanError> {
        let mut taken = Taken::default();
        let mut rows: Vec<usize> = Vec::with_capacity(batch.len());
        let mut next = batch.next_position();
        let mut index = 0;
        while index < batch.len() {
            let record = batch.get(index);
            let Some(value) = record.value else {
                self.range.rows_in += 1;
                self.range.tombstones += 1;
                index += 1;
                continue;
            };
            match self.decoder.push(value) {
                Ok(()) => rows.push(index),
                Err(PushError::Bad(bad)) => {
                    self.range.rows_in += 1;
                    self.range.undecodable += 1;
                    taken.dead.push(Dead {
                        offset: record.offset,
                        reason: bad.reason,
                        detail: bad.detail,
                        schema_id: bad.schema_id,
                        raw: value.to_vec(),
                    });
                }
                // The decoder holds as much as it may: scan that, and push the record again.
                Err(PushError::Full) => {
                    self.scan(&mut rows, batch, now_ms, &mut taken)?;
                    continue;
                }
                Err(PushError::Registry(error)) => {
                    next = record.offset;
                    taken.stopped = Some((record.offset, error));
                    break;
                }
            }
            index += 1;
        }
        self.scan(&mut rows, batch, now_ms, &mut taken)?;
        self.next = next;
        if next > batch.get(0).offset {
            self.quiet = Quiet::default();
        }
        Ok(taken)
    }

    /// Scans what is decoded: `rows` says which records of the batch.
    fn scan(
        &mut self,
        rows: &mut Vec<usize>,
        batch: &Batch,
        now_ms: i64,
        taken: &mut Taken,
    ) -> Result<(), ScanError> {
        let mut rows = std::mem::take(rows);
        let Some(mut decoded) = self.decoder.flush()? else {
            return Ok(());
        };
        self.range.rows_in += rows.len() as u64;
        if let Some(max_ahead) = self.max_ahead_ms {
            let latest = now_ms.saturating_add(max_ahead);
            decoded = self.leave_out_future(decoded, &mut rows, batch, latest, taken)?;
        }
        let mut without_time: Vec<u32> = Vec::new();
        for (query, range) in self.queries.iter().zip(&mut self.range.queries) {
            let input = decoded.project(&query.columns)?;
            let scanned = self.job.queries[query.index]
                .plan
                .scan(std::slice::from_ref(&input))?;
            range.counts.filtered += scanned.filtered;
            range.counts.dead += scanned.dead.len() as u64;
            range.counts.kept += scanned.kept;
            range.counts.assigned += scanned.assigned;
            let plan = &self.job.queries[query.index].plan;
            if scanned.partial.num_rows() > 0 {
                range.partials.push(match plan.window {
                    Some(_) => scanned.partial,
                    None => {
                        let offset = |row: &u32| batch.get(rows[*row as usize]).offset;
                        let offsets: Vec<_> = scanned.origins.iter().map(offset).collect();
                        plan.results_of_rows(&scanned.partial, &offsets)?
                    }
                });
            }
            for dead in scanned.dead {
                if !without_time.contains(&dead.row) {
                    without_time.push(dead.row);
                    let record = batch.get(rows[dead.row as usize]);
                    taken.dead.push(Dead {
                        offset: record.offset,
                        reason: UNUSABLE,
                        detail: dead.reason,
                        schema_id: None,
                        raw: record.value.unwrap_or_default().to_vec(),
                    });
                }
            }
        }
        let times = self.event_times(&decoded)?;
        let latest = latest_event(&times, &without_time);
        // A topic that another query writes is as far as that query says, see `hear`.
        if !self.is_fed {
            self.state.max_event_ms = self.state.max_event_ms.max(latest);
        }
        Ok(())
    }

    /// Notes that no row earlier than `event_ms` will come any more, as the query that writes the topic says.
    pub fn hear(&mut self, event_ms: i64) {
        if self.is_fed && self.state.max_event_ms < Some(event_ms) {
            self.state.max_event_ms = Some(event_ms);
            self.range.mark_due = true;
        }
    }

    /// How far the partition is read, what comes to nobody included.
    pub fn position(&self) -> Offset {
        match self.quiet.since_ms {
            Some(_) => self.next.max(self.quiet.end),
            None => self.next,
        }
    }

    /// Takes out the rows whose event time lies behind `latest`: dead letters, of each query.
    fn leave_out_future(
        &mut self,
        decoded: RecordBatch,
        rows: &mut Vec<usize>,
        batch: &Batch,
        latest: i64,
        taken: &mut Taken,
    ) -> Result<RecordBatch, ScanError> {
        let times = self.event_times(&decoded)?;
        if arrow::compute::max(&times).is_none_or(|time| time <= latest) {
            return Ok(decoded);
        }
        let keep: BooleanArray = times
            .iter()
            .map(|time| Some(time.is_none_or(|time| time <= latest)))
            .collect();
        let mut dead = 0;
        let mut place = 0;
        rows.retain(|row| {
            let kept = keep.value(place);
            if !kept {
                let record = batch.get(*row);
                dead += 1;
                taken.dead.push(Dead {
                    offset: record.offset,
                    reason: TOO_FAR_AHEAD,
                    detail: format!(
                        "its event time, {}, is {} behind {}: the clock when it was read, and max_ahead",
                        words::instant(times.value(place)),
                        words::length_ms(times.value(place).saturating_sub(latest)),
                        words::instant(latest),
                    ),
                    schema_id: None,
                    raw: record.value.unwrap_or_default().to_vec(),
                });
            }
            place += 1;
            kept
        });
        for range in &mut self.range.queries {
            range.counts.dead += dead;
        }
        Ok(filter_record_batch(&decoded, &keep)?)
    }

    /// The event times of decoded rows, in milliseconds since 1970.
    fn event_times(&self, decoded: &RecordBatch) -> Result<Int64Array, ScanError> {
        event_millis(decoded.column(self.event_time).as_ref()).ok_or_else(|| ScanError::Column {
            column: decoded.schema().field(self.event_time).name().clone(),
            topic: self.partition.topic.to_string(),
        })
    }

    /// Notes that the partition's end was reached at `position`, at this time by the clock.
    pub fn reached_end(&mut self, position: Offset, now_ms: i64) {
        // Behind the last record there may be control records: they are no reason to write an empty range.
        self.quiet.end = position;
        self.quiet.since_ms.get_or_insert(now_ms);
    }

    /// Looks at the clock: whether the partition is idle, and how far its time would be.
    pub fn tick(&mut self, now_ms: i64) {
        let (Some(timeout), Some(since), false) = (
            self.idle_timeout_ms,
            self.quiet.since_ms,
            self.state.ended || self.is_fed,
        ) else {
            return;
        };
        let elapsed = now_ms.saturating_sub(since);
        if elapsed < timeout {
            return;
        }
        if !self.quiet.idle {
            self.quiet.idle = true;
            self.range.mark_due = true;
        }
        if !self.idle_advance {
            return;
        }
        // By the clock, time goes on from where it was, until every window that this partition could still hold is over.
        if let (Some(watermark), Some(latest)) = (self.watermark(), self.state.max_event_ms) {
            let over = latest.saturating_add(self.longest_wait_ms);
            let advanced = watermark.saturating_add(elapsed).min(over);
            if self.quiet.advance_to < Some(advanced)
                && (now_ms.saturating_sub(self.quiet.last_mark_ms) >= ADVANCE_INTERVAL_MS
                    || advanced == over)
            {
                self.quiet.advance_to = Some(advanced);
                self.quiet.last_mark_ms = now_ms;
                self.range.mark_due = true;
            }
        }
    }

    /// Notes that no more input will come, once the task has come to the end at `stable`.
    pub fn end_at(&mut self, stable: Offset) {
        if !self.state.ended && self.quiet.since_ms.is_some() && self.quiet.end >= stable {
            self.state.ended = true;
            self.range.mark_due = true;
        }
    }

    /// Whether all that there was has been read, so that nobody need wait for it.
    pub fn at_end(&self) -> bool {
        self.state.ended || self.quiet.since_ms.is_some()
    }

    /// Whether it has brought nothing for the idle timeout.
    pub fn idle(&self) -> bool {
        self.quiet.idle
    }

    /// Whether the end of the input has been announced and committed.
    pub fn ended(&self) -> bool {
        self.committed.ended
    }

    /// How many rows the range since the last commit holds.
    pub fn rows_in_range(&self) -> u64 {
        self.range.rows_in
    }

    /// The state that will stand committed after this range.
    pub fn state(&self) -> &SourceState {
        &self.state
    }

    /// The partition's watermark: its latest event time less the out-of-orderness.
    pub fn watermark(&self) -> Option<i64> {
        self.state
            .max_event_ms
            .map(|latest| latest.saturating_sub(self.out_of_orderness_ms))
    }

    /// Ends the range: what is to be sent, and the position to be committed with the state's metadata. `None` if nothing
    /// has happened since the last commit.
    pub fn close_range(
        &mut self,
        partitions: i32,
    ) -> Result<Option<(Vec<Outgoing>, Offset)>, ScanError> {
        if self.next == self.start && !self.range.mark_due {
            return Ok(None);
        }
        let mut outgoing = Vec::new();
        for (query, range) in self.queries.iter().zip(&mut self.range.queries) {
            let job_query = &self.job.queries[query.index];
            let partials = std::mem::take(&mut range.partials);
            if job_query.plan.window.is_none() {
                let results = partials.into_iter().map(|rows| Outgoing::Results {
                    query: query.index,
                    rows,
                });
                outgoing.extend(results);
                continue;
            }
            let merged = match partials.as_slice() {
                [] => None,
                [one] => Some(one.clone()),
                several => Some(job_query.plan.merge(several)?),
            };
            let shards = self.job.options.shards as usize;
            let parts = match merged {
                Some(rows) => {
                    shard::split(&rows, job_query.plan.keys, job_query.plan.spread, shards)?
                        .into_iter()
                        .map(Some)
                        .collect()
                }
                None => vec![None; shards],
            };
            for (shard, rows) in (0..).zip(parts) {
                let header = Header {
                    version: FORMAT_VERSION,
                    fingerprint: job_query.fingerprint,
                    topic_id: self.topic_id.clone(),
                    partition: self.partition.partition,
                    partitions,
                    start: self.start,
                    end: self.next,
                    rows_in: self.range.rows_in,
                    filtered: range.counts.filtered + self.range.tombstones,
                    dead: range.counts.dead + self.range.undecodable,
                    watermark: self
                        .state
                        .max_event_ms
                        .map(|latest| latest.saturating_sub(self.out_of_orderness_ms)),
                    idle: self.quiet.idle,
                    advance_to: self.quiet.advance_to,
                    ended: self.state.ended,
                };
                outgoing.push(Outgoing::Partial {
                    query: query.index,
                    shard,
                    header,
                    rows: rows.filter(|rows| rows.num_rows() > 0),
                });
            }
        }
        self.state.rows_in += self.range.rows_in;
        self.state.undecodable += self.range.undecodable;
        for (total, range) in self.state.queries.iter_mut().zip(&self.range.queries) {
            total.filtered += range.counts.filtered + self.range.tombstones;
            total.dead += range.counts.dead;
            total.kept += range.counts.kept;
            total.assigned += range.counts.assigned;
        }
        Ok(Some((outgoing, self.next)))
    }

    /// Notes that the closed range was committed.
    pub fn committed(&mut self) {
        self.start = self.next;
        self.committed = self.state.clone();
        self.clear_range();
    }

    /// Goes back to the last commit, and says at which offset to read on.
    pub fn roll_back(&mut self) -> Result<Offset, ScanError> {
        self.decoder.flush()?;
        self.next = self.start;
        self.state = self.committed.clone();
        self.quiet = Quiet::default();
        self.clear_range();
        Ok(self.start)
    }

    fn clear_range(&mut self) {
        self.range = Range {
            queries: vec![RangeQuery::default(); self.queries.len()],
            ..Range::default()
        };
    }
}

/// The reason code of rows that a query can't take: without a usable event time, or with values that its expressions fail on.
const UNUSABLE: &str = "unusable_row";
/// The reason code of rows whose event time is further ahead of the clock than `max_ahead` allows.
const TOO_FAR_AHEAD: &str = "too_far_ahead";

fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

/// A column of instants in milliseconds since 1970, as the engine counts them; `None` if it holds others than instants.
fn event_millis(column: &dyn Array) -> Option<Int64Array> {
    let DataType::Timestamp(unit, _) = column.data_type() else {
        return None;
    };
    if let Some(times) = column.as_primitive_opt::<TimestampMillisecondType>() {
        return Some(times.reinterpret_cast::<Int64Type>());
    }
    let raw = cast(column, &DataType::Int64).ok()?;
    let raw = raw.as_primitive_opt::<Int64Type>()?;
    Some(match unit {
        TimeUnit::Second => raw.unary(|time| time.saturating_mul(1_000)),
        TimeUnit::Millisecond => raw.clone(),
        TimeUnit::Microsecond => raw.unary(|time| time.div_euclid(1_000)),
        TimeUnit::Nanosecond => raw.unary(|time| time.div_euclid(1_000_000)),
    })
}

/// The latest event time, some rows left out.
fn latest_event(times: &Int64Array, without: &[u32]) -> Option<i64> {
    if without.is_empty() {
        return arrow::compute::max(times);
    }
    let usable = times
        .iter()
        .zip(0u32..)
        .filter(|(_, row)| !without.contains(row));
    usable.filter_map(|(time, _)| time).max()
}
