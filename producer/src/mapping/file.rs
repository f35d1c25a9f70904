//! Reads a mapping file. Everything that is wrong is gathered with its line; nothing stops at the first.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Something wrong with a mapping.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line of the mapping file, from 1; 0 where it is about no line.
    pub line: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

/// A value with the line that it stands on.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub line: usize,
    pub value: T,
}

/// Where a field's value comes from.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// A column with this name in the header.
    Named(String),
    /// A column by position, from 1.
    Numbered(usize),
    /// The same for all rows.
    Constant(String),
    /// The great-circle distance in kilometres of four fields: latitude and longitude, twice.
    HaversineKm([String; 4]),
}

/// What a mapping says of one Avro field.
#[derive(Clone, Debug, Default)]
pub(super) struct FieldSpec {
    pub name: String,
    pub line: usize,
    pub origin: Option<At<Origin>>,
    pub formats: Option<At<Vec<String>>>,
    pub zone: Option<At<String>>,
    pub unit: Option<At<String>>,
    pub required: Option<At<bool>>,
    pub min: Option<At<f64>>,
    pub max: Option<At<f64>>,
    pub regex: Option<At<String>>,
    pub not_before: Option<At<String>>,
    pub not_zero_with: Option<At<String>>,
}

/// A mapping as it was read, with what is wrong with it.
#[derive(Clone, Debug, Default)]
pub(super) struct MappingFile {
    pub name: String,
    pub key: Option<At<String>>,
    pub columns: Option<At<usize>>,
    pub formats: Option<At<Vec<String>>>,
    pub zone: Option<At<String>>,
    pub fields: Vec<FieldSpec>,
    pub problems: Vec<Problem>,
}

const TOP_KEYS: &str = "name, key, columns, zone, formats, fields";
const FIELD_KEYS: &str = "column, constant, haversine_km, formats, zone, unit, required, min, max, regex, not_before, not_zero_with";

impl MappingFile {
    pub fn read(text: &str) -> Self {
        let (table, errors) = DeTable::parse_recoverable(text);
        let mut reader = Reader {
            text,
            problems: Vec::new(),
        };
        for error in errors {
            reader.problem(
                error.span().unwrap_or(0..0),
                format!("not TOML: {}", error.message()),
            );
        }
        let mut file = Self::default();
        if reader.problems.is_empty() {
            reader.top(table.get_ref(), &mut file);
        }
        file.problems = reader.problems;
        file
    }
}

