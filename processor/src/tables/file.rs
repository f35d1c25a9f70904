//! Reference tables in files: their columns and their rows, or everything that is wrong with them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::Array;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use engine::reference::{Key, Layout, Snapshot};
use engine::sql::{JobError, ReferenceTable, TableOrigin};

use super::open::path_of;
use super::{csv, parquet};

/// How many problems of one file are told.
const TOLD: usize = 20;

/// What is wrong with a file.
pub(super) struct Problems<'a> {
    table: &'a ReferenceTable,
    path: String,
    told: Vec<JobError>,
    more: usize,
}

impl<'a> Problems<'a> {
    fn new(table: &'a ReferenceTable, path: &Path) -> Self {
        Self {
            table,
            path: path.display().to_string(),
            told: Vec::new(),
            more: 0,
        }
    }

    /// Something is wrong with the file: `what` follows its name.
    pub(super) fn add(&mut self, what: &str, help: &str) {
        if self.told.len() < TOLD {
            self.told.push(JobError {
                at: self.table.origin_at,
                what: format!("{}{what}", self.path),
                help: Some(help.into()),
            });
        } else {
            self.more += 1;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.told.is_empty()
    }

    fn all(mut self) -> Vec<JobError> {
        if self.more > 0 {
            self.told.push(JobError {
                at: self.table.origin_at,
                what: format!("{}: {} more problems of this kind", self.path, self.more),
                help: None,
            });
        }
        self.told
    }
}

/// Rows of a file, and where each stands in it.
pub(super) struct Rows {
    pub(super) batch: RecordBatch,
    /// What the numbers count: `line`, or `row`.
    pub(super) unit: &'static str,
    pub(super) numbers: Vec<u64>,
}

/// The columns of a table that is a file. `folder` is where relative paths begin.
///
/// # Errors
/// The file can't be read, or its columns are not those that are declared.
pub(crate) fn columns(table: &ReferenceTable, folder: &Path) -> Result<SchemaRef, Vec<JobError>> {
    match &table.origin {
        TableOrigin::Parquet(path) => {
            let path = folder.join(path);
            let mut problems = Problems::new(table, &path);
            match parquet::columns(table, &path, &mut problems) {
                Some(columns) if problems.is_empty() => Ok(columns),
                _ => Err(problems.all()),
            }
        }
        TableOrigin::Csv(_) | TableOrigin::Topic { .. } => Ok(table
            .columns
            .clone()
            .unwrap_or_else(|| Arc::new(Schema::empty()))),
    }
}

/// Loads a table that is a file, with the columns of `kept`, those of its key among them. `folder` is where relative paths
/// begin.
///
/// # Errors
/// Everything that is wrong with the file, up to a number: values that do not fit their columns, and keys that are null or
/// come twice.
pub(super) fn load(
    table: &ReferenceTable,
    folder: &Path,
    kept: &[String],
) -> Result<Snapshot, Vec<JobError>> {
    let all = columns(table, folder)?;
    let Some(path) = path_of(table, folder) else {
        return Err(vec![]);
    };
    let mut problems = Problems::new(table, &path);
    let wanted: Vec<_> = all
        .fields()
        .iter()
        .filter(|field| kept.contains(field.name()))
        .cloned()
        .collect();
    let wanted: SchemaRef = Arc::new(Schema::new(wanted));
    let rows = match &table.origin {
        TableOrigin::Csv(_) => csv::rows(&path, &all, &wanted, &mut problems),
        _ => parquet::rows(&path, &wanted, &mut problems),
    };
    let Some(rows) = rows else {
        return Err(problems.all());
    };
    let loaded = index(table, &rows, &wanted, &mut problems);
    match loaded {
        Ok(rows) if problems.is_empty() => Ok(rows),
        Ok(_) => Err(problems.all()),
        Err(error) => {
            problems.add(&format!(": {error}"), "this is a fault of the program");
            Err(problems.all())
        }
    }
}

/// Puts the rows under their keys.
fn index(
    table: &ReferenceTable,
    rows: &Rows,
    columns: &SchemaRef,
    problems: &mut Problems<'_>,
) -> Result<Snapshot, ArrowError> {
    let layout = Arc::new(Layout::new(Arc::clone(columns), &table.key)?);
    let keys = layout.keys(&rows.batch)?;
    let mut first: HashMap<Key, u64> = HashMap::with_capacity(keys.len());
    let mut changes = Vec::with_capacity(keys.len());
    for ((row, key), number) in (0_u32..).zip(keys).zip(&rows.numbers) {
        let unit = rows.unit;
        let Some(key) = key else {
            // Where NOT NULL is declared, that is told already.
            let empty: Vec<&str> = table
                .key
                .iter()
                .filter(|name| {
                    let column = rows.batch.column_by_name(name);
                    column.is_some_and(|column| column.is_null(row as usize))
                        && columns.field_with_name(name).is_ok_and(Field::is_nullable)
                })
                .map(String::as_str)
                .collect();
            if empty.is_empty() {
                continue;
            }
            problems.add(
                &format!(
                    ", {unit} {number}, column {}: the key is null, so that nothing can find the row",
                    empty.join(", ")
                ),
                "give it a value, or leave the row out",
            );
            continue;
        };
        if let Some(before) = first.insert(Arc::clone(&key), *number) {
            first.insert(Arc::clone(&key), before);
            problems.add(
                &format!(
                    ", {unit} {number}, column {}: the key is that of {unit} {before} too",
                    table.key.join(", ")
                ),
                "a key stands for one row: keep one of them, or take more columns into the key",
            );
        }
        changes.push((key, Some(row)));
    }
    if !problems.is_empty() {
        return Ok(Snapshot::empty(layout));
    }
    Snapshot::empty(layout).with(&rows.batch, changes)
}

/// Notes values that are null where a column has none.
fn check_nulls(rows: &Rows, columns: &Schema, problems: &mut Problems<'_>) {
    for (field, column) in columns.fields().iter().zip(rows.batch.columns()) {
        if field.is_nullable() || column.null_count() == 0 {
            continue;
        }
        for row in (0..column.len()).filter(|row| column.is_null(*row)) {
            problems.add(
                &format!(
                    ", {} {}, column {}: there is no value, and the column is NOT NULL",
                    rows.unit,
                    rows.numbers[row],
                    field.name()
                ),
                "give it a value, or declare the column without NOT NULL",
            );
        }
    }
}

/// Rows whose columns are as the table has them; `None`, with problems, if they are not.
pub(super) fn checked(
    rows: Result<Rows, ArrowError>,
    columns: &SchemaRef,
    problems: &mut Problems<'_>,
) -> Option<Rows> {
    let built = rows.and_then(|rows| {
        check_nulls(&rows, columns, problems);
        if !problems.is_empty() {
            return Ok(rows);
        }
        let values = rows.batch.columns().to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(rows.batch.num_rows()));
        let batch = RecordBatch::try_new_with_options(Arc::clone(columns), values, &options)?;
        Ok(Rows { batch, ..rows })
    });
    match built {
        Ok(rows) => Some(rows),
        Err(error) => {
            problems.add(&format!(": {error}"), "this is a fault of the program");
            None
        }
    }
}
