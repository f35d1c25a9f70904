//! Rows to Avro binary, straight from the borrowed fields.

use std::fmt;

use super::field::{Fault, Field, Source, Value, haversine_km};
use crate::input::Row;
use crate::reason::Reason;

/// Why a row was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The kind of fault.
    pub reason: Reason,
    /// The column at fault, where one is: its name in the header, or its position.
    pub column: Option<String>,
    /// What exactly is wrong, for people.
    pub detail: String,
}

impl Rejection {
    /// A row that could not even be taken apart or sent.
    pub(crate) fn whole_row(reason: Reason) -> Self {
        Self {
            reason,
            column: None,
            detail: reason.explanation().into(),
        }
    }
}

/// Why a file's header does not fit a mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindError {
    /// The mapping's name.
    pub mapping: String,
    /// What is wrong, all of it.
    pub problems: Vec<String>,
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "its header does not fit the mapping {}: {}",
            self.mapping,
            self.problems.join("; ")
        )
    }
}

impl std::error::Error for BindError {}

/// Encodes rows as the records of one schema, as one mapping says.
#[derive(Clone, Debug)]
pub struct RowEncoder {
    pub(super) mapping: String,
    /// In the schema's order.
    pub(super) fields: Vec<Field>,
    pub(super) key: Option<usize>,
    /// How many columns a row must have.
    pub(super) columns: usize,
    pub(super) has_header: bool,
    values: Vec<Value>,
}

impl RowEncoder {
    pub(super) fn new(
        mapping: String,
        fields: Vec<Field>,
        key: Option<usize>,
        columns: Option<usize>,
    ) -> Self {
        let values = vec![Value::Null; fields.len()];
        Self {
            mapping,
            fields,
            key,
            columns: columns.unwrap_or(0),
            has_header: columns.is_none(),
            values,
        }
    }

    /// Whether files must begin with a header.
    pub fn has_header(&self) -> bool {
        self.has_header
    }

    /// Finds the mapping's columns in a file's header.
    ///
    /// # Errors
    /// When the header lacks one, or has one twice.
    pub fn bind(&mut self, header: &[String]) -> Result<(), BindError> {
        let mut problems = Vec::new();
        for field in &mut self.fields {
            let Source::Column {
                name: Some(name),
                index,
            } = &mut field.source
            else {
                continue;
            };
            let mut found = header
                .iter()
                .enumerate()
                .filter(|(_, column)| *column == name);
            match (found.next(), found.next()) {
                (Some((at, _)), None) => *index = at,
                (Some(_), Some(_)) => problems.push(format!("column `{name}` is there twice")),
                (None, _) => problems.push(format!("there is no column `{name}`")),
            }
        }
        self.columns = header.len();
        if problems.is_empty() {
            return Ok(());
        }
        problems.push(format!(
            "the first line reads `{}`: pass another mapping, or a file with these columns",
            header.join(",").chars().take(200).collect::<String>()
        ));
        Err(BindError {
            mapping: self.mapping.clone(),
            problems,
        })
    }

    /// The record's key: the text of the key's column.
    pub fn key<'a>(&self, row: &Row<'a>) -> Option<&'a [u8]> {
        match &self.fields.get(self.key?)?.source {
            Source::Column { index, .. } => Some(row.field(*index)),
            Source::Constant(_) | Source::HaversineKm(_) | Source::Null => None,
        }
    }

    /// Appends a row's Avro encoding to `out`.
    ///
    /// # Errors
    /// When the row breaks a rule; `out` is then as it was.
    pub fn encode(&mut self, row: &Row<'_>, out: &mut Vec<u8>) -> Result<(), Rejection> {
        if row.len() != self.columns {
            let reason = if row.len() < self.columns {
                Reason::TooFewColumns
            } else {
                Reason::TooManyColumns
            };
            let detail = format!("the row has {} columns, not {}", row.len(), self.columns);
            return Err(Rejection {
                reason,
                column: None,
                detail,
            });
        }
        let Ok(text) = std::str::from_utf8(row.text()) else {
            return Err(self.bad_utf8(row));
        };
        for index in 0..self.fields.len() {
            self.values[index] = self.value(index, row, text)?;
        }
        for index in 0..self.fields.len() {
            if let Source::HaversineKm(of) = self.fields[index].source {
                self.values[index] = self.distance(of);
                self.fields[index]
                    .in_range(self.values[index])
                    .map_err(|fault| self.rejection(index, fault))?;
            }
        }
        for index in 0..self.fields.len() {
            self.check_pairs(index)?;
        }
        for (field, value) in self.fields.iter().zip(&self.values) {
            field.write(*value, row, out);
        }
        Ok(())
    }

    fn value(&self, index: usize, row: &Row<'_>, text: &str) -> Result<Value, Rejection> {
        let field = &self.fields[index];
        let column = match &field.source {
            Source::Column { index, .. } => *index,
            Source::Constant(_) => return Ok(Value::Ready),
            Source::HaversineKm(_) | Source::Null => return Ok(Value::Null),
        };
        let (start, end) = row.range(column);
        let Some(text) = text.get(start..end) else {
            return Err(self.bad_utf8(row));
        };
        field
            .read(text, column)
            .map_err(|fault| self.rejection(index, fault))
    }

    fn distance(&self, [lat1, lon1, lat2, lon2]: [usize; 4]) -> Value {
        let number = |index: usize| self.values[index].number();
        match (number(lat1), number(lon1), number(lat2), number(lon2)) {
            (Some(lat1), Some(lon1), Some(lat2), Some(lon2)) => {
                Value::Real(haversine_km(lat1, lon1, lat2, lon2))
            }
            _ => Value::Null,
        }
    }

    fn check_pairs(&self, index: usize) -> Result<(), Rejection> {
        let rules = &self.fields[index].rules;
        if let Some(other) = rules.not_before
            && let (Some(this), Some(that)) =
                (self.values[index].number(), self.values[other].number())
            && this < that
        {
            let detail = format!(
                "{} lies before {}",
                self.fields[index].name, self.fields[other].name
            );
            return Err(self.rejection(index, (Reason::NotInOrder, detail)));
        }
        if let Some(other) = rules.not_zero_with
            && self.values[index].number() == Some(0.0)
            && self.values[other].number() == Some(0.0)
        {
            let detail = format!(
                "{} and {} are both 0",
                self.fields[index].name, self.fields[other].name
            );
            return Err(self.rejection(index, (Reason::ZeroPair, detail)));
        }
        if rules.required && matches!(self.values[index], Value::Null) {
            let detail = format!(
                "{} can't be computed: a field that it needs is empty",
                self.fields[index].name
            );
            return Err(self.rejection(index, (Reason::MissingValue, detail)));
        }
        Ok(())
    }

    fn rejection(&self, index: usize, (reason, detail): Fault) -> Rejection {
        Rejection {
            reason,
            column: Some(self.fields[index].label()),
            detail,
        }
    }

    fn bad_utf8(&self, row: &Row<'_>) -> Rejection {
        let bad = (0..row.len()).find(|index| std::str::from_utf8(row.field(*index)).is_err());
        let column = bad.map(|bad| {
            let of = |field: &&Field| matches!(field.source, Source::Column { index, .. } if index == bad);
            self.fields.iter().find(of).map_or_else(|| (bad + 1).to_string(), Field::label)
        });
        Rejection {
            reason: Reason::BadUtf8,
            column,
            detail: "the text is not UTF-8".into(),
        }
    }
}
