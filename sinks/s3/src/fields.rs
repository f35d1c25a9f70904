//! Which fields of a writer's schema a reader's schema leaves out: they are not in the lake, and must be reported.

use std::collections::BTreeSet;

use serde_json::Value;

/// The fields that records of `writer` have and that `reader` does not take over, as paths such as `address.street`.
/// Types given by name are not followed: the fields of a named type are looked at where it is defined.
pub(crate) fn left_out(reader: &str, writer: &str) -> Vec<String> {
    let (Ok(reader), Ok(writer)) = (serde_json::from_str(reader), serde_json::from_str(writer))
    else {
        return Vec::new();
    };
    let mut found = BTreeSet::new();
    compare(&reader, &writer, "", &mut found);
    found.into_iter().collect()
}

fn compare(reader: &Value, writer: &Value, path: &str, found: &mut BTreeSet<String>) {
    let (reader, writer) = (records(reader), records(writer));
    for written in &writer {
        // in a union the record of the same name; else the only one
        let same = reader
            .iter()
            .find(|read| read["name"] == written["name"])
            .or(reader.first());
        let (Some(read), Some(fields)) = (same, written["fields"].as_array()) else {
            continue;
        };
        for field in fields {
            let Some(name) = field["name"].as_str() else {
                continue;
            };
            let path = if path.is_empty() {
                name.to_owned()
            } else {
                format!("{path}.{name}")
            };
            let known = read["fields"]
                .as_array()
                .and_then(|known| known.iter().find(|known| is_named(known, name)));
            match known {
                Some(known) => compare(&known["type"], &field["type"], &path, found),
                None => {
                    found.insert(path);
                }
            }
        }
    }
}

fn is_named(field: &Value, name: &str) -> bool {
    let alias = field["aliases"]
        .as_array()
        .is_some_and(|aliases| aliases.iter().any(|alias| alias == name));
    field["name"] == name || alias
}

/// The records in a type: itself, in a union's branches, in an array's items or in a map's values.
fn records(kind: &Value) -> Vec<&Value> {
    match kind {
        Value::Array(branches) => branches.iter().flat_map(records).collect(),
        Value::Object(object) => match object.get("type") {
            Some(Value::String(name)) => match name.as_str() {
                "record" => vec![kind],
                "array" => records(&kind["items"]),
                "map" => records(&kind["values"]),
                _ => Vec::new(),
            },
            Some(inner) => records(inner),
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn record(name: &str, fields: &str) -> String {
        format!(r#"{{"type":"record","name":"{name}","fields":[{fields}]}}"#)
    }

    #[test]
    fn fields_are_found_at_every_depth_and_aliases_are_known() {
        let a = r#"{"name":"a","type":"int"}"#;
        let b = r#"{"name":"b","type":"int"}"#;
        let renamed = r#"{"name":"c","aliases":["b"],"type":"int"}"#;
        assert!(left_out(&record("R", a), &record("R", a)).is_empty());
        assert_eq!(
            left_out(&record("R", a), &record("R", &format!("{a},{b}"))),
            ["b"]
        );
        assert!(
            left_out(
                &record("R", &format!("{a},{renamed}")),
                &record("R", &format!("{a},{b}"))
            )
            .is_empty()
        );
        let nest = |inner: String| {
            record(
                "R",
                &format!(r#"{{"name":"n","type":["null",{{"type":"array","items":{inner}}}]}}"#),
            )
        };
        let found = left_out(
            &nest(record("N", a)),
            &nest(record("N", &format!("{a},{b}"))),
        );
        assert_eq!(found, ["n.b"]);
        assert!(left_out("no json", "{}").is_empty());
    }
}
