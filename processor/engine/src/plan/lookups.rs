//! Joins with reference tables: their conditions, taken apart into one expression for each column of the table's key.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion_common::tree_node::TreeNode;
use datafusion_common::{DFSchemaRef, TableReference};
use datafusion_expr::logical_plan::Join as PlannedJoin;
use datafusion_expr::utils::split_conjunction;
use datafusion_expr::{Expr, JoinType, LogicalPlan, Operator, binary_expr, try_cast};

use super::build::Job;
use super::compile::{physical, simplify};
use super::reads::Reads;
use super::{check, fragments};
use crate::sql::{JobError, Join, ReferenceTable};

/// What a query reads from: the source, and what it is joined with, in the order of the text.
pub(super) struct Relations {
    /// All columns, the source's first.
    pub(super) schema: DFSchemaRef,
    /// The joins.
    pub(super) joins: Vec<PlannedJoin>,
}

/// A join, ready to be compiled.
#[derive(Clone)]
pub(super) struct Lookup {
    /// As the query says it.
    pub(super) join: Join,
    /// The qualifier of the table's columns.
    pub(super) qualifier: TableReference,
    /// What the columns of the table's key must be equal to, in their order and types, over the relations before.
    pub(super) keys: Vec<Expr>,
}

/// The relations below WHERE; `None` if it is something else.
pub(super) fn relations(plan: &LogicalPlan) -> Option<Relations> {
    let mut joins = Vec::new();
    let mut below = plan;
    while let LogicalPlan::Join(join) = below {
        joins.push(join.clone());
        below = join.left.as_ref();
    }
    joins.reverse();
    matches!(
        below,
        LogicalPlan::TableScan(_) | LogicalPlan::SubqueryAlias(_)
    )
    .then(|| Relations {
        schema: Arc::clone(plan.schema()),
        joins,
    })
}

/// The lookups of a query.
pub(super) fn of(job: &Job<'_>, relations: &Relations) -> Result<Vec<Lookup>, Vec<JobError>> {
    let mut errors = Vec::new();
    let mut lookups = Vec::new();
    for (join, planned) in job.insert.joins.iter().zip(&relations.joins) {
        let Some(table) = job.script.tables.get(&join.table) else {
            continue;
        };
        match lookup(join, planned, table) {
            Ok(lookup) => lookups.push(lookup),
            Err(more) => errors.extend(more),
        }
    }
    if errors.is_empty() {
        Ok(lookups)
    } else {
        Err(errors)
    }
}

