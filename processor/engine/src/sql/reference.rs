//! `CREATE REFERENCE TABLE name [(column TYPE, …)] WITH (path | topic, key, format)`.

use std::collections::BTreeSet;
use std::path::Path;

use datafusion_sql::sqlparser::parser::{Parser, ParserError};

use super::names::declare;
use super::options::{Options, format};
use super::statement::Reader;
use super::{JobError, Location, ReferenceTable, Script, TableOrigin, columns};

const OPTIONS: [&str; 4] = ["path", "topic", "key", "format"];
const KIND: &str = "REFERENCE TABLE";

impl Reader {
    pub(super) fn reference_table(
        &mut self,
        parser: &mut Parser<'_>,
        at: Location,
    ) -> Result<(), ParserError> {
        let name = self.name(parser)?;
        self.broken.insert(name.clone());
        let before = self.errors.len();
        let columns = columns::parse(parser, KIND, &mut self.errors)?;
        let mut options = Options::parse(parser, at, &mut self.errors)?;
        self.options(&name, &options);
        Self::end(parser)?;
        let errors = &mut self.errors;
        let columns_at = columns.as_ref().map(|(_, at)| *at);
        let (origin, origin_at) = origin(&mut options, columns_at, at, errors);
        let (key, key_at) = key(&mut options, errors);
        options.finish("CREATE REFERENCE TABLE", &OPTIONS, errors);
        if self.errors.len() == before {
            self.broken.remove(&name);
        }
        let table = ReferenceTable {
            name: name.clone(),
            origin,
            columns: columns.map(|(columns, _)| columns),
            key,
            at,
            origin_at,
            key_at,
        };
        self.script.tables.entry(name).or_insert(table);
        Ok(())
    }
}

/// Where the rows come from, and where that is said.
fn origin(
    options: &mut Options,
    columns: Option<Location>,
    at: Location,
    errors: &mut Vec<JobError>,
) -> (TableOrigin, Location) {
    let path = options.optional("path", "zones.csv", errors);
    let topic = options.optional("topic", "drivers", errors);
    match (path, topic) {
        (None, Some((topic, topic_at))) => {
            let format = format(options, KIND, columns, at, errors);
            (TableOrigin::Topic { topic, format }, topic_at)
        }
        (Some((path, path_at)), None) => {
            if let Some((_, at)) = options.optional("format", "avro", errors) {
                errors.push(JobError::new(
                    at,
                    "format is for topics: a file's name says what it is",
                    "leave it out",
                ));
            }
            (file(path, path_at, columns, at, errors), path_at)
        }
        (Some((path, _)), Some((_, topic_at))) => {
            errors.push(JobError::new(
                topic_at,
                "a reference table is read from a file or from a topic, not from both",
                "keep one of path and topic",
            ));
            (TableOrigin::Csv(path), topic_at)
        }
        (None, None) => {
            errors.push(JobError::new(
                at,
                "the reference table says neither which file nor which topic it is",
                "add to WITH (…): path = 'zones.csv', or topic = 'drivers'",
            ));
            (TableOrigin::Csv(String::new()), at)
        }
    }
}

fn file(
    path: String,
    path_at: Location,
    columns: Option<Location>,
    at: Location,
    errors: &mut Vec<JobError>,
) -> TableOrigin {
    let extension = Path::new(&path)
        .extension()
        .map(|extension| extension.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("csv") => {
            if columns.is_none() {
                errors.push(JobError::new(
                    at,
                    "a CSV file has no types: its columns must be declared",
                    "write CREATE REFERENCE TABLE name (cell TEXT NOT NULL, zone TEXT) WITH (…)",
                ));
            }
            TableOrigin::Csv(path)
        }
        Some("parquet") => TableOrigin::Parquet(path),
        // An option that is no text has its error already.
        _ if path.is_empty() => TableOrigin::Csv(path),
        _ => {
            errors.push(JobError::new(
                path_at,
                format!("{path} is neither a CSV file nor a Parquet file by its name"),
                "a reference table's file ends with .csv or .parquet",
            ));
            TableOrigin::Csv(path)
        }
    }
}

fn key(options: &mut Options, errors: &mut Vec<JobError>) -> (Vec<String>, Location) {
    let (text, at) = options.required("key", "cell", errors);
    let key: Vec<String> = text.split(',').map(|part| part.trim().to_owned()).collect();
    let distinct: BTreeSet<&String> = key.iter().collect();
    if key.len() > 1 && (key.iter().any(String::is_empty) || distinct.len() < key.len()) {
        errors.push(JobError::new(
            at,
            "the key has an empty part, or one twice",
            "write key = 'cell', or key = 'country, city'",
        ));
    }
    (key, at)
}

/// What can be told of reference tables only when all statements are read.
pub(super) fn check(script: &Script, broken: &BTreeSet<String>, errors: &mut Vec<JobError>) {
    for insert in &script.inserts {
        if script.tables.contains_key(&insert.source) {
            errors.push(JobError::new(
                insert.source_at,
                format!(
                    "{} is a reference table, and rows come from a source",
                    insert.source
                ),
                format!(
                    "write FROM source AS s JOIN {} ON {}.key = s.column",
                    insert.source, insert.source
                ),
            ));
        }
        for join in &insert.joins {
            if script.tables.contains_key(&join.table) || broken.contains(&join.table) {
                continue;
            }
            let (what, help) = if script.sources.contains_key(&join.table) {
                (
                    format!(
                        "{} is a source, and only reference tables can be joined",
                        join.table
                    ),
                    format!(
                        "if its topic holds the last record of each key, declare it: CREATE REFERENCE TABLE {} WITH (topic = '…', key = '…');",
                        join.table
                    ),
                )
            } else {
                (
                    format!("there is no reference table {}", join.table),
                    declare(KIND, &join.table, script.tables.keys()),
                )
            };
            errors.push(JobError::new(join.at, what, help));
        }
    }
    for table in script.tables.values() {
        let TableOrigin::Topic { topic, .. } = &table.origin else {
            continue;
        };
        if let Some(sink) = script
            .sinks
            .values()
            .find(|sink| sink.topic == *topic && !topic.is_empty())
        {
            errors.push(JobError::new(
                table.origin_at,
                format!(
                    "the topic {topic} is written by {}: what a row finds would depend on how far the job is",
                    sink.name
                ),
                "write it by a job of its own",
            ));
        }
    }
}

/// Tables that nothing reads.
pub(super) fn unread(script: &Script, errors: &mut Vec<JobError>) {
    for table in script.tables.values() {
        let joined =
            |insert: &super::Insert| insert.joins.iter().any(|join| join.table == table.name);
        if !script.inserts.iter().any(joined) {
            errors.push(JobError::new(
                table.at,
                format!("nothing reads the reference table {}", table.name),
                format!(
                    "join it in a query, with LEFT JOIN {} ON …, or leave it out",
                    table.name
                ),
            ));
        }
    }
}
