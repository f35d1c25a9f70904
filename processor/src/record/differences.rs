//! What differs between the job that an application's state is of, and the one that is to run.

use std::collections::BTreeMap;

use super::{JobRecord, QueryRecord};

/// What stands at the beginning of a fingerprint's lines, each at most once.
const ONCE: [&str; 7] = [
    "format",
    "topic",
    "event time",
    "windows",
    "grace",
    "spread",
    "where",
];
/// What stands at the beginning of several.
const LISTED: [&str; 3] = ["lookup", "group by", "aggregate"];
/// A column of the partial rows: it follows from the rest, and from the types of the source's columns.
const COLUMN: &str = "partial";

/// What differs, a sentence for each; nothing if the state is of this job.
pub fn differences(known: &JobRecord, job: &JobRecord) -> Vec<String> {
    let mut found = Vec::new();
    if known.shards != job.shards {
        found.push(format!("shards: was {}, is {}", known.shards, job.shards));
    }
    let find = |record: &JobRecord, name: &str| -> Option<QueryRecord> {
        let mut queries = record.queries.iter();
        queries.find(|query| query.query == name).cloned()
    };
    for was in &known.queries {
        match find(job, &was.query) {
            None => found.push(format!("query {} is no longer there", was.query)),
            Some(is) => found.extend(
                of_query(was, &is)
                    .into_iter()
                    .map(|what| format!("query {}: {what}", was.query)),
            ),
        }
    }
    for is in &job.queries {
        if find(known, &is.query).is_none() {
            found.push(format!("query {} is new", is.query));
        }
    }
    if found.is_empty() {
        // Counts stand beside a source's offsets by the places of its queries.
        for (topic, was) in by_topic(known) {
            let is = by_topic(job).remove(topic).unwrap_or_default();
            if was != is {
                found.push(format!(
                    "the queries of topic {topic} stand in another order: was {}; is {}",
                    was.join(", "),
                    is.join(", ")
                ));
            }
        }
    }
    found
}

fn by_topic(record: &JobRecord) -> BTreeMap<&str, Vec<&str>> {
    let mut topics: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for query in &record.queries {
        topics.entry(&query.topic).or_default().push(&query.query);
    }
    topics
}

fn of_query(was: &QueryRecord, is: &QueryRecord) -> Vec<String> {
    if was.state != is.state {
        return vec![match is.state {
            true => "it had no state, and has".into(),
            false => "it had state, and has none".into(),
        }];
    }
    if was.topic != is.topic {
        return vec![changed(
            "topic",
            &[was.topic.as_str()],
            &[is.topic.as_str()],
        )];
    }
    // Without state nothing depends on what was done before.
    if !is.state || was.text == is.text {
        return Vec::new();
    }
    let (before, after) = (lines(&was.text), lines(&is.text));
    let values = |of: &BTreeMap<&str, Vec<String>>, name: &str| -> Vec<String> {
        of.get(name).cloned().unwrap_or_default()
    };
    let mut found = Vec::new();
    for name in ONCE {
        let (was, is) = (values(&before, name), values(&after, name));
        if was != is {
            found.push(changed(name, &was, &is));
        }
    }
    for name in LISTED {
        found.extend(listed(name, &values(&before, name), &values(&after, name)));
    }
    if found.is_empty() {
        let (was, is) = (values(&before, COLUMN), values(&after, COLUMN));
        found.extend(listed(
            "columns of partial rows (the type of a source's column may have changed)",
            &was,
            &is,
        ));
    }
    if found.is_empty() {
        found.push("its fingerprint".into());
    }
    found
}

/// What stands in a fingerprint under a name that comes at most once.
pub(crate) fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    debug_assert!(ONCE.contains(&name), "{name} may come several times");
    // Texts of several lines come behind all of these but `where`.
    text.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
}

/// Whether two queries put rows into the same windows and groups.
pub(crate) fn same_groups(one: &str, other: &str) -> bool {
    let (one, other) = (lines(one), lines(other));
    ["windows", "group by"]
        .iter()
        .all(|name| one.get(name) == other.get(name))
}

/// A fingerprint's lines by what stands at their beginning. A line that begins with nothing known goes on with the one
/// before: texts may have several.
fn lines(text: &str) -> BTreeMap<&str, Vec<String>> {
    let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let mut last = None;
    let names = || ONCE.iter().chain(&LISTED).chain([&COLUMN]).copied();
    for line in text.lines() {
        let known = names().find_map(|name| {
            let value = line.strip_prefix(name)?.strip_prefix(' ')?;
            Some((name, value))
        });
        match (known, last) {
            (Some((name, value)), _) => {
                by_name.entry(name).or_default().push(value.into());
                last = Some(name);
            }
            (None, Some(name)) => {
                if let Some(value) = by_name.get_mut(name).and_then(|values| values.last_mut()) {
                    value.push('\n');
                    value.push_str(line);
                }
            }
            (None, None) => {}
        }
    }
    by_name
}

