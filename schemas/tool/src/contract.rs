//! Which schema belongs to which topic.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use runtime::config::Config;
use runtime::dead_letter::dlq_topic;
use schemas::{shipped as texts, value_subject};

/// The topic of the shipped job's results.
pub const TRIP_STATISTICS_TOPIC: &str = "trip_statistics";

/// A topic's schema.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contract {
    /// The topic.
    pub topic: String,
    /// The schema's text.
    pub text: String,
    /// Where the text is from, for people.
    pub origin: String,
}

impl Contract {
    /// A contract that is part of the binary.
    pub fn shipped(topic: impl Into<String>, text: &str) -> Self {
        Self {
            topic: topic.into(),
            text: text.to_owned(),
            origin: "shipped".to_owned(),
        }
    }

    /// Its subject in a registry.
    pub fn subject(&self) -> String {
        value_subject(&self.topic)
    }
}

/// Names that can't be followed to a contract.
#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    /// A file or folder can't be read.
    #[error("{path} can't be read: name .avsc files, folders with such files, or TOPIC=FILE")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A folder has no schema in it.
    #[error("the folder {path} has no file that ends in .avsc")]
    Empty {
        /// Which.
        path: PathBuf,
    },
    /// A file is no schema.
    #[error("{path} is no Avro schema: {detail}")]
    NoSchema {
        /// Which.
        path: PathBuf,
        /// Why.
        detail: String,
    },
    /// Two schemas for one topic.
    #[error("topic {topic} has two schemas: {first} and {second}; name one of them, as TOPIC=FILE")]
    Twice {
        /// The topic.
        topic: String,
        /// Where the one is from.
        first: String,
        /// Where the other is from.
        second: String,
    },
}

/// The contracts that are part of the binary, for the topics that the configuration names. Reports of late rows are left out:
/// their topics are the job's.
pub fn shipped(config: &Config) -> Vec<Contract> {
    [
        texts::TAXI_TRIP,
        texts::TRIP_STATISTICS,
        texts::POSITION,
        texts::DEAD_LETTER,
    ]
    .into_iter()
    .flat_map(|text| {
        let topics = topics_of(&name(text).unwrap_or_default(), config).unwrap_or_default();
        topics
            .into_iter()
            .map(move |topic| Contract::shipped(topic, text))
    })
    .collect()
}

/// The contracts that a command line names: files, folders, `TOPIC=FILE`.
///
/// A file's topic is its name without `.avsc`; where the record is one that is shipped with Headway, the topics that the
/// configuration has for it.
///
/// # Errors
/// See [`ContractError`].
pub fn named(names: &[String], config: &Config) -> Result<Vec<Contract>, ContractError> {
    let mut contracts: Vec<Contract> = Vec::new();
    let mut add = |contract: Contract| {
        if let Some(other) = contracts.iter().find(|c| c.topic == contract.topic) {
            return Err(ContractError::Twice {
                topic: contract.topic,
                first: other.origin.clone(),
                second: contract.origin,
            });
        }
        contracts.push(contract);
        Ok(())
    };
    for name in names {
        if let Some((topic, file)) = name.split_once('=')
            && !Path::new(name).exists()
        {
            let (text, _) = read(Path::new(file))?;
            add(Contract {
                topic: topic.to_owned(),
                text,
                origin: file.to_owned(),
            })?;
            continue;
        }
        for file in files(Path::new(name))? {
            let (text, record) = read(&file)?;
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            let topics =
                topics_of(&record, config).unwrap_or_else(|| BTreeSet::from([stem.into_owned()]));
            for topic in topics {
                add(Contract {
                    topic,
                    text: text.clone(),
                    origin: file.display().to_string(),
                })?;
            }
        }
    }
    Ok(contracts)
}

/// The topics of a record that is shipped; `None` for others.
fn topics_of(record: &str, config: &Config) -> Option<BTreeSet<String>> {
    let is = |text: &str| name(text).is_some_and(|shipped| shipped == record);
    let one = |topic: &str| Some(BTreeSet::from([topic.to_owned()]));
    if is(texts::TAXI_TRIP) {
        one(&config.producer.topic)
    } else if is(texts::TRIP_STATISTICS) {
        one(TRIP_STATISTICS_TOPIC)
    } else if is(texts::POSITION) {
        one(texts::POSITIONS_TOPIC)
    } else if is(texts::DEAD_LETTER) {
        let topics = std::iter::once(&config.producer.topic)
            .chain(&config.sink_s3.topics)
            .chain(&config.sink_opensearch.topics);
        Some(topics.map(|topic| dlq_topic(topic)).collect())
    } else if is(texts::LATE) {
        Some(BTreeSet::new())
    } else {
        None
    }
}

/// A folder's `.avsc` files in order, or the file itself.
fn files(path: &Path) -> Result<Vec<PathBuf>, ContractError> {
    let unreadable = |source| ContractError::Read {
        path: path.to_owned(),
        source,
    };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(unreadable)? {
        let file = entry.map_err(unreadable)?.path();
        if file
            .extension()
            .is_some_and(|extension| extension == "avsc")
        {
            found.push(file);
        }
    }
    if found.is_empty() {
        return Err(ContractError::Empty {
            path: path.to_owned(),
        });
    }
    found.sort_unstable();
    Ok(found)
}

/// A schema file's text, and the full name of its record.
fn read(file: &Path) -> Result<(String, String), ContractError> {
    let text = std::fs::read_to_string(file).map_err(|source| ContractError::Read {
        path: file.to_owned(),
        source,
    })?;
    // Compared with itself, it is parsed.
    if let Err(why) = schemas::can_replace(&text, &text) {
        return Err(ContractError::NoSchema {
            path: file.to_owned(),
            detail: why.to_string(),
        });
    }
    let record = name(&text).unwrap_or_default();
    Ok((text, record))
}

/// The full name of the record that a schema's text defines.
fn name(text: &str) -> Option<String> {
    let json: serde_json::Value = serde_json::from_str(text).ok()?;
    let name = json["name"].as_str()?;
    Some(match json["namespace"].as_str() {
        Some(namespace) if !name.contains('.') => format!("{namespace}.{name}"),
        _ => name.to_owned(),
    })
}
