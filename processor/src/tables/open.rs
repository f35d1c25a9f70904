//! From a job's statements to its reference tables.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use engine::plan::Query;
use engine::reference::Snapshot;
use engine::sql::{JobError, ReferenceTable, Script, TableOrigin};
use runtime::log::Log;
use runtime::topics::{Use, check};

use super::ReferenceTables;
use super::file::load;
use crate::columns::KnownColumns;
use crate::job::{JobLoadError, JobOptions, Reader};
use crate::topics::TopicError;

/// Loads the reference tables that are files, and looks at the topics of the others.
pub(crate) fn open(
    log: &dyn Log,
    script: &Script,
    queries: &[Query],
    known: &BTreeMap<String, KnownColumns>,
    options: &JobOptions,
) -> Result<ReferenceTables, JobLoadError> {
    let mut loaded = ReferenceTables::default();
    let files = load_files(script, queries, &options.folder).map_err(JobLoadError::Sql)?;
    for (name, rows) in files {
        loaded.add_file(&name, rows);
    }
    for table in script.tables.values() {
        let TableOrigin::Topic { topic, .. } = &table.origin else {
            continue;
        };
        let found = log.topic(topic).map_err(|source| TopicError::Log {
            topic: topic.clone(),
            source,
        })?;
        let found = found.ok_or_else(|| JobLoadError::NoTable {
            table: table.name.clone(),
            topic: topic.clone(),
        })?;
        check(&found, Use::Table, options.durability).map_err(TopicError::from)?;
        let unusable = |detail: String| JobLoadError::Schema {
            topic: topic.clone(),
            detail,
        };
        let kept = kept(table, queries);
        let kept: Vec<&str> = kept.iter().map(String::as_str).collect();
        let text = known.get(&table.name).and_then(|known| known.text.as_ref());
        let reader = Reader::of(text, table.columns.as_ref(), &kept).map_err(unusable)?;
        loaded
            .add_topic(table, topic, reader)
            .map_err(|error| unusable(error.to_string()))?;
    }
    Ok(loaded)
}

/// The columns of a table that some query reads, and those of its key: what is kept of it.
fn kept(table: &ReferenceTable, queries: &[Query]) -> Vec<String> {
    let mut kept = table.key.clone();
    for lookup in queries.iter().flat_map(|query| &query.lookups) {
        if lookup.join.table == table.name {
            let more = lookup.columns.iter().filter(|name| !kept.contains(name));
            let more: Vec<String> = more.cloned().collect();
            kept.extend(more);
        }
    }
    kept
}

/// Loads every table of a script that is a file, with the columns that the queries read. `folder` is where relative paths
/// begin.
///
/// # Errors
/// All that is wrong with the files.
pub(crate) fn load_files(
    script: &Script,
    queries: &[Query],
    folder: &Path,
) -> Result<Vec<(String, Snapshot)>, Vec<JobError>> {
    let mut loaded = Vec::new();
    let mut errors = Vec::new();
    for table in script.tables.values() {
        if path_of(table, folder).is_none() {
            continue;
        }
        match load(table, folder, &kept(table, queries)) {
            Ok(rows) => loaded.push((table.name.clone(), rows)),
            Err(more) => errors.extend(more),
        }
    }
    if errors.is_empty() {
        Ok(loaded)
    } else {
        Err(errors)
    }
}

/// Where a table's file is, if it is one.
pub(super) fn path_of(table: &ReferenceTable, folder: &Path) -> Option<PathBuf> {
    match &table.origin {
        TableOrigin::Csv(path) | TableOrigin::Parquet(path) => Some(folder.join(path)),
        TableOrigin::Topic { .. } => None,
    }
}
