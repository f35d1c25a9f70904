//! A registry in this process: one JSON file, or memory only.
//!
//! Every change writes the whole file anew beside the old one, forces it to disk and renames it over: a crash leaves either
//! the file before or the file after, never a part. One process at a time may have it open; who opens it sees to that.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::compatibility::{self, Rule};
use super::evolve::BACKWARD;
use super::{Admin, Registry, RegistryError, SchemaId};
use crate::avro;

/// The file's format; another number is refused.
const FORMAT: u32 = 1;

/// A schema registry in this process, with a file or without.
#[derive(Debug)]
pub struct EmbeddedRegistry {
    file: Option<PathBuf>,
    state: Mutex<State>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// By number, from 1.
    schemas: Vec<Arc<str>>,
    /// The number of each schema, by normal form.
    ids: HashMap<String, SchemaId>,
    /// The numbers of each subject's versions, oldest first.
    subjects: BTreeMap<String, Vec<SchemaId>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    schemas: Vec<String>,
    subjects: BTreeMap<String, Vec<SchemaId>>,
}

impl EmbeddedRegistry {
    /// A registry that is forgotten with the process.
    pub fn in_memory() -> Self {
        Self {
            file: None,
            state: Mutex::default(),
        }
    }

    /// Opens the registry in `file`, which is created with the first registration if it is not there.
    ///
    /// # Errors
    /// [`RegistryError::Storage`] when the file can't be read or is no registry's.
    pub fn open(file: &Path) -> Result<Self, RegistryError> {
        let state = match std::fs::read(file) {
            Ok(bytes) => State::read(&bytes).map_err(|detail| storage(file, detail))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => State::default(),
            Err(e) => return Err(storage(file, e.to_string())),
        };
        Ok(Self {
            file: Some(file.to_owned()),
            state: Mutex::new(state),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A state is replaced whole, so a panic elsewhere leaves a good one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry for EmbeddedRegistry {
    fn register(&self, subject: &str, schema: &str) -> Result<SchemaId, RegistryError> {
        let parsed = avro::parse(schema).map_err(|detail| RegistryError::Invalid { detail })?;
        let normal =
            avro::normal_form(schema).map_err(|detail| RegistryError::Invalid { detail })?;
        let mut state = self.lock();
        let known = state.ids.get(&normal).copied();
        let versions = state
            .subjects
            .get(subject)
            .map(Vec::as_slice)
            .unwrap_or_default();
        if let Some(id) = known
            && versions.contains(&id)
        {
            return Ok(id);
        }
        if let Some(last) = versions.last().and_then(|id| state.schema(*id)) {
            let last = avro::parse(&last).map_err(|detail| RegistryError::Invalid { detail })?;
            compatibility::check(&last, &parsed, Rule::Every).map_err(|detail| {
                RegistryError::Incompatible {
                    subject: subject.to_owned(),
                    detail,
                }
            })?;
        }
        let mut next = state.clone();
        let id = match known {
            Some(id) => id,
            None => next.add(schema, normal)?,
        };
        next.subjects
            .entry(subject.to_owned())
            .or_default()
            .push(id);
        if let Some(file) = &self.file {
            next.write(file).map_err(|e| storage(file, e.to_string()))?;
        }
        *state = next;
        Ok(id)
    }

    fn by_id(&self, id: SchemaId) -> Result<Arc<str>, RegistryError> {
        self.lock().schema(id).ok_or(RegistryError::Unknown { id })
    }

    fn latest(&self, subject: &str) -> Result<Option<(SchemaId, Arc<str>)>, RegistryError> {
        let state = self.lock();
        let last = state
            .subjects
            .get(subject)
            .and_then(|versions| versions.last());
        Ok(last.and_then(|id| state.schema(*id).map(|schema| (*id, schema))))
    }
}

/// Its one rule is BACKWARD.
impl Admin for EmbeddedRegistry {
    fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        Ok(self.lock().subjects.keys().cloned().collect())
    }

    fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        let count = self.lock().subjects.get(subject).map_or(0, Vec::len);
        Ok((1..).take(count).collect())
    }

    fn compatibility(&self, _: &str) -> Result<String, RegistryError> {
        Ok(BACKWARD.to_owned())
    }

    fn set_compatibility(&self, _: &str, level: &str) -> Result<(), RegistryError> {
        if level == BACKWARD {
            return Ok(());
        }
        Err(RegistryError::NotAllowed {
            address: "in this process".to_owned(),
            detail: format!("its one rule is {BACKWARD}, not {level}"),
        })
    }
}

impl State {
    fn schema(&self, id: SchemaId) -> Option<Arc<str>> {
        let index = usize::try_from(id).ok()?.checked_sub(1)?;
        self.schemas.get(index).cloned()
    }

    fn add(&mut self, schema: &str, normal: String) -> Result<SchemaId, RegistryError> {
        let id =
            SchemaId::try_from(self.schemas.len() + 1).map_err(|_| RegistryError::Invalid {
                detail: "the registry is full".to_owned(),
            })?;
        self.schemas.push(schema.into());
        self.ids.insert(normal, id);
        Ok(id)
    }

    fn read(bytes: &[u8]) -> Result<Self, String> {
        let stored: Stored = serde_json::from_slice(bytes)
            .map_err(|e| format!("it is no schema registry's file: {e}"))?;
        if stored.format != FORMAT {
            return Err(format!(
                "it has format {}, and this version reads {FORMAT}",
                stored.format
            ));
        }
        let mut state = Self::default();
        for schema in &stored.schemas {
            let normal = avro::normal_form(schema)?;
            state.add(schema, normal).map_err(|e| e.to_string())?;
        }
        for (subject, versions) in &stored.subjects {
            if let Some(id) = versions.iter().find(|id| state.schema(**id).is_none()) {
                return Err(format!(
                    "subject {subject} names schema number {id}, which it does not hold"
                ));
            }
        }
        state.subjects = stored.subjects;
        Ok(state)
    }

    fn write(&self, file: &Path) -> std::io::Result<()> {
        let stored = Stored {
            format: FORMAT,
            schemas: self.schemas.iter().map(|s| s.to_string()).collect(),
            subjects: self.subjects.clone(),
        };
        let folder = match file.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(folder)?;
        let mut name = file.as_os_str().to_owned();
        name.push(".new");
        let beside = PathBuf::from(name);
        let mut out = File::create(&beside)?;
        out.write_all(&serde_json::to_vec_pretty(&stored)?)?;
        out.sync_all()?;
        std::fs::rename(&beside, file)?;
        // The rename itself is on disk only once the folder is.
        File::open(folder)?.sync_all()
    }
}

fn storage(file: &Path, detail: String) -> RegistryError {
    RegistryError::Storage {
        path: file.to_owned(),
        detail,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    const V1: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"int"}]}"#;
    const V1_SPACED: &str =
        r#"{"type": "record", "name": "R", "doc": "d", "fields": [{"type": "int", "name": "a"}]}"#;
    const V2: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"long"},{"name":"b","type":"string","default":""}]}"#;
    const BAD: &str = r#"{"type":"record","name":"R","fields":[{"name":"a","type":"string"}]}"#;

    #[test]
    fn numbers_begin_at_1_and_the_same_schema_has_the_same_number() {
        let registry = EmbeddedRegistry::in_memory();
        assert_eq!(registry.register("t-value", V1).unwrap(), 1);
        assert_eq!(registry.register("t-value", V1_SPACED).unwrap(), 1);
        assert_eq!(registry.register("other-value", V1).unwrap(), 1);
        assert_eq!(registry.register("t-value", V2).unwrap(), 2);
        assert_eq!(
            registry.register("t-value", V1).unwrap(),
            1,
            "an older version keeps its number"
        );
        assert_eq!(registry.latest("t-value").unwrap().unwrap().0, 2);
        assert_eq!(&*registry.by_id(1).unwrap(), V1);
        assert!(registry.latest("none-value").unwrap().is_none());
        for id in [0, 3, u32::MAX] {
            assert!(
                matches!(registry.by_id(id), Err(RegistryError::Unknown { id: asked }) if asked == id)
            );
        }
    }

    #[test]
    fn a_version_that_could_not_read_the_last_one_is_refused_and_changes_nothing() {
        let registry = EmbeddedRegistry::in_memory();
        registry.register("t-value", V1).unwrap();
        let refused = registry.register("t-value", BAD).unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("field `a`: int was written, which string can't read"),
            "{refused}"
        );
        assert!(matches!(
            registry.register("t-value", "{}"),
            Err(RegistryError::Invalid { .. })
        ));
        assert_eq!(registry.lock().subjects["t-value"], [1]);
        assert!(matches!(
            registry.by_id(2),
            Err(RegistryError::Unknown { .. })
        ));
    }

    #[test]
    fn what_was_registered_is_there_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sub/registry.json");
        for round in 0..3 {
            let registry = EmbeddedRegistry::open(&file).unwrap();
            if round > 0 {
                assert_eq!(registry.latest("t-value").unwrap().unwrap(), (2, V2.into()));
            }
            assert_eq!(registry.register("t-value", V1).unwrap(), 1);
            assert_eq!(registry.register("t-value", V2).unwrap(), 2);
            // Dropped without any closing call, as a killed process would.
            std::mem::forget(registry);
        }
    }

    #[test]
    fn a_part_written_beside_the_file_by_a_killed_process_does_no_harm() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registry.json");
        EmbeddedRegistry::open(&file)
            .unwrap()
            .register("t-value", V1)
            .unwrap();
        std::fs::write(folder.path().join("registry.json.new"), b"{\"form").unwrap();
        let registry = EmbeddedRegistry::open(&file).unwrap();
        assert_eq!(registry.register("t-value", V2).unwrap(), 2);
        assert_eq!(
            EmbeddedRegistry::open(&file).unwrap().lock().subjects["t-value"],
            [1, 2]
        );
    }

    #[test]
    fn a_file_that_is_none_of_ours_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("registry.json");
        for content in [
            &b""[..],
            b"{}",
            b"{\"format\":2,\"schemas\":[],\"subjects\":{}}",
            b"{\"format\":1,\"schemas\":[],\"subjects\":{\"s\":[1]}}",
        ] {
            std::fs::write(&file, content).unwrap();
            assert!(matches!(
                EmbeddedRegistry::open(&file),
                Err(RegistryError::Storage { .. })
            ));
            assert_eq!(
                std::fs::read(&file).unwrap(),
                content,
                "it is left as it was"
            );
        }
        assert!(matches!(
            EmbeddedRegistry::open(folder.path()),
            Err(RegistryError::Storage { .. })
        ));
    }

    #[test]
    fn a_registration_that_can_not_be_stored_did_not_happen() {
        let folder = tempfile::tempdir().unwrap();
        let blocker = folder.path().join("blocker");
        std::fs::write(&blocker, b"").unwrap();
        let registry = EmbeddedRegistry {
            file: Some(blocker.join("registry.json")),
            state: Mutex::default(),
        };
        assert!(matches!(
            registry.register("t-value", V1),
            Err(RegistryError::Storage { .. })
        ));
        assert!(registry.latest("t-value").unwrap().is_none());
    }
}
