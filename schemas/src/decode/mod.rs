//! Framed Avro records of one topic → Arrow batches of one schema.
//!
//! ```text
//!   record ──wire::unframe──▶ (id, bytes) ──writer's schema of id──▶ flat: operations ──▶ columns ───────────┐
//!                                   │                           └──▶ general: arrow-avro, one per schema ──┤ flush
//!                                   └── not framed, unknown, undecodable ──▶ BadRecord                      ▼
//!                                                                                        RecordBatch, in push order
//! ```
//!
//! A bad record never touches the rows pushed before it, and costs memory in proportion to its own length only.

mod arrow_schema;
mod cursor;
mod error;
mod flat;
mod general;
mod json;
pub(crate) mod walk;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::schema::{RecordSchema, ResolvedSchema};
use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{cast, concat_batches, interleave_record_batch};
use arrow::datatypes::SchemaRef;

pub(crate) use self::arrow_schema::arrow_schema;
pub use self::error::{BadRecord, DecodeError, PushError};
use self::error::{bad, flat_fault, refused_by_registry};
use self::flat::{Columns, Program};
use self::general::General;
pub use self::json::JsonDecoder;
use crate::registry::compatibility::{self, Rule};
use crate::{Registry, SchemaId, avro, wire};

/// The most rows of a batch.
pub const MAX_ROWS: usize = 1 << 20;

/// The most bytes of the records of a batch, and of a record.
pub const MAX_BYTES: usize = 256 << 20;

/// What the defaults of all rows of a batch may take.
const MAX_DEFAULT_BYTES: usize = 512 << 20;

/// Decodes the framed Avro records of one topic into Arrow batches of the reader's schema, whatever schemas they were
/// written with.
pub struct BatchDecoder {
    registry: Arc<dyn Registry>,
    reader: RecordSchema,
    reader_text: String,
    schema: SchemaRef,
    /// The rows of all writers that take the fast way; `None` when the reader's schema has a field that it does not read.
    columns: Option<Columns>,
    writers: Vec<Writer>,
    by_id: HashMap<SchemaId, usize>,
    /// The last record's writer: the next is likely the same.
    last: Option<(SchemaId, usize)>,
    /// Which source each row is in, in push order, as runs.
    runs: Vec<Run>,
    rows: usize,
    max_rows: usize,
    bytes: usize,
}

/// How the records of one schema are read.
enum Writer {
    Flat(Program),
    General(Box<General>),
    /// It can't be resolved to the reader's schema: reason and detail.
    Refused(&'static str, String),
}

/// Rows that came one after another from one source: the columns, or a writer of the general way.
struct Run {
    source: Source,
    rows: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Source {
    Columns,
    Writer(usize),
}

impl BatchDecoder {
    /// A decoder to the schema `reader_schema` (Avro JSON text of a record): the subject's latest, or a
    /// [projection](crate::projected_schema) of it.
    ///
    /// # Errors
    /// [`DecodeError::ReaderSchema`] when the text can't be used.
    pub fn new(registry: Arc<dyn Registry>, reader_schema: &str) -> Result<Self, DecodeError> {
        let unusable = |detail: String| DecodeError::ReaderSchema { detail };
        let reader = match avro::parse(reader_schema).map_err(unusable)? {
            Schema::Record(record) => record,
            other => {
                let detail = format!(
                    "it is of {}, and a topic's values are records",
                    compatibility::name_of(&other)
                );
                return Err(unusable(detail));
            }
        };
        let schema = arrow_schema(reader_schema).map_err(unusable)?;
        let default_bytes: usize = reader
            .fields
            .iter()
            .filter_map(|f| f.default.as_ref())
            .map(|default| default.to_string().len())
            .sum();
        Ok(Self {
            registry,
            reader,
            reader_text: reader_schema.to_owned(),
            columns: Columns::new(Arc::clone(&schema)),
            schema,
            writers: Vec::new(),
            by_id: HashMap::new(),
            last: None,
            runs: Vec::new(),
            rows: 0,
            max_rows: MAX_ROWS
                .min(MAX_DEFAULT_BYTES / default_bytes.max(1))
                .max(1),
            bytes: 0,
        })
    }

