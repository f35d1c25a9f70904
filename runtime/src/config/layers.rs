//! The layers of configuration, each read into settings with their origin: file, environment, flags.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::known::{PREFIX, Place, known};
use super::problem::{Origin, Problem};
use super::secret::MASK;

/// A value for a key, and who says so.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub place: Place,
    pub value: Value,
    pub origin: Origin,
}

/// What a layer says, and what is wrong with it.
#[derive(Default)]
pub(super) struct Layer {
    pub settings: Vec<Setting>,
    pub problems: Vec<Problem>,
}

/// Variables that begin like ours and are read by other things: test suites, scripts, the `--config` flag.
fn is_foreign(variable: &str) -> bool {
    matches!(variable, "HEADWAY_TRIPS_CSV" | "HEADWAY_CONFIG")
        || ["HEADWAY_TEST_", "HEADWAY_LOCAL_", "HEADWAY_CI_"]
            .iter()
            .any(|prefix| variable.starts_with(prefix))
}

impl Layer {
    /// A configuration file.
    pub fn file(path: &Path) -> Self {
        let mut layer = Self::default();
        let origin = |line| Origin::File {
            path: path.into(),
            line,
        };
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) => {
                layer.problems.push(Problem::new(
                    origin(0),
                    format!("the file can't be read: {error}"),
                ));
                return layer;
            }
        };
        let line_of = |at: usize| 1 + text[..at.min(text.len())].matches('\n').count();
        let (table, errors) = DeTable::parse_recoverable(&text);
        if !errors.is_empty() {
            layer.problems.extend(errors.iter().map(|error| {
                let line = error.span().map_or(0, |span| line_of(span.start));
                Problem::new(origin(line), format!("not valid TOML: {}", error.message()))
            }));
            return layer;
        }
        for (section, content) in table.get_ref() {
            let here = origin(line_of(section.span().start));
            let name = section.get_ref().as_ref();
            if !known().sections.iter().any(|section| section.name == name) {
                let help = known().suggest_section(name).map(did_you_mean);
                layer
                    .problems
                    .push(Problem::new(here, format!("there is no section [{name}]")).help(help));
                continue;
            }
            let DeValue::Table(keys) = content.get_ref() else {
                layer.problems.push(Problem::new(
                    here,
                    format!("{name} is a section: write [{name}]"),
                ));
                continue;
            };
            for (key, value) in keys {
                let line = line_of(key.span().start);
                layer.take_file_value(name, key.get_ref(), value.get_ref(), origin(line), &|at| {
                    origin(line_of(at))
                });
            }
        }
        layer
    }

    /// Takes a key's value; of a table its entries, whose names may be written dotted (TOML nests those).
    fn take_file_value(
        &mut self,
        section: &str,
        name: &str,
        value: &DeValue<'_>,
        origin: Origin,
        origin_at: &dyn Fn(usize) -> Origin,
    ) {
        if let DeValue::Table(entries) = value {
            if entries.is_empty() && known().find(section, &format!("{name}.x")).is_ok() {
                return;
            }
            for (entry, value) in entries {
                let dotted = format!("{name}.{}", entry.get_ref());
                self.take_file_value(
                    section,
                    &dotted,
                    value.get_ref(),
                    origin_at(entry.span().start),
                    origin_at,
                );
            }
            if !entries.is_empty() {
                return;
            }
        }
        match plain(value) {
            Ok(value) => self.take(section, name, Ok(value), origin),
            Err(what) => self
                .problems
                .push(Problem::new(origin, format!("{section}.{name}: {what}"))),
        }
    }

    /// The environment.
    pub fn environment(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut layer = Self::default();
        for (name, value) in variables {
            let Some(name) = name
                .to_str()
                .filter(|name| name.starts_with(PREFIX) && !is_foreign(name))
            else {
                continue;
            };
            let origin = Origin::Environment(name.into());
            match (known().find_variable(name), value.to_str()) {
                (Ok(place), Some(text)) => layer.put(place, Err(text), origin),
                (Ok(_), None) => layer
                    .problems
                    .push(Problem::new(origin, "the value is not UTF-8")),
                (Err(meant), _) => {
                    let problem = Problem::new(origin, "no setting has this name");
                    layer.problems.push(problem.help(meant.map(did_you_mean)));
                }
            }
        }
        // The environment has no order: errors and prints should.
        layer
            .problems
            .sort_by_key(|problem| problem.origin.to_string());
        layer
    }

    /// `--set section.key=value`.
    pub fn set(flags: &[String]) -> Self {
        let mut layer = Self::default();
        for flag in flags {
            match flag
                .split_once('=')
                .and_then(|(name, value)| Some((name.trim().split_once('.')?, value)))
            {
                Some(((section, key), value)) => {
                    layer.take(
                        section,
                        key,
                        Err(value),
                        Origin::Flag(format!("--set {section}.{key}")),
                    );
                }
                None => {
                    // The part behind `=` may be a secret.
                    let name = flag.split('=').next().unwrap_or_default();
                    let what = "must have the form --set section.key=value";
                    layer
                        .problems
                        .push(Problem::new(Origin::Flag(format!("--set {name}")), what));
                }
            }
        }
        layer
    }

    /// A binary's own flags, as sections of keys.
    pub fn flags(table: &Table) -> Self {
        let mut layer = Self::default();
        for (section, keys) in table {
            let origin = |key: &str| Origin::Flag(format!("flag for {section}.{key}"));
            for (key, value) in keys.as_table().into_iter().flatten() {
                match value.as_table() {
                    Some(entries) => {
                        for (entry, value) in entries {
                            let dotted = format!("{key}.{entry}");
                            layer.take(section, &dotted, Ok(value.clone()), origin(&dotted));
                        }
                    }
                    None => layer.take(section, key, Ok(value.clone()), origin(key)),
                }
            }
        }
        layer
    }

    fn take(&mut self, section: &str, key: &str, value: Result<Value, &str>, origin: Origin) {
        match known().find(section, key) {
            Ok(place) => self.put(place, value, origin),
            Err(meant) => {
                let problem = Problem::new(origin, format!("there is no setting {section}.{key}"));
                self.problems.push(problem.help(meant.map(did_you_mean)));
            }
        }
    }

    /// Takes a value (`Ok`), or the text of one (`Err`).
    fn put(&mut self, place: Place, value: Result<Value, &str>, origin: Origin) {
        let name = place.dotted();
        if place.secret() && !place.from_file && matches!(origin, Origin::Flag(_)) {
            let help = format!("use the environment, a configuration file, or {name}_file");
            let what = format!("{name} is secret, and flags can be seen by other users");
            self.problems
                .push(Problem::new(origin, what).help(Some(help)));
            return;
        }
        let value = match value {
            Ok(value) => Ok(value),
            Err(text) if place.from_file || place.entry.is_some() => Ok(Value::String(text.into())),
            Err(text) => parse(text, &place.key.default),
        };
        let settled = value.and_then(|value| settle(&place, value, origin.clone()));
        match settled {
            Ok((value, origin)) => {
                let twice = self.settings.iter().find(|other| {
                    other.place.dotted() == name && other.place.from_file != place.from_file
                });
                if let Some(other) = twice {
                    let what = format!(
                        "{name} is given twice, as itself and as {name}_file: {} and {origin}",
                        other.origin
                    );
                    self.problems.push(Problem::new(origin.clone(), what));
                }
                self.settings.push(Setting {
                    place,
                    value,
                    origin,
                });
            }
            Err(what) => self
                .problems
                .push(Problem::new(origin, format!("{name}: {what}"))),
        }
    }
}

