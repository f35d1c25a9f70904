//! The commands about an application: each is told the job and the application in the same ways.

use std::process::Command;

use crate::fixture::{Fixture, job_sql, trips};

/// A log on which the application `test` has begun, for the binary to open.
fn begun() -> Fixture {
    let fixture = Fixture::new(1);
    let sql = job_sql("1 minute", "");
    fixture.write(&trips(3, 100, 1_000));
    fixture.begin(&sql);
    fixture.log.close();
    std::fs::write(fixture.dir().join("job.sql"), sql).unwrap();
    fixture
}

/// How it ends, and what it says.
fn told(
    fixture: &Fixture,
    arguments: &[&str],
    settings: &[(&str, &str)],
) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_processor"))
        .args(arguments)
        .current_dir(fixture.dir())
        .env_clear()
        .envs([("HEADWAY_LOG_KIND", "embedded"), ("HEADWAY_LOG_DIR", ".")])
        .envs(settings.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn job_and_application_are_named_before_the_command_or_behind_it_or_by_the_configuration() {
    let fixture = begun();
    for (command, takes_file) in [
        (&["offsets", "show"][..], true),
        (&["offsets", "show", "--json"][..], true),
        (&["offsets", "accept-gap", "--dry-run"][..], true),
        (&["reset", "--dry-run"][..], true),
        (&["upgrade"][..], false),
    ] {
        let named = ["--job", "job.sql", "--application-id", "test"];
        let configured = [
            ("HEADWAY_PROCESSOR_JOB", "job.sql"),
            ("HEADWAY_PROCESSOR_APPLICATION_ID", "test"),
        ];
        let before = told(&fixture, &[&named, command].concat(), &[]);
        assert_eq!(before.0, Some(0), "{command:?}: {before:?}");
        let behind = told(&fixture, &[command, &named].concat(), &[]);
        assert_eq!(behind, before, "{command:?}");
        assert_eq!(told(&fixture, command, &configured), before, "{command:?}");
        if takes_file {
            let file = [command, &["job.sql"], &named[2..]].concat();
            assert_eq!(told(&fixture, &file, &[]), before, "{command:?}");
        }
    }
    // It is of this application that they tell.
    let another = ["offsets", "show", "job.sql", "--application-id", "another"];
    let (_, shown, _) = told(&fixture, &another, &[]);
    assert!(
        shown.starts_with("application another: nobody runs it"),
        "{shown}"
    );
}

#[test]
fn a_cutover_is_told_of_both_applications_by_its_own_flags_or_by_those_of_a_run() {
    let fixture = begun();
    let own = ["cutover", "job.sql", "--from", "test", "--to", "next"];
    let wanted = told(&fixture, &own, &[]);
    assert_eq!(wanted.0, Some(1), "{wanted:?}");
    assert!(
        wanted.2.contains("next") && wanted.2.contains("start it first"),
        "{wanted:?}"
    );
    let run = ["--application-id", "next", "--takes-over", "test"];
    for arguments in [
        [&run, &["cutover", "job.sql"][..]].concat(),
        [&["cutover", "job.sql"][..], &run].concat(),
        [&["--job", "job.sql", "cutover"][..], &run].concat(),
        [&["cutover", "--job", "job.sql"][..], &run].concat(),
    ] {
        assert_eq!(told(&fixture, &arguments, &[]), wanted, "{arguments:?}");
    }
    let (code, _, said) = told(
        &fixture,
        &["cutover", "--from", "test", "--to", "next"],
        &[],
    );
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("no job is named"), "{said}");
}
