//! What a benchmark runs on: servers, binaries, generated trips.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use runtime::cli::Flags;
use runtime::config::{Config, ConfigArgs};
use runtime::connect::{connect_log, connect_registry};
use runtime::log::Log;
use schemas::{Registry, SchemaId};

use crate::bare::{self, Moved};
use crate::cost::{self, Cost};
use crate::{Common, Servers};

/// Servers, binaries and names.
pub struct World {
    /// The broker.
    pub log: Arc<dyn Log>,
    /// The schema registry.
    pub registry: Arc<dyn Registry>,
    /// What the names of this benchmark's own topics begin with.
    pub name: String,
    /// For files.
    pub folder: tempfile::TempDir,
    config: Config,
    binaries: PathBuf,
}

/// The configuration that the binaries would have, with these addresses.
pub fn config(servers: &Servers) -> anyhow::Result<Config> {
    let args = ConfigArgs {
        config: std::env::var_os("HEADWAY_CONFIG").map(PathBuf::from),
        ..ConfigArgs::default()
    };
    let mut flags = Flags::of("log")
        .set("brokers", servers.brokers.as_deref())
        .table();
    flags.extend(
        Flags::of("registry")
            .set("url", servers.registry.as_deref())
            .table(),
    );
    Ok(Config::load(&args, &flags)?)
}

impl World {
    /// Connects to the servers.
    pub fn new(args: &Common) -> anyhow::Result<Self> {
        let config = config(&args.servers)?;
        let this = std::env::current_exe().context("this program's own folder is not known")?;
        let beside = this.parent().unwrap_or(&this).to_owned();
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        Ok(Self {
            log: connect_log(&config.log)?,
            registry: connect_registry(&config.registry)?,
            // Two that begin in the same moment have names of their own.
            name: format!("bench-{}-{}", now.as_secs(), std::process::id()),
            folder: tempfile::tempdir()?,
            config,
            binaries: args.binaries.clone().unwrap_or(beside),
        })
    }

    /// The addresses of the brokers and of the registry.
    pub fn addresses(&self) -> (&str, &str) {
        (&self.config.log.brokers, &self.config.registry.url)
    }

    /// The newest schema of a topic's values.
    ///
    /// # Errors
    /// When it has none.
    pub fn latest(&self, topic: &str) -> anyhow::Result<(SchemaId, Arc<str>)> {
        self.registry
            .latest(&schemas::value_subject(topic))?
            .with_context(|| format!("the records of {topic} have no schema"))
    }

    /// One of the binaries, at the same servers, with more settings (`SECTION_KEY`).
    pub fn binary(&self, name: &str, arguments: &[&str], settings: &[(&str, &str)]) -> Command {
        let mut command = Command::new(self.binaries.join(name));
        command
            .args(arguments)
            .env("HEADWAY_LOG_BROKERS", &self.config.log.brokers)
            .env("HEADWAY_REGISTRY_URL", &self.config.registry.url)
            .envs(
                settings
                    .iter()
                    .map(|(key, value)| (format!("HEADWAY_{key}"), value)),
            );
        command
    }

    /// A file of trips, none of them spoiled.
    pub fn trips(&self, args: &Common) -> anyhow::Result<PathBuf> {
        let path = self.folder.path().join("trips.csv");
        let file = path.to_string_lossy();
        let (rows, seed) = (args.rows.to_string(), args.seed.to_string());
        let generate = ["generate", "--rows", &rows, "--seed", &seed];
        let clean = ["--bad-share", "0", "--out", &file];
        cost::of(&mut self.binary("headway", &[&generate[..], &clean[..]].concat(), &[]))?;
        Ok(path)
    }

    /// Sends a file to a new topic.
    pub fn produce(
        &self,
        file: &std::path::Path,
        topic: &str,
        partitions: i32,
    ) -> anyhow::Result<Cost> {
        let (file, partitions) = (file.to_string_lossy(), partitions.to_string());
        let arguments = [&*file, "--create-topics", &partitions];
        let settings = [("PRODUCER_TOPIC", topic), ("PRODUCER_MAPPING", "headway")];
        Ok(cost::of(&mut self.binary("producer", &arguments, &settings))?.0)
    }

    /// A topic that holds the generated trips, loaded by the producer unless it is there. Also brings it into the page cache.
    pub fn trips_topic(&self, args: &Common) -> anyhow::Result<(String, Moved)> {
        let (rows, partitions, seed) = (args.rows, args.partitions, args.seed);
        let topic = format!("bench-trips-{rows}-{partitions}-{seed}");
        if self.log.topic(&topic)?.is_none() {
            eprintln!("loading {rows} trips, seed {seed}, into {topic}");
            self.produce(&self.trips(args)?, &topic, partitions)?;
        }
        let there = bare::count(self.log.as_ref(), &topic)?;
        ensure!(
            there.records == rows,
            "the topic {topic} holds {} records, not {rows}: its loading was broken off, or is still under way; \
             take another --seed",
            there.records
        );
        Ok((topic, there))
    }

    /// A bare contestant: what it cost, and what it moved.
    pub fn bare(&self, arguments: &[&str]) -> anyhow::Result<(Cost, Moved)> {
        let this = std::env::current_exe()?;
        let mut command = self.binary("bench", arguments, &[]);
        if !self.binaries.join("bench").exists() {
            command = Command::new(this);
            command.args(arguments);
        }
        let addresses = [
            ("HEADWAY_LOG_BROKERS", &self.config.log.brokers),
            ("HEADWAY_REGISTRY_URL", &self.config.registry.url),
        ];
        let (cost, out) = cost::of(command.envs(addresses))?;
        let moved: Moved = serde_json::from_str(&out).context("a bare client says nothing")?;
        Ok((moved.cost.unwrap_or(cost), moved))
    }

    /// Deletes a topic that was made for a run; one that stays is no failure of the benchmark.
    pub fn forget(&self, topics: &[&str]) {
        for topic in topics {
            if let Err(error) = self.log.delete_topic(topic) {
                eprintln!("the topic {topic} stays: {error}");
            }
        }
    }
}