struct Reader<'t> {
    text: &'t str,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn line(&self, span: &Range<usize>) -> usize {
        let before = &self.text.as_bytes()[..span.start.min(self.text.len())];
        memchr::memchr_iter(b'\n', before).count() + 1
    }

    fn problem(&mut self, span: Range<usize>, what: String) {
        let line = self.line(&span);
        self.problems.push(Problem { line, what });
    }

    fn top(&mut self, table: &DeTable<'_>, file: &mut MappingFile) {
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "name" => {
                    file.name = self
                        .string("name", value)
                        .map(|at| at.value)
                        .unwrap_or_default()
                }
                "key" => file.key = self.string("key", value),
                "zone" => file.zone = self.string("zone", value),
                "formats" => file.formats = self.strings("formats", value),
                "columns" => file.columns = self.count("columns", value),
                "fields" => match value.get_ref() {
                    DeValue::Table(fields) => {
                        for (name, field) in fields {
                            let line = self.line(&name.span());
                            let spec = self.field(name.get_ref(), line, field);
                            file.fields.push(spec);
                        }
                    }
                    _ => self.problem(
                        value.span(),
                        "`fields` must hold tables: write [fields.NAME]".into(),
                    ),
                },
                other => self.problem(
                    key.span(),
                    format!("unknown key `{other}`: the keys here are {TOP_KEYS}"),
                ),
            }
        }
        if file.name.is_empty() {
            self.problem(0..0, "the mapping has no name: add `name = \"…\"`".into());
        }
        if file.fields.is_empty() {
            self.problem(
                0..0,
                "the mapping has no fields: add [fields.NAME] for each field of the schema".into(),
            );
        }
    }

    fn field(&mut self, name: &str, line: usize, value: &Spanned<DeValue<'_>>) -> FieldSpec {
        let mut spec = FieldSpec {
            name: name.to_owned(),
            line,
            ..FieldSpec::default()
        };
        let DeValue::Table(table) = value.get_ref() else {
            self.problem(
                value.span(),
                format!("`fields.{name}` must be a table: write [fields.{name}]"),
            );
            return spec;
        };
        let mut origins = 0;
        for (key, value) in table {
            let label = format!("fields.{name}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "column" => {
                    origins += 1;
                    spec.origin = self.column(&label, value);
                }
                "constant" => {
                    origins += 1;
                    spec.origin = self.constant(&label, value);
                }
                "haversine_km" => {
                    origins += 1;
                    spec.origin = self.haversine(&label, value);
                }
                "formats" => spec.formats = self.strings(&label, value),
                "zone" => spec.zone = self.string(&label, value),
                "unit" => spec.unit = self.string(&label, value),
                "required" => match value.get_ref().as_bool() {
                    Some(required) => {
                        spec.required = Some(At {
                            line: self.line(&value.span()),
                            value: required,
                        })
                    }
                    None => self.problem(value.span(), format!("`{label}` must be true or false")),
                },
                "min" => spec.min = self.number(&label, value),
                "max" => spec.max = self.number(&label, value),
                "regex" => spec.regex = self.string(&label, value),
                "not_before" => spec.not_before = self.string(&label, value),
                "not_zero_with" => spec.not_zero_with = self.string(&label, value),
                other => {
                    self.problem(
                        key.span(),
                        format!("unknown key `{other}` in [fields.{name}]: the keys here are {FIELD_KEYS}"),
                    );
                }
            }
        }
        if origins != 1 {
            self.problems.push(Problem {
                line,
                what: format!(
                    "[fields.{name}] must say where its value comes from, once: by `column`, `constant` or `haversine_km`"
                ),
            });
        }
        spec
    }

    fn column(&mut self, label: &str, value: &Spanned<DeValue<'_>>) -> Option<At<Origin>> {
        let line = self.line(&value.span());
        if let Some(name) = value.get_ref().as_str() {
            return Some(At {
                line,
                value: Origin::Named(name.to_owned()),
            });
        }
        match integer(value.get_ref())
            .and_then(|number| usize::try_from(number).ok())
            .filter(|number| *number > 0)
        {
            Some(number) => Some(At {
                line,
                value: Origin::Numbered(number),
            }),
            None => {
                self.problem(
                    value.span(),
                    format!(
                        "`{label}` must be the column's name in the header, or its position from 1"
                    ),
                );
                None
            }
        }
    }

    fn constant(&mut self, label: &str, value: &Spanned<DeValue<'_>>) -> Option<At<Origin>> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            DeValue::Boolean(truth) => truth.to_string(),
            DeValue::Float(number) => number.as_str().to_owned(),
            other => match integer(other) {
                Some(number) => number.to_string(),
                None => {
                    self.problem(
                        value.span(),
                        format!("`{label}` must be a text, a number, true or false"),
                    );
                    return None;
                }
            },
        };
        Some(At {
            line: self.line(&value.span()),
            value: Origin::Constant(text),
        })
    }

    fn haversine(&mut self, label: &str, value: &Spanned<DeValue<'_>>) -> Option<At<Origin>> {
        let At {
            line,
            value: fields,
        } = self.strings(label, value)?;
        match <[String; 4]>::try_from(fields) {
            Ok(fields) => Some(At {
                line,
                value: Origin::HaversineKm(fields),
            }),
            Err(_) => {
                self.problem(
                    value.span(),
                    format!(
                        "`{label}` must name four fields: latitude, longitude, latitude, longitude"
                    ),
                );
                None
            }
        }
    }

    fn string(&mut self, label: &str, value: &Spanned<DeValue<'_>>) -> Option<At<String>> {
        match value.get_ref().as_str() {
            Some(text) => Some(At {
                line: self.line(&value.span()),
                value: text.to_owned(),
            }),
            None => {
                self.problem(value.span(), format!("`{label}` must be a text"));
                None
            }
        }
    }

    fn strings(&mut self, label: &str, value: &Spanned<DeValue<'_>>) -> Option<At<Vec<String>>> {
        let items: Option<Vec<String>> = value
            .get_ref()
            .as_array()
            .map(|array| {
                array
                    .iter()
                    .map(|item| item.get_ref().as_str().map(str::to_owned))
                    .collect()
            })
            .unwrap_or_default();
        match items {
            Some(items) if !items.is_empty() => Some(At {
                line: self.line(&value.span()),
                value: items,
            }),
            _ => {
                self.problem(value.span(), format!("`{label}` must be a list of texts"));
                None
            }
        }
    }

    fn count(&mut self, label: &str, value: &Spanned<DeValue<'_>>) -> Option<At<usize>> {
        let count = integer(value.get_ref())
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| *count > 0);
        if count.is_none() {
            self.problem(
                value.span(),
                format!("`{label}` must be a whole number from 1"),
            );
        }
        count.map(|value_| At {
            line: self.line(&value.span()),
            value: value_,
        })
    }

    fn number(&mut self, label: &str, value: &Spanned<DeValue<'_>>) -> Option<At<f64>> {
        let number = match value.get_ref() {
            DeValue::Float(number) => number.as_str().parse().ok(),
            other => integer(other).map(|number| number as f64),
        };
        match number.filter(|number: &f64| number.is_finite()) {
            Some(number) => Some(At {
                line: self.line(&value.span()),
                value: number,
            }),
            None => {
                self.problem(value.span(), format!("`{label}` must be a number"));
                None
            }
        }
    }
}

fn integer(value: &DeValue<'_>) -> Option<i64> {
    let number = value.as_integer()?;
    i64::from_str_radix(number.as_str(), number.radix()).ok()
}
