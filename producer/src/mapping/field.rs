//! One field: what it is read from, how, and how it is written.

use regex::Regex;

use super::time::{TimeError, Times};
use crate::avro;
use crate::input::Row;
use crate::reason::Reason;

/// The earth's mean radius (IUGG), in kilometres.
const EARTH_RADIUS_KM: f64 = 6371.0088;

/// A fault, before anybody was told where.
pub(super) type Fault = (Reason, String);

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
pub(super) enum Value {
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
    pub(super) fn number(self) -> Option<f64> {
        match self {
            Self::Whole(number) => Some(number as f64),
            Self::Real(number) => Some(number),
            Self::Null | Self::Truth(_) | Self::Text(_) | Self::Ready => None,
        }
    }
}

impl Field {
    /// The column's name or position; for a computed field its own name.
    pub(super) fn label(&self) -> String {
        match &self.source {
            Source::Column {
                name: Some(name), ..
            } => name.clone(),
            Source::Column { name: None, index } => (index + 1).to_string(),
            Source::Constant(_) | Source::HaversineKm(_) | Source::Null => self.name.clone(),
        }
    }

    pub(super) fn read(&self, text: &str, column: usize) -> Result<Value, Fault> {
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

    pub(super) fn in_range(&self, value: Value) -> Result<(), Fault> {
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

    pub(super) fn write(&self, value: Value, row: &Row<'_>, out: &mut Vec<u8>) {
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
