//! One pipeline on real servers: names of its own for topics, application, index and lake, and the processes.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::RowAccessor;
use serde_json::Value;

use crate::oracle::{self, Rows};
use crate::run::{SALT, assert_ids, generate, headway, ledger, text};

/// Two pipelines at once would have too little of the machine, and an outage is everybody's: a test that talks to the
/// servers holds this.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(|broken| broken.into_inner())
}

/// The servers, as `deploy/local env` prints them.
#[derive(Clone, Debug)]
pub struct Servers {
    pub kafka: String,
    pub registry: String,
    pub opensearch: String,
    pub s3: String,
    bucket: String,
    region: String,
    access_key: String,
    secret_key: String,
}

impl Servers {
    /// The servers; `None`, and a line that says so, where they are not named. The broker is Apache Kafka if there is
    /// one, as it judges what is exactly once.
    pub fn find(test: &str) -> Option<Self> {
        let mut missing = Vec::new();
        let mut get = |name: &'static str| {
            std::env::var(name).unwrap_or_else(|_| {
                missing.push(name);
                String::new()
            })
        };
        let pick = |list: &str, wanted: &str| {
            let entries: Vec<_> = list
                .split(',')
                .filter_map(|entry| entry.split_once('='))
                .collect();
            let found = entries.iter().find(|(name, _)| *name == wanted);
            found
                .or(entries.first())
                .map(|(_, address)| (*address).to_owned())
                .unwrap_or_default()
        };
        let found = Self {
            kafka: pick(&get("HEADWAY_TEST_KAFKA"), "kafka4"),
            registry: get("HEADWAY_TEST_REGISTRY"),
            opensearch: get("HEADWAY_TEST_OPENSEARCH"),
            s3: pick(&get("HEADWAY_TEST_S3"), "minio"),
            bucket: get("HEADWAY_TEST_S3_BUCKET"),
            region: get("HEADWAY_TEST_S3_REGION"),
            access_key: get("HEADWAY_TEST_S3_ACCESS_KEY"),
            secret_key: get("HEADWAY_TEST_S3_SECRET_KEY"),
        };
        if missing.is_empty() {
            return Some(found);
        }
        let missing = missing.join(", ");
        assert!(
            std::env::var_os("HEADWAY_CI_REAL").is_none(),
            "HEADWAY_CI_REAL is set, and {missing} is not: this run must not skip real::{test}"
        );
        eprintln!(
            "skipped: real::{test}: set {missing} (deploy/local up; export $(deploy/local env))"
        );
        None
    }
}

/// A pipeline.
pub struct World {
    pub servers: Servers,
    pub name: String,
    pub seed: u64,
    pub folder: tempfile::TempDir,
    pub csv: PathBuf,
    pub rows: Rows,
    settings: BTreeMap<String, String>,
    _alone: MutexGuard<'static, ()>,
}

/// A process of a pipeline; killed when dropped.
pub struct Process {
    pub name: String,
    pub child: Child,
    log: PathBuf,
}

