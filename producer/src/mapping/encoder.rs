//! Rows to Avro binary, straight from the borrowed fields.

use std::fmt;

use regex::Regex;

use super::time::{TimeError, Times};
use crate::avro;
use crate::input::Row;
use crate::reason::Reason;

/// The earth's mean radius (IUGG), in kilometres.
const EARTH_RADIUS_KM: f64 = 6371.0088;

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

/// How a field's value is written.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Int,
    Long,
    Float,
    Double,
    Boolean,
    String,
    Bytes,
    Enum(Vec<String>),
    TimestampMillis(Times),
    TimestampMicros(Times),
    Date(Times),
}

/// Where a field's value comes from.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// A column: by name, and the position that it has in the file that is bound, from 0.
    Column { name: Option<String>, index: usize },
    /// Ready to be written.
    Constant(Vec<u8>),
    /// The distance between fields, by number: latitude, longitude, latitude, longitude.
    HaversineKm([usize; 4]),
    /// Null, always.
    Null,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Rules {
    pub required: bool,
    pub min: Option<f64>,
    pub max: Option<f64>,
    pub regex: Option<Regex>,
    /// Fields by number.
    pub not_before: Option<usize>,
    pub not_zero_with: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Field {
    pub name: String,
    pub kind: Kind,
    /// The number of the null branch, where the field is a union with null.
    pub null: Option<u8>,
    pub source: Source,
    /// What a number is multiplied by.
    pub factor: Option<f64>,
    pub rules: Rules,
}

/// A field's value in the row at hand.
#[derive(Clone, Copy, Debug)]
enum Value {
    Null,
    Whole(i64),
    Real(f64),
    Truth(bool),
    /// The column's own text.
    Text(usize),
    /// Written from the field's source.
    Ready,
}

impl Value {
    fn number(self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(number as f64),
            Self::Real(number) => Some(number),
            Self::Null | Self::Truth(_) | Self::Text(_) | Self::Ready => None,
        }
    }
}

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

/// A fault, before anybody was told where.
type Fault = (Reason, String);

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

impl Field {
    /// The column's name or position; for a computed field its own name.
    fn label(&self) -> String {
        match &self.source {
            Source::Column {
                name: Some(name), ..
            } => name.clone(),
            Source::Column { name: None, index } => (index + 1).to_string(),
            Source::Constant(_) | Source::HaversineKm(_) | Source::Null => self.name.clone(),
        }
    }

    fn read(&self, text: &str, column: usize) -> Result<Value, Fault> {
        let trimmed = text.trim_matches(' ');
        if trimmed.is_empty() {
            if self.null.is_some() && !self.rules.required {
                return Ok(Value::Null);
            }
            return Err((Reason::MissingValue, format!("{} is empty", self.name)));
        }
        if let Some(regex) = &self.rules.regex
            && !regex.is_match(text)
        {
            return Err((
                Reason::BadFormat,
                format!(
                    "{} is {}, which does not match {regex}",
                    self.name,
                    quoted(text)
                ),
            ));
        }
        let value = self.convert(text, trimmed, column)?;
        self.in_range(value)?;
        Ok(value)
    }

    fn convert(&self, text: &str, trimmed: &str, column: usize) -> Result<Value, Fault> {
        match &self.kind {
            Kind::Int => {
                let number = self.whole(trimmed)?;
                if i32::try_from(number).is_err() {
                    return Err((
                        Reason::OutOfRange,
                        format!("{} is {number}, which needs more than 32 bits", self.name),
                    ));
                }
                Ok(Value::Whole(number))
            }
            Kind::Long => self.whole(trimmed).map(Value::Whole),
            Kind::Float | Kind::Double => self.real(trimmed).map(Value::Real),
            Kind::Boolean => match trimmed {
                "true" | "TRUE" | "True" | "t" | "T" | "yes" | "Y" | "y" | "1" => {
                    Ok(Value::Truth(true))
                }
                "false" | "FALSE" | "False" | "f" | "F" | "no" | "N" | "n" | "0" => {
                    Ok(Value::Truth(false))
                }
                _ => Err((
                    Reason::BadBoolean,
                    format!("{} is {}, not true or false", self.name, quoted(text)),
                )),
            },
            Kind::String | Kind::Bytes => Ok(Value::Text(column)),
            Kind::Enum(symbols) => match symbols.iter().position(|symbol| symbol == trimmed) {
                Some(index) => Ok(Value::Whole(index as i64)),
                None => {
                    let detail = format!(
                        "{} is {}, not one of {}",
                        self.name,
                        quoted(text),
                        symbols.join(", ")
                    );
                    Err((Reason::BadSymbol, detail))
                }
            },
            Kind::TimestampMillis(times) => self.instant_ms(times, trimmed).map(Value::Whole),
            Kind::TimestampMicros(times) => {
                let ms = self.instant_ms(times, trimmed)?;
                let out = || {
                    (
                        Reason::OutOfRange,
                        format!("{} is {}, too far away", self.name, quoted(text)),
                    )
                };
                ms.checked_mul(1000).map(Value::Whole).ok_or_else(out)
            }
            Kind::Date(times) => {
                let days = self.instant_ms(times, trimmed)?.div_euclid(86_400_000);
                let out = || {
                    (
                        Reason::OutOfRange,
                        format!("{} is {}, too far away", self.name, quoted(text)),
                    )
                };
                i32::try_from(days)
                    .map(|days| Value::Whole(days.into()))
                    .map_err(|_| out())
            }
        }
    }

