//! Against an OpenSearch server at the address in `HEADWAY_TEST_OPENSEARCH` (`deploy/local up opensearch` starts one,
//! `deploy/local env opensearch` prints the setting). Each test uses indices of its own; what is stored is read by plain
//! HTTP, past the code under test.

mod documents;
mod outages;
mod proxy;
mod setup;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use sink_opensearch::{BulkOptions, BulkTarget, Options, Target, TopicSettings};

use crate::support::{SCHEMA, TOPIC, Versions, World, settings};

/// A server, and names that no other test and no earlier run uses. What it made is deleted in the end.
pub struct Server {
    pub url: String,
    pub name: String,
}

/// A stored document, as the server has it.
#[derive(Debug, PartialEq)]
pub struct Stored {
    pub version: i64,
    /// Grows with every write to its index, one that changes nothing included.
    pub sequence: i64,
    pub source: Value,
}

impl Server {
    /// `None` where the test is skipped, which is said.
    pub fn find(test: &str) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let found = std::env::var("HEADWAY_TEST_OPENSEARCH")
            .ok()
            .filter(|url| !url.trim().is_empty());
        let Some(url) = found else {
            assert!(
                std::env::var_os("HEADWAY_CI_REAL").is_none(),
                "HEADWAY_CI_REAL is set, and HEADWAY_TEST_OPENSEARCH is not: this run must not skip real::{test}"
            );
            // not a print macro: the test harness would hold its output back
            let line = format!(
                "skipped: real::{test}: set HEADWAY_TEST_OPENSEARCH=URL (deploy/local up opensearch; deploy/local env opensearch)\n"
            );
            std::io::stderr().write_all(line.as_bytes()).ok();
            return None;
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("it-{}-{}-{count}", since.as_millis(), std::process::id());
        Some(Self { url, name })
    }

    /// The topic's settings, with index names of this test's own.
    pub fn settings(&self) -> TopicSettings {
        TopicSettings {
            index: Some(format!("{}-{{yyyy.MM}}", self.name)),
            ..settings()
        }
    }

    pub fn target_at(&self, url: &str) -> Arc<BulkTarget> {
        let mut options = BulkOptions::new(url);
        options.request_timeout = std::time::Duration::from_secs(10);
        Arc::new(BulkTarget::new(options).unwrap())
    }

    pub fn target(&self) -> Arc<BulkTarget> {
        self.target_at(&self.url)
    }

    /// With the template for the test's topic.
    pub fn set_up(&self) -> &Self {
        self.target().setup(&self.settings(), SCHEMA, true).unwrap();
        self
    }

    /// A drain of the world's topic to this test's indices.
    pub fn options(&self, world: &World, target: Arc<dyn Target>) -> Options {
        let mut options = world.options(world.log.clone(), target);
        options.topics = vec![self.settings()];
        options.lifecycle.drain();
        options
    }

    pub fn http(&self, method: &str, path: &str, body: Option<Value>) -> (u16, Value) {
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let server = self.url.trim_start_matches("http://").trim_end_matches('/');
        let (status, answer) =
            proxy::call(server, method, path, &body).expect("OpenSearch answers");
        (status, serde_json::from_slice(&answer).unwrap_or_default())
    }

    pub fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let (status, answer) = self.http(method, path, body);
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {status} {answer}"
        );
        answer
    }

    /// What is stored, by index and id.
    pub fn stored(&self) -> BTreeMap<(String, String), Stored> {
        let name = &self.name;
        self.ok("POST", &format!("/{name}-*/_refresh"), None);
        let path = format!("/{name}-*/_search");
        let query = json!({"size": 10_000, "version": true, "seq_no_primary_term": true});
        let found = self.ok("POST", &path, Some(query));
        let hits = found["hits"]["hits"].as_array().unwrap();
        assert_eq!(found["hits"]["total"]["value"], hits.len());
        let text = |hit: &Value, key: &str| hit[key].as_str().unwrap().to_owned();
        hits.iter()
            .map(|hit| {
                let stored = Stored {
                    version: hit["_version"].as_i64().unwrap(),
                    sequence: hit["_seq_no"].as_i64().unwrap(),
                    source: hit["_source"].clone(),
                };
                ((text(hit, "_index"), text(hit, "_id")), stored)
            })
            .collect()
    }

    /// What must be stored of a world's records, under this test's index names.
    pub fn expected(&self, world: &World) -> Versions {
        let own = |index: &str| index.replacen(TOPIC, &self.name, 1);
        world
            .expected
            .iter()
            .map(|((index, id), version)| ((own(index), id.clone()), *version))
            .collect()
    }

    /// What is stored is what the world's model has, versions and contents.
    pub fn check(&self, world: &World, context: &str) {
        let stored = self.stored();
        for (at, document) in &stored {
            let version = document.version;
            assert_eq!(document.source["version"], version, "{context} {at:?}");
            assert_eq!(
                document.source["mean"],
                version as f64 / 3.0,
                "{context} {at:?}"
            );
        }
        let versions: Versions = stored
            .into_iter()
            .map(|(at, document)| (at, document.version))
            .collect();
        assert_eq!(versions, self.expected(world), "{context}");
        world.check_ledger(context);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // by name: a server may refuse to delete by pattern
        let (_, indices) = self.http("GET", &format!("/{}*/_mapping", self.name), None);
        for index in indices.as_object().into_iter().flat_map(|all| all.keys()) {
            self.http("DELETE", &format!("/{index}"), None);
        }
        self.http(
            "DELETE",
            &format!("/_index_template/headway-{}*", self.name),
            None,
        );
    }
}

pub fn world(records: usize, bad: bool) -> (tempfile::TempDir, World) {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(folder.path());
    world.write(records, bad);
    (folder, world)
}
