//! The processor with the taxi job, from the start to the end of a topic, against a consumer that only reads it.

use std::time::Duration;

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
/// How often it is looked at how far a processor is.
pub const LOOK_EVERY: Duration = Duration::from_millis(200);
/// The query's name in the jobs.
pub const QUERY: &str = "trip_statistics";

/// Runs both in turn.
pub fn run(world: &World, args: &Common) -> anyhow::Result<Report> {
    let (topic, there) = world.trips_topic(args)?;
    let mut report = Report::new("processor", args, &[BARE], PROCESSOR, there.bytes);
    for run in 1..=args.runs {
        report.add(Run::new(BARE, run, bare(world, &topic, args.rows)?));
        let name = format!("{}-{run}", world.name);
        let output = format!("{name}-statistics");
        let job = job_for(&topic, &output)?;
        let application = Application::new(world, &job, &name, &topic, &output)?;
        let (cost, found) = application.once(args.rows)?;
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

/// A job under a name of its own.
pub struct Application<'a> {
    world: &'a World,
    /// The file that the job is in.
    file: String,
    name: &'a str,
    topic: &'a str,
    output: &'a str,
}

impl<'a> Application<'a> {
    /// A job that reads and writes these topics, with one worker.
    pub fn new(
        world: &'a World,
        job: &str,
        name: &'a str,
        topic: &'a str,
        output: &'a str,
    ) -> anyhow::Result<Self> {
        let file = world.folder.path().join(format!("{name}.sql"));
        std::fs::write(&file, job)?;
        Ok(Self {
            world,
            file: file.to_string_lossy().into_owned(),
            name,
            topic,
            output,
        })
    }

    /// Its settings.
    pub fn settings(&self) -> [(&str, &str); 5] {
        [
            ("PROCESSOR_JOB", &self.file),
            ("PROCESSOR_APPLICATION_ID", self.name),
            ("PROCESSOR_WORKERS", "1"),
            ("PROCESSOR_MASK_SALT", "bench"),
            ("PRODUCER_TOPIC", self.topic),
        ]
    }

    /// Runs the processor to the end of the topic: what that cost, and what the check of its results found. All that it
    /// leaves are the results.
    pub fn once(&self, rows: u64) -> anyhow::Result<(Cost, String)> {
        let (world, settings) = (self.world, self.settings());
        let (cost, _) = crate::cost::of(&mut world.binary("processor", &["--once"], &settings))?;
        let found = check(world, rows, self.output, &settings)?;
        let own = |what: &str| format!("{}.{QUERY}.{what}", self.name);
        let dead = format!("{}.dlq", self.topic);
        ensure!(
            world.log.topic(&dead)?.is_none_or(
                |_| bare::count(world.log.as_ref(), &dead).is_ok_and(|dead| dead.records == 0)
            ),
            "there are dead letters in {dead}"
        );
        world.forget(&[&own("partials"), &own("late"), &own("state")]);
        Ok((cost, found))
    }
}

/// The shipped job, between these topics.
pub fn job_for(topic: &str, output: &str) -> anyhow::Result<String> {
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
