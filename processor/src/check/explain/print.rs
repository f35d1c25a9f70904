//! What a job's queries do, as text for people.

use std::fmt::{self, Write};
use std::time::Duration;

use super::{Column, Explained, QueryExplained, Time};
use crate::check::lookups::Lookup;
use crate::words::length;

impl fmt::Display for Explained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "application {}", self.application_id)?;
        for query in &self.queries {
            writeln!(f, "\nquery {}", query.query)?;
            f.write_str(&query.text()?)?;
        }
        Ok(())
    }
}

impl QueryExplained {
    fn text(&self) -> Result<String, fmt::Error> {
        let mut out = String::new();
        let mut section = |name: &str, lines: &[(&str, String)]| {
            for (place, (what, text)) in lines.iter().enumerate() {
                let name = if place == 0 { name } else { "" };
                writeln!(out, "  {name:<8} {what:<16} {text}")?;
            }
            Ok::<_, fmt::Error>(())
        };
        let topics: Vec<_> = self
            .topics
            .iter()
            .map(|topic| {
                let partitions = match topic.partitions {
                    Some(1) => ", 1 partition".to_owned(),
                    Some(several) => format!(", {several} partitions"),
                    None => String::new(),
                };
                (
                    topic.role,
                    format!("{}{partitions}, key: {}", topic.topic, topic.key),
                )
            })
            .collect();
        section("topics", &topics)?;
        let mut scan = listed("reads", &self.scan.reads);
        scan.extend(self.scan.lookups.iter().flat_map(Lookup::lines));
        scan.extend(self.scan.filter.iter().map(|text| ("where", text.clone())));
        scan.push(("windows", self.scan.windows.clone()));
        scan.push(("group by", self.scan.group_by.join(", ")));
        scan.extend(
            self.scan
                .aggregates
                .iter()
                .map(|text| ("aggregate", text.clone())),
        );
        section("scan", &scan)?;
        let mut merge = vec![("shards", self.merge.shards.to_string())];
        merge.extend(listed("partial row", &self.merge.partial_row));
        section("merge", &merge)?;
        let clauses = [
            ("having", &self.finish.having),
            ("order by", &self.finish.order_by),
            ("limit", &self.finish.limit),
        ];
        let mut finish: Vec<_> = clauses
            .into_iter()
            .filter_map(|(name, text)| Some((name, text.clone()?)))
            .collect();
        finish.extend(listed("results", &self.finish.results));
        section("finish", &finish)?;
        section("time", &self.time.lines())?;
        let mut state = Vec::new();
        state.extend(
            self.state
                .open_windows
                .map(|open| ("open windows", format!("{open} at a time, or more:"))),
        );
        state.extend(self.state.bounds.iter().map(|bound| ("", bound.clone())));
        section("state", &state)?;
        Ok(out)
    }
}

impl Time {
    fn lines(&self) -> Vec<(&'static str, String)> {
        let words = |ms: u64| length(Duration::from_millis(ms));
        vec![
            (
                "event time",
                match self.of_the_log {
                    true => format!("{}, the log's", self.event_time),
                    false => self.event_time.clone(),
                },
            ),
            ("out_of_orderness", words(self.out_of_orderness_ms)),
            (
                "idle_timeout",
                self.idle_timeout_ms.map_or("none".into(), words),
            ),
            ("idle_advance", self.idle_advance.to_string()),
            ("max_ahead", self.max_ahead_ms.map_or("none".into(), words)),
            ("max_drift", self.max_drift_ms.map_or("none".into(), words)),
            ("grace", words(self.grace_ms)),
            ("emit", self.emit.clone()),
        ]
    }
}

/// A line for each column, the first one under a name.
fn listed(name: &'static str, columns: &[Column]) -> Vec<(&'static str, String)> {
    let line = |(place, column): (usize, &Column)| {
        let not_null = if column.nullable { "" } else { " NOT NULL" };
        (
            if place == 0 { name } else { "" },
            format!("{} {}{not_null}", column.name, column.sql_type),
        )
    };
    columns.iter().enumerate().map(line).collect()
}
