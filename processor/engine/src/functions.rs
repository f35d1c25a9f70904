//! The functions that a job may call: deterministic ones only, so that a replay agrees with the first run.

pub(crate) mod anomaly;
mod haversine;
pub(crate) mod mask;

use std::sync::{Arc, LazyLock};

use datafusion_expr::{AggregateUDF, ScalarUDF, Volatility};

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

/// DataFusion's scalar functions that a job may use. What depends on a session's settings is left out.
const SCALARS: [&str; 75] = [
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
    "acos",
    "acosh",
    "asin",
    "asinh",
    "atan",
    "atan2",
    "atanh",
    "cbrt",
    "ceil",
    "cos",
    "cosh",
    "cot",
    "degrees",
    "exp",
    "floor",
    "gcd",
    "isnan",
    "iszero",
    "lcm",
    "ln",
    "log",
    "log10",
    "log2",
    "nanvl",
    "pi",
    "power",
    "radians",
    "round",
    "signum",
    "sin",
    "sinh",
    "sqrt",
    "tan",
    "tanh",
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
    ];
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
        Arc::new(AggregateUDF::from(mask::MaskCoordinate::new())),
    ]
});

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
