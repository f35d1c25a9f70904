//! FROM: one source, how its event time is cut into windows, and the reference tables that it is joined with.

use datafusion_sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, TableAlias, TableFactor, TableWithJoins,
};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::joins;
use super::options::duration;
use super::select::keyword;
use super::statement::normal;
use super::{JobError, Join, Location};
use crate::window::Window;

pub(super) const EXAMPLE: &str = "write FROM TUMBLE(source, event_time, INTERVAL '1 hour')";

pub(super) struct From {
    pub(super) source: String,
    pub(super) source_at: Location,
    pub(super) alias: Option<TableAlias>,
    pub(super) time_column: Option<(String, Location)>,
    /// `None` without a window function.
    pub(super) window: Option<Window>,
    pub(super) joins: Vec<Join>,
}

struct Reader<'a> {
    tokens: &'a [TokenWithSpan],
    at: Location,
    errors: &'a mut Vec<JobError>,
}

/// Reads FROM. `None`, with errors, if it cannot be run.
pub(super) fn read(
    from: &[TableWithJoins],
    tokens: &[TokenWithSpan],
    statement: Location,
    errors: &mut Vec<JobError>,
) -> Option<From> {
    let [table] = from else {
        let at = keyword(tokens, &[Keyword::FROM]).unwrap_or(statement);
        let (what, help) = if from.is_empty() {
            ("the query has no FROM", EXAMPLE)
        } else {
            ("a query reads one source", joins::EXAMPLE)
        };
        errors.push(JobError::new(at, what, help));
        return None;
    };
    let joins = joins::read(&table.joins, statement, errors);
    let at = Location::of(&table.relation, statement);
    let TableFactor::Table {
        name, alias, args, ..
    } = &table.relation
    else {
        let what = match &table.relation {
            TableFactor::Derived { .. } => "subqueries are not supported",
            _ => "this kind of table is not supported",
        };
        errors.push(JobError::new(at, what, EXAMPLE));
        return None;
    };
    let Some(args) = args else {
        let source = match name.0.as_slice() {
            [part] => part.as_ident().map(normal),
            _ => None,
        };
        let Some(source) = source else {
            let what = format!("{name} is not the name of a source");
            errors.push(JobError::new(at, what, EXAMPLE));
            return None;
        };
        return Some(From {
            source,
            source_at: at,
            alias: alias.clone(),
            time_column: None,
            window: None,
            joins: joins?,
        });
    };
    let mut reader = Reader { tokens, at, errors };
    let function = name.to_string().to_uppercase();
    let expressions: Vec<&Expr> = args
        .args
        .iter()
        .filter_map(|arg| match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
            _ => None,
        })
        .collect();
    let (what, help) = match function.as_str() {
        "TUMBLE" => (
            "TUMBLE wants a source, its event time column and a length",
            EXAMPLE,
        ),
        "HOP" => (
            "HOP wants a source, its event time column, the step from window to window and a length",
            "write FROM HOP(source, event_time, INTERVAL '5 minutes', INTERVAL '1 hour')",
        ),
        "SESSION" => (
            "SESSION wants a source, its event time column and a gap",
            "write FROM SESSION(source, event_time, INTERVAL '30 minutes')",
        ),
        _ => {
            let what = format!("{name}(…) is not supported");
            let help = format!("the window functions are TUMBLE, HOP and SESSION: {EXAMPLE}");
            reader.errors.push(JobError::new(at, what, help));
            return None;
        }
    };
    let [
        Expr::Identifier(source),
        Expr::Identifier(column),
        lengths @ ..,
    ] = expressions.as_slice()
    else {
        reader.errors.push(JobError::new(at, what, help));
        return None;
    };
    let window = match (function.as_str(), lengths) {
        ("TUMBLE", [size]) => reader
            .length(size, 0)
            .map(|size_ms| Window::Tumbling { size_ms }),
        ("SESSION", [gap]) => reader
            .length(gap, 0)
            .map(|gap_ms| Window::Session { gap_ms }),
        ("HOP", [step, size]) => reader.hop(step, size),
        _ => {
            reader.errors.push(JobError::new(at, what, help));
            None
        }
    };
    Some(From {
        source: normal(source),
        source_at: source.span.start.into(),
        alias: alias.clone(),
        time_column: Some((normal(column), column.span.start.into())),
        window: Some(window?),
        joins: joins?,
    })
}

impl Reader<'_> {
    fn hop(&mut self, step: &Expr, size: &Expr) -> Option<Window> {
        let (step_ms, size_ms) = (self.length(step, 0), self.length(size, 1));
        let (step_ms, size_ms) = (step_ms?, size_ms?);
        if step_ms > size_ms {
            let at = self.interval_at(0);
            self.errors.push(JobError::new(
                at,
                "windows would leave gaps: the step is longer than the length",
                "HOP takes the step first: HOP(source, event_time, INTERVAL '5 minutes', INTERVAL '1 hour')",
            ));
            return None;
        }
        Some(Window::Hopping { size_ms, step_ms })
    }

    /// A length in milliseconds; `place` counts the INTERVALs of the window function.
    fn length(&mut self, expr: &Expr, place: usize) -> Option<i64> {
        let what = match duration(expr) {
            Ok(length) if length.as_millis() > 0 => {
                if let Ok(length) = i64::try_from(length.as_millis()) {
                    return Some(length);
                }
                "the length is too long".to_owned()
            }
            Ok(_) => "the window has no length".to_owned(),
            Err(what) => what,
        };
        let at = Location::of(expr, self.interval_at(place));
        self.errors
            .push(JobError::new(at, what, "write INTERVAL '1 hour'"));
        None
    }

    /// An INTERVAL of the window function: the parser keeps no place for it.
    fn interval_at(&self, place: usize) -> Location {
        let interval = |token: &&TokenWithSpan| {
            matches!(&token.token, Token::Word(word) if word.keyword == Keyword::INTERVAL)
                && Location::from(token.span.start) > self.at
        };
        self.tokens
            .iter()
            .filter(interval)
            .nth(place)
            .map_or(self.at, |token| token.span.start.into())
    }
}
