//! Schemas that refer to others, made whole.

use std::collections::BTreeSet;

use apache_avro::Schema;
use serde::Deserialize;
use serde_json::Value;

use super::endpoint::{Endpoint, Refusal, path_part};
use super::remote::missing;

/// How many schemas one may refer to, directly and through others.
const MAX_REFERENCES: usize = 256;

/// A schema that another refers to.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
struct Reference {
    subject: String,
    version: u32,
}

/// The text of a schema in an answer, with those that it refers to written into it; the inner error says why it can't be
/// used.
pub(super) fn self_contained(
    endpoint: &Endpoint,
    answer: &Value,
) -> Result<Result<String, String>, Refusal> {
    // Left out for Avro.
    let kind = answer["schemaType"].as_str().unwrap_or("AVRO");
    if kind != "AVRO" {
        return Ok(Err(format!("it is of type {kind}, not AVRO")));
    }
    let mut open = references(answer)?;
    let mut texts = vec![text(answer)?];
    let mut seen = BTreeSet::new();
    while let Some(reference) = open.pop() {
        if !seen.insert(reference.clone()) {
            continue;
        }
        if seen.len() > MAX_REFERENCES {
            return Ok(Err(format!(
                "it refers to more than {MAX_REFERENCES} others"
            )));
        }
        let Reference { subject, version } = reference;
        let found = endpoint.get(&format!(
            "subjects/{}/versions/{version}",
            path_part(&subject)
        ))?;
        open.extend(references(&found)?);
        texts.push(text(&found)?);
    }
    Ok(match texts.as_slice() {
        [alone] => Ok(alone.clone()),
        _ => joined(texts),
    })
}

fn text(answer: &Value) -> Result<String, Refusal> {
    answer["schema"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| missing("schema"))
}

fn references(answer: &Value) -> Result<Vec<Reference>, Refusal> {
    match &answer["references"] {
        Value::Null => Ok(Vec::new()),
        some => Vec::deserialize(some).map_err(|_| missing("readable list of references")),
    }
}

/// One text of a schema and those that it refers to.
fn joined(texts: Vec<String>) -> Result<String, String> {
    let mut parsed = Schema::parse_list(texts).map_err(|e| e.to_string())?;
    let others = parsed.split_off(1);
    let mut whole = parsed.pop().ok_or_else(|| "it is empty".to_owned())?;
    whole.denormalize(&others).map_err(|e| e.to_string())?;
    serde_json::to_string(&whole).map_err(|e| e.to_string())
}
