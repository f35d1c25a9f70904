//! Sources that are not ours: JSON topics, registries that are away, schemas that nobody knows.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use runtime::log::Log;
use schemas::record::{Codec, DeadLetter};
use schemas::{Registry, RegistryError, SchemaId};
use serde_json::json;

use crate::fixture::{Fixture, assert_same, job_sql, naive, trips};

fn letters(fixture: &Fixture) -> Vec<DeadLetter> {
    let codec = Codec::<DeadLetter>::new(Arc::clone(&fixture.registry), "trips.dlq-value").unwrap();
    fixture
        .records("trips.dlq")
        .iter()
        .map(|(_, value)| codec.decode(value).unwrap())
        .collect()
}

fn json_sql() -> String {
    job_sql("1 minute", ", format = 'json'").replace(
        "CREATE SOURCE trips WITH",
        "CREATE SOURCE trips (vendor_id INT NOT NULL, pickup_at TIMESTAMP NOT NULL, passenger_count BIGINT, distance DOUBLE, note TEXT) WITH",
    )
}

#[test]
fn a_json_topic_gives_what_an_avro_topic_gives_and_bad_records_name_their_field() {
    let rows = trips(31, 300, 5_000);
    let fixture = Fixture::new(2);
    let mut values: Vec<(i32, Option<Vec<u8>>)> = rows
        .iter()
        .enumerate()
        .map(|(index, trip)| {
            // A time as a number, or as a text; fields that no column names; one that the job does not read.
            let at = if index % 2 == 0 {
                json!(trip.pickup_ms)
            } else {
                let (seconds, millis) = (
                    trip.pickup_ms.div_euclid(1000),
                    trip.pickup_ms.rem_euclid(1000),
                );
                json!(format!(
                    "2016-01-01T{:02}:{:02}:{:02}.{millis:03}Z",
                    (seconds - 1_451_606_400) / 3600,
                    (seconds - 1_451_606_400) / 60 % 60,
                    (seconds - 1_451_606_400) % 60
                ))
            };
            let mut value = json!({
                "pickup_at": at, "vendor_id": trip.vendor, "distance": trip.distance,
                "extra": {"deep": [1, {"vendor_id": "no"}]}, "note": 5,
            });
            // Nobody on board: the field is missing, so the row is left out, as null > 0 is not true.
            if trip.passengers > 0 {
                value["passenger_count"] = json!(trip.passengers);
            }
            (index as i32 % 2, Some(value.to_string().into_bytes()))
        })
        .collect();
    // Before 2016 began a text of this form would be another day: those are numbers.
    for ((_, value), trip) in values.iter_mut().zip(&rows) {
        if trip.pickup_ms < 1_451_606_400_000 {
            let text = String::from_utf8(value.clone().unwrap()).unwrap();
            let mut parsed: serde_json::Value = serde_json::from_str(&text).unwrap();
            parsed["pickup_at"] = json!(trip.pickup_ms);
            *value = Some(parsed.to_string().into_bytes());
        }
    }
    let bad = [
        (
            br#"{"vendor_id": "one", "pickup_at": 0}"#.to_vec(),
            "wrong_type",
            "vendor_id",
        ),
        (
            br#"{"vendor_id": 1, "pickup_at": "soon"}"#.to_vec(),
            "wrong_type",
            "pickup_at",
        ),
        (
            br#"{"vendor_id": 1}"#.to_vec(),
            "missing_field",
            "pickup_at",
        ),
        (
            br#"{"vendor_id": 1, "pickup_at": 0"#.to_vec(),
            "not_json",
            "",
        ),
        (b"[1]".to_vec(), "not_json", ""),
        (b"".to_vec(), "not_json", ""),
    ];
    for (place, (value, ..)) in bad.iter().enumerate() {
        values.insert(place * 40, (0, Some(value.clone())));
    }
    values.insert(17, (1, None));
    fixture.write_records(&values);
    fixture
        .drain(Arc::clone(&fixture.log) as _, &json_sql())
        .unwrap();
    assert_same(&fixture.results(), &naive(&rows), "of JSON");
    let found: BTreeMap<_, _> = letters(&fixture)
        .into_iter()
        .map(|letter| (letter.raw.clone(), (letter.reason, letter.detail)))
        .collect();
    assert_eq!(found.len(), bad.len(), "{found:?}");
    for (value, reason, field) in &bad {
        let (found_reason, detail) = &found[value];
        assert_eq!(found_reason, reason, "{detail}");
        assert!(
            field.is_empty() || detail.contains(&format!("field `{field}`")),
            "{detail}"
        );
    }
    let ledger = fixture.ledger();
    assert_eq!(ledger.rows_in, values.len() as u64);
    assert_eq!(ledger.undecodable, bad.len() as u64);
    assert_eq!(
        ledger.rows_in,
        ledger.undecodable + ledger.filtered + ledger.assigned
    );
}

/// A registry that can be away when it is asked for a number.
pub struct Away {
    pub registry: Arc<dyn Registry>,
    pub away: AtomicBool,
    /// How often it was asked while it was away.
    pub asked: AtomicU64,
}

impl Registry for Away {
    fn register(&self, subject: &str, schema: &str) -> Result<SchemaId, RegistryError> {
        self.registry.register(subject, schema)
    }

    fn by_id(&self, id: SchemaId) -> Result<Arc<str>, RegistryError> {
        if self.away.load(Ordering::SeqCst) {
            self.asked.fetch_add(1, Ordering::SeqCst);
            return Err(RegistryError::Unavailable {
                address: "test".into(),
                detail: "it is away".into(),
            });
        }
        self.registry.by_id(id)
    }

    fn latest(&self, subject: &str) -> Result<Option<(SchemaId, Arc<str>)>, RegistryError> {
        self.registry.latest(subject)
    }
}

#[test]
fn an_unknown_schema_is_a_dead_letter_only_after_the_registry_has_answered() {
    let rows = trips(41, 120, 1_000);
    let fixture = Fixture::new(1);
    let mut values: Vec<(i32, Vec<u8>)> = rows
        .iter()
        .enumerate()
        .map(|(index, trip)| (0, fixture.encode(index, trip)))
        .collect();
    values.insert(60, (0, vec![0, 0, 0, 0, 99, 1, 2, 3]));
    values.insert(0, (0, vec![0, 0, 0, 0, 98, 1, 2, 3]));
    fixture.write_raw(&values);
    let registry = Arc::new(Away {
        registry: Arc::clone(&fixture.registry),
        away: AtomicBool::new(true),
        asked: AtomicU64::new(0),
    });
    let mut options = fixture.options(job_sql("1 minute", ""));
    options.registry = Arc::clone(&registry) as _;
    options.lifecycle.drain();
    let progress = Arc::clone(&options.progress);
    let running = std::thread::spawn(move || processor::run(&options));
    while registry.asked.load(Ordering::SeqCst) < 3 {
        assert!(!running.is_finished(), "it waits for the registry");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(progress.totals().rows_in, 0);
    assert!(fixture.records("trips.dlq").is_empty());
    registry.away.store(false, Ordering::SeqCst);
    running.join().unwrap().unwrap();
    assert_same(&fixture.results(), &naive(&rows), "after an outage");
    let letters = letters(&fixture);
    assert!(
        letters.len() == 2
            && letters
                .iter()
                .all(|letter| letter.reason == "unknown_schema"),
        "{letters:?}"
    );
    assert!(fixture.log.topic("test.per_minute.late").unwrap().is_some());
}
