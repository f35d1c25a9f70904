//! The keys that exist, read from `defaults.toml` with their comments: the one list behind layers, errors and docs.

use std::sync::OnceLock;

use toml::{Table, Value};

use super::secret::names_a_secret;

/// The defaults as they are shipped.
pub(super) const DEFAULTS: &str = include_str!("../../defaults.toml");

/// Every environment variable of ours begins so.
pub(super) const PREFIX: &str = "HEADWAY_";

/// A section and its keys, in the file's order.
#[derive(Debug)]
pub(super) struct Section {
    pub name: String,
    pub doc: String,
    pub keys: Vec<Key>,
}

/// A key, what it means, and its default.
#[derive(Debug)]
pub(super) struct Key {
    pub section: String,
    pub name: String,
    pub doc: String,
    pub default: Value,
    /// Never shown.
    pub secret: bool,
}

impl Key {
    /// Whether it is a table of names that are not ours, such as librdkafka's settings.
    pub fn open(&self) -> bool {
        self.default.is_table()
    }

    /// `section.key`
    pub fn dotted(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("{PREFIX}{}_{}", self.section, self.name).to_uppercase()
    }
}

/// A setting's place: a key, the entry of an open one, and whether the value is the name of a file that holds it.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub key: &'static Key,
    pub entry: Option<String>,
    pub from_file: bool,
}

impl Place {
    /// As a user writes it.
    pub fn dotted(&self) -> String {
        match &self.entry {
            Some(entry) => format!("{}.{entry}", self.key.dotted()),
            None => self.key.dotted(),
        }
    }

    /// Whether the value must not be shown.
    pub fn secret(&self) -> bool {
        self.key.secret || self.entry.as_deref().is_some_and(names_a_secret)
    }
}

/// All keys.
#[derive(Debug)]
pub(super) struct Known {
    pub sections: Vec<Section>,
}

/// The keys of the shipped defaults.
#[allow(clippy::expect_used)]
pub(super) fn known() -> &'static Known {
    static KNOWN: OnceLock<Known> = OnceLock::new();
    // The text is part of the binary and a test reads it, so that it cannot fail at a user's.
    KNOWN.get_or_init(|| Known::read(DEFAULTS).expect("the embedded defaults are read by a test"))
}

impl Known {
    fn read(text: &str) -> Result<Self, String> {
        let table: Table = text
            .parse()
            .map_err(|error: toml::de::Error| error.to_string())?;
        let mut sections: Vec<Section> = Vec::new();
        let (mut doc, mut secret) = (Vec::new(), false);
        for line in text.lines().map(str::trim) {
            if line == "#! secret" {
                secret = true;
                continue;
            }
            if let Some(comment) = line.strip_prefix('#') {
                doc.push(comment.trim());
                continue;
            }
            let doc = std::mem::take(&mut doc).join(" ");
            let secret = std::mem::take(&mut secret);
            let (section, name) = if let Some(header) = line.strip_prefix('[') {
                let header = header.trim_end_matches(']');
                match header.split_once('.') {
                    None => {
                        sections.push(Section {
                            name: header.into(),
                            doc,
                            keys: Vec::new(),
                        });
                        continue;
                    }
                    Some((_, open)) => (sections.last_mut(), open),
                }
            } else if let Some((name, _)) = line.split_once('=') {
                (sections.last_mut(), name.trim())
            } else {
                continue;
            };
            let section = section.ok_or_else(|| format!("{name} stands in no section"))?;
            let default = table
                .get(&section.name)
                .and_then(|found| found.get(name))
                .cloned();
            let default = default
                .ok_or_else(|| format!("{}.{name} is not where it seems to be", section.name))?;
            section.keys.push(Key {
                section: section.name.clone(),
                name: name.into(),
                doc,
                default,
                secret,
            });
        }
        Ok(Self { sections })
    }

