//! Reads one source partition: decodes, scans, and closes ranges into partials.
//!
//! It keeps no state but how far its event time has come, which stands in the committed offset's metadata.

mod given;
mod quiet;
mod succession;
mod times;

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use engine::partial::Header;
use engine::shard;
use engine::window::Window;
use runtime::log::{Batch, Offset, TopicPartition};
use schemas::Registry;
use schemas::decode::PushError;

use super::decoder::Decoder;
use crate::job::{Job, SourceTopic};
use crate::offsets::{ScanCounts, SourceState};

pub use given::{Dead, Outgoing, ScanError, Taken};
use quiet::Quiet;
use succession::{Ahead, leave_out};
use times::latest_event;

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
    /// What is decoded, and the log's time beside it, if some query reads that.
    with_record_time: Option<SchemaRef>,
    start: Offset,
    next: Offset,
    state: SourceState,
    committed: SourceState,
    range: Range,
    quiet: Quiet,
    ahead: Ahead,
}

struct ScanQuery {
    index: usize,
    columns: Vec<usize>,
    /// Whether it gives rows, and takes over a query of an earlier application that does.
    takes_over: bool,
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
    /// Results that were left out, since an earlier application gave them.
    left_out: u64,
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
        let mut reads_record_time = false;
        for &index in &source.queries {
            reads_record_time |= job.queries[index].plan.reads_record_time;
        }
        let schema = match reads_record_time {
            true => times::with_record_time(&decoder.schema()),
            false => decoder.schema(),
        };
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
            let taken = job.predecessor.as_ref().map(|of| &of.queries);
            queries.push(ScanQuery {
                index,
                columns,
                takes_over: plan.window.is_none()
                    && taken.is_some_and(|taken| taken.contains_key(&index)),
            });
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
            with_record_time: reads_record_time.then(|| Arc::clone(&schema)),
            job: Arc::clone(job),
            queries,
            decoder,
            start,
            next: start,
            committed: state.clone(),
            state,
            range: Range::default(),
            quiet: Quiet::default(),
            ahead: Ahead::Running(0),
        };
        if task.queries.iter().any(|query| query.takes_over) {
            let succession = task.state.succession.get_or_insert_default();
            succession.left_out.resize(task.queries.len(), 0);
        }
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
            let Some(value) = batch.value(index) else {
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
                        offset: batch.get(index).offset,
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
                    next = batch.get(index).offset;
                    taken.stopped = Some((next, error));
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
        if let Some(schema) = &self.with_record_time {
            decoded = times::put_record_time(&decoded, schema, &rows, batch)?;
        }
        self.range.rows_in += rows.len() as u64;
        if let Some(max_ahead) = self.max_ahead_ms {
            let latest = now_ms.saturating_add(max_ahead);
            decoded = self.leave_out_future(decoded, &mut rows, batch, latest, taken)?;
        }
        let mut without_time: Vec<u32> = Vec::new();
        let tables = self.job.tables.now();
        let given_before = self.given_before();
        for (query, range) in self.queries.iter().zip(&mut self.range.queries) {
            let input = decoded.project(&query.columns)?;
            let scanned = self.job.queries[query.index]
                .plan
                .scan_with(std::slice::from_ref(&input), &tables)?;
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
                        let results = plan.results_of_rows(&scanned.partial, &offsets)?;
                        match query.takes_over {
                            true => {
                                leave_out(results, &offsets, given_before, &mut range.left_out)?
                            }
                            false => results,
                        }
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
        // What was given up by hand is part of the range, so that ranges join.
        let start = self.state.range_from.take().unwrap_or(self.start);
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
                    version: self.job.format.written(),
                    fingerprint: job_query.fingerprint,
                    topic_id: self.topic_id.clone(),
                    partition: self.partition.partition,
                    partitions,
                    start,
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
        if let Some(succession) = &mut self.state.succession {
            let counted = succession.left_out.iter_mut().zip(&self.range.queries);
            counted.for_each(|(total, range)| *total += range.left_out);
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
        self.settle();
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
fn millis(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
