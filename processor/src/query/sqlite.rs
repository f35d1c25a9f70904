//! SQL over the tables, by SQLite in memory: it reads, and nothing else, up to its bounds.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use rusqlite::fallible_iterator::FallibleIterator;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{Value as SqlValue, ValueRef};
use rusqlite::{Batch, Connection, ErrorCode, Statement};
use serde_json::Value;

use super::tables::{Rows, Table};
use super::{Limits, QueryError};

/// After how many of SQLite's instructions it is looked whether the time is over.
const STEPS: i32 = 10_000;
/// The bytes that a row takes beside its values.
const ROW_BYTES: usize = 16;
/// The bytes of a page.
const PAGE_BYTES: usize = 4096;
/// The most bytes of a statement.
const MAX_SQL_BYTES: i32 = 64 << 10;
/// The most bytes of a value.
const MAX_VALUE_BYTES: i32 = 16 << 20;
/// Functions that reach beyond the tables.
const FORBIDDEN: [&str; 3] = ["load_extension", "readfile", "writefile"];

/// The tables, in memory.
pub struct Database {
    connection: Connection,
    limits: Limits,
    deadline: Instant,
    /// How many bytes may still be copied.
    room: usize,
}

/// What a statement gives.
#[derive(Debug, PartialEq)]
pub struct Answer {
    /// The names of its columns.
    pub columns: Vec<String>,
    /// Its rows.
    pub rows: Vec<Vec<Value>>,
    /// Whether there were more.
    pub cut_off: bool,
}

impl Database {
    /// Empty tables.
    pub fn new(tables: &[Table], limits: Limits, deadline: Instant) -> Result<Self, QueryError> {
        let connection = Connection::open_in_memory().map_err(internal)?;
        // Rows are counted as they come; pages have room to spare, so that this only stops what can't be.
        let pages = limits.memory_bytes / PAGE_BYTES * 2 + 2 * tables.len() + 8;
        let made = || {
            connection.pragma_update(None, "page_size", PAGE_BYTES as i64)?;
            // What does not fit into memory while rows are sorted goes to a file that has no name.
            connection.pragma_update(None, "temp_store", "file")?;
            let pages = i64::try_from(pages)
                .unwrap_or(i64::MAX)
                .min(i64::from(u32::MAX) - 2);
            connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(()))?;
            for table in tables {
                connection.execute_batch(&table.create())?;
            }
            connection.set_limit(Limit::SQLITE_LIMIT_SQL_LENGTH, MAX_SQL_BYTES)?;
            connection.set_limit(Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES)?;
            connection.set_limit(Limit::SQLITE_LIMIT_ATTACHED, 0)?;
            connection.set_limit(Limit::SQLITE_LIMIT_WORKER_THREADS, 0)?;
            connection.progress_handler(STEPS, Some(move || Instant::now() >= deadline));
            Ok(())
        };
        made().map_err(internal)?;
        Ok(Self {
            connection,
            room: limits.memory_bytes,
            limits,
            deadline,
        })
    }

    /// The tables that a statement reads, by name in lower case.
    ///
    /// # Errors
    /// It can't be prepared, or would do more than read.
    pub fn reads(&self, sql: &str) -> Result<BTreeSet<String>, QueryError> {
        let names = Arc::new(Mutex::new(BTreeSet::new()));
        self.guard(&names);
        let prepared = self.prepare(sql).map(drop);
        // To fill the tables is ours.
        self.connection
            .authorizer(None::<fn(AuthContext<'_>) -> Authorization>);
        prepared?;
        let names = names.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Ok(names)
    }

    /// How many bytes may still be copied.
    pub fn room(&self) -> usize {
        self.room
    }

    /// Copies rows into a table, and says how many had room.
    pub fn fill(&mut self, table: &Table, rows: &Rows) -> Result<usize, QueryError> {
        let mut insert = table.insert(&self.connection).map_err(internal)?;
        self.connection.execute_batch("BEGIN").map_err(internal)?;
        let mut filled = 0;
        while filled < rows.len() {
            if filled % 1024 == 0 && Instant::now() >= self.deadline {
                return Err(QueryError::Time);
            }
            let values = rows.row(filled).map_err(|error| QueryError::Internal {
                detail: error.to_string(),
            })?;
            let size = values.iter().map(size_of_value).sum::<usize>() + ROW_BYTES;
            if size > self.room {
                break;
            }
            self.room -= size;
            insert
                .execute(rusqlite::params_from_iter(values))
                .map_err(|error| self.sorted("", error))?;
            filled += 1;
        }
        self.connection.execute_batch("COMMIT").map_err(internal)?;
        Ok(filled)
    }

    /// What a statement gives.
    ///
    /// # Errors
    /// It fails, or takes too long.
    pub fn run(&self, sql: &str) -> Result<Answer, QueryError> {
        // Until the end: what a statement does while it runs is looked at too.
        self.guard(&Arc::default());
        let mut statement = self.prepare(sql)?;
        let booleans: Vec<bool> = statement
            .columns()
            .iter()
            .map(|column| column.decl_type() == Some("BOOLEAN"))
            .collect();
        let mut answer = Answer {
            columns: statement
                .column_names()
                .into_iter()
                .map(str::to_owned)
                .collect(),
            rows: Vec::new(),
            cut_off: false,
        };
        let mut bytes = 0;
        let mut rows = statement
            .query([])
            .map_err(|error| self.sorted(sql, error))?;
        while let Some(row) = rows.next().map_err(|error| self.sorted(sql, error))? {
            let mut values = Vec::with_capacity(booleans.len());
            for (place, &boolean) in booleans.iter().enumerate() {
                let value = row.get_ref(place).map_err(internal)?;
                let (value, size) = json(value, boolean);
                bytes += size;
                values.push(value);
            }
            if answer.rows.len() == self.limits.rows || bytes > self.limits.memory_bytes {
                answer.cut_off = true;
                break;
            }
            answer.rows.push(values);
        }
        Ok(answer)
    }

    /// From now on the connection may read and do nothing else. Notes the tables that statements read.
    fn guard(&self, names: &Arc<Mutex<BTreeSet<String>>>) {
        let names = Arc::clone(names);
        let allowed = move |action: AuthAction<'_>| match action {
            AuthAction::Select | AuthAction::Recursive => true,
            AuthAction::Read { table_name, .. } => {
                let name = table_name.to_lowercase();
                // SQLite's settings as tables.
                let allowed = !name.starts_with("pragma_");
                let mut names = names.lock().unwrap_or_else(PoisonError::into_inner);
                names.insert(name);
                allowed
            }
            AuthAction::Function { function_name } => {
                !FORBIDDEN.contains(&function_name.to_lowercase().as_str())
            }
            _ => false,
        };
        self.connection
            .authorizer(Some(move |context: AuthContext<'_>| {
                match allowed(context.action) {
                    true => Authorization::Allow,
                    false => Authorization::Deny,
                }
            }));
    }

    /// The only statement in a text.
    fn prepare(&self, sql: &str) -> Result<Statement<'_>, QueryError> {
        let bad = |what: &str| QueryError::Sql { what: what.into() };
        let mut statements = Batch::new(&self.connection, sql);
        let mut next = || statements.next().map_err(|error| self.sorted(sql, error));
        let first = next()?.ok_or_else(|| bad("there is no statement in it"))?;
        if next()?.is_some() {
            return Err(bad("it has more than one statement"));
        }
        if !first.readonly() {
            return Err(bad("only SELECT can be asked here: nothing can be changed"));
        }
        if first.parameter_count() > 0 {
            return Err(bad("it has a parameter, for which there is no value"));
        }
        Ok(first)
    }

    /// Whose fault a failure is.
    fn sorted(&self, sql: &str, error: rusqlite::Error) -> QueryError {
        match error.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => return QueryError::Time,
            _ if Instant::now() >= self.deadline => return QueryError::Time,
            Some(ErrorCode::AuthorizationForStatementDenied) => {
                return QueryError::Sql {
                    what: "only SELECT can be asked here: nothing can be changed, and nothing but the tables can be read".into(),
                };
            }
            Some(ErrorCode::OutOfMemory | ErrorCode::DiskFull | ErrorCode::SystemIoFailure) => {
                return QueryError::Room {
                    detail: error.to_string(),
                };
            }
            _ => {}
        }
        let what = match &error {
            rusqlite::Error::SqlInputError { msg, offset, .. } => {
                format!("{msg}{}", place(sql, *offset))
            }
            rusqlite::Error::SqliteFailure(_, Some(what)) => what.clone(),
            other => other.to_string(),
        };
        QueryError::Sql { what }
    }
}

