//! Can readers of one schema read what was written with another? Avro's rules of schema resolution, with the field at fault
//! named, and two of our own: a changed unit of time or scale of a decimal is a fault, because values would silently be
//! read as others.

use std::collections::HashSet;

use apache_avro::schema::{
    InnerDecimalSchema, NamesRef, RecordField, ResolvedSchema, Schema, UuidSchema,
};

use crate::avro;

/// How strict the check is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// Every value of the writer's schema must be readable.
    Every,
    /// Some may not be: a branch of a union or a symbol of an enumeration that the reader lacks fails when it comes.
    Some,
}

/// Checks that `reader` can read what `writer` wrote; the error names the field and says what to do.
pub(crate) fn check(writer: &Schema, reader: &Schema, rule: Rule) -> Result<(), String> {
    let writer_names = ResolvedSchema::new(writer).map_err(|e| e.to_string())?;
    let reader_names = ResolvedSchema::new(reader).map_err(|e| e.to_string())?;
    let mut check = Check {
        writer_names: writer_names.get_names(),
        reader_names: reader_names.get_names(),
        rule,
        under_way: HashSet::new(),
        path: Vec::new(),
    };
    check.read(writer, reader)
}

struct Check<'s> {
    writer_names: &'s NamesRef<'s>,
    reader_names: &'s NamesRef<'s>,
    rule: Rule,
    /// Pairs of records that are being compared: they may contain themselves.
    under_way: HashSet<(String, String)>,
    /// The fields on the way to the value that is being compared.
    path: Vec<String>,
}

impl<'s> Check<'s> {
    fn fault(&self, what: impl std::fmt::Display) -> String {
        if self.path.is_empty() {
            what.to_string()
        } else {
            format!("field `{}`: {what}", self.path.join("."))
        }
    }

    fn within<T>(
        &mut self,
        name: &str,
        f: impl FnOnce(&mut Self) -> Result<T, String>,
    ) -> Result<T, String> {
        if self.path.len() >= avro::MAX_DEPTH {
            return Err(self.fault(format_args!(
                "nested deeper than {} levels",
                avro::MAX_DEPTH
            )));
        }
        self.path.push(name.to_owned());
        let result = f(self);
        self.path.pop();
        result
    }

    fn read(&mut self, writer: &'s Schema, reader: &'s Schema) -> Result<(), String> {
        let writer = deref(writer, self.writer_names);
        let reader = deref(reader, self.reader_names);
        match (writer, reader) {
            (Schema::Union(branches), _) => self.read_union(branches.variants(), reader),
            (_, Schema::Union(branches)) => {
                if branches
                    .variants()
                    .iter()
                    .any(|branch| self.read(writer, branch).is_ok())
                {
                    return Ok(());
                }
                // With one branch beside null, that branch says best what is wrong.
                let others: Vec<&Schema> = branches
                    .variants()
                    .iter()
                    .filter(|b| !matches!(b, Schema::Null))
                    .collect();
                match others.as_slice() {
                    [only] if !matches!(writer, Schema::Null) => self.read(writer, only),
                    _ => Err(self.fault(format_args!(
                        "{} was written, and no branch of the union reads it",
                        name_of(writer)
                    ))),
                }
            }
            (Schema::Record(w), Schema::Record(r)) => {
                self.same_name(writer, reader)?;
                let pair = (w.name.fullname(None), r.name.fullname(None));
                if !self.under_way.insert(pair.clone()) {
                    return Ok(());
                }
                let result = r
                    .fields
                    .iter()
                    .try_for_each(|field| self.read_field(&w.fields, field));
                self.under_way.remove(&pair);
                result
            }
            (Schema::Enum(w), Schema::Enum(r)) => {
                self.same_name(writer, reader)?;
                match w.symbols.iter().find(|symbol| !r.symbols.contains(symbol)) {
                    Some(symbol) if r.default.is_none() && self.rule == Rule::Every => Err(self.fault(format_args!(
                        "symbol {symbol} may have been written and is gone; keep it, or give the enumeration a default"
                    ))),
                    _ => Ok(()),
                }
            }
            (Schema::Array(w), Schema::Array(r)) => {
                self.within("[]", |c| c.read(&w.items, &r.items))
            }
            (Schema::Map(w), Schema::Map(r)) => self.within("{}", |c| c.read(&w.types, &r.types)),
            _ => self.read_plain(writer, reader),
        }
    }

    fn read_union(&mut self, branches: &'s [Schema], reader: &'s Schema) -> Result<(), String> {
        let mut fault = None;
        let mut any = branches.is_empty();
        for branch in branches {
            match self.read(branch, reader) {
                Ok(()) => any = true,
                Err(e) if fault.is_none() => fault = Some((branch, e)),
                Err(_) => {}
            }
        }
        match fault {
            None => Ok(()),
            Some(_) if any && self.rule == Rule::Some => Ok(()),
            Some((Schema::Null, _)) => Err(self.fault(
                "null may have been written and can't be read any more; keep the field nullable",
            )),
            Some((_, e)) => Err(e),
        }
    }

