//! What is said about a wrong job, and where.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use engine::sql::{JobError, parse};

use super::support::*;

const SOURCE: &str = "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at');\n";
const SINK: &str = "CREATE SINK out WITH (topic = 'out', key = 'window_start, vendor_id');\n";

fn errors_of(text: &str) -> Vec<JobError> {
    match planned(text, &trips_schema()) {
        Err(errors) => {
            assert!(!errors.is_empty());
            errors
        }
        Ok(_) => panic!("accepted:\n{text}"),
    }
}

/// A query on line 3, behind a good source and sink.
fn query(text: &str) -> Vec<JobError> {
    errors_of(&format!("{SOURCE}{SINK}{text}"))
}

#[track_caller]
fn expect(errors: &[JobError], line: u64, column: u64, what: &str, help: &str) {
    let found = errors.iter().any(|error| {
        error.at.line == line
            && error.at.column == column
            && error.what.contains(what)
            && error.help.as_deref().unwrap_or_default().contains(help)
    });
    assert!(
        found,
        "no {line}:{column} «{what}» with help «{help}» in\n{errors:#?}"
    );
}

const GOOD: &str = "INSERT INTO out SELECT window_start, vendor_id, count(*) AS n \
                    FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour') GROUP BY window_start, vendor_id";

#[test]
fn the_query_that_the_others_vary_is_accepted() {
    planned(&format!("{SOURCE}{SINK}{GOOD};"), &trips_schema()).unwrap();
}

#[test]
fn wrong_statements_are_refused_where_they_stand() {
    expect(&errors_of(""), 1, 1, "no statement", "CREATE SOURCE");
    expect(&errors_of("-- nothing\n ; ;"), 1, 1, "no statement", "");
    expect(
        &errors_of("\n  SELECT 1"),
        2,
        3,
        "does not begin a statement",
        "INSERT INTO",
    );
    expect(
        &errors_of("CREATE TABLE t (a int)"),
        1,
        8,
        "CREATE TABLE is not supported",
        "CREATE SOURCE",
    );
    expect(
        &errors_of("CREATE SOURCE trips WITH (topic 'x')"),
        1,
        33,
        "Expected: =",
        "",
    );
    expect(
        &errors_of("CREATE SOURCE trips WITH (topic = 'x'"),
        1,
        38,
        "end of the statement",
        "",
    );
    expect(
        &errors_of("CREATE SOURCE trips WITH (topic = 'x"),
        1,
        35,
        "Unterminated",
        "close",
    );
    expect(
        &query(&GOOD.replace("SELECT", "SELCT")),
        3,
        17,
        "Expected",
        "",
    );
}

#[test]
fn wrong_options_are_refused_with_what_to_write() {
    let text = "CREATE SOURCE trips WITH (topik = 'trips', event_time = 5, out_of_orderness = 'soon', idle_timeout = INTERVAL '1 month');\n\
                CREATE SINK out WITH (topic = '', emit = 'upserts', grace = INTERVAL '1' HOUR);";
    let errors = errors_of(text);
    expect(&errors, 1, 27, "no option topik", "did you mean topic?");
    expect(&errors, 1, 1, "topic is missing", "topic = 'trips'");
    expect(
        &errors,
        1,
        57,
        "event_time must be a text",
        "event_time = 'pickup_at'",
    );
    expect(
        &errors,
        1,
        79,
        "'soon' is not a length of time",
        "INTERVAL '5 minutes'",
    );
    expect(&errors, 1, 102, "no fixed length", "");
    expect(&errors, 2, 31, "topic must be a text", "");
    expect(
        &errors,
        2,
        42,
        "emit = 'upserts' is not supported",
        "emit = 'final'",
    );
    expect(
        &errors,
        2,
        1,
        "key is missing",
        "key = 'window_start, vendor_id'",
    );
    assert_eq!(errors.len(), 8, "{errors:#?}");
}

