//! The whole pipeline in one process: embedded log and registry, a folder as the lake, a SQLite file of documents.

mod chunks;
mod folder;
mod parts;
mod screen;
mod sinks;
mod source;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use object_store::local::LocalFileSystem;
use runtime::cli::Exit;
use runtime::lifecycle::Lifecycle;
use runtime::log::Log;
use runtime::log::embedded::{EmbeddedLog, EmbeddedOptions};
use schemas::{EmbeddedRegistry, Registry};
use sink_opensearch::SqliteTarget;

use crate::audit::{self, Ledger, Subject};
use folder::{Folder, Origin, Source};
use parts::{APPLICATION, DOCUMENTS_GROUP, LAKE_GROUP, Parts, TRIPS};
use screen::Screen;

/// The shipped job.
const TAXI_JOB: &str = include_str!("../../../processor/jobs/taxi.sql");
/// How long a demo that is stopped lets its parts come to the end of what is on the log.
const CATCH_UP: Duration = Duration::from_secs(5);

/// Runs the whole pipeline in this process: no server needed
///
/// Generated taxi trips, or CSV files of your own, go through producer, processor and both sinks, over a log on disk. All
/// that it leaves is in one folder. Ctrl-C stops it and prints the ledger; started again on the same folder it goes on.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// The folder for the log, the lake and the documents
    #[arg(long, value_name = "DIR", default_value = "headway-demo")]
    dir: PathBuf,
    /// CSV files to read instead of generated trips, in one of the layouts aws, kaggle and headway
    #[arg(long, value_name = "FILE", num_args = 1..)]
    csv: Vec<PathBuf>,
    /// Run the input through to its end, close every window, and exit: 0, or 1 if the ledger does not balance
    #[arg(long)]
    once: bool,
    /// Print the ledger as JSON on standard output
    #[arg(long)]
    json: bool,
    /// The most rows a second; 0 is as fast as possible [default: 2000, with --once 0]
    #[arg(long, value_name = "ROWS")]
    rate: Option<f64>,
    /// How many trips to generate [default: no end]
    #[arg(long, value_name = "N", conflicts_with = "csv")]
    rows: Option<u64>,
    /// The seed of the generated trips
    #[arg(long, default_value_t = 7, conflicts_with = "csv")]
    seed: u64,
    /// The mapping of the CSV files: a shipped one's name or a file [default: by the header]
    #[arg(long, value_name = "NAME|FILE", requires = "csv")]
    mapping: Option<String>,
    /// A job in place of the shipped one; it reads the topic trips, and the results of its queries become documents
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
    /// How many partitions the topic of trips has
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=1000))]
    partitions: i32,
    /// How many workers the processor has
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// Over how many shards the job's groups are spread
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1000))]
    shards: u32,
}

/// Runs a demo to its end.
pub fn run(args: &DemoArgs) -> anyhow::Result<Exit> {
    if args.once && args.csv.is_empty() && args.rows.is_none() {
        anyhow::bail!(
            "--once needs an input with an end: name files with --csv, or a number of trips with --rows"
        );
    }
    let origin = origin(args)?;
    let folder = Folder::open(&args.dir, &origin)?;
    let stop = Lifecycle::new();
    runtime::shutdown::on_signals(stop.clone(), || {
        eprintln!("left at once: what was not committed will be read again at the next start");
    })?;

    let mut parts = Parts::start(&folder, &origin, args)?;
    if !args.json {
        say(&format!(
            "running in {}: Ctrl-C stops",
            folder.root().display()
        ));
    }
    let result = conduct(&mut parts, &stop, &origin);
    // A part that failed says more than that it ended.
    parts.join()?;
    result?;

    let ledger = audit::audit(&subject(
        Arc::clone(&parts.log),
        Arc::clone(&parts.registry),
        &folder,
    )?)?;
    report(&ledger, args.json, &folder)?;
    Ok(if ledger.balanced {
        Exit::Done
    } else {
        Exit::Failed
    })
}

fn origin(args: &DemoArgs) -> anyhow::Result<Origin> {
    let source = if args.csv.is_empty() {
        Source::Generated {
            seed: args.seed,
            rows: args.rows,
        }
    } else {
        let files = args.csv.iter().map(|file| {
            file.canonicalize()
                .with_context(|| format!("the file {} can't be found", file.display()))
        });
        Source::Csv(files.collect::<Result<_, _>>()?)
    };
    let job = match &args.job {
        Some(file) => std::fs::read_to_string(file)
            .with_context(|| format!("the job {} can't be read", file.display()))?,
        None => TAXI_JOB.to_owned(),
    };
    Ok(Origin {
        source,
        once: args.once,
        job,
        partitions: args.partitions,
        shards: args.shards,
    })
}