fn lookup(
    join: &Join,
    planned: &PlannedJoin,
    table: &ReferenceTable,
) -> Result<Lookup, Vec<JobError>> {
    let refuse = |what: String, help: String| vec![JobError::new(join.on_at, what, help)];
    let example = || {
        let equal = |column: &String| format!("{}.{column} = …", join.alias);
        table
            .key
            .iter()
            .map(equal)
            .collect::<Vec<_>>()
            .join(" AND ")
    };
    let columns = planned.right.schema();
    let qualifier = columns.qualified_field(0).0.cloned();
    let Some(qualifier) = qualifier.filter(|_| planned.on.is_empty()) else {
        return Err(refuse(
            "a join of this shape is not supported".into(),
            format!("write ON {}", example()),
        ));
    };
    debug_assert_eq!(planned.join_type == JoinType::Inner, join.inner);
    let of_table = |expr: &Expr| {
        expr.column_refs()
            .iter()
            .any(|column| column.relation.as_ref() == Some(&qualifier))
    };
    let mut keys: Vec<Option<Expr>> = vec![None; table.key.len()];
    let mut errors = Vec::new();
    let conditions = planned.filter.as_ref().map(split_conjunction);
    for condition in conditions.unwrap_or_default() {
        let equality = match condition.clone().unalias_nested().data {
            Expr::BinaryExpr(equality) if equality.op == Operator::Eq => equality,
            other => {
                let help = if join.inner {
                    "put other conditions into WHERE"
                } else {
                    "put other conditions into WHERE, or into CASE WHEN … in the SELECT list"
                };
                errors.push(JobError::new(
                    join.on_at,
                    format!(
                        "{} is not an equality with a column of the key",
                        other.human_display()
                    ),
                    format!("write ON {}; {help}", example()),
                ));
                continue;
            }
        };
        let (left, right) = (*equality.left, *equality.right);
        let (column, value) = match (of_table(&left), of_table(&right)) {
            (true, false) => (left, right),
            (false, true) => (right, left),
            _ => {
                let shown = binary_expr(left, Operator::Eq, right);
                errors.push(JobError::new(
                    join.on_at,
                    format!(
                        "{} does not compare a column of {} with what is known before it",
                        shown.human_display(),
                        join.alias
                    ),
                    format!("write ON {}", example()),
                ));
                continue;
            }
        };
        let has_aggregate = value
            .exists(|expr| Ok(matches!(expr, Expr::AggregateFunction(_))))
            .unwrap_or(true);
        if has_aggregate {
            errors.push(JobError::new(
                join.on_at,
                "an aggregate is not known yet when a row is looked up",
                "join by columns of the source",
            ));
            continue;
        }
        let shown = column.human_display().to_string();
        let (column, widened) = bare(column);
        let place = column
            .as_ref()
            .and_then(|column| table.key.iter().position(|key| key == column));
        let (Some(column), Some(place)) = (column, place) else {
            errors.push(JobError::new(
                join.on_at,
                format!("{shown} is not a column of the key of {}", table.name),
                format!("write ON {}", example()),
            ));
            continue;
        };
        let Ok(field) = columns.field_with_unqualified_name(&column) else {
            continue;
        };
        let own = field.data_type();
        let value = match widened {
            None => value,
            // A value that the key's own type does not hold is equal to no key.
            Some(wide) if own.is_integer() && wide.is_integer() => try_cast(value, own.clone()),
            Some(wide) => {
                errors.push(JobError::new(
                    join.on_at,
                    format!(
                        "{shown} is {}, and is compared as if it were {}",
                        check::type_name(own),
                        check::type_name(&wide)
                    ),
                    "cast the other side to the key's type",
                ));
                continue;
            }
        };
        if keys[place].replace(value).is_some() {
            errors.push(JobError::new(
                join.on_at,
                format!("{shown} is compared twice"),
                format!("write ON {}", example()),
            ));
        }
    }
    let missing: Vec<&str> = table
        .key
        .iter()
        .zip(&keys)
        .filter_map(|(name, key)| key.is_none().then_some(name.as_str()))
        .collect();
    if errors.is_empty() && !missing.is_empty() {
        return Err(refuse(
            format!(
                "a row could have several matches: ON says nothing of {} of {}",
                missing.join(", "),
                join.alias
            ),
            format!("write ON {}: the whole key", example()),
        ));
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(Lookup {
        join: join.clone(),
        qualifier,
        keys: keys.into_iter().flatten().collect(),
    })
}

/// The expressions of lookups, simplified over all columns of the query.
pub(super) fn simplified_keys(
    lookups: Vec<Lookup>,
    schema: &DFSchemaRef,
) -> datafusion_common::Result<Vec<Lookup>> {
    let simplified = |lookup: Lookup| {
        let keys = lookup.keys.into_iter().map(|key| simplify(key, schema));
        Ok(Lookup {
            keys: keys.collect::<datafusion_common::Result<_>>()?,
            ..lookup
        })
    };
    lookups.into_iter().map(simplified).collect()
}

/// The lookups for the scan.
pub(super) fn compiled(
    lookups: &[Lookup],
    reads: &Reads,
) -> datafusion_common::Result<Vec<fragments::Lookup>> {
    let compile = |(place, lookup): (usize, &Lookup)| {
        let before = reads.before(place);
        let keys = lookup.keys.iter().map(|key| physical(key, before));
        Ok(fragments::Lookup {
            table: lookup.join.table.clone(),
            inner: lookup.join.inner,
            keys: keys.collect::<datafusion_common::Result<_>>()?,
            joined: Arc::clone(reads.joined[place].inner()),
        })
    };
    lookups.iter().enumerate().map(compile).collect()
}

/// The lookups for those who load tables and for people.
pub(super) fn described(lookups: &[Lookup], reads: &Reads) -> Vec<super::Lookup> {
    let describe = |(place, lookup): (usize, &Lookup)| {
        let before = reads.before(place).fields().len();
        let columns = &reads.joined[place].fields()[before..];
        super::Lookup {
            join: lookup.join.clone(),
            columns: columns.iter().map(|field| field.name().clone()).collect(),
        }
    };
    lookups.iter().enumerate().map(describe).collect()
}

/// The name of a column that stands alone, but for the cast that the planner has put around it: to which type then.
fn bare(expr: Expr) -> (Option<String>, Option<DataType>) {
    match expr {
        Expr::Column(column) => (Some(column.name), None),
        Expr::Alias(alias) => bare(*alias.expr),
        Expr::Cast(cast) => match bare(*cast.expr) {
            (Some(name), None) => (Some(name), Some(cast.field.data_type().clone())),
            _ => (None, None),
        },
        _ => (None, None),
    }
}