#[test]
fn wrong_options_of_a_source_are_refused() {
    let source = |columns: &str, options: &str| {
        let text = format!(
            "CREATE SOURCE trips {columns} WITH (topic = 'trips', event_time = 'pickup_at'{options});\n{SINK}{GOOD};"
        );
        errors_of(&text)
    };
    let at =
        "CREATE SOURCE trips  WITH (topic = 'trips', event_time = 'pickup_at', ".len() as u64 + 1;
    for (option, what, help) in [
        ("max_ahead = 5", "max_ahead: 5 is not a length", "INTERVAL"),
        ("max_ahead = '0 hours'", "must not be 0", "'none'"),
        ("max_drift = 'never'", "'never' is not a length", ""),
        (
            "idle_advance = 'maybe'",
            "must be true or false",
            "idle_advance = true",
        ),
        (
            "format = 'xml'",
            "format = 'xml' is not supported",
            "'json'",
        ),
    ] {
        let column = at + option.find("= ").unwrap() as u64 + 2;
        expect(&source("", &format!(", {option}")), 1, column, what, help);
    }
    expect(
        &source("", ", format = 'json'"),
        1,
        1,
        "columns must be declared",
        "id BIGINT",
    );
    expect(
        &source("(vendor_id INT, pickup_at TIMESTAMP)", ""),
        1,
        21,
        "come from the schema registry",
        "format = 'json'",
    );
    let json = ", format = 'json'";
    for (columns, column, what) in [
        ("()", 21, "has no columns"),
        ("(a INT, A BIGINT)", 29, "declared twice"),
        ("(a NUMERIC(3, 2))", 22, "is not supported"),
        ("(a INT PRIMARY KEY)", 22, "cannot have PRIMARY KEY"),
        ("(a INT, UNIQUE (a))", 21, "no constraint"),
    ] {
        expect(&source(columns, json), 1, column, what, "");
    }
    let twice = format!(
        "{SOURCE}CREATE SOURCE others WITH (topic = 'trips', event_time = 'pickup_at');\n{SINK}{GOOD};"
    );
    expect(
        &errors_of(&twice),
        2,
        36,
        "the topic trips is the source trips already",
        "FROM trips",
    );
}

#[test]
fn a_source_takes_its_options_as_texts_lengths_and_flags() {
    let text = format!(
        "CREATE SOURCE trips (vendor_id INT NOT NULL, pickup_at TIMESTAMP, \"Name\" TEXT, x DOUBLE PRECISION, ok BOOLEAN, d DATE) \
         WITH (topic = 'trips', event_time = 'pickup_at', format = 'JSON', max_ahead = 'NONE', \
         max_drift = INTERVAL '2 hours', idle_advance = FALSE);\n{SINK}{GOOD};"
    );
    let script = parse(&text).unwrap();
    let source = &script.sources["trips"];
    assert_eq!(source.format, engine::sql::Format::Json);
    assert_eq!(source.max_ahead, None);
    assert_eq!(source.max_drift, Some(std::time::Duration::from_secs(7200)));
    assert!(!source.idle_advance);
    let columns = source.columns.as_ref().unwrap();
    let names: Vec<_> = columns
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    assert_eq!(names, ["vendor_id", "pickup_at", "Name", "x", "ok", "d"]);
    assert!(!columns.field(0).is_nullable() && columns.field(1).is_nullable());
    let script = parse(&format!("{SOURCE}{SINK}{GOOD};")).unwrap();
    let source = &script.sources["trips"];
    assert_eq!(source.max_ahead, Some(std::time::Duration::from_secs(3600)));
    assert_eq!((source.max_drift, source.idle_advance), (None, true));
}

