//! The graph of a job, and its drawing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use processor::topology::{Latest, page};
use runtime::clock::SystemClock;
use runtime::log::fault::FaultLog;
use serde_json::Value;

use crate::fixture::{Fixture, trips};

const SQL: &str = "
CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at', out_of_orderness = INTERVAL '1 minute');
CREATE SINK per_minute WITH (topic = 'per_minute', key = 'began, vendor_id', emit = 'changes');
CREATE SINK far WITH (topic = 'far', key = 'id');
CREATE SOURCE minutes WITH (topic = 'per_minute', event_time = 'ended');
CREATE SINK per_hour WITH (topic = 'per_hour', key = 'window_start');
INSERT INTO per_minute SELECT window_start AS began, window_end AS ended, vendor_id, count(*) AS trips
    FROM TUMBLE(trips, pickup_at, INTERVAL '1 minute') WHERE passenger_count > 0 GROUP BY window_start, window_end, vendor_id;
INSERT INTO far SELECT id, distance FROM trips WHERE distance > 10.0 AND id <> '<&>';
INSERT INTO per_hour SELECT window_start, sum(trips) AS trips
    FROM TUMBLE(minutes, ended, INTERVAL '1 hour') WHERE is_final GROUP BY window_start;";

fn asked(format: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("format".to_owned(), format.to_owned())])
}

