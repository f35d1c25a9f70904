//! A binary's own flags, as the keys of the configuration that they stand for.

use toml::{Table, Value};

/// The flags that stand for keys of one section. A flag that is not given sets nothing.
#[derive(Clone, Debug)]
pub struct Flags {
    section: &'static str,
    keys: Table,
}

impl Flags {
    /// Of this section, none yet.
    pub fn of(section: &'static str) -> Self {
        Self {
            section,
            keys: Table::new(),
        }
    }

    /// With a flag that stands for this key.
    #[must_use]
    pub fn set(mut self, key: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.keys.insert(key.to_owned(), value.into());
        }
        self
    }

    /// With a flag that can be repeated.
    #[must_use]
    pub fn list(self, key: &str, values: &[String]) -> Self {
        self.set(key, (!values.is_empty()).then(|| values.to_vec()))
    }

    /// As [`Config::load`](crate::config::Config::load) takes them.
    pub fn table(self) -> Table {
        if self.keys.is_empty() {
            return Table::new();
        }
        Table::from_iter([(self.section.to_owned(), Value::Table(self.keys))])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_that_is_not_given_sets_nothing() {
        let none = Flags::of("sink_s3")
            .set("url", None::<&str>)
            .list("topics", &[]);
        assert!(none.table().is_empty());
        let some = Flags::of("sink_s3")
            .set("url", Some("s3://x/y"))
            .set("flush_rows", Some(5))
            .list("topics", &["a".into(), "b".into()]);
        assert_eq!(
            some.table().to_string(),
            "[sink_s3]\nflush_rows = 5\ntopics = [\"a\", \"b\"]\nurl = \"s3://x/y\"\n"
        );
    }
}
