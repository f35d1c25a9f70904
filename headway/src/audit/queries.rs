//! A query's part: what it took of its topic, and what became of it in the shards.

use std::collections::{BTreeMap, BTreeSet};

use engine::sql::{Emit, Script};
use engine::window::Window;
use processor::ledger::LedgerGap;

use super::documents::{before, by_others};
use super::ledger::{Ledger, QueryLedger, ResultsOf};
use super::{AuditError, Subject, partitions, tail};

/// A query of the job that is audited.
#[derive(Clone, Debug)]
pub struct Query {
    /// Its name.
    pub name: String,
    /// The topic that it reads.
    pub source_topic: String,
    /// Its place among the job's queries of that topic.
    pub place: usize,
    /// How it cuts event time; `None` if each row that it keeps is a result.
    pub window: Option<Window>,
    /// When its results are written.
    pub emit: Emit,
    /// Whether it has a HAVING, so that not every group has a result.
    pub having: bool,
    /// The topic of its results.
    pub sink_topic: String,
    /// The columns that tell its results apart.
    pub key: Vec<String>,
}

impl Query {
    /// The queries of a job, in its order.
    pub fn all(script: &Script) -> Vec<Self> {
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        let mut queries = Vec::new();
        for insert in &script.inserts {
            // A script that was parsed names no source and no sink that it does not declare.
            let (Some(source), Some(sink)) = (
                script.sources.get(&insert.source),
                script.sinks.get(&insert.sink),
            ) else {
                continue;
            };
            let ttl = sink
                .state_ttl
                .map(|ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX));
            let window = insert.window.map(|window| match window {
                Window::Unbounded { .. } => Window::Unbounded { ttl_ms: ttl },
                bounded => bounded,
            });
            let place = places.entry(&source.topic).or_default();
            queries.push(Self {
                name: insert.sink.clone(),
                source_topic: source.topic.clone(),
                place: *place,
                window,
                emit: sink.emit,
                having: insert.clauses().having.is_some(),
                sink_topic: sink.topic.clone(),
                key: sink.key.clone(),
            });
            *place += 1;
        }
        queries
    }

    /// What its results are of.
    pub fn results_of(&self) -> ResultsOf {
        match self.window {
            None => ResultsOf::Rows,
            Some(window) if window.is_bounded() => ResultsOf::Windows,
            Some(_) => ResultsOf::Groups,
        }
    }
}

/// Adds the part of every query, and its equations.
pub(super) fn add(ledger: &mut Ledger, subject: &Subject) -> Result<(), AuditError> {
    ledger.queries = subject
        .queries
        .iter()
        .map(|query| part(subject, query))
        .collect::<Result<_, _>>()?;
    for (query, part) in subject.queries.iter().zip(&ledger.queries.clone()) {
        let name = &query.name;
        let counts = &part.counts;
        match written_to(ledger, subject, &query.source_topic) {
            // What was given up are offsets: how many rows lay there, nobody knows, but no more than offsets.
            Ok((what, written)) if !counts.gaps.is_empty() => {
                let found = counts.rows_in + part.waiting;
                ledger.at_most(format!("{name}: taken + waiting <= {what}"), found, written);
                ledger.at_most(
                    format!("{name}: {what} <= taken + waiting + offsets given up"),
                    written,
                    found + given_up(counts.gaps.iter()),
                );
            }
            Ok((what, written)) => ledger.equal(
                format!("{name}: {what} = taken + waiting"),
                written,
                counts.rows_in + part.waiting,
            ),
            Err(why) => ledger.unchecked.push(format!(
                "{name}: whether it took all of {}: {why}",
                query.source_topic
            )),
        }
        for gap in &counts.gaps {
            let what = format!(
                "{name}: {gap} (processor offsets accept-gap): rows there are in no result"
            );
            ledger.unchecked.push(what);
        }
        ledger.equal(
            format!("{name}: taken = kept + filtered + dead"),
            counts.rows_in,
            counts.kept + counts.filtered + counts.dead + counts.undecodable,
        );
        taken_over(ledger, counts);
        if let Some(window) = query.window {
            assigned(ledger, name, part, window);
        }
    }
    Ok(())
}

