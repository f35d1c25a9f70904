//! Documents in one SQLite file: the target that needs no server.
//!
//! The same ids and versions as in OpenSearch; `index_name` stands for the index. A bulk is one transaction, written
//! through to the disk (write-ahead log, full synchronisation) before the call returns.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};

use super::{Outcome, Target, TargetError};
use crate::document::Document;

/// "HWdc": marks the file as ours (SQLite's `application_id`).
const APPLICATION_ID: i32 = 0x4857_6463;
/// The layout of the file (SQLite's `user_version`).
const LAYOUT: i32 = 1;

const CREATE: &str = "CREATE TABLE IF NOT EXISTS documents (
    index_name TEXT NOT NULL,
    id TEXT NOT NULL,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (index_name, id)
) WITHOUT ROWID";

const STORE: &str = "INSERT INTO documents (index_name, id, version, body) VALUES (?1, ?2, ?3, ?4)
ON CONFLICT (index_name, id) DO UPDATE SET version = excluded.version, body = excluded.body
WHERE excluded.version > documents.version";

/// A document as it stands in the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoredDocument {
    /// The name of its index.
    pub index: String,
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: i64,
    /// Its JSON.
    pub body: String,
}

/// The file, open.
pub struct SqliteTarget {
    path: PathBuf,
    name: String,
    connection: Mutex<Connection>,
}

impl SqliteTarget {
    /// Opens the file, and makes it if it is not there.
    ///
    /// # Errors
    /// When it can't be opened, is no document file, or has a newer layout.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, TargetError> {
        let opened = Self::connect(
            path.as_ref(),
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE,
        )?;
        opened.prepare()?;
        Ok(opened)
    }

    /// Opens the file for reading only, beside whoever writes to it.
    pub fn open_to_read(path: impl AsRef<Path>) -> Result<Self, TargetError> {
        let opened = Self::connect(path.as_ref(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        opened.check_layout(&opened.lock())?;
        Ok(opened)
    }

    fn connect(path: &Path, flags: OpenFlags) -> Result<Self, TargetError> {
        let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
            .map_err(|error| TargetError::Storage {
                path: path.to_owned(),
                detail: format!("{error}; check that its folder exists and may be written to"),
            })?;
        Ok(Self {
            path: path.to_owned(),
            name: path.display().to_string(),
            connection: Mutex::new(connection),
        })
    }

    fn prepare(&self) -> Result<(), TargetError> {
        let connection = self.lock();
        let wrap = |error| self.error(&error);
        connection
            .busy_timeout(Duration::from_secs(10))
            .map_err(wrap)?;
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(wrap)?;
        if tables > 0 {
            self.check_layout(&connection)?;
        }
        connection
            .pragma_update(None, "journal_mode", "wal")
            .map_err(wrap)?;
        connection
            .pragma_update(None, "synchronous", "full")
            .map_err(wrap)?;
        if tables == 0 {
            let made = format!(
                "BEGIN IMMEDIATE; {CREATE}; PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {LAYOUT}; COMMIT;"
            );
            connection.execute_batch(&made).map_err(wrap)?;
        }
        Ok(())
    }

    fn check_layout(&self, connection: &Connection) -> Result<(), TargetError> {
        let number = |pragma: &str| {
            connection
                .pragma_query_value(None, pragma, |row| row.get::<_, i32>(0))
                .map_err(|e| self.error(&e))
        };
        let (application, layout) = (number("application_id")?, number("user_version")?);
        let detail = match (application, layout) {
            (APPLICATION_ID, LAYOUT) => return Ok(()),
            (APPLICATION_ID, other) => {
                format!(
                    "it has layout {other}, this version reads layout {LAYOUT}: use the version that wrote it, or another file"
                )
            }
            _ => "it is a SQLite file of something else: name another file".to_owned(),
        };
        Err(TargetError::Storage {
            path: self.path.clone(),
            detail,
        })
    }

    /// How many documents each index has.
    pub fn counts(&self) -> Result<BTreeMap<String, u64>, TargetError> {
        let sql = "SELECT index_name, count(*) FROM documents GROUP BY index_name";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            rows.collect()
        })
    }

    /// All documents in the indices whose names match `pattern` (`*` stands for any text), by index and id.
    pub fn documents(&self, pattern: &str) -> Result<Vec<StoredDocument>, TargetError> {
        let sql = "SELECT index_name, id, version, body FROM documents WHERE index_name GLOB ?1 ORDER BY index_name, id";
        self.read(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let rows = statement.query_map([pattern], stored)?;
            rows.collect()
        })
    }

    /// One document.
    pub fn get(&self, index: &str, id: &str) -> Result<Option<StoredDocument>, TargetError> {
        let sql =
            "SELECT index_name, id, version, body FROM documents WHERE index_name = ?1 AND id = ?2";
        self.read(|connection| {
            connection
                .prepare_cached(sql)?
                .query_row([index, id], stored)
                .optional()
        })
    }

    fn read<T>(
        &self,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, TargetError> {
        query(&self.lock()).map_err(|error| self.error(&error))
    }

    fn lock(&self) -> MutexGuard<'_, Connection> {
        // a panic of another thread rolls its transaction back: the connection stays usable
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A busy file or a full disk may pass; all else needs someone.
    fn error(&self, error: &rusqlite::Error) -> TargetError {
        let unreachable = |what: &str| TargetError::Unreachable {
            target: self.name.clone(),
            detail: format!("{error}; {what}"),
        };
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
                unreachable("another process is writing to it")
            }
            Some(ErrorCode::DiskFull) => unreachable("make room on the disk"),
            Some(ErrorCode::SystemIoFailure) => unreachable("check the disk"),
            Some(ErrorCode::NotADatabase) => TargetError::Storage {
                path: self.path.clone(),
                detail: "it is not a SQLite file: name another file".to_owned(),
            },
            Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied | ErrorCode::CannotOpen) => {
                TargetError::Storage {
                    path: self.path.clone(),
                    detail: format!("{error}; check that it and its folder may be written to"),
                }
            }
            _ => TargetError::Storage {
                path: self.path.clone(),
                detail: error.to_string(),
            },
        }
    }

    fn store(&self, documents: &[&Document]) -> rusqlite::Result<Vec<Outcome>> {
        let mut connection = self.lock();
        let transaction =
            connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        let mut outcomes = Vec::with_capacity(documents.len());
        {
            let mut statement = transaction.prepare_cached(STORE)?;
            for document in documents {
                let Ok(body) = std::str::from_utf8(&document.source) else {
                    outcomes.push(Outcome::Rejected {
                        reason: "the JSON is not UTF-8".to_owned(),
                    });
                    continue;
                };
                let changed = statement.execute(params![
                    &*document.index,
                    document.id,
                    document.version,
                    body
                ])?;
                outcomes.push(if changed == 0 {
                    Outcome::Conflict
                } else {
                    Outcome::Stored
                });
            }
        }
        transaction.commit()?;
        Ok(outcomes)
    }
}

