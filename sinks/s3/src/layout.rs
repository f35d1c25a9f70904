//! Where in the lake a row lies: Hive partitions from its event time, in a stated zone, and from columns.
//!
//! ```text
//!   pickup_at 2016-01-01T05:07Z, vendor_id 2 ──▶ year=2016/month=01/day=01/hour=05/vendor_id=2
//! ```
//!
//! - Local hours that occur twice, when a summer time ends, share one folder.
//! - Null, an empty text, and an instant outside the years 1 to 9999 go to `__HIVE_DEFAULT_PARTITION__`, as Hive has it.
//! - Values are escaped as Hive does (`%2F` for a slash).
//! - The columns stay in the file.

use std::collections::HashMap;
use std::fmt::Write as _;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, TimeUnit};
use chrono::{DateTime, Offset as _, TimeZone as _};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

/// What Hive calls the partition of rows without a value.
pub const DEFAULT_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

const TIME_COLUMNS: [&str; 4] = ["year", "month", "day", "hour"];

/// Which folders rows go to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The event time that `year`, `month`, `day` and `hour` come from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    time: Option<EventTime>,
    /// Further columns, in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    columns: Vec<String>,
}

/// An event time, and the zone whose hours count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct EventTime {
    column: String,
    zone: String,
}

/// A layout that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// There is no such zone.
    #[error(
        "{zone} is no time zone: use a name of the IANA database, such as UTC or America/New_York"
    )]
    Zone {
        /// The name given.
        zone: String,
    },
    /// The name is taken.
    #[error("the layout has two partition columns of the name {name}")]
    Twice {
        /// The name.
        name: String,
    },
    /// The schema has no such column.
    #[error("the schema has no field {column}, by which the layout partitions; it has {known}")]
    NoColumn {
        /// The column asked for.
        column: String,
        /// The fields that there are.
        known: String,
    },
    /// A column whose type can't name a folder.
    #[error("field {column} is of type {found}, and the layout needs {needed}")]
    Type {
        /// The column.
        column: String,
        /// Its type.
        found: String,
        /// Which types will do.
        needed: &'static str,
    },
    /// Values that could not be read.
    #[error("the values of field {column} can't be read: {detail}")]
    Values {
        /// The column.
        column: String,
        /// What Arrow says.
        detail: String,
    },
}

impl Layout {
    /// One folder for all rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds `year=/month=/day=/hour=` of an event time, in a zone of the IANA database. A field of a local time
    /// (`local-timestamp-millis`) is taken as it stands, whatever the zone.
    ///
    /// # Errors
    /// [`LayoutError::Zone`] and [`LayoutError::Twice`].
    pub fn by_hour(mut self, column: &str, zone: &str) -> Result<Self, LayoutError> {
        zone.parse::<Tz>()
            .map_err(|_| LayoutError::Zone { zone: zone.into() })?;
        self.time = Some(EventTime {
            column: column.into(),
            zone: zone.into(),
        });
        self.check()
    }

    /// Adds `column=value`.
    ///
    /// # Errors
    /// [`LayoutError::Twice`].
    pub fn by_column(mut self, column: &str) -> Result<Self, LayoutError> {
        self.columns.push(column.into());
        self.check()
    }

    fn check(self) -> Result<Self, LayoutError> {
        let names: Vec<&str> = self.names().collect();
        for (index, name) in names.iter().enumerate() {
            if names[..index].contains(name) {
                return Err(LayoutError::Twice {
                    name: (*name).into(),
                });
            }
        }
        Ok(self)
    }

    /// The names of the partition columns, in the order of the folders.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let time = if self.time.is_some() {
            &TIME_COLUMNS[..]
        } else {
            &[]
        };
        time.iter()
            .copied()
            .chain(self.columns.iter().map(String::as_str))
    }

    /// A text that is the same for equal layouts and differs for others.
    pub(crate) fn canonical(&self) -> String {
        let mut text = String::new();
        if let Some(time) = &self.time {
            let _ = write!(
                text,
                "{}:{}@{}:{};",
                time.column.len(),
                time.column,
                time.zone.len(),
                time.zone
            );
        }
        for column in &self.columns {
            let _ = write!(text, "{}:{};", column.len(), column);
        }
        text
    }
}

