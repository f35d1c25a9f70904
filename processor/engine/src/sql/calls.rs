//! The function calls of a query: known, deterministic and of a form that can be run; and no query within it.

use std::ops::ControlFlow;

use datafusion_sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArguments, Query, Visitor,
};

use super::{JobError, Location, suggest};
use crate::functions;

/// Function calls and subqueries, anywhere in the query.
pub(super) struct Calls<'a> {
    pub(super) at: Location,
    pub(super) errors: &'a mut Vec<JobError>,
    /// How many queries have been met, the outermost one among them.
    pub(super) queries: usize,
}

impl Visitor for Calls<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.queries += 1;
        if self.queries > 1 {
            let at = Location::of(query, self.at);
            let known = self
                .errors
                .iter()
                .any(|error| error.what == "subqueries are not supported");
            if !known {
                self.errors.push(JobError::new(
                    at,
                    "subqueries are not supported",
                    "write one SELECT per INSERT",
                ));
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            self.call(function);
        }
        if let Expr::AtTimeZone { time_zone, .. } = expr {
            self.zone(time_zone);
        }
        ControlFlow::Continue(())
    }
}

impl Calls<'_> {
    fn zone(&mut self, zone: &Expr) {
        let at = Location::of(zone, self.at);
        let text = zone.to_string();
        let name = text.trim_matches('\'');
        if !text.starts_with('\'') || name.parse::<arrow::array::timezone::Tz>().is_err() {
            let help = "write AT TIME ZONE 'America/New_York', a name of the tz database, or an offset such as '+02:00'";
            self.errors.push(JobError::new(
                at,
                format!("{zone} is not a time zone"),
                help,
            ));
        }
    }

    fn call(&mut self, function: &Function) {
        let at = Location::of(&function.name, self.at);
        let name = function.name.to_string().to_lowercase();
        let mut error =
            |what: String, help: String| self.errors.push(JobError::new(at, what, help));
        if function.over.is_some() {
            error(
                format!("{name} … OVER: window functions are not supported"),
                "use aggregates with GROUP BY".into(),
            );
            return;
        }
        if functions::VOLATILE.contains(&name.as_str()) {
            error(
                format!(
                    "{name} gives another result each time, so that a replay would not agree with the first run"
                ),
                "use the record's own columns, window_start or window_end".into(),
            );
            return;
        }
        if !functions::is_known(&name) {
            error(
                format!("there is no function {name}"),
                suggest::help(&name, functions::names()),
            );
            return;
        }
        if let FunctionArguments::List(list) = &function.args {
            if list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
                && !functions::takes_distinct(&name)
            {
                error(
                    format!("{name}(DISTINCT …) is not supported"),
                    "group by the column in a job of its own".into(),
                );
            } else if !list.clauses.is_empty() {
                error(
                    format!("{name}(… ORDER BY …) is not supported"),
                    "leave the clause out".into(),
                );
            }
        }
        if (!function.within_group.is_empty() && !functions::takes_within_group(&name))
            || function.null_treatment.is_some()
        {
            error(
                format!("this form of {name} is not supported"),
                "leave WITHIN GROUP and IGNORE NULLS out".into(),
            );
        }
        if function.filter.is_some() && !functions::is_aggregate(&name) {
            error(
                format!("{name} is not an aggregate: it takes no FILTER"),
                "put the condition into CASE WHEN … END".into(),
            );
        }
    }
}