/// The value as it will be used: a secret read from its file, an entry of an open key as text.
fn settle(place: &Place, value: Value, origin: Origin) -> Result<(Value, Origin), String> {
    let (value, origin) = if place.from_file {
        let Value::String(path) = value else {
            return Err("must be the name of a file".into());
        };
        let text =
            fs::read_to_string(&path).map_err(|error| format!("{path} can't be read: {error}"))?;
        let text = text.strip_suffix('\n').map_or(text.as_str(), |text| {
            text.strip_suffix('\r').unwrap_or(text)
        });
        let origin = Origin::SecretFile {
            path: path.into(),
            named_by: Box::new(origin),
        };
        (Value::String(text.into()), origin)
    } else {
        (value, origin)
    };
    let value = match (&place.entry, value) {
        (Some(_), Value::Integer(number)) => Value::String(number.to_string()),
        (Some(_), Value::Float(number)) => Value::String(number.to_string()),
        (Some(_), Value::Boolean(yes)) => Value::String(yes.to_string()),
        (_, value) => value,
    };
    match value.as_str() {
        None if place.secret() => Err("must be a string".into()),
        None if place.entry.is_some() => Err("must be a string, a number or a truth value".into()),
        Some(MASK) if place.secret() => Err(format!(
            "is the mask {MASK} that --print-config shows, not the secret itself"
        )),
        Some(text) if !place.secret() && has_password(text) => Err(
            "a password in an address would be shown: use the keys username and password".into(),
        ),
        _ => Ok((value, origin)),
    }
}

/// Whether an address holds `user:password@`.
fn has_password(text: &str) -> bool {
    text.split_once("://")
        .and_then(|(_, rest)| rest.split('/').next())
        .and_then(|authority| authority.rsplit_once('@'))
        .is_some_and(|(user, _)| user.contains(':'))
}

/// A text as a value of the default's type.
fn parse(text: &str, like: &Value) -> Result<Value, String> {
    let text = text.trim();
    let wrong = |expected: &str| format!("{text:?} is not {expected}");
    match like {
        Value::Integer(_) => text
            .replace('_', "")
            .parse()
            .map(Value::Integer)
            .map_err(|_| wrong("a whole number")),
        Value::Float(_) => text
            .parse()
            .map(Value::Float)
            .map_err(|_| wrong("a number")),
        Value::Boolean(_) => text
            .parse()
            .map(Value::Boolean)
            .map_err(|_| wrong("true or false")),
        Value::Array(_) => {
            let items = text
                .split(',')
                .map(str::trim)
                .filter(|item| !item.is_empty());
            Ok(Value::Array(
                items.map(|item| Value::String(item.into())).collect(),
            ))
        }
        _ => Ok(Value::String(text.into())),
    }
}

/// A parsed value without its spans.
fn plain(value: &DeValue<'_>) -> Result<Value, String> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let parsed = i64::from_str_radix(number.as_str(), number.radix());
            Value::Integer(parsed.map_err(|_| format!("{number} is too large"))?)
        }
        DeValue::Float(number) => Value::Float(
            number
                .as_str()
                .parse()
                .map_err(|_| format!("{number} is no number that can be used"))?,
        ),
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| plain(item.get_ref()))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(_) => return Err("must be a value, not a table".into()),
    })
}

fn did_you_mean(name: String) -> String {
    format!("did you mean {name}?")
}
