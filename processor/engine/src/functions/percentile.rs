//! `approx_percentile_cont(x, p)`, also `approx_percentile_cont(p) WITHIN GROUP (ORDER BY x)`, and `approx_median(x)`: the
//! value that a share `p` of the values do not exceed, between two values by linear interpolation. Exact below 250 values,
//! above by a t-digest, within 1 % in rank and closer towards the ends. Nulls are left out; null if nothing is left.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray, Float64Array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Float64Type};
use datafusion_common::{Result, ScalarValue, exec_err, plan_err};
use datafusion_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion_expr::{AggregateUDFImpl, Expr, GroupsAccumulator, Signature, Volatility};
use datafusion_physical_expr::expressions::Literal;

use super::digest::Digest;
use super::table::{Logic, Table, each_row, grouped_only, state_fields};

#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Percentile {
    signature: Signature,
    median: bool,
}

impl Percentile {
    pub(super) const NAME: &'static str = "approx_percentile_cont";

    pub(super) fn new() -> Self {
        Self {
            signature: Signature::user_defined(Volatility::Immutable),
            median: false,
        }
    }

    pub(super) fn median() -> Self {
        Self {
            median: true,
            ..Self::new()
        }
    }
}

impl AggregateUDFImpl for Percentile {
    grouped_only!();

    fn name(&self) -> &str {
        if self.median {
            "approx_median"
        } else {
            Self::NAME
        }
    }

    fn coerce_types(&self, args: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = if self.median { 1 } else { 2 };
        if args.len() != wanted || !args.iter().all(DataType::is_numeric) {
            return if self.median {
                plan_err!("approx_median takes a number")
            } else {
                plan_err!("approx_percentile_cont takes a number and a share from 0 to 1")
            };
        }
        Ok(vec![DataType::Float64; wanted])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn supports_within_group_clause(&self) -> bool {
        !self.median
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> Result<Vec<FieldRef>> {
        Ok(state_fields(&args))
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs<'_>,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let share = if self.median {
            0.5
        } else {
            let literal = args
                .exprs
                .get(1)
                .and_then(|expr| expr.downcast_ref::<Literal>());
            match literal.map(Literal::value) {
                Some(ScalarValue::Float64(Some(share))) if (0.0..=1.0).contains(share) => *share,
                _ => {
                    return plan_err!(
                        "approx_percentile_cont wants a share from 0 to 1 as a literal"
                    );
                }
            }
        };
        // WITHIN GROUP (ORDER BY x DESC) counts from the other end.
        let descending = args
            .order_bys
            .first()
            .is_some_and(|order| order.options.descending);
        Ok(Table::boxed(At {
            share: if descending { 1.0 - share } else { share },
        }))
    }
}

/// Whether an argument is a literal from 0 to 1.
pub(super) fn is_share(argument: &Expr) -> bool {
    match argument {
        Expr::Cast(cast) => is_share(&cast.expr),
        Expr::Literal(value, _) => matches!(
            value.cast_to(&DataType::Float64),
            Ok(ScalarValue::Float64(Some(share))) if (0.0..=1.0).contains(&share)
        ),
        _ => false,
    }
}

struct At {
    share: f64,
}

impl Logic for At {
    type State = Digest;

    fn name(&self) -> &'static str {
        Percentile::NAME
    }

    fn update(
        &self,
        states: &mut [Digest],
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
    ) -> Result<()> {
        let values = cast(&values[0], &DataType::Float64)?;
        let Some(floats) = values.as_primitive_opt::<Float64Type>() else {
            return exec_err!("percentiles are of numbers");
        };
        let numbers = floats.values();
        each_row(floats, groups, filter, |row, group| {
            states[group].insert(numbers[row]);
        });
        Ok(())
    }

    fn finish(&self, states: Vec<Digest>) -> Result<ArrayRef> {
        let values = states.into_iter().map(|digest| digest.quantile(self.share));
        Ok(Arc::new(values.collect::<Float64Array>()))
    }
}
