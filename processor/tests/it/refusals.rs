//! What a processor refuses to do, and what it says then.

use std::sync::Arc;

use runtime::log::{ConsumerOptions, Log, OffsetCommit, TopicPartition, TopicSpec};

use crate::fixture::{APPLICATION, Fixture, job_sql, trips};

fn refusal(fixture: &Fixture, sql: &str) -> String {
    let error = fixture
        .drain(Arc::clone(&fixture.log) as _, sql)
        .unwrap_err();
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        text.push_str(&format!("\n{error}"));
        cause = error.source();
    }
    text
}

#[test]
fn a_job_with_an_unknown_column_is_refused_with_its_place() {
    let fixture = Fixture::new(1);
    let sql = job_sql("1 minute", "").replace("sum(passenger_count)", "sum(passengers)");
    let (line, column) = sql
        .lines()
        .zip(1..)
        .find_map(|(text, line)| Some((line, text.find("passengers)")? + 1)))
        .unwrap();
    let text = refusal(&fixture, &sql);
    assert!(
        text.contains(&format!("{line}:{column}: there is no column passengers")),
        "{text}"
    );
}

#[test]
fn another_number_of_shards_is_refused() {
    let fixture = Fixture::new(1);
    fixture
        .log
        .create_topic(&TopicSpec::new("test.per_minute.partials", 7))
        .unwrap();
    let text = refusal(&fixture, &job_sql("1 minute", ""));
    assert!(
        text.contains("7 partitions") && text.contains("2 shards"),
        "{text}"
    );
}

#[test]
fn more_queries_of_a_source_than_an_offset_can_count_are_refused() {
    let fixture = Fixture::new(1);
    let source = "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at');".to_owned();
    let sql = (0..60).fold(source, |sql, n| {
        format!(
            "{sql} CREATE SINK out{n} WITH (topic = 'out{n}', key = 'window_start');
             INSERT INTO out{n} SELECT window_start, count(*) AS n
             FROM TUMBLE(trips, pickup_at, INTERVAL '1 minute') GROUP BY window_start;"
        )
    });
    let text = refusal(&fixture, &sql);
    assert!(
        text.contains("60 queries read topic trips, and at most 4"),
        "{text}"
    );
    assert!(
        fixture.log.topic("out0").unwrap().is_none(),
        "nothing was created"
    );
}

#[test]
fn a_missing_source_or_schema_is_named() {
    let fixture = Fixture::new(1);
    let text = refusal(
        &fixture,
        &job_sql("1 minute", "").replace("topic = 'trips'", "topic = 'tripz'"),
    );
    assert!(
        text.contains("tripz") && text.contains("producer"),
        "{text}"
    );
}

#[test]
fn results_that_do_not_fit_the_registered_schema_are_refused() {
    let fixture = Fixture::new(1);
    let schema = r#"{"type": "record", "name": "R", "fields": [{"name": "window_start", "type": "string"}]}"#;
    fixture
        .registry
        .register("per_minute-value", schema)
        .unwrap();
    let text = refusal(&fixture, &job_sql("1 minute", ""));
    assert!(
        text.contains("per_minute") && text.contains("does not fit"),
        "{text}"
    );
}

#[test]
fn an_offset_that_was_reset_by_hand_is_refused() {
    let fixture = Fixture::new(1);
    fixture.write(&trips(1, 50, 1_000));
    let sql = job_sql("1 minute", "");
    fixture.begin(&sql);
    let mut consumer = fixture
        .log
        .consumer(&ConsumerOptions::new(APPLICATION))
        .unwrap();
    let offset = OffsetCommit {
        partition: TopicPartition::new("trips", 0),
        offset: 3,
        metadata: String::new(),
    };
    consumer.commit(&[offset]).unwrap();
    let text = refusal(&fixture, &sql);
    assert!(
        text.contains("trips-0") && text.contains("metadata") && text.contains("by hand"),
        "{text}"
    );
}

#[test]
fn a_changed_job_over_old_partials_is_refused() {
    let fixture = Fixture::new(1);
    fixture.write(&trips(1, 50, 1_000));
    fixture.begin(&job_sql("1 minute", ""));
    let changed = job_sql("1 minute", "").replace("passenger_count > 0", "passenger_count > 1");
    let text = refusal(&fixture, &changed);
    for named in [
        "query per_minute: where: was passenger_count > 0, is passenger_count > 1",
        "new application id",
        "processor reset",
    ] {
        assert!(text.contains(named), "{named}: {text}");
    }
    assert!(!text.contains("group by"), "{text}");
}