#[test]
fn names_that_are_missing_double_or_unused_are_reported() {
    expect(
        &errors_of(&format!("{SOURCE}{SOURCE}{SINK}{GOOD}")),
        2,
        15,
        "trips is used twice",
        "",
    );
    expect(
        &errors_of(&format!("{SOURCE}{SINK}{GOOD};\n{GOOD}")),
        4,
        13,
        "a second INSERT INTO out",
        "",
    );
    expect(
        &query(&GOOD.replace("INTO out", "INTO otu")),
        3,
        13,
        "no sink otu",
        "did you mean out?",
    );
    expect(
        &query(&GOOD.replace("TUMBLE(trips", "TUMBLE(trip")),
        3,
        75,
        "no source trip",
        "did you mean trips?",
    );
    let unused = SOURCE
        .replace("SOURCE trips", "SOURCE other")
        .replace("'trips'", "'others'");
    expect(
        &errors_of(&format!("{SOURCE}{SINK}{GOOD};\n{unused}")),
        4,
        1,
        "nothing reads the source other",
        "",
    );
    expect(
        &errors_of(&format!("{SOURCE}{SINK}")),
        1,
        1,
        "nothing reads the source trips",
        "INSERT INTO",
    );
    expect(
        &errors_of(&format!("{SOURCE}{SINK}")),
        2,
        1,
        "nothing is written to the sink out",
        "INSERT INTO out",
    );
}

#[test]
fn columns_and_functions_that_do_not_exist_come_with_the_nearest_name() {
    let errors = query(
        "INSERT INTO out SELECT window_start, vendor_id,\n  sum(pasenger_count) AS p,\n  avrage(gc_distance) AS a\n\
         FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')\nGROUP BY window_start, vendor_id",
    );
    expect(&errors, 5, 3, "no function avrage", "");
    let errors = query(
        "INSERT INTO out SELECT window_start, vendor_id,\n  sum(pasenger_count) AS p,\n  avg(gc_dist) AS a\n\
         FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')\nWHERE trips.vendor = 1\nGROUP BY window_start, vendor_id",
    );
    expect(
        &errors,
        4,
        7,
        "no column pasenger_count",
        "did you mean passenger_count?",
    );
    expect(&errors, 5, 7, "no column gc_dist", "");
    expect(&errors, 7, 13, "no column vendor", "");
    assert_eq!(errors.len(), 3, "{errors:#?}");
}

#[test]
fn event_time_must_be_a_timestamp_of_the_source() {
    let with = |event_time: &str| {
        let source = SOURCE.replace("'pickup_at'", &format!("'{event_time}'"));
        errors_of(&format!(
            "{source}{SINK}{}",
            GOOD.replace("pickup_at", event_time)
        ))
    };
    expect(
        &with("vendor_id"),
        1,
        57,
        "event time must be a timestamp: vendor_id is an integer",
        "pickup_at, dropoff_at",
    );
    expect(&with("pickup"), 1, 57, "no column pickup", "");
    let errors = query(&GOOD.replace("pickup_at", "dropoff_at"));
    expect(
        &errors,
        3,
        82,
        "dropoff_at is not the event time of trips",
        "TUMBLE(trips, pickup_at",
    );
}

