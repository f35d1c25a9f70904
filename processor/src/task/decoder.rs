//! The decoder of a source's values, whatever they are written in.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use schemas::Registry;
use schemas::decode::{BatchDecoder, DecodeError, JsonDecoder, PushError};

use crate::job::Reader;

/// Avro's, or JSON's.
pub(crate) enum Decoder {
    Avro(Box<BatchDecoder>),
    Json(JsonDecoder),
}

impl Decoder {
    pub(crate) fn new(registry: Arc<dyn Registry>, reader: &Reader) -> Result<Self, DecodeError> {
        Ok(match reader {
            Reader::Avro(schema) => Self::Avro(Box::new(BatchDecoder::new(registry, schema)?)),
            Reader::Json(columns) => Self::Json(JsonDecoder::new(Arc::clone(columns))?),
        })
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        match self {
            Self::Avro(decoder) => decoder.schema(),
            Self::Json(decoder) => decoder.schema(),
        }
    }

    pub(crate) fn push(&mut self, value: &[u8]) -> Result<(), PushError> {
        match self {
            Self::Avro(decoder) => decoder.push(value),
            Self::Json(decoder) => decoder.push(value),
        }
    }

    pub(crate) fn flush(&mut self) -> Result<Option<RecordBatch>, DecodeError> {
        match self {
            Self::Avro(decoder) => decoder.flush(),
            Self::Json(decoder) => decoder.flush(),
        }
    }
}
