//! `[LEFT] JOIN table ON …`: the reference tables that a query looks rows up in.

use datafusion_sql::sqlparser::ast::{
    Join as Parsed, JoinConstraint, JoinOperator, TableAlias, TableFactor,
};

use super::statement::normal;
use super::{JobError, Join, Location};

pub(super) const EXAMPLE: &str =
    "write FROM source AS s LEFT JOIN table AS t ON t.key = s.column, with CREATE REFERENCE TABLE";

/// Reads the joins of FROM. `None`, with errors, if one of them cannot be run.
pub(super) fn read(
    joins: &[Parsed],
    statement: Location,
    errors: &mut Vec<JobError>,
) -> Option<Vec<Join>> {
    let before = errors.len();
    let read: Vec<Join> = joins
        .iter()
        .filter_map(|join| one(join, statement, errors))
        .collect();
    (errors.len() == before).then_some(read)
}

/// A join's condition: only what [`read`] has let through has one.
pub(crate) fn condition(join: &Parsed) -> Option<(bool, &datafusion_sql::sqlparser::ast::Expr)> {
    match &join.join_operator {
        JoinOperator::Join(JoinConstraint::On(on))
        | JoinOperator::Inner(JoinConstraint::On(on)) => Some((true, on)),
        JoinOperator::Left(JoinConstraint::On(on))
        | JoinOperator::LeftOuter(JoinConstraint::On(on)) => Some((false, on)),
        _ => None,
    }
}

fn one(join: &Parsed, statement: Location, errors: &mut Vec<JobError>) -> Option<Join> {
    let at = Location::of(&join.relation, statement);
    let mut refuse = |what: &str, help: &str| {
        errors.push(JobError::new(at, what, help));
        None
    };
    let TableFactor::Table {
        name,
        alias,
        args: None,
        version: None,
        sample: None,
        with_ordinality: false,
        json_path: None,
        ..
    } = &join.relation
    else {
        return refuse(
            "only reference tables can be joined, by their names",
            EXAMPLE,
        );
    };
    let table = match name.0.as_slice() {
        [part] => part.as_ident().map(normal),
        _ => None,
    };
    let Some(table) = table else {
        return refuse(
            &format!("{name} is not the name of a reference table"),
            EXAMPLE,
        );
    };
    let alias = match alias {
        None => table.clone(),
        Some(TableAlias { name, columns, .. }) if columns.is_empty() => normal(name),
        Some(_) => {
            return refuse(
                "the columns of a joined table cannot be renamed here",
                "rename them in the SELECT list, with AS",
            );
        }
    };
    let Some((inner, on)) = condition(join) else {
        let help = match &join.join_operator {
            JoinOperator::CrossJoin(_)
            | JoinOperator::Join(JoinConstraint::None)
            | JoinOperator::Inner(JoinConstraint::None)
            | JoinOperator::Left(JoinConstraint::None)
            | JoinOperator::LeftOuter(JoinConstraint::None) => {
                "say which of the table's rows: JOIN table AS t ON t.key = s.column"
            }
            JoinOperator::Right(_) | JoinOperator::RightOuter(_) | JoinOperator::FullOuter(_) => {
                "a result is made of source rows: write LEFT JOIN"
            }
            _ => "write JOIN table AS t ON t.key = s.column, or LEFT JOIN",
        };
        return refuse("this kind of join is not supported", help);
    };
    Some(Join {
        on: on.to_string(),
        on_at: Location::of(on, at),
        table,
        alias,
        inner,
        at,
    })
}
