//! What must not change while a query's state lives, as a text.

use std::fmt::Write as _;

use arrow::datatypes::Schema;

use super::build::Job;
use super::{FORMAT, Lookup, Spread, check, record_time};
use crate::sql::Join;
use crate::window::Window;

impl Job<'_> {
    /// One line per thing that partial rows depend on. What only the results depend on (HAVING, the SELECT list's
    /// arithmetic) may change while state lives.
    pub(super) fn fingerprint(
        &self,
        input: &Schema,
        partial: &Schema,
        window: Window,
        spread: Spread,
        lookups: &[Lookup],
    ) -> String {
        let mut text = format!("format {FORMAT}\n");
        let mut line = |name: &str, value: &str| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} {value}");
        };
        line("topic", &self.source.topic);
        line("event time", &self.source.event_time);
        if record_time::is_read(input) {
            line("record time", "the log's");
        }
        line("windows", &window.text());
        if window.is_bounded() {
            line("grace", &format!("{} ms", self.sink.grace.as_millis()));
        }
        if spread != Spread::Key {
            line("spread", &format!("{spread:?}").to_lowercase());
        }
        for lookup in lookups {
            line("lookup", &self.lookup_text(lookup));
        }
        if let Some(select) = check::select(&self.insert.query) {
            line(
                "where",
                &select
                    .selection
                    .as_ref()
                    .map_or_else(|| "true".to_owned(), ToString::to_string),
            );
            for group in check::group_texts(select) {
                line("group by", &group);
            }
            for aggregate in check::aggregate_texts(select) {
                line("aggregate", &aggregate);
            }
        }
        for field in partial.fields() {
            line(
                "partial",
                &format!("{} {}", field.name(), field.data_type()),
            );
        }
        text
    }

    /// A lookup's definition: what is joined how, and the columns that are read of it, but not what stands in them.
    fn lookup_text(&self, lookup: &Lookup) -> String {
        let Join {
            table,
            alias,
            inner,
            on,
            ..
        } = &lookup.join;
        let kind = if *inner { "inner" } else { "left" };
        let mut text = format!("{kind} {table} as {alias} on {on}");
        let (schema, definition) = (self.schemas.get(table), self.script.tables.get(table));
        if let (Some(schema), Some(definition)) = (schema, definition) {
            let mut columns = |what: &str, names: &[String]| {
                let typed: Vec<String> = names
                    .iter()
                    .filter_map(|name| schema.field_with_name(name).ok())
                    .map(|field| format!("{} {}", field.name(), field.data_type()))
                    .collect();
                let _ = write!(text, ", {what} ({})", typed.join(", "));
            };
            columns("key", &definition.key);
            columns("columns", &lookup.columns);
        }
        text
    }
}
