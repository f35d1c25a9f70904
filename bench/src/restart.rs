//! How long a processor takes to be back, with much state, after it was killed or stopped: from its start until `/ready` answers
//! with 200. Of one that was killed, the group still counts the dead one in, whose place the new one takes.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::Common;
use crate::comparison::Groups;
use crate::cost;
use crate::delays::Delays;
use crate::processor::{self, Application};
use crate::running::Running;
use crate::world::World;

/// How long the rows may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// A way in which it ended before, and what is measured behind it.
struct Before {
    end: fn(Running) -> anyhow::Result<()>,
    ready: &'static str,
    joined: &'static str,
}

const BEFORE: [Before; 2] = [
    Before {
        end: Running::kill,
        ready: "killed: start to ready",
        joined: "  of it until its group answers",
    },
    Before {
        end: Running::stop,
        ready: "stopped in order: start to ready",
        joined: "  of it until the group answers",
    },
];

/// Ends and starts it, as often as there are runs, each way.
pub fn run(world: &World, args: &Common) -> anyhow::Result<Delays> {
    let (topic, _) = world.trips_topic(args)?;
    let mut delays = Delays::new("restart", args);
    let output = format!("{}-results", world.name);
    let job = Groups::Many.job(&topic, &output);
    let application = Application::new(world, &job, &world.name, &topic, &output)?;
    let start = || Running::start(world.binary("processor", &[], &application.settings()));
    let mut running = start()?;
    running.until_ready()?;
    until_taken(world, &application, args.rows)?;
    for before in &BEFORE {
        for run in 1..=args.runs {
            (before.end)(running)?;
            running = start()?;
            let start = running.until_ready()?;
            eprintln!("{} {run}: {:.3} s", before.ready, start.ready_s);
            delays.add(before.ready, [start.ready_s]);
            delays.add(before.joined, [start.joined_s]);
        }
    }
    running.stop()?;
    // Whether what was restored is what was there shows when the window is closed: each row is a group of its own.
    let (_, found) = application.once(args.rows)?;
    let results = crate::bare::count(world.log.as_ref(), &output)?;
    ensure!(
        results.records == args.rows,
        "there are {} results of {} groups",
        results.records,
        args.rows
    );
    delays.check(format!("{} groups; {found}", results.records));
    world.forget(&[&output]);
    Ok(delays)
}

/// Waits until all rows are merged, and that is committed.
fn until_taken(world: &World, application: &Application<'_>, rows: u64) -> anyhow::Result<()> {
    let started = Instant::now();
    loop {
        let show = ["offsets", "show", "--json"];
        let mut command = world.binary("processor", &show, &application.settings());
        let (_, shown) = cost::of(&mut command)?;
        let shown: Value = serde_json::from_str(&shown)?;
        let shards = shown["status"]["shards"].as_array();
        let shards = shards.context("the offsets name no shards")?;
        let merged: u64 = shards
            .iter()
            .filter_map(|shard| shard["state"]["merged"].as_u64())
            .sum();
        if merged == rows {
            return Ok(());
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "{merged} of {rows} rows are merged: {shown:#}"
        );
        std::thread::sleep(processor::LOOK_EVERY);
    }
}
