//! The HTTP client against a registry that is not ours, at the address in `HEADWAY_TEST_REGISTRY` (`deploy/local up registry`
//! starts one, `deploy/local env registry` prints the setting). Each test uses subjects of its own.

use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use schemas::{
    Admin, Evolved, HttpRegistry, HttpRegistryOptions, Registry, RegistryError, evolve, shipped,
};

const V1: &str = r#"{"type":"record","name":"R","namespace":"test","fields":[{"name":"a","type":"int"},{"name":"b","type":"string"}]}"#;
/// Widens a number, adds a field.
const V2: &str = r#"{"type":"record","name":"R","namespace":"test","fields":[{"name":"a","type":"long"},{"name":"b","type":"string"},{"name":"c","type":["null","string"],"default":null}]}"#;
/// Another type.
const BAD: &str = r#"{"type":"record","name":"R","namespace":"test","fields":[{"name":"a","type":"int"},{"name":"b","type":"boolean"}]}"#;

/// The registry's address; `None` where the test is skipped, which is said.
fn address(test: &str) -> Option<String> {
    let found = std::env::var("HEADWAY_TEST_REGISTRY")
        .ok()
        .filter(|address| !address.trim().is_empty());
    if found.is_none() {
        assert!(
            std::env::var_os("HEADWAY_CI_REAL").is_none(),
            "HEADWAY_CI_REAL is set, and HEADWAY_TEST_REGISTRY is not: this run must not skip real::{test}"
        );
        // Not a print macro: the test harness would hold its output back.
        let line = format!(
            "skipped: real::{test}: set HEADWAY_TEST_REGISTRY=URL (deploy/local up registry; deploy/local env registry)\n"
        );
        std::io::stderr().write_all(line.as_bytes()).ok();
    }
    found
}

fn client(address: &str) -> HttpRegistry {
    HttpRegistry::new(HttpRegistryOptions::new([address])).unwrap()
}

/// A subject that no other test and no earlier run uses.
fn subject(what: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!(
        "{what}-{}-{}-{count}-value",
        since.as_millis(),
        std::process::id()
    )
}

#[test]
fn a_schema_is_registered_once_and_keeps_its_number() {
    let Some(address) = address("a_schema_is_registered_once_and_keeps_its_number") else {
        return;
    };
    let subject = subject("once");
    let registry = client(&address);
    assert_eq!(registry.latest(&subject).unwrap(), None);
    assert!(registry.versions(&subject).unwrap().is_empty());
    let first = registry.register(&subject, V1).unwrap();
    let second = registry.register(&subject, V2).unwrap();
    assert_ne!(first, second);
    // Others, which remember nothing yet: a restarted producer, one of an older version, a reader.
    assert_eq!(client(&address).register(&subject, V2).unwrap(), second);
    assert_eq!(client(&address).register(&subject, V1).unwrap(), first);
    let reader = client(&address);
    let (id, text) = reader.latest(&subject).unwrap().unwrap();
    assert_eq!(id, second);
    for (id, written) in [(second, V2), (first, V1)] {
        let read: serde_json::Value = serde_json::from_str(&reader.by_id(id).unwrap()).unwrap();
        assert_eq!(
            read,
            serde_json::from_str::<serde_json::Value>(written).unwrap()
        );
    }
    assert_eq!(text, reader.by_id(second).unwrap());
    assert_eq!(reader.versions(&subject).unwrap().len(), 2);
    assert!(reader.subjects().unwrap().contains(&subject));
}

#[test]
fn an_incompatible_schema_is_refused_with_the_field_named() {
    let Some(address) = address("an_incompatible_schema_is_refused_with_the_field_named") else {
        return;
    };
    // Whatever the registry's own rule: it may be none.
    for rule in ["BACKWARD", "NONE"] {
        let subject = subject("refused");
        let registry = client(&address);
        registry.register(&subject, V1).unwrap();
        registry.set_compatibility(&subject, rule).unwrap();
        let refused = client(&address).register(&subject, BAD).unwrap_err();
        assert!(
            matches!(&refused, RegistryError::Incompatible { subject: at, .. } if *at == subject),
            "{refused}"
        );
        assert!(
            refused
                .to_string()
                .contains("field `b`: string was written, which boolean can't read"),
            "{refused}"
        );
        assert_eq!(
            client(&address).versions(&subject).unwrap().len(),
            1,
            "nothing was registered"
        );
    }
}

