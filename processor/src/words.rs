//! Lengths of time, instants and types in words.

use std::time::Duration;

use arrow::datatypes::DataType;
use arrow::temporal_conversions::timestamp_ms_to_datetime;

/// `1 hour 30 minutes`, as a job may write it.
pub(crate) fn length(duration: Duration) -> String {
    const UNITS: [(&str, u128); 5] = [
        ("day", 86_400_000),
        ("hour", 3_600_000),
        ("minute", 60_000),
        ("second", 1_000),
        ("millisecond", 1),
    ];
    let mut left = duration.as_millis();
    let mut parts = Vec::new();
    for (unit, ms) in UNITS {
        let count = left / ms;
        left %= ms;
        match count {
            0 => {}
            1 => parts.push(format!("1 {unit}")),
            count => parts.push(format!("{count} {unit}s")),
        }
    }
    if parts.is_empty() {
        "0 seconds".to_owned()
    } else {
        parts.join(" ")
    }
}

/// [`length`] of milliseconds, of which there are not less than 0.
pub(crate) fn length_ms(ms: i64) -> String {
    length(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

/// Milliseconds since 1970 as `2026-01-31T12:00:00.000Z`.
pub fn instant(ms: i64) -> String {
    match timestamp_ms_to_datetime(ms) {
        Some(at) => at.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        None => format!("{ms} ms since 1970"),
    }
}

/// A column's type as SQL has it.
pub(crate) fn sql_type(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 => "TEXT".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Timestamp(..) => "TIMESTAMP".into(),
        other => other.to_string().to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_in_utc_and_none_panics() {
        assert_eq!(instant(1_451_606_400_007), "2016-01-01T00:00:00.007Z");
        for ms in [i64::MIN, -1, i64::MAX] {
            assert!(!instant(ms).is_empty());
        }
    }

    #[test]
    fn lengths_are_in_the_words_of_a_job() {
        let words = |ms| length(Duration::from_millis(ms));
        assert_eq!(words(0), "0 seconds");
        assert_eq!(words(5_400_000), "1 hour 30 minutes");
        assert_eq!(words(86_400_000 * 2 + 1), "2 days 1 millisecond");
    }
}