    fn read_field(
        &mut self,
        written: &'s [RecordField],
        field: &'s RecordField,
    ) -> Result<(), String> {
        let by_name = |name: &str| written.iter().find(|w| w.name == name);
        let source =
            by_name(&field.name).or_else(|| field.aliases.iter().find_map(|alias| by_name(alias)));
        self.within(&field.name, |check| match source {
            Some(source) => check.read(&source.schema, &field.schema),
            None if field.default.is_some() => Ok(()),
            None => {
                Err(check.fault("it is not in what was written and has no default; give it one"))
            }
        })
    }

    fn same_name(&self, writer: &Schema, reader: &Schema) -> Result<(), String> {
        let (Some(w), Some(r)) = (writer.name(), reader.name()) else {
            return Ok(());
        };
        let (w, r) = (w.fullname(None), r.fullname(None));
        let alias = reader
            .aliases()
            .is_some_and(|aliases| aliases.iter().any(|a| a.fullname(None) == w));
        if w == r || alias {
            return Ok(());
        }
        Err(self.fault(format_args!(
            "{w} was written and the name is now {r}; keep the name, or add the old one as an alias"
        )))
    }

    fn read_plain(&self, writer: &Schema, reader: &Schema) -> Result<(), String> {
        let (w, r) = (base(writer), base(reader));
        let promoted = match (&w, &r) {
            (Base::Fixed(a), Base::Fixed(b)) => {
                self.same_name(writer, reader)?;
                a == b
            }
            (Base::Bytes | Base::String, Base::Bytes | Base::String) => true,
            (Base::Int, Base::Long | Base::Float | Base::Double)
            | (Base::Long, Base::Float | Base::Double)
            | (Base::Float, Base::Double) => true,
            _ => w == r,
        };
        if !promoted {
            return Err(self.fault(format_args!(
                "{} was written, which {} can't read; keep the type, or add a new field",
                name_of(writer),
                name_of(reader)
            )));
        }
        // A plain number may be given a meaning, or lose it; one meaning can't become another.
        match (meaning(writer), meaning(reader)) {
            (Some(a), Some(b)) if a != b => Err(self.fault(format_args!(
                "{a} was written and would be read as {b}: other values; keep the type, or add a new field"
            ))),
            _ => Ok(()),
        }
    }
}

fn deref<'s>(schema: &'s Schema, names: &'s NamesRef<'s>) -> &'s Schema {
    match schema {
        Schema::Ref { name } => names.get(name).copied().unwrap_or(schema),
        other => other,
    }
}

#[derive(PartialEq, Eq)]
enum Base {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    /// A kind that only equals itself elsewhere.
    Other,
    Composite(&'static str),
}

/// The type that a logical type is stored as.
fn base(schema: &Schema) -> Base {
    match schema {
        Schema::Null => Base::Null,
        Schema::Boolean => Base::Boolean,
        Schema::Int | Schema::Date | Schema::TimeMillis => Base::Int,
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => Base::Long,
        Schema::Float => Base::Float,
        Schema::Double => Base::Double,
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => Base::Bytes,
        Schema::String | Schema::Uuid(UuidSchema::String) => Base::String,
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            Base::Fixed(fixed.size)
        }
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Bytes => Base::Bytes,
            InnerDecimalSchema::Fixed(fixed) => Base::Fixed(fixed.size),
        },
        Schema::Array(_) => Base::Composite("array"),
        Schema::Map(_) => Base::Composite("map"),
        Schema::Record(_) => Base::Composite("record"),
        Schema::Enum(_) => Base::Composite("enum"),
        Schema::Union(_) => Base::Composite("union"),
        Schema::Ref { .. } => Base::Other,
    }
}

/// What a logical type makes of its base; `None` for a plain one.
fn meaning(schema: &Schema) -> Option<String> {
    match schema {
        Schema::Decimal(d) => Some(format!("decimal({}, {})", d.precision, d.scale)),
        Schema::Date
        | Schema::TimeMillis
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos
        | Schema::BigDecimal
        | Schema::Uuid(_)
        | Schema::Duration(_) => Some(name_of(schema)),
        _ => None,
    }
}

