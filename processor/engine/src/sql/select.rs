//! What a query may be: one SELECT with GROUP BY over the windows of one source.

use datafusion_sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident, ObjectName, ObjectNamePart, Query,
    Select, SelectItem, SetExpr, TableFactor, TableWithJoins, Visit,
};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::calls::Calls;
use super::options::duration;
use super::statement::normal;
use super::{Insert, JobError, Location};
use crate::plan::Window;

const FROM: &str = "write FROM TUMBLE(source, event_time, INTERVAL '1 hour')";

/// Checks an INSERT's query. `None`, with errors, if it cannot be run.
pub(super) fn check(
    mut query: Query,
    tokens: &[TokenWithSpan],
    sink: &str,
    at: Location,
    errors: &mut Vec<JobError>,
) -> Option<Insert> {
    let before = errors.len();
    let mut check = Check { tokens, at, errors };
    check.clauses(&query);
    let SetExpr::Select(select) = query.body.as_mut() else {
        check.not_a_select(&query);
        return None;
    };
    check.select(select);
    let from = check.from(&select.from);
    let mut calls = Calls {
        at,
        errors: check.errors,
        queries: 0,
    };
    let _ = query.visit(&mut calls);
    if errors.len() > before {
        return None;
    }
    let From {
        source,
        source_at,
        alias,
        time_column,
        window,
    } = from?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return None;
    };
    if let [
        TableWithJoins {
            relation:
                TableFactor::Table {
                    name,
                    args,
                    alias: named,
                    ..
                },
            ..
        },
    ] = select.from.as_mut_slice()
    {
        *name = ObjectName(vec![ObjectNamePart::Identifier(Ident::with_quote(
            '"',
            source.clone(),
        ))]);
        *args = None;
        *named = alias;
    }
    complete_window(select);
    let group_by_at = keyword(tokens, &[Keyword::GROUP]).unwrap_or(at);
    let query = Box::new(query);
    Some(Insert {
        sink: sink.to_owned(),
        source,
        window,
        at,
        query,
        source_at,
        time_column,
        group_by_at,
    })
}

/// A window's start determines its end and the other way round: who groups by one has both.
fn complete_window(select: &mut Select) {
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else {
        return;
    };
    let has = |wanted: &str, groups: &[Expr]| {
        groups.iter().any(|group| match group {
            Expr::Identifier(ident) => normal(ident) == wanted,
            Expr::CompoundIdentifier(parts) => {
                parts.last().is_some_and(|ident| normal(ident) == wanted)
            }
            _ => false,
        })
    };
    let (start, end) = (has("window_start", groups), has("window_end", groups));
    if start != end {
        groups.push(Expr::Identifier(Ident::new(if start {
            "window_end"
        } else {
            "window_start"
        })));
    }
}

struct From {
    source: String,
    source_at: Location,
    alias: Option<datafusion_sql::sqlparser::ast::TableAlias>,
    time_column: Option<(String, Location)>,
    window: Window,
}

struct Check<'a> {
    tokens: &'a [TokenWithSpan],
    at: Location,
    errors: &'a mut Vec<JobError>,
}