/// Sorts the rows of batches of one schema into Hive partitions, which it numbers from 0 in order of appearance.
#[derive(Debug)]
pub struct Partitioner {
    parts: Vec<Part>,
    known: HashMap<Box<[u8]>, u32>,
    paths: Vec<String>,
    key: Vec<u8>,
}

/// One source of partition values.
#[derive(Debug)]
struct Part {
    name: String,
    index: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    /// Hours of an instant; values per second, and the zone (`None`: a local time as it stands).
    Hour { per_second: i64, zone: Option<Tz> },
    /// Whole numbers, days and truth values, read as `i64`.
    Number(Number),
    /// Texts.
    Text,
}

#[derive(Clone, Copy, Debug)]
enum Number {
    Plain,
    Day,
    Bool,
}

/// The values of one source in one batch.
enum Values {
    Numbers(ArrayRef),
    Texts(ArrayRef),
}

impl Partitioner {
    /// For batches of a schema.
    ///
    /// # Errors
    /// [`LayoutError::NoColumn`] and [`LayoutError::Type`].
    pub fn new(layout: &Layout, schema: &Schema) -> Result<Self, LayoutError> {
        let mut parts = Vec::new();
        let find = |column: &str| {
            let names = || {
                schema
                    .fields()
                    .iter()
                    .map(|field| field.name().as_str())
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            schema.index_of(column).map_err(|_| LayoutError::NoColumn {
                column: column.into(),
                known: names(),
            })
        };
        if let Some(time) = &layout.time {
            let index = find(&time.column)?;
            let zone: Tz = time.zone.parse().map_err(|_| LayoutError::Zone {
                zone: time.zone.clone(),
            })?;
            let found = schema.field(index).data_type();
            let DataType::Timestamp(unit, stored) = found else {
                let needed = "a timestamp";
                return Err(LayoutError::Type {
                    column: time.column.clone(),
                    found: found.to_string(),
                    needed,
                });
            };
            let per_second = match unit {
                TimeUnit::Second => 1,
                TimeUnit::Millisecond => 1_000,
                TimeUnit::Microsecond => 1_000_000,
                TimeUnit::Nanosecond => 1_000_000_000,
            };
            let zone = stored.is_some().then_some(zone);
            parts.push(Part {
                name: String::new(),
                index,
                kind: Kind::Hour { per_second, zone },
            });
        }
        for column in &layout.columns {
            let index = find(column)?;
            let found = schema.field(index).data_type();
            let kind = Self::kind(found).ok_or_else(|| LayoutError::Type {
                column: column.clone(),
                found: found.to_string(),
                needed: "a whole number, a text, an enum, a date or a boolean",
            })?;
            parts.push(Part {
                name: column.clone(),
                index,
                kind,
            });
        }
        Ok(Self {
            parts,
            known: HashMap::new(),
            paths: Vec::new(),
            key: Vec::new(),
        })
    }

    fn kind(found: &DataType) -> Option<Kind> {
        match found {
            DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => {
                Some(Kind::Number(Number::Plain))
            }
            DataType::Boolean => Some(Kind::Number(Number::Bool)),
            DataType::Date32 => Some(Kind::Number(Number::Day)),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Kind::Text),
            DataType::Dictionary(_, values) => match Self::kind(values) {
                Some(Kind::Text) => Some(Kind::Text),
                _ => None,
            },
            _ => None,
        }
    }

