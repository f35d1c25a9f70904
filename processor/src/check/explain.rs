//! What a job's queries do, fragment by fragment: for people, and as JSON for programs.

mod print;

use std::time::Duration;

use arrow::datatypes::Schema;
use engine::plan::{Query, Spread};
use engine::sql::{Emit, Format, Script};
use engine::window::Window;
use runtime::dead_letter::dlq_topic;
use serde::Serialize;

use super::Checked;
use super::lookups::{Lookup, lookup_topics, lookups};
use crate::topics;
use crate::words::{length, sql_type};

/// A job, explained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explained {
    /// The name that it runs under.
    pub application_id: String,
    /// Its queries.
    pub queries: Vec<QueryExplained>,
}

/// A query, explained.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct QueryExplained {
    /// Its name.
    pub query: String,
    /// What it reads and writes.
    pub topics: Vec<Topic>,
    /// From source rows to partial rows.
    pub scan: Scan,
    /// From partial rows to partial rows.
    pub merge: Merge,
    /// From partial rows of closed windows to results.
    pub finish: Finish,
    /// How event time goes on, and when windows close.
    pub time: Time,
    /// What is held in memory, and in the partials topic.
    pub state: State,
}

/// A topic of a query.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Topic {
    /// `source`, `reference table`, `partials`, `results`, `late rows` or `dead letters`.
    pub role: &'static str,
    /// Its name.
    pub topic: String,
    /// Its partitions; `None` if the log was not asked.
    pub partitions: Option<i32>,
    /// What makes up its records' keys, or decides on their partition.
    pub key: String,
}

/// The first fragment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Scan {
    /// The columns that are decoded.
    pub reads: Vec<Column>,
    /// The joins with reference tables.
    pub lookups: Vec<Lookup>,
    /// WHERE.
    pub filter: Option<String>,
    /// How event time is cut.
    pub windows: String,
    /// GROUP BY.
    pub group_by: Vec<String>,
    /// The aggregate calls.
    pub aggregates: Vec<String>,
}

/// The second fragment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Merge {
    /// How many shards fold partial rows, each on its own.
    pub shards: u32,
    /// The columns of a partial row: window, keys, states of aggregates, counts.
    pub partial_row: Vec<Column>,
}

/// The last fragment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finish {
    /// HAVING.
    pub having: Option<String>,
    /// ORDER BY, within a window.
    pub order_by: Option<String>,
    /// LIMIT, within a window.
    pub limit: Option<String>,
    /// The columns of results.
    pub results: Vec<Column>,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type in SQL.
    #[serde(rename = "type")]
    pub sql_type: String,
    /// Whether it may be null.
    pub nullable: bool,
}

/// The query's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Time {
    /// The column.
    pub event_time: String,
    /// Whether it is the record's time in the log, no column of the values.
    pub of_the_log: bool,
    /// How far rows may lag behind the latest one of their partition.
    pub out_of_orderness_ms: u64,
    /// After how long a silent partition is left aside; `None`: never.
    pub idle_timeout_ms: Option<u64>,
    /// Whether event time goes on by the clock while all partitions are idle.
    pub idle_advance: bool,
    /// Rows further ahead of the clock are dead letters; `None`: none are.
    pub max_ahead_ms: Option<u64>,
    /// Partitions further ahead of the slowest are paused; `None`: none are.
    pub max_drift_ms: Option<u64>,
    /// How long a window stays open behind its end.
    pub grace_ms: u64,
    /// `final`, or `changes`.
    pub emit: String,
}

/// The query's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    /// How many windows are open at a time, at least, while all partitions are equally far; `None` if windows have no
    /// common length.
    pub open_windows: Option<u64>,
    /// What bounds it, in words.
    pub bounds: Vec<String>,
}

/// Explains a job that was checked. `partitions` says how many partitions a topic has, if that is known.
pub fn explain(
    checked: &Checked,
    application_id: &str,
    shards: u32,
    partitions: &dyn Fn(&str) -> Option<i32>,
) -> Explained {
    let queries = checked
        .queries
        .iter()
        .map(|query| explained(query, &checked.script, application_id, shards, partitions));
    Explained {
        application_id: application_id.into(),
        queries: queries.collect(),
    }
}