#[test]
fn a_subject_has_the_rule_backward_afterwards_and_a_stricter_one_stays() {
    let Some(address) = address("a_subject_has_the_rule_backward_afterwards") else {
        return;
    };
    let registry = client(&address);
    let (subject, strict) = (subject("rule"), subject("strict"));
    let first = evolve(&registry, &subject, V1).unwrap();
    assert!(!first.known() && first.before.is_none(), "{first:?}");
    assert_eq!(registry.compatibility(&subject).unwrap(), "BACKWARD");
    registry.set_compatibility(&subject, "NONE").unwrap();
    let second = evolve(&client(&address), &subject, V2).unwrap();
    assert_eq!(
        second,
        Evolved {
            id: second.id,
            before: Some(first.id),
            rule_before: Some("NONE".into())
        }
    );
    assert_eq!(registry.compatibility(&subject).unwrap(), "BACKWARD");
    let again = evolve(&client(&address), &subject, V2).unwrap();
    assert!(again.known() && again.rule_before.is_none(), "{again:?}");

    registry.register(&strict, V1).unwrap();
    registry
        .set_compatibility(&strict, "FULL_TRANSITIVE")
        .unwrap();
    assert!(evolve(&client(&address), &strict, V1).unwrap().known());
    assert_eq!(registry.compatibility(&strict).unwrap(), "FULL_TRANSITIVE");
}

#[test]
fn the_shipped_schemas_are_taken() {
    let Some(address) = address("the_shipped_schemas_are_taken") else {
        return;
    };
    for schema in [
        shipped::TAXI_TRIP,
        shipped::TRIP_STATISTICS,
        shipped::DEAD_LETTER,
        shipped::POSITION,
        shipped::LATE,
    ] {
        let subject = subject("shipped");
        let id = evolve(&client(&address), &subject, schema).unwrap().id;
        assert_eq!(client(&address).register(&subject, schema).unwrap(), id);
    }
}

#[test]
fn a_number_that_nobody_knows_is_unknown_and_not_asked_for_again_at_once() {
    let Some(address) = address("a_number_that_nobody_knows_is_unknown") else {
        return;
    };
    let registry = client(&address);
    let start = Instant::now();
    for _ in 0..20_000 {
        assert!(
            matches!(registry.by_id(2_000_000_000), Err(RegistryError::Unknown { id }) if id == 2_000_000_000)
        );
    }
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "it is asked once, not 20,000 times: {:?}",
        start.elapsed()
    );
}

#[test]
fn what_is_no_schema_never_gets_there() {
    let Some(address) = address("what_is_no_schema_never_gets_there") else {
        return;
    };
    let subject = subject("broken");
    for text in [
        "{",
        "{}",
        r#"{"type":"record","name":"R","fields":[{"name":"a","type":"nothing"}]}"#,
    ] {
        assert!(
            matches!(
                client(&address).register(&subject, text),
                Err(RegistryError::Invalid { .. })
            ),
            "{text}"
        );
    }
    assert!(client(&address).versions(&subject).unwrap().is_empty());
}

#[test]
fn a_wrong_path_or_port_says_what_to_check() {
    let Some(address) = address("a_wrong_path_or_port_says_what_to_check") else {
        return;
    };
    // A port that nothing listens on, and that is given to nobody else meanwhile.
    let nobody = "http://127.0.0.1:1".to_owned();
    for wrong in [format!("{address}/nowhere"), nobody] {
        let error = client(&wrong).register("t-value", V1).unwrap_err();
        assert!(
            matches!(error, RegistryError::Unavailable { .. }),
            "{error}"
        );
        let text = error.to_string();
        assert!(
            text.contains(&wrong) && text.contains("registry.url"),
            "{text}"
        );
    }
}
