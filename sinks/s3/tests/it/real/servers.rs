//! The servers, and a world whose lake is on one of them.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::prefix::PrefixStore;
use sink_s3::{Credentials, Lake, Location, Options};

use crate::world::World;

/// A server under test, with a prefix of its own for each test.
#[derive(Clone, Debug)]
pub struct Server {
    pub name: String,
    pub endpoint: String,
    pub bucket: String,
    pub region: String,
    pub access_key: String,
    pub secret_key: String,
    prefix: String,
}

/// Runs a property against all servers named, at the same time.
pub fn on_servers(name: &str, property: impl Fn(&Server) + Sync) {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(servers) = variable("HEADWAY_TEST_S3") else {
        assert!(
            variable("HEADWAY_CI_REAL").is_none(),
            "HEADWAY_TEST_S3 names no server"
        );
        // Not a print macro: the test harness would hold its output back.
        let line = format!(
            "skipped: real::{name}: set HEADWAY_TEST_S3=name=http://host:port,… (deploy/local up minio versitygw; deploy/local env minio versitygw)\n"
        );
        std::io::stderr().write_all(line.as_bytes()).ok();
        return;
    };
    let given = |what: &str| {
        variable(&format!("HEADWAY_TEST_S3_{what}"))
            .unwrap_or_else(|| panic!("HEADWAY_TEST_S3 is set without HEADWAY_TEST_S3_{what}"))
    };
    let servers: Vec<Server> = servers
        .split(',')
        .map(|entry| {
            let (name, endpoint) = entry
                .trim()
                .split_once('=')
                .unwrap_or_else(|| panic!("HEADWAY_TEST_S3: {entry:?} is not name=address"));
            Server {
                name: name.into(),
                endpoint: endpoint.into(),
                bucket: given("BUCKET"),
                region: given("REGION"),
                access_key: given("ACCESS_KEY"),
                secret_key: given("SECRET_KEY"),
                prefix: unique(),
            }
        })
        .collect();
    let failures: Vec<String> = std::thread::scope(|scope| {
        let runs: Vec<_> = servers
            .iter()
            .map(|server| {
                let thread = std::thread::Builder::new().name(format!("{}::{name}", server.name));
                let run = thread.spawn_scoped(scope, || property(server)).unwrap();
                (&server.name, run)
            })
            .collect();
        runs.into_iter()
            .filter_map(|(server, run)| {
                let panic = run.join().err()?;
                let message = panic
                    .downcast_ref::<String>()
                    .cloned()
                    .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
                Some(format!("on {server}: {}", message.unwrap_or_default()))
            })
            .collect()
    });
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let since = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    format!(
        "sink-s3-{}-{}-{}",
        since.as_millis(),
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

impl Server {
    /// The same server, with another prefix.
    pub fn elsewhere(&self) -> Self {
        Self {
            prefix: unique(),
            ..self.clone()
        }
    }

    /// `host:port`.
    pub fn address(&self) -> &str {
        self.endpoint.split_once("://").unwrap().1
    }

    pub fn credentials(&self) -> Credentials {
        Credentials {
            access_key_id: self.access_key.clone().into(),
            secret_access_key: self.secret_key.clone().into(),
            ..Credentials::default()
        }
    }

    /// The lake's address.
    pub fn location(&self) -> Location {
        Location {
            endpoint: Some(self.endpoint.clone()),
            region: Some(self.region.clone()),
            credentials: Some(self.credentials()),
            ..Location::new(format!("s3://{}/{}/lake", self.bucket, self.prefix))
        }
    }

    /// A world that reads its lake from here, past every proxy.
    pub fn world(&self, partitions: i32) -> World {
        let store = AmazonS3Builder::new()
            .with_endpoint(&self.endpoint)
            .with_allow_http(true)
            .with_region(&self.region)
            .with_bucket_name(&self.bucket)
            .with_access_key_id(&self.access_key)
            .with_secret_access_key(&self.secret_key)
            .build()
            .unwrap();
        let mut world = World::new(partitions);
        world.store = Arc::new(PrefixStore::new(store, self.prefix.as_str()));
        world
    }

    /// A run of a world's that goes to this address.
    pub fn options(&self, world: &World, endpoint: &str) -> Options {
        let location = Location {
            endpoint: Some(endpoint.into()),
            ..self.location()
        };
        self.options_at(world, location)
    }

    pub fn options_at(&self, world: &World, location: Location) -> Options {
        Options {
            lake: Lake::At(location),
            start_deadline: Duration::from_millis(500),
            ..world.options()
        }
    }
}