/// A type's name, as a schema writes it.
pub(crate) fn name_of(schema: &Schema) -> String {
    let name = match schema {
        Schema::Null => "null",
        Schema::Boolean => "boolean",
        Schema::Int => "int",
        Schema::Long => "long",
        Schema::Float => "float",
        Schema::Double => "double",
        Schema::Bytes => "bytes",
        Schema::String => "string",
        Schema::Array(_) => "array",
        Schema::Map(_) => "map",
        Schema::Union(union) => {
            let branches: Vec<String> = union.variants().iter().map(name_of).collect();
            return format!("[{}]", branches.join(", "));
        }
        Schema::Record(record) => return format!("record {}", record.name.fullname(None)),
        Schema::Enum(symbols) => return format!("enum {}", symbols.name.fullname(None)),
        Schema::Fixed(fixed) => return format!("fixed({})", fixed.size),
        Schema::Decimal(d) => return format!("decimal({}, {})", d.precision, d.scale),
        Schema::BigDecimal => "big-decimal",
        Schema::Uuid(_) => "uuid",
        Schema::Date => "date",
        Schema::TimeMillis => "time-millis",
        Schema::TimeMicros => "time-micros",
        Schema::TimestampMillis => "timestamp-millis",
        Schema::TimestampMicros => "timestamp-micros",
        Schema::TimestampNanos => "timestamp-nanos",
        Schema::LocalTimestampMillis => "local-timestamp-millis",
        Schema::LocalTimestampMicros => "local-timestamp-micros",
        Schema::LocalTimestampNanos => "local-timestamp-nanos",
        Schema::Duration(_) => "duration",
        Schema::Ref { name } => return name.fullname(None),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn record(fields: &str) -> Schema {
        avro::parse(&format!(
            r#"{{"type":"record","name":"a.R","fields":[{fields}]}}"#
        ))
        .unwrap()
    }

    fn verdict(writer: &str, reader: &str) -> Result<(), String> {
        check(&record(writer), &record(reader), Rule::Every)
    }

    #[test]
    fn a_new_version_may_add_defaults_widen_numbers_and_drop_fields() {
        let old = r#"{"name":"a","type":"int"},{"name":"b","type":"string"}"#;
        for new in [
            old,
            r#"{"name":"a","type":"long"},{"name":"b","type":"string"}"#,
            r#"{"name":"a","type":"double"},{"name":"b","type":["null","string"]}"#,
            r#"{"name":"b","type":"string"}"#,
            r#"{"name":"a","type":"int"},{"name":"c","type":["null","int"],"default":null}"#,
            r#"{"name":"renamed","type":"int","aliases":["a"]}"#,
        ] {
            assert_eq!(verdict(old, new), Ok(()), "{new}");
        }
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let old = r#"{"name":"a","type":["null","int"]},{"name":"b","type":{"type":"long","logicalType":"timestamp-millis"}},
            {"name":"in","type":{"type":"record","name":"In","fields":[{"name":"x","type":"string"}]}},
            {"name":"e","type":{"type":"enum","name":"E","symbols":["P","Q"]}}"#;
        for (new, fault) in [
            (
                r#"{"name":"c","type":"int"}"#,
                "field `c`: it is not in what was written and has no default; give it one",
            ),
            (
                r#"{"name":"a","type":"int"}"#,
                "field `a`: null may have been written",
            ),
            (
                r#"{"name":"a","type":["null","string"]}"#,
                "field `a`: int was written, which string can't read",
            ),
            (
                r#"{"name":"b","type":{"type":"long","logicalType":"timestamp-micros"}}"#,
                "field `b`: timestamp-millis was written and would be read as timestamp-micros",
            ),
            (
                r#"{"name":"in","type":{"type":"record","name":"In","fields":[{"name":"x","type":"int"}]}}"#,
                "field `in.x`: string was written, which int can't read",
            ),
            (
                r#"{"name":"e","type":{"type":"enum","name":"E","symbols":["P"]}}"#,
                "field `e`: symbol Q",
            ),
        ] {
            let said = verdict(old, new).unwrap_err();
            assert!(said.starts_with(fault), "{said}");
        }
    }

    #[test]
    fn records_that_contain_themselves_are_compared() {
        let list = record(
            r#"{"name":"v","type":"int"},{"name":"next","type":["null","a.R"],"default":null}"#,
        );
        let wide = record(
            r#"{"name":"v","type":"long"},{"name":"next","type":["null","a.R"],"default":null}"#,
        );
        assert_eq!(check(&list, &wide, Rule::Every), Ok(()));
        assert!(
            check(&wide, &list, Rule::Every)
                .unwrap_err()
                .starts_with("field `v`: long was written")
        );
    }

    #[test]
    fn a_lenient_check_allows_what_may_fail_but_not_what_must() {
        let nullable = record(r#"{"name":"a","type":["null","int"]}"#);
        let required = record(r#"{"name":"a","type":"int"}"#);
        let text = record(r#"{"name":"a","type":"string"}"#);
        assert_eq!(check(&nullable, &required, Rule::Some), Ok(()));
        assert!(check(&nullable, &text, Rule::Some).is_err());
    }
}