    /// Every key, in the file's order.
    pub fn keys(&'static self) -> impl Iterator<Item = &'static Key> {
        self.sections.iter().flat_map(|section| &section.keys)
    }

    /// Finds `section.key`, `section.key_file` of a secret, or `section.key.entry` of an open key. `Err` says what it
    /// may have been meant to be.
    pub fn find(&'static self, section: &str, rest: &str) -> Result<Place, Option<String>> {
        let whole = |name: &str| {
            self.keys()
                .find(|key| key.section == section && key.name == name)
        };
        if let Some(key) = whole(rest).filter(|key| !key.open()) {
            return Ok(Place {
                key,
                entry: None,
                from_file: false,
            });
        }
        if let Some(key) = rest
            .strip_suffix("_file")
            .and_then(whole)
            .filter(|key| key.secret)
        {
            return Ok(Place {
                key,
                entry: None,
                from_file: true,
            });
        }
        if let Some((name, entry)) = rest.split_once('.')
            && let Some(key) = whole(name).filter(|key| key.open())
        {
            return Ok(Self::entry(key, entry));
        }
        Err(self.suggest(section, rest))
    }

    /// Finds the key of an environment variable.
    pub fn find_variable(&'static self, variable: &str) -> Result<Place, Option<String>> {
        for key in self.keys() {
            let name = key.variable();
            if variable == name && !key.open() {
                return Ok(Place {
                    key,
                    entry: None,
                    from_file: false,
                });
            }
            let Some(rest) = variable.strip_prefix(&name) else {
                continue;
            };
            if key.secret && rest == "_FILE" {
                return Ok(Place {
                    key,
                    entry: None,
                    from_file: true,
                });
            }
            if let Some(entry) = rest
                .strip_prefix('_')
                .filter(|entry| key.open() && !entry.is_empty())
            {
                let entry = match entry.strip_suffix("_FILE") {
                    Some(entry) => format!("{}_file", entry.to_lowercase().replace('_', ".")),
                    None => entry.to_lowercase().replace('_', "."),
                };
                return Ok(Self::entry(key, &entry));
            }
        }
        Err(nearest(variable, self.keys().map(Key::variable)))
    }

    fn entry(key: &'static Key, entry: &str) -> Place {
        match entry
            .strip_suffix("_file")
            .filter(|entry| names_a_secret(entry))
        {
            Some(entry) => Place {
                key,
                entry: Some(entry.into()),
                from_file: true,
            },
            None => Place {
                key,
                entry: Some(entry.into()),
                from_file: false,
            },
        }
    }

    fn suggest(&'static self, section: &str, rest: &str) -> Option<String> {
        if let Some(open) = self
            .keys()
            .find(|key| key.open() && key.section == section && key.name == rest)
        {
            return Some(format!("{}.NAME", open.dotted()));
        }
        let here = self
            .keys()
            .filter(|key| key.section == section)
            .map(|key| key.name.clone());
        if let Some(name) = nearest(rest, here) {
            return Some(format!("{section}.{name}"));
        }
        if self.sections.iter().any(|known| known.name == section) {
            return self.keys().find(|key| key.name == rest).map(Key::dotted);
        }
        nearest(&format!("{section}.{rest}"), self.keys().map(Key::dotted))
    }

    /// The section that a name may have been meant to be; or, for the name of a key, where that belongs.
    pub fn suggest_section(&'static self, name: &str) -> Option<String> {
        if let Some(key) = self.keys().find(|key| key.name == name) {
            return Some(format!("{} under [{}]", key.name, key.section));
        }
        nearest(
            name,
            self.sections.iter().map(|section| section.name.clone()),
        )
        .map(|name| format!("[{name}]"))
    }
}

/// The candidate that differs least, if it differs little.
fn nearest(name: &str, candidates: impl Iterator<Item = String>) -> Option<String> {
    let allowed = (name.chars().count() / 4).clamp(1, 4);
    candidates
        .map(|candidate| (strsim::damerau_levenshtein(name, &candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}
