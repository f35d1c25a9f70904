//! `WITH (name = value, …)`, and durations.

use std::collections::BTreeMap;
use std::time::Duration;

use datafusion_sql::sqlparser::ast::{DateTimeField, Expr, Interval, Value};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::parser::{Parser, ParserError};
use datafusion_sql::sqlparser::tokenizer::Token;

use super::{Format, JobError, Location, suggest};

/// One option: its value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Setting {
    pub(super) at: Location,
    pub(super) value_at: Location,
    pub(super) value: Expr,
}

/// A statement's options, taken out one by one by those who know them.
#[derive(Debug)]
pub(super) struct Options {
    statement: Location,
    settings: BTreeMap<String, Setting>,
}

impl Options {
    /// Reads `WITH (a = 'x', …)` at the parser's position.
    pub(super) fn parse(
        parser: &mut Parser<'_>,
        statement: Location,
        errors: &mut Vec<JobError>,
    ) -> Result<Self, ParserError> {
        let mut settings = BTreeMap::new();
        if parser.parse_keyword(Keyword::WITH) {
            parser.expect_token(&Token::LParen)?;
            while !parser.consume_token(&Token::RParen) {
                let at = parser.peek_token().span.start.into();
                let name = parser.parse_identifier()?.value.to_lowercase();
                parser.expect_token(&Token::Eq)?;
                let value_at = parser.peek_token().span.start.into();
                let value = parser.parse_expr()?;
                if settings
                    .insert(
                        name.clone(),
                        Setting {
                            at,
                            value_at,
                            value,
                        },
                    )
                    .is_some()
                {
                    errors.push(JobError::new(
                        at,
                        format!("the option {name} is given twice"),
                        "keep one of them",
                    ));
                }
                if !parser.consume_token(&Token::Comma) {
                    parser.expect_token(&Token::RParen)?;
                    break;
                }
            }
        }
        Ok(Self {
            statement,
            settings,
        })
    }

    /// Where each option stands.
    pub(super) fn locations(&self) -> impl Iterator<Item = (&str, Location)> {
        self.settings
            .iter()
            .map(|(name, setting)| (name.as_str(), setting.value_at))
    }

    /// A text that must be there; the empty text, and an error, if it is not.
    pub(super) fn required(
        &mut self,
        name: &str,
        example: &str,
        errors: &mut Vec<JobError>,
    ) -> (String, Location) {
        let Some(setting) = self.settings.remove(name) else {
            let what = format!("the option {name} is missing");
            errors.push(JobError::new(
                self.statement,
                what,
                format!("add to WITH (…): {name} = '{example}'"),
            ));
            return (String::new(), self.statement);
        };
        match text(&setting.value) {
            Some(text) if !text.trim().is_empty() => (text.trim().to_owned(), setting.value_at),
            _ => {
                let what = format!("{name} must be a text");
                errors.push(JobError::new(
                    setting.value_at,
                    what,
                    format!("write {name} = '{example}'"),
                ));
                (String::new(), setting.value_at)
            }
        }
    }

    /// A text that may be left out.
    pub(super) fn optional(
        &mut self,
        name: &str,
        example: &str,
        errors: &mut Vec<JobError>,
    ) -> Option<(String, Location)> {
        self.settings
            .contains_key(name)
            .then(|| self.required(name, example, errors))
    }

    /// A length of time, 0 included.
    pub(super) fn duration(&mut self, name: &str, errors: &mut Vec<JobError>) -> Option<Duration> {
        let setting = self.settings.remove(name)?;
        match duration(&setting.value) {
            Ok(duration) => Some(duration),
            Err(what) => {
                let help = format!("write {name} = INTERVAL '5 minutes'");
                errors.push(JobError::new(
                    setting.value_at,
                    format!("{name}: {what}"),
                    help,
                ));
                None
            }
        }
    }

    /// A length of time, 0 excluded, or 'none'; `otherwise` if it is left out.
    pub(super) fn bound(
        &mut self,
        name: &str,
        otherwise: Option<Duration>,
        errors: &mut Vec<JobError>,
    ) -> Option<Duration> {
        let Some(setting) = self.settings.get(name) else {
            return otherwise;
        };
        if text(&setting.value).is_some_and(|text| text.trim().eq_ignore_ascii_case("none")) {
            self.settings.remove(name);
            return None;
        }
        let at = setting.value_at;
        let bound = self.duration(name, errors)?;
        if bound.is_zero() {
            errors.push(JobError::new(
                at,
                format!("{name} must not be 0"),
                format!("write {name} = INTERVAL '1 hour', or 'none' for no bound"),
            ));
        }
        Some(bound)
    }

    /// `true` or `false`; `otherwise` if it is left out.
    pub(super) fn flag(&mut self, name: &str, otherwise: bool, errors: &mut Vec<JobError>) -> bool {
        let Some(setting) = self.settings.remove(name) else {
            return otherwise;
        };
        let value = match &setting.value {
            Expr::Value(value) => match &value.value {
                Value::Boolean(value) => Some(*value),
                Value::SingleQuotedString(text) => text.trim().to_lowercase().parse().ok(),
                _ => None,
            },
            _ => None,
        };
        value.unwrap_or_else(|| {
            errors.push(JobError::new(
                setting.value_at,
                format!("{name} must be true or false"),
                format!("write {name} = {otherwise}"),
            ));
            otherwise
        })
    }

