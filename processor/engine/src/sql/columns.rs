//! `CREATE … name (column TYPE [NOT NULL], …)`: the columns of values that no schema describes.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion_sql::sqlparser::ast::{ColumnDef, ColumnOption, DataType as Sql, ExactNumberInfo};
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;

use super::statement::normal;
use super::{JobError, Location};

/// The zone of instants, as arrow-avro names it.
const UTC: &str = "+00:00";

/// Reads the columns at the parser's position; `None` if there are none. Also says where they begin. `kind` is what
/// follows CREATE.
pub(super) fn parse(
    parser: &mut Parser<'_>,
    kind: &str,
    errors: &mut Vec<JobError>,
) -> Result<Option<(SchemaRef, Location)>, ParserError> {
    let start = parser.peek_token();
    if start.token != Token::LParen {
        return Ok(None);
    }
    let at = Location::from(start.span.start);
    let noun = kind.to_lowercase();
    let (columns, constraints) = parser.parse_columns()?;
    if let Some(constraint) = constraints.first() {
        errors.push(JobError::new(
            at,
            format!("a {noun} has no constraint such as {constraint}"),
            "leave it out",
        ));
    }
    if columns.is_empty() {
        errors.push(JobError::new(
            at,
            format!("the {noun} has no columns"),
            format!("write CREATE {kind} name (id BIGINT, at TIMESTAMP NOT NULL) WITH (…)"),
        ));
    }
    let mut fields: Vec<Field> = Vec::with_capacity(columns.len());
    for column in columns {
        let at = Location::from(column.name.span.start);
        let name = normal(&column.name);
        if fields.iter().any(|field| *field.name() == name) {
            errors.push(JobError::new(
                at,
                format!("the column {name} is declared twice"),
                "give each column its own name",
            ));
        }
        let nullable = nullable(&column, &noun, at, errors);
        match arrow_type(&column.data_type) {
            Some(data_type) => fields.push(Field::new(name, data_type, nullable)),
            None => errors.push(JobError::new(
                at,
                format!(
                    "the type {} of column {name} is not supported",
                    column.data_type
                ),
                "the types are BOOLEAN, INT, BIGINT, REAL, DOUBLE, TEXT, DATE and TIMESTAMP",
            )),
        }
    }
    Ok(Some((Arc::new(Schema::new(fields)), at)))
}

fn nullable(column: &ColumnDef, noun: &str, at: Location, errors: &mut Vec<JobError>) -> bool {
    let mut nullable = true;
    for option in &column.options {
        match option.option {
            ColumnOption::Null => {}
            ColumnOption::NotNull => nullable = false,
            _ => errors.push(JobError::new(
                at,
                format!("a {noun}'s column cannot have {}", option.option),
                "leave it out: after its type a column may be NOT NULL",
            )),
        }
    }
    nullable
}

fn arrow_type(data_type: &Sql) -> Option<DataType> {
    Some(match data_type {
        Sql::Boolean | Sql::Bool => DataType::Boolean,
        Sql::Int(None) | Sql::Integer(None) => DataType::Int32,
        Sql::BigInt(None) => DataType::Int64,
        Sql::Real | Sql::Float(ExactNumberInfo::None) => DataType::Float32,
        Sql::Double(ExactNumberInfo::None) | Sql::DoublePrecision => DataType::Float64,
        Sql::Text | Sql::String(None) | Sql::Varchar(None) => DataType::Utf8,
        Sql::Date => DataType::Date32,
        Sql::Timestamp(None, _) => DataType::Timestamp(TimeUnit::Millisecond, Some(UTC.into())),
        _ => return None,
    })
}
