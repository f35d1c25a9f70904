//! What is refused, and what it says.

use std::sync::Arc;

use processor::cutover::{Cutover, CutoverError};
use processor::reset::Reset;
use runtime::log::Log;

use super::followed;
use super::world::{NEW, OLD, application, behind, cutover, finish, new, old, run_old, until};
use crate::fixture::{Fixture, QUERY, job_sql, trips};

pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

fn start(options: processor::Options) -> String {
    match processor::run(&options) {
        Ok(()) => String::new(),
        Err(error) => chain(&error),
    }
}

fn begun() -> (Fixture, String) {
    let fixture = Fixture::new(2);
    let sql = job_sql("1 minute", "");
    fixture.write(&trips(1, 250, 30_000));
    run_old(&fixture, &sql, &[QUERY]);
    (fixture, sql)
}

#[test]
fn who_was_handed_over_starts_no_more_and_the_command_can_be_run_again() {
    let (fixture, sql, _) = followed(1, 2);
    let first = cutover(&fixture, Arc::clone(&fixture.log) as _, &sql).unwrap();
    let error = start(old(&fixture, &sql));
    assert!(error.contains("was handed over to new"), "{error}");
    let script = engine::sql::parse(&sql).unwrap();
    let plan = Cutover::plan(fixture.log.as_ref(), OLD, NEW, &script).unwrap();
    assert!(plan.done);
    assert_eq!(plan.run(&old(&fixture, &sql)).unwrap(), first);
    // To nobody else.
    let mut other = application(&fixture, Arc::clone(&fixture.log) as _, "other", &sql);
    other.job.takes_over = Some(OLD.into());
    let error = start(other);
    assert!(error.contains("was handed over to new"), "{error}");
    // Even a member that had read the record before.
    fixture
        .log
        .delete_topic(&processor::topics::job(OLD))
        .unwrap();
    let error = start(old(&fixture, &sql));
    assert!(error.contains("marked as handed over"), "{error}");
}

#[test]
fn what_takes_over_must_have_begun_so() {
    let (fixture, sql) = begun();
    let log = fixture.log.as_ref();
    let script = engine::sql::parse(&sql).unwrap();
    let plan = || chain(&Cutover::plan(log, OLD, NEW, &script).unwrap_err());
    assert!(plan().contains("start it first"), "{}", plan());
    // It gives everything itself.
    let mut alone = new(&fixture, &sql);
    alone.job.takes_over = None;
    until(alone, || {
        processor::record::read(log, NEW).unwrap().is_some()
    });
    assert!(plan().contains("gives everything itself"), "{}", plan());
    let error = start(new(&fixture, &sql));
    assert!(error.contains("began without anything"), "{error}");

    let mut of_nobody = application(&fixture, Arc::clone(&fixture.log) as _, "x", &sql);
    of_nobody.job.takes_over = Some("nobody".into());
    let error = start(of_nobody);
    assert!(error.contains("no application nobody"), "{error}");
    let mut itself = application(&fixture, Arc::clone(&fixture.log) as _, "x", &sql);
    itself.job.takes_over = Some("x".into());
    assert!(start(itself).contains("itself"));
    let renamed = sql
        .replace("SINK per_minute", "SINK other")
        .replace("INTO per_minute", "INTO other");
    let mut nothing = application(&fixture, Arc::clone(&fixture.log) as _, "x", &renamed);
    nothing.job.takes_over = Some(OLD.into());
    let error = start(nothing);
    assert!(error.contains("nothing to take over"), "{error}");
    let rows = "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at');
         CREATE SINK per_minute WITH (topic = 'rows', key = 'id');
         INSERT INTO per_minute SELECT id, vendor_id FROM trips;";
    let mut misfit = application(&fixture, Arc::clone(&fixture.log) as _, "x", rows);
    misfit.job.takes_over = Some(OLD.into());
    let error = start(misfit);
    assert!(
        error.contains("that one gives results of windows, this one results of rows"),
        "{error}"
    );
}

#[test]
fn the_end_of_the_input_is_not_waited_for_while_another_one_gives_the_results() {
    let (fixture, sql) = begun();
    let error = finish(&fixture, new(&fixture, &sql)).unwrap_err();
    assert!(chain(&error).contains("processor cutover"), "{error:?}");
}

#[test]
fn a_successor_that_is_behind_is_known_to_be() {
    let (fixture, sql) = begun();
    let mut options = new(&fixture, &sql);
    options.worker.max_poll_records = 5;
    options.worker.max_range_rows = 5;
    let read =
        |at_least: i64| behind(&fixture).is_some_and(|behind| behind.percent >= at_least as f64);
    until(options, || read(1));
    let script = engine::sql::parse(&sql).unwrap();
    let plan = Cutover::plan(fixture.log.as_ref(), OLD, NEW, &script).unwrap();
    assert!(!plan.behind.caught_up(), "{plan:?}");
    assert!((1.0..100.0).contains(&plan.behind.percent), "{plan:?}");
}

#[test]
fn a_reset_takes_nothing_from_a_successor_and_says_what_it_costs() {
    let (fixture, sql, rows) = followed(2, 2);
    cutover(&fixture, Arc::clone(&fixture.log) as _, &sql).unwrap();
    let plan = |id: &str| Reset::plan(fixture.log.as_ref(), id, [(QUERY, "per_minute")]);
    let error = plan(OLD).unwrap_err().to_string();
    assert!(error.contains("new has not taken over yet"), "{error}");
    fixture.write(&rows[250..]);
    finish(&fixture, new(&fixture, &sql)).unwrap();
    let reset = plan(OLD).unwrap();
    assert_eq!(reset.handed_over_to.as_deref(), Some(NEW));
    let error = reset
        .run(fixture.log.as_ref(), true)
        .unwrap_err()
        .to_string();
    assert!(error.contains("goes on in topic per_minute"), "{error}");
    // The results of both stand in the topic.
    let reset = plan(NEW).unwrap();
    assert_eq!(reset.took_over.as_deref(), Some(OLD));
    let error = reset
        .run(fixture.log.as_ref(), true)
        .unwrap_err()
        .to_string();
    assert!(error.contains("results of application old"), "{error}");
    assert!(fixture.log.topic("per_minute").unwrap().is_some());
    assert!(matches!(
        cutover(&fixture, Arc::clone(&fixture.log) as _, &sql),
        Ok(_) | Err(CutoverError::Members(_))
    ));
}
