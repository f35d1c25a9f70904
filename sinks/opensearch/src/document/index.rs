//! The name of the index that a document goes to: from the topic and the document's own time, never from the clock.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Datelike};
use chrono_tz::Tz;

/// What is wrong with an index pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// An unknown or unclosed placeholder.
    #[error(
        "index pattern {pattern:?} has the placeholder {placeholder:?}; there are {{topic}}, {{yyyy}}, {{yyyy.MM}} and {{yyyy.MM.dd}}"
    )]
    Placeholder {
        /// The pattern.
        pattern: String,
        /// What stands in it.
        placeholder: String,
    },
    /// More than one placeholder for the date.
    #[error("index pattern {pattern:?} has more than one date")]
    TwoDates {
        /// The pattern.
        pattern: String,
    },
    /// The names made of it would be refused.
    #[error(
        "index pattern {pattern:?} makes names like {example:?}, which OpenSearch refuses: use a-z, 0-9, '.', '_' and '-', beginning with a letter or digit, at most 200 bytes"
    )]
    Name {
        /// The pattern.
        pattern: String,
        /// A name made of it.
        example: String,
    },
}

/// How fine the date in an index name is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grain {
    Year,
    Month,
    Day,
}

impl Grain {
    fn of(placeholder: &str) -> Option<Self> {
        match placeholder {
            "yyyy" => Some(Self::Year),
            "yyyy.MM" => Some(Self::Month),
            "yyyy.MM.dd" => Some(Self::Day),
            _ => None,
        }
    }
}

/// A pattern of index names, such as `{topic}-{yyyy.MM}`: `{topic}` and at most one date.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexPattern {
    before: String,
    date: Option<Grain>,
    after: String,
    zone: Tz,
}

impl IndexPattern {
    /// Reads a pattern for a topic; dates in names are those of `zone`.
    ///
    /// # Errors
    /// When a placeholder is unknown, or OpenSearch would refuse the names.
    pub fn parse(pattern: &str, topic: &str, zone: Tz) -> Result<Self, PatternError> {
        let mut parsed = Self {
            before: String::new(),
            date: None,
            after: String::new(),
            zone,
        };
        let mut rest = pattern;
        while let Some(open) = rest.find('{') {
            let (literal, tail) = rest.split_at(open);
            parsed.push(literal);
            let unknown = |text: &str| PatternError::Placeholder {
                pattern: pattern.to_owned(),
                placeholder: text.to_owned(),
            };
            let close = tail.find('}').ok_or_else(|| unknown(tail))?;
            let name = &tail[1..close];
            if name == "topic" {
                parsed.push(topic);
            } else {
                let grain = Grain::of(name).ok_or_else(|| unknown(&tail[..=close]))?;
                if parsed.date.replace(grain).is_some() {
                    return Err(PatternError::TwoDates {
                        pattern: pattern.to_owned(),
                    });
                }
            }
            rest = &tail[close + 1..];
        }
        parsed.push(rest);

        let example = parsed.render(2016, 1, 1);
        let allowed =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        let starts = example
            .chars()
            .next()
            .is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        if !starts || !example.chars().all(allowed) || example.len() > 200 {
            return Err(PatternError::Name {
                pattern: pattern.to_owned(),
                example,
            });
        }
        Ok(parsed)
    }

    fn push(&mut self, literal: &str) {
        if self.date.is_some() {
            self.after.push_str(literal);
        } else {
            self.before.push_str(literal);
        }
    }

    /// Whether names carry a date, so that a document needs a time.
    pub fn dated(&self) -> bool {
        self.date.is_some()
    }

    /// The pattern that all its names match, with `*` for the date: for templates, counts and deletions.
    pub fn wildcard(&self) -> String {
        let star = if self.dated() { "*" } else { "" };
        format!("{}{star}{}", self.before, self.after)
    }