/// Where a byte offset lies, if it lies anywhere.
fn place(sql: &str, offset: i32) -> String {
    let Some(before) = usize::try_from(offset).ok().and_then(|end| sql.get(..end)) else {
        return String::new();
    };
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!(" (line {line}, column {column})")
}

/// A value in JSON, and about how many bytes it takes.
fn json(value: ValueRef<'_>, boolean: bool) -> (Value, usize) {
    let value = match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(whole) if boolean => (whole != 0).into(),
        ValueRef::Integer(whole) => whole.into(),
        ValueRef::Real(real) if real.is_finite() => real.into(),
        // JSON has no such numbers.
        ValueRef::Real(real) if real > 0.0 => "Infinity".into(),
        ValueRef::Real(_) => "-Infinity".into(),
        ValueRef::Text(text) => {
            let text = String::from_utf8_lossy(text);
            let size = text.len();
            return (text.into(), size_of::<Value>() + size);
        }
        ValueRef::Blob(bytes) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let size = hex.len();
            return (hex.into(), size_of::<Value>() + size);
        }
    };
    (value, size_of::<Value>())
}

/// About how many bytes a value takes in a table.
fn size_of_value(value: &SqlValue) -> usize {
    match value {
        SqlValue::Null => 1,
        SqlValue::Integer(_) | SqlValue::Real(_) => 9,
        SqlValue::Text(text) => text.len() + 2,
        SqlValue::Blob(bytes) => bytes.len() + 2,
    }
}

fn internal(error: rusqlite::Error) -> QueryError {
    QueryError::Internal {
        detail: error.to_string(),
    }
}
