//! A job as a graph, with what is going on in it: sources, scans, partials, merges, sinks, and the queries that read the
//! results of others.
//!
//! ```text
//!   topic ──▶ scan ──▶ partials ──▶ merge ──▶ topic ──▶ scan ──▶ …
//! ```
//!
//! What stands in the log (rows, offsets, watermarks) is of all members together, and is asked for anew when it is older
//! than a second; open windows, and what is restored, are of the shards that this process holds.

mod draw;
mod graph;
mod latest;
mod layout;
mod parts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use engine::watermark::END_OF_TIME;
use runtime::telemetry::PageAnswer;
use serde_json::json;

use crate::check::{QueryExplained, explained};
use crate::job::Job;
use crate::offsets::ScanCounts;
use crate::progress::Progress;
use crate::status::Status;
use crate::words::instant;
use graph::{Graph, topic_id};
pub use latest::Latest;
pub use parts::{
    Edge, MergePart, Node, Part, PartialsPart, ScanPart, ShardPart, SourcePartition, TablePart,
    TopicPart, Topology,
};

/// The page: `format=svg` is a drawing, `format=html` a page that draws it anew every few seconds; JSON otherwise.
pub fn page(
    progress: &Progress,
    latest: &Arc<Latest>,
    parameters: &BTreeMap<String, String>,
) -> PageAnswer {
    let format = parameters.get("format").map_or("json", String::as_str);
    let answer = |content_type, body| PageAnswer {
        status: 200,
        content_type,
        body,
    };
    if !["json", "svg", "html"].contains(&format) {
        let error = json!({"error": format!("there is no format {format:?}: json, svg or html")});
        return PageAnswer::json(400, format!("{error:#}\n"));
    }
    let Some((job, log)) = progress.views.running() else {
        let error = json!({"error": "the job is being loaded"});
        return PageAnswer::json(503, format!("{error:#}\n"));
    };
    let topology = of(&job, progress, &latest.look(&job, &log));
    match format {
        "svg" => answer("image/svg+xml", draw::svg(&topology)),
        "html" => answer("text/html; charset=utf-8", draw::html(&topology)),
        _ => match serde_json::to_string_pretty(&topology) {
            Ok(body) => PageAnswer::json(200, body + "\n"),
            Err(error) => PageAnswer::json(500, format!("{:#}\n", json!(error.to_string()))),
        },
    }
}

/// What the log said last.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// How far the application is.
    pub status: Status,
    /// When the log said so, in milliseconds since 1970.
    pub at_ms: Option<i64>,
    /// Why it said nothing the last time it was asked.
    pub error: Option<String>,
}

/// A job as a graph, with what the log says of it and what this process has of it.
pub fn of(job: &Job, progress: &Progress, seen: &Seen) -> Topology {
    let mut graph = Graph::default();
    // The text was parsed when the job was loaded.
    let script = engine::sql::parse(&job.options.sql).ok();
    let application_id = &job.options.application_id;
    for source in job.sources.values() {
        graph.topic(&source.topic).read = true;
    }
    for query in &job.queries {
        let plan = &query.plan;
        let explained = script
            .as_ref()
            .map(|script| explained(plan, script, application_id, job.options.shards, &|_| None));
        let Some(explained) = explained else { continue };
        let (from, to) = (&plan.source.topic, &plan.sink.topic);
        graph.topic(from).time = Some(explained.time.clone());
        graph.topic(to).written = true;
        let place = job.sources.get(from).and_then(|source| {
            source.queries.iter().position(|index| {
                job.queries
                    .get(*index)
                    .is_some_and(|other| Arc::ptr_eq(other, query))
            })
        });
        let scan = graph.add(
            "scan",
            &plan.name,
            Part::Scan(scan(&explained, place, from, seen)),
        );
        graph.join(topic_id(from), scan.clone());
        for lookup in &explained.scan.lookups {
            let table = graph.table(lookup);
            graph.join(table, scan.clone());
        }
        let Some(folded) = &query.folded else {
            graph.join(scan, topic_id(to));
            continue;
        };
        let shards: Vec<_> = seen
            .status
            .shards
            .iter()
            .filter(|shard| shard.query == plan.name)
            .collect();
        let partials = PartialsPart {
            shards: job.options.shards,
            lag: shards.iter().map(|shard| shard.place.lag).sum(),
        };
        let partials = graph.add("partials", &folded.partials_topic, Part::Partials(partials));
        let merge = merge(&explained, &plan.name, job.options.shards, progress, seen);
        let merge = graph.add("merge", &plan.name, Part::Merge(merge));
        graph.join(scan, partials.clone());
        graph.join(partials, merge.clone());
        graph.join(merge, topic_id(to));
    }
    for source in job.sources.values() {
        read_from(graph.topic(&source.topic), &source.topic, progress, seen);
    }
    let (nodes, edges) = graph.finished();
    Topology {
        application_id: application_id.clone(),
        log_as_of: seen.at_ms.map(instant),
        log_error: seen.error.clone(),
        nodes,
        edges,
    }
}

