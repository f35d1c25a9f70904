//! What can be told of a job only when all of its statements are read: names that nobody declares, topics that are declared
//! twice, and what nobody uses.

use super::statement::Reader;
use super::{JobError, Script, reference, suggest};

impl Reader {
    /// The job, or all that is wrong with it.
    pub(super) fn finish(mut self) -> Result<Script, Vec<JobError>> {
        let circles = self.script.circles();
        self.errors.extend(circles);
        let Script {
            sources,
            tables,
            sinks,
            inserts,
            options,
        } = &self.script;
        reference::check(&self.script, &self.broken, &mut self.errors);
        for insert in inserts {
            if !sinks.contains_key(&insert.sink) && !self.broken.contains(&insert.sink) {
                let at = options
                    .get(&(insert.sink.clone(), "insert".to_owned()))
                    .copied()
                    .unwrap_or(insert.at);
                let what = format!("there is no sink {}", insert.sink);
                self.errors.push(JobError::new(
                    at,
                    what,
                    declare("SINK", &insert.sink, sinks.keys()),
                ));
            }
            if !sources.contains_key(&insert.source)
                && !tables.contains_key(&insert.source)
                && !self.broken.contains(&insert.source)
            {
                let at = insert.source_at;
                let what = format!("there is no source {}", insert.source);
                self.errors.push(JobError::new(
                    at,
                    what,
                    declare("SOURCE", &insert.source, sources.keys()),
                ));
            }
            if let (Some(source), Some((column, at))) =
                (sources.get(&insert.source), &insert.time_column)
                && !source.event_time.is_empty()
                && *column != source.event_time
            {
                let what = format!(
                    "{column} is not the event time of {}: {} is",
                    source.name, source.event_time
                );
                let help = format!(
                    "write TUMBLE({}, {}, …), or change event_time",
                    source.name, source.event_time
                );
                self.errors.push(JobError::new(*at, what, help));
            }
        }
        for source in sources.values() {
            let first = sources
                .values()
                .filter(|other| other.topic == source.topic && !other.topic.is_empty())
                .min_by_key(|other| other.at);
            if let Some(first) = first.filter(|first| first.name != source.name) {
                let at = options
                    .get(&(source.name.clone(), "topic".to_owned()))
                    .copied()
                    .unwrap_or(source.at);
                let what = format!(
                    "the topic {} is the source {} already",
                    source.topic, first.name
                );
                let help = format!("read it once: several queries can read FROM {}", first.name);
                self.errors.push(JobError::new(at, what, help));
            }
        }
        // An INSERT that could not be read may well use what seems unused.
        if self.errors.is_empty() {
            for source in sources.values() {
                if !inserts.iter().any(|insert| insert.source == source.name) {
                    let what = format!("nothing reads the source {}", source.name);
                    let help = format!(
                        "read it with INSERT INTO … SELECT … FROM TUMBLE({}, …), or leave it out",
                        source.name
                    );
                    self.errors.push(JobError::new(source.at, what, help));
                }
            }
            reference::unread(&self.script, &mut self.errors);
            for sink in sinks.values() {
                if !inserts.iter().any(|insert| insert.sink == sink.name) {
                    let what = format!("nothing is written to the sink {}", sink.name);
                    let help = format!(
                        "write to it with INSERT INTO {} SELECT …, or leave it out",
                        sink.name
                    );
                    self.errors.push(JobError::new(sink.at, what, help));
                }
            }
        }
        if self.errors.is_empty() {
            return Ok(self.script);
        }
        self.errors.sort_by_key(|error| error.at);
        self.errors.dedup();
        Err(self.errors)
    }
}

pub(super) fn declare<'a>(
    kind: &str,
    name: &str,
    known: impl Iterator<Item = &'a String>,
) -> String {
    let known: Vec<&str> = known.map(String::as_str).collect();
    if known.is_empty() {
        return format!("declare it: CREATE {kind} {name} WITH (…);");
    }
    format!(
        "{}, or declare it: CREATE {kind} {name} WITH (…);",
        suggest::help(name, known)
    )
}
