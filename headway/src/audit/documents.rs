//! The documents' part: what sink-opensearch took of the queries' results, and what stands in the indices.

use std::collections::BTreeSet;
use std::sync::Arc;

use engine::sql::Emit;
use engine::window::Window;
use processor::ledger::{LedgerPredecessor, QueryLedger};
use runtime::log::Log;
use sink_opensearch::{Target, TopicSettings};

use super::ledger::{DocumentsLedger, Ledger};
use super::queries::Query;
use super::{AuditError, Subject, partitions, tail};

/// The field of a result that says whether it is the last one of its window and group.
const IS_FINAL: &str = "is_final";

/// The documents that are audited.
pub struct Documents {
    /// The group of sink-opensearch.
    pub group: String,
    /// Where it stores documents.
    pub target: Arc<dyn Target>,
    /// The topics that it writes.
    pub topics: Vec<TopicSettings>,
}

/// Adds what became of each query's results, and the equations.
pub(super) fn add(
    ledger: &mut Ledger,
    subject: &Subject,
    documents: &Documents,
) -> Result<(), AuditError> {
    let mut done: BTreeSet<&str> = BTreeSet::new();
    for (place, query) in subject.queries.iter().enumerate() {
        if !done.insert(&query.sink_topic) {
            continue;
        }
        let named = |settings: &&TopicSettings| settings.topic == query.sink_topic;
        let Some(settings) = documents.topics.iter().find(named) else {
            ledger.unchecked.push(format!(
                "{}: documents: sink-opensearch does not write {} (sink_opensearch.topics)",
                query.name, query.sink_topic
            ));
            continue;
        };
        let part = part(subject.log.as_ref(), documents, settings, query.emit)?;
        let writers = subject.queries.iter().zip(&ledger.queries);
        let writers: Vec<_> = writers
            .filter(|(writer, _)| writer.sink_topic == query.sink_topic)
            .map(|(writer, counted)| (writer, counted.counts.clone()))
            .collect();
        let others = writers
            .iter()
            .find_map(|(_, counts)| by_others(counts, &query.sink_topic));
        if let Some(why) = others {
            let names: Vec<&str> = writers.iter().map(|(writer, _)| &*writer.name).collect();
            ledger.unchecked.push(format!(
                "{}: how many documents there must be: {why}",
                names.join(" + ")
            ));
        } else if let [(_, counts)] = writers.as_slice() {
            let before = before(counts, &query.sink_topic);
            Equations {
                query,
                settings,
                part: &part,
                emitted: counts.emitted + before.map_or(0, |of| of.results.unwrap_or(0)),
                changes: counts.changes + before.map_or(0, |of| of.changes.unwrap_or(0)),
                groups: counts.groups,
                before,
            }
            .add(ledger);
        } else {
            // Which query a document is of can't be told: only the records are compared.
            let names: Vec<&str> = writers.iter().map(|(writer, _)| &*writer.name).collect();
            let written = writers.iter().map(|(_, of)| {
                let before = before(of, &query.sink_topic);
                let before =
                    before.map_or(0, |of| of.results.unwrap_or(0) + of.changes.unwrap_or(0));
                of.emitted + of.changes + before
            });
            let written = written.sum();
            ledger.equal(
                format!("{}: results = stored + dead + waiting", names.join(" + ")),
                written,
                part.stored + part.dead + part.waiting,
            );
            ledger.unchecked.push(format!(
                "{}: how many documents there must be: they write one topic",
                names.join(" + ")
            ));
        }
        ledger.queries[place].documents = Some(part);
    }
    Ok(())
}

/// Why records of a topic are not told from what its query counts: other applications write there.
pub(super) fn by_others(counts: &QueryLedger, topic: &str) -> Option<String> {
    if let Some(to) = &counts.handed_over_to {
        return Some(format!(
            "the application was handed over to {to}, which goes on: audit that one"
        ));
    }
    let before = counts.predecessor.as_ref()?;
    let of = &before.application_id;
    if !before.handed_over {
        return Some(format!("{of} gives results until it is handed over"));
    }
    let unknown = before.results.is_none() || before.changes.is_none();
    (unknown && before.sink.as_deref() == Some(topic))
        .then(|| format!("how many results applications before {of} wrote is not known"))
}

