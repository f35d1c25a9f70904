//! The processor with the taxi job, from the start to the end of a topic, against a consumer that only reads it.

use anyhow::{Context, ensure};
use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;
use schemas::decode::BatchDecoder;
use serde_json::Value;

use crate::Common;
use crate::bare;
use crate::cost::Cost;
use crate::report::{Report, Run};
use crate::world::World;

const JOB: &str = include_str!("../../processor/jobs/taxi.sql");
/// The contestant that only reads.
pub const BARE: &str = "bare consumer";
/// Ours.
pub const PROCESSOR: &str = "processor";
/// The query's name in the jobs.
pub const QUERY: &str = "trip_statistics";

/// Runs both in turn.
pub fn run(world: &World, args: &Common) -> anyhow::Result<Report> {
    let (topic, there) = world.trips_topic(args)?;
    let mut report = Report::new("processor", args, &[BARE], PROCESSOR, there.bytes);
    for run in 1..=args.runs {
        report.add(Run::new(BARE, run, bare(world, &topic, args.rows)?));
        let application = format!("{}-{run}", world.name);
        let output = format!("{application}-statistics");
        let job = job_for(&topic, &output)?;
        let (cost, found) = ours(world, &job, &application, &topic, &output, args.rows)?;
        report.add(Run::new(PROCESSOR, run, cost));
        report.check(found);
        world.forget(&[&output]);
    }
    Ok(report)
}

/// One run of the bare consumer.
pub fn bare(world: &World, topic: &str, rows: u64) -> anyhow::Result<Cost> {
    let (cost, moved) = world.bare(&["bare-consumer", topic])?;
    ensure!(
        moved.records == rows,
        "the bare consumer read {} records",
        moved.records
    );
    Ok(cost)
}

/// One run of the processor, and what the check of its results found. All that it leaves are the results.
pub fn ours(
    world: &World,
    job: &str,
    application: &str,
    topic: &str,
    output: &str,
    rows: u64,
) -> anyhow::Result<(Cost, String)> {
    let file = world.folder.path().join(format!("{application}.sql"));
    std::fs::write(&file, job)?;
    let file = file.to_string_lossy();
    let settings = [
        ("PROCESSOR_JOB", &*file),
        ("PROCESSOR_APPLICATION_ID", application),
        ("PROCESSOR_WORKERS", "1"),
        ("PROCESSOR_MASK_SALT", "bench"),
        ("PRODUCER_TOPIC", topic),
    ];
    let (cost, _) = crate::cost::of(&mut world.binary("processor", &["--once"], &settings))?;
    let found = check(world, rows, output, &settings)?;
    let own = |what: &str| format!("{application}.{QUERY}.{what}");
    let dead = format!("{topic}.dlq");
    ensure!(
        world.log.topic(&dead)?.is_none_or(
            |_| bare::count(world.log.as_ref(), &dead).is_ok_and(|dead| dead.records == 0)
        ),
        "there are dead letters in {dead}"
    );
    world.forget(&[&own("partials"), &own("late"), &own("state")]);
    Ok((cost, found))
}

/// The shipped job, between these topics.
fn job_for(topic: &str, output: &str) -> anyhow::Result<String> {
    let (source, sink) = ("= 'trips'", "= 'trip_statistics'");
    ensure!(
        JOB.matches(source).count() == 1 && JOB.matches(sink).count() == 1,
        "the taxi job names its topics in another way than this benchmark knows"
    );
    Ok(JOB
        .replace(source, &format!("= '{topic}'"))
        .replace(sink, &format!("= '{output}'")))
}

/// Holds a run's results against the number of rows: by the audit, and by the sum of the results themselves.
fn check(
    world: &World,
    rows: u64,
    output: &str,
    settings: &[(&str, &str)],
) -> anyhow::Result<String> {
    let arguments = ["audit", "--json", "--no-lake", "--no-documents"];
    let (_, ledger) = crate::cost::of(&mut world.binary("headway", &arguments, settings))
        .context("the audit does not balance")?;
    let ledger: Value = serde_json::from_str(&ledger)?;
    let query = &ledger["queries"][0];
    let of = |name: &str| {
        query[name]
            .as_u64()
            .with_context(|| format!("the ledger has no {name}"))
    };
    let (taken, filtered, late) = (of("rows_in")?, of("filtered")?, of("late")?);
    let dead = of("dead")? + of("undecodable")?;
    let counted = trip_count(world, output)?;
    ensure!(
        ledger["balanced"] == true && taken == rows && of("waiting")? == 0,
        "the processor took {taken} of {rows} rows: {ledger:#}"
    );
    ensure!(
        counted + filtered + late + dead == rows,
        "{counted} trips in the results, {filtered} filtered, {late} late and {dead} dead are not {rows}"
    );
    Ok(format!(
        "audit balanced; {counted} in the results + {filtered} filtered + {late} late + {dead} dead = {rows}"
    ))
}

/// The sum of the results' trip counts.
fn trip_count(world: &World, topic: &str) -> anyhow::Result<u64> {
    let (_, schema) = world.latest(topic)?;
    let schema = schemas::projected_schema(&schema, &["trip_count"])?;
    let mut decoder = BatchDecoder::new(world.registry.clone(), &schema)?;
    let mut sum = 0;
    bare::read(world.log.as_ref(), topic, |batch| {
        for record in batch.iter() {
            decoder.push(record.value.unwrap_or_default())?;
        }
        if let Some(rows) = decoder.flush()? {
            let counts = rows
                .column(0)
                .as_primitive_opt::<Int64Type>()
                .context("trip_count is no long")?;
            ensure!(counts.null_count() == 0, "a result has no trip_count");
            sum += u64::try_from(arrow::compute::sum(counts).unwrap_or(0))?;
        }
        Ok(())
    })?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn the_job_runs_between_the_topics_that_it_is_told() {
        let job = job_for("a", "b").unwrap();
        assert!(
            job.contains("topic            = 'a'") && job.contains("topic = 'b'"),
            "{job}"
        );
    }
}
