//! Calls of aggregates: those that can't be run as they are written, and what is worked out of their arguments.

use datafusion_common::ScalarValue;
use datafusion_expr::Expr;
use datafusion_expr::expr::AggregateFunction;

use super::build::Job;
use super::check;
use super::compile::{simplify, unqualified};
use super::parts::Parts;
use crate::functions;
use crate::functions::mask::{Mask, MaskCoordinate};
use crate::sql::{JobError, Location};

impl Job<'_> {
    /// Calls of aggregates that can't be run as they are written.
    pub(super) fn calls(&self, parts: &Parts, errors: &mut Vec<JobError>) {
        for aggregate in &parts.aggregates {
            if let Some((name, what, help)) = functions::refused(aggregate, &parts.source) {
                errors.push(JobError::new(self.call_at(&name), what, help));
            }
        }
    }

    /// Which aggregates are mask_coordinate, and how they mask.
    pub(super) fn masks(&self, parts: &Parts, errors: &mut Vec<JobError>) -> Vec<Option<Mask>> {
        let mut masks = Vec::new();
        for aggregate in &parts.aggregates {
            let Expr::AggregateFunction(AggregateFunction { func, params }) =
                aggregate.clone().unalias_nested().data
            else {
                masks.push(None);
                continue;
            };
            if func.name() != MaskCoordinate::NAME {
                masks.push(None);
                continue;
            }
            let at = self.call_at(MaskCoordinate::NAME);
            let cell = params
                .args
                .get(1)
                .map(|cell| simplify(cell.clone(), &parts.source));
            let cell = match cell {
                Some(Ok(Expr::Literal(ScalarValue::Float64(Some(cell)), _)))
                    if cell > 0.0 && cell.is_finite() =>
                {
                    cell
                }
                _ => {
                    let what = "mask_coordinate wants a positive number as its cell";
                    errors.push(JobError::new(at, what, "write mask_coordinate(x, 0.01)"));
                    continue;
                }
            };
            if self.settings.mask_salt.is_empty() {
                let what = "mask_coordinate needs a secret salt, and none is configured";
                errors.push(JobError::new(
                    at,
                    what,
                    "set processor.mask_salt (HEADWAY_PROCESSOR_MASK_SALT) to a long random text, and keep it",
                ));
                continue;
            }
            let argument = params.args.first().map(unqualified).unwrap_or_default();
            masks.push(Some(Mask {
                salt: self.settings.mask_salt.clone(),
                argument,
                cell,
            }));
        }
        masks
    }

    fn call_at(&self, function: &str) -> Location {
        check::call_at(&self.insert.query, function).unwrap_or(self.insert.at)
    }
}
