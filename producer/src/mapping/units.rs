//! Units of measure that a mapping can convert between.

/// Units by kind: each name with its size in the kind's base unit.
const KINDS: [&[(&str, f64)]; 3] = [
    // in metres
    &[
        ("m", 1.0),
        ("km", 1000.0),
        ("miles", 1609.344),
        ("feet", 0.3048),
        ("yards", 0.9144),
        ("nautical_miles", 1852.0),
    ],
    // in seconds
    &[("ms", 0.001), ("s", 1.0), ("min", 60.0), ("h", 3600.0)],
    // in kilograms
    &[("g", 0.001), ("kg", 1.0), ("lb", 0.453_592_37)],
];

/// The factor of a conversion such as `miles to km`.
///
/// # Errors
/// What is wrong with the text, and what can be used.
pub(super) fn factor(text: &str) -> Result<f64, String> {
    let unknown = || {
        let kinds: Vec<String> = KINDS
            .iter()
            .map(|units| {
                units
                    .iter()
                    .map(|(name, _)| *name)
                    .collect::<Vec<_>>()
                    .join(", ")
            })
            .collect();
        format!(
            "`{text}` is no conversion: write `FROM to INTO`, both out of {}",
            kinds.join("; or ")
        )
    };
    let (from, into) = text.split_once(" to ").ok_or_else(unknown)?;
    let size = |units: &[(&str, f64)], name: &str| {
        units
            .iter()
            .find(|(unit, _)| *unit == name)
            .map(|(_, size)| *size)
    };
    KINDS
        .iter()
        .find_map(|units| Some(size(units, from.trim())? / size(units, into.trim())?))
        .ok_or_else(unknown)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    #[test]
    fn units_of_one_kind_convert_and_others_do_not() {
        assert!((factor("miles to km").unwrap() - 1.609_344).abs() < 1e-15);
        assert!((factor("h to s").unwrap() - 3600.0).abs() < 1e-9);
        assert!(factor("miles to s").unwrap_err().contains("nautical_miles"));
        assert!(factor("miles").unwrap_err().contains("FROM to INTO"));
    }
}
