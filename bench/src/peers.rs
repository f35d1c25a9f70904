//! The peers: small programs around Kafka Streams and Flink SQL that do the comparison's job, built from Maven packages.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, ensure};
use clap::ValueEnum;

use crate::comparison::Groups;
use crate::cost::{self, Cost};
use crate::world::World;

/// A stream processor to run beside ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// Kafka Streams, exactly_once_v2, one stream thread
    KafkaStreams,
    /// Flink SQL, exactly once, one slot, state on the heap
    FlinkSql,
}

impl Peer {
    /// Its name in a report.
    pub fn name(self) -> &'static str {
        match self {
            Self::KafkaStreams => "Kafka Streams",
            Self::FlinkSql => "Flink SQL",
        }
    }

    /// Its folder below that of the peers, and its class.
    fn program(self) -> (&'static str, &'static str) {
        match self {
            Self::KafkaStreams => ("kafka-streams", "KafkaStreamsPeer"),
            Self::FlinkSql => ("flink", "FlinkPeer"),
        }
    }
}

/// What a run of a peer needs to know.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// The topic of trips.
    pub topic: &'a str,
    /// How many there are.
    pub rows: u64,
    /// What they are grouped by.
    pub groups: Groups,
    /// The topic for its results: it is there.
    pub output: &'a str,
    /// The consumer group, and what other names of it begin with.
    pub application: &'a str,
}

/// The built programs.
pub struct Peers {
    folder: PathBuf,
}

impl Peers {
    /// Builds the programs of these peers, in the folders where they are. Maven loads their packages the first time.
    ///
    /// # Errors
    /// When there is no `mvn`, or the build fails: with the end of what it said.
    pub fn build(folder: Option<PathBuf>, peers: &[Peer]) -> anyhow::Result<Self> {
        let folder =
            folder.unwrap_or_else(|| [env!("CARGO_MANIFEST_DIR"), "peers"].iter().collect());
        for peer in peers {
            let own = folder.join(peer.program().0);
            ensure!(
                own.join("pom.xml").exists(),
                "there is no pom.xml in {}: pass --peers",
                own.display()
            );
            eprintln!("building {}", own.display());
            let built = Command::new("mvn")
                .args(["-q", "-B", "package"])
                .current_dir(&own)
                .output()
                .context("mvn can't be started: the peers need Maven and a JDK of version 17")?;
            ensure!(
                built.status.success(),
                "mvn package failed in {}:\n{}{}",
                own.display(),
                String::from_utf8_lossy(&built.stdout),
                String::from_utf8_lossy(&built.stderr)
            );
        }
        Ok(Self { folder })
    }

    /// Runs a peer from the start to the end of the topic. The Java machine's start is part of what it costs.
    pub fn run(&self, peer: Peer, world: &World, task: &Task<'_>) -> anyhow::Result<Cost> {
        let (folder, class) = peer.program();
        let target = self.folder.join(folder).join("target");
        let own = world.folder.path().join(task.application);
        std::fs::create_dir_all(&own)?;
        let (_, trip) = world.latest(task.topic)?;
        let trip_schema = own.join("trip.avsc");
        std::fs::write(&trip_schema, &*trip)?;
        let result = task.groups.result_schema();
        let result_schema = own.join("result.avsc");
        std::fs::write(&result_schema, &result)?;
        // Flink registers what it writes itself.
        let result_id = match peer {
            Peer::KafkaStreams => world
                .registry
                .register(&schemas::value_subject(task.output), &result)?,
            Peer::FlinkSql => 0,
        };
        let state = own.join("state");
        let mut command = Command::new("java");
        command.arg("-Xmx3g");
        // Flink's serialisers look into these.
        for package in ["java.util", "java.lang", "java.nio", "java.time"] {
            command.arg(format!("--add-opens=java.base/{package}=ALL-UNNAMED"));
        }
        let (brokers, registry) = world.addresses();
        let options = [
            ("org.slf4j.simpleLogger.defaultLogLevel", "error"),
            ("brokers", brokers),
            ("registry", registry),
            ("topic", task.topic),
            ("rows", &task.rows.to_string()),
            ("group", task.groups.column()),
            (
                "window.seconds",
                &(task.groups.window_hours() * 3600).to_string(),
            ),
            ("output", task.output),
            ("application", task.application),
            ("folder", &state.to_string_lossy()),
            ("trip.schema", &trip_schema.to_string_lossy()),
            ("result.schema", &result_schema.to_string_lossy()),
            ("result.id", &result_id.to_string()),
        ];
        for (name, value) in options {
            command.arg(format!("-D{name}={value}"));
        }
        let classes = format!(
            "{}:{}",
            target.join(format!("{folder}-peer.jar")).display(),
            target.join("libs/*").display()
        );
        let (cost, _) = cost::of(command.args(["-cp", &classes, class]))
            .with_context(|| format!("{} failed", peer.name()))?;
        std::fs::remove_dir_all(&own)?;
        // Kafka Streams' own topics.
        if peer == Peer::KafkaStreams {
            let own = |what: &str| format!("{}-{what}", task.application);
            world.forget(&[&own("sums-changelog")]);
            if task.groups == Groups::Few {
                world.forget(&[&own("vendors-repartition")]);
            }
        }
        Ok(cost)
    }
}
