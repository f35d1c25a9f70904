#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use super::known::{DEFAULTS, known};
use super::*;

const NO_ENVIRONMENT: [(&str, &str); 0] = [];

fn load(
    file: Option<&Path>,
    environment: &[(&str, &str)],
    set: &[&str],
    flags: &str,
) -> Result<Config, ConfigErrors> {
    let args = ConfigArgs {
        config: file.map(PathBuf::from),
        set: set.iter().map(ToString::to_string).collect(),
        print_config: false,
    };
    let environment = environment
        .iter()
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Config::load_with(&args, &flags.parse().unwrap(), environment)
}

fn written(text: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("headway.toml");
    fs::write(&path, text).unwrap();
    (dir, path)
}

/// The problems, with the file's folder cut off.
fn problems(result: Result<Config, ConfigErrors>) -> Vec<String> {
    let cut = |problem: Problem| {
        let text = problem.to_string();
        text.split_once("headway.toml")
            .map_or(text.clone(), |(_, rest)| format!("headway.toml{rest}"))
    };
    result.unwrap_err().0.into_iter().map(cut).collect()
}

#[test]
fn every_key_of_the_defaults_is_documented_typed_and_found_by_its_names() {
    let table: Table = DEFAULTS.parse().unwrap();
    let parsed: BTreeSet<String> = table
        .iter()
        .flat_map(|(section, keys)| {
            keys.as_table()
                .unwrap()
                .keys()
                .map(move |key| format!("{section}.{key}"))
        })
        .collect();
    assert_eq!(
        known().keys().map(Key::dotted).collect::<BTreeSet<_>>(),
        parsed
    );
    for key in known().keys() {
        assert!(
            key.doc.ends_with('.'),
            "{} has no comment that is a sentence: {:?}",
            key.dotted(),
            key.doc
        );
    }
    let variables: BTreeSet<_> = known().keys().map(Key::variable).collect();
    assert_eq!(
        variables.len(),
        parsed.len(),
        "two keys share an environment variable"
    );
    // The structs agree with the file, and the mark of secrecy with the type.
    Config::defaults().unwrap();
}

#[test]
fn the_configuration_page_is_up_to_date() {
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    let found = fs::read_to_string(page).unwrap_or_default();
    assert!(
        found == configuration_page(),
        "docs/configuration.md is stale: cargo run --release -p runtime --example config_docs"
    );
}

proptest! {
    #[test]
    fn the_highest_layer_that_names_a_key_wins(present in proptest::array::uniform4(any::<bool>())) {
        let (_dir, path) = written(if present[0] { "[log]\nbrokers = \"layer-0\"\n" } else { "" });
        let variable = [("HEADWAY_LOG_BROKERS", "layer-1")];
        let config = load(
            Some(&path),
            if present[1] { &variable } else { &NO_ENVIRONMENT },
            if present[2] { &["log.brokers=layer-2"] } else { &[] },
            if present[3] { "log.brokers = \"layer-3\"" } else { "" },
        ).unwrap();
        let expected = (0..4).rev().find(|layer| present[*layer]).map(|layer| format!("layer-{layer}"));
        prop_assert_eq!(config.log.brokers, expected.unwrap_or_else(|| "127.0.0.1:9092".into()));
    }
}