    /// The schema of every batch.
    pub fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// How many rows the next [`flush`](Self::flush) gives.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Takes one record's value.
    ///
    /// # Errors
    /// [`PushError`] says whether the record is bad, or must be pushed again; in each case nothing of it was taken.
    #[inline]
    pub fn push(&mut self, value: &[u8]) -> Result<(), PushError> {
        let (id, body) =
            wire::unframe(value).map_err(|e| bad("not_framed", e.to_string(), None))?;
        if self.rows >= self.max_rows || self.bytes + body.len() > MAX_BYTES {
            if body.len() > MAX_BYTES {
                return Err(bad(
                    "too_large",
                    format!(
                        "the record has {} bytes; {MAX_BYTES} are the most",
                        body.len()
                    ),
                    Some(id),
                ));
            }
            return Err(PushError::Full);
        }
        let index = match self.last {
            Some((last, index)) if last == id => index,
            _ => self.writer(id)?,
        };
        let source = match &mut self.writers[index] {
            Writer::Flat(program) => {
                if let Some(columns) = &mut self.columns {
                    columns
                        .push(program, body)
                        .map_err(|at| flat_fault(&at, id))?;
                }
                Source::Columns
            }
            Writer::General(general) => {
                general
                    .push(value, body)
                    .map_err(|detail| bad("undecodable", detail, Some(id)))?;
                Source::Writer(index)
            }
            Writer::Refused(reason, detail) => return Err(bad(reason, detail.clone(), Some(id))),
        };
        self.rows += 1;
        self.bytes += body.len();
        match self.runs.last_mut() {
            Some(run) if run.source == source => run.rows += 1,
            _ => self.runs.push(Run { source, rows: 1 }),
        }
        Ok(())
    }

    /// The rows pushed since the last flush, in the order in which they were pushed; `None` when there are none.
    ///
    /// # Errors
    /// [`DecodeError::Build`] when Arrow refuses them, which no record can bring about.
    pub fn flush(&mut self) -> Result<Option<RecordBatch>, DecodeError> {
        let runs = std::mem::take(&mut self.runs);
        self.rows = 0;
        self.bytes = 0;
        let mut sources: Vec<(Source, RecordBatch)> = Vec::new();
        for run in &runs {
            if sources.iter().all(|(source, _)| *source != run.source) {
                sources.push((run.source, self.take(run.source)?));
            }
        }
        match sources.as_slice() {
            [] => Ok(None),
            [(_, only)] => Ok(Some(only.clone())),
            _ => in_order(&self.schema, &runs, &sources).map(Some),
        }
    }

    /// All rows that a source holds.
    fn take(&mut self, source: Source) -> Result<RecordBatch, DecodeError> {
        let build = |detail: String| DecodeError::Build { detail };
        match source {
            Source::Columns => {
                let columns = self
                    .columns
                    .as_mut()
                    .ok_or_else(|| build("there are no columns".to_owned()))?;
                let rows = columns.rows();
                let arrays = columns.take().map_err(|e| build(e.to_string()))?;
                with_schema(&self.schema, arrays, rows).map_err(|e| build(e.to_string()))
            }
            Source::Writer(index) => {
                let Some(Writer::General(general)) = self.writers.get_mut(index) else {
                    return Err(build("rows of a writer without a decoder".to_owned()));
                };
                let batch = general
                    .take()
                    .map_err(build)?
                    .ok_or_else(|| build("the decoder holds no rows".to_owned()))?;
                with_schema(&self.schema, batch.columns().to_vec(), batch.num_rows())
                    .map_err(|e| build(e.to_string()))
            }
        }
    }

