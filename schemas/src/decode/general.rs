//! The general way, for nested records and whatever else the fast way does not read: arrow-avro decodes, behind two checks.
//!
//! arrow-avro may be left with part of a row after an error, and finds some faults only when the whole batch is built. So
//! a record is first stepped over, which bounds everything in it by its length, and then decoded and built by itself, in a
//! decoder that may break. Only a record that has passed both goes to the decoder with the rows before it.

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow_avro::reader::{Decoder, ReaderBuilder};
use arrow_avro::schema::{AvroSchema, Fingerprint, FingerprintAlgorithm, SchemaStore};

use super::cursor::{Cursor, Fault};
use super::walk::{self, Step};
use crate::SchemaId;
use crate::project::inlined;

/// One writer's schema, resolved to the reader's by arrow-avro.
pub(crate) struct General {
    step: Step,
    build: Build,
    rows: Decoder,
    trial: Decoder,
    /// arrow-avro counts the values of a union's branches on from one batch to the next, so that only its first is right:
    /// with a union, each batch takes a new decoder.
    once: bool,
}

/// What a decoder is built from, again after it broke.
struct Build {
    id: SchemaId,
    writer: String,
    reader: String,
}

impl Build {
    fn decoder(&self) -> Result<Decoder, String> {
        decoder(self.id, &self.writer, &self.reader)
    }
}

/// An arrow-avro decoder of records with this number.
pub(crate) fn decoder(id: SchemaId, writer: &str, reader: &str) -> Result<Decoder, String> {
    let (writer, reader) = (inlined(writer)?, inlined(reader)?);
    let mut store = SchemaStore::new_with_type(FingerprintAlgorithm::Id);
    store
        .set(Fingerprint::Id(id), AvroSchema::new(writer))
        .map_err(|e| e.to_string())?;
    ReaderBuilder::new()
        // Never full by itself: BatchDecoder keeps the limits.
        .with_batch_size(usize::MAX)
        .with_reader_schema(AvroSchema::new(reader))
        .with_writer_schema_store(store)
        .with_active_fingerprint(Fingerprint::Id(id))
        .build_decoder()
        .map_err(|e| e.to_string())
}

impl General {
    pub(crate) fn new(
        id: SchemaId,
        writer: &str,
        reader: &str,
        step: Step,
    ) -> Result<Self, String> {
        let build = Build {
            id,
            writer: writer.to_owned(),
            reader: reader.to_owned(),
        };
        let (rows, trial) = (build.decoder()?, build.decoder()?);
        let once = rows
            .schema()
            .fields()
            .iter()
            .any(|field| holds_union(field.data_type()));
        Ok(Self {
            step,
            rows,
            trial,
            build,
            once,
        })
    }

    /// Takes one framed record, or, after a fault, nothing of it.
    pub(crate) fn push(&mut self, value: &[u8], body: &[u8]) -> Result<(), String> {
        let mut cursor = Cursor::new(body);
        walk::walk(&self.step, &mut cursor).map_err(|fault| fault.to_string())?;
        if !cursor.bytes.is_empty() {
            return Err(Fault::Trailing(cursor.bytes.len()).to_string());
        }
        if let Err(detail) = self.attempt(value) {
            self.trial = self.build.decoder()?;
            return Err(detail);
        }
        feed(&mut self.rows, value)
    }

    fn attempt(&mut self, value: &[u8]) -> Result<(), String> {
        feed(&mut self.trial, value)?;
        let built = self.trial.flush();
        if self.once {
            self.trial = self.build.decoder()?;
        }
        match built {
            Ok(Some(batch)) if batch.num_rows() == 1 => Ok(()),
            Ok(_) => Err("it does not decode to one row".to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// The rows so far; none are left.
    pub(crate) fn take(&mut self) -> Result<Option<RecordBatch>, String> {
        let batch = self.rows.flush().map_err(|e| e.to_string())?;
        if self.once {
            self.rows = self.build.decoder()?;
        }
        Ok(batch)
    }
}

fn holds_union(data_type: &DataType) -> bool {
    match data_type {
        DataType::Union(_, _) => true,
        DataType::Struct(fields) => fields.iter().any(|field| holds_union(field.data_type())),
        DataType::List(item) | DataType::Map(item, _) => holds_union(item.data_type()),
        _ => false,
    }
}

fn feed(decoder: &mut Decoder, value: &[u8]) -> Result<(), String> {
    let consumed = if value.len() == crate::wire::HEADER_BYTES {
        // The decoder begins a record only when a byte follows its header; the one added here is left unread.
        let mut padded = value.to_vec();
        padded.push(crate::wire::MAGIC);
        decoder.decode(&padded)
    } else {
        decoder.decode(value)
    }
    .map_err(|e| e.to_string())?;
    if consumed == value.len() {
        Ok(())
    } else {
        Err("its bytes end within a value".to_owned())
    }
}