/// Explains a query of a job.
pub(crate) fn explained(
    query: &Query,
    script: &Script,
    application_id: &str,
    shards: u32,
    partitions: &dyn Fn(&str) -> Option<i32>,
) -> QueryExplained {
    let tables = &script.tables;
    let clauses = script
        .inserts
        .iter()
        .find(|insert| insert.sink == query.name)
        .map(engine::sql::Insert::clauses)
        .unwrap_or_default();
    let (source, sink) = (&query.source, &query.sink);
    let topic = |role, topic: String, key: &str| Topic {
        role,
        partitions: partitions(&topic),
        topic,
        key: key.into(),
    };
    let mut partials = topic(
        "partials",
        topics::partials(application_id, &query.name),
        match query.spread {
            Spread::Key => "one partition per shard, by the group's key",
            Spread::Window => {
                "one partition per shard, by window: the query ranks a window's groups"
            }
            Spread::One => {
                "the first partition: the query ranks the groups of windows that overlap"
            }
        },
    );
    partials.partitions = i32::try_from(shards).ok();
    QueryExplained {
        query: query.name.clone(),
        topics: {
            let late = topic(
                "late rows",
                topics::late(application_id, &query.name),
                "window, source range",
            );
            let mut all = vec![topic(
                "source",
                source.topic.clone(),
                match source.format {
                    Format::Avro => "any; values in Avro",
                    Format::Json => "any; values in JSON",
                },
            )];
            all.extend(lookup_topics(query, tables).map(|(name, format)| {
                topic(
                    "reference table",
                    name,
                    match format {
                        Format::Avro => "of its row; values in Avro",
                        Format::Json => "of its row; values in JSON",
                    },
                )
            }));
            let folded = query.window.is_some();
            all.extend(folded.then_some(partials));
            all.push(topic("results", sink.topic.clone(), &sink.key.join(", ")));
            all.extend(folded.then_some(late));
            all.push(topic("dead letters", dlq_topic(&source.topic), "origin"));
            all
        },
        scan: Scan {
            reads: columns(&query.input),
            lookups: lookups(query, tables),
            filter: clauses.filter,
            windows: windows(query),
            group_by: clauses.group_by,
            aggregates: clauses.aggregates,
        },
        merge: Merge {
            shards,
            partial_row: columns(&query.partial),
        },
        finish: Finish {
            having: clauses.having,
            order_by: clauses.order_by,
            limit: clauses.limit,
            results: columns(&query.output),
        },
        time: Time {
            event_time: source.event_time.clone(),
            of_the_log: query.is_by_record_time(),
            out_of_orderness_ms: ms(source.out_of_orderness),
            idle_timeout_ms: source.idle_timeout.map(ms),
            idle_advance: source.idle_advance,
            max_ahead_ms: source.max_ahead.map(ms),
            max_drift_ms: source.max_drift.map(ms),
            grace_ms: ms(sink.grace),
            emit: emit(sink.emit).into(),
        },
        state: state(query),
    }
}

fn ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn emit(emit: Emit) -> &'static str {
    match emit {
        Emit::Final => "final",
        Emit::Changes => "changes",
    }
}

fn columns(schema: &Schema) -> Vec<Column> {
    schema
        .fields()
        .iter()
        .map(|field| Column {
            name: field.name().clone(),
            sql_type: sql_type(field.data_type()),
            nullable: field.is_nullable(),
        })
        .collect()
}

fn windows(query: &Query) -> String {
    let Some(window) = query.window else {
        return "none, each row gives a result".to_owned();
    };
    match window {
        Window::Tumbling { size_ms } => format!("tumbling, {}", length(millis(size_ms))),
        Window::Hopping { size_ms, step_ms } => format!(
            "hopping, {} every {}",
            length(millis(size_ms)),
            length(millis(step_ms))
        ),
        Window::Session { gap_ms } => {
            format!("session, until {} without a row", length(millis(gap_ms)))
        }
        Window::Unbounded { .. } => "none, one group per key".to_owned(),
    }
}

/// The length of windows, and from the start of one to that of the next, for windows that have these.
fn lengths(window: Window) -> Option<(Duration, Duration)> {
    match window {
        Window::Tumbling { size_ms } => Some((millis(size_ms), millis(size_ms))),
        Window::Hopping { size_ms, step_ms } => Some((millis(size_ms), millis(step_ms))),
        Window::Session { .. } | Window::Unbounded { .. } => None,
    }
}

fn millis(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or(0))
}

fn state(query: &Query) -> State {
    let held = query.source.out_of_orderness + query.sink.grace;
    let mut bounds = Vec::new();
    let Some(window) = query.window else {
        return State {
            open_windows: None,
            bounds: vec!["there is none".into()],
        };
    };
    let open_windows = lengths(window).map(|(size, step)| {
        let open = (size + held).as_millis().div_ceil(step.as_millis().max(1));
        bounds.push(format!(
            "a window stays open for {} behind its end (out_of_orderness {} and grace {}), and one more is being filled",
            length(held),
            length(query.source.out_of_orderness),
            length(query.sink.grace)
        ));
        bounds.push(match query.source.max_drift {
            Some(drift) => {
                let more = drift.as_millis().div_ceil(step.as_millis().max(1));
                format!(
                    "while source partitions are apart in event time, up to {more} more (max_drift {}) and what one poll brings",
                    length(drift)
                )
            }
            None => "while source partitions are apart in event time, all windows between them: max_drift is not set".into(),
        });
        u64::try_from(open.max(1)).unwrap_or(u64::MAX)
    });
    match window {
        Window::Session { gap_ms } => bounds.push(format!(
            "a session is held until {} behind its last row",
            length(millis(gap_ms) + held)
        )),
        Window::Unbounded { ttl_ms: None } => {
            bounds.push("every key that ever came is held: state_ttl is not set".into());
        }
        Window::Unbounded { ttl_ms: Some(ttl) } => bounds.push(format!(
            "a key is held until {} of event time behind its last row",
            length(millis(ttl))
        )),
        Window::Tumbling { .. } | Window::Hopping { .. } => {}
    }
    if query.has_history() {
        bounds.push(format!(
            "for anomaly_score, three numbers per key, until it has had no window for {}",
            length(query.sink.history_ttl)
        ));
    }
    if !window.is_bounded() {
        return State {
            open_windows,
            bounds,
        };
    }
    bounds.push(match query.source.idle_timeout {
        Some(timeout) => format!(
            "a source partition that is silent for {} holds no window open",
            length(timeout)
        ),
        None => {
            "a silent source partition holds windows open for ever: idle_timeout is not set".into()
        }
    });
    bounds.push(if query.keys == 0 {
        "a window has one group".into()
    } else {
        "a window has as many groups as the keys have values".into()
    });
    State {
        open_windows,
        bounds,
    }
}
