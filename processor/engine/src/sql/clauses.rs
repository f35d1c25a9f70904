//! What a query says, clause by clause, for people who ask what a job does.

use super::Insert;
use crate::plan::{aggregate_texts, group_texts};

/// A query's clauses, as its author wrote them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clauses {
    /// WHERE.
    pub filter: Option<String>,
    /// GROUP BY, one for each expression, the window's columns among them.
    pub group_by: Vec<String>,
    /// The aggregate calls, each once, in the order of the text.
    pub aggregates: Vec<String>,
    /// HAVING.
    pub having: Option<String>,
    /// ORDER BY, without these words.
    pub order_by: Option<String>,
    /// LIMIT, without this word.
    pub limit: Option<String>,
}

impl Insert {
    /// What its query says.
    pub fn clauses(&self) -> Clauses {
        let stripped = |text: String, words: &str| {
            let text = text.trim();
            text.strip_prefix(words).unwrap_or(text).trim().to_owned()
        };
        let mut clauses = Clauses {
            order_by: self
                .query
                .order_by
                .as_ref()
                .map(|order| stripped(order.to_string(), "ORDER BY")),
            limit: self
                .query
                .limit_clause
                .as_ref()
                .map(|limit| stripped(limit.to_string(), "LIMIT")),
            ..Clauses::default()
        };
        if let Some(select) = self.query.body.as_select() {
            clauses.filter = select.selection.as_ref().map(ToString::to_string);
            clauses.group_by = group_texts(select);
            clauses.aggregates = aggregate_texts(select);
            clauses.having = select.having.as_ref().map(ToString::to_string);
        }
        clauses
    }
}