    /// Whether a name is one that this pattern makes.
    pub fn matches(&self, name: &str) -> bool {
        let date = name
            .strip_prefix(self.before.as_str())
            .and_then(|rest| rest.strip_suffix(self.after.as_str()));
        let form: &[u8] = match self.date {
            None => b"",
            Some(Grain::Year) => b"0000",
            Some(Grain::Month) => b"0000.00",
            Some(Grain::Day) => b"0000.00.00",
        };
        date.is_some_and(|date| {
            date.len() == form.len()
                && date.bytes().zip(form).all(|(byte, form)| match form {
                    b'0' => byte.is_ascii_digit(),
                    form => byte == *form,
                })
        })
    }

    /// Whether a name of this pattern could match the other's wildcard, so that the two could not be told apart.
    pub fn overlaps(&self, other: &Self) -> bool {
        let mixes = |a: &Self, b: &Self| {
            let name = a.render(2016, 1, 1);
            match b.dated() {
                false => name == b.before,
                true => {
                    name.len() >= b.before.len() + b.after.len()
                        && name.starts_with(&b.before)
                        && name.ends_with(&b.after)
                }
            }
        };
        mixes(self, other) || mixes(other, self)
    }

    fn render(&self, year: i32, month: u32, day: u32) -> String {
        let (before, after) = (&self.before, &self.after);
        match self.date {
            None => before.clone(),
            Some(Grain::Year) => format!("{before}{year:04}{after}"),
            Some(Grain::Month) => format!("{before}{year:04}.{month:02}{after}"),
            Some(Grain::Day) => format!("{before}{year:04}.{month:02}.{day:02}{after}"),
        }
    }
}

impl fmt::Display for IndexPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wildcard())
    }
}

/// Index names by date, each made once.
#[derive(Debug)]
pub(crate) struct IndexNames {
    pattern: IndexPattern,
    names: HashMap<(i32, u32, u32), Arc<str>>,
}

impl IndexNames {
    pub(crate) fn new(pattern: IndexPattern) -> Self {
        Self {
            pattern,
            names: HashMap::new(),
        }
    }

