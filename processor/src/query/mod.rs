//! SQL over what a running processor holds: the state that its shards have committed, and its last results.
//!
//! ```text
//!   /query?sql=…   which tables? ──ask──▶ workers ──committed folds, by pointer──▶ rows, window by window
//!                                         last final results ───────────────────▶    │
//!                            answer ◀── SQLite in memory, read only ◀── bounded copy ◀┘
//! ```
//!
//! The workers go on meanwhile: a committed fold is made of immutable batches, and to hand it out costs a few pointers.

pub mod recent;
mod sqlite;
mod tables;
pub mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::watermark::END_OF_TIME;
use runtime::telemetry::PageAnswer;
use serde::Serialize;
use serde_json::json;

use crate::job::Job;
use crate::progress::Progress;
use crate::words::instant;
use sqlite::{Answer, Database};
use tables::{Rows, Table};
use views::{ShardId, ShardView, Turn};

/// How long workers may take to hand their state out; one that waits for a broker may not answer in time.
const WAIT: Duration = Duration::from_secs(2);

/// What bounds a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most rows of an answer.
    pub rows: usize,
    /// The longest that it may take.
    pub timeout: Duration,
    /// The most bytes of rows that are copied for it, and again of its answer.
    pub memory_bytes: usize,
}

/// Why a query has no answer.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// It can't be understood, or may not do what it wants.
    #[error("{what}")]
    Sql {
        /// What is wrong.
        what: String,
    },
    /// It took too long.
    #[error("the query took longer than processor.query_timeout_ms allows")]
    Time,
    /// It needs more room than there is.
    #[error("the query needs more room than processor.query_memory_bytes allows: {detail}")]
    Room {
        /// What SQLite says.
        detail: String,
    },
    /// The job is not loaded yet.
    #[error("the job is being loaded: there is no state yet")]
    NotYet,
    /// Others' queries took all the time.
    #[error("other queries are running, one at a time: try again")]
    Busy,
    /// Something that is not the asker's fault.
    #[error("the query failed: {detail}")]
    Internal {
        /// Why.
        detail: String,
    },
}

impl QueryError {
    fn status(&self) -> u16 {
        match self {
            Self::Sql { .. } => 400,
            Self::Room { .. } => 422,
            Self::Time | Self::NotYet | Self::Busy => 503,
            Self::Internal { .. } => 500,
        }
    }
}

/// A shard that is here, as an answer tells of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct ShardAnswer {
    shard: i32,
    /// Whether its worker handed its state out in time; if not, none of its state is in the table.
    answered: bool,
    /// Whether its state is still being restored, and so is as of an earlier time.
    restoring: bool,
    restored: f64,
    watermark: Option<String>,
    watermark_ms: Option<i64>,
    /// Whether all of its input has come.
    ended: bool,
    as_of: Option<String>,
}

/// A table that a query read.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct TableAnswer {
    /// Rows of open windows and of groups, which may still change.
    provisional_rows: usize,
    /// Rows of results that never change.
    final_rows: usize,
    /// How many shards the query has, on all members together.
    shards_in_all: usize,
    /// Those that are here: rows of others are with other members.
    shards: Vec<ShardAnswer>,
    /// Whether rows of state had no room, by processor.query_memory_bytes.
    state_cut_off: bool,
    /// Whether results were given that are no longer kept, by processor.recent_rows and processor.recent_bytes.
    final_cut_off: bool,
}

/// The page: a statement's answer, or, without one, what can be asked.
pub fn page(
    progress: &Progress,
    limits: &Limits,
    parameters: &BTreeMap<String, String>,
) -> PageAnswer {
    let answered = match (progress.views.running(), parameters.get("sql")) {
        (None, _) => Err(QueryError::NotYet),
        (Some((job, _)), None) => Ok(listed(&job, limits)),
        (Some((job, _)), Some(sql)) => ask(progress, &job, limits, sql),
    };
    match answered {
        Ok(body) => PageAnswer::json(200, body),
        Err(error) => {
            let body = json!({"error": error.to_string()});
            PageAnswer::json(error.status(), format!("{body:#}\n"))
        }
    }
}

fn tables_of(job: &Job) -> Vec<Table> {
    tables::of(job.queries.iter().map(|query| query.plan.as_ref()))
}

fn listed(job: &Job, limits: &Limits) -> String {
    let tables = tables_of(job);
    let example = tables.first().map(Table::example).unwrap_or_default();
    let page = json!({
        "application_id": job.options.application_id,
        "tables": tables,
        "example": example,
        "example_url": format!("/query?sql={}", percent_encoded(&example)),
        "limits": {
            "rows": limits.rows,
            "timeout_ms": u64::try_from(limits.timeout.as_millis()).unwrap_or(u64::MAX),
            "memory_bytes": limits.memory_bytes,
        },
    });
    format!("{page:#}\n")
}

/// A query string's value: RFC 3986 says what may stand there as it is.
fn percent_encoded(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        })
        .collect()
}

fn ask(
    progress: &Progress,
    job: &Arc<Job>,
    limits: &Limits,
    sql: &str,
) -> Result<String, QueryError> {
    let deadline = Instant::now() + limits.timeout;
    let tables = tables_of(job);
    // What is wrong with a statement is said without asking anybody.
    Database::new(&tables, *limits, deadline)?.reads(sql)?;
    let mut turn = progress.views.turn(deadline).ok_or(QueryError::Busy)?;
    let mut database = Database::new(&tables, *limits, deadline)?;
    let read = database.reads(sql)?;
    let filled = fill(
        progress,
        job,
        &mut turn,
        &mut database,
        &tables,
        &read,
        deadline,
    )?;
    Ok(written(&database.run(sql)?, &filled))
}

