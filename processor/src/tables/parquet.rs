//! Parquet files.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::{cast, concat_batches};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use engine::sql::ReferenceTable;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::errors::ParquetError;

use super::file::{Problems, Rows, checked};
use crate::words::sql_type;

/// The zone of instants, as sources have it.
const UTC: &str = "+00:00";

/// The columns of a file: all, or those that the table declares. `None`, with problems, if it can't be read.
pub(super) fn columns(
    table: &ReferenceTable,
    path: &Path,
    problems: &mut Problems<'_>,
) -> Option<SchemaRef> {
    let found = match open(path) {
        Ok((_, found)) => found,
        Err(error) => {
            unreadable(&error, problems);
            return None;
        }
    };
    let found: Vec<Field> = found
        .schema()
        .fields()
        .iter()
        .map(|field| {
            let data_type = plain(field.data_type());
            Field::new(field.name(), data_type, field.is_nullable())
        })
        .collect();
    let Some(declared) = &table.columns else {
        return Some(Arc::new(Schema::new(found)));
    };
    for wanted in declared.fields() {
        match found.iter().find(|field| field.name() == wanted.name()) {
            None => problems.add(
                &format!(": there is no column {}", wanted.name()),
                &format!(
                    "there are: {}",
                    found
                        .iter()
                        .map(|field| field.name().as_str())
                        .collect::<Vec<_>>()
                        .join(", ")
                ),
            ),
            Some(field) if field.data_type() != wanted.data_type() => problems.add(
                &format!(
                    ", column {}: it is of type {}, and declared as {}",
                    wanted.name(),
                    sql_type(field.data_type()),
                    sql_type(wanted.data_type())
                ),
                "declare the file's own type, or no columns at all",
            ),
            Some(_) => {}
        }
    }
    Some(Arc::clone(declared))
}

/// The rows of a file, with these of its columns.
pub(super) fn rows(path: &Path, wanted: &SchemaRef, problems: &mut Problems<'_>) -> Option<Rows> {
    match read(path, wanted) {
        Ok(rows) => checked(Ok(rows), wanted, problems),
        Err(error) => {
            unreadable(&error, problems);
            None
        }
    }
}

fn read(path: &Path, wanted: &SchemaRef) -> Result<Rows, ParquetError> {
    let (file, found) = open(path)?;
    let roots: Vec<usize> = found
        .schema()
        .fields()
        .iter()
        .enumerate()
        .filter_map(|(place, field)| wanted.index_of(field.name()).is_ok().then_some(place))
        .collect();
    let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, found);
    let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
    let nullable = wanted
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true));
    let nullable = Arc::new(Schema::new(nullable.collect::<Vec<_>>()));
    let batches = builder
        .with_projection(mask)
        .build()?
        .map(|batch| {
            let batch = batch?;
            let columns = nullable.fields().iter().map(|field| {
                let column = batch.column_by_name(field.name()).ok_or_else(|| {
                    ArrowError::SchemaError(format!("there is no column {}", field.name()))
                })?;
                cast(column, field.data_type())
            });
            let columns: Vec<ArrayRef> = columns.collect::<Result<_, _>>()?;
            RecordBatch::try_new(Arc::clone(&nullable), columns)
        })
        .collect::<Result<Vec<_>, ArrowError>>()?;
    let batch = concat_batches(&nullable, &batches)?;
    Ok(Rows {
        numbers: (1..).take(batch.num_rows()).collect(),
        unit: "row",
        batch,
    })
}

fn open(path: &Path) -> Result<(File, ArrowReaderMetadata), ParquetError> {
    let file = File::open(path).map_err(|error| ParquetError::External(Box::new(error)))?;
    let metadata = ArrowReaderMetadata::load(&file, Default::default())?;
    Ok((file, metadata))
}

/// The type that a column has in the job: where there are several ways to hold the same values, that of sources.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::Float16 => DataType::Float32,
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::Dictionary(_, values) => plain(values),
        DataType::Date64 => DataType::Date32,
        DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _) => {
            DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into()))
        }
        DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, Some(UTC.into())),
        other => other.clone(),
    }
}

fn unreadable(error: &ParquetError, problems: &mut Problems<'_>) {
    problems.add(
        &format!(" can't be read: {error}"),
        "a path is that of a Parquet file, and a relative one begins in the job file's folder",
    );
}
