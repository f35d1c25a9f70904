//! `setup`, and what is refused without it.

use serde_json::json;
use sink_opensearch::{SinkError, Target, run};

use super::{Server, world};
use crate::support::SCHEMA;

/// With one field more.
fn evolved() -> String {
    let field = r#"{"name": "borough", "type": ["null", "string"], "default": null}"#;
    let (fields, _) = SCHEMA.rsplit_once(']').unwrap();
    format!("{fields}, {field}]}}")
}

fn texts(changes: &[sink_opensearch::Change]) -> Vec<String> {
    changes.iter().map(ToString::to_string).collect()
}

#[test]
fn setup_says_what_it_changes_and_a_second_one_changes_nothing() {
    let Some(server) = Server::find("setup::idempotent") else {
        return;
    };
    let (target, settings) = (server.target(), server.settings());
    let looked = target.setup(&settings, SCHEMA, false).unwrap();
    assert_eq!(looked.changes.len(), 1, "{looked:?}");
    let path = format!("/_index_template/headway-{}-date", server.name);
    assert_eq!(
        server.http("GET", &path, None).0,
        404,
        "a look changes nothing"
    );
    let made = target.setup(&settings, SCHEMA, true).unwrap();
    assert_eq!(made, looked);
    assert!(made.changes[0].what.contains("4 fields"), "{made:?}");
    let found = server.ok("GET", &path, None);
    let mappings = &found["index_templates"][0]["index_template"]["template"]["mappings"];
    assert_eq!(mappings["dynamic"], "strict");
    assert_eq!(mappings["properties"]["mean"]["type"], "double");
    let again = target.setup(&settings, SCHEMA, true).unwrap();
    assert_eq!(again, Default::default());
}

#[test]
fn a_new_field_reaches_the_template_and_the_indices_that_are_there() {
    let Some(server) = Server::find("setup::evolution") else {
        return;
    };
    server.set_up();
    let (_folder, world) = world(100, false);
    run(server.options(&world, server.target())).unwrap();
    let (target, settings, evolved) = (server.target(), server.settings(), evolved());
    let refused = target.prepare(&settings, &evolved).unwrap_err().to_string();
    assert!(
        refused.contains("field borough (keyword) is missing")
            && refused.contains("sink-opensearch setup"),
        "{refused}"
    );
    let changed = target.setup(&settings, &evolved, true).unwrap();
    let changes = texts(&changed.changes);
    assert_eq!(changes.len(), 3, "the template and two months: {changes:?}");
    assert!(
        changes.iter().all(|change| change.contains("borough")),
        "{changes:?}"
    );
    target.prepare(&settings, &evolved).unwrap();
    assert_eq!(
        target.setup(&settings, &evolved, true).unwrap(),
        Default::default()
    );
    let index = format!("/{}-2016.02/_mapping", server.name);
    let mapping = server.ok("GET", &index, None);
    let properties =
        &mapping.as_object().unwrap().values().next().unwrap()["mappings"]["properties"];
    assert_eq!(properties["borough"]["type"], "keyword");
    server.check(&world, "documents are as they were");
}

#[test]
fn an_index_with_another_mapping_is_a_conflict_that_names_the_field() {
    let Some(server) = Server::find("setup::conflict") else {
        return;
    };
    let index = format!("{}-2016.02", server.name);
    let other = json!({"mappings": {"properties": {"vendor_id": {"type": "keyword"}, "mean": {"type": "double"}}}});
    server.ok("PUT", &format!("/{index}"), Some(other));
    let done = server
        .target()
        .setup(&server.settings(), SCHEMA, true)
        .unwrap();
    let conflicts = texts(&done.conflicts);
    assert_eq!(conflicts.len(), 1);
    for part in [
        index.as_str(),
        "vendor_id is keyword, and must be integer",
        "reindex",
    ] {
        assert!(conflicts[0].contains(part), "{conflicts:?}");
    }
    let (_folder, world) = world(100, false);
    let SinkError::Target(error) = run(server.options(&world, server.target())).unwrap_err() else {
        panic!("the target is refused")
    };
    let error = error.to_string();
    for part in [
        index.as_str(),
        "vendor_id is keyword, and must be integer",
        "dynamic is true",
        "delete the index",
    ] {
        assert!(error.contains(part), "{error}");
    }
    assert!(
        server.stored().keys().all(|(found, _)| *found != index),
        "nothing is written there"
    );
}

