//! The registry at one of several addresses: what is asked, and what the answers mean.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::compatibility::{self, Rule};
use super::super::{Admin, Registry, RegistryError, SchemaId, Unreached};
use super::endpoint::{Endpoint, Refusal, Said, path_part};
use super::references;
use crate::avro;

pub(super) struct Remote {
    pub endpoints: Vec<Endpoint>,
}

impl Remote {
    /// Asks the addresses in turn until one has an answer of its own; `refused` says what an HTTP error means as one.
    fn ask<T>(
        &self,
        question: impl Fn(&Endpoint) -> Result<T, Refusal>,
        refused: impl Fn(&Said) -> Option<Result<T, RegistryError>>,
    ) -> Result<T, RegistryError> {
        let mut away: Option<RegistryError> = None;
        for endpoint in &self.endpoints {
            let address = || endpoint.address.clone();
            let detail = match question(endpoint) {
                Ok(answer) => return Ok(answer),
                Err(Refusal::Away(detail) | Refusal::Foreign(detail)) => detail,
                Err(Refusal::Said(said)) => {
                    if let Some(answer) = refused(&said) {
                        return answer;
                    }
                    let Said {
                        status,
                        code,
                        message,
                    } = said;
                    let said = match message.as_str() {
                        "" => String::new(),
                        message => format!(": {message}"),
                    };
                    let code = match code {
                        0 => String::new(),
                        code => format!(" (code {code})"),
                    };
                    let detail = format!("it answers HTTP {status}{code}{said}");
                    match status {
                        401 | 403 => {
                            return Err(RegistryError::NotAllowed {
                                address: address(),
                                detail: format!(
                                    "{detail}; check the credentials (registry.username and registry.password) and their permissions"
                                ),
                            });
                        }
                        404 | 408 | 429 | 500.. => {
                            format!("{detail}; look after the server, or correct registry.url")
                        }
                        _ => {
                            return Err(RegistryError::NotAllowed {
                                address: address(),
                                detail,
                            });
                        }
                    }
                }
            };
            away = Some(RegistryError::Unavailable {
                address: address(),
                detail,
            });
        }
        Err(away.unwrap_or_else(|| RegistryError::Unavailable {
            address: "(none)".to_owned(),
            detail: "there is no address".to_owned(),
        }))
    }

    /// Whether one of the addresses answers as a registry.
    pub fn reach(&self) -> Result<(), Unreached> {
        // Confluent's API has it; it is short, and needs no right to a subject.
        const SHORT: &str = "schemas/types";
        // Whether one of them gave no answer: that one may come up.
        let away = Cell::new(false);
        let answer = self.ask(
            |endpoint| {
                let answer = endpoint
                    .get(SHORT)
                    .and_then(|answer| list::<String>(&answer));
                if matches!(&answer, Err(Refusal::Away(_) | Refusal::Said(_))) {
                    away.set(true);
                }
                answer.map(|_| ())
            },
            // A registry's own error: it is too old for the question, or one may use some subjects, and not ask this.
            |said| matches!(said.status, 403 | 404).then_some(Ok(())),
        );
        answer.map_err(|error| Unreached {
            may_pass: away.get() && matches!(error, RegistryError::Unavailable { .. }),
            error,
        })
    }

    /// Compares with the subject's last version by our own rules, which name the field at fault, whatever the registry's
    /// own rule is. A version that is registered already may come back.
    fn compare(&self, subject: &str, schema: &str) -> Result<(), RegistryError> {
        let Some((_, last)) = self.latest(subject)? else {
            return Ok(());
        };
        let parsed =
            |text: &str| avro::parse(text).map_err(|detail| RegistryError::Invalid { detail });
        let Err(detail) = compatibility::check(&parsed(&last)?, &parsed(schema)?, Rule::Every)
        else {
            return Ok(());
        };
        let path = format!("subjects/{}", path_part(subject));
        let known = self.ask(
            |endpoint| {
                endpoint
                    .post(&path, json!({"schema": schema, "schemaType": "AVRO"}))
                    .map(|_| true)
            },
            |said| (said.status == 404).then_some(Ok(false)),
        )?;
        if known {
            return Ok(());
        }
        Err(RegistryError::Incompatible {
            subject: subject.to_owned(),
            detail,
        })
    }
}

