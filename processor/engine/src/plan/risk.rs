//! Expressions behind the aggregate that could fail on a result.
//!
//! A source row that an expression fails on becomes a dead letter. A result has no such way out: its rows are counted
//! already, and the window can be neither written nor left out. What could fail there is refused when the job is
//! planned, with the form that gives null instead.

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion_common::{DFSchema, Result, ScalarValue};
use datafusion_expr::expr::AggregateFunction;
use datafusion_expr::{BinaryExpr, Expr, ExprSchemable, Operator};

/// What could fail in an expression over groups and aggregates, and what to write instead.
pub(super) fn find(
    expr: &Expr,
    grouped: &DFSchema,
    aggregates: &[Expr],
) -> Result<Option<(String, String)>> {
    let mut found = None;
    expr.apply(|expr| {
        match expr {
            Expr::BinaryExpr(BinaryExpr {
                left,
                op: Operator::Divide | Operator::Modulo,
                right,
            }) if left.get_type(grouped)?.is_integer()
                && !never_zero(right, grouped, aggregates) =>
            {
                let what = "a division of integers by 0 would stop the job".to_owned();
                found = Some((
                    what,
                    "divide by nullif(…, 0): the result is null then".to_owned(),
                ));
            }
            Expr::Cast(cast)
                if !always_fits(&cast.expr.get_type(grouped)?, cast.field.data_type()) =>
            {
                let what = format!(
                    "a value that does not fit {} would stop the job",
                    cast.field.data_type()
                );
                found = Some((
                    what,
                    "write TRY_CAST(… AS …): the result is null then".to_owned(),
                ));
            }
            _ => return Ok(TreeNodeRecursion::Continue),
        }
        Ok(TreeNodeRecursion::Stop)
    })?;
    Ok(found)
}

fn never_zero(divisor: &Expr, grouped: &DFSchema, aggregates: &[Expr]) -> bool {
    match divisor {
        Expr::Literal(value, _) => {
            !value.is_null()
                && ScalarValue::new_zero(&value.data_type()).is_ok_and(|zero| zero != *value)
        }
        Expr::Cast(cast) => never_zero(&cast.expr, grouped, aggregates),
        Expr::Alias(alias) => never_zero(&alias.expr, grouped, aggregates),
        Expr::ScalarFunction(call) if call.func.name() == "nullif" => {
            matches!(call.args.get(1), Some(Expr::Literal(value, _)) if is_zero(value))
        }
        // A group has at least one row.
        Expr::Column(column) => grouped
            .maybe_index_of_column(column)
            .and_then(|at| (at + aggregates.len()).checked_sub(grouped.fields().len()))
            .and_then(|at| aggregates.get(at))
            .is_some_and(counts_all_rows),
        _ => false,
    }
}

fn is_zero(value: &ScalarValue) -> bool {
    ScalarValue::new_zero(&value.data_type()).is_ok_and(|zero| zero == *value)
}

fn counts_all_rows(aggregate: &Expr) -> bool {
    match aggregate.clone().unalias_nested().data {
        Expr::AggregateFunction(AggregateFunction { func, params }) => {
            func.name() == "count"
                && params.filter.is_none()
                && params
                    .args
                    .iter()
                    .all(|arg| matches!(arg, Expr::Literal(value, _) if !value.is_null()))
        }
        _ => false,
    }
}

/// Whether each value of a type has one in the other.
fn always_fits(from: &DataType, to: &DataType) -> bool {
    let bits = |data_type: &DataType| data_type.primitive_width().unwrap_or_default();
    match (from, to) {
        (from, to) if from == to => true,
        (_, DataType::Utf8) | (DataType::Null | DataType::Boolean, _) => true,
        (from, DataType::Float32 | DataType::Float64) => from.is_numeric(),
        (from, to) if from.is_signed_integer() && to.is_signed_integer() => bits(from) <= bits(to),
        (from, to) if from.is_unsigned_integer() && to.is_integer() => {
            bits(from) < bits(to) || (to.is_unsigned_integer() && bits(from) == bits(to))
        }
        (
            DataType::Timestamp(..) | DataType::Date32,
            DataType::Timestamp(..) | DataType::Date32,
        ) => true,
        _ => false,
    }
}