fn scan(explained: &QueryExplained, place: Option<usize>, topic: &str, seen: &Seen) -> ScanPart {
    let mut counts = ScanCounts::default();
    let partitions = seen
        .status
        .sources
        .iter()
        .filter(|source| source.topic == topic);
    for state in partitions.filter_map(|source| source.place.state.as_ref()) {
        if let Some(of) = place.and_then(|place| state.queries.get(place)) {
            counts.filtered += of.filtered;
            counts.dead += of.dead;
            counts.kept += of.kept;
            counts.assigned += of.assigned;
        }
    }
    ScanPart {
        scan: explained.scan.clone(),
        filtered: counts.filtered,
        dead: counts.dead,
        kept: counts.kept,
        assigned: counts.assigned,
    }
}

fn read_from(part: &mut TopicPart, topic: &str, progress: &Progress, seen: &Seen) {
    let here = progress.here();
    let of = |partition: i32| here.get(&(topic.to_owned(), partition));
    let known = seen
        .status
        .sources
        .iter()
        .filter(|source| source.topic == topic);
    let mut partitions: BTreeMap<i32, SourcePartition> = known
        .map(|source| {
            let place = &source.place;
            let partition = SourcePartition {
                partition: place.partition,
                here: false,
                committed: place.committed,
                lag: Some(place.lag),
                rows_in: place.state.as_ref().map(|state| state.rows_in),
                watermark: None,
                at_end: None,
                idle: None,
                paused: None,
                problem: place.problem.clone(),
            };
            (place.partition, partition)
        })
        .collect();
    for (_, partition) in here.keys().filter(|(other, _)| other == topic) {
        partitions.entry(*partition).or_insert(SourcePartition {
            partition: *partition,
            here: true,
            committed: None,
            lag: None,
            rows_in: None,
            watermark: None,
            at_end: None,
            idle: None,
            paused: None,
            problem: None,
        });
    }
    let mut least: Option<i64> = None;
    for (number, partition) in &mut partitions {
        if let Some(reading) = of(*number) {
            partition.here = true;
            partition.watermark = reading.watermark.map(instant);
            partition.at_end = Some(reading.at_end);
            partition.idle = Some(reading.idle);
            partition.paused = Some(reading.paused);
            least = match (least, reading.watermark) {
                (Some(least), Some(watermark)) => Some(least.min(watermark)),
                (least, watermark) => least.or(watermark),
            };
        }
    }
    part.partitions = partitions.into_values().collect();
    part.rows_in = part.partitions.iter().filter_map(|p| p.rows_in).sum();
    part.lag = part.partitions.iter().filter_map(|p| p.lag).sum();
    part.watermark = least.map(instant);
}

fn merge(
    explained: &QueryExplained,
    query: &str,
    shards: u32,
    progress: &Progress,
    seen: &Seen,
) -> MergePart {
    let here: BTreeSet<i32> = progress
        .shards_here()
        .into_iter()
        .filter_map(|(of, shard)| (of == query).then_some(shard))
        .collect();
    let live = progress.shards();
    let mut part = MergePart {
        merge: explained.merge.clone(),
        finish: explained.finish.clone(),
        emit: explained.time.emit.clone(),
        watermark: None,
        ended: false,
        open: 0,
        merged: 0,
        late: 0,
        closed: 0,
        emitted: 0,
        changes: 0,
        shard: Vec::new(),
    };
    let mut watermarks = Vec::new();
    for shard in 0..i32::try_from(shards).unwrap_or(i32::MAX) {
        let known = seen
            .status
            .shards
            .iter()
            .find(|known| known.query == query && known.place.partition == shard)
            .map(|known| &known.place);
        let state = known
            .and_then(|place| place.state.clone())
            .unwrap_or_default();
        let live = live
            .get(&(query.to_owned(), shard))
            .filter(|_| here.contains(&shard));
        let watermark = match live {
            Some(live) => state.watermark.max(live.watermark),
            None => state.watermark,
        };
        watermarks.push(watermark);
        part.open += live.map_or(0, |live| live.open);
        part.merged += state.merged;
        part.late += state.late;
        part.closed += state.closed;
        part.emitted += state.emitted;
        part.changes += state.changes;
        part.shard.push(ShardPart {
            shard,
            here: here.contains(&shard),
            committed: known.and_then(|place| place.committed),
            lag: known.map(|place| place.lag),
            watermark: watermark.filter(|at| *at != END_OF_TIME).map(instant),
            open: live.map(|live| live.open),
            restored: live.map(|live| live.restored),
            problem: known.and_then(|place| place.problem.clone()),
        });
    }
    let least = watermarks.iter().min().copied().flatten();
    part.ended = least == Some(END_OF_TIME);
    part.watermark = least.filter(|at| *at != END_OF_TIME).map(instant);
    part
}