impl Registry for Remote {
    fn register(&self, subject: &str, schema: &str) -> Result<SchemaId, RegistryError> {
        self.compare(subject, schema)?;
        let path = format!("subjects/{}/versions", path_part(subject));
        self.ask(
            |endpoint| {
                let answer =
                    endpoint.post(&path, json!({"schema": schema, "schemaType": "AVRO"}))?;
                id_of(&answer)
            },
            |said| match (said.status, said.code) {
                (409, _) => Some(Err(RegistryError::Incompatible {
                    subject: subject.to_owned(),
                    detail: format!(
                        "it could read what was written with the last version, but the registry's own rule refuses it; `schemas list` shows the rule. {}",
                        said.message
                    ),
                })),
                (422, 42201) => Some(Err(RegistryError::Invalid {
                    detail: said.message.clone(),
                })),
                _ => None,
            },
        )
    }

    fn by_id(&self, id: SchemaId) -> Result<Arc<str>, RegistryError> {
        // A schema that was deleted is still what old records are written with.
        let path = format!("schemas/ids/{id}?deleted=true");
        let found = self.ask(
            |endpoint| {
                let answer = endpoint.get(&path)?;
                references::self_contained(endpoint, &answer)
            },
            |said| {
                (said.status == 404 && said.code == 40403)
                    .then_some(Err(RegistryError::Unknown { id }))
            },
        )?;
        readable(found, id)
    }

    fn latest(&self, subject: &str) -> Result<Option<(SchemaId, Arc<str>)>, RegistryError> {
        let path = format!("subjects/{}/versions/latest", path_part(subject));
        let found = self.ask(
            |endpoint| {
                let answer = endpoint.get(&path)?;
                let text = references::self_contained(endpoint, &answer)?;
                Ok(Some((id_of(&answer)?, text)))
            },
            |said| (said.status == 404 && matches!(said.code, 40401 | 40402)).then_some(Ok(None)),
        )?;
        found
            .map(|(id, text)| Ok((id, readable(text, id)?)))
            .transpose()
    }
}

impl Admin for Remote {
    fn subjects(&self) -> Result<Vec<String>, RegistryError> {
        let mut subjects = BTreeSet::new();
        // Some say only so many at once (Apicurio 1,000 by default) and not that there are more. Those that know no pages say
        // the same again.
        loop {
            let known = subjects.len();
            let path = match known {
                0 => "subjects".to_owned(),
                known => format!("subjects?offset={known}"),
            };
            let page: Vec<String> = self.ask(|endpoint| list(&endpoint.get(&path)?), |_| None)?;
            subjects.extend(page);
            if subjects.len() == known {
                return Ok(subjects.into_iter().collect());
            }
        }
    }

    fn versions(&self, subject: &str) -> Result<Vec<u32>, RegistryError> {
        let path = format!("subjects/{}/versions", path_part(subject));
        self.ask(
            |endpoint| list(&endpoint.get(&path)?),
            |said| (said.status == 404 && said.code == 40401).then(|| Ok(Vec::new())),
        )
    }

    fn compatibility(&self, subject: &str) -> Result<String, RegistryError> {
        let level = |endpoint: &Endpoint, path: &str| {
            let answer = endpoint.get(path)?;
            let level = answer["compatibilityLevel"]
                .as_str()
                .or_else(|| answer["compatibility"].as_str())
                .ok_or_else(|| missing("compatibilityLevel"))?;
            Ok(Some(level.to_owned()))
        };
        let own = format!("config/{}?defaultToGlobal=true", path_part(subject));
        let own = self.ask(
            |endpoint| level(endpoint, &own),
            |said| (said.status == 404).then_some(Ok(None)),
        )?;
        let found = match own {
            Some(own) => Some(own),
            None => self.ask(|endpoint| level(endpoint, "config"), |_| None)?,
        };
        Ok(found.unwrap_or_default())
    }

    fn set_compatibility(&self, subject: &str, level: &str) -> Result<(), RegistryError> {
        let path = format!("config/{}", path_part(subject));
        self.ask(
            |endpoint| {
                endpoint
                    .put(&path, json!({"compatibility": level}))
                    .map(|_| ())
            },
            |_| None,
        )
    }
}

/// The number in an answer.
fn id_of(answer: &Value) -> Result<SchemaId, Refusal> {
    answer["id"]
        .as_u64()
        .and_then(|id| SchemaId::try_from(id).ok())
        .ok_or_else(|| missing("id"))
}

fn list<T: serde::de::DeserializeOwned>(answer: &Value) -> Result<Vec<T>, Refusal> {
    serde_json::from_value(answer.clone()).map_err(|_| missing("list"))
}

pub(super) fn missing(what: &str) -> Refusal {
    Refusal::Foreign(format!(
        "its answer has no {what}: what answers there is no schema registry; correct registry.url"
    ))
}

/// A schema's text, or why it can't be used.
fn readable(found: Result<String, String>, id: SchemaId) -> Result<Arc<str>, RegistryError> {
    found
        .map(Into::into)
        .map_err(|detail| RegistryError::Invalid {
            detail: format!("schema number {id}: {detail}"),
        })
}
