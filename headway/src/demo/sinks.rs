//! How the results of a demo's job become documents.

use std::collections::BTreeMap;

use engine::sql::Script;
use sink_opensearch::{DocumentsFile, TopicSettings};

/// The columns that say which window a result is of: either can name the index of its document.
const WINDOW: [&str; 2] = ["window_start", "window_end"];

/// The settings of every topic that a job writes: the shipped ones, or else what follows from the sink: a document for
/// each key, in an index for each month of windows.
pub fn documents(script: &Script) -> anyhow::Result<Vec<TopicSettings>> {
    let shipped: DocumentsFile = toml::from_str(DocumentsFile::TAXI)?;
    let mut by_topic = BTreeMap::new();
    for sink in script.sinks.values() {
        let derived = || {
            let mut settings = TopicSettings::new(&sink.topic);
            settings.keys = sink.key.clone();
            let time = WINDOW
                .into_iter()
                .find(|name| sink.key.iter().any(|column| column == name));
            settings.time = time.map(str::to_owned);
            settings
        };
        by_topic
            .entry(&sink.topic)
            .or_insert_with(|| shipped.named(&sink.topic).cloned().unwrap_or_else(derived));
    }
    Ok(by_topic.into_values().collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn what_is_not_shipped_follows_from_the_sink() {
        let script = crate::job::parse(
            "CREATE SOURCE trips WITH (topic = 'trips', event_time = 'pickup_at');
             CREATE SINK trip_statistics WITH (topic = 'trip_statistics', key = 'window_start, vendor_id');
             CREATE SINK hourly WITH (topic = 'hours', key = 'vendor_id, window_end');
             CREATE SINK totals WITH (topic = 'totals', key = 'vendor_id', emit = 'changes');
             INSERT INTO trip_statistics SELECT window_start, vendor_id FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')
                GROUP BY window_start, vendor_id;
             INSERT INTO hourly SELECT window_end, vendor_id FROM TUMBLE(trips, pickup_at, INTERVAL '1 hour')
                GROUP BY window_end, vendor_id;
             INSERT INTO totals SELECT vendor_id, count(*) AS trips FROM trips GROUP BY vendor_id;",
            "a job",
        )
        .unwrap();
        let found = documents(&script).unwrap();
        let topics: Vec<_> = found.iter().map(|topic| topic.topic.as_str()).collect();
        assert_eq!(topics, ["hours", "totals", "trip_statistics"]);
        assert_eq!(
            found[0],
            TopicSettings::new("hours")
                .keyed_by(&["vendor_id", "window_end"])
                .timed_by("window_end")
        );
        assert_eq!(
            found[1],
            TopicSettings::new("totals").keyed_by(&["vendor_id"])
        );
        assert_eq!(found[2].geo_points.len(), 1, "as it is shipped");
    }
}