    /// Appends the partition of each row to `partitions`.
    ///
    /// # Errors
    /// [`LayoutError::Values`] when the batch has another schema than was said.
    pub fn assign(
        &mut self,
        batch: &RecordBatch,
        partitions: &mut Vec<u32>,
    ) -> Result<(), LayoutError> {
        let values = self
            .parts
            .iter()
            .map(|part| part.values(batch))
            .collect::<Result<Vec<_>, _>>()?;
        partitions.reserve(batch.num_rows());
        for row in 0..batch.num_rows() {
            self.key.clear();
            for (part, values) in self.parts.iter().zip(&values) {
                part.key(values, row, &mut self.key);
            }
            let partition = match self.known.get(self.key.as_slice()) {
                Some(partition) => *partition,
                None => {
                    let path = self.path_of(&values, row);
                    let number = u32::try_from(self.paths.len()).unwrap_or(u32::MAX);
                    self.paths.push(path);
                    self.known.insert(self.key.as_slice().into(), number);
                    number
                }
            };
            partitions.push(partition);
        }
        Ok(())
    }

    fn path_of(&self, values: &[Values], row: usize) -> String {
        let mut path = String::new();
        for (part, values) in self.parts.iter().zip(values) {
            part.write(values, row, &mut path);
        }
        path
    }

    /// The folders of a partition, with slashes between them; empty when the layout has none.
    pub fn path(&self, partition: u32) -> &str {
        &self.paths[partition as usize]
    }

    /// How many partitions have appeared.
    pub fn len(&self) -> usize {
        self.paths.len()
    }

    /// Whether none has appeared.
    pub fn is_empty(&self) -> bool {
        self.paths.is_empty()
    }
}

impl Part {
    fn values(&self, batch: &RecordBatch) -> Result<Values, LayoutError> {
        let name = || batch.schema().field(self.index).name().clone();
        let as_type = |to: &DataType| {
            cast(batch.column(self.index), to).map_err(|error| LayoutError::Values {
                column: name(),
                detail: error.to_string(),
            })
        };
        match self.kind {
            Kind::Hour { .. } => Ok(Values::Numbers(as_type(&DataType::Int64)?)),
            Kind::Number(Number::Day) => {
                let days = as_type(&DataType::Int32)?;
                let wide = cast(&days, &DataType::Int64);
                wide.map(Values::Numbers)
                    .map_err(|error| LayoutError::Values {
                        column: name(),
                        detail: error.to_string(),
                    })
            }
            Kind::Number(_) => Ok(Values::Numbers(as_type(&DataType::Int64)?)),
            Kind::Text => Ok(Values::Texts(as_type(&DataType::Utf8)?)),
        }
    }

    /// The number that decides about the folder: for a time, the local hour since 1970.
    fn number(&self, values: &ArrayRef, row: usize) -> Option<i64> {
        if values.is_null(row) {
            return None;
        }
        let value = values.as_primitive::<Int64Type>().value(row);
        match self.kind {
            Kind::Hour { per_second, zone } => local_hour(value.div_euclid(per_second), zone),
            Kind::Number(_) | Kind::Text => Some(value),
        }
    }

    fn key(&self, values: &Values, row: usize, key: &mut Vec<u8>) {
        match values {
            Values::Numbers(values) => match self.number(values, row) {
                None => key.push(0),
                Some(number) => {
                    key.push(1);
                    key.extend_from_slice(&number.to_le_bytes());
                }
            },
            Values::Texts(values) => {
                // null and empty are one folder
                let text = if values.is_null(row) {
                    ""
                } else {
                    values.as_string::<i32>().value(row)
                };
                key.extend_from_slice(&(text.len() as u64).to_le_bytes());
                key.extend_from_slice(text.as_bytes());
            }
        }
    }

    fn write(&self, values: &Values, row: usize, path: &mut String) {
        match values {
            Values::Numbers(values) => {
                let number = self.number(values, row);
                match self.kind {
                    Kind::Hour { .. } => write_hour(number, path),
                    Kind::Number(Number::Bool) => {
                        write_folder(
                            &self.name,
                            number.map(|number| (number != 0).to_string()),
                            path,
                        );
                    }
                    Kind::Number(Number::Day) => {
                        write_folder(&self.name, number.and_then(day), path)
                    }
                    Kind::Number(Number::Plain) | Kind::Text => {
                        write_folder(&self.name, number.map(|number| number.to_string()), path);
                    }
                }
            }
            Values::Texts(values) => {
                let text = if values.is_null(row) {
                    ""
                } else {
                    values.as_string::<i32>().value(row)
                };
                write_folder(&self.name, Some(text.to_owned()), path);
            }
        }
    }
}