/// The application that wrote to the topic before.
pub(super) fn before<'a>(counts: &'a QueryLedger, topic: &str) -> Option<&'a LedgerPredecessor> {
    let before = counts.predecessor.as_ref()?;
    (before.sink.as_deref() == Some(topic)).then_some(before)
}

fn part(
    log: &dyn Log,
    documents: &Documents,
    settings: &TopicSettings,
    emit: Emit,
) -> Result<DocumentsLedger, AuditError> {
    let failed = |detail: String| AuditError::Documents { detail };
    let topic = settings.topic.as_str();
    let mut part = DocumentsLedger::default();
    let partitions = partitions(log, topic)?;
    if !partitions.is_empty() {
        let taken = sink_opensearch::read_ledger(log, &documents.group, &[topic])
            .map_err(|error| failed(error.to_string()))?;
        let mut starts = Vec::new();
        for partition in partitions {
            let of = taken.get(&partition);
            if let Some(counted) = of.and_then(|of| of.ledger.as_ref()) {
                part.stored += counted.docs;
                part.dead += counted.dead;
            }
            starts.push((partition, of.map_or(0, |of| of.offset)));
        }
        part.waiting = tail::records(log, starts.into_iter())?;
    }
    let indices = settings
        .indices()
        .map_err(|error| failed(error.to_string()))?;
    let count = |only| {
        let counted = documents.target.count(&indices, only);
        counted.map_err(|error| failed(error.to_string()))
    };
    part.documents = count(None)?;
    if emit == Emit::Changes {
        part.final_documents = Some(count(Some(IS_FINAL))?);
    }
    Ok(part)
}

/// What must hold between a query's results and its documents.
struct Equations<'a> {
    query: &'a Query,
    settings: &'a TopicSettings,
    part: &'a DocumentsLedger,
    emitted: u64,
    changes: u64,
    groups: u64,
    /// The application whose results are among them: it wrote to the same topic before.
    before: Option<&'a LedgerPredecessor>,
}