/// Puts rows into the tables that are read, and says what they are.
fn fill(
    progress: &Progress,
    job: &Job,
    turn: &mut Turn<'_>,
    database: &mut Database,
    tables: &[Table],
    read: &BTreeSet<String>,
    deadline: Instant,
) -> Result<BTreeMap<String, TableAnswer>, QueryError> {
    let mut filled = BTreeMap::new();
    let read: Vec<&Table> = tables
        .iter()
        .filter(|table| read.contains(&table.table.to_lowercase()))
        .collect();
    if read.is_empty() {
        return Ok(filled);
    }
    let here = || progress.shards_here();
    let views = turn.ask(&here, deadline.min(Instant::now() + WAIT));
    let mut here: BTreeMap<ShardId, f64> = here().into_iter().map(|id| (id, 1.0)).collect();
    // A shard whose snapshot is still being read has no state to hand out.
    let restoring = progress.shards().into_iter();
    here.extend(
        restoring
            .map(|(id, shard)| (id, shard.restored))
            .filter(|(_, restored)| *restored < 1.0),
    );
    for table in read {
        let query = &job.queries[table.query];
        let name = &query.plan.name;
        let mut answer = TableAnswer {
            provisional_rows: 0,
            final_rows: 0,
            shards_in_all: match query.folded {
                Some(_) => job.options.shards as usize,
                None => 0,
            },
            shards: Vec::new(),
            state_cut_off: false,
            final_cut_off: false,
        };
        let view = |shard: i32| views.get(&(name.clone(), shard));
        // Results first: they are few.
        let recent = progress.views.recent(name);
        answer.final_cut_off = recent.cut_off;
        for (shard, commit, results) in recent.batches() {
            let view = shard.and_then(view);
            if view.is_some_and(|view| view.commit < commit) {
                continue;
            }
            let watermark = view.and_then(|view| view.fold.watermark().now());
            let rows = rows(results, shard, watermark)?;
            let copied = database.fill(table, &rows)?;
            answer.final_rows += copied;
            answer.final_cut_off |= copied < rows.len();
        }
        for ((_, shard), restored) in here.iter().filter(|((query, _), _)| query == name) {
            answer
                .shards
                .push(ShardAnswer::new(*shard, *restored, view(*shard)));
            if let Some(view) = view(*shard) {
                state(view, *shard, table, database, deadline, &mut answer)?;
            }
        }
        filled.insert(table.table.clone(), answer);
    }
    Ok(filled)
}

/// Puts the rows of a shard's open windows and groups into a table.
fn state(
    view: &ShardView,
    shard: i32,
    table: &Table,
    database: &mut Database,
    deadline: Instant,
    answer: &mut TableAnswer,
) -> Result<(), QueryError> {
    let internal = |detail: String| QueryError::Internal { detail };
    let watermark = view.fold.watermark().now();
    let whole = view.fold.open().map(|open| open.map(|open| (open, 0)));
    let closing = view.closing.iter().cloned().map(Ok);
    for open in closing.chain(whole) {
        let (open, from) = open.map_err(|error| internal(error.to_string()))?;
        if view.fold.is_ranked() && open.bytes() > database.room() {
            answer.state_cut_off = true;
            continue;
        }
        let mut pieces = view.fold.pieces(&open, from);
        loop {
            if Instant::now() >= deadline {
                return Err(QueryError::Time);
            }
            let results = view.fold.next_provisional(&mut pieces);
            let Some(results) = results.map_err(|error| internal(error.to_string()))? else {
                break;
            };
            let rows = rows(&results, Some(shard), watermark)?;
            let copied = database.fill(table, &rows)?;
            answer.provisional_rows += copied;
            if copied < rows.len() {
                answer.state_cut_off = true;
                return Ok(());
            }
        }
    }
    Ok(())
}

fn rows(
    results: &arrow::record_batch::RecordBatch,
    shard: Option<i32>,
    watermark: Option<i64>,
) -> Result<Rows, QueryError> {
    Rows::new(results, shard, watermark).map_err(|error| QueryError::Internal {
        detail: error.to_string(),
    })
}

impl ShardAnswer {
    fn new(shard: i32, restored: f64, view: Option<&ShardView>) -> Self {
        let restored = view.map_or(restored, |view| view.restored);
        let now = view.and_then(|view| view.fold.watermark().now());
        let ended = now == Some(END_OF_TIME);
        Self {
            shard,
            answered: view.is_some(),
            restoring: restored < 1.0,
            restored,
            watermark: now.filter(|_| !ended).map(instant),
            watermark_ms: now,
            ended,
            as_of: view.map(|view| instant(view.at_ms)),
        }
    }
}

/// The answer, with a line for each row.
fn written(answer: &Answer, tables: &BTreeMap<String, TableAnswer>) -> String {
    let rows: Vec<String> = answer
        .rows
        .iter()
        .map(|row| format!("    {}", serde_json::Value::from(row.clone())))
        .collect();
    let rows = match rows.is_empty() {
        true => String::new(),
        false => format!("\n{}\n  ", rows.join(",\n")),
    };
    let about = format!("{:#}", json!(tables)).replace('\n', "\n  ");
    format!(
        "{{\n  \"columns\": {},\n  \"rows\": [{rows}],\n  \"rows_cut_off\": {},\n  \"tables\": {about}\n}}\n",
        json!(answer.columns),
        answer.cut_off,
    )
}
