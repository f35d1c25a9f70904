//! The producer, from a CSV file to a new topic, against a client that only sends the same records.

use anyhow::ensure;
use runtime::log::TopicSpec;

use crate::Common;
use crate::bare;
use crate::report::{Report, Run};
use crate::world::World;

const BARE: &str = "bare producer";
const PRODUCER: &str = "producer";

/// Runs both in turn.
pub fn run(world: &World, args: &Common) -> anyhow::Result<Report> {
    let file = world.trips(args)?;
    let mut report = None;
    for run in 1..=args.runs {
        let topic = format!("{}-{run}", world.name);
        let bare_topic = format!("{topic}-bare");
        let cost = world.produce(&file, &topic, args.partitions)?;
        world
            .log
            .create_topic(&TopicSpec::new(&bare_topic, args.partitions))?;
        let (bare_cost, _) = world.bare(&["bare-producer", &topic, &bare_topic])?;
        let sent = bare::count(world.log.as_ref(), &topic)?;
        let again = bare::count(world.log.as_ref(), &bare_topic)?;
        ensure!(
            sent.records == args.rows && again == sent,
            "the producer sent {} records of {} bytes for {} rows, the bare one {} of {} bytes",
            sent.records,
            sent.bytes,
            args.rows,
            again.records,
            again.bytes
        );
        let report = report
            .get_or_insert_with(|| Report::new("producer", args, &[BARE], PRODUCER, sent.bytes));
        report.add(Run::new(PRODUCER, run, cost));
        report.add(Run::new(BARE, run, bare_cost));
        report.check(format!("both topics hold {} records", sent.records));
        world.forget(&[&topic, &format!("{topic}.dlq"), &bare_topic]);
    }
    report.ok_or_else(|| anyhow::anyhow!("nothing ran"))
}
