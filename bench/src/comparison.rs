//! The processor and its peers with one job, over one topic: each run by itself, in turn, and their results held against
//! each other.

use std::collections::HashMap;

use anyhow::{Context, ensure};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use clap::ValueEnum;
use runtime::log::TopicSpec;
use schemas::decode::BatchDecoder;

use crate::bare;
use crate::peers::{Peers, Task};
use crate::processor::{self, Application, BARE, PROCESSOR};
use crate::report::{Report, Run};
use crate::world::World;
use crate::{Common, ProcessorArgs};

/// What the trips are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Groups {
    /// Hour and vendor: two groups are open at a time
    Few,
    /// The trip's own id, in a window of a year: each row is a group, and all stay open to the end
    Many,
}

/// The columns of a result, beside its window and group.
const VALUES: [&str; 5] = [
    "trip_count",
    "passenger_count",
    "total_trip_duration",
    "average_trip_duration",
    "average_trip_distance",
];

impl Groups {
    /// The column that the trips are grouped by.
    pub fn column(self) -> &'static str {
        match self {
            Self::Few => "vendor_id",
            Self::Many => "id",
        }
    }

    /// How long a window is, in hours.
    pub fn window_hours(self) -> u64 {
        match self {
            Self::Few => 1,
            Self::Many => 365 * 24,
        }
    }

    /// The schema of the results that a peer writes which is told one.
    pub fn result_schema(self) -> String {
        let field =
            |name: &str, of: serde_json::Value| serde_json::json!({"name": name, "type": of});
        let instant = || serde_json::json!({"type": "long", "logicalType": "timestamp-millis"});
        let group = match self {
            Self::Few => "int",
            Self::Many => "string",
        };
        let mut fields = vec![
            field("window_start", instant()),
            field("window_end", instant()),
            field(self.column(), group.into()),
        ];
        for name in VALUES {
            let of = if name.starts_with("average") {
                "double"
            } else {
                "long"
            };
            fields.push(field(name, of.into()));
        }
        serde_json::json!({"type": "record", "name": "Result", "fields": fields}).to_string()
    }

    /// The job in our SQL.
    pub fn job(self, topic: &str, output: &str) -> String {
        let (column, hours) = (self.column(), self.window_hours());
        format!(
            "CREATE SOURCE trips WITH (topic = '{topic}', event_time = 'pickup_at', out_of_orderness = INTERVAL '5 minutes');
             CREATE SINK {} WITH (topic = '{output}', key = 'window_start, {column}', emit = 'final');
             INSERT INTO {}
             SELECT window_start, window_end, {column}, count(*) AS trip_count, sum(passenger_count) AS passenger_count,
                    sum(trip_duration) AS total_trip_duration, avg(trip_duration) AS average_trip_duration,
                    avg(gc_distance) AS average_trip_distance
             FROM TUMBLE(trips, pickup_at, INTERVAL '{hours} hours')
             GROUP BY window_start, window_end, {column};",
            processor::QUERY,
            processor::QUERY
        )
    }
}

/// Runs all of them in turn.
pub fn run(world: &World, args: &ProcessorArgs) -> anyhow::Result<Report> {
    let Common { rows, runs, .. } = args.common;
    let groups = args.groups.unwrap_or(Groups::Few);
    let peers = Peers::build(args.peers.clone(), &args.against)?;
    let (topic, there) = world.trips_topic(&args.common)?;
    let mut others = vec![BARE];
    others.extend(args.against.iter().map(|peer| peer.name()));
    let mut report = Report::new("processor", &args.common, &others, PROCESSOR, there.bytes);
    for run in 1..=runs {
        report.add(Run::new(BARE, run, processor::bare(world, &topic, rows)?));
        let application = format!("{}-{run}", world.name);
        let output = format!("{application}-results");
        let job = groups.job(&topic, &output);
        let ours = Application::new(world, &job, &application, &topic, &output)?;
        let (cost, found) = ours.once(rows)?;
        report.add(Run::new(PROCESSOR, run, cost));
        let ours = Results::read(world, groups, &output)?;
        let counted = ours.trips();
        ensure!(
            counted == rows as f64,
            "the processor's results hold {counted} trips, not {rows}"
        );
        world.forget(&[&output]);
        for &peer in &args.against {
            let application = format!(
                "{application}-{}",
                peer.name().replace(' ', "-").to_lowercase()
            );
            let output = format!("{application}-results");
            world
                .log
                .create_topic(&TopicSpec::new(&output, args.common.partitions))?;
            let task = Task {
                topic: &topic,
                rows,
                groups,
                output: &output,
                application: &application,
            };
            report.add(Run::new(peer.name(), run, peers.run(peer, world, &task)?));
            let theirs = Results::read(world, groups, &output)?;
            ours.same_as(&theirs)
                .with_context(|| format!("{} has other results than the processor", peer.name()))?;
            world.forget(&[&output]);
        }
        report.check(format!(
            "{found}; {} results, the same of all",
            ours.0.len()
        ));
    }
    Ok(report)
}

