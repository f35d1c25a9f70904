//! Mapping + schema → row encoder, with everything that does not fit.

mod rules;

use apache_avro::Schema;
use apache_avro::schema::RecordField;
use chrono_tz::Tz;

use super::encoder::RowEncoder;
use super::field::{Field, Kind, Rules, Source};
use super::file::{At, FieldSpec, MappingFile, Origin, Problem};
use super::time::{TimeFormat, Times};
use super::{Mapping, MappingError};

impl RowEncoder {
    /// Compiles a mapping for an Avro schema.
    ///
    /// # Errors
    /// Everything that is wrong with the mapping, and everything that does not fit, at once.
    pub fn compile(mapping: &Mapping, schema: &str) -> Result<Self, MappingError> {
        let mut compiler = Compiler {
            file: &mapping.file,
            problems: mapping.file.problems.clone(),
        };
        let compiled = compiler
            .schema_fields(schema)
            .map(|fields| compiler.compile(&fields));
        let mut problems = compiler.problems;
        match compiled {
            Some(encoder) if problems.is_empty() => Ok(encoder),
            _ => {
                problems.sort();
                problems.dedup();
                Err(MappingError {
                    origin: mapping.origin.clone(),
                    problems,
                })
            }
        }
    }
}

struct Compiler<'m> {
    file: &'m MappingFile,
    problems: Vec<Problem>,
}

