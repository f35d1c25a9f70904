//! What a running demo shows: one line that is kept up to date on a terminal, a log line now and then elsewhere.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use runtime::cli;

use crate::audit::thousands;

/// How often the line is brought up to date.
pub const REFRESH: Duration = Duration::from_millis(200);

/// What the line tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Figures {
    /// Rows read from the input.
    pub rows: u64,
    /// The processor's watermark, in milliseconds since 1970.
    pub watermark: Option<i64>,
    /// Windows closed.
    pub closed: u64,
    /// Windows open.
    pub open: u64,
    /// Groups held by queries without windows; `None` if the job has none.
    pub groups: Option<u64>,
    /// Row × window pairs that were late.
    pub late: u64,
    /// Dead letters, of all parts.
    pub dead: u64,
    /// Rows in the lake.
    pub lake: u64,
    /// Documents written.
    pub documents: u64,
    /// How far the processor's state is restored, from 0 to 1.
    pub restored: f64,
}

/// The line.
pub struct Screen {
    progress: cli::Progress,
    last: Option<(Instant, u64)>,
    rate: f64,
}

impl Screen {
    /// A line that has nothing to tell yet.
    pub fn new(total_rows: Option<u64>) -> Self {
        Self {
            progress: cli::Progress::new(total_rows),
            last: None,
            rate: 0.0,
        }
    }

    /// Brings it up to date.
    pub fn show(&mut self, figures: &Figures) {
        let now = Instant::now();
        if let Some((then, rows)) = self.last {
            let seconds = now.duration_since(then).as_secs_f64();
            if seconds >= 1.0 {
                self.rate = (figures.rows.saturating_sub(rows)) as f64 / seconds;
                self.last = Some((now, figures.rows));
            }
        } else {
            self.last = Some((now, figures.rows));
        }
        let rate = self.rate;
        self.progress.update(figures.rows, || text(figures, rate));
    }

    /// Ends it, with its last figures left standing.
    pub fn finish(self, figures: &Figures) {
        let rate = self.rate;
        self.progress.finish(text(figures, rate));
    }
}

fn text(figures: &Figures, rate: f64) -> String {
    if figures.restored < 1.0 {
        return format!(
            "restoring the processor's state: {:.0} %",
            figures.restored * 100.0
        );
    }
    let groups = figures
        .groups
        .map(|groups| format!(" | groups {}", thousands(groups)))
        .unwrap_or_default();
    format!(
        "rows {} ({}/s) | watermark {} | windows closed {} open {}{groups} | late {} | dead {} | lake {} | documents {}",
        thousands(figures.rows),
        thousands(rate as u64),
        watermark(figures.watermark),
        thousands(figures.closed),
        thousands(figures.open),
        thousands(figures.late),
        thousands(figures.dead),
        thousands(figures.lake),
        thousands(figures.documents),
    )
}

fn watermark(at: Option<i64>) -> String {
    match at {
        None => "-".into(),
        Some(i64::MAX) => "end".into(),
        Some(ms) => DateTime::<Utc>::from_timestamp_millis(ms).map_or_else(
            || ms.to_string(),
            |at| at.format("%Y-%m-%d %H:%M:%SZ").to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_everything() {
        let figures = Figures {
            rows: 12_345,
            watermark: Some(1_451_624_400_000),
            closed: 7,
            open: 2,
            groups: None,
            late: 3,
            dead: 4,
            lake: 12_000,
            documents: 14,
            restored: 1.0,
        };
        assert_eq!(
            text(&figures, 2000.4),
            "rows 12,345 (2,000/s) | watermark 2016-01-01 05:00:00Z | windows closed 7 open 2 | late 3 | dead 4 | lake 12,000 | documents 14"
        );
        let figures = Figures {
            groups: Some(1_200),
            ..figures
        };
        assert!(text(&figures, 0.0).contains("open 2 | groups 1,200 | late 3"));
    }
}