#[test]
fn every_problem_of_every_layer_is_reported_at_once_with_its_origin() {
    let (_dir, path) = written(
        "colour = 1\n\n[log]\nbroker = \"a:1\"\nkind = \"kafak\"\nsession_timeout_ms = \"soon\"\n\n[regystry]\nurl = \"x\"\n\n[processor]\nworkers = 70000\nshards = -1\n",
    );
    let found = problems(load(
        Some(&path),
        &[
            ("HEADWAY_LOG_BROKER", "a:1"),
            ("HEADWAY_PRODUCER_RATE", "fast"),
            ("HEADWAY_NONSENSE", "1"),
            ("PATH", "/"),
        ],
        &[
            "log.linger_ms=much",
            "nonsense",
            "sink_s3.topic=trips",
            "topics=trips",
        ],
        "[producer]\nrows = 1",
    ));
    let expected = [
        "headway.toml:1: there is no section [colour]",
        "headway.toml:4: there is no setting log.broker (did you mean log.brokers?)",
        "headway.toml:8: there is no section [regystry] (did you mean [registry]?)",
        "environment HEADWAY_LOG_BROKER: no setting has this name (did you mean HEADWAY_LOG_BROKERS?)",
        "environment HEADWAY_NONSENSE: no setting has this name",
        "environment HEADWAY_PRODUCER_RATE: producer.rate: \"fast\" is not a number",
        "--set log.linger_ms: log.linger_ms: \"much\" is not a whole number",
        "--set nonsense: must have the form --set section.key=value",
        "--set sink_s3.topic: there is no setting sink_s3.topic (did you mean sink_s3.topics?)",
        "--set topics: must have the form --set section.key=value",
        "flag for producer.rows: there is no setting producer.rows",
    ];
    for problem in expected {
        assert!(
            found.iter().any(|found| found == problem),
            "{problem}\nis not among\n{}",
            found.join("\n")
        );
    }
    // What the types say is in their words.
    for (start, part) in [
        (
            "headway.toml:5: log.kind: ",
            "`kafak`, expected `kafka` or `embedded`",
        ),
        (
            "headway.toml:6: log.session_timeout_ms: ",
            "string \"soon\", expected a whole number, 0 or more",
        ),
        (
            "headway.toml:12: processor.workers: ",
            "`70000`, expected a whole number from 0 to 65535",
        ),
        (
            "headway.toml:13: processor.shards: ",
            "`-1`, expected a whole number from 0 to 65535",
        ),
    ] {
        assert!(
            found
                .iter()
                .any(|found| found.starts_with(start) && found.contains(part)),
            "{start} {part}\n{found:#?}"
        );
    }
    assert_eq!(found.len(), expected.len() + 4, "{found:#?}");
}

#[test]
fn a_key_outside_any_section_is_told_where_it_belongs() {
    let (_dir, path) = written("brokers = \"a:1\"\n");
    assert_eq!(
        problems(load(Some(&path), &[], &[], "")),
        ["headway.toml:1: there is no section [brokers] (did you mean brokers under [log]?)"]
    );
}

#[test]
fn broken_toml_is_reported_with_its_line() {
    let (_dir, path) = written("[log]\nbrokers = \"a\nkind = \"kafka\"\n");
    let found = problems(load(Some(&path), &[], &["log.nothing=1"], ""));
    assert!(
        found[0].starts_with("headway.toml:2: not valid TOML"),
        "{found:#?}"
    );
    assert!(
        found.iter().any(|problem| problem.contains("log.nothing")),
        "{found:#?}"
    );
}

#[test]
fn a_missing_file_is_named() {
    let found = problems(load(Some(Path::new("/nowhere/headway.toml")), &[], &[], ""));
    assert!(
        found[0].contains("headway.toml: the file can't be read"),
        "{found:#?}"
    );
}

#[test]
fn variables_of_tests_and_scripts_are_let_alone() {
    let foreign = [
        ("HEADWAY_TRIPS_CSV", "a:b"),
        ("HEADWAY_TEST_KAFKA", "x"),
        ("HEADWAY_LOCAL_ROOT", "y"),
        ("HEADWAY_CI_CACHE", "z"),
    ];
    load(None, &foreign, &[], "").unwrap();
}

#[test]
fn no_secret_is_ever_shown() {
    let dir = tempfile::tempdir().unwrap();
    let secret_file = dir.path().join("salt");
    fs::write(&secret_file, "hush-file\n").unwrap();
    let path = dir.path().join("headway.toml");
    fs::write(
        &path,
        format!(
            "[registry]\nusername = \"me\"\npassword = \"hush-registry\"\n[processor]\nmask_salt_file = {:?}\n[log.client]\nsecurity.protocol = \"SASL_SSL\"\nsasl.password = \"hush-sasl\"\n\"ssl.key.pem\" = \"hush-pem\"\nsocket.timeout.ms = 5000\n",
            secret_file.display().to_string()
        ),
    )
    .unwrap();
    let config = load(
        Some(&path),
        &[("HEADWAY_SINK_S3_SECRET_ACCESS_KEY", "hush-s3")],
        &[],
        "",
    )
    .unwrap();
    assert_eq!(config.registry.password.expose(), "hush-registry");
    assert_eq!(config.processor.mask_salt.expose(), "hush-file");
    assert_eq!(config.sink_s3.secret_access_key.expose(), "hush-s3");
    assert_eq!(config.log.client.0["sasl.password"], "hush-sasl");
    assert_eq!(config.log.client.0["socket.timeout.ms"], "5000");
    let printed = config.to_toml();
    for shown in [
        printed.clone(),
        format!("{config:?}"),
        format!("{config:#?}"),
    ] {
        assert!(!shown.contains("hush"), "{shown}");
        assert!(
            shown.contains("***") && shown.contains("SASL_SSL"),
            "{shown}"
        );
    }
    assert!(
        printed.contains("password = \"***\"  # ") && printed.contains("headway.toml:3\n"),
        "{printed}"
    );
    assert!(printed.contains("salt (named by "), "{printed}");
    assert!(
        printed.contains(
            "secret_access_key = \"***\"  # environment HEADWAY_SINK_S3_SECRET_ACCESS_KEY"
        ),
        "{printed}"
    );
    assert!(
        printed.contains("session_token = \"\"  # default"),
        "{printed}"
    );
}

