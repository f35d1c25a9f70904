//! The records that the pipeline writes for itself: dead letters, positions, late rows. Few enough to go through
//! apache-avro, one by one.

use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, PoisonError};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema::ResolvedSchema;
use apache_avro::writer::datum::GenericDatumWriter;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::decode::BadRecord;
use crate::decode::walk::{self, Step};
use crate::{Registry, RegistryError, SchemaId, avro, shipped, wire};

/// A record with a shipped schema.
pub trait Record: Serialize + DeserializeOwned {
    /// The schema, as it is registered.
    const SCHEMA: &'static str;
}

/// A row or record that could not be processed: `dead_letter.avsc` says what each field holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Which part refused it.
    pub stage: String,
    /// A short code, the same for all of a kind.
    pub reason: String,
    /// What exactly is wrong, for people.
    pub detail: String,
    /// For rows of a file: which.
    pub file: Option<String>,
    /// The line on which the row begins, from 1.
    pub line: Option<i64>,
    /// The column or field at fault, where one is.
    pub column: Option<String>,
    /// For records of the log: the topic.
    pub topic: Option<String>,
    /// For records of the log: the partition.
    pub partition: Option<i32>,
    /// For records of the log: the offset.
    pub offset: Option<i64>,
    /// The writer's schema, where the framing could be read; numbers above `i32::MAX` are negative here.
    pub schema_id: Option<i32>,
    /// The row's or record's own bytes; [`DeadLetter::cut`] keeps them within bounds.
    #[serde(with = "apache_avro::serde::bytes")]
    pub raw: Vec<u8>,
}

impl DeadLetter {
    /// The most bytes of a row or record that a dead letter carries.
    pub const MAX_RAW_BYTES: usize = 64 * 1024;

    /// The bytes of a row or record, as far as a dead letter carries them.
    pub fn cut(raw: &[u8]) -> Vec<u8> {
        raw[..raw.len().min(Self::MAX_RAW_BYTES)].to_vec()
    }
}

impl Record for DeadLetter {
    const SCHEMA: &'static str = shipped::DEAD_LETTER;
}

/// How far a set of input files has been sent: `position.avsc` says what each field holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The input set's id.
    pub input_set: String,
    /// The topic that the rows went to.
    pub topic: String,
    /// Which file of the set is being read, from 0.
    pub file_index: i32,
    /// Its name.
    pub file: String,
    /// How many bytes of it have been taken.
    pub byte: i64,
    /// How many lines of it have been taken.
    pub line: i64,
    /// The hash of those bytes, in hexadecimal.
    pub sha256: String,
    /// Rows taken from all files of the set so far.
    pub rows_read: i64,
    /// How many of them became dead letters.
    pub rows_rejected: i64,
    /// How many of them were sent to the topic.
    pub rows_delivered: i64,
    /// The same, by partition of the topic.
    pub delivered_by_partition: Vec<i64>,
    /// Whether every file was read to its end.
    pub finished: bool,
}

impl Record for Position {
    const SCHEMA: &'static str = shipped::POSITION;
}

/// Rows that came after their window was closed: `late.avsc` says what each field holds. Instants are milliseconds since
/// 1970 (UTC).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// Which query.
    pub query: String,
    /// The window's first instant.
    pub window_start: i64,
    /// The first instant behind the window.
    pub window_end: i64,
    /// The source topic.
    pub topic: String,
    /// The source partition.
    pub partition: i32,
    /// The first offset of the range that the late rows are in.
    pub range_start: i64,
    /// The first offset behind it.
    pub range_end: i64,
    /// How many rows of the range were late for this window.
    pub rows: i64,
    /// Where the watermark stood.
    pub watermark: i64,
}

impl Record for Late {
    const SCHEMA: &'static str = shipped::LATE;
}

/// Why a record can't be encoded or decoded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CodecError {
    /// Its bytes are none of this record's.
    #[error("bad record: {0}")]
    Bad(BadRecord),
    /// The registry can't say what its schema is; it may later.
    #[error(transparent)]
    Registry(RegistryError),
    /// The value does not fit its schema: a fault in this program.
    #[error("the record does not fit its schema: {detail}")]
    Encode {
        /// Why.
        detail: String,
    },
}

