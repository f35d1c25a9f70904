//! `headway setup`, and what the binaries refuse to run on: over the embedded log, and from `real::setup` over Kafka.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use runtime::log::embedded::{EmbeddedLog, EmbeddedOptions};
use runtime::log::{Log, TopicSpec};

use crate::run::{generate, text};

/// A pipeline with topics of its own.
pub struct Pipeline {
    pub name: String,
    pub folder: tempfile::TempDir,
    settings: Vec<(String, String)>,
    log: Box<dyn Fn() -> Arc<dyn Log>>,
}

impl Pipeline {
    pub fn new(
        name: &str,
        settings: &[(&str, &str)],
        log: impl Fn(&Path) -> Arc<dyn Log> + 'static,
    ) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let job = include_str!("../../../processor/jobs/taxi.sql")
            .replace("= 'trips'", &format!("= '{name}-trips'"))
            .replace("= 'trip_statistics'", &format!("= '{name}-statistics'"));
        let file = folder.path().join("job.sql");
        std::fs::write(&file, job).unwrap();
        let own = [
            ("PRODUCER_TOPIC", format!("{name}-trips")),
            ("PRODUCER_MAPPING", "headway".into()),
            ("PROCESSOR_JOB", file.display().to_string()),
            ("PROCESSOR_APPLICATION_ID", name.to_owned()),
            ("PROCESSOR_MASK_SALT", "salt".into()),
            ("SINK_S3_TOPICS", format!("{name}-trips")),
            ("SINK_S3_GROUP", format!("{name}-s3")),
            (
                "SINK_S3_URL",
                folder.path().join("lake").display().to_string(),
            ),
            ("SINK_OPENSEARCH_URL", "sqlite:documents.sqlite".into()),
            ("SINK_OPENSEARCH_TOPICS", format!("{name}-statistics")),
        ];
        let given = settings
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()));
        let settings = own
            .into_iter()
            .chain(given)
            .map(|(key, value)| (format!("HEADWAY_{key}"), value))
            .collect();
        let dir = folder.path().to_owned();
        Self {
            name: name.into(),
            folder,
            settings,
            log: Box::new(move || log(&dir)),
        }
    }

    pub fn embedded() -> Self {
        let settings = [
            ("LOG_KIND", "embedded"),
            ("LOG_DIR", "log"),
            ("REGISTRY_KIND", "embedded"),
            ("REGISTRY_FILE", "registry.json"),
        ];
        Self::new("set", &settings, |dir| {
            EmbeddedLog::open(&dir.join("log"), EmbeddedOptions::default()).unwrap()
        })
    }

    pub fn with(&self, binary: &str, arguments: &[&str], more: &[(&str, &str)]) -> Output {
        let path = PathBuf::from(env!("CARGO_BIN_EXE_headway")).with_file_name(binary);
        assert!(
            path.exists(),
            "{} is not built: cargo build --release --workspace",
            path.display()
        );
        Command::new(path)
            .args(arguments)
            .current_dir(self.folder.path())
            .envs(self.settings.iter().map(|(key, value)| (key, value)))
            .envs(more.iter().copied())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn run(&self, binary: &str, arguments: &[&str]) -> Output {
        self.with(binary, arguments, &[])
    }

    fn setup(&self, arguments: &[&str]) -> Output {
        self.run("headway", &[&["setup"], arguments].concat())
    }

    fn topic(&self, what: &str) -> String {
        format!("{}{what}", self.name)
    }

    /// Refuses, with exit code 1, and says all of this.
    #[track_caller]
    pub fn refused(&self, output: &Output, said: &[&str]) {
        let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(1), "{shown}");
        for said in said {
            assert!(shown.contains(said), "{said} is not said:\n{shown}");
        }
    }
}