impl World {
    /// A pipeline over generated rows.
    pub fn new(test: &str, rows: u64) -> Option<Self> {
        let servers = Servers::find(test)?;
        let alone = alone();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let seed = std::env::var("HEADWAY_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok())
            .unwrap_or(now.as_nanos() as u64);
        eprintln!("HEADWAY_TEST_SEED={seed}");
        let name = format!("{test}-{}", now.as_millis() % 100_000_000);
        let folder = tempfile::tempdir().unwrap();
        let csv = generate(folder.path(), rows, seed % 1000);
        let read = oracle::read(&csv);
        let job = include_str!("../../../../processor/jobs/taxi.sql")
            .replace("= 'trips'", &format!("= '{name}-trips'"))
            .replace("= 'trip_statistics'", &format!("= '{name}-statistics'"));
        let job_file = folder.path().join("job.sql");
        std::fs::write(&job_file, job).unwrap();
        let documents = include_str!("../../../../sinks/opensearch/documents/taxi.toml")
            .replace(
                "topic = \"trip_statistics\"",
                &format!("topic = \"{name}-statistics\""),
            )
            .replace("topic = \"trips\"", &format!("topic = \"{name}-trips\""));
        let documents_file = folder.path().join("documents.toml");
        std::fs::write(&documents_file, documents).unwrap();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let settings = [
            ("LOG_BROKERS", servers.kafka.clone()),
            ("LOG_SESSION_TIMEOUT_MS", "6000".into()),
            ("LOG_TRANSACTION_TIMEOUT_MS", "5000".into()),
            ("REGISTRY_URL", servers.registry.clone()),
            ("PRODUCER_TOPIC", format!("{name}-trips")),
            ("PRODUCER_MAPPING", "headway".into()),
            ("PROCESSOR_JOB", path(&job_file)),
            ("PROCESSOR_APPLICATION_ID", name.clone()),
            (
                "PROCESSOR_MASK_SALT",
                String::from_utf8(SALT.to_vec()).unwrap(),
            ),
            // Every few seconds, so that they are under way when processes die.
            ("PROCESSOR_SNAPSHOT_AFTER_ROWS", "20000".into()),
            ("SINK_S3_TOPICS", format!("{name}-trips")),
            ("SINK_S3_GROUP", format!("{name}-s3")),
            ("SINK_S3_URL", format!("s3://{}/{name}", servers.bucket)),
            ("SINK_S3_ENDPOINT", servers.s3.clone()),
            ("SINK_S3_REGION", servers.region.clone()),
            ("SINK_S3_ACCESS_KEY_ID", servers.access_key.clone()),
            ("SINK_S3_SECRET_ACCESS_KEY", servers.secret_key.clone()),
            ("SINK_S3_FLUSH_INTERVAL_MS", "4000".into()),
            ("SINK_OPENSEARCH_TOPICS", format!("{name}-statistics")),
            ("SINK_OPENSEARCH_GROUP", format!("{name}-opensearch")),
            ("SINK_OPENSEARCH_URL", servers.opensearch.clone()),
            ("SINK_OPENSEARCH_DOCUMENTS", path(&documents_file)),
        ];
        let settings = settings
            .into_iter()
            .map(|(key, value)| (format!("HEADWAY_{key}"), value))
            .collect();
        Some(Self {
            servers,
            name,
            seed,
            folder,
            csv,
            rows: read,
            settings,
            _alone: alone,
        })
    }

    /// A binary of the pipeline, configured by its environment.
    pub fn binary(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = crate::run::binary(name);
        command
            .args(arguments)
            .envs(&self.settings)
            .current_dir(self.folder.path())
            .stdin(Stdio::null());
        command
    }

    /// The producer over the pipeline's file.
    pub fn producer(&self, rate: u32) -> Command {
        let csv = self.csv.to_str().unwrap();
        self.binary(
            "producer",
            &[csv, "--create-topics", "4", "--rate", &rate.to_string()],
        )
    }

    /// Starts a process whose output goes to a file of its name.
    pub fn spawn(&self, name: &str, mut command: Command) -> Process {
        let log = self.folder.path().join(format!("{name}.log"));
        let file = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let child = command
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Process {
            name: name.into(),
            child,
            log,
        }
    }

    /// Runs a process to its end; panics with its output if it fails.
    pub fn finish(&self, command: &mut Command) -> Output {
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}: seed {}: {command:?}: {}\n{}\n{}",
            self.name,
            self.seed,
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        output
    }

    /// Puts the index templates into OpenSearch, once the results' schema is known.
    pub fn set_up_index(&self) {
        self.finish(&mut self.binary("sink-opensearch", &["setup"]));
    }

