//! The functions that a job may call: deterministic ones only, so that a replay agrees with the first run.

pub(crate) mod anomaly;
mod approx_distinct;
mod by;
mod codec;
mod digest;
mod distinct;
mod h3;
mod hash;
mod haversine;
mod keys;
pub(crate) mod mask;
mod math;
mod mode;
mod percentile;
mod table;

use std::sync::{Arc, LazyLock};

use arrow::datatypes::DataType;
use datafusion_common::{DFSchema, Result, plan_err};
use datafusion_expr::{AggregateUDF, Expr, ExprSchemable, ScalarUDF, Volatility};

/// Functions whose result is not determined by their arguments.
pub(crate) const VOLATILE: [&str; 12] = [
    "now",
    "current_timestamp",
    "current_date",
    "current_time",
    "localtimestamp",
    "localtime",
    "today",
    "random",
    "rand",
    "uuid",
    "gen_random_uuid",
    "version",
];

/// DataFusion's scalar functions that a job may use. What depends on a session's settings is left
/// out, and what depends on the CPU: [`math`] has that.
const SCALARS: [&str; 54] = [
    // null handling
    "coalesce",
    "nullif",
    "nvl",
    "nvl2",
    "greatest",
    "least",
    // time
    "date_part",
    "date_trunc",
    "date_bin",
    "from_unixtime",
    "to_unixtime",
    "make_date",
    // numbers
    "abs",
    "ceil",
    "degrees",
    "floor",
    "gcd",
    "isnan",
    "iszero",
    "lcm",
    "nanvl",
    "pi",
    "radians",
    "round",
    "signum",
    "sqrt",
    "trunc",
    // texts
    "ascii",
    "bit_length",
    "btrim",
    "character_length",
    "chr",
    "concat",
    "concat_ws",
    "contains",
    "ends_with",
    "initcap",
    "left",
    "levenshtein",
    "lower",
    "lpad",
    "ltrim",
    "octet_length",
    "repeat",
    "replace",
    "reverse",
    "right",
    "rpad",
    "rtrim",
    "split_part",
    "starts_with",
    "strpos",
    "substr",
    "upper",
];

static ALL_SCALARS: LazyLock<Vec<Arc<ScalarUDF>>> = LazyLock::new(|| {
    let mut all = vec![
        Arc::new(ScalarUDF::from(haversine::HaversineKm::new())),
        Arc::new(ScalarUDF::from(anomaly::AnomalyScore::new())),
        Arc::new(ScalarUDF::from(h3::H3Cell::new())),
    ];
    all.extend(math::functions());
    let given = [
        datafusion_functions::core::functions(),
        datafusion_functions::datetime::functions(),
        datafusion_functions::math::functions(),
        datafusion_functions::string::functions(),
        datafusion_functions::unicode::functions(),
    ];
    all.extend(given.into_iter().flatten().filter(|function| {
        SCALARS.contains(&function.name())
            && function.signature().volatility == Volatility::Immutable
    }));
    all
});

static ALL_AGGREGATES: LazyLock<Vec<Arc<AggregateUDF>>> = LazyLock::new(|| {
    vec![
        datafusion_functions_aggregate::count::count_udaf(),
        datafusion_functions_aggregate::sum::sum_udaf(),
        datafusion_functions_aggregate::average::avg_udaf(),
        datafusion_functions_aggregate::min_max::min_udaf(),
        datafusion_functions_aggregate::min_max::max_udaf(),
        datafusion_functions_aggregate::bool_and_or::bool_and_udaf(),
        datafusion_functions_aggregate::bool_and_or::bool_or_udaf(),
        datafusion_functions_aggregate::stddev::stddev_udaf(),
        datafusion_functions_aggregate::stddev::stddev_pop_udaf(),
        datafusion_functions_aggregate::variance::var_samp_udaf(),
        datafusion_functions_aggregate::variance::var_pop_udaf(),
        Arc::new(AggregateUDF::from(mask::MaskCoordinate::new())),
        Arc::new(AggregateUDF::from(approx_distinct::ApproxDistinct::new())),
        Arc::new(AggregateUDF::from(percentile::Percentile::new())),
        Arc::new(AggregateUDF::from(percentile::Percentile::median())),
        Arc::new(AggregateUDF::from(mode::Mode::new())),
        Arc::new(AggregateUDF::from(by::By::new(by::Extreme::Least))),
        Arc::new(AggregateUDF::from(by::By::new(by::Extreme::Greatest))),
    ]
});

/// Aggregates that a value may be counted in once only.
const WITH_DISTINCT: [&str; 7] = [
    "count",
    "sum",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "approx_distinct",
];

/// Whether `name(DISTINCT x)` can be run.
pub(crate) fn takes_distinct(name: &str) -> bool {
    aggregate(name).is_some_and(|function| WITH_DISTINCT.contains(&function.name()))
}

/// Whether `name(…) WITHIN GROUP (ORDER BY x)` can be run.
pub(crate) fn takes_within_group(name: &str) -> bool {
    aggregate(name).is_some_and(|function| function.supports_within_group_clause())
}

