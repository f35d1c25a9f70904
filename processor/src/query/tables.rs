//! A query's results as a table: its columns, and rows of Arrow batches copied into it.

use std::collections::BTreeSet;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type, TimeUnit, TimestampMillisecondType};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::array_value_to_string;
use engine::plan::Query;
use engine::watermark::END_OF_TIME;
use rusqlite::types::Value;
use rusqlite::{CachedStatement, Connection};
use serde::Serialize;

use crate::words::{instant, sql_type};

/// What the column of watermarks says once the input has ended: later than any other.
const ENDED: &str = "9999-12-31T23:59:59.999Z";

/// A table: the results of one query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Table {
    /// Its name: the query's.
    pub table: String,
    /// The query, by its place in the job.
    #[serde(skip)]
    pub query: usize,
    /// Its columns: those of the results, then shard and watermark.
    pub columns: Vec<Column>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as a job has it.
    #[serde(rename = "type")]
    pub sql_type: String,
}

/// The tables of a job's queries.
pub fn of<'a>(queries: impl IntoIterator<Item = &'a Query>) -> Vec<Table> {
    let mut tables = BTreeSet::new();
    queries
        .into_iter()
        .enumerate()
        .map(|(place, query)| {
            let mut columns = BTreeSet::new();
            let fields = query.output.fields().iter();
            let results = fields.map(|field| (field.name().as_str(), sql_type(field.data_type())));
            let added = [("shard", "INT".into()), ("watermark", "TIMESTAMP".into())];
            Table {
                table: unlike(&query.name, &mut tables),
                query: place,
                columns: results
                    .chain(added)
                    .map(|(name, sql_type)| Column {
                        name: unlike(name, &mut columns),
                        sql_type,
                    })
                    .collect(),
            }
        })
        .collect()
}

/// The name, with underscores behind it as long as there is one like it but for upper and lower case; and before it where
/// SQLite keeps such names for itself.
fn unlike(name: &str, taken: &mut BTreeSet<String>) -> String {
    let mut name = match name.to_lowercase().starts_with("sqlite_") {
        true => format!("_{name}"),
        false => name.to_owned(),
    };
    while !taken.insert(name.to_lowercase()) {
        name.push('_');
    }
    name
}

impl Table {
    /// The statement that makes it.
    pub fn create(&self) -> String {
        let columns: Vec<_> = self
            .columns
            .iter()
            .map(|column| format!("{} {}", quoted(&column.name), declared(&column.sql_type)))
            .collect();
        format!(
            "CREATE TABLE {} ({})",
            quoted(&self.table),
            columns.join(", ")
        )
    }

    /// The statement that puts a row into it.
    pub fn insert<'c>(
        &self,
        connection: &'c Connection,
    ) -> Result<CachedStatement<'c>, rusqlite::Error> {
        let places = vec!["?"; self.columns.len()].join(", ");
        connection.prepare_cached(&format!(
            "INSERT INTO {} VALUES ({places})",
            quoted(&self.table)
        ))
    }

    /// A statement to begin with.
    pub fn example(&self) -> String {
        let order = self.columns.iter().find(|column| {
            column.sql_type == "TIMESTAMP" && column.name.to_lowercase() != "watermark"
        });
        let order = order.map_or(String::new(), |column| {
            format!(" ORDER BY {} DESC", plain(&column.name))
        });
        format!("SELECT * FROM {}{order} LIMIT 10", plain(&self.table))
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The name as people would write it.
fn plain(name: &str) -> String {
    let simple = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    match name.chars().all(simple) && name.starts_with(|first: char| !first.is_ascii_digit()) {
        true => name.to_owned(),
        false => quoted(name),
    }
}

/// The type as SQLite is told it, which makes its affinity.
fn declared(sql_type: &str) -> &str {
    match sql_type {
        "BOOLEAN" | "INT" | "BIGINT" | "REAL" | "DOUBLE" | "TIMESTAMP" | "DATE" => sql_type,
        _ => "TEXT",
    }
}

/// A batch of results, its columns cast to what SQLite has.
pub struct Rows {
    columns: Vec<ArrayRef>,
    shard: Value,
    watermark: Value,
    rows: usize,
}

impl Rows {
    /// Results of a shard whose watermark stands there.
    pub fn new(
        results: &RecordBatch,
        shard: Option<i32>,
        watermark: Option<i64>,
    ) -> Result<Self, ArrowError> {
        let columns = results.columns().iter().map(|column| {
            let to = match column.data_type() {
                DataType::Int8
                | DataType::Int16
                | DataType::Int32
                | DataType::UInt8
                | DataType::UInt16
                | DataType::UInt32 => DataType::Int64,
                DataType::Float16 | DataType::Float32 => DataType::Float64,
                DataType::Timestamp(_, _) => DataType::Timestamp(TimeUnit::Millisecond, None),
                other => other.clone(),
            };
            cast(column, &to)
        });
        Ok(Self {
            columns: columns.collect::<Result<_, _>>()?,
            shard: shard.map_or(Value::Null, |shard| i64::from(shard).into()),
            watermark: match watermark {
                None => Value::Null,
                Some(END_OF_TIME) => ENDED.to_owned().into(),
                Some(watermark) => instant(watermark).into(),
            },
            rows: results.num_rows(),
        })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// One of them.
    pub fn row(&self, row: usize) -> Result<Vec<Value>, ArrowError> {
        let mut values = Vec::with_capacity(self.columns.len() + 2);
        for column in &self.columns {
            values.push(cell(column, row)?);
        }
        values.push(self.shard.clone());
        values.push(self.watermark.clone());
        Ok(values)
    }
}

fn cell(column: &ArrayRef, row: usize) -> Result<Value, ArrowError> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    Ok(match column.data_type() {
        DataType::Boolean => i64::from(column.as_boolean().value(row)).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => column.as_string::<i32>().value(row).to_owned().into(),
        DataType::Timestamp(_, _) => {
            instant(column.as_primitive::<TimestampMillisecondType>().value(row)).into()
        }
        _ => array_value_to_string(column, row)?.into(),
    })
}