    fn whole(&self, text: &str) -> Result<i64, Fault> {
        if self.factor.is_some() {
            let number = self.real(text)?.round();
            // 2^63 is the first that does not fit; below it every whole f64 does
            return if number.abs() < 9_223_372_036_854_775_808.0 {
                Ok(number as i64)
            } else {
                Err((
                    Reason::OutOfRange,
                    format!(
                        "{} is {}, which needs more than 64 bits",
                        self.name,
                        quoted(text)
                    ),
                ))
            };
        }
        text.parse()
            .map_err(|error: std::num::ParseIntError| match error.kind() {
                std::num::IntErrorKind::PosOverflow | std::num::IntErrorKind::NegOverflow => (
                    Reason::OutOfRange,
                    format!(
                        "{} is {}, which needs more than 64 bits",
                        self.name,
                        quoted(text)
                    ),
                ),
                _ => (
                    Reason::BadNumber,
                    format!("{} is {}, not a whole number", self.name, quoted(text)),
                ),
            })
    }

    fn real(&self, text: &str) -> Result<f64, Fault> {
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => {
                Ok(self.factor.map_or(number, |factor| number * factor))
            }
            _ => Err((
                Reason::BadNumber,
                format!("{} is {}, not a number", self.name, quoted(text)),
            )),
        }
    }

    fn instant_ms(&self, times: &Times, text: &str) -> Result<i64, Fault> {
        times
            .instant_ms(text.as_bytes())
            .map_err(|error| match error {
                TimeError::NoMatch => {
                    let formats: Vec<&str> = times
                        .formats
                        .iter()
                        .map(|format| format.text.as_str())
                        .collect();
                    let detail = format!(
                        "{} is {}, not a time as in {}",
                        self.name,
                        quoted(text),
                        formats.join(" or ")
                    );
                    (Reason::BadDate, detail)
                }
                TimeError::Nonexistent => {
                    let detail = format!(
                        "{} is {}, a time that {} skipped when its clocks were put forward",
                        self.name,
                        quoted(text),
                        times.zone
                    );
                    (Reason::NonexistentTime, detail)
                }
            })
    }

    fn in_range(&self, value: Value) -> Result<(), Fault> {
        let Some(number) = value.number() else {
            return Ok(());
        };
        if self.rules.min.is_some_and(|min| number < min)
            || self.rules.max.is_some_and(|max| number > max)
        {
            let end =
                |end: Option<f64>| end.map_or_else(|| "any".to_owned(), |end| end.to_string());
            let detail = format!(
                "{} is {number}, not from {} to {}",
                self.name,
                end(self.rules.min),
                end(self.rules.max)
            );
            return Err((Reason::OutOfRange, detail));
        }
        Ok(())
    }

    fn write(&self, value: Value, row: &Row<'_>, out: &mut Vec<u8>) {
        if let Source::Constant(ready) = &self.source {
            out.extend_from_slice(ready);
            return;
        }
        if let Some(null) = self.null {
            let branch = if matches!(value, Value::Null) {
                null
            } else {
                1 - null
            };
            avro::long(i64::from(branch), out);
        }
        self.write_value(
            value,
            row.field(if let Value::Text(column) = value {
                column
            } else {
                0
            }),
            out,
        );
    }

    /// Writes a value without its union branch.
    fn write_value(&self, value: Value, text: &[u8], out: &mut Vec<u8>) {
        match value {
            Value::Null | Value::Ready => {}
            Value::Whole(number) => avro::long(number, out),
            Value::Real(number) if matches!(self.kind, Kind::Float) => {
                out.extend_from_slice(&(number as f32).to_le_bytes());
            }
            Value::Real(number) => avro::double(number, out),
            Value::Truth(truth) => out.push(truth.into()),
            Value::Text(_) => avro::bytes(text, out),
        }
    }

    /// The encoding of a constant.
    pub(super) fn constant(&self, text: &str) -> Result<Vec<u8>, String> {
        let value = self.read(text, 0).map_err(|(_, detail)| detail)?;
        let mut out = Vec::new();
        if let Some(null) = self.null {
            avro::long(
                i64::from(if matches!(value, Value::Null) {
                    null
                } else {
                    1 - null
                }),
                &mut out,
            );
        }
        self.write_value(value, text.as_bytes(), &mut out);
        Ok(out)
    }
}

/// A column's text as messages show it.
fn quoted(text: &str) -> String {
    const MOST: usize = 80;
    match text.char_indices().nth(MOST) {
        Some((cut, _)) => format!("{:?}…", &text[..cut]),
        None => format!("{text:?}"),
    }
}

/// The great-circle distance between two points in degrees, in kilometres.
pub fn haversine_km(lat1: f64, lon1: f64, lat2: f64, lon2: f64) -> f64 {
    let half = |degrees: f64| (degrees.to_radians() / 2.0).sin().powi(2);
    let chord =
        half(lat2 - lat1) + lat1.to_radians().cos() * lat2.to_radians().cos() * half(lon2 - lon1);
    2.0 * EARTH_RADIUS_KM * chord.sqrt().min(1.0).asin()
}
