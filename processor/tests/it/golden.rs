//! Every kind of query against the answers in tests/golden, which a batch engine has worked out; and again with a crash
//! at each commit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use runtime::log::Log;
use runtime::log::fault::{At, Fault, FaultLog};
use schemas::value_subject;
use serde_json::Value as Json;

use crate::fixture::Fixture;

/// The trips of tests/golden/trips.csv.
const TRIP: &str = r#"{"type": "record", "name": "Trip", "fields": [
    {"name": "id", "type": "string"},
    {"name": "vendor_id", "type": "int"},
    {"name": "pickup_at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "passenger_count", "type": "int"},
    {"name": "distance", "type": "double"},
    {"name": "place", "type": "string", "default": ""}
]}"#;

pub type Row = BTreeMap<String, Json>;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn fixture() -> Fixture {
    let mut fixture = Fixture::new(2);
    fixture.folder = folder();
    let (id, schema) = (
        fixture
            .registry
            .register(&value_subject("trips"), TRIP)
            .unwrap(),
        Schema::parse_str(TRIP).unwrap(),
    );
    let text = std::fs::read_to_string(folder().join("trips.csv")).unwrap();
    let values: Vec<(i32, Vec<u8>)> = text
        .lines()
        .skip(1)
        .enumerate()
        .map(|(index, line)| {
            let cells: Vec<&str> = line.split(',').collect();
            let value = Value::Record(vec![
                ("id".into(), Value::String(cells[0].into())),
                ("vendor_id".into(), Value::Int(cells[1].parse().unwrap())),
                (
                    "pickup_at".into(),
                    Value::TimestampMillis(cells[2].parse().unwrap()),
                ),
                (
                    "passenger_count".into(),
                    Value::Int(cells[3].parse().unwrap()),
                ),
                ("distance".into(), Value::Double(cells[4].parse().unwrap())),
                ("place".into(), Value::String(cells[5].into())),
            ]);
            let mut bytes = Vec::new();
            schemas::wire::frame(id, &mut bytes);
            let writer = GenericDatumWriter::builder(&schema).build().unwrap();
            bytes.extend(writer.write_value_to_vec(value).unwrap());
            (index as i32 % 2, bytes)
        })
        .collect();
    fixture.write_raw(&values);
    fixture
}

pub fn json(value: Value) -> Json {
    match value {
        Value::Union(_, inner) => json(*inner),
        Value::Null => Json::Null,
        Value::Boolean(value) => value.into(),
        Value::Int(value) => value.into(),
        Value::Long(value) | Value::TimestampMillis(value) => value.into(),
        Value::Double(value) => value.into(),
        Value::String(value) => value.into(),
        other => panic!("{other:?}"),
    }
}

/// The last row of each key, without version and is_final. No key comes twice in the same version, and one that is
/// final comes no more.
pub fn results(fixture: &Fixture, what: &str) -> Vec<Row> {
    let (_, text) = fixture
        .registry
        .latest(&value_subject("out"))
        .unwrap()
        .unwrap();
    let schema = Schema::parse_str(&text).unwrap();
    let mut last: BTreeMap<Vec<u8>, (i64, bool, Row)> = BTreeMap::new();
    for (key, value) in fixture.records("out") {
        let (_, body) = schemas::wire::unframe(&value).unwrap();
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        let Value::Record(fields) = reader.read_value(&mut &body[..]).unwrap() else {
            panic!()
        };
        let mut row: Row = fields
            .into_iter()
            .map(|(name, value)| (name, json(value)))
            .collect();
        let version = row.remove("version").unwrap().as_i64().unwrap();
        let is_final = row.remove("is_final").unwrap().as_bool().unwrap();
        if let Some((before, was_final, _)) = last.get(&key) {
            assert!(*before < version, "{what}: {row:?} comes twice");
            assert!(!was_final, "{what}: {row:?} comes after its final row");
        }
        last.insert(key, (version, is_final, row));
    }
    let mut rows: Vec<Row> = last.into_values().map(|(_, _, row)| row).collect();
    rows.sort_by_cached_key(text_of);
    rows
}

