//! What a query may be: one SELECT over one source, its windows, and reference tables.

use datafusion_sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, LimitClause, ObjectName, ObjectNamePart, Query, Select, SelectItem,
    SetExpr, TableFactor, TableWithJoins, Visit,
};
use datafusion_sql::sqlparser::keywords::Keyword;
use datafusion_sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::calls::Calls;
use super::from::{self, EXAMPLE, From};
use super::statement::normal;
use super::{Insert, JobError, Location};
use crate::window::Window;

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
    let from = from::read(&select.from, tokens, at, check.errors);
    check.select(select, from.as_ref());
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
        joins,
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
    let grouped = !no_groups(select);
    if window.is_some() {
        complete_window(select);
    }
    let window = match window {
        None if grouped => Some(Window::Unbounded { ttl_ms: None }),
        window => window,
    };
    let group_by_at = keyword(tokens, &[Keyword::GROUP]).unwrap_or(at);
    let query = Box::new(query);
    Some(Insert {
        sink: sink.to_owned(),
        source,
        joins,
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

fn no_groups(select: &Select) -> bool {
    matches!(&select.group_by, GroupByExpr::Expressions(groups, _) if groups.is_empty())
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
        let limit = query.limit_clause.as_ref();
        if query.order_by.is_some() && limit.is_none() && query.fetch.is_none() {
            let help = "add LIMIT n for the first n rows of each window, or leave ORDER BY out: rows come in the order of window end and key";
            self.refuse(
                &[Keyword::ORDER],
                "ORDER BY without LIMIT is not supported",
                help,
            );
        }
        if limit.is_some() && query.order_by.is_none() {
            let help = "say which rows: ORDER BY … LIMIT n gives the first n of each window";
            self.refuse(
                &[Keyword::LIMIT],
                "LIMIT without ORDER BY is not supported",
                help,
            );
        }
        let plain = match limit {
            None => true,
            Some(LimitClause::LimitOffset {
                limit: Some(Expr::Value(rows)),
                offset: None,
                limit_by,
            }) => limit_by.is_empty() && rows.to_string().parse::<u32>().is_ok_and(|rows| rows > 0),
            Some(_) => false,
        };
        if !plain || query.fetch.is_some() {
            let help = "write LIMIT and a positive number, without OFFSET: LIMIT 10";
            self.refuse(
                &[Keyword::LIMIT, Keyword::OFFSET, Keyword::FETCH],
                "this form of LIMIT is not supported",
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
                format!("write SELECT … {}", &EXAMPLE[6..]),
            ));
        }
    }

    fn select(&mut self, select: &Select, from: Option<&From>) {
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
                } else if groups.is_empty() && from.is_some_and(|from| from.window.is_some()) {
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
}

/// The first of some keywords outside of parentheses.
pub(super) fn keyword(tokens: &[TokenWithSpan], keywords: &[Keyword]) -> Option<Location> {
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
