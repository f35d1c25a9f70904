//! A query's logical plan, taken apart at its aggregate.

use std::sync::Arc;

use datafusion_common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, DFSchemaRef, Result};
use datafusion_expr::{Expr, FetchType, LogicalPlan, SortExpr};

use super::lookups::{Relations, relations};

/// SELECT list over HAVING over the aggregate over WHERE over the source and its joins.
pub(super) struct Parts {
    /// ORDER BY … LIMIT, over groups and aggregates.
    pub(super) top: Option<(Vec<SortExpr>, usize)>,
    /// Each column of the SELECT list and its name.
    pub(super) projection: Vec<(Expr, String)>,
    pub(super) having: Option<Expr>,
    pub(super) groups: Vec<Expr>,
    pub(super) aggregates: Vec<Expr>,
    pub(super) grouped: DFSchemaRef,
    pub(super) filter: Option<Expr>,
    /// The columns of the source, then those of the reference tables.
    pub(super) source: DFSchemaRef,
    pub(super) relations: Relations,
}

/// Takes a plan apart; `None` if it has another shape.
pub(super) fn take_apart(plan: &LogicalPlan) -> Result<Option<Parts>> {
    let (limit, below) = match plan {
        LogicalPlan::Limit(limit) => (Some(limit), limit.input.as_ref()),
        other => (None, other),
    };
    let mut below = below;
    let mut sort = None;
    let mut names: Option<Vec<String>> = None;
    // What is sorted by, but not in the SELECT list, is carried through the sort and left out above it.
    if let LogicalPlan::Projection(outer) = below
        && let LogicalPlan::Sort(_) = outer.input.as_ref()
    {
        names = Some(fields_of(outer.schema.as_ref()));
        below = outer.input.as_ref();
    }
    if let LogicalPlan::Sort(found) = below {
        sort = Some(found);
        below = found.input.as_ref();
    }
    let LogicalPlan::Projection(projection) = below else {
        return Ok(None);
    };
    let (having, below) = match projection.input.as_ref() {
        LogicalPlan::Filter(filter) => (Some(filter.predicate.clone()), filter.input.as_ref()),
        other => (None, other),
    };
    let LogicalPlan::Aggregate(aggregate) = below else {
        return Ok(None);
    };
    let (filter, below) = match aggregate.input.as_ref() {
        LogicalPlan::Filter(filter) => (Some(filter.predicate.clone()), filter.input.as_ref()),
        other => (None, other),
    };
    let Some(relations) = relations(below) else {
        return Ok(None);
    };
    let top = match (limit, sort) {
        (None, None) => None,
        (Some(limit), Some(sort)) => {
            let FetchType::Literal(Some(rows)) = limit.get_fetch_type()? else {
                return Ok(None);
            };
            let order = sort
                .expr
                .iter()
                .map(|by| {
                    let expr = by.expr.clone().transform_up(|expr| {
                        let Expr::Column(column) = &expr else {
                            return Ok(Transformed::no(expr));
                        };
                        let place = projection.schema.index_of_column(column)?;
                        let value = projection.expr[place].clone().unalias_nested().data;
                        Ok(Transformed::new(value, true, TreeNodeRecursion::Jump))
                    })?;
                    Ok(SortExpr {
                        expr: expr.data,
                        ..by.clone()
                    })
                })
                .collect::<Result<Vec<_>>>()?;
            Some((order, rows))
        }
        _ => return Ok(None),
    };
    let all = fields_of(projection.schema.as_ref());
    let kept = names.as_ref().map_or(all.len(), Vec::len);
    Ok(Some(Parts {
        top,
        projection: projection
            .expr
            .iter()
            .cloned()
            .zip(all)
            .take(kept)
            .collect(),
        having,
        groups: aggregate.group_expr.clone(),
        aggregates: aggregate.aggr_expr.clone(),
        grouped: Arc::clone(&aggregate.schema),
        filter,
        source: Arc::clone(&relations.schema),
        relations,
    }))
}

fn fields_of(schema: &DFSchema) -> Vec<String> {
    schema
        .fields()
        .iter()
        .map(|field| field.name().clone())
        .collect()
}
