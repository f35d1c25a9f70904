//! `anomaly_score` in a plan: each call becomes a column behind the aggregates.

use arrow::datatypes::DataType;
use datafusion_common::tree_node::{Transformed, TreeNode};
use datafusion_common::{Column, Result};
use datafusion_expr::Expr;

use crate::functions::anomaly::AnomalyScore;

/// The calls of a query, once each.
#[derive(Default)]
pub(super) struct Scores {
    arguments: Vec<Expr>,
}

impl Scores {
    /// Puts columns in the place of the calls in an expression over groups and aggregates.
    pub(super) fn replace(&mut self, expr: Expr) -> Result<Expr> {
        expr.transform_up(|expr| {
            let Expr::ScalarFunction(call) = &expr else {
                return Ok(Transformed::no(expr));
            };
            let ([argument], true) = (call.args.as_slice(), call.func.name() == AnomalyScore::NAME)
            else {
                return Ok(Transformed::no(expr));
            };
            let place = match self.arguments.iter().position(|known| known == argument) {
                Some(place) => place,
                None => {
                    self.arguments.push(argument.clone());
                    self.arguments.len() - 1
                }
            };
            Ok(Transformed::yes(Expr::Column(Column::new_unqualified(
                name(place),
            ))))
        })
        .map(|changed| changed.data)
    }

    /// What is scored, in the order of the columns.
    pub(super) fn arguments(&self) -> &[Expr] {
        &self.arguments
    }

    /// The columns' names and types.
    pub(super) fn fields(&self) -> impl Iterator<Item = arrow::datatypes::Field> + '_ {
        (0..self.arguments.len())
            .map(|place| arrow::datatypes::Field::new(name(place), DataType::Float64, true))
    }
}

fn name(place: usize) -> String {
    format!("__score_{place}")
}

/// Whether an expression calls `anomaly_score`.
pub(super) fn is_in(expr: &Expr) -> bool {
    expr.exists(|expr| {
        Ok(matches!(expr, Expr::ScalarFunction(call) if call.func.name() == AnomalyScore::NAME))
    })
    .unwrap_or(false)
}
