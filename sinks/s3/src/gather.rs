//! The records of one flush of one source partition, until the flush ends.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use runtime::log::{Offset, Record};
use schemas::decode::{BadRecord, BatchDecoder, DecodeError, PushError};
use schemas::{Registry, RegistryError, SchemaId, wire};

use crate::dead::DeadLetter;
use crate::error::SinkError;
use crate::layout::Layout;
use crate::plan::FlushPlan;
use crate::writer::{FlushWriter, PendingFile, WriteError, WriterOptions};

/// After so many rows a batch is decoded, counted from the flush's start, so that batches don't depend on polls.
const BATCH_ROWS: usize = 8192;

/// The schema that a flush is written in.
#[derive(Clone, Debug)]
pub(crate) struct Reader {
    pub id: SchemaId,
    pub text: Arc<str>,
}

/// A flush that is open.
pub(crate) struct Gather {
    /// Its first offset.
    pub start: Offset,
    /// The offset behind the last record taken.
    pub next: Offset,
    /// Records taken, bad ones included.
    pub records: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// When it was opened.
    pub since: Instant,
    /// The plan that it finishes, if it was decided before.
    pub plan: Option<FlushPlan>,
    pub reader: Reader,
    pub layout: Layout,
    pub row_group_rows: usize,
    topic: String,
    decoder: BatchDecoder,
    undecoded_bytes: usize,
    writer: FlushWriter,
    dead: Vec<DeadLetter>,
    dead_bytes: usize,
    /// The writers' schemas seen, and whether the reader's leaves out fields of them.
    writers: HashMap<SchemaId, bool>,
    last_writer: Option<(SchemaId, bool)>,
    left_out_rows: u64,
}

/// What became of a record.
pub(crate) enum Taken {
    /// It is a row or a dead letter of the flush.
    Yes,
    /// Nothing yet: it is the first of its writer's schema. Call [`Gather::know`], then offer it again.
    NewWriter(SchemaId),
    /// Nothing yet: the registry can't say what its schema is.
    Unanswered(RegistryError),
}

/// A flush that has ended.
pub(crate) struct Sealed {
    pub start: Offset,
    pub end: Offset,
    pub plan: Option<FlushPlan>,
    pub reader: Reader,
    pub layout: Layout,
    pub row_group_rows: usize,
    pub rows: u64,
    pub files: Vec<PendingFile>,
    pub dead: Vec<DeadLetter>,
    pub left_out_rows: u64,
    pub memory_bytes: usize,
}

impl Gather {
    /// Opens a flush. With a plan it is written as the plan says, whatever `layout` and `options` are.
    pub fn new(
        topic: &str,
        start: Offset,
        registry: &Arc<dyn Registry>,
        reader: Reader,
        layout: &Layout,
        mut options: WriterOptions,
        plan: Option<FlushPlan>,
    ) -> Result<Self, SinkError> {
        let layout = plan.as_ref().map_or(layout, |plan| &plan.layout).clone();
        if let Some(plan) = &plan {
            options.row_group_rows = plan.row_group_rows;
        }
        let row_group_rows = options.row_group_rows;
        let unusable = |detail: String| SinkError::Schema {
            topic: topic.to_owned(),
            detail,
        };
        let decoder = BatchDecoder::new(registry.clone(), &reader.text)
            .map_err(|error| unusable(error.to_string()))?;
        let writer =
            FlushWriter::new(&layout, decoder.schema(), options).map_err(|error| match error {
                WriteError::Layout(source) => SinkError::Layout {
                    topic: topic.to_owned(),
                    source,
                },
                WriteError::Parquet(error) => {
                    unusable(format!("Parquet has no such type: {error}"))
                }
                error @ (WriteError::Arrow(_) | WriteError::Spill { .. }) => error.into(),
            })?;
        Ok(Self {
            start,
            next: start,
            records: 0,
            bytes: 0,
            since: Instant::now(),
            plan,
            reader,
            layout,
            row_group_rows,
            topic: topic.to_owned(),
            decoder,
            undecoded_bytes: 0,
            writer,
            dead: Vec::new(),
            dead_bytes: 0,
            writers: HashMap::new(),
            last_writer: None,
            left_out_rows: 0,
        })
    }