/// That elements are closed in order, and that nothing stands where it would be taken for markup.
fn assert_well_formed(xml: &str) {
    let mut open = Vec::new();
    for piece in xml.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').unwrap_or_else(|| panic!("{piece}"));
        let name = tag
            .trim_start_matches('/')
            .split([' ', '/'])
            .next()
            .unwrap();
        if tag.starts_with('/') {
            assert_eq!(open.pop(), Some(name), "{xml}");
        } else if !tag.ends_with('/') {
            open.push(name);
        }
        for entity in text.split('&').skip(1) {
            let name = entity.split(';').next().unwrap();
            assert!(["amp", "lt", "gt", "quot"].contains(&name), "{text}");
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn the_graph_has_every_part_its_numbers_and_a_drawing() {
    let rows = trips(5, 3_000, 30_000);
    let fixture = Fixture::new(3);
    fixture.write(&rows);
    let log = FaultLog::new(Arc::clone(&fixture.log) as _);
    let options = fixture.options_over(Arc::clone(&log) as _, SQL.into());
    let (lifecycle, progress) = (options.lifecycle.clone(), Arc::clone(&options.progress));
    let latest = Arc::new(Latest::new(Arc::new(SystemClock)));
    let answer = page(&progress, &latest, &BTreeMap::new());
    assert_eq!(answer.status, 503);
    let running = std::thread::spawn(move || processor::run(&options));
    let look = || -> Value {
        let latest = Arc::new(Latest::new(Arc::new(SystemClock)));
        let answer = page(&progress, &latest, &BTreeMap::new());
        serde_json::from_str(&answer.body).unwrap()
    };
    let node = |graph: &Value, id: &str| -> Value {
        let nodes = graph["nodes"].as_array().cloned().unwrap_or_default();
        nodes
            .into_iter()
            .find(|node| node["id"] == id)
            .unwrap_or_default()
    };
    let kept = rows.iter().filter(|trip| trip.passengers > 0).count();
    let mut graph = Value::Null;
    for _ in 0..2_000 {
        assert!(!running.is_finished(), "the job ended");
        graph = look();
        // All is read, and what the first query gave has gone through the second.
        let lags = [
            "topic:trips",
            "topic:per_minute",
            "partials:test.per_minute.partials",
            "partials:test.per_hour.partials",
        ];
        if node(&graph, "topic:trips")["rows_in"] == rows.len()
            && node(&graph, "merge:per_hour")["closed"] == 1
            && lags.iter().all(|id| node(&graph, id)["lag"] == 0)
        {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let edges: Vec<String> = graph["edges"]
        .as_array()
        .unwrap_or_else(|| panic!("{graph}"))
        .iter()
        .map(|edge| {
            format!(
                "{} {}",
                edge["from"].as_str().unwrap(),
                edge["to"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        edges,
        [
            "merge:per_hour topic:per_hour",
            "merge:per_minute topic:per_minute",
            "partials:test.per_hour.partials merge:per_hour",
            "partials:test.per_minute.partials merge:per_minute",
            "scan:far topic:far",
            "scan:per_hour partials:test.per_hour.partials",
            "scan:per_minute partials:test.per_minute.partials",
            "topic:per_minute scan:per_hour",
            "topic:trips scan:far",
            "topic:trips scan:per_minute",
        ]
    );
    let position = |id: &str| {
        let nodes = graph["nodes"].as_array().unwrap();
        nodes.iter().position(|node| node["id"] == id).unwrap()
    };
    for edge in graph["edges"].as_array().unwrap() {
        let at = |end: &str| position(edge[end].as_str().unwrap());
        assert!(at("from") < at("to"), "{edge}");
    }

    let trips = node(&graph, "topic:trips");
    assert_eq!(
        (&trips["read"], &trips["written"]),
        (&true.into(), &false.into())
    );
    assert_eq!(trips["time"]["out_of_orderness_ms"], 60_000);
    let partitions = trips["partitions"].as_array().unwrap();
    assert_eq!(partitions.len(), 3);
    assert!(
        partitions
            .iter()
            .all(|p| p["here"] == true && p["rows_in"] == 1_000),
        "{trips}"
    );
    let both = node(&graph, "topic:per_minute");
    assert_eq!(
        (&both["read"], &both["written"]),
        (&true.into(), &true.into())
    );
    let scan = node(&graph, "scan:per_minute");
    assert_eq!(
        (&scan["kept"], &scan["filtered"]),
        (&kept.into(), &(rows.len() - kept).into())
    );
    assert_eq!(scan["windows"], "tumbling, 1 minute");
    // The place of a query among those of its source, not of the job.
    let far = rows.iter().filter(|trip| trip.distance > 10.0).count();
    assert_eq!(node(&graph, "scan:far")["kept"], far);
    let merge = node(&graph, "merge:per_minute");
    assert_eq!(
        (&merge["merged"], &merge["late"]),
        (&kept.into(), &0.into())
    );
    let written = fixture.records("per_minute").len() as u64;
    assert_eq!(
        merge["emitted"].as_u64().unwrap() + merge["changes"].as_u64().unwrap(),
        written
    );
    assert_eq!(merge["shard"].as_array().unwrap().len(), 2);
    assert!(
        merge["shard"]
            .as_array()
            .unwrap()
            .iter()
            .all(|shard| shard["here"] == true && shard["restored"] == 1.0)
    );
    let open: u64 = processor::windows::page(&progress)
        .shards
        .iter()
        .filter(|shard| shard.query == "per_minute")
        .map(|shard| shard.open_count as u64)
        .sum();
    assert!(open > 0);
    assert_eq!(merge["open"], open);
    assert_eq!(node(&graph, "merge:per_hour")["closed"], 1);

    let svg = page(&progress, &latest, &asked("svg"));
    assert_eq!((svg.status, svg.content_type), (200, "image/svg+xml"));
    assert_well_formed(&svg.body);
    for shown in [
        "3,000 rows in",
        "per_hour",
        "test.per_minute.partials",
        "&lt;&amp;&gt;",
        "results, read again",
    ] {
        assert!(svg.body.contains(shown), "{shown}");
    }
    let html = page(&progress, &latest, &asked("html"));
    assert!(html.body.contains("<svg") && html.content_type.starts_with("text/html"));
    assert_eq!(page(&progress, &latest, &asked("pdf")).status, 400);
    if let Ok(folder) = std::env::var("HEADWAY_LOOK") {
        std::fs::write(format!("{folder}/topology.svg"), &svg.body).unwrap();
        std::fs::write(format!("{folder}/topology.html"), &html.body).unwrap();
    }
    lifecycle.stop();
    running.join().unwrap().unwrap();
}
