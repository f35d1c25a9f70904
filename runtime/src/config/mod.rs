//! Configuration: one file of defaults for all binaries, and what overrides it.
//!
//! ```text
//!   defaults.toml ◀ --config FILE ◀ HEADWAY_<SECTION>_<KEY> ◀ --set section.key=value ◀ a binary's own flags
//! ```
//!
//! To add a key, write it into `defaults.toml` with a comment, and into its section's struct. Everything else (names in
//! flags and environment, checks, `--print-config`, docs/configuration.md) follows.

mod check;
mod docs;
mod known;
mod layers;
mod problem;
mod secret;
mod sections;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use serde::Deserialize;
use toml::{Table, Value};

pub use docs::configuration_page;
pub use problem::{ConfigErrors, Origin, Problem};
pub use secret::{MASK, Secret};
pub use sections::{
    ClientSettings, LogConfig, LogFormat, LogKind, Millis, ProcessorConfig, ProducerConfig,
    RegistryConfig, RegistryKind, S3Addressing, SinkOpenSearchConfig, SinkS3Config,
    TelemetryConfig,
};

use known::{Key, known};
use layers::{Layer, Setting};

/// The flags that every binary has. Flatten it into a clap parser.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct ConfigArgs {
    /// A configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "HEADWAY_CONFIG", global = true)]
    pub config: Option<PathBuf>,
    /// Set one key, such as log.brokers=kafka:9092; can be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE", global = true)]
    pub set: Vec<String>,
    /// Print the configuration with the origin of each value, and exit
    #[arg(long, global = true)]
    pub print_config: bool,
}

/// The configuration of a binary, checked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The log.
    pub log: LogConfig,
    /// The schema registry.
    pub registry: RegistryConfig,
    /// What a process tells of itself.
    pub telemetry: TelemetryConfig,
    /// The producer.
    pub producer: ProducerConfig,
    /// The processor.
    pub processor: ProcessorConfig,
    /// sink-s3.
    pub sink_s3: SinkS3Config,
    /// sink-opensearch.
    pub sink_opensearch: SinkOpenSearchConfig,
    #[serde(skip)]
    shown: Vec<Shown>,
}

/// A setting as `--print-config` shows it.
#[derive(Clone, Debug)]
struct Shown {
    section: String,
    /// The open key, for its entries.
    table: Option<String>,
    name: String,
    /// In TOML, secrets masked.
    value: String,
    origin: Origin,
}

impl Config {
    /// Reads all layers, and reports everything that is wrong at once. `flags` are a binary's own flags, as sections of
    /// keys; they override everything.
    pub fn load(args: &ConfigArgs, flags: &Table) -> Result<Self, ConfigErrors> {
        Self::load_with(args, flags, std::env::vars_os())
    }

    /// The same with another environment than the process's own.
    pub fn load_with(
        args: &ConfigArgs,
        flags: &Table,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigErrors> {
        let layers = [
            args.config.as_deref().map(Layer::file).unwrap_or_default(),
            Layer::environment(environment),
            Layer::set(&args.set),
            Layer::flags(flags),
        ];
        let mut problems = Vec::new();
        let mut settings = BTreeMap::new();
        for Layer {
            settings: from_layer,
            problems: mut here,
        } in layers
        {
            for setting in from_layer {
                let name = setting.place.dotted();
                match fits(&setting) {
                    Ok(()) => {
                        settings.insert(name, setting);
                    }
                    Err(what) => here.push(Problem::new(setting.origin, format!("{name}: {what}"))),
                }
            }
            here.sort_by_key(|problem| problem.origin.line());
            problems.extend(here);
        }
        let mut config = match typed(settings.values()) {
            Ok(config) => config,
            Err(what) => {
                problems.push(Problem::new(Origin::Default, what));
                return Err(ConfigErrors(problems));
            }
        };
        check::between_keys(&config, &settings, &mut problems);
        if !problems.is_empty() {
            return Err(ConfigErrors(problems));
        }
        config.shown = shown(&settings);
        Ok(config)
    }

    /// The configuration as TOML, secrets masked, each value's origin as a comment.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        let mut header = None;
        for Shown {
            section,
            table,
            name,
            value,
            origin,
        } in &self.shown
        {
            let next = match table {
                Some(table) => format!("{section}.{table}"),
                None => section.clone(),
            };
            if header.as_ref() != Some(&next) {
                let gap = if header.is_some() { "\n" } else { "" };
                text.push_str(&format!("{gap}[{next}]\n"));
                header = Some(next);
            }
            text.push_str(&format!("{name} = {value}  # {origin}\n"));
        }
        text
    }