/// The years that a folder can name: 0001-01-01T00:00Z to 9999-12-31T24:00Z, in seconds since 1970, less a day on both
/// sides so that no zone leads out of them.
const SECONDS: std::ops::Range<i64> = (-62_135_596_800 + 86_400)..(253_402_300_800 - 86_400);

/// The hour since 1970 that a clock in the zone shows.
fn local_hour(seconds: i64, zone: Option<Tz>) -> Option<i64> {
    if !SECONDS.contains(&seconds) {
        return None;
    }
    let ahead = match zone {
        None | Some(Tz::UTC) => 0,
        Some(zone) => {
            let instant = DateTime::from_timestamp(seconds, 0)?.naive_utc();
            i64::from(
                zone.offset_from_utc_datetime(&instant)
                    .fix()
                    .local_minus_utc(),
            )
        }
    };
    Some((seconds + ahead).div_euclid(3600))
}

fn day(days: i64) -> Option<String> {
    let seconds = days
        .checked_mul(86_400)
        .filter(|seconds| SECONDS.contains(seconds))?;
    Some(
        DateTime::from_timestamp(seconds, 0)?
            .format("%Y-%m-%d")
            .to_string(),
    )
}

fn write_hour(hour: Option<i64>, path: &mut String) {
    let shown = hour.and_then(|hour| DateTime::from_timestamp(hour.checked_mul(3600)?, 0));
    for (name, format) in TIME_COLUMNS.iter().zip(["%Y", "%m", "%d", "%H"]) {
        write_folder(
            name,
            shown.map(|shown| shown.format(format).to_string()),
            path,
        );
    }
}

fn write_folder(name: &str, value: Option<String>, path: &mut String) {
    if !path.is_empty() {
        path.push('/');
    }
    escape(name, path);
    path.push('=');
    match value {
        Some(value) if !value.is_empty() => escape(&value, path),
        _ => path.push_str(DEFAULT_PARTITION),
    }
}