    /// The place of a schema's writer, compiled if it is a new one.
    #[cold]
    fn writer(&mut self, id: SchemaId) -> Result<usize, PushError> {
        let next = self.writers.len();
        let index = match self.by_id.entry(id) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let text = self
                    .registry
                    .by_id(id)
                    .map_err(|e| refused_by_registry(e, id))?;
                let columns = self.columns.as_ref();
                let writer = compile(id, &text, &self.reader, &self.reader_text, columns)
                    .unwrap_or_else(|(reason, detail)| Writer::Refused(reason, detail));
                self.writers.push(writer);
                *new.insert(next)
            }
        };
        self.last = Some((id, index));
        Ok(index)
    }
}

impl std::fmt::Debug for BatchDecoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchDecoder")
            .field("reader", &self.reader.name.fullname(None))
            .field("rows", &self.rows)
            .field("writers", &self.by_id)
            .finish_non_exhaustive()
    }
}

fn compile(
    id: SchemaId,
    text: &str,
    reader: &RecordSchema,
    reader_text: &str,
    columns: Option<&Columns>,
) -> Result<Writer, (&'static str, String)> {
    let unusable = |detail: String| {
        (
            "unusable_schema",
            format!("the writer's schema, number {id}: {detail}"),
        )
    };
    let unresolvable = |detail: String| {
        (
            "unresolvable_schema",
            format!("schema number {id} can't be read as the reader's: {detail}"),
        )
    };
    let writer = avro::parse(text).map_err(unusable)?;
    let names = ResolvedSchema::new(&writer).map_err(|e| unusable(e.to_string()))?;
    let Schema::Record(record) = &writer else {
        return Err(unusable("it is no record".to_owned()));
    };
    compatibility::check(&writer, &Schema::Record(reader.clone()), Rule::Some)
        .map_err(unresolvable)?;
    if let Some(columns) = columns
        && let Some(program) =
            flat::compile(record, names.get_names(), reader, columns).map_err(unusable)?
    {
        return Ok(Writer::Flat(program));
    }
    let step = walk::compile(&writer, names.get_names()).map_err(unusable)?;
    let general = General::new(id, text, reader_text, step).map_err(unresolvable)?;
    Ok(Writer::General(Box::new(general)))
}

/// A batch of this schema; nested types are made its own where only metadata tells them apart.
fn with_schema(
    schema: &SchemaRef,
    columns: Vec<ArrayRef>,
    rows: usize,
) -> Result<RecordBatch, arrow::error::ArrowError> {
    let columns = columns
        .into_iter()
        .zip(schema.fields())
        .map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(column)
            } else {
                cast(&column, field.data_type())
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    RecordBatch::try_new_with_options(
        Arc::clone(schema),
        columns,
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )
}

/// Brings the rows of several sources into the order of the runs.
fn in_order(
    schema: &SchemaRef,
    runs: &[Run],
    sources: &[(Source, RecordBatch)],
) -> Result<RecordBatch, DecodeError> {
    let build = |e: arrow::error::ArrowError| DecodeError::Build {
        detail: e.to_string(),
    };
    let rows: usize = runs.iter().map(|run| run.rows).sum();
    if schema.fields().is_empty() {
        return with_schema(schema, Vec::new(), rows).map_err(build);
    }
    let mut next = vec![0; sources.len()];
    let place = |run: &Run| {
        sources
            .iter()
            .position(|(source, _)| *source == run.source)
            .unwrap_or_default()
    };
    if runs.len() <= 4 * sources.len() {
        let mut slices = Vec::with_capacity(runs.len());
        for run in runs {
            let source = place(run);
            slices.push(sources[source].1.slice(next[source], run.rows));
            next[source] += run.rows;
        }
        return concat_batches(schema, &slices).map_err(build);
    }
    let mut indices = Vec::with_capacity(rows);
    for run in runs {
        let source = place(run);
        indices.extend((next[source]..next[source] + run.rows).map(|row| (source, row)));
        next[source] += run.rows;
    }
    let batches: Vec<&RecordBatch> = sources.iter().map(|(_, batch)| batch).collect();
    interleave_record_batch(&batches, &indices).map_err(build)
}