/// That the shards took what the scan gave them.
fn assigned(ledger: &mut Ledger, name: &str, part: &QueryLedger, window: Window) {
    let counts = &part.counts;
    let found = counts.merged + counts.late + part.in_flight;
    let lost_in_shards = || counts.gaps.iter().filter(|gap| gap.shard.is_some());
    // An offset without its metadata: what was counted below it is gone, and the shards know more.
    let lost_counts = counts
        .gaps
        .iter()
        .any(|gap| gap.shard.is_none() && gap.from == 0);
    match (lost_counts, lost_in_shards().next().is_some()) {
        (false, false) => ledger.equal(
            format!("{name}: assigned = merged + late + in flight"),
            counts.assigned,
            found,
        ),
        (true, false) => ledger.at_most(
            format!("{name}: assigned <= merged + late + in flight"),
            counts.assigned,
            found,
        ),
        (lost_counts, true) => {
            if !lost_counts {
                ledger.at_most(
                    format!("{name}: merged + late + in flight <= assigned"),
                    found,
                    counts.assigned,
                );
            }
            ledger.at_most(
                format!("{name}: assigned <= merged + late + in flight + pairs given up"),
                counts.assigned,
                found + window.most_windows() * given_up(lost_in_shards()),
            );
        }
    }
}

/// How many offsets of the source were given up: several shards may lack the same ones.
fn given_up<'a>(gaps: impl Iterator<Item = &'a LedgerGap>) -> u64 {
    let ranges: BTreeSet<_> = gaps.map(|gap| (gap.partition, gap.from, gap.to)).collect();
    let lengths = ranges
        .iter()
        .map(|(_, from, to)| u64::try_from(to - from).unwrap_or(0));
    lengths.sum()
}

/// What is left to an earlier application.
fn taken_over(ledger: &mut Ledger, counts: &processor::ledger::QueryLedger) {
    let name = &counts.query;
    if let Some(before) = &counts.predecessor {
        let of = &before.application_id;
        if before.handed_over {
            ledger.at_most(
                format!("{name}: in windows or rows that {of} gave <= kept in windows"),
                counts.given_before,
                counts.merged.max(counts.kept),
            );
        } else {
            ledger.unchecked.push(format!(
                "{name}: its results: {of} gives them until it is handed over (processor cutover)"
            ));
        }
    }
}

fn part(subject: &Subject, query: &Query) -> Result<QueryLedger, AuditError> {
    let log = subject.log.as_ref();
    let mut counts = processor::ledger::read(
        log,
        &subject.application_id,
        &query.name,
        &query.source_topic,
        query.place,
    )?;
    let offsets = counts.source_offsets.iter().copied();
    let starts = partitions(log, &query.source_topic)?
        .into_iter()
        .zip(offsets.chain(std::iter::repeat(0)));
    let waiting = tail::records(log, starts)?;
    let in_flight = match query.window {
        Some(window) => tail::partial_pairs(log, &subject.application_id, &query.name, window)?,
        None => {
            // It has no shards that would count results: the scan gives each row that it keeps, and that no application
            // before it gave.
            counts.emitted = counts.kept.saturating_sub(counts.given_before);
            0
        }
    };
    Ok(QueryLedger {
        counts,
        source: query.source_topic.clone(),
        sink: query.sink_topic.clone(),
        results_of: query.results_of(),
        emits_changes: query.emit == Emit::Changes,
        waiting,
        in_flight,
        documents: None,
    })
}

/// How many records were written to a topic, as those say who write it, and what these are called in an equation; or why
/// that is not known.
fn written_to(ledger: &Ledger, subject: &Subject, topic: &str) -> Result<(String, u64), String> {
    let mut terms = Vec::new();
    let mut written = 0;
    if topic == subject.topic {
        terms.push("delivered".to_owned());
        written += ledger.producer.delivered;
    }
    for query in ledger.queries.iter().filter(|query| query.sink == topic) {
        let counts = &query.counts;
        if let Some(why) = by_others(counts, topic) {
            return Err(why);
        }
        terms.push(format!("results of {}", counts.query));
        written += counts.emitted + counts.changes;
        if let Some(before) = before(counts, topic) {
            terms.push(format!("those of {}", before.application_id));
            written += before.results.unwrap_or(0) + before.changes.unwrap_or(0);
        }
    }
    match terms.is_empty() {
        false => Ok((terms.join(" + "), written)),
        true => Err("neither the producer nor a query of the job writes that topic".into()),
    }
}
