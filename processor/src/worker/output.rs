//! What a worker writes besides partials: results, reports of late rows, dead letters.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use runtime::dead_letter::{DeadLetterWriter, Origin, Refused};
use runtime::log::{NewRecord, TopicPartition};
use schemas::Registry;
use schemas::encode::BatchEncoder;
use schemas::record::{Codec, Late};

use super::WorkerError;
use super::error::Doing;
use super::keys::Keys;
use super::transaction::Transaction;
use crate::job::{Job, JobQuery};
use crate::metrics::Metrics;
use crate::query::recent::{Recent, RecentBounds};
use crate::query::views::Views;
use crate::task::merge::Given;
use crate::task::scan::Dead;

/// The stage that this program's dead letters name.
const STAGE: &str = "processor";

/// Encodes and sends what the tasks give.
pub(super) struct Outputs {
    queries: Vec<QueryOutput>,
    dead_letters: DeadLetterWriter,
    metrics: Arc<Metrics>,
    /// How much of each query's results is kept to be looked at.
    kept: RecentBounds,
}

/// Where reports of late rows go.
struct LateOutput {
    topic: String,
    codec: Codec<Late>,
}

struct QueryOutput {
    query: Arc<JobQuery>,
    /// Final results that were sent and are not committed yet.
    unsettled: Recent,
    encoder: BatchEncoder,
    late: Option<LateOutput>,
    key_columns: Vec<usize>,
}

impl Outputs {
    pub(super) fn new(
        job: &Arc<Job>,
        registry: &Arc<dyn Registry>,
        metrics: &Arc<Metrics>,
        edge_metrics: &runtime::metrics::Metrics,
        kept: RecentBounds,
    ) -> Result<Self, WorkerError> {
        let queries = job
            .queries
            .iter()
            .map(|query| QueryOutput::new(query, registry))
            .collect::<Result<_, _>>()?;
        let dead_letters = DeadLetterWriter::new(STAGE, Arc::clone(registry), edge_metrics.clone());
        Ok(Self {
            queries,
            dead_letters,
            metrics: Arc::clone(metrics),
            kept,
        })
    }

    /// Sends a dead letter to its source's dead-letter topic.
    pub(super) fn dead_letter(
        &mut self,
        transaction: &mut Transaction,
        partition: &TopicPartition,
        dead: &Dead,
    ) -> Result<(), WorkerError> {
        let refused = Refused {
            reason: dead.reason,
            detail: dead.detail.clone(),
            origin: Origin::Record {
                topic: &partition.topic,
                partition: partition.partition,
                offset: dead.offset,
            },
            column: None,
            schema_id: dead.schema_id,
            raw: &dead.raw,
        };
        let producer = transaction
            .producer()
            .doing("a dead letter can't be sent")?;
        Ok(self
            .dead_letters
            .send(producer, &partition.topic, &refused)?)
    }

    /// Shows the results that were sent: they are committed.
    pub(super) fn committed(&mut self, views: &Views) {
        for output in &mut self.queries {
            if !output.unsettled.is_empty() {
                views.results(&output.query.plan.name, &mut output.unsettled, self.kept);
            }
        }
    }

    /// Forgets the results that were sent: they are not, and will be sent again.
    pub(super) fn rolled_back(&mut self) {
        for output in &mut self.queries {
            output.unsettled = Recent::default();
        }
    }

    /// Sends what a query gave; a shard of it, unless it has none.
    pub(super) fn given(
        &mut self,
        transaction: &mut Transaction,
        query: usize,
        shard: Option<i32>,
        given: Given,
    ) -> Result<(), WorkerError> {
        let output = &mut self.queries[query];
        if let Given::Results(rows) = &given {
            output.unsettled.push(shard, rows, self.kept);
        }
        match given {
            Given::Results(rows) | Given::Changes(rows) => {
                self.metrics.results_out.inc_by(rows.num_rows() as u64);
                output.results(transaction, &rows)
            }
            Given::Late {
                rows,
                partition,
                range_start,
                range_end,
                watermark,
            } => {
                self.metrics.late_rows.inc_by(rows.rows);
                let Some(reports) = &output.late else {
                    return Err(output.failed("a query without state had late rows".into()));
                };
                let late = Late {
                    query: output.query.plan.name.clone(),
                    window_start: rows.window_start,
                    window_end: rows.window_end,
                    topic: output.query.plan.source.topic.clone(),
                    partition,
                    range_start,
                    range_end,
                    rows: i64::try_from(rows.rows).unwrap_or(i64::MAX),
                    watermark,
                };
                let value = reports
                    .codec
                    .encode(&late)
                    .map_err(|error| output.failed(error.to_string()))?;
                let key = format!(
                    "{}|{}-{partition}|{range_start}",
                    rows.window_start, late.topic
                );
                transaction
                    .send(NewRecord {
                        topic: &reports.topic,
                        partition: None,
                        key: Some(key.as_bytes()),
                        value: Some(&value),
                        headers: &[],
                        timestamp_ms: None,
                    })
                    .doing("a report of late rows can't be sent")
            }
        }
    }
}

impl QueryOutput {
    fn new(query: &Arc<JobQuery>, registry: &Arc<dyn Registry>) -> Result<Self, WorkerError> {
        let plan = &query.plan;
        let failed = |detail: String| WorkerError::Encode {
            query: plan.name.clone(),
            detail,
        };
        let encoder = BatchEncoder::new(
            &query.output_schema,
            query.output_schema_id,
            Arc::clone(&plan.output),
        )
        .map_err(|error| failed(error.to_string()))?;
        let key_columns = plan
            .sink
            .key
            .iter()
            .map(|column| plan.output.index_of(column))
            .collect::<Result<_, _>>()
            .map_err(|error| failed(error.to_string()))?;
        let late = match &query.folded {
            None => None,
            Some(folded) => {
                let topic = folded.late_topic.clone();
                let codec = Codec::new(Arc::clone(registry), &schemas::value_subject(&topic));
                let codec = codec.map_err(|source| WorkerError::Registry {
                    topic: topic.clone(),
                    source,
                })?;
                Some(LateOutput { topic, codec })
            }
        };
        Ok(Self {
            query: Arc::clone(query),
            unsettled: Recent::default(),
            encoder,
            late,
            key_columns,
        })
    }

    fn failed(&self, detail: String) -> WorkerError {
        WorkerError::Encode {
            query: self.query.plan.name.clone(),
            detail,
        }
    }

    fn results(
        &mut self,
        transaction: &mut Transaction,
        rows: &RecordBatch,
    ) -> Result<(), WorkerError> {
        let encoded = self
            .encoder
            .encode(rows)
            .map_err(|error| self.failed(error.to_string()))?;
        let keys =
            Keys::of(rows, &self.key_columns).map_err(|error| self.failed(error.to_string()))?;
        let mut records = keys.iter().map(str::as_bytes).zip(encoded.iter());
        transaction
            .send_all(&self.query.plan.sink.topic, &mut records)
            .doing("results can't be sent")
    }
}