    /// What nobody has taken is unknown.
    pub(super) fn finish(self, statement: &str, known: &[&str], errors: &mut Vec<JobError>) {
        for (name, setting) in self.settings {
            let what = format!("{statement} has no option {name}");
            errors.push(JobError::new(
                setting.at,
                what,
                suggest::help(&name, known.iter().copied()),
            ));
        }
    }
}

/// Reads the option format, which decides whether columns are declared; `columns` says where they are. `kind` is what
/// follows CREATE.
pub(super) fn format(
    options: &mut Options,
    kind: &str,
    columns: Option<Location>,
    statement: Location,
    errors: &mut Vec<JobError>,
) -> Format {
    let given = options.optional("format", "avro", errors);
    let format = match given.as_ref().map(|(format, _)| format.to_lowercase()) {
        None => Format::Avro,
        Some(format) if format == "avro" => Format::Avro,
        Some(format) if format == "json" => Format::Json,
        Some(other) => {
            let at = given.map_or(statement, |(_, at)| at);
            errors.push(JobError::new(
                at,
                format!("format = '{other}' is not supported"),
                "write format = 'avro' or format = 'json'",
            ));
            return Format::Avro;
        }
    };
    match (format, columns) {
        (Format::Avro, Some(at)) => errors.push(JobError::new(
            at,
            "the columns of an Avro topic come from the schema registry",
            "leave them out, or write format = 'json' if the topic's values are JSON",
        )),
        (Format::Json, None) => errors.push(JobError::new(
            statement,
            "a JSON topic has no schema: its columns must be declared",
            format!("write CREATE {kind} name (id BIGINT, at TIMESTAMP NOT NULL) WITH (…)"),
        )),
        (Format::Avro, None) | (Format::Json, Some(_)) => {}
    }
    format
}

fn text(value: &Expr) -> Option<String> {
    match value {
        Expr::Value(value) => match &value.value {
            Value::SingleQuotedString(text) => Some(text.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// The length of `'5 minutes'`, `INTERVAL '5 minutes'` or `INTERVAL '5' MINUTE`.
pub(super) fn duration(value: &Expr) -> Result<Duration, String> {
    const HELP: &str = "is not a length of time";
    match value {
        Expr::Interval(Interval {
            value,
            leading_field: None,
            last_field: None,
            ..
        }) => duration_text(&text(value).ok_or_else(|| format!("{value} {HELP}"))?),
        Expr::Interval(Interval {
            value,
            leading_field: Some(unit),
            last_field: None,
            ..
        }) => {
            let number = match value.as_ref() {
                Expr::Value(value) => match &value.value {
                    Value::SingleQuotedString(number) | Value::Number(number, _) => number.clone(),
                    _ => return Err(format!("{value} {HELP}")),
                },
                _ => return Err(format!("{value} {HELP}")),
            };
            let unit = match unit {
                DateTimeField::Week(_) => "week".to_owned(),
                unit => unit.to_string(),
            };
            duration_text(&format!("{number} {unit}"))
        }
        value => duration_text(&text(value).ok_or_else(|| format!("{value} {HELP}"))?),
    }
}

/// The length of `5 minutes` or `1 hour 30 minutes`. Months and years have no fixed length and are refused.
fn duration_text(text: &str) -> Result<Duration, String> {
    let wrong = || format!("'{text}' is not a length of time such as '5 minutes'");
    let mut words = text.split_whitespace();
    let mut total: Option<Duration> = None;
    while let Some(word) = words.next() {
        let digits = word
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(word.len());
        let (number, glued) = word.split_at(digits);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let unit = if glued.is_empty() {
            words.next().ok_or_else(wrong)?
        } else {
            glued
        };
        let unit_ms: u64 = match unit.to_lowercase().as_str() {
            "ms" | "millisecond" | "milliseconds" => 1,
            "s" | "second" | "seconds" => 1_000,
            "m" | "min" | "minute" | "minutes" => 60_000,
            "h" | "hour" | "hours" => 3_600_000,
            "d" | "day" | "days" => 86_400_000,
            "week" | "weeks" => 7 * 86_400_000,
            "month" | "months" | "year" | "years" => {
                return Err(format!("'{text}' has no fixed length; count in days"));
            }
            _ => return Err(wrong()),
        };
        // A bound of a thousand years keeps every sum of event times and lengths inside of an i64 of milliseconds.
        let part = number
            .checked_mul(unit_ms)
            .filter(|ms| *ms <= 1_000 * 366 * 86_400_000)
            .ok_or_else(wrong)?;
        total = Some(total.unwrap_or_default() + Duration::from_millis(part));
    }
    total
        .filter(|total| *total <= Duration::from_millis(1_000 * 366 * 86_400_000))
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn durations_are_read_and_nonsense_is_refused() {
        assert_eq!(
            duration_text("5 minutes").unwrap(),
            Duration::from_secs(300)
        );
        assert_eq!(
            duration_text("1 hour 30 minutes").unwrap(),
            Duration::from_secs(5400)
        );
        assert_eq!(duration_text("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(duration_text("0 seconds").unwrap(), Duration::ZERO);
        for wrong in [
            "",
            "5",
            "minutes",
            "5 fortnights",
            "-1 second",
            "1 month",
            "99999999999999 days",
        ] {
            assert!(duration_text(wrong).is_err(), "{wrong}");
        }
    }
}