fn changed(name: &str, was: &[impl AsRef<str>], is: &[impl AsRef<str>]) -> String {
    let text = |values: &[_]| match values {
        [] => "nothing".to_owned(),
        values => values
            .iter()
            .map(|value: &&str| (*value).to_owned())
            .collect::<Vec<_>>()
            .join(", "),
    };
    let (was, is): (Vec<&str>, Vec<&str>) = (
        was.iter().map(AsRef::as_ref).collect(),
        is.iter().map(AsRef::as_ref).collect(),
    );
    format!("{name}: was {}, is {}", text(&was), text(&is))
}

fn listed(name: &str, was: &[String], is: &[String]) -> Vec<String> {
    let missing = |from: &[String], of: &[String]| -> Vec<String> {
        let mut left = from.to_vec();
        for value in of {
            if let Some(at) = left.iter().position(|other| other == value) {
                left.remove(at);
            }
        }
        left
    };
    let (gone, new) = (missing(was, is), missing(is, was));
    if gone.is_empty() && new.is_empty() {
        return match was == is {
            true => Vec::new(),
            false => vec![format!(
                "{name}: in another order, was {}; is {}",
                was.join(", "),
                is.join(", ")
            )],
        };
    }
    let mut found = Vec::new();
    if !gone.is_empty() {
        found.push(format!("{name}: no longer {}", gone.join(", ")));
    }
    if !new.is_empty() {
        found.push(format!("{name}: new is {}", new.join(", ")));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(shards: u32, queries: &[(&str, &str, bool, &str)]) -> JobRecord {
        let queries = queries
            .iter()
            .map(|(query, topic, state, text)| QueryRecord {
                query: (*query).into(),
                topic: (*topic).into(),
                state: *state,
                text: (*text).into(),
                sink: None,
            });
        JobRecord {
            v: 1,
            shards,
            queries: queries.collect(),
            resetting: false,
            takes_over: None,
            handed_over: None,
        }
    }

    const TEXT: &str = "format 1\ntopic t\nevent time at\nwindows tumbling 60000\ngrace 0 ms\nwhere a = 'x\ny'\ngroup by k\ngroup by window_start\naggregate count(*)\npartial k Int32\npartial count Int64\n";

    #[test]
    fn each_thing_that_differs_is_named_and_nothing_else() {
        let known = record(4, &[("q", "t", true, TEXT)]);
        let against = |text: &str| differences(&known, &record(4, &[("q", "t", true, text)]));
        assert!(against(TEXT).is_empty());
        for (change, expected) in [
            (
                ("tumbling 60000", "tumbling 120000"),
                "query q: windows: was tumbling 60000, is tumbling 120000",
            ),
            (("grace 0 ms\n", ""), "query q: grace: was 0 ms, is nothing"),
            (
                ("'x\ny'", "'x\nz'"),
                "query q: where: was a = 'x\ny', is a = 'x\nz'",
            ),
            (
                (
                    "aggregate count(*)\n",
                    "aggregate count(*)\naggregate sum(b)\n",
                ),
                "query q: aggregate: new is sum(b)",
            ),
            (("group by k\n", ""), "query q: group by: no longer k"),
            (
                (
                    "group by k\ngroup by window_start\n",
                    "group by window_start\ngroup by k\n",
                ),
                "query q: group by: in another order, was k, window_start; is window_start, k",
            ),
            (("format 1", "format 2"), "query q: format: was 1, is 2"),
        ] {
            assert_eq!(against(&TEXT.replace(change.0, change.1)), [expected]);
        }
        let types = against(&TEXT.replace("k Int32", "k Int64"));
        assert_eq!(types.len(), 2);
        assert!(
            types[0].contains("no longer k Int32") && types[1].contains("new is k Int64"),
            "{types:?}"
        );
    }

    #[test]
    fn queries_that_come_go_or_move_are_named() {
        let known = record(
            4,
            &[
                ("a", "t", true, TEXT),
                ("b", "t", false, "x"),
                ("c", "u", true, TEXT),
            ],
        );
        let against = |shards, queries: &[_]| differences(&known, &record(shards, queries));
        let (a, b, c) = (
            known.queries[0].clone(),
            ("b", "t", false, "y"),
            ("c", "u", true, TEXT),
        );
        let a = (a.query.as_str(), "t", true, TEXT);
        // What a query without state does may change, and so may the order of queries of different topics.
        assert!(against(4, &[c, a, b]).is_empty());
        assert_eq!(
            against(4, &[b, a, c]),
            ["the queries of topic t stand in another order: was a, b; is b, a"]
        );
        assert_eq!(
            against(8, &[a, c, ("d", "t", true, TEXT)]),
            [
                "shards: was 4, is 8",
                "query b is no longer there",
                "query d is new"
            ]
        );
        assert_eq!(
            against(4, &[a, ("b", "t", true, TEXT), c]),
            ["query b: it had no state, and has"]
        );
        assert_eq!(
            against(4, &[a, b, ("c", "v", true, TEXT)]),
            ["query c: topic: was u, is v"]
        );
    }
}