impl Check<'_> {
    fn refuse(&mut self, keywords: &[Keyword], what: &str, help: &str) {
        let at = keyword(self.tokens, keywords).unwrap_or(self.at);
        self.errors.push(JobError::new(at, what, help));
    }

    /// Clauses around the SELECT.
    fn clauses(&mut self, query: &Query) {
        if query.with.is_some() {
            self.refuse(
                &[Keyword::WITH],
                "WITH queries are not supported",
                "write the expressions into one SELECT",
            );
        }
        if query.order_by.is_some() {
            let help = "leave it out: rows come in the order of window end and key";
            self.refuse(&[Keyword::ORDER], "ORDER BY is not supported", help);
        }
        if query.limit_clause.is_some() || query.fetch.is_some() {
            let help = "leave it out; HAVING keeps the rows that a condition holds for";
            self.refuse(
                &[Keyword::LIMIT, Keyword::OFFSET, Keyword::FETCH],
                "LIMIT is not supported",
                help,
            );
        }
        if !query.locks.is_empty()
            || query.for_clause.is_some()
            || query.settings.is_some()
            || query.format_clause.is_some()
            || !query.pipe_operators.is_empty()
        {
            let help = "a query ends with GROUP BY … HAVING …";
            self.refuse(
                &[Keyword::FOR, Keyword::SETTINGS, Keyword::FORMAT],
                "this clause is not supported",
                help,
            );
        }
    }

    fn not_a_select(&mut self, query: &Query) {
        if let SetExpr::SetOperation { op, .. } = query.body.as_ref() {
            let help = "write one INSERT for each SELECT, each with a sink of its own";
            let words = [Keyword::UNION, Keyword::EXCEPT, Keyword::INTERSECT];
            self.refuse(&words, &format!("{op} is not supported"), help);
        } else {
            let at = Location::of(query, self.at);
            self.errors.push(JobError::new(
                at,
                "INSERT INTO wants a SELECT",
                format!("write SELECT … {}", &FROM[6..]),
            ));
        }
    }

    fn select(&mut self, select: &Select) {
        if select.distinct.is_some() {
            self.refuse(
                &[Keyword::DISTINCT],
                "SELECT DISTINCT is not supported",
                "GROUP BY already makes rows distinct",
            );
        }
        if !select.named_window.is_empty() || select.qualify.is_some() {
            let help = "use aggregates with GROUP BY";
            self.refuse(
                &[Keyword::WINDOW, Keyword::QUALIFY],
                "window functions are not supported",
                help,
            );
        }
        if select.top.is_some()
            || select.into.is_some()
            || !select.lateral_views.is_empty()
            || select.prewhere.is_some()
            || !select.connect_by.is_empty()
            || !select.cluster_by.is_empty()
            || !select.distribute_by.is_empty()
            || !select.sort_by.is_empty()
            || select.exclude.is_some()
            || select.value_table_mode.is_some()
        {
            let at = Location::from(select.select_token.0.span.start);
            let help = "a query is SELECT … FROM TUMBLE(…) WHERE … GROUP BY … HAVING …";
            self.errors.push(JobError::new(
                at,
                "the SELECT has a clause that is not supported",
                help,
            ));
        }
        match &select.group_by {
            GroupByExpr::All(_) => {
                let help = "name the columns: GROUP BY window_start, window_end, …";
                self.refuse(&[Keyword::GROUP], "GROUP BY ALL is not supported", help);
            }
            GroupByExpr::Expressions(groups, modifiers) => {
                let sets = |group: &Expr| {
                    matches!(
                        group,
                        Expr::Rollup(_) | Expr::Cube(_) | Expr::GroupingSets(_)
                    )
                };
                if !modifiers.is_empty() || groups.iter().any(sets) {
                    let help = "write one INSERT for each grouping";
                    self.refuse(
                        &[Keyword::GROUP],
                        "ROLLUP, CUBE and GROUPING SETS are not supported",
                        help,
                    );
                } else if groups.is_empty() {
                    let at = Location::from(select.select_token.0.span.start);
                    let help = "add GROUP BY window_start, window_end, and the columns that make up a group";
                    self.errors
                        .push(JobError::new(at, "the query has no GROUP BY", help));
                }
            }
        }
        let mut names = Vec::new();
        for item in &select.projection {
            let (name, at) = match item {
                SelectItem::ExprWithAlias { alias, .. } => (normal(alias), alias.span.start.into()),
                SelectItem::UnnamedExpr(Expr::Identifier(ident)) => {
                    (normal(ident), ident.span.start.into())
                }
                SelectItem::UnnamedExpr(Expr::CompoundIdentifier(parts)) if !parts.is_empty() => {
                    let ident = &parts[parts.len() - 1];
                    (normal(ident), ident.span.start.into())
                }
                SelectItem::UnnamedExpr(expr) => {
                    let at = Location::of(expr, self.at);
                    let help = format!("write {expr} AS name");
                    self.errors
                        .push(JobError::new(at, "the column has no name", help));
                    continue;
                }
                SelectItem::Wildcard(_)
                | SelectItem::QualifiedWildcard(..)
                | SelectItem::ExprWithAliases { .. } => {
                    let at = Location::of(item, self.at);
                    self.errors.push(JobError::new(
                        at,
                        format!("{item} is not supported"),
                        "name the columns one by one",
                    ));
                    continue;
                }
            };
            if name == "version" || name == "is_final" {
                let what =
                    format!("the name {name} is taken: every result has a column of that name");
                self.errors
                    .push(JobError::new(at, what, "use another name"));
            }
            if names.contains(&name) {
                self.errors.push(JobError::new(
                    at,
                    format!("two columns are named {name}"),
                    "use another name with AS",
                ));
            }
            names.push(name);
        }
    }

    fn from(&mut self, from: &[TableWithJoins]) -> Option<From> {
        let [table] = from else {
            let at = keyword(self.tokens, &[Keyword::FROM]).unwrap_or(self.at);
            let what = if from.is_empty() {
                "the query has no FROM"
            } else {
                "joins are not supported"
            };
            self.errors.push(JobError::new(at, what, FROM));
            return None;
        };
        if let Some(join) = table.joins.first() {
            let at = keyword(
                self.tokens,
                &[Keyword::JOIN, Keyword::CROSS, Keyword::NATURAL],
            )
            .unwrap_or_else(|| Location::of(join, self.at));
            self.errors.push(JobError::new(
                at,
                "joins are not supported",
                "read one source: put what you need into its records",
            ));
            return None;
        }
        let at = Location::of(&table.relation, self.at);
        let TableFactor::Table {
            name, alias, args, ..
        } = &table.relation
        else {
            let what = match &table.relation {
                TableFactor::Derived { .. } => "subqueries are not supported",
                _ => "this kind of table is not supported",
            };
            self.errors.push(JobError::new(at, what, FROM));
            return None;
        };
        let function = name.to_string().to_uppercase();
        let Some(args) = args else {
            let what = format!("{name} is read without windows, which is not supported");
            let help = format!("write FROM TUMBLE({name}, event_time, INTERVAL '1 hour')");
            self.errors.push(JobError::new(at, what, help));
            return None;
        };
        if function != "TUMBLE" {
            let help = match function.as_str() {
                "HOP" | "SESSION" | "CUMULATE" => format!("only tumbling windows are: {FROM}"),
                _ => FROM.to_owned(),
            };
            self.errors.push(JobError::new(
                at,
                format!("{name}(…) is not supported"),
                help,
            ));
            return None;
        }
        let expressions: Vec<&Expr> = args
            .args
            .iter()
            .filter_map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                _ => None,
            })
            .collect();
        let [Expr::Identifier(source), Expr::Identifier(column), size] = expressions.as_slice()
        else {
            self.errors.push(JobError::new(
                at,
                "TUMBLE wants a source, its event time column and a length",
                FROM,
            ));
            return None;
        };
        let size_at = Location::of(*size, self.time_at(at));
        let window = match duration(size) {
            Ok(size) if size.as_millis() > 0 => i64::try_from(size.as_millis()).ok(),
            Ok(_) => {
                self.errors.push(JobError::new(
                    size_at,
                    "the window has no length",
                    "write INTERVAL '1 hour'",
                ));
                None
            }
            Err(what) => {
                self.errors
                    .push(JobError::new(size_at, what, "write INTERVAL '1 hour'"));
                None
            }
        };
        Some(From {
            source: normal(source),
            source_at: source.span.start.into(),
            alias: alias.clone(),
            time_column: Some((normal(column), column.span.start.into())),
            window: Window::Tumbling { size_ms: window? },
        })
    }

    /// The INTERVAL in TUMBLE(…): the parser keeps no place for it.
    fn time_at(&self, otherwise: Location) -> Location {
        let interval = |token: &&TokenWithSpan| {
            matches!(&token.token, Token::Word(word) if word.keyword == Keyword::INTERVAL)
                && Location::from(token.span.start) > otherwise
        };
        self.tokens
            .iter()
            .find(interval)
            .map_or(otherwise, |token| token.span.start.into())
    }
}

/// The first of some keywords outside of parentheses.
fn keyword(tokens: &[TokenWithSpan], keywords: &[Keyword]) -> Option<Location> {
    let mut depth = 0_usize;
    for token in tokens {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            Token::Word(word) if depth == 0 && keywords.contains(&word.keyword) => {
                return Some(token.span.start.into());
            }
            _ => {}
        }
    }
    None
}
