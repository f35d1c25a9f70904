//! What the server stores, and what it rejects.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use sink_opensearch::{Document, Outcome, Target, TargetError, TopicSettings, run};

use super::{Server, world};

#[test]
fn the_final_documents_are_the_highest_versions_and_a_replay_writes_nothing() {
    let Some(server) = Server::find("documents::replay") else {
        return;
    };
    server.set_up();
    // versions come in disorder, from either partition
    let (_folder, mut world) = world(2_000, true);
    run(server.options(&world, server.target())).unwrap();
    server.check(&world, "first");
    let dead: BTreeSet<u64> = world.dead_letters().into_iter().collect();
    assert_eq!(dead, world.dead);

    let before = server.stored();
    let months: BTreeSet<_> = before.keys().map(|(index, _)| index.clone()).collect();
    let month = |month| format!("{}-{month}", server.name);
    assert_eq!(months, BTreeSet::from([month("2016.01"), month("2016.02")]));
    let mut again = server.options(&world, server.target());
    again.consumer.group = "another".into();
    let summary = run(again).unwrap();
    let good = world.records - world.dead.len() as u64;
    assert_eq!((summary.stored, summary.conflicts), (0, good));
    assert_eq!(server.stored(), before, "not even a sequence number moves");

    world.write(500, false);
    run(server.options(&world, server.target())).unwrap();
    server.check(&world, "more");
}

#[test]
fn each_document_of_a_bulk_has_the_outcome_that_the_server_gives_it() {
    let Some(server) = Server::find("documents::outcomes") else {
        return;
    };
    server.set_up();
    let target = server.target();
    target
        .prepare(&server.settings(), crate::support::SCHEMA)
        .unwrap();
    let document = |id: &str, version: i64, source: &Value| Document {
        index: format!("{}-2016.01", server.name).into(),
        id: id.into(),
        version,
        source: source.to_string().into_bytes(),
    };
    let good = json!({"window_start": "2016-01-01T00:00:00.000Z", "vendor_id": 1, "mean": 0.5});
    let documents = [
        document("a+1", 5, &good),
        document("a+1", 4, &good),
        document("a+1", 5, &good),
        document("b", 1, &json!({"vendor": 1})),
        document("c", 1, &json!({"vendor_id": "one"})),
        document("d", 1, &json!({"window_start": "yesterday"})),
        document("a+1", 6, &good),
        document("e", 0, &good),
    ];
    let outcomes = target.write(&documents.iter().collect::<Vec<_>>()).unwrap();
    let reason = |at: usize, part: &str| match &outcomes[at] {
        Outcome::Rejected { reason } => assert!(reason.contains(part), "{reason}"),
        other => panic!("{at}: {other:?}"),
    };
    for (at, expected) in [
        (0, Outcome::Stored),
        (1, Outcome::Conflict),
        (2, Outcome::Conflict),
        (6, Outcome::Stored),
        (7, Outcome::Stored),
    ] {
        assert_eq!(outcomes[at], expected, "{at}");
    }
    reason(3, "strict_dynamic_mapping_exception");
    reason(3, "vendor");
    reason(4, "vendor_id");
    reason(5, "yesterday");
    let stored = server.stored();
    assert_eq!(stored.len(), 2);
    assert_eq!(stored.values().map(|one| one.version).max(), Some(6));
    let pattern = format!("{}-*", server.name);
    assert_eq!(target.count(&pattern, None).unwrap(), 2);
}

