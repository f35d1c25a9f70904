//! Reference tables: loaded from files at the start, or followed from topics while the job runs.
//!
//! ```text
//!   file  ──load──▶ Snapshot ──────────────────────────────────┐
//!   topic ──follow (a thread each)──▶ Snapshot, Snapshot, … ───┴──▶ now() ──▶ each scan
//! ```

mod csv;
mod file;
mod follow;
mod open;
mod parquet;
mod readers;
mod state;

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::error::ArrowError;
use engine::reference::{Layout, Snapshot, Tables};
use engine::sql::ReferenceTable;
use schemas::EmbeddedRegistry;

pub(crate) use file::columns;
pub(crate) use open::{load_files, open};
pub(crate) use readers::Readers;

use crate::job::Reader;
use crate::task::decoder::Decoder;

/// How often whoever waits for tables looks up from it.
const LOOK_UP: Duration = Duration::from_millis(100);

/// A job's reference tables, as they are now.
#[derive(Default)]
pub struct ReferenceTables {
    tables: BTreeMap<String, Table>,
    current: Mutex<Current>,
    changed: Condvar,
}

#[derive(Default)]
struct Current {
    tables: Tables,
    /// How far each topic has been read that has not reached its first end yet: from 0 to 1.
    behind: BTreeMap<String, f64>,
}

struct Table {
    layout: Arc<Layout>,
    /// `None`: a file.
    topic: Option<TableTopic>,
}

/// A topic that a reference table is read from.
#[derive(Clone)]
pub(crate) struct TableTopic {
    /// Its name.
    pub(crate) topic: String,
    /// What its values are read as.
    pub(crate) reader: Reader,
}

impl ReferenceTables {
    /// Adds a table that was loaded from a file.
    pub(crate) fn add_file(&mut self, name: &str, rows: Snapshot) {
        let layout = Arc::clone(rows.layout());
        self.lock().tables.insert(name.into(), rows);
        self.tables.insert(
            name.into(),
            Table {
                layout,
                topic: None,
            },
        );
    }

    /// Adds a table whose rows are in a topic. It is empty until somebody follows it.
    pub(crate) fn add_topic(
        &mut self,
        table: &ReferenceTable,
        topic: &str,
        reader: Reader,
    ) -> Result<(), ArrowError> {
        // A decoder that reads nothing asks nobody for schemas.
        let nobody = Arc::new(EmbeddedRegistry::in_memory());
        let columns = Decoder::new(nobody, &reader)
            .map_err(|error| ArrowError::ExternalError(Box::new(error)))?
            .schema();
        let layout = Arc::new(Layout::new(columns, &table.key)?);
        let mut current = self.lock();
        let rows = Snapshot::empty(Arc::clone(&layout));
        current.tables.insert(table.name.clone(), rows);
        current.behind.insert(table.name.clone(), 0.0);
        drop(current);
        let topic = Some(TableTopic {
            topic: topic.into(),
            reader,
        });
        self.tables
            .insert(table.name.clone(), Table { layout, topic });
        Ok(())
    }

    /// The tables as they are now; none is changed by what comes later.
    pub fn now(&self) -> Tables {
        if self.tables.is_empty() {
            return Tables::new();
        }
        self.lock().tables.clone()
    }

    /// The tables that are read from topics.
    pub(crate) fn topics(&self) -> impl Iterator<Item = (&str, &Arc<Layout>, &TableTopic)> {
        self.tables.iter().filter_map(|(name, table)| {
            let topic = table.topic.as_ref()?;
            Some((name.as_str(), &table.layout, topic))
        })
    }

    /// Replaces a table's rows; it has been read to the end that its topic had at the start.
    pub(crate) fn publish(&self, name: &str, rows: Snapshot) {
        let mut current = self.lock();
        if let Some(table) = current.tables.get_mut(name) {
            *table = rows;
        }
        if current.behind.remove(name).is_some() {
            self.changed.notify_all();
        }
    }

    /// Notes how far a table has been read, from 0 to 1, that was never read to its end.
    pub(crate) fn reading(&self, name: &str, share: f64) {
        let mut current = self.lock();
        if let Some(behind) = current.behind.get_mut(name) {
            *behind = share;
            self.changed.notify_all();
        }
    }

    /// Waits until every table has been read to the end that it had at the start, or until `give_up` says so. Tells `show`
    /// meanwhile how far each one is that is not. Returns whether all are there.
    pub(crate) fn wait(
        &self,
        give_up: &dyn Fn() -> bool,
        show: &dyn Fn(&BTreeMap<String, f64>),
    ) -> bool {
        let mut current = self.lock();
        while !current.behind.is_empty() {
            if give_up() {
                return false;
            }
            show(&current.behind);
            current = self
                .changed
                .wait_timeout(current, LOOK_UP)
                .map_or_else(|poisoned| poisoned.into_inner().0, |(current, _)| current);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Current> {
        // Nothing that can panic runs under the lock; what a poisoned one holds is whole.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