#[test]
fn without_setup_nothing_is_written() {
    let Some(server) = Server::find("setup::missing") else {
        return;
    };
    let (_folder, world) = world(100, false);
    let SinkError::Target(error) = run(server.options(&world, server.target())).unwrap_err() else {
        panic!("the target is refused")
    };
    let error = error.to_string();
    assert!(
        error.contains("run `sink-opensearch setup` once"),
        "{error}"
    );
    let index = format!("/{}-2016.02", server.name);
    assert_eq!(server.http("GET", &index, None).0, 404);
    server.set_up();
    run(server.options(&world, server.target())).unwrap();
    server.check(&world, "after setup");
}

#[test]
fn an_older_template_of_ours_gives_way_and_a_foreign_one_is_named() {
    let Some(server) = Server::find("setup::overlap") else {
        return;
    };
    let (target, settings) = (server.target(), server.settings());
    let wildcard = format!("{}-*", server.name);
    // As it was put there before templates had a mark, and were named after their indices.
    let older = format!("headway-{}", server.name);
    let older_path = format!("/_index_template/{older}");
    let body = json!({"index_patterns": [wildcard], "priority": 200,
        "template": {"mappings": {"_meta": {"topic": settings.topic, "record": "R"}}}});
    server.ok("PUT", &older_path, Some(body));
    let looked = target.setup(&settings, SCHEMA, false).unwrap();
    assert_eq!(server.http("GET", &older_path, None).0, 200);
    let made = target.setup(&settings, SCHEMA, true).unwrap();
    assert_eq!(made, looked);
    assert!(
        texts(&made.changes)[0].contains(&format!("index template {older}: removed")),
        "{made:?}"
    );
    assert_eq!(server.http("GET", &older_path, None).0, 404);
    target.prepare(&settings, SCHEMA).unwrap();
    assert_eq!(
        target.setup(&settings, SCHEMA, true).unwrap(),
        Default::default()
    );

    let own = format!("/_index_template/headway-{}-date", server.name);
    server.ok("DELETE", &own, None);
    let foreign = format!("mine-{}", server.name);
    let foreign_path = format!("/_index_template/{foreign}");
    let body = json!({"index_patterns": [format!("{}*", server.name)], "priority": 200});
    server.ok("PUT", &foreign_path, Some(body));
    let refused = target.setup(&settings, SCHEMA, true).unwrap();
    server.ok("DELETE", &foreign_path, None);
    let conflicts = texts(&refused.conflicts);
    assert!(
        refused.changes.is_empty()
            && conflicts.len() == 1
            && conflicts[0].contains(&foreign)
            && conflicts[0].contains("delete it"),
        "{refused:?}"
    );
    assert_eq!(server.http("GET", &own, None).0, 404);
}

#[test]
fn an_index_that_is_deleted_meanwhile_is_made_anew_from_the_template() {
    let Some(server) = Server::find("setup::deleted") else {
        return;
    };
    server.set_up();
    let (_folder, mut world) = world(200, false);
    let target = server.target();
    run(server.options(&world, target.clone())).unwrap();
    server.ok("DELETE", &format!("/{}-2016.02", server.name), None);
    world.write(200, false);
    run(server.options(&world, target)).unwrap();
    let mapping = server.ok("GET", &format!("/{}-2016.02/_mapping", server.name), None);
    let mapping = mapping
        .as_object()
        .unwrap()
        .values()
        .next()
        .unwrap()
        .clone();
    assert_eq!(mapping["mappings"]["dynamic"], "strict");
    world.check_ledger("deleted meanwhile");
}