fn text_of(row: &Row) -> String {
    format!("{row:?}")
}

pub fn assert_equal(found: &[Row], expected: &[Row], key: &[String], what: &str) {
    let by_key = |rows: &[Row]| -> BTreeMap<String, Row> {
        let of = |row: &Row| {
            key.iter()
                .map(|name| row[name].to_string())
                .collect::<Vec<_>>()
                .join("|")
        };
        let map: BTreeMap<_, _> = rows.iter().map(|row| (of(row), row.clone())).collect();
        assert_eq!(map.len(), rows.len(), "{what}: keys come twice");
        map
    };
    let (found, expected) = (by_key(found), by_key(expected));
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>(),
        "{what}"
    );
    for (key, expected) in &expected {
        for (name, expected) in expected {
            let found = &found[key][name];
            let same = match (found.as_f64(), expected.as_f64()) {
                (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs().max(1e-3),
                _ => found == expected,
            };
            assert!(same, "{what}: {name} of {key} is {found}, not {expected}");
        }
    }
}

/// A job's name, its text, its sink's key and its answer.
type Golden = (String, String, Vec<String>, Vec<Row>);

/// Each job of the folder.
fn jobs() -> Vec<Golden> {
    let mut jobs = Vec::new();
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some(name) = name.strip_suffix(".sql").filter(|name| !name.contains('.')) else {
            continue;
        };
        let text = std::fs::read_to_string(&path).unwrap();
        let key = engine::sql::parse(&text).unwrap().sinks["out"].key.clone();
        let answer = std::fs::read_to_string(folder().join(format!("{name}.json"))).unwrap();
        jobs.push((
            name.to_owned(),
            text,
            key,
            serde_json::from_str(&answer).unwrap(),
        ));
    }
    jobs.sort_by(|a, b| a.0.cmp(&b.0));
    assert!(jobs.len() >= 10);
    jobs
}

#[test]
fn every_kind_of_query_gives_what_a_batch_engine_gives_and_the_same_after_a_crash_at_each_commit() {
    // A run waits more than it works.
    std::thread::scope(|scope| {
        for job in jobs() {
            scope.spawn(move || survives(&job));
        }
    });
}

fn survives((name, text, key, answer): &Golden) {
    let fixture_of_clean_run = fixture();
    let log = FaultLog::new(Arc::clone(&fixture_of_clean_run.log) as Arc<dyn Log>);
    fixture_of_clean_run
        .drain(Arc::clone(&log) as _, text)
        .unwrap();
    let clean = results(&fixture_of_clean_run, name);
    assert_equal(&clean, answer, key, name);
    let commits = log
        .trace()
        .iter()
        .filter(|call| **call == "producer.commit")
        .count() as u64;
    assert!(commits > 5, "{name}: {commits} commits");
    let mut crashes = 0;
    for nth in 0..commits {
        // The outcome of the crashed commit alternates.
        let fault = match nth % 2 {
            0 => Fault::CrashAfter,
            _ => Fault::CrashBefore,
        };
        let what = format!("{name}, {fault:?} at commit {nth}");
        let fixture = fixture();
        let at = At::Call("producer.commit", nth);
        let log = FaultLog::with_fault(Arc::clone(&fixture.log) as _, at, fault);
        if fixture.drain(Arc::clone(&log) as _, text).is_err() {
            assert!(log.crashed(), "{what}");
            crashes += 1;
            fixture.forget_members();
            fixture.drain(Arc::clone(&fixture.log) as _, text).unwrap();
        }
        assert_equal(&results(&fixture, &what), answer, key, &what);
    }
    // How many commits a run has depends on its pace: the last ones may not come.
    assert!(
        crashes * 2 > commits,
        "{name}: {crashes} crashes at {commits} commits"
    );
}