/// Escapes as Hive's `FileUtils.escapePathName` does: control characters and a few others as `%` and two hexadecimal
/// digits.
fn escape(text: &str, into: &mut String) {
    for character in text.chars() {
        let special = matches!(
            character,
            '"' | '#' | '%' | '\'' | '*' | '/' | ':' | '=' | '?' | '\\' | '{' | '[' | ']' | '^'
        );
        if special || character.is_ascii_control() {
            let _ = write!(into, "%{:02X}", u32::from(character));
        } else {
            into.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use std::sync::Arc;

    use arrow::array::{
        BooleanArray, Date32Array, Float64Array, Int32Array, StringArray, TimestampMillisecondArray,
    };
    use arrow::datatypes::Field;
    use chrono::NaiveDate;

    use super::*;

    fn paths(layout: &Layout, columns: Vec<(&str, ArrayRef)>) -> Vec<String> {
        let batch = RecordBatch::try_from_iter_with_nullable(
            columns.into_iter().map(|(name, array)| (name, array, true)),
        );
        let batch = batch.unwrap();
        let mut partitioner = Partitioner::new(layout, &batch.schema()).unwrap();
        let mut assigned = Vec::new();
        partitioner.assign(&batch, &mut assigned).unwrap();
        assigned
            .iter()
            .map(|partition| partitioner.path(*partition).to_owned())
            .collect()
    }

    fn instants(values: Vec<Option<i64>>) -> ArrayRef {
        Arc::new(TimestampMillisecondArray::from(values).with_timezone("+00:00"))
    }

    /// Milliseconds since 1970 of an instant given in UTC.
    fn utc(year: i32, month: u32, day: u32, hour: u32, minute: u32) -> i64 {
        let date = NaiveDate::from_ymd_opt(year, month, day).unwrap();
        date.and_hms_opt(hour, minute, 0)
            .unwrap()
            .and_utc()
            .timestamp_millis()
    }

    #[test]
    fn folders_are_padded_with_zeros_and_ordered() {
        let layout = Layout::new()
            .by_hour("at", "UTC")
            .unwrap()
            .by_column("vendor_id")
            .unwrap();
        let found = paths(
            &layout,
            vec![
                (
                    "at",
                    instants(vec![
                        Some(utc(2016, 1, 2, 3, 59)),
                        Some(utc(2016, 12, 31, 23, 0)),
                        Some(-1),
                    ]),
                ),
                ("vendor_id", Arc::new(Int32Array::from(vec![2, 1, -7]))),
            ],
        );
        assert_eq!(
            found,
            [
                "year=2016/month=01/day=02/hour=03/vendor_id=2",
                "year=2016/month=12/day=31/hour=23/vendor_id=1",
                "year=1969/month=12/day=31/hour=23/vendor_id=-7",
            ]
        );
        assert_eq!(
            layout.names().collect::<Vec<_>>(),
            ["year", "month", "day", "hour", "vendor_id"]
        );
    }

    #[test]
    fn hours_are_those_of_the_stated_zone_across_summer_time() {
        // New York in 2016: from 13 March, 07:00 UTC, four hours behind; from 6 November, 06:00 UTC, five
        let layout = Layout::new().by_hour("at", "America/New_York").unwrap();
        let found = paths(
            &layout,
            vec![(
                "at",
                instants(vec![
                    Some(utc(2016, 1, 1, 4, 59)),
                    Some(utc(2016, 3, 13, 6, 59)),
                    Some(utc(2016, 3, 13, 7, 0)),
                    Some(utc(2016, 11, 6, 5, 30)),
                    Some(utc(2016, 11, 6, 6, 30)),
                    Some(utc(2016, 11, 6, 7, 30)),
                ]),
            )],
        );
        assert_eq!(
            found,
            [
                "year=2015/month=12/day=31/hour=23",
                "year=2016/month=03/day=13/hour=01",
                "year=2016/month=03/day=13/hour=03",
                "year=2016/month=11/day=06/hour=01",
                "year=2016/month=11/day=06/hour=01",
                "year=2016/month=11/day=06/hour=02",
            ]
        );
        // half-hour zones too
        let layout = Layout::new().by_hour("at", "Asia/Kolkata").unwrap();
        assert_eq!(
            paths(
                &layout,
                vec![(
                    "at",
                    instants(vec![
                        Some(utc(2016, 1, 1, 18, 29)),
                        Some(utc(2016, 1, 1, 18, 30))
                    ])
                )]
            ),
            [
                "year=2016/month=01/day=01/hour=23",
                "year=2016/month=01/day=02/hour=00"
            ]
        );
    }

    #[test]
    fn a_local_time_is_taken_as_it_stands() {
        let layout = Layout::new().by_hour("at", "America/New_York").unwrap();
        let local: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![utc(
            2016, 1, 1, 4, 59,
        )]));
        assert_eq!(
            paths(&layout, vec![("at", local)]),
            ["year=2016/month=01/day=01/hour=04"]
        );
    }

    #[test]
    fn missing_and_impossible_values_have_hives_default_folder() {
        let layout = Layout::new()
            .by_hour("at", "Pacific/Kiritimati")
            .unwrap()
            .by_column("name")
            .unwrap();
        let found = paths(
            &layout,
            vec![
                (
                    "at",
                    instants(vec![
                        None,
                        Some(i64::MAX),
                        Some(i64::MIN),
                        Some(utc(9999, 12, 31, 23, 59)),
                    ]),
                ),
                (
                    "name",
                    Arc::new(StringArray::from(vec![
                        None,
                        Some(""),
                        Some("a"),
                        Some("b"),
                    ])),
                ),
            ],
        );
        let default = |name: &str| format!("{name}={DEFAULT_PARTITION}");
        let times = ["year", "month", "day", "hour"].map(default).join("/");
        assert_eq!(found[0], format!("{times}/{}", default("name")));
        assert_eq!(found[1], found[0]);
        assert_eq!(found[2], format!("{times}/name=a"));
        assert_eq!(found[3], format!("{times}/name=b"));
    }

    #[test]
    fn values_are_escaped_as_hive_does() {
        let layout = Layout::new().by_column("name").unwrap();
        let texts = [
            "a/b",
            "50%",
            "k=v",
            "..",
            "ü x+y",
            "q?\"'#*:\\{[]^",
            "tab\t\u{7f}",
        ];
        let found = paths(
            &layout,
            vec![("name", Arc::new(StringArray::from(texts.to_vec())))],
        );
        assert_eq!(
            found,
            [
                "name=a%2Fb",
                "name=50%25",
                "name=k%3Dv",
                "name=..",
                "name=ü x+y",
                "name=q%3F%22%27%23%2A%3A%5C%7B%5B%5D%5E",
                "name=tab%09%7F",
            ]
        );
        for path in found {
            assert_eq!(
                object_store::path::Path::parse(&path).unwrap().as_ref(),
                path
            );
        }
    }

    #[test]
    fn other_column_types_name_folders_too() {
        let layout = Layout::new()
            .by_column("flag")
            .unwrap()
            .by_column("day")
            .unwrap();
        let found = paths(
            &layout,
            vec![
                ("flag", Arc::new(BooleanArray::from(vec![true, false]))),
                ("day", Arc::new(Date32Array::from(vec![0, 16_801]))),
            ],
        );
        assert_eq!(
            found,
            ["flag=true/day=1970-01-01", "flag=false/day=2016-01-01"]
        );
    }

    #[test]
    fn a_layout_that_does_not_fit_is_refused_with_the_reason() {
        let schema = Schema::new(vec![
            Field::new("x", DataType::Float64, false),
            Field::new("n", DataType::Int64, false),
        ]);
        assert!(matches!(
            Layout::new().by_hour("x", "Mars/Olympus"),
            Err(LayoutError::Zone { .. })
        ));
        let twice = Layout::new().by_hour("x", "UTC").unwrap().by_column("hour");
        assert!(matches!(twice, Err(LayoutError::Twice { name }) if name == "hour"));
        for layout in [
            Layout::new().by_hour("n", "UTC"),
            Layout::new().by_column("x"),
        ] {
            assert!(matches!(
                Partitioner::new(&layout.unwrap(), &schema),
                Err(LayoutError::Type { .. })
            ));
        }
        let none = Partitioner::new(&Layout::new().by_column("y").unwrap(), &schema).unwrap_err();
        assert!(none.to_string().contains("it has x, n"), "{none}");
    }

    #[test]
    fn rows_of_one_folder_have_one_number_across_batches() {
        let layout = Layout::new().by_column("n").unwrap();
        let batch = |values: Vec<f64>, numbers: Vec<i32>| {
            let columns: Vec<(&str, ArrayRef)> = vec![
                ("x", Arc::new(Float64Array::from(values))),
                ("n", Arc::new(Int32Array::from(numbers))),
            ];
            RecordBatch::try_from_iter(columns).unwrap()
        };
        let first = batch(vec![0.5, 1.5, 2.5], vec![4, 9, 4]);
        let mut partitioner = Partitioner::new(&layout, &first.schema()).unwrap();
        let mut assigned = Vec::new();
        partitioner.assign(&first, &mut assigned).unwrap();
        partitioner
            .assign(&batch(vec![3.5, 4.5], vec![9, 5]), &mut assigned)
            .unwrap();
        assert_eq!(assigned, [0, 1, 0, 1, 2]);
        assert_eq!(partitioner.len(), 3);
    }
}