    /// Prints [`Config::to_toml`] on standard output.
    pub fn print(&self) -> std::io::Result<()> {
        use std::io::Write;
        std::io::stdout()
            .lock()
            .write_all(self.to_toml().as_bytes())
    }

    /// The defaults alone.
    pub fn defaults() -> Result<Self, ConfigErrors> {
        Self::load_with(&ConfigArgs::default(), &Table::new(), [])
    }
}

/// Whether a value has the type of its key: the section's struct decides, on this value and defaults otherwise.
fn fits(setting: &Setting) -> Result<(), String> {
    typed(std::iter::once(setting)).map(|_| ())
}

/// The defaults with these settings over them, as types.
fn typed<'a>(settings: impl Iterator<Item = &'a Setting>) -> Result<Config, String> {
    let mut root = Table::new();
    for section in &known().sections {
        let keys = section
            .keys
            .iter()
            .map(|key| (key.name.clone(), wrapped(key, key.default.clone())));
        root.insert(section.name.clone(), Value::Table(keys.collect()));
    }
    for Setting { place, value, .. } in settings {
        let Some(Value::Table(section)) = root.get_mut(&place.key.section) else {
            continue;
        };
        match (&place.entry, section.get_mut(&place.key.name)) {
            (Some(entry), Some(Value::Table(entries))) => {
                entries.insert(entry.clone(), value.clone());
            }
            _ => {
                section.insert(place.key.name.clone(), wrapped(place.key, value.clone()));
            }
        }
    }
    Config::deserialize(root).map_err(|error| in_words(error.message()))
}

/// What serde expected, without Rust's names for it.
fn in_words(message: &str) -> String {
    let names = [
        ("u16", "a whole number from 0 to 65535"),
        ("u64", "a whole number, 0 or more"),
        ("usize", "a whole number, 0 or more"),
        ("i32", "a whole number"),
        ("f64", "a number"),
        ("a sequence", "a list, such as [\"a\", \"b\"]"),
    ];
    match message.rsplit_once("expected ") {
        Some((start, expected)) => {
            let expected = names
                .iter()
                .find(|(name, _)| *name == expected)
                .map_or(expected, |(_, words)| words);
            format!("{start}expected {expected}")
        }
        None => message.to_owned(),
    }
}

fn wrapped(key: &Key, value: Value) -> Value {
    if key.secret {
        Value::Table(Table::from_iter([(secret::WRAPPER.to_owned(), value)]))
    } else {
        value
    }
}

/// What `--print-config` shows, in the order of the defaults.
fn shown(settings: &BTreeMap<String, Setting>) -> Vec<Shown> {
    let mut all = Vec::new();
    for key in known().keys() {
        if key.open() {
            let entries = settings
                .values()
                .filter(|setting| std::ptr::eq(setting.place.key, key));
            all.extend(entries.map(|setting| Shown {
                section: key.section.clone(),
                table: Some(key.name.clone()),
                name: Value::String(setting.place.entry.clone().unwrap_or_default()).to_string(),
                value: masked(&setting.value, setting.place.secret()),
                origin: setting.origin.clone(),
            }));
            continue;
        }
        let setting = settings.get(&key.dotted());
        all.push(Shown {
            section: key.section.clone(),
            table: None,
            name: key.name.clone(),
            value: masked(
                setting.map_or(&key.default, |setting| &setting.value),
                key.secret,
            ),
            origin: setting.map_or(Origin::Default, |setting| setting.origin.clone()),
        });
    }
    all
}

fn masked(value: &Value, secret: bool) -> String {
    if secret && value.as_str() != Some("") {
        format!("{MASK:?}")
    } else {
        value.to_string()
    }
}