    /// Says whether the reader's schema leaves out fields of a writer's.
    pub fn know(&mut self, writer: SchemaId, left_out: bool) {
        self.writers.insert(writer, left_out);
    }

    /// Takes the partition's next record.
    pub fn take(&mut self, record: &Record<'_>) -> Result<Taken, SinkError> {
        let Some(value) = record.value else {
            self.bury(DeadLetter::new(
                record.offset,
                "no_value",
                "the record has no value".into(),
                None,
                &[],
            ));
            self.count(record, 0);
            return Ok(Taken::Yes);
        };
        let mut left_out = false;
        if let Ok((id, _)) = wire::unframe(value) {
            left_out = match self.last_writer {
                Some((last, left_out)) if last == id => left_out,
                _ => match self.writers.get(&id) {
                    Some(left_out) => *left_out,
                    None => return Ok(Taken::NewWriter(id)),
                },
            };
            self.last_writer = Some((id, left_out));
        }
        loop {
            match self.decoder.push(value) {
                Ok(()) => {
                    self.left_out_rows += u64::from(left_out);
                    self.undecoded_bytes += value.len();
                    break;
                }
                Err(PushError::Bad(BadRecord {
                    reason,
                    detail,
                    schema_id,
                })) => {
                    self.bury(DeadLetter::new(
                        record.offset,
                        reason,
                        detail,
                        schema_id,
                        value,
                    ));
                    break;
                }
                Err(PushError::Full) if self.decoder.rows() > 0 => self.decode()?,
                Err(PushError::Full) => {
                    let detail = format!(
                        "the record has {} bytes, more than a batch takes",
                        value.len()
                    );
                    self.bury(DeadLetter::new(
                        record.offset,
                        "too_large",
                        detail,
                        None,
                        value,
                    ));
                    break;
                }
                Err(PushError::Registry(error)) => return Ok(Taken::Unanswered(error)),
            }
        }
        self.count(record, value.len());
        if self.decoder.rows() >= BATCH_ROWS {
            self.decode()?;
        }
        Ok(Taken::Yes)
    }

    fn count(&mut self, record: &Record<'_>, bytes: usize) {
        if self.records == 0 {
            self.since = Instant::now();
        }
        self.records += 1;
        self.bytes += bytes as u64;
        self.next = record.offset + 1;
    }

    fn bury(&mut self, letter: DeadLetter) {
        self.dead_bytes += letter.memory_bytes();
        self.dead.push(letter);
    }

    fn decode(&mut self) -> Result<(), SinkError> {
        self.undecoded_bytes = 0;
        let batch = self
            .decoder
            .flush()
            .map_err(|error: DecodeError| SinkError::Schema {
                topic: self.topic.clone(),
                detail: error.to_string(),
            })?;
        match batch {
            Some(batch) => Ok(self.writer.push(&batch)?),
            None => Ok(()),
        }
    }

    /// About how much memory the flush takes.
    pub fn memory_bytes(&self) -> usize {
        self.writer.memory_bytes() + 2 * self.undecoded_bytes + self.dead_bytes
    }

    /// Ends the flush.
    pub fn seal(mut self) -> Result<Sealed, SinkError> {
        self.decode()?;
        let rows = self.writer.rows();
        let memory_bytes = self.memory_bytes();
        Ok(Sealed {
            start: self.start,
            end: self.next,
            plan: self.plan,
            reader: self.reader,
            layout: self.layout,
            row_group_rows: self.row_group_rows,
            rows,
            files: self.writer.finish()?,
            dead: self.dead,
            left_out_rows: self.left_out_rows,
            memory_bytes,
        })
    }
}
