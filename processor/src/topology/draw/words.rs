//! What is said of each part, and which squares it has.

use super::Drawn;
use crate::topology::{MergePart, Node, Part, ScanPart, SourcePartition, TopicPart};

pub(super) fn drawn(node: &Node) -> Drawn {
    match &node.part {
        Part::Topic(topic) => of_topic(topic),
        Part::Table(table) => Drawn {
            class: "topic",
            kind: "reference table",
            lines: vec![
                ("line", table.origin.clone()),
                ("line", format!("by {}", table.key.join(", "))),
            ],
            squares: vec![],
            trouble: false,
        },
        Part::Scan(scan) => of_scan(scan),
        Part::Partials(partials) => Drawn {
            class: "partials",
            kind: "partials",
            lines: vec![
                ("line", counted(u64::from(partials.shards), "shard")),
                ("line", lag(partials.lag)),
            ],
            squares: vec![],
            trouble: false,
        },
        Part::Merge(merge) => of_merge(merge),
    }
}

fn of_topic(topic: &TopicPart) -> Drawn {
    let mut lines = Vec::new();
    if topic.read {
        lines.push(("line", format!("{} rows in", grouped(topic.rows_in))));
        lines.push(("line", lag(topic.lag)));
        lines.push(("line", watermark(topic.watermark.as_deref())));
    }
    let problem = topic.partitions.iter().find_map(|p| p.problem.as_deref());
    lines.extend(problem.map(|problem| ("warn", problem.to_owned())));
    Drawn {
        class: "topic",
        kind: match (topic.read, topic.written) {
            (true, true) => "results, read again",
            (true, false) => "source",
            _ => "results",
        },
        lines,
        squares: topic.partitions.iter().map(square_of_partition).collect(),
        trouble: problem.is_some(),
    }
}

fn square_of_partition(partition: &SourcePartition) -> (&'static str, String) {
    let class = match (&partition.problem, partition.here, partition.paused) {
        (Some(_), ..) => "bad",
        (None, true, Some(true)) => "waits",
        (None, true, _) => "here",
        (None, false, _) => "there",
    };
    let mut title = format!("partition {}", partition.partition);
    let mut say = |what: String| {
        title.push_str(", ");
        title.push_str(&what);
    };
    say(if partition.here {
        "read here"
    } else {
        "not read here"
    }
    .into());
    if let Some(behind) = partition.lag {
        say(lag(behind));
    }
    if let Some(at) = &partition.watermark {
        say(format!("watermark {at}"));
    }
    for (what, is) in [
        ("at its end", partition.at_end),
        ("idle", partition.idle),
        ("paused", partition.paused),
    ] {
        if is == Some(true) {
            say(what.into());
        }
    }
    if let Some(problem) = &partition.problem {
        say(problem.clone());
    }
    (class, title)
}

fn of_scan(part: &ScanPart) -> Drawn {
    let scan = &part.scan;
    let mut lines = vec![("line", format!("windows: {}", scan.windows))];
    lines.extend(
        scan.filter
            .iter()
            .map(|filter| ("line", format!("where {filter}"))),
    );
    if !scan.group_by.is_empty() {
        lines.push(("line", format!("by {}", scan.group_by.join(", "))));
    }
    let mut rows = format!("{} rows kept", grouped(part.kept));
    if part.filtered > 0 {
        rows.push_str(&format!(", {} filtered", grouped(part.filtered)));
    }
    lines.push(("line", rows));
    if part.dead > 0 {
        lines.push(("warn", format!("{} dead", grouped(part.dead))));
    }
    Drawn {
        class: "scan",
        kind: "scan",
        lines,
        squares: vec![],
        trouble: false,
    }
}

fn of_merge(merge: &MergePart) -> Drawn {
    let bounded = merge.closed > 0 || merge.watermark.is_some();
    let mut lines = vec![(
        "line",
        match merge.ended {
            true => "all input has come".to_owned(),
            false => watermark(merge.watermark.as_deref()),
        },
    )];
    let what = if bounded {
        "open here, {} closed"
    } else {
        "open or held here"
    };
    lines.push((
        "line",
        format!(
            "{} {}",
            grouped(merge.open),
            what.replace("{}", &grouped(merge.closed))
        ),
    ));
    let mut results = counted(merge.emitted, "final result");
    if merge.changes > 0 {
        results.push_str(&format!(", {} changes", grouped(merge.changes)));
    }
    lines.push(("line", results));
    if merge.late > 0 {
        lines.push(("warn", format!("{} late", grouped(merge.late))));
    }
    let problem = merge
        .shard
        .iter()
        .find_map(|shard| shard.problem.as_deref());
    lines.extend(problem.map(|problem| ("warn", problem.to_owned())));
    Drawn {
        class: "merge",
        kind: if merge.emit == "final" {
            "merge, emits final"
        } else {
            "merge, emits changes"
        },
        lines,
        squares: merge
            .shard
            .iter()
            .map(|shard| {
                let restoring = shard.restored.is_some_and(|restored| restored < 1.0);
                let class = match (&shard.problem, shard.here) {
                    (Some(_), _) => "bad",
                    (None, true) if restoring => "waits",
                    (None, true) => "here",
                    (None, false) => "there",
                };
                let mut title = format!(
                    "shard {}, {}",
                    shard.shard,
                    if shard.here {
                        "held here"
                    } else {
                        "not held here"
                    }
                );
                if let Some(open) = shard.open {
                    title.push_str(&format!(", {open} open"));
                }
                if let Some(at) = &shard.watermark {
                    title.push_str(&format!(", watermark {at}"));
                }
                if let Some(behind) = shard.lag {
                    title.push_str(&format!(", {}", lag(behind)));
                }
                if restoring {
                    let share = shard.restored.unwrap_or(0.0) * 100.0;
                    title.push_str(&format!(", restored {share:.0} %"));
                }
                (class, title)
            })
            .collect(),
        trouble: problem.is_some(),
    }
}

fn watermark(at: Option<&str>) -> String {
    match at {
        // To the second: there is more in the JSON.
        Some(at) => match at.split_once('T') {
            Some((day, time)) => format!("watermark {day} {}", time.get(..8).unwrap_or(time)),
            None => format!("watermark {at}"),
        },
        None => "no watermark yet".into(),
    }
}

fn lag(behind: i64) -> String {
    match u64::try_from(behind).unwrap_or(0) {
        0 => "no lag".into(),
        behind => format!("lag {}", grouped(behind)),
    }
}

fn counted(count: u64, what: &str) -> String {
    match count {
        1 => format!("1 {what}"),
        count => format!("{} {what}s", grouped(count)),
    }
}

/// A number with a comma between each three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
