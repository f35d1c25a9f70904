//! A query without groups: SELECT … FROM source [JOIN …] WHERE …, a result for each row.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use datafusion_common::{DFSchemaRef, Result};
use datafusion_expr::{Expr, LogicalPlan};

use super::build::Job;
use super::compile::{conditioned, physical, simplify};
use super::fragments::Fragments;
use super::lookups::{self, Lookup, compiled, described, relations, simplified_keys};
use super::reads::Reads;
use super::{FORMAT, Query, Spread, WINDOW_START, check, record_time, score};
use crate::functions::anomaly::AnomalyScore;
use crate::sql::{Emit, JobError, suggest};

/// Plans it.
pub(super) fn plan(job: &Job<'_>, plan: &LogicalPlan) -> Result<Query, Vec<JobError>> {
    let at = job.insert.at;
    let LogicalPlan::Projection(projection) = plan else {
        return Err(shape(job));
    };
    let (filter, below) = match projection.input.as_ref() {
        LogicalPlan::Filter(filter) => (Some(filter.predicate.clone()), filter.input.as_ref()),
        other => (None, other),
    };
    let Some(relations) = relations(below) else {
        return Err(shape(job));
    };
    let lookups = lookups::of(job, &relations)?;
    let names: Vec<&str> = projection
        .schema
        .fields()
        .iter()
        .map(|field| field.name().as_str())
        .collect();
    let mut errors = Vec::new();
    for name in &job.sink.key {
        if !names.contains(&name.as_str()) {
            errors.push(JobError::new(
                job.script.option_at(&job.sink.name, "key", job.sink.at),
                format!("the key's column {name} is not in the SELECT list"),
                suggest::help(name, names.iter().copied()),
            ));
        }
    }
    if job.sink.emit == Emit::Changes {
        errors.push(JobError::new(
            job.script.option_at(&job.sink.name, "emit", job.sink.at),
            "a query without GROUP BY has no results that change",
            "write emit = 'final', or leave it out",
        ));
    }
    if !job.sink.grace.is_zero() || job.sink.state_ttl.is_some() {
        let option = if job.sink.grace.is_zero() {
            "state_ttl"
        } else {
            "grace"
        };
        errors.push(JobError::new(
            job.script.option_at(&job.sink.name, option, job.sink.at),
            format!("{option} is for state, and a query without GROUP BY has none"),
            "leave it out",
        ));
    }
    if projection.expr.iter().chain(&filter).any(score::is_in) {
        errors.push(JobError::new(
            check::call_at(&job.insert.query, AnomalyScore::NAME).unwrap_or(at),
            "anomaly_score compares windows, and the query has none",
            "group by a window",
        ));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    compile(
        job,
        &projection.expr,
        filter,
        &relations.schema,
        lookups,
        &names,
    )
    .map_err(|error| vec![JobError::bare(at, check::message(&error))])
}

fn shape(job: &Job<'_>) -> Vec<JobError> {
    vec![JobError::new(
        job.insert.at,
        "an aggregate needs GROUP BY",
        "write SELECT … FROM TUMBLE(…) WHERE … GROUP BY window_start, …; or SELECT … FROM source WHERE …, without aggregates",
    )]
}

fn compile(
    job: &Job<'_>,
    selected: &[Expr],
    filter: Option<Expr>,
    schema: &DFSchemaRef,
    lookups: Vec<Lookup>,
    names: &[&str],
) -> Result<Query> {
    let simplified = |expr: &Expr| simplify(expr.clone(), schema);
    let filter = filter.as_ref().map(simplified).transpose()?;
    let selected = selected
        .iter()
        .map(|expr| simplified(&expr.clone().unalias_nested().data))
        .collect::<Result<Vec<_>>>()?;
    let lookups = simplified_keys(lookups, schema)?;
    let reads = Reads::of(
        job,
        schema,
        &lookups,
        &selected.iter().collect::<Vec<_>>(),
        filter,
    )?;
    let kept = reads.kept_schema.as_arrow();
    let keys = selected
        .iter()
        .map(|expr| physical(expr, &reads.kept_schema))
        .collect::<Result<Vec<_>>>()?;
    let mut fields = Vec::new();
    for (expr, name) in keys.iter().zip(names) {
        fields.push(Field::new(
            *name,
            expr.data_type(kept)?,
            expr.nullable(kept)?,
        ));
    }
    let described = described(&lookups, &reads);
    let partial = Arc::new(Schema::new(fields.clone()));
    fields.push(Field::new("version", DataType::Int64, false));
    fields.push(Field::new("is_final", DataType::Boolean, false));
    let fragments = Fragments {
        event_time: reads.input.index_of(&job.source.event_time)?,
        window: None,
        key_rows: None,
        filter: conditioned(reads.filter.as_ref(), &reads.windowed)?,
        joined_filter: conditioned(reads.joined_filter.as_ref(), reads.before(lookups.len()))?,
        lookups: compiled(&lookups, &reads)?,
        windowed: Arc::clone(reads.windowed.inner()),
        kept: reads.kept,
        kept_schema: Arc::clone(reads.kept_schema.inner()),
        keys,
        group_schema: Arc::new(Schema::new(vec![Field::new(
            WINDOW_START,
            DataType::Int64,
            false,
        )])),
        aggregates: Vec::new(),
        group_columns: Vec::new(),
        grouped: Arc::new(Schema::empty()),
        scored: Vec::new(),
        history_ms: 0,
        having: None,
        top: None,
        projection: Vec::new(),
        input: Arc::clone(&reads.input),
    };
    Ok(Query {
        name: job.sink.name.clone(),
        source: job.source.clone(),
        lookups: described,
        sink: job.sink.clone(),
        window: None,
        spread: Spread::Key,
        reads_record_time: record_time::is_read(&reads.input),
        input: reads.input,
        partial,
        keys: 0,
        output: Arc::new(Schema::new(fields)),
        fingerprint: format!("format {FORMAT}\ntopic {}\nrows\n", job.source.topic),
        fragments: Arc::new(fragments),
    })
}
