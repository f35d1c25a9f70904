//! Arrow batches → framed Avro records of one schema.
//!
//! ```text
//!   batch ──fit: by name, in the schema's order, widened where nothing is lost──▶ batch of the schema's types
//!         ──arrow-avro──▶ rows, each with Confluent's header and the schema's number
//! ```

mod derive;
mod fit;

use apache_avro::Schema;
use arrow::array::RecordBatch;
use arrow::datatypes::{Schema as ArrowSchema, SchemaRef};
use arrow_avro::schema::{FingerprintStrategy, SCHEMA_METADATA_KEY};
use arrow_avro::writer::format::AvroSoeFormat;
use arrow_avro::writer::{EncodedRows, Encoder, WriterBuilder};

pub use derive::avro_schema_for;

use self::fit::Fit;
use crate::{SchemaId, avro, registry::compatibility};

/// Why batches can't be encoded with a schema.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EncodeError {
    /// The Avro schema can't be used.
    #[error("the output's schema can't be used: {detail}")]
    Schema {
        /// Why.
        detail: String,
    },
    /// A column does not fit the schema.
    #[error("column `{column}` does not fit the output's schema: {detail}")]
    Column {
        /// Which.
        column: String,
        /// What the schema wants, and what to do.
        detail: String,
    },
    /// The encoder refuses a batch: a fault in this program.
    #[error("the batch can't be encoded: {detail}")]
    Build {
        /// What it says.
        detail: String,
    },
}

/// Encodes Arrow batches of one schema as framed Avro records.
pub struct BatchEncoder {
    id: SchemaId,
    fits: Vec<Fit>,
    /// The batches' schema.
    from: SchemaRef,
    /// The schema's types, with the Avro text for arrow-avro.
    to: SchemaRef,
    encoder: Encoder,
}

/// The records of one batch, in its order.
#[derive(Clone, Debug)]
pub struct Rows(EncodedRows);

impl Rows {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Each record's value: header and Avro encoding.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        let bytes = self.0.bytes();
        self.0
            .offsets()
            .windows(2)
            .map(move |ends| &bytes[ends[0]..ends[1]])
    }
}

impl BatchEncoder {
    /// An encoder of batches with the schema `arrow` as records of the Avro schema `schema`, numbered `id`.
    ///
    /// Columns are matched with fields by name. Each column needs its field, and each field its column, unless its default is
    /// null: a topic's schema may have got more fields than some writer knows. A column of another
    /// type than its field's is converted where no value can be lost (`Int32` to `long`, any text to `string`, seconds to
    /// milliseconds), or where each batch can be checked (nanoseconds to milliseconds, `UInt64` to `long`).
    ///
    /// # Errors
    /// [`EncodeError`] names the column that does not fit and says what the schema wants.
    pub fn new(schema: &str, id: SchemaId, arrow: SchemaRef) -> Result<Self, EncodeError> {
        let unusable = |detail: String| EncodeError::Schema { detail };
        let parsed = avro::parse(schema).map_err(unusable)?;
        let Schema::Record(record) = &parsed else {
            return Err(unusable(format!(
                "it is of {}, and records are needed",
                compatibility::name_of(&parsed)
            )));
        };
        let target = crate::decode::arrow_schema(schema).map_err(unusable)?;
        for column in arrow.fields() {
            if target.field_with_name(column.name()).is_err() {
                let names: Vec<&str> = record.fields.iter().map(|f| f.name.as_str()).collect();
                return Err(EncodeError::Column {
                    column: column.name().clone(),
                    detail: format!(
                        "{} has no such field; it has {}",
                        record.name.fullname(None),
                        names.join(", ")
                    ),
                });
            }
        }
        let fits = record
            .fields
            .iter()
            .zip(target.fields())
            .map(|(field, target)| Fit::new(field, target, &arrow))
            .collect::<Result<Vec<_>, _>>()?;
        let metadata = [(SCHEMA_METADATA_KEY.to_owned(), schema.to_owned())].into();
        let to = SchemaRef::new(ArrowSchema::new_with_metadata(
            target.fields().clone(),
            metadata,
        ));
        let encoder = build(&to, id)?;
        Ok(Self {
            id,
            fits,
            from: arrow,
            to,
            encoder,
        })
    }

    /// The number that the records carry.
    pub fn id(&self) -> SchemaId {
        self.id
    }

    /// Encodes a batch, one record per row.
    ///
    /// # Errors
    /// [`EncodeError::Column`] when a column holds a value that its field can't: a null, or a number out of range.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Rows, EncodeError> {
        if batch.schema_ref().fields() != self.from.fields() {
            return Err(EncodeError::Build {
                detail: "its schema is not the one that the encoder was made for".to_owned(),
            });
        }
        let columns = self
            .fits
            .iter()
            .map(|fit| fit.apply(batch))
            .collect::<Result<Vec<_>, _>>()?;
        let options =
            arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let result = RecordBatch::try_new_with_options(self.to.clone(), columns, &options)
            .map_err(|e| e.to_string())
            .and_then(|batch| self.encoder.encode(&batch).map_err(|e| e.to_string()));
        let rows = match result {
            Ok(()) => self.encoder.flush(),
            Err(detail) => {
                // It may hold some of the batch's rows.
                self.encoder = build(&self.to, self.id)?;
                return Err(EncodeError::Build { detail });
            }
        };
        if rows.len() != batch.num_rows() {
            let detail = format!("{} rows gave {} records", batch.num_rows(), rows.len());
            return Err(EncodeError::Build { detail });
        }
        Ok(Rows(rows))
    }
}

impl std::fmt::Debug for BatchEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchEncoder")
            .field("id", &self.id)
            .field("to", &self.to.fields())
            .finish_non_exhaustive()
    }
}

fn build(to: &SchemaRef, id: SchemaId) -> Result<Encoder, EncodeError> {
    WriterBuilder::new(ArrowSchema::clone(to))
        .with_fingerprint_strategy(FingerprintStrategy::Id(id))
        .build_encoder::<AvroSoeFormat>()
        .map_err(|e| EncodeError::Schema {
            detail: e.to_string(),
        })
}
