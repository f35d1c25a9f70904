//! Lengths of time and types in words.

use std::time::Duration;

use arrow::datatypes::DataType;

/// `1 hour 30 minutes`, as a job may write it.
pub(super) fn length(duration: Duration) -> String {
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

/// A column's type as SQL has it.
pub(super) fn sql_type(data_type: &DataType) -> String {
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
    fn lengths_are_in_the_words_of_a_job() {
        let words = |ms| length(Duration::from_millis(ms));
        assert_eq!(words(0), "0 seconds");
        assert_eq!(words(5_400_000), "1 hour 30 minutes");
        assert_eq!(words(86_400_000 * 2 + 1), "2 days 1 millisecond");
    }
}