/// The last result of each window and group: of its start in milliseconds and its group the [`VALUES`].
#[derive(Default)]
struct Results(HashMap<(i64, String), [f64; VALUES.len()]>);

impl Results {
    fn read(world: &World, groups: Groups, topic: &str) -> anyhow::Result<Self> {
        let (_, schema) = world.latest(topic)?;
        let mut columns = vec!["window_start", groups.column()];
        columns.extend(VALUES);
        let schema = schemas::projected_schema(&schema, &columns)?;
        let mut decoder = BatchDecoder::new(world.registry.clone(), &schema)?;
        let mut results = Self::default();
        bare::read(world.log.as_ref(), topic, |batch| {
            for record in batch.iter() {
                decoder.push(record.value.unwrap_or_default())?;
            }
            if let Some(rows) = decoder.flush()? {
                results.add(&rows, groups)?;
            }
            Ok(())
        })?;
        Ok(results)
    }

    fn add(&mut self, rows: &RecordBatch, groups: Groups) -> anyhow::Result<()> {
        let column = |name: &str, to: &DataType| {
            let column = rows
                .column_by_name(name)
                .with_context(|| format!("the results have no {name}"))?;
            ensure!(column.null_count() == 0, "a result has no {name}");
            Ok(cast(column, to)?)
        };
        let starts = column("window_start", &DataType::Int64)?;
        let names = column(groups.column(), &DataType::Utf8)?;
        let (starts, names) = (starts.as_primitive::<Int64Type>(), names.as_string::<i32>());
        let values = VALUES
            .iter()
            .map(|name| column(name, &DataType::Float64))
            .collect::<anyhow::Result<Vec<_>>>()?;
        for row in 0..rows.num_rows() {
            let key = (starts.value(row), names.value(row).to_owned());
            let mut of = [0.0; VALUES.len()];
            for (of, values) in of.iter_mut().zip(&values) {
                *of = values.as_primitive::<Float64Type>().value(row);
            }
            self.0.insert(key, of);
        }
        Ok(())
    }

    /// How many trips they hold.
    fn trips(&self) -> f64 {
        self.0.values().map(|values| values[0]).sum()
    }

    /// Whether the others are as many and say the same: sums of floating-point numbers in another order may differ in
    /// their last digits.
    fn same_as(&self, others: &Self) -> anyhow::Result<()> {
        ensure!(
            self.0.len() == others.0.len(),
            "there are {} instead of {}",
            others.0.len(),
            self.0.len()
        );
        for (key, values) in &self.0 {
            let theirs = others
                .0
                .get(key)
                .with_context(|| format!("there is none of {key:?}"))?;
            let near = |(a, b): (&f64, &f64)| (a - b).abs() <= 1e-9 * a.abs().max(1.0);
            ensure!(
                values.iter().zip(theirs).all(near),
                "of {key:?} there is {theirs:?} instead of {values:?}"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn results(rows: &[(i64, &str, f64, f64)]) -> Results {
        Results(
            rows.iter()
                .map(|&(start, group, trips, distance)| {
                    ((start, group.to_owned()), [trips, 0.0, 0.0, 0.0, distance])
                })
                .collect(),
        )
    }

    #[test]
    fn results_are_the_same_but_for_the_last_digits_of_means() {
        let ours = results(&[(0, "1", 2.0, 0.1 + 0.2), (0, "2", 3.0, 1e9)]);
        let near = results(&[(0, "1", 2.0, 0.3), (0, "2", 3.0, 1e9 + 0.5)]);
        ours.same_as(&near).unwrap();
        assert_eq!(ours.trips(), 5.0);
        for other in [
            results(&[(0, "1", 2.0, 0.3)]),
            results(&[(0, "1", 2.0, 0.3), (1, "2", 3.0, 1e9)]),
            results(&[(0, "1", 2.0, 0.3), (0, "2", 4.0, 1e9)]),
            results(&[(0, "1", 2.0, 0.300_001), (0, "2", 3.0, 1e9)]),
        ] {
            assert!(ours.same_as(&other).is_err());
        }
    }
}