#[test]
fn what_the_engine_cannot_run_is_refused_with_what_to_write() {
    let vary = |from: &str, to: &str| query(&GOOD.replace(from, to));
    let group = "GROUP BY window_start, vendor_id";
    expect(
        &query(&format!("{GOOD} ORDER BY n")),
        3,
        145,
        "ORDER BY without LIMIT",
        "add LIMIT n",
    );
    expect(
        &query(&format!("{GOOD} LIMIT 3")),
        3,
        145,
        "LIMIT without ORDER BY",
        "ORDER BY … LIMIT n",
    );
    expect(
        &query(&format!("{GOOD} UNION ALL SELECT 1")),
        3,
        145,
        "UNION is not supported",
        "one INSERT",
    );
    expect(
        &vary("SELECT window", "SELECT DISTINCT window"),
        3,
        24,
        "SELECT DISTINCT",
        "GROUP BY",
    );
    expect(
        &vary("count(*)", "avg(DISTINCT trip_duration)"),
        3,
        49,
        "avg(DISTINCT …)",
        "",
    );
    expect(
        &vary("count(*)", "count(*) OVER ()"),
        3,
        49,
        "window functions",
        "",
    );
    expect(
        &vary("count(*)", "(SELECT 1)"),
        3,
        50,
        "subqueries are not supported",
        "",
    );
    expect(
        &vary("count(*)", "now()"),
        3,
        49,
        "now gives another result each time",
        "window_start",
    );
    expect(
        &vary("count(*)", "sum(random())"),
        3,
        53,
        "random gives another result each time",
        "",
    );
    expect(
        &vary("count(*)", "current_timestamp"),
        3,
        49,
        "current_timestamp gives another",
        "",
    );
    expect(
        &vary(
            "TUMBLE(trips, pickup_at,",
            "HOP(trips, pickup_at, INTERVAL '2 hours',",
        ),
        3,
        90,
        "the step is longer than the length",
        "takes the step first",
    );
    expect(
        &vary("TUMBLE(trips, pickup_at,", "CUMULATE(trips, pickup_at,"),
        3,
        68,
        "CUMULATE(…) is not supported",
        "TUMBLE, HOP and SESSION",
    );
    expect(
        &query(&format!("{GOOD} ORDER BY n LIMIT 3 OFFSET 1")),
        3,
        156,
        "this form of LIMIT",
        "without OFFSET",
    );
    expect(
        &vary("TUMBLE(trips, pickup_at, INTERVAL '1 hour')", "trips"),
        3,
        24,
        "window_start is a window's",
        "TUMBLE(trips",
    );
    expect(
        &vary(" GROUP", " JOIN trips AS b ON true GROUP"),
        3,
        117,
        "trips is a source, and only reference tables can be joined",
        "CREATE REFERENCE TABLE trips",
    );
    expect(
        &vary("'1 hour'", "'1 month'"),
        3,
        102,
        "no fixed length",
        "INTERVAL '1 hour'",
    );
    expect(&vary("'1 hour'", "'0 seconds'"), 3, 102, "no length", "");
    expect(
        &vary(group, ""),
        3,
        17,
        "no GROUP BY",
        "GROUP BY window_start",
    );
    expect(
        &vary(" AS n", ""),
        3,
        49,
        "the column has no name",
        "count(*) AS name",
    );
    expect(
        &vary("count(*) AS n", "*"),
        3,
        49,
        "not supported",
        "one by one",
    );
    expect(&vary(" AS n", " AS version"), 3, 61, "version is taken", "");
    expect(
        &vary(" AS n", " AS vendor_id"),
        3,
        61,
        "two columns are named vendor_id",
        "",
    );
    expect(
        &vary(
            "count(*)",
            "count(*) FILTER (WHERE extract(hour FROM pickup_at AT TIME ZONE 'Mars/Base') = 1)",
        ),
        3,
        113,
        "not a time zone",
        "America/New_York",
    );
    expect(
        &vary("INTO out", "INTO out (a, b)"),
        3,
        17,
        "list of columns",
        "AS",
    );
}

#[test]
fn a_group_needs_a_window_and_the_key_tells_groups_apart() {
    let sink = |key: &str| SINK.replace("window_start, vendor_id", key);
    let with = |key: &str, query: &str| errors_of(&format!("{SOURCE}{}{query}", sink(key)));
    let no_window = "INSERT INTO out SELECT vendor_id, count(*) AS n\nFROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')\nGROUP BY vendor_id";
    expect(
        &with("vendor_id", no_window),
        5,
        1,
        "GROUP BY has no window",
        "window_start, window_end",
    );
    expect(&with("vendor_id", GOOD), 2, 44, "same key", "window_start");
    expect(&with("window_start", GOOD), 2, 44, "same key", "vendor_id");
    expect(
        &with("window_start, vendor", GOOD),
        2,
        44,
        "vendor is not in the SELECT list",
        "vendor_id",
    );
    expect(
        &with("window_start, vendor_id, n", GOOD),
        2,
        44,
        "n is not a column of GROUP BY",
        "",
    );
    let float = GOOD.replace("vendor_id", "gc_distance");
    expect(
        &with("window_start, gc_distance", &float),
        3,
        114,
        "cannot be a group key",
        "round",
    );
}