/// Goes with the parts from start to end: until the input has ended and everything of it is through, or until it is told
/// to stop. Each part is ended before the next one behind it.
fn conduct(parts: &mut Parts, stop: &Lifecycle, origin: &Origin) -> anyhow::Result<()> {
    let mut screen = Screen::new(None);
    let mut through = |parts: &mut Parts, part: usize, give_up: &dyn Fn() -> bool| {
        while !parts.ended(part) && !give_up() {
            if let Some(failed) = parts.failed() {
                anyhow::bail!("{failed} stopped before its time");
            }
            screen.show(&parts.figures());
            sleep(screen::REFRESH);
        }
        Ok(())
    };
    let stopping = || stop.stopping();
    through(parts, Parts::PRODUCER, &stopping)?;
    if origin.once && !stop.stopping() {
        parts.drain(Parts::PROCESSOR);
        through(parts, Parts::PROCESSOR, &stopping)?;
        parts.drain(Parts::LAKE);
        parts.drain(Parts::DOCUMENTS);
        through(parts, Parts::LAKE, &stopping)?;
        through(parts, Parts::DOCUMENTS, &stopping)?;
    } else if !stop.stopping() {
        // The input has ended, but its last windows are still open: it goes on until it is told to stop.
        through(parts, Parts::PROCESSOR, &stopping)?;
    }
    parts.stop(Parts::PRODUCER);
    through(parts, Parts::PRODUCER, &|| false)?;
    let deadline = Instant::now() + CATCH_UP;
    while !parts.ended(Parts::PROCESSOR)
        && !parts.processor_is_level()?
        && Instant::now() < deadline
    {
        screen.show(&parts.figures());
        sleep(Duration::from_millis(50));
    }
    parts.stop(Parts::PROCESSOR);
    while !parts.ended(Parts::PROCESSOR) {
        sleep(Duration::from_millis(20));
    }
    while !parts.sinks_are_level()? && Instant::now() < deadline {
        sleep(Duration::from_millis(50));
    }
    parts.stop(Parts::LAKE);
    parts.stop(Parts::DOCUMENTS);
    while !(parts.ended(Parts::LAKE) && parts.ended(Parts::DOCUMENTS)) {
        sleep(Duration::from_millis(20));
    }
    screen.finish(&parts.figures());
    Ok(())
}

/// What a demo left in a folder, audited without running anything.
pub fn audit_folder(dir: &Path, json: bool) -> anyhow::Result<Exit> {
    let folder = Folder::reopen(dir)?;
    let log: Arc<dyn Log> = EmbeddedLog::open(&folder.log(), EmbeddedOptions::default())?;
    let registry: Arc<dyn Registry> = Arc::new(EmbeddedRegistry::open(&folder.registry())?);
    let ledger = audit::audit(&subject(log, registry, &folder)?)?;
    report(&ledger, json, &folder)?;
    Ok(audit::exit(&ledger))
}

fn subject(
    log: Arc<dyn Log>,
    registry: Arc<dyn Registry>,
    folder: &Folder,
) -> anyhow::Result<Subject> {
    let lake = LocalFileSystem::new_with_prefix(folder.lake())
        .with_context(|| format!("the lake {} can't be opened", folder.lake().display()))?;
    let documents = SqliteTarget::open_to_read(folder.documents())?;
    let script = parts::script(folder.origin())?;
    Ok(Subject {
        log,
        registry,
        topic: TRIPS.into(),
        application_id: APPLICATION.into(),
        queries: audit::Query::all(&script),
        lake: Some((
            LAKE_GROUP.into(),
            Arc::new(lake),
            object_store::path::Path::default(),
        )),
        documents: Some(audit::Documents {
            group: DOCUMENTS_GROUP.into(),
            target: Arc::new(documents),
            topics: sinks::documents(&script)?,
        }),
    })
}

fn report(ledger: &Ledger, json: bool, folder: &Folder) -> anyhow::Result<()> {
    let places = [
        ("lake", folder.lake().display().to_string()),
        ("documents", folder.documents().display().to_string()),
    ];
    audit::report(ledger, json, &places)
}

fn say(text: &str) {
    eprintln!("{text}");
}