impl Target for SqliteTarget {
    fn write(&self, documents: &[&Document]) -> Result<Vec<Outcome>, TargetError> {
        self.store(documents).map_err(|error| self.error(&error))
    }

    fn count(&self, pattern: &str, only: Option<&str>) -> Result<u64, TargetError> {
        let sql = "SELECT count(*) FROM documents WHERE index_name GLOB ?1 AND (?2 IS NULL OR json_extract(body, ?2) = 1)";
        let field = only.map(|name| format!("$.\"{name}\""));
        self.read(|connection| {
            connection
                .prepare_cached(sql)?
                .query_row(params![pattern, field], |row| row.get(0))
        })
    }

    fn name(&self) -> &str {
        &self.name
    }
}

fn stored(row: &rusqlite::Row<'_>) -> rusqlite::Result<StoredDocument> {
    Ok(StoredDocument {
        index: row.get(0)?,
        id: row.get(1)?,
        version: row.get(2)?,
        body: row.get(3)?,
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use proptest::prelude::*;

    use super::*;

    fn document(index: &str, id: &str, version: i64) -> Document {
        let source = format!("{{\"v\":{version}}}").into_bytes();
        Document {
            index: index.into(),
            id: id.into(),
            version,
            source,
        }
    }

    fn write(target: &SqliteTarget, documents: &[Document]) -> Vec<Outcome> {
        target.write(&documents.iter().collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn only_a_higher_version_replaces_and_reopening_keeps_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("documents.sqlite");
        let target = SqliteTarget::open(&path).unwrap();
        let versions = [3, 3, 2, 5, 4].map(|version| document("a-2016.01", "x", version));
        use Outcome::{Conflict, Stored};
        assert_eq!(
            write(&target, &versions),
            [Stored, Conflict, Conflict, Stored, Conflict]
        );
        write(
            &target,
            &[document("a-2016.02", "x", 1), document("b", "x", 1)],
        );
        drop(target);

        let target = SqliteTarget::open(&path).unwrap();
        assert_eq!(
            target.get("a-2016.01", "x").unwrap().unwrap().body,
            "{\"v\":5}"
        );
        assert_eq!(target.get("a-2016.01", "y").unwrap(), None);
        let counts = BTreeMap::from([
            ("a-2016.01".into(), 1),
            ("a-2016.02".into(), 1),
            ("b".into(), 1),
        ]);
        assert_eq!(target.counts().unwrap(), counts);
        assert_eq!(
            (
                target.count("a-*", None).unwrap(),
                target.count("b", None).unwrap(),
                target.count("c*", None).unwrap()
            ),
            (2, 1, 0)
        );
        let reader = SqliteTarget::open_to_read(&path).unwrap();
        let ids: Vec<_> = reader
            .documents("a-*")
            .unwrap()
            .into_iter()
            .map(|d| d.index)
            .collect();
        assert_eq!(ids, ["a-2016.01", "a-2016.02"]);
    }

    #[test]
    fn documents_are_counted_by_a_field_that_is_true() {
        let folder = tempfile::tempdir().unwrap();
        let target = SqliteTarget::open(folder.path().join("d")).unwrap();
        let documents: Vec<Document> = [r#"{"done":true}"#, r#"{"done":false}"#, r#"{"v":1}"#]
            .into_iter()
            .enumerate()
            .map(|(at, source)| Document {
                source: source.into(),
                ..document("a", &at.to_string(), 1)
            })
            .collect();
        write(&target, &documents);
        assert_eq!(target.count("a", None).unwrap(), 3);
        assert_eq!(target.count("a", Some("done")).unwrap(), 1);
        assert_eq!(target.count("a", Some("none")).unwrap(), 0);
    }

    #[test]
    fn a_file_of_another_kind_or_layout_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |name: &str| SqliteTarget::open(folder.path().join(name)).err().unwrap();
        std::fs::write(
            folder.path().join("text"),
            "no database, but long enough to be looked at ".repeat(40),
        )
        .unwrap();
        let other = Connection::open(folder.path().join("other")).unwrap();
        other.execute_batch("CREATE TABLE t (x)").unwrap();
        drop(SqliteTarget::open(folder.path().join("newer")).unwrap());
        Connection::open(folder.path().join("newer"))
            .unwrap()
            .pragma_update(None, "user_version", 9)
            .unwrap();
        for (name, part) in [
            ("text", "not a SQLite file"),
            ("other", "something else"),
            ("newer", "layout 9"),
            ("no/folder", "folder"),
        ] {
            let error = refused(name);
            assert!(error.to_string().contains(part), "{error}");
            assert_eq!(error.remedy(), crate::target::Remedy::Stop);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn in_any_order_and_however_often_the_last_version_stays(
            writes in prop::collection::vec((0..4_u8, 0..20_i64), 1..60),
            cut in 1..20_usize,
        ) {
            let folder = tempfile::tempdir().unwrap();
            let target = SqliteTarget::open(folder.path().join("d")).unwrap();
            let mut last = BTreeMap::new();
            for (id, version) in &writes {
                let highest = last.entry(id.to_string()).or_insert(*version);
                *highest = (*highest).max(*version);
            }
            for bulk in writes.chunks(cut) {
                let bulk: Vec<_> = bulk.iter().map(|(id, version)| document("i", &id.to_string(), *version)).collect();
                write(&target, &bulk);
            }
            let stored: BTreeMap<_, _> =
                target.documents("i").unwrap().into_iter().map(|d| (d.id, d.version)).collect();
            prop_assert_eq!(stored, last);
        }
    }
}
