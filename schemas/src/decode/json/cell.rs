//! One record's fields, read in their order and put into their columns' cells.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use super::column::Kind;

/// The value of a record for one column.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Cell {
    Null,
    Bool(bool),
    /// Also of dates, in days, and of instants, in milliseconds since 1970.
    Integer(i64),
    Number(f64),
    /// A part of [`Cells::text`].
    Text(Range<usize>),
}

/// The values of a record, one per column; used again for the next one.
#[derive(Debug)]
pub(super) struct Cells {
    cells: Vec<Cell>,
    texts: String,
    /// The column whose field is being read.
    at: Option<usize>,
}

impl Cells {
    pub(super) fn new(columns: usize) -> Self {
        Self {
            cells: vec![Cell::Null; columns],
            texts: String::new(),
            at: None,
        }
    }

    pub(super) fn clear(&mut self) {
        self.cells.fill(Cell::Null);
        self.texts.clear();
        self.at = None;
    }

    pub(super) fn get(&self, place: usize) -> &Cell {
        &self.cells[place]
    }

    pub(super) fn is_null(&self, place: usize) -> bool {
        self.cells[place] == Cell::Null
    }

    pub(super) fn text(&self, range: &Range<usize>) -> &str {
        &self.texts[range.clone()]
    }

    pub(super) fn at(&self) -> Option<usize> {
        self.at
    }
}

/// Reads an object's fields.
pub(super) struct Object<'a> {
    pub(super) places: &'a HashMap<String, usize>,
    pub(super) kinds: &'a [Kind],
    pub(super) cells: &'a mut Cells,
}

impl<'de> Visitor<'de> for Object<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(place) = map.next_key_seed(Name(self.places))? {
            let Some(place) = place else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            self.cells.at = Some(place);
            let value = Value {
                kind: self.kinds[place],
                texts: &mut self.cells.texts,
            };
            self.cells.cells[place] = map.next_value_seed(value)?;
            self.cells.at = None;
        }
        Ok(())
    }
}

/// A field's name: its column's place, if there is one.
struct Name<'a>(&'a HashMap<String, usize>);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Option<usize>;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Option<usize>, D::Error> {
        reader.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Option<usize>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Option<usize>, E> {
        Ok(self.0.get(name).copied())
    }
}

/// A field's value, as its column wants it.
struct Value<'a> {
    kind: Kind,
    texts: &'a mut String,
}

impl Value<'_> {
    fn wrong<T, E: Error>(&self, what: impl fmt::Display) -> Result<T, E> {
        Err(E::custom(format_args!(
            "it is {what}, and {} is wanted",
            self.kind
        )))
    }
}

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = Cell;

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Cell, D::Error> {
        reader.deserialize_any(self)
    }
}

/// Up to here every whole number has a floating-point number of its own.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

impl<'de> Visitor<'de> for Value<'_> {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.kind)
    }

    fn visit_unit<E: Error>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Cell, E> {
        match self.kind {
            Kind::Bool => Ok(Cell::Bool(value)),
            _ => self.wrong(value),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Cell, E> {
        match self.kind {
            Kind::Int if i32::try_from(value).is_err() => self.wrong(value),
            Kind::Int | Kind::BigInt | Kind::Timestamp => Ok(Cell::Integer(value)),
            Kind::Real | Kind::Double => Ok(Cell::Number(value as f64)),
            Kind::Bool | Kind::Text | Kind::Date => self.wrong(value),
        }
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Cell, E> {
        match (i64::try_from(value), self.kind) {
            (Ok(value), _) => self.visit_i64(value),
            (Err(_), Kind::Real | Kind::Double) => Ok(Cell::Number(value as f64)),
            (Err(_), _) => self.wrong(value),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Cell, E> {
        match self.kind {
            Kind::Real if (value as f32).is_infinite() => self.wrong(value),
            Kind::Real | Kind::Double => Ok(Cell::Number(value)),
            // Some writers put whole numbers as 3.0.
            Kind::Int | Kind::BigInt | Kind::Timestamp
                if value.fract() == 0.0 && value.abs() <= MAX_EXACT =>
            {
                self.visit_i64(value as i64)
            }
            _ => self.wrong(value),
        }
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Cell, E> {
        match self.kind {
            Kind::Text => {
                let start = self.texts.len();
                self.texts.push_str(value);
                Ok(Cell::Text(start..self.texts.len()))
            }
            Kind::Timestamp | Kind::Date => match self.kind.instant(value) {
                Some(value) => Ok(Cell::Integer(value)),
                None => self.wrong(Quoted(value)),
            },
            _ => self.wrong(Quoted(value)),
        }
    }
}

/// A string, for an error: as much of it as is of use.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 64;
        let cut: String = self.0.chars().take(MOST).collect();
        let more = if cut.len() < self.0.len() { "…" } else { "" };
        write!(f, "the string {cut:?}{more}")
    }
}