/// Encodes and decodes records of one kind, framed with their schema's number.
pub struct Codec<T> {
    registry: Arc<dyn Registry>,
    id: SchemaId,
    schema: Schema,
    /// Other versions that records were written with.
    writers: Mutex<HashMap<SchemaId, Arc<Writer>>>,
    of: PhantomData<fn(T) -> T>,
}

struct Writer {
    schema: Schema,
    step: Step,
}

impl<T: Record> Codec<T> {
    /// Registers the record's schema under `subject` and encodes with its number.
    ///
    /// # Errors
    /// What the registry says.
    pub fn new(registry: Arc<dyn Registry>, subject: &str) -> Result<Self, RegistryError> {
        let schema = avro::parse(T::SCHEMA).map_err(|detail| RegistryError::Invalid { detail })?;
        let id = registry.register(subject, T::SCHEMA)?;
        Ok(Self {
            registry,
            id,
            schema,
            writers: Mutex::default(),
            of: PhantomData,
        })
    }

    /// The schema's number.
    pub fn id(&self) -> SchemaId {
        self.id
    }

    /// The record's value, framed.
    ///
    /// # Errors
    /// [`CodecError::Encode`] when the value does not fit its schema.
    pub fn encode(&self, record: &T) -> Result<Vec<u8>, CodecError> {
        let mut out = Vec::new();
        wire::frame(self.id, &mut out);
        GenericDatumWriter::builder(&self.schema)
            .human_readable(false)
            .build()
            .and_then(|writer| writer.write_ser(&mut out, record))
            .map_err(|e| CodecError::Encode {
                detail: e.to_string(),
            })?;
        Ok(out)
    }

    /// The record of a framed value, whichever version of the schema it was written with.
    ///
    /// # Errors
    /// [`CodecError::Bad`] when its bytes are none of this record's, [`CodecError::Registry`] when that can't be told now.
    pub fn decode(&self, value: &[u8]) -> Result<T, CodecError> {
        let (id, body) =
            wire::unframe(value).map_err(|e| bad("not_framed", e.to_string(), None))?;
        let writer = self.writer(id)?;
        // apache-avro believes lengths and makes room for them, and takes a short record for one with nulls.
        let mut cursor = walk::Cursor::new(body);
        walk::walk(&writer.step, &mut cursor)
            .map_err(|fault| bad("undecodable", fault.to_string(), Some(id)))?;
        if !cursor.bytes.is_empty() {
            let detail = format!(
                "{} bytes are left over behind the last field",
                cursor.bytes.len()
            );
            return Err(bad("trailing_bytes", detail, Some(id)));
        }
        GenericDatumReader::builder(&writer.schema)
            .reader_schema(&self.schema)
            .human_readable(false)
            .build()
            .and_then(|reader| reader.read_value(&mut &*body))
            .and_then(|value| apache_avro::from_value::<T>(&value))
            .map_err(|e| bad("undecodable", e.to_string(), Some(id)))
    }

    fn writer(&self, id: SchemaId) -> Result<Arc<Writer>, CodecError> {
        // Only whole entries are inserted, so a panic elsewhere leaves a good map.
        if let Some(known) = self
            .writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&id)
        {
            return Ok(Arc::clone(known));
        }
        let text = self.registry.by_id(id).map_err(|error| match error {
            RegistryError::Unknown { .. } => bad("unknown_schema", error.to_string(), Some(id)),
            RegistryError::Invalid { .. } => bad("unusable_schema", error.to_string(), Some(id)),
            other => CodecError::Registry(other),
        })?;
        let unusable = |detail: String| bad("unusable_schema", detail, Some(id));
        let schema = avro::parse(&text).map_err(unusable)?;
        let step = {
            let names = ResolvedSchema::new(&schema).map_err(|e| unusable(e.to_string()))?;
            walk::compile(&schema, names.get_names()).map_err(unusable)?
        };
        let writer = Arc::new(Writer { schema, step });
        self.writers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id, Arc::clone(&writer));
        Ok(writer)
    }
}

impl<T> std::fmt::Debug for Codec<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Codec")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

fn bad(reason: &'static str, detail: String, schema_id: Option<SchemaId>) -> CodecError {
    CodecError::Bad(BadRecord {
        reason,
        detail,
        schema_id,
    })
}
