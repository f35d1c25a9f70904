//! What windows, ranking, changes and scores ask of each other.

use datafusion_expr::Expr;

use super::build::Job;
use super::context::WINDOW_COLUMNS;
use super::fragments::GroupColumn;
use super::lookups::Lookup;
use super::parts::Parts;
use super::{check, score};
use crate::functions::anomaly::AnomalyScore;
use crate::sql::{Emit, JobError};
use crate::window::Window;

/// Refuses the combinations that cannot be run.
pub(super) fn check(
    job: &Job<'_>,
    parts: &Parts,
    lookups: &[Lookup],
    columns: &[GroupColumn],
    window: Window,
    errors: &mut Vec<JobError>,
) {
    let at = job.insert.at;
    let keys = parts
        .groups
        .iter()
        .zip(columns)
        .filter_map(|(group, column)| matches!(column, GroupColumn::Key(_)).then_some(group));
    let looked_up = lookups.iter().flat_map(|lookup| &lookup.keys);
    let scanned: Vec<&Expr> = keys
        .chain(&parts.aggregates)
        .chain(&parts.filter)
        .chain(looked_up)
        .collect();
    let uses_window = scanned
        .iter()
        .flat_map(|expr| expr.column_refs())
        .any(|column| WINDOW_COLUMNS.contains(&column.name.as_str()));
    if uses_window && !matches!(window, Window::Tumbling { .. }) {
        errors.push(JobError::new(
            at,
            "window_start and window_end are not known when a row is read: it may be in several windows, or its session may still grow",
            "use them by themselves in GROUP BY, and in the SELECT list and HAVING",
        ));
    }
    let ranked = parts.top.is_some();
    if ranked && !matches!(window, Window::Tumbling { .. } | Window::Hopping { .. }) {
        errors.push(JobError::new(
            at,
            "ORDER BY … LIMIT ranks the groups of a window, and these windows are each group's own",
            "use TUMBLE or HOP",
        ));
    }
    let changes = job.sink.emit == Emit::Changes;
    let emit_at = job.script.option_at(&job.sink.name, "emit", job.sink.at);
    for (used, clause) in [
        (parts.having.is_some(), "HAVING"),
        (ranked, "ORDER BY … LIMIT"),
    ] {
        if changes && used {
            errors.push(JobError::new(
                emit_at,
                format!("with emit = 'changes', rows that {clause} lets through would stay when it no longer does"),
                "write emit = 'final', or let the reader choose",
            ));
        }
    }
    if changes && matches!(window, Window::Session { .. }) {
        errors.push(JobError::new(
            emit_at,
            "a session's start, which is part of its key, may still change: the rows before would stay",
            "write emit = 'final'",
        ));
    }
    if scanned.iter().any(|expr| score::is_in(expr)) {
        errors.push(JobError::new(
            check::call_at(&job.insert.query, AnomalyScore::NAME).unwrap_or(at),
            "anomaly_score compares a window's values, which are not known when a row is read",
            "use it in the SELECT list or HAVING: anomaly_score(count(*))",
        ));
    }
    let scores = parts
        .projection
        .iter()
        .map(|(expr, _)| expr)
        .chain(&parts.having)
        .chain(
            parts
                .top
                .iter()
                .flat_map(|(order, _)| order.iter().map(|by| &by.expr)),
        )
        .any(score::is_in);
    if scores && ranked {
        errors.push(JobError::new(
            check::call_at(&job.insert.query, AnomalyScore::NAME).unwrap_or(at),
            "a query ranks the groups of a window or compares a group's windows, not both: their states live in different shards",
            "write an INSERT for each",
        ));
    }
    if scores && !window.is_bounded() {
        errors.push(JobError::new(
            check::call_at(&job.insert.query, AnomalyScore::NAME).unwrap_or(at),
            "anomaly_score compares windows, and the query has none",
            "group by a window",
        ));
    }
}