    /// Waits until the registry knows the schema of one of the pipeline's topics.
    pub fn wait_for_schema(&self, topic: &str) {
        let url = format!(
            "{}/subjects/{}-{topic}-value/versions/latest",
            self.servers.registry, self.name
        );
        let until = Instant::now() + Duration::from_secs(60);
        while curl(&["-f", &url]).is_none() {
            assert!(Instant::now() < until, "{topic} has no schema after 60 s");
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Brings everything to its end, and holds what is there against the file.
    pub fn finish_and_check(&self) {
        self.finish(&mut self.producer(0));
        self.finish(&mut self.binary("processor", &["--once"]));
        self.finish(&mut self.binary("sink-s3", &["--once"]));
        self.finish(&mut self.binary("sink-opensearch", &["--once"]));
        self.check();
    }

    /// Holds what is there against the file: documents, lake and audit.
    pub fn check(&self) {
        let what = format!("{}, seed {}", self.name, self.seed);
        let mut audit = headway();
        audit.args(["audit", "--json"]).envs(&self.settings);
        let ledger = ledger(&audit.output().unwrap());
        assert_eq!(ledger["balanced"], true, "{what}: {ledger:#}");
        let good = self.rows.good.len() as u64;
        assert_eq!(ledger["producer"]["delivered"], good, "{what}: {ledger:#}");
        assert_eq!(
            ledger["producer"]["rejected"], self.rows.bad,
            "{what}: {ledger:#}"
        );
        assert_eq!(ledger["queries"][0]["late"], 0, "{what}: {ledger:#}");
        let expected = oracle::statistics(&self.rows.good);
        let differences = oracle::differences(&expected, &self.documents(), SALT);
        assert!(
            differences.is_empty(),
            "{what}: {} differences, such as {}",
            differences.len(),
            differences[0]
        );
        assert_ids(&self.lake_ids(), &self.rows, &what);
    }

    /// The documents by window start and vendor, as curl finds them.
    fn documents(&self) -> BTreeMap<(i64, i32), Value> {
        let index = format!("{}/{}-statistics-*", self.servers.opensearch, self.name);
        curl(&["-f", "-X", "POST", &format!("{index}/_refresh")]).unwrap();
        let found = curl(&["-f", &format!("{index}/_search?size=10000")]).unwrap();
        let found: Value = serde_json::from_slice(&found).unwrap();
        let mut documents = BTreeMap::new();
        for hit in found["hits"]["hits"].as_array().unwrap() {
            let body = hit["_source"].clone();
            let start =
                chrono::DateTime::parse_from_rfc3339(body["window_start"].as_str().unwrap());
            let key = (
                start.unwrap().timestamp_millis(),
                body["vendor_id"].as_i64().unwrap() as i32,
            );
            assert_eq!(documents.insert(key, body), None, "{key:?} twice");
        }
        documents
    }

    /// Every id in the lake; one that comes twice stands twice.
    fn lake_ids(&self) -> Vec<String> {
        let servers = &self.servers;
        let store: Arc<AmazonS3> = Arc::new(
            AmazonS3Builder::new()
                .with_endpoint(&servers.s3)
                .with_allow_http(true)
                .with_bucket_name(&servers.bucket)
                .with_region(&servers.region)
                .with_access_key_id(&servers.access_key)
                .with_secret_access_key(&servers.secret_key)
                .build()
                .unwrap(),
        );
        let prefix = ObjectPath::from(format!("{0}/{0}-trips", self.name));
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let files: Vec<Bytes> = runtime.block_on(async {
            let names: Vec<_> = store
                .list(Some(&prefix))
                .map_ok(|file| file.location)
                .try_collect()
                .await
                .unwrap();
            futures::stream::iter(names)
                .map(|name| {
                    let store = store.clone();
                    async move { store.get(&name).await.unwrap().bytes().await.unwrap() }
                })
                .buffer_unordered(16)
                .collect()
                .await
        });
        files
            .into_iter()
            .flat_map(|bytes| {
                let reader = SerializedFileReader::new(bytes).unwrap();
                reader
                    .get_row_iter(None)
                    .unwrap()
                    .map(|row| row.unwrap().get_string(0).unwrap().clone())
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

impl Process {
    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and its end.
    pub fn stop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let status = self.child.wait().unwrap();
        assert!(
            status.success(),
            "{} ended with {status}: {}",
            self.name,
            self.tail()
        );
    }

    /// The most memory that it has had resident, in MiB.
    pub fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        status
            .unwrap_or_default()
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .and_then(|line| {
                line.trim()
                    .trim_end_matches("kB")
                    .trim()
                    .parse::<u64>()
                    .ok()
            })
            .map_or(0, |kib| kib / 1024)
    }

    /// The end of its output.
    pub fn tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(25)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What curl prints, if it succeeds.
fn curl(arguments: &[&str]) -> Option<Vec<u8>> {
    let output = Command::new("curl")
        .args(["-s", "--max-time", "30"])
        .args(arguments)
        .output()
        .expect("curl is installed");
    output.status.success().then_some(output.stdout)
}
