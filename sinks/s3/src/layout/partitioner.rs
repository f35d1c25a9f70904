//! Which Hive partition each row of a batch belongs to.

use std::collections::HashMap;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, Schema, TimeUnit};
use chrono_tz::Tz;

use super::folder::{day, local_hour, write_folder, write_hour};
use super::{Layout, LayoutError};

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
