//! The names of Hive folders: local hours, days, and values escaped as Hive escapes them.

use std::fmt::Write as _;

use chrono::{DateTime, Offset as _, TimeZone as _};
use chrono_tz::Tz;

use super::TIME_COLUMNS;

/// What Hive calls the partition of rows without a value.
pub const DEFAULT_PARTITION: &str = "__HIVE_DEFAULT_PARTITION__";

/// The years that a folder can name: 0001-01-01T00:00Z to 9999-12-31T24:00Z, in seconds since 1970, less a day on both
/// sides so that no zone leads out of them.
const SECONDS: std::ops::Range<i64> = (-62_135_596_800 + 86_400)..(253_402_300_800 - 86_400);

/// The hour since 1970 that a clock in the zone shows.
pub(super) fn local_hour(seconds: i64, zone: Option<Tz>) -> Option<i64> {
    if !SECONDS.contains(&seconds) {
        return None;
    }
    let ahead = match zone {
        None | Some(Tz::UTC) => 0,
        Some(zone) => {
            let instant = DateTime::from_timestamp(seconds, 0)?.naive_utc();
            i64::from(
                zone.offset_from_utc_datetime(&instant)
                    .fix()
                    .local_minus_utc(),
            )
        }
    };
    Some((seconds + ahead).div_euclid(3600))
}

pub(super) fn day(days: i64) -> Option<String> {
    let seconds = days
        .checked_mul(86_400)
        .filter(|seconds| SECONDS.contains(seconds))?;
    Some(
        DateTime::from_timestamp(seconds, 0)?
            .format("%Y-%m-%d")
            .to_string(),
    )
}

pub(super) fn write_hour(hour: Option<i64>, path: &mut String) {
    let shown = hour.and_then(|hour| DateTime::from_timestamp(hour.checked_mul(3600)?, 0));
    for (name, format) in TIME_COLUMNS.iter().zip(["%Y", "%m", "%d", "%H"]) {
        write_folder(
            name,
            shown.map(|shown| shown.format(format).to_string()),
            path,
        );
    }
}

pub(super) fn write_folder(name: &str, value: Option<String>, path: &mut String) {
    if !path.is_empty() {
        path.push('/');
    }
    escape(name, path);
    path.push('=');
    match value {
        Some(value) if !value.is_empty() => escape(&value, path),
        _ => path.push_str(DEFAULT_PARTITION),
    }
}

/// Escapes as Hive's `FileUtils.escapePathName` does: control characters and a few others as `%` and two hexadecimal
/// digits.
fn escape(text: &str, into: &mut String) {
    for character in text.chars() {
        let special = matches!(
            character,
            '"' | '#' | '%' | '\'' | '*' | '/' | ':' | '=' | '?' | '\\' | '{' | '[' | ']' | '^'
        );
        if special || character.is_ascii_control() {
            let _ = write!(into, "%{:02X}", u32::from(character));
        } else {
            into.push(character);
        }
    }
}
