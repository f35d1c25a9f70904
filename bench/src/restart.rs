//! How long a processor that was killed takes to be back, with much state: from its start until `/ready` answers with 200.
//!
//! Its group still counts the dead one in. Under a static membership (`processor.static_membership`) the new one takes its
//! place at once; without it the group first waits until the dead one has been silent for `log.session_timeout_ms`.

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

/// A way to be a member of the group: the setting, and what is measured under it.
struct Membership {
    setting: &'static str,
    ready: &'static str,
    joined: &'static str,
}

const MEMBERSHIPS: [Membership; 2] = [
    Membership {
        setting: "true",
        ready: "static member: start to ready",
        joined: "  of it until its group answers",
    },
    Membership {
        setting: "false",
        ready: "dynamic member: start to ready",
        joined: "  of it until the group answers",
    },
];

/// Kills and starts it, as often as there are runs, once as a static member and once as a dynamic one.
pub fn run(world: &World, args: &Common) -> anyhow::Result<Delays> {
    let (topic, _) = world.trips_topic(args)?;
    let mut delays = Delays::new("restart", args);
    for membership in &MEMBERSHIPS {
        let name = format!("{}-static-{}", world.name, membership.setting);
        let output = format!("{name}-results");
        let job = Groups::Many.job(&topic, &output);
        let application = Application::new(world, &job, &name, &topic, &output)?;
        let start = || {
            let mut settings = application.settings().to_vec();
            settings.push(("PROCESSOR_STATIC_MEMBERSHIP", membership.setting));
            Running::start(world.binary("processor", &[], &settings))
        };
        let mut running = start()?;
        running.until_ready()?;
        until_taken(world, &application, args.rows)?;
        for run in 1..=args.runs {
            running.kill()?;
            running = start()?;
            let start = running.until_ready()?;
            eprintln!("{} {run}: {:.3} s", membership.ready, start.ready_s);
            delays.add(membership.ready, [start.ready_s]);
            delays.add(membership.joined, [start.joined_s]);
        }
        running.kill()?;
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
    }
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