#[track_caller]
fn done(output: &Output) -> String {
    let shown = format!("{}{}", text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{shown}");
    shown
}

/// How many lines of a table say so.
fn lines(output: &str, word: &str) -> usize {
    output.lines().filter(|line| line.contains(word)).count()
}

#[test]
fn the_second_time_everything_is_there_and_a_check_changes_nothing() {
    everything_is_there_the_second_time(&Pipeline::embedded());
}

pub fn everything_is_there_the_second_time(pipeline: &Pipeline) {
    let missing = pipeline.setup(&["--check"]);
    let topics =
        ["-trips", "-trips.dlq", "-statistics", "-statistics.dlq"].map(|what| pipeline.topic(what));
    let own = [
        format!("{}.trip_statistics.partials", pipeline.name),
        format!("{}.trip_statistics.late", pipeline.name),
    ];
    let all: Vec<&str> = topics.iter().chain(&own).map(String::as_str).collect();
    pipeline.refused(&missing, &all);
    pipeline.refused(&missing, &["MISSING", "without --check"]);
    {
        let log = (pipeline.log)();
        for topic in &all {
            assert_eq!(log.topic(topic).unwrap(), None, "a check creates nothing");
        }
    }
    let first = done(&pipeline.setup(&["--partitions", "3", "--shards", "2"]));
    assert!(
        lines(&first, "created") >= all.len() && lines(&first, "MISSING") == 0,
        "{first}"
    );
    for again in [
        pipeline.setup(&["--partitions", "3", "--shards", "2"]),
        pipeline.setup(&["--shards", "2", "--check"]),
    ] {
        let again = done(&again);
        assert_eq!(lines(&again, "created"), 0, "{again}");
    }
    {
        let log = (pipeline.log)();
        let found = |name: &str| log.topic(name).unwrap().unwrap();
        for (name, partitions) in [
            (&topics[0], 3),
            (&topics[1], 1),
            (&topics[2], 3),
            (&own[0], 2),
            (&own[1], 1),
        ] {
            assert_eq!(found(name).partitions, partitions, "{name}");
        }
        let state = found(&own[0]).config;
        assert_eq!(state.get("retention.ms").map(String::as_str), Some("-1"));
        assert_eq!(
            found("headway.positions")
                .config
                .get("cleanup.policy")
                .map(String::as_str),
            Some("compact")
        );
    }
    // Others than are there.
    pipeline.refused(
        &pipeline.setup(&["--partitions", "8", "--shards", "2"]),
        &["it has 3 partitions, and 8 are asked for"],
    );
    pipeline.refused(
        &pipeline.setup(&["--shards", "5"]),
        &["it has 2 partitions, and 5 are asked for"],
    );
    // What was set up is what the binaries want.
    let csv = generate(pipeline.folder.path(), 200, 3);
    done(&pipeline.run("producer", &[csv.to_str().unwrap()]));
    done(&pipeline.with(
        "processor",
        &["--once"],
        &[("HEADWAY_PROCESSOR_SHARDS", "2")],
    ));
    done(&pipeline.run("sink-s3", &["--once"]));
}

#[test]
fn the_topic_of_a_reference_table_is_made_compacted_and_refused_with_a_retention() {
    let pipeline = Pipeline::embedded();
    let job = "CREATE SOURCE trips WITH (topic = 'set-trips', event_time = 'pickup_at');
        CREATE REFERENCE TABLE vendors (vendor_id INT, name TEXT) WITH (topic = 'set-vendors', key = 'vendor_id', format = 'json');
        CREATE SINK out WITH (topic = 'set-statistics', key = 'id');
        INSERT INTO out SELECT id, name FROM trips LEFT JOIN vendors ON vendors.vendor_id = trips.vendor_id;";
    std::fs::write(pipeline.folder.path().join("job.sql"), job).unwrap();
    {
        let log = (pipeline.log)();
        let short = TopicSpec::new("set-vendors", 1).with("retention.ms", "1000");
        log.create_topic(&short).unwrap();
    }
    let said = ["set-vendors", "must be compact, or retention.ms"];
    pipeline.refused(&pipeline.setup(&[]), &said);
    (pipeline.log)().delete_topic("set-vendors").unwrap();
    done(&pipeline.setup(&[]));
    let made = (pipeline.log)().topic("set-vendors").unwrap().unwrap();
    let policy = made.config.get("cleanup.policy").map(String::as_str);
    assert_eq!(policy, Some("compact"));
}

#[test]
fn topics_that_would_lose_data_are_refused_by_whoever_relies_on_them() {
    losing_topics_are_refused(&Pipeline::embedded());
}

pub fn losing_topics_are_refused(pipeline: &Pipeline) {
    let (trips, partials) = (
        pipeline.topic("-trips"),
        format!("{}.trip_statistics.partials", pipeline.name),
    );
    {
        let log = (pipeline.log)();
        let compacted = TopicSpec::new(&trips, 2).with("cleanup.policy", "compact");
        log.create_topic(&compacted).unwrap();
        let forgetting = TopicSpec::new(&partials, 4)
            .with("cleanup.policy", "delete")
            .with("retention.ms", "604800000");
        log.create_topic(&forgetting).unwrap();
    }
    let compacted = ["cleanup.policy is compact", trips.as_str()];
    let forgets = ["retention.ms is 604800000", partials.as_str()];
    let setup = pipeline.setup(&[]);
    pipeline.refused(&setup, &compacted);
    pipeline.refused(&setup, &forgets);
    pipeline.refused(&setup, &["DIFFERS", "kafka-configs.sh --alter"]);

    let csv = generate(pipeline.folder.path(), 50, 3);
    let csv = csv.to_str().unwrap();
    pipeline.refused(&pipeline.run("producer", &[csv]), &compacted);
    pipeline.refused(&pipeline.run("processor", &["--once"]), &compacted);
    pipeline.refused(&pipeline.run("sink-s3", &["--once"]), &compacted);
    {
        let log = (pipeline.log)();
        log.delete_topic(&trips).unwrap();
        log.create_topic(&TopicSpec::new(&trips, 2)).unwrap();
    }
    pipeline.refused(&pipeline.run("processor", &["--once"]), &forgets);
    // More brokers than one are asked for, and there is one.
    for (binary, arguments) in [
        ("headway", &["setup", "--check"][..]),
        ("producer", &[csv]),
        ("processor", &["--once"]),
        ("sink-s3", &["--once"]),
        ("sink-opensearch", &["--once"]),
    ] {
        let output = pipeline.with(binary, arguments, &[("HEADWAY_LOG_REPLICATION", "2")]);
        pipeline.refused(&output, &["log.replication asks for 2"]);
    }
}