    /// The index of a document of this time; `None` when it has no year from 1 to 9999.
    pub(crate) fn at(&mut self, time_ms: i64) -> Option<Arc<str>> {
        let (year, month, day) = match self.pattern.date {
            None => (0, 0, 0),
            Some(grain) => {
                let local =
                    DateTime::from_timestamp_millis(time_ms)?.with_timezone(&self.pattern.zone);
                let (year, month, day) = (local.year(), local.month(), local.day());
                if !(1..=9999).contains(&year) {
                    return None;
                }
                match grain {
                    Grain::Year => (year, 1, 1),
                    Grain::Month => (year, month, 1),
                    Grain::Day => (year, month, day),
                }
            }
        };
        if self.names.len() > 10_000 {
            self.names.clear();
        }
        let name = self
            .names
            .entry((year, month, day))
            .or_insert_with(|| self.pattern.render(year, month, day).into());
        Some(Arc::clone(name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn name(pattern: &str, zone: Tz, time: &str) -> String {
        let time_ms = DateTime::parse_from_rfc3339(time)
            .unwrap()
            .timestamp_millis();
        let pattern = IndexPattern::parse(pattern, "trip_statistics", zone).unwrap();
        IndexNames::new(pattern).at(time_ms).unwrap().to_string()
    }

    #[test]
    fn a_month_begins_at_its_first_millisecond_in_the_stated_zone() {
        let month = "{topic}-{yyyy.MM}";
        for (zone, time, expected) in [
            (
                Tz::UTC,
                "2016-01-31T23:59:59.999Z",
                "trip_statistics-2016.01",
            ),
            (
                Tz::UTC,
                "2016-02-01T00:00:00.000Z",
                "trip_statistics-2016.02",
            ),
            (
                Tz::UTC,
                "2015-12-31T23:59:59.999Z",
                "trip_statistics-2015.12",
            ),
            (
                Tz::UTC,
                "2016-02-29T23:59:59.999Z",
                "trip_statistics-2016.02",
            ),
            (
                Tz::UTC,
                "1969-12-31T23:59:59.999Z",
                "trip_statistics-1969.12",
            ),
            (
                Tz::America__New_York,
                "2016-02-01T04:59:59.999Z",
                "trip_statistics-2016.01",
            ),
            (
                Tz::America__New_York,
                "2016-02-01T05:00:00.000Z",
                "trip_statistics-2016.02",
            ),
            // in summer time the month begins an hour earlier in UTC
            (
                Tz::America__New_York,
                "2016-07-01T03:59:59.999Z",
                "trip_statistics-2016.06",
            ),
            (
                Tz::America__New_York,
                "2016-07-01T04:00:00.000Z",
                "trip_statistics-2016.07",
            ),
        ] {
            assert_eq!(name(month, zone, time), expected, "{time} {zone}");
        }
    }

    #[test]
    fn names_take_year_day_or_no_date() {
        let time = "2016-03-09T10:00:00Z";
        assert_eq!(
            name("x-{topic}-{yyyy}", Tz::UTC, time),
            "x-trip_statistics-2016"
        );
        assert_eq!(
            name("{yyyy.MM.dd}.{topic}", Tz::UTC, "2016-03-09T00:00:00Z").as_str(),
            "2016.03.09.trip_statistics"
        );
        assert_eq!(name("{topic}", Tz::UTC, time), "trip_statistics");
    }

    #[test]
    fn a_pattern_knows_the_names_that_it_makes() {
        let matches = |pattern: &str, name: &str| {
            IndexPattern::parse(pattern, "t", Tz::UTC)
                .unwrap()
                .matches(name)
        };
        for (pattern, name) in [
            ("{topic}-{yyyy.MM}", "t-2016.01"),
            ("{topic}", "t"),
            ("{yyyy}-x", "2016-x"),
            ("x-{yyyy.MM.dd}.y", "x-2016.02.29.y"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("{topic}-{yyyy.MM}", "t-2016"),
            ("{topic}-{yyyy.MM}", "t-2016.01.02"),
            ("{topic}-{yyyy.MM}", "t-late-2016.01"),
            ("{topic}-{yyyy.MM}", "t-2016-01"),
            ("{topic}", "t-2016"),
            ("{yyyy}-x", "-x"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_time_without_a_four_digit_year_has_no_index() {
        let mut names = IndexNames::new(IndexPattern::parse("t-{yyyy.MM}", "t", Tz::UTC).unwrap());
        assert_eq!(names.at(i64::MAX), None);
        assert_eq!(names.at(i64::MIN), None);
        assert_eq!(names.at(253_402_300_800_000), None); // year 10000
        assert!(names.at(253_402_300_799_999).is_some());
    }

    #[test]
    fn bad_patterns_are_refused_with_what_to_write() {
        for (pattern, part) in [
            ("{topic}-{month}", "{yyyy.MM}"),
            ("{topic}-{yyyy", "placeholder"),
            ("{yyyy}-{yyyy.MM}", "more than one date"),
            ("Trips-{yyyy.MM}", "a-z"),
            ("-{topic}", "beginning with"),
            ("{topic} x", "a-z"),
            ("", "a-z"),
        ] {
            let error = IndexPattern::parse(pattern, "t", Tz::UTC)
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{pattern}: {error}");
        }
    }

    #[test]
    fn patterns_that_could_not_be_told_apart_overlap() {
        let parse = |pattern: &str| IndexPattern::parse(pattern, "t", Tz::UTC).unwrap();
        assert!(parse("a-{yyyy.MM}").overlaps(&parse("a-{yyyy}")));
        assert!(parse("a-{yyyy.MM}").overlaps(&parse("a-late-{yyyy.MM}")));
        assert!(!parse("a-{yyyy.MM}").overlaps(&parse("b-{yyyy.MM}")));
        assert!(!parse("trips-{yyyy.MM}").overlaps(&parse("trip_statistics-{yyyy.MM}")));
        assert!(parse("a").overlaps(&parse("a")));
        assert!(!parse("a").overlaps(&parse("a-{yyyy}")));
    }
}
