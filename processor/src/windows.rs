//! The page of open windows: which are open, and why each is still open.

use std::time::Duration;

use serde::Serialize;

use crate::progress::{Progress, Reading, ShardWindows};
use crate::words::{instant, length_ms};

/// What the page says. Instants come twice, for people and in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page {
    /// The shards that this process has, by query and number.
    pub shards: Vec<Shard>,
    /// The source partitions that this process reads, by topic and number.
    pub sources: Vec<Source>,
}

/// How long the workers may take to answer.
const WAIT: Duration = Duration::from_secs(2);
/// How often it is looked whether they have.
const STEP: Duration = Duration::from_millis(10);

/// A shard of a query.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shard {
    /// The query's name.
    pub query: String,
    /// The shard's number.
    pub shard: i32,
    /// How far event time has come in this shard.
    pub watermark: Option<String>,
    /// The same.
    pub watermark_ms: Option<i64>,
    /// How far its state is restored, from 0 to 1.
    pub restored: f64,
    /// When this was so, by the clock.
    pub as_of: String,
    /// Whether the shard's worker has answered in time; if not, this is what it said last.
    pub answered: bool,
    /// How many windows are open; of a query without windows, how many groups are held.
    pub open_count: usize,
    /// The open windows that close first.
    pub open: Vec<Open>,
}

/// An open window.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Open {
    /// Its start.
    pub start: String,
    /// The first millisecond behind it.
    pub end: String,
    /// The same.
    pub start_ms: i64,
    /// The same.
    pub end_ms: i64,
    /// How many partial rows it holds, an upper bound for its groups.
    pub partial_rows: usize,
    /// Up to where event time must come until it closes: its end, and the sink's grace.
    pub closes_at_ms: i64,
    /// Why it is open, in a sentence.
    pub why: String,
    /// The source partitions that hold it open.
    pub held_by: Vec<Holder>,
}

/// A source partition that holds a window open.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// Its number.
    pub partition: i32,
    /// Whether the shard has heard of it at all.
    pub seen: bool,
    /// How far it is, in milliseconds since 1970; absent before its first row.
    pub watermark_ms: Option<i64>,
    /// How much event time it is short of closing the window; absent before its first row.
    pub short_by_ms: Option<i64>,
    /// Whether it is read by this process.
    pub here: bool,
    /// Whether all that there was in it has been read; known of those that are read here.
    pub at_end: Option<bool>,
    /// Whether it waits for slower ones (max_drift); known of those that are read here.
    pub paused: Option<bool>,
    /// All that in a sentence.
    pub why: String,
}

/// A source partition that this process reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Source {
    /// Its topic.
    pub topic: String,
    /// Its number.
    pub partition: i32,
    /// How far it is.
    pub watermark: Option<String>,
    /// The same.
    pub watermark_ms: Option<i64>,
    /// How far it is behind the furthest one of its topic that is read here.
    pub behind_ms: Option<i64>,
    /// Whether all that there was has been read.
    pub at_end: bool,
    /// Whether it has brought nothing for the idle timeout, and holds nothing open.
    pub idle: bool,
    /// Whether it waits for slower ones (max_drift).
    pub paused: bool,
}

/// The page, as of now: asks the workers, and waits for their answers.
pub fn page(progress: &Progress) -> Page {
    let asked = progress.ask_windows();
    for _ in 0..WAIT.as_millis() / STEP.as_millis() {
        if progress
            .windows()
            .values()
            .all(|windows| windows.answers >= asked)
        {
            break;
        }
        std::thread::sleep(STEP);
    }
    let here = progress.here();
    let shards = progress
        .windows()
        .into_iter()
        .map(|((query, shard), windows)| {
            let reading = |partition| here.get(&(windows.topic.clone(), partition)).copied();
            Shard {
                watermark: windows.watermark.now().map(instant),
                watermark_ms: windows.watermark.now(),
                restored: windows.restored,
                as_of: instant(windows.at_ms),
                answered: windows.answers >= asked,
                open_count: windows.open_count,
                open: opened(&windows, &reading),
                query,
                shard,
            }
        })
        .collect();
    let sources = here
        .iter()
        .map(|((topic, partition), reading)| {
            let furthest = here
                .iter()
                .filter(|((other, _), _)| other == topic)
                .filter_map(|(_, reading)| reading.watermark)
                .max();
            Source {
                topic: topic.clone(),
                partition: *partition,
                watermark: reading.watermark.map(instant),
                watermark_ms: reading.watermark,
                behind_ms: reading
                    .watermark
                    .zip(furthest)
                    .map(|(at, furthest)| furthest - at),
                at_end: reading.at_end,
                idle: reading.idle,
                paused: reading.paused,
            }
        })
        .collect();
    Page { shards, sources }
}

