//! The texts that JSON is put together from.

use chrono::Datelike;
use serde::Serialize;

/// `"name":`, escaped.
pub(crate) fn member_name(name: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 3);
    put(&mut out, name);
    out.push(b':');
    out
}

pub(crate) fn separate(first: &mut bool, out: &mut Vec<u8>) {
    if !*first {
        out.push(b',');
    }
    *first = false;
}

/// Writes a number, boolean or text as JSON.
pub(crate) fn put<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) {
    // numbers, booleans and text always have a JSON, and a Vec takes every write
    #[allow(clippy::expect_used)]
    serde_json::to_writer(out, value).expect("a scalar has a JSON text");
}

pub(super) fn hex(nibble: u8) -> u8 {
    b"0123456789abcdef"[usize::from(nibble)]
}

/// `2016-01-01`; `None` without a year of four digits.
pub(super) fn write_date(days: i64, out: &mut Vec<u8>) -> Option<()> {
    let date = chrono::NaiveDate::from_num_days_from_ce_opt(
        i32::try_from(days).ok()?.checked_add(719_163)?,
    )?;
    let year = u32::try_from(date.year())
        .ok()
        .filter(|year| (1..=9999).contains(year))?;
    digits(i64::from(year), 4, out);
    out.push(b'-');
    digits(i64::from(date.month()), 2, out);
    out.push(b'-');
    digits(i64::from(date.day()), 2, out);
    Some(())
}

/// `10:00:00.000`
pub(super) fn write_time(of_day: i64, per_second: i64, fraction_digits: u32, out: &mut Vec<u8>) {
    let seconds = of_day.div_euclid(per_second);
    digits(seconds / 3_600, 2, out);
    out.push(b':');
    digits(seconds / 60 % 60, 2, out);
    out.push(b':');
    digits(seconds % 60, 2, out);
    if fraction_digits > 0 {
        out.push(b'.');
        digits(of_day.rem_euclid(per_second), fraction_digits, out);
    }
}

fn digits(value: i64, width: u32, out: &mut Vec<u8>) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10_i64.pow(place) % 10).unsigned_abs() as u8);
    }
}