/// The function that is the aggregate over distinct values.
///
/// # Errors
/// If there is none.
pub(crate) fn distinct(function: &Arc<AggregateUDF>) -> Result<Arc<AggregateUDF>> {
    use distinct::{Distinct, Of};
    Ok(match function.name() {
        "count" => Arc::new(AggregateUDF::from(Distinct::new(Of::Count))),
        "sum" => Arc::new(AggregateUDF::from(Distinct::new(Of::Sum))),
        // A value that came twice changes nothing.
        name if WITH_DISTINCT.contains(&name) => Arc::clone(function),
        name => return plan_err!("{name}(DISTINCT …) is not supported"),
    })
}

/// The function, what is wrong and what to write instead, if an aggregate is called in a way that can't be run.
pub(crate) fn refused(aggregate: &Expr, source: &DFSchema) -> Option<(String, String, String)> {
    let Expr::AggregateFunction(call) = aggregate.clone().unalias_nested().data else {
        return None;
    };
    let name = call.func.name().to_owned();
    let args = call.params.args.as_slice();
    if name == percentile::Percentile::NAME && !args.get(1).is_some_and(percentile::is_share) {
        let what = format!("{name} wants a share from 0 to 1, as a number");
        return Some((name, what, "write 0.9 for the ninth decile".to_owned()));
    }
    if !call.params.distinct || !matches!(name.as_str(), "count" | "sum") {
        return None;
    }
    let [value] = args else {
        let what = format!("{name}(DISTINCT …) takes one value");
        return Some((name, what, "concatenate the values".to_owned()));
    };
    let data_type = value.get_type(source).ok()?;
    let what = format!("{name}(DISTINCT …) of type {data_type} is not supported");
    if name == "sum" {
        let help =
            "cast to bigint, or round and cast: whether two floats are one is a matter of rounding";
        return (data_type != DataType::Int64).then(|| (name, what, help.to_owned()));
    }
    let help = "cast it to a text";
    (!distinct::countable(&data_type)).then(|| (name, what, help.to_owned()))
}

/// Whether an aggregate may be null though rows came whose arguments are not.
pub(crate) fn wants_two_rows(function: &AggregateUDF) -> bool {
    matches!(function.name(), "stddev" | "var" | "corr")
}

/// The scalar function of that name or alias.
pub(crate) fn scalar(name: &str) -> Option<Arc<ScalarUDF>> {
    let is = |function: &&Arc<ScalarUDF>| {
        function.name() == name || function.aliases().iter().any(|alias| alias == name)
    };
    ALL_SCALARS.iter().find(is).cloned()
}

/// The aggregate function of that name or alias.
pub(crate) fn aggregate(name: &str) -> Option<Arc<AggregateUDF>> {
    let is = |function: &&Arc<AggregateUDF>| {
        function.name() == name || function.aliases().iter().any(|alias| alias == name)
    };
    ALL_AGGREGATES.iter().find(is).cloned()
}

pub(crate) fn is_aggregate(name: &str) -> bool {
    aggregate(name).is_some()
}

pub(crate) fn is_known(name: &str) -> bool {
    is_aggregate(name) || scalar(name).is_some()
}

/// The names of all functions.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL_SCALARS
        .iter()
        .map(|function| function.name())
        .chain(ALL_AGGREGATES.iter().map(|function| function.name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The functions that are DataFusion's, as docs/sql.md lists them.
    fn listed() -> String {
        let line = |name: &str, aliases: &[String]| {
            let aliases: Vec<_> = aliases.iter().map(|alias| format!("`{alias}`")).collect();
            if aliases.is_empty() {
                format!("`{name}`")
            } else {
                format!("`{name}` ({})", aliases.join(", "))
            }
        };
        let scalars = ALL_SCALARS
            .iter()
            .filter(|function| SCALARS.contains(&function.name()))
            .map(|function| (function.name(), line(function.name(), function.aliases())))
            .collect::<std::collections::BTreeMap<_, _>>();
        let aggregates: Vec<_> = ALL_AGGREGATES
            .iter()
            .filter(|function| !OWN_AGGREGATES.contains(&function.name()))
            .map(|function| line(function.name(), function.aliases()))
            .collect();
        let scalars: Vec<_> = scalars.into_values().collect();
        format!(
            "Aggregates: {}.\n\nScalar functions: {}.\n",
            aggregates.join(", "),
            scalars.join(", ")
        )
    }

    const OWN_AGGREGATES: [&str; 7] = [
        "mask_coordinate",
        "approx_distinct",
        "approx_percentile_cont",
        "approx_median",
        "mode",
        "min_by",
        "max_by",
    ];

    #[test]
    fn the_documentation_lists_what_is_registered() {
        let text = include_str!("../../../docs/sql.md");
        let listed = listed();
        assert!(
            text.contains(&listed),
            "docs/sql.md has another list of DataFusion's functions than this program:\n\n{listed}"
        );
        let own = names().filter(|name| !SCALARS.contains(name));
        for name in own {
            assert!(
                text.contains(&format!("`{name}(")) || text.contains(&format!("`{name}`")),
                "docs/sql.md says nothing of {name}"
            );
        }
    }

    #[test]
    fn every_listed_function_is_registered_and_none_is_volatile() {
        let missing: Vec<_> = SCALARS
            .iter()
            .filter(|name| scalar(name).is_none())
            .collect();
        assert!(missing.is_empty(), "not registered: {missing:?}");
        for name in VOLATILE {
            assert!(!is_known(name), "{name}");
        }
    }
}