#[test]
fn documents_are_counted_by_a_field_that_is_true() {
    let Some(server) = Server::find("documents::counted") else {
        return;
    };
    let version = r#"{"name": "version", "type": "long"}"#;
    let schema = crate::support::SCHEMA.replace(
        version,
        &format!(r#"{version}, {{"name": "is_final", "type": "boolean"}}"#),
    );
    let (target, settings) = (server.target(), server.settings());
    target.setup(&settings, &schema, true).unwrap();
    target.prepare(&settings, &schema).unwrap();
    let document = |id: &str, index: &str, is_final: bool| Document {
        index: format!("{}-{index}", server.name).into(),
        id: id.into(),
        version: 1,
        source: json!({ "is_final": is_final }).to_string().into_bytes(),
    };
    let documents = [
        document("a", "2016.01", true),
        document("b", "2016.01", false),
        document("c", "2016.02", true),
    ];
    let outcomes = target.write(&documents.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(
        outcomes,
        [Outcome::Stored, Outcome::Stored, Outcome::Stored]
    );
    let pattern = format!("{}-*", server.name);
    assert_eq!(target.count(&pattern, None).unwrap(), 3);
    assert_eq!(target.count(&pattern, Some("is_final")).unwrap(), 2);
}

/// Puts an unknown field into every fifth version.
struct Spoiling(Arc<dyn Target>);

impl Target for Spoiling {
    fn prepare(&self, settings: &TopicSettings, schema: &str) -> Result<(), TargetError> {
        self.0.prepare(settings, schema)
    }

    fn write(&self, documents: &[&Document]) -> Result<Vec<Outcome>, TargetError> {
        let spoilt: Vec<Document> = documents
            .iter()
            .map(|document| {
                let mut document = (*document).clone();
                if document.version % 5 == 0 {
                    document.source.pop();
                    document.source.extend_from_slice(b",\"surprise\":1}");
                }
                document
            })
            .collect();
        self.0.write(&spoilt.iter().collect::<Vec<_>>())
    }

    fn count(&self, pattern: &str, only: Option<&str>) -> Result<u64, TargetError> {
        self.0.count(pattern, only)
    }

    fn name(&self) -> &str {
        self.0.name()
    }
}

#[test]
fn a_document_that_the_server_rejects_is_a_dead_letter_and_the_others_are_stored() {
    let Some(server) = Server::find("documents::rejected") else {
        return;
    };
    server.set_up();
    let (_folder, world) = world(600, true);
    let target = Arc::new(Spoiling(server.target()));
    let summary = run(server.options(&world, target)).unwrap();
    let dead: BTreeSet<u64> = world.dead_letters().into_iter().collect();
    assert!(dead.is_superset(&world.dead) && dead.len() > world.dead.len());
    assert_eq!(summary.dead, dead.len() as u64);
    assert_eq!(
        summary.stored + summary.conflicts + summary.dead,
        world.records
    );
    let stored = server.stored();
    assert!(!stored.is_empty());
    assert!(stored.values().all(|one| one.version % 5 != 0));
}

#[test]
fn points_are_found_by_where_they_are() {
    let Some(server) = Server::find("documents::points") else {
        return;
    };
    let settings = TopicSettings {
        index: Some(format!("{}-{{yyyy.MM}}", server.name)),
        ..TopicSettings::new("trip_statistics")
    }
    .keyed_by(&["window_start", "vendor_id"])
    .timed_by("window_start")
    .with_point("pickup_location", "pickup_latitude", "pickup_longitude");
    let target = server.target();
    let schema = schemas::shipped::TRIP_STATISTICS;
    target.setup(&settings, schema, true).unwrap();
    target.prepare(&settings, schema).unwrap();
    let document = |id: &str, lat: f64, lon: f64| {
        let source = json!({
            "window_start": "2016-01-01T00:00:00.000Z", "pickup_latitude": lat, "pickup_longitude": lon,
            "pickup_location": {"lat": lat, "lon": lon},
        });
        Document {
            index: format!("{}-2016.01", server.name).into(),
            id: id.into(),
            version: 1,
            source: source.to_string().into_bytes(),
        }
    };
    let documents = [
        document("midtown", 40.754, -73.984),
        document("jfk", 40.645, -73.785),
    ];
    let outcomes = target.write(&documents.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(outcomes, [const { Outcome::Stored }; 2]);
    server.stored();
    let found = |north: f64, west: f64, south: f64, east: f64| {
        let corners = json!({"top_left": [west, north], "bottom_right": [east, south]});
        let query = json!({"query": {"geo_bounding_box": {"pickup_location": corners}}});
        let path = format!("/{}-*/_search", server.name);
        let answer = server.ok("POST", &path, Some(query));
        let hits = answer["hits"]["hits"].as_array().unwrap().clone();
        hits.iter()
            .map(|hit| hit["_id"].as_str().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    let set = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    assert_eq!(found(40.80, -74.02, 40.70, -73.93), set(&["midtown"]));
    assert_eq!(found(40.66, -73.80, 40.63, -73.76), set(&["jfk"]));
    assert_eq!(found(41.0, -75.0, 40.0, -73.0), set(&["jfk", "midtown"]));
    assert_eq!(found(10.0, 0.0, 0.0, 10.0), set(&[]));
}