impl Compiler<'_> {
    fn problem(&mut self, line: usize, what: String) {
        self.problems.push(Problem { line, what });
    }

    fn schema_fields(&mut self, text: &str) -> Option<Vec<RecordField>> {
        match Schema::parse_str(text) {
            Ok(Schema::Record(record)) => Some(record.fields),
            Ok(_) => {
                self.problem(
                    0,
                    "the Avro schema is no record: rows become records".into(),
                );
                None
            }
            Err(error) => {
                self.problem(0, format!("the Avro schema can't be read: {error}"));
                None
            }
        }
    }

    fn compile(&mut self, schema: &[RecordField]) -> RowEncoder {
        let names: Vec<&str> = schema.iter().map(|field| field.name.as_str()).collect();
        for spec in &self.file.fields {
            if !names.contains(&spec.name.as_str()) {
                let what = format!(
                    "the schema has no field `{}`: its fields are {}",
                    spec.name,
                    names.join(", ")
                );
                self.problem(spec.line, what);
            }
        }
        // A mapping that could not be read at all lacks every field; saying so for each would bury the reason.
        let readable = !self.file.fields.is_empty();
        let mut fields = Vec::with_capacity(schema.len());
        for field in schema {
            let spec = self.file.fields.iter().find(|spec| spec.name == field.name);
            if let Some(field) = self.field(field, spec, &names, readable) {
                fields.push(field);
            }
        }
        if fields.len() == schema.len() {
            self.pairs(&fields);
        }
        let key = self.key(&names);
        let columns = self.file.columns.as_ref().map(|at| at.value);
        RowEncoder::new(self.file.name.clone(), fields, key, columns)
    }

    fn key(&mut self, names: &[&str]) -> Option<usize> {
        let At { line, value } = self.file.key.as_ref()?;
        let spec = self.file.fields.iter().find(|spec| spec.name == *value);
        let is_column = spec
            .and_then(|spec| spec.origin.as_ref())
            .is_some_and(|origin| matches!(origin.value, Origin::Named(_) | Origin::Numbered(_)));
        let at = names.iter().position(|name| name == value);
        if !is_column || at.is_none() {
            self.problem(
                *line,
                format!("the key `{value}` is no field with a column: name one that is"),
            );
        }
        at
    }

    fn field(
        &mut self,
        field: &RecordField,
        spec: Option<&FieldSpec>,
        names: &[&str],
        readable: bool,
    ) -> Option<Field> {
        let line = spec.map_or(0, |spec| spec.line);
        let (schema, null) = match nullable(&field.schema) {
            Ok(found) => found,
            Err(what) => {
                self.problem(line, format!("field `{}`: {what}", field.name));
                return None;
            }
        };
        let Some(spec) = spec else {
            if null.is_none() && readable {
                let what = format!(
                    "the schema's field `{}` is not mapped and can't be null: add [fields.{}] with a column or a constant",
                    field.name, field.name
                );
                self.problem(0, what);
            }
            return Some(Field {
                name: field.name.clone(),
                kind: Kind::Boolean,
                null,
                source: Source::Null,
                factor: None,
                rules: Rules::default(),
            });
        };
        let kind = self.kind(schema, spec)?;
        let factor = self.factor(spec, &kind);
        let rules = self.rules(spec, &kind, null, names);
        let source = Source::Null;
        let mut compiled = Field {
            name: field.name.clone(),
            kind,
            null,
            source,
            factor,
            rules,
        };
        compiled.source = self.source(spec, &compiled, names)?;
        Some(compiled)
    }

    fn kind(&mut self, schema: &Schema, spec: &FieldSpec) -> Option<Kind> {
        let timed = matches!(
            schema,
            Schema::TimestampMillis | Schema::TimestampMicros | Schema::Date
        );
        if !timed {
            for (line, key) in [
                (spec.formats.as_ref().map(|at| at.line), "formats"),
                (spec.zone.as_ref().map(|at| at.line), "zone"),
            ] {
                if let Some(line) = line {
                    let what = format!(
                        "`fields.{}.{key}` is for times, and the field is none: remove it",
                        spec.name
                    );
                    self.problem(line, what);
                }
            }
        }
        match schema {
            Schema::Int => Some(Kind::Int),
            Schema::Long => Some(Kind::Long),
            Schema::Float => Some(Kind::Float),
            Schema::Double => Some(Kind::Double),
            Schema::Boolean => Some(Kind::Boolean),
            Schema::String => Some(Kind::String),
            Schema::Bytes => Some(Kind::Bytes),
            Schema::Enum(symbols) => Some(Kind::Enum(symbols.symbols.clone())),
            Schema::TimestampMillis => Some(Kind::TimestampMillis(self.times(spec, true))),
            Schema::TimestampMicros => Some(Kind::TimestampMicros(self.times(spec, true))),
            Schema::Date => Some(Kind::Date(self.times(spec, false))),
            other => {
                let what = format!(
                    "field `{}` has a type that rows can't be written as ({:?}): int, long, float, double, boolean, string, bytes, enum, date, timestamp-millis and timestamp-micros can be, alone or with null",
                    spec.name,
                    apache_avro::schema::SchemaKind::from(other)
                );
                self.problem(spec.line, what);
                None
            }
        }
    }

    /// How a time field's column is written. A date has no zone. What is wrong is reported, and something put in its
    /// place, so that the rest can be checked.
    fn times(&mut self, spec: &FieldSpec, zoned: bool) -> Times {
        let mut formats = Vec::new();
        match spec.formats.as_ref().or(self.file.formats.as_ref()) {
            Some(At { line, value }) => {
                for text in value {
                    match TimeFormat::parse(text) {
                        Ok(format) => formats.push(format),
                        Err(what) => self.problem(*line, what),
                    }
                }
            }
            None => {
                let what = format!(
                    "the time field `{}` has no formats: add `formats = [\"%Y-%m-%d %H:%M:%S\"]` there or at the top",
                    spec.name
                );
                self.problem(spec.line, what);
            }
        }
        let zone = match spec.zone.as_ref().or(self.file.zone.as_ref()) {
            _ if !zoned => Tz::UTC,
            Some(At { line, value }) => match value.parse::<Tz>() {
                Ok(zone) => zone,
                Err(_) => {
                    let what = format!(
                        "`{value}` is no time zone: use an IANA name such as America/New_York or UTC"
                    );
                    self.problem(*line, what);
                    Tz::UTC
                }
            },
            None => {
                let what = format!(
                    "the time field `{}` has no zone: add `zone = \"UTC\"` or another IANA name there or at the top",
                    spec.name
                );
                self.problem(spec.line, what);
                Tz::UTC
            }
        };
        Times { formats, zone }
    }

    fn source(&mut self, spec: &FieldSpec, field: &Field, names: &[&str]) -> Option<Source> {
        let At { line, value } = spec.origin.as_ref()?;
        let computed = !matches!(value, Origin::Named(_) | Origin::Numbered(_));
        for (at, key) in [
            (spec.regex.as_ref().map(|at| at.line), "regex"),
            (spec.unit.as_ref().map(|at| at.line), "unit"),
        ] {
            if let (Some(line), true) = (at, computed) {
                let what = format!(
                    "`fields.{}.{key}` is for columns, and the field has none: remove it",
                    spec.name
                );
                self.problem(line, what);
            }
        }
        match (value, self.file.columns.as_ref().map(|at| at.value)) {
            (Origin::Named(name), None) => Some(Source::Column {
                name: Some(name.clone()),
                index: 0,
            }),
            (Origin::Named(name), Some(_)) => {
                let what = format!(
                    "`fields.{}.column` is the name `{name}`, but `columns` says that files have no header: give the position, or remove `columns`",
                    spec.name
                );
                self.problem(*line, what);
                None
            }
            (Origin::Numbered(number), Some(columns)) if *number <= columns => {
                Some(Source::Column {
                    name: None,
                    index: number - 1,
                })
            }
            (Origin::Numbered(number), Some(columns)) => {
                self.problem(
                    *line,
                    format!("there is no column {number}: `columns` says that there are {columns}"),
                );
                None
            }
            (Origin::Numbered(_), None) => {
                let what = format!(
                    "`fields.{}.column` is a position: give the name in the header, or say with `columns = N` at the top that files have no header",
                    spec.name
                );
                self.problem(*line, what);
                None
            }
            (Origin::Constant(text), _) => match field.constant(text) {
                Ok(ready) => Some(Source::Constant(ready)),
                Err(what) => {
                    self.problem(
                        *line,
                        format!("the constant does not fit the schema: {what}"),
                    );
                    None
                }
            },
            (Origin::HaversineKm(of), _) => {
                if !matches!(field.kind, Kind::Float | Kind::Double) {
                    let what = format!(
                        "`fields.{}` is computed as a double, and the schema has another type",
                        spec.name
                    );
                    self.problem(*line, what);
                }
                let mut numbers = [0; 4];
                for (number, name) in numbers.iter_mut().zip(of) {
                    match names.iter().position(|known| known == name) {
                        Some(at) => *number = at,
                        None => {
                            self.problem(
                                *line,
                                format!("`{name}` is no field: name four fields of the schema"),
                            );
                            return None;
                        }
                    }
                }
                Some(Source::HaversineKm(numbers))
            }
        }
    }
}

/// A field's schema without null, and the number of the null branch if it has one.
fn nullable(schema: &Schema) -> Result<(&Schema, Option<u8>), String> {
    let Schema::Union(union) = schema else {
        return Ok((schema, None));
    };
    match union.variants() {
        [Schema::Null, other] => Ok((other, Some(0))),
        [other, Schema::Null] => Ok((other, Some(1))),
        _ => Err("a union must be of one type and null".into()),
    }
}