#[test]
fn types_that_do_not_fit_are_reported_at_their_column() {
    let errors = query(
        "INSERT INTO out SELECT window_start, vendor_id,\n  sum(store_and_fwd_flag) AS p,\n  trip_duration AS d\n\
         FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')\nGROUP BY window_start, vendor_id",
    );
    assert!(
        errors
            .iter()
            .any(|error| error.at.line == 4 || error.at.line == 5),
        "{errors:#?}"
    );
    let errors = query(&GOOD.replace("count(*)", "mask_coordinate(pickup_latitude, -1)"));
    expect(
        &errors,
        3,
        49,
        "positive number",
        "mask_coordinate(x, 0.01)",
    );
}

#[test]
fn what_could_fail_on_a_result_is_refused_with_the_form_that_cannot() {
    let vary = |item: &str| GOOD.replace("count(*)", item);
    let division = "sum(trip_duration) / sum(passenger_count)";
    expect(
        &query(&vary(division)),
        3,
        49,
        "division of integers by 0",
        "nullif(…, 0)",
    );
    let having = format!("{GOOD} HAVING 100 % count(google_distance) = 1");
    expect(
        &query(&having),
        3,
        152,
        "division of integers by 0",
        "nullif(…, 0)",
    );
    let cast = "CAST(min(store_and_fwd_flag) AS int)";
    expect(&query(&vary(cast)), 3, 54, "does not fit Int32", "TRY_CAST");
    expect(
        &query(&vary("CAST(avg(gc_distance) AS bigint)")),
        3,
        54,
        "does not fit Int64",
        "TRY_CAST",
    );
    for accepted in [
        "sum(trip_duration) / nullif(sum(passenger_count), 0)",
        "sum(trip_duration) / count(*)",
        "sum(trip_duration) / 60",
        "sum(gc_distance) / sum(passenger_count)",
        "TRY_CAST(min(store_and_fwd_flag) AS int)",
        "CAST(count(*) AS double)",
        "CAST(min(trip_duration) AS varchar)",
        "max(trip_duration) + 1",
    ] {
        planned(
            &format!("{SOURCE}{SINK}{}", vary(accepted)),
            &trips_schema(),
        )
        .unwrap();
    }
}

#[test]
fn a_job_without_a_salt_is_not_masked_in_vain() {
    let script = parse(TAXI).unwrap();
    let schemas = [("trips".to_owned(), trips_schema())].into();
    let errors = engine::plan::plan(&script, &schemas, &Default::default()).unwrap_err();
    assert!(errors[0].what.contains("salt"), "{errors:#?}");
}

#[test]
fn an_error_prints_as_line_and_column_with_its_help() {
    let errors = query(&GOOD.replace("INTO out", "INTO otu"));
    assert_eq!(
        errors[0].to_string(),
        "3:13: there is no sink otu\n  help: did you mean out?, or declare it: CREATE SINK otu WITH (…);"
    );
}

/// A job with one sink's options and one query.
fn with(sink: &str, query: &str) -> Vec<JobError> {
    let sink = format!("CREATE SINK out WITH (topic = 'out', {sink});\n");
    errors_of(&format!("{SOURCE}{sink}INSERT INTO out {query}"))
}