#[test]
fn secrets_are_refused_where_they_could_be_seen() {
    let found = problems(load(
        None,
        &[],
        &["registry.password=hush", "log.client.sasl.password=hush"],
        "",
    ));
    assert_eq!(found.len(), 2, "{found:#?}");
    assert!(
        found
            .iter()
            .all(|problem| problem.contains("is secret") && !problem.contains("hush")),
        "{found:#?}"
    );
    let found = problems(load(
        None,
        &[("HEADWAY_REGISTRY_URL", "http://me:hush@host:1/")],
        &[],
        "",
    ));
    assert!(
        found[0].contains("use the keys username and password") && !found[0].contains("hush"),
        "{found:#?}"
    );
    let (_dir, path) = written("[registry]\npassword = 5\n");
    assert_eq!(
        problems(load(Some(&path), &[], &[], "")),
        ["headway.toml:2: registry.password: must be a string"]
    );
    let found = problems(load(None, &[("HEADWAY_REGISTRY_PASSWORD", "***")], &[], ""));
    assert!(found[0].contains("is the mask"), "{found:#?}");
}

#[test]
fn a_secret_given_twice_in_one_layer_is_an_error_and_a_higher_layer_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "from-file\r\n").unwrap();
    let file = file.display().to_string();
    let both = [
        ("HEADWAY_REGISTRY_PASSWORD", "a"),
        ("HEADWAY_REGISTRY_PASSWORD_FILE", file.as_str()),
    ];
    let found = problems(load(None, &both, &[], ""));
    assert!(
        found.len() == 1 && found[0].contains("given twice"),
        "{found:#?}"
    );
    let set = format!("registry.password_file={file}");
    let config = load(None, &both[..1], &[&set], "").unwrap();
    assert_eq!(config.registry.password.expose(), "from-file");
}

#[test]
fn client_settings_come_from_every_layer_under_librdkafkas_names() {
    let (_dir, path) =
        written("[log.client]\n\"security.protocol\" = \"SSL\"\nssl.ca.location = \"/ca\"\n");
    let environment = [("HEADWAY_LOG_CLIENT_SASL_MECHANISM", "PLAIN")];
    let config = load(
        Some(&path),
        &environment,
        &["log.client.security.protocol=SASL_SSL"],
        "",
    )
    .unwrap();
    let expected = [
        ("sasl.mechanism", "PLAIN"),
        ("security.protocol", "SASL_SSL"),
        ("ssl.ca.location", "/ca"),
    ];
    assert_eq!(
        config
            .log
            .client
            .0
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect::<Vec<_>>(),
        expected
    );
}

#[test]
fn what_is_printed_can_be_loaded_and_prints_the_same_values() {
    let config = load(
        None,
        &[("HEADWAY_SINK_S3_TOPICS", "a, b")],
        &["producer.rate=2.5", "log.client.a.b=c"],
        "",
    )
    .unwrap();
    assert_eq!(config.sink_s3.topics, ["a", "b"]);
    let (_dir, path) = written(&config.to_toml());
    let again = load(Some(&path), &[], &[], "").unwrap();
    let values = |config: &Config| -> Table { config.to_toml().parse().unwrap() };
    assert_eq!(values(&again), values(&config));
}

#[test]
fn limits_between_keys_are_checked_with_the_others() {
    let found = problems(load(
        None,
        &[
            ("HEADWAY_LOG_SESSION_TIMEOUT_MS", "6000"),
            ("HEADWAY_PROCESSOR_COMMIT_INTERVAL_MS", "9000"),
        ],
        &["processor.shards=0", "log.kind=none"],
        "",
    ));
    assert_eq!(found.len(), 4, "{found:#?}");
    assert!(found[0].starts_with("--set log.kind"), "{found:#?}");
    assert!(found[1].starts_with(
        "environment HEADWAY_LOG_SESSION_TIMEOUT_MS: log.transaction_timeout_ms (8000)"
    ));
    assert!(
        found[2].starts_with("environment HEADWAY_PROCESSOR_COMMIT_INTERVAL_MS: "),
        "{found:#?}"
    );
    assert_eq!(
        found[3],
        "--set processor.shards: processor.shards must be at least 1"
    );
}