impl Equations<'_> {
    fn add(&self, ledger: &mut Ledger) {
        let (name, part) = (&self.query.name, self.part);
        if self.query.window.is_none() {
            self.records(ledger);
            self.rows(ledger);
            return;
        }
        if !self.one_document_each() {
            self.records(ledger);
            self.no_more_than_stored(ledger);
            ledger.unchecked.push(format!(
                "{name}: how many documents there must be: their ids are made of {}, and results are told apart by {}",
                self.settings.keys.join(", "),
                self.query.key.join(", ")
            ));
            return;
        }
        match (self.query.emit, self.query.window) {
            (Emit::Final, _) if self.other_groups() => {
                self.records(ledger);
                ledger.at_most(
                    format!(
                        "{name}: documents + dead + waiting <= results{}",
                        self.of_both()
                    ),
                    part.documents + part.dead + part.waiting,
                    self.emitted,
                );
            }
            (Emit::Final, _) => ledger.equal(
                format!(
                    "{name}: results{} = documents + dead + waiting",
                    self.of_both()
                ),
                self.emitted,
                part.documents + part.dead + part.waiting,
            ),
            (Emit::Changes, Some(Window::Unbounded { ttl_ms })) => {
                self.records(ledger);
                self.groups(ledger, ttl_ms.is_some());
            }
            (Emit::Changes, _) => {
                self.records(ledger);
                self.final_results(ledger);
            }
        }
    }

    /// Whether every result, whatever its version, has one document of its own.
    fn one_document_each(&self) -> bool {
        let keys = &self.settings.keys;
        keys.is_empty() || self.query.key.iter().all(|column| keys.contains(column))
    }

    /// Whether an application before this one put rows into other windows or groups, so that both may have written one
    /// document.
    fn other_groups(&self) -> bool {
        self.before.is_some_and(|before| !before.same_groups)
    }

    /// Whose results are meant, if not of one application alone.
    fn of_both(&self) -> String {
        self.before.map_or(String::new(), |of| {
            format!(" and those of {}", of.application_id)
        })
    }

    /// Every record that was written is stored, dead or waiting: documents are its versions.
    fn records(&self, ledger: &mut Ledger) {
        let part = self.part;
        let written = match self.query.emit {
            Emit::Final => "results",
            Emit::Changes => "changes + final results",
        };
        ledger.equal(
            format!(
                "{}: {written}{} = stored + dead + waiting",
                self.query.name,
                self.of_both()
            ),
            self.changes + self.emitted,
            part.stored + part.dead + part.waiting,
        );
    }

    fn no_more_than_stored(&self, ledger: &mut Ledger) {
        ledger.at_most(
            format!("{}: documents <= stored", self.query.name),
            self.part.documents,
            self.part.stored,
        );
    }

    /// A closed window's results each stand as a final document, once all records are there.
    fn final_results(&self, ledger: &mut Ledger) {
        let (name, part) = (&self.query.name, self.part);
        let found = part.final_documents.unwrap_or(0);
        if part.waiting > 0 {
            ledger.unchecked.push(format!(
                "{name}: final results = final documents: {} records are waiting, and which of them are final is not counted",
                part.waiting
            ));
        } else if part.dead > 0 {
            // Which of the dead letters were final is not counted either.
            ledger.at_most(
                format!("{name}: final documents <= final results"),
                found,
                self.emitted,
            );
            ledger.at_most(
                format!("{name}: final results <= final documents + dead"),
                self.emitted,
                found + part.dead,
            );
        } else if self.other_groups() {
            ledger.at_most(
                format!("{name}: final documents <= final results{}", self.of_both()),
                found,
                self.emitted,
            );
        } else {
            ledger.equal(
                format!("{name}: final results{} = final documents", self.of_both()),
                self.emitted,
                found,
            );
        }
    }

    /// Rows are told apart by nothing but what the job calls their key: several may share a document.
    fn rows(&self, ledger: &mut Ledger) {
        let (name, part) = (&self.query.name, self.part);
        if self.settings.keys.is_empty() {
            ledger.equal(
                format!("{name}: documents = stored"),
                part.documents,
                part.stored,
            );
            return;
        }
        self.no_more_than_stored(ledger);
        ledger.unchecked.push(format!(
            "{name}: how many documents there must be: rows with the same {} share one",
            self.settings.keys.join(", ")
        ));
    }

    /// Groups without windows have no final results: there is a document for each group, once all records are there.
    fn groups(&self, ledger: &mut Ledger, forgotten: bool) {
        let (name, part) = (&self.query.name, self.part);
        if self.settings.keys.is_empty() {
            // Each record is a document of its own.
            ledger.equal(
                format!("{name}: documents = stored"),
                part.documents,
                part.stored,
            );
        } else if forgotten {
            self.no_more_than_stored(ledger);
            ledger.unchecked.push(format!(
                "{name}: how many documents there must be: groups are forgotten after state_ttl, and documents stay"
            ));
        } else if let Some(before) = self.before {
            // That one may have had groups that this one does not keep.
            if part.waiting > 0 || part.dead > 0 || self.query.having {
                self.no_more_than_stored(ledger);
            } else {
                ledger.at_most(
                    format!("{name}: groups <= documents"),
                    self.groups,
                    part.documents,
                );
            }
            ledger.unchecked.push(format!(
                "{name}: documents = groups: {} may have had others",
                before.application_id
            ));
        } else if self.query.having || part.waiting > 0 || part.dead > 0 {
            ledger.at_most(
                format!("{name}: documents <= groups"),
                part.documents,
                self.groups,
            );
            let why = if self.query.having {
                "a group that HAVING leaves out may have a document or not".to_owned()
            } else {
                format!(
                    "{} records are waiting and {} are dead, and of how many groups is not counted",
                    part.waiting, part.dead
                )
            };
            ledger
                .unchecked
                .push(format!("{name}: documents = groups: {why}"));
        } else {
            ledger.equal(
                format!("{name}: documents = groups"),
                part.documents,
                self.groups,
            );
        }
    }
}