#[test]
fn what_windows_ranks_changes_and_scores_ask_of_each_other_is_checked() {
    let select = |items: &str, from: &str, rest: &str| {
        format!(
            "SELECT window_start, vendor_id, {items} FROM {from} GROUP BY window_start, vendor_id{rest}"
        )
    };
    let tumble = "TUMBLE(trips, pickup_at, INTERVAL '1 hour')";
    let hop = "HOP(trips, pickup_at, INTERVAL '5 minutes', INTERVAL '1 hour')";
    let session = "SESSION(trips, pickup_at, INTERVAL '5 minutes')";
    let key = "key = 'window_start, vendor_id'";
    let changes = "key = 'window_start, vendor_id', emit = 'changes'";
    let n = "count(*) AS n";
    let plain = "SELECT vendor_id, count(*) AS n FROM trips GROUP BY vendor_id";
    let top = " ORDER BY n DESC LIMIT 3";
    for (sink, query, at, what) in [
        (
            key,
            select("sum(date_part('hour', window_end)) AS n", hop, ""),
            (3, 1),
            "not known when a row is read",
        ),
        (
            key,
            select(
                "count(*) FILTER (WHERE window_end > pickup_at) AS n",
                session,
                "",
            ),
            (3, 1),
            "its session may still grow",
        ),
        (key, select(n, session, top), (3, 1), "each group's own"),
        (
            changes,
            select(n, tumble, top),
            (2, 78),
            "ORDER BY … LIMIT lets through",
        ),
        (
            changes,
            select(n, tumble, " HAVING count(*) > 1"),
            (2, 78),
            "HAVING lets through",
        ),
        (changes, select(n, session, ""), (2, 78), "may still change"),
        (
            key,
            select("anomaly_score(count(*)) AS n", tumble, top),
            (3, 49),
            "not both",
        ),
        (
            key,
            select("avg(anomaly_score(gc_distance)) AS n", tumble, ""),
            (3, 53),
            "not known when a row is read",
        ),
        (
            "key = 'vendor_id'",
            plain.to_owned(),
            (2, 1),
            "no final result",
        ),
        (
            "key = 'vendor_id', emit = 'changes', grace = INTERVAL '1 minute'",
            plain.to_owned(),
            (2, 83),
            "grace is for windows",
        ),
        (
            "key = 'vendor_id', emit = 'changes', state_ttl = INTERVAL '0 minutes'",
            plain.to_owned(),
            (2, 87),
            "forgotten at once",
        ),
        (
            "key = 'vendor_id', emit = 'changes'",
            plain.replace("count(*)", "anomaly_score(count(*))"),
            (3, 35),
            "compares windows",
        ),
        (
            "key = 'n', emit = 'changes'",
            plain.to_owned(),
            (2, 44),
            "not a column of GROUP BY",
        ),
        (
            "key = 'window_start, vendor_id', state_ttl = INTERVAL '1 day'",
            select(n, tumble, ""),
            (2, 83),
            "for queries without windows",
        ),
        (
            key,
            select("n", tumble, " ORDER BY m LIMIT 1"),
            (3, 49),
            "no column n",
        ),
    ] {
        expect(&with(sink, &query), at.0, at.1, what, "");
    }
}

#[test]
fn an_aggregate_that_keeps_nested_values_is_refused() {
    let item = Field::new("item", DataType::Utf8, true);
    let mut fields: Vec<_> = trips_schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(
        "tags",
        DataType::List(Arc::new(item)),
        true,
    )));
    let schema = Arc::new(Schema::new(fields));
    let text = job(
        "window_start, vendor_id",
        "SELECT window_start, vendor_id, min(tags) AS least FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')
         GROUP BY window_start, vendor_id",
    );
    let errors = planned(&text, &schema).unwrap_err();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].what.contains("min(tags)"), "{}", errors[0]);
    assert!(errors[0].what.contains("partial rows"), "{}", errors[0]);
    planned(&text.replace("min(tags)", "count(tags)"), &schema).unwrap();
}