fn opened(windows: &ShardWindows, reading: &dyn Fn(i32) -> Option<Reading>) -> Vec<Open> {
    windows
        .open
        .iter()
        .map(|window| {
            let closes_at = window.end.saturating_add(windows.grace_ms);
            let held_by: Vec<Holder> = windows
                .watermark
                .holding(closes_at)
                .into_iter()
                .map(|holding| {
                    let here = reading(holding.partition);
                    let short_by = holding
                        .watermark
                        .map(|watermark| closes_at.saturating_sub(watermark));
                    let mut holder = Holder {
                        partition: holding.partition,
                        seen: holding.seen,
                        watermark_ms: holding.watermark,
                        short_by_ms: short_by,
                        here: here.is_some(),
                        at_end: here.map(|here| here.at_end),
                        paused: here.map(|here| here.paused),
                        why: String::new(),
                    };
                    holder.why = holder.sentence();
                    holder
                })
                .collect();
            Open {
                start: instant(window.start),
                end: instant(window.end),
                start_ms: window.start,
                end_ms: window.end,
                partial_rows: window.partial_rows,
                closes_at_ms: closes_at,
                why: reason(windows, window.end, closes_at, &held_by),
                held_by,
            }
        })
        .collect()
}

/// Why a window is open, in a sentence.
fn reason(windows: &ShardWindows, end: i64, closes_at: i64, held_by: &[Holder]) -> String {
    if windows.restored < 1.0 {
        return "the shard's state is being restored".into();
    }
    let watermark = windows.watermark.now();
    match held_by {
        [] if windows.watermark.expected() == 0 => "no source partition has been heard of".into(),
        [] => match watermark {
            Some(watermark) => format!(
                "all source partitions are idle or ended, and their time stands {} short of it",
                length_ms(closes_at.saturating_sub(watermark))
            ),
            None => "all source partitions are idle or ended, without a row".into(),
        },
        // Everybody is past the end: what is left is grace.
        held if held.iter().all(|holder| holder.watermark_ms >= Some(end)) => {
            format!(
                "it is over, and stays open for late rows (grace {})",
                length_ms(windows.grace_ms)
            )
        }
        [one] => one.why.clone(),
        several => {
            let first = several
                .iter()
                .min_by_key(|holder| (holder.seen, holder.watermark_ms));
            format!(
                "{} source partitions are not past it; the furthest behind: {}",
                several.len(),
                first.map(|holder| holder.why.as_str()).unwrap_or_default()
            )
        }
    }
}

impl Holder {
    fn sentence(&self) -> String {
        let partition = self.partition;
        let place = match (self.at_end, self.paused) {
            (_, Some(true)) => "; it is paused until slower ones have caught up",
            (Some(true), _) => "; all that is in it has been read, and it is not idle yet",
            (Some(false), _) => "; it is being read",
            (None, _) => "; another process reads it",
        };
        let what = match (self.seen, self.watermark_ms, self.short_by_ms) {
            (false, ..) => format!("source partition {partition} has not been heard of"),
            (true, Some(watermark), Some(short)) => format!(
                "source partition {partition} is at {}, {} short of it",
                instant(watermark),
                length_ms(short)
            ),
            (true, ..) => format!("source partition {partition} has not had a row with a time"),
        };
        format!("{what}{place}")
    }
}
