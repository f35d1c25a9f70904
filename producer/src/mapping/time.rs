//! Text to instants: formats, time zones, daylight saving.

use chrono::{LocalResult, NaiveDate, NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::Tz;

/// Why a text is no instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeError {
    /// It has none of the formats, or names a day or hour that no calendar has.
    NoMatch,
    /// The zone's clocks were put forward over it.
    Nonexistent,
}

/// How a column's times are written.
#[derive(Clone, Debug)]
pub struct Times {
    /// Tried in order.
    pub formats: Vec<TimeFormat>,
    /// Where local times are local.
    pub zone: Tz,
}

impl Times {
    /// The instant that `text` names, in milliseconds since 1970 (UTC). A local time that the end of daylight saving
    /// repeats is taken as the earlier one.
    pub fn instant_ms(&self, text: &[u8]) -> Result<i64, TimeError> {
        let read = self
            .formats
            .iter()
            .find_map(|format| format.read(text))
            .ok_or(TimeError::NoMatch)?;
        match read {
            Read::Instant(ms) => Ok(ms),
            Read::Local(local) => match self.zone.from_local_datetime(&local) {
                LocalResult::Single(instant) => Ok(instant.timestamp_millis()),
                LocalResult::Ambiguous(one, other) => {
                    Ok(one.timestamp_millis().min(other.timestamp_millis()))
                }
                LocalResult::None => Err(TimeError::Nonexistent),
            },
        }
    }
}

/// One way to write a time, with the usual `%` directives.
#[derive(Clone, Debug)]
pub struct TimeFormat {
    items: Vec<Item>,
    /// As it stands in the mapping.
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Item {
    Literal(u8),
    Year4,
    Year2,
    Month,
    MonthName,
    Day,
    Hour,
    Hour12,
    HalfDay,
    Minute,
    Second,
    Fraction,
    Offset,
    EpochSeconds,
    EpochMillis,
}

enum Read {
    Instant(i64),
    Local(NaiveDateTime),
}

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

impl TimeFormat {
    /// Reads a format. `epoch_s` and `epoch_ms` are numbers since 1970 (UTC).
    ///
    /// # Errors
    /// What is wrong with it, and what can be used.
    pub fn parse(text: &str) -> Result<Self, String> {
        let items = match text {
            "epoch_s" => vec![Item::EpochSeconds],
            "epoch_ms" => vec![Item::EpochMillis],
            _ => Self::items(text)?,
        };
        let has = |wanted: &[Item]| items.iter().any(|item| wanted.contains(item));
        if !has(&[Item::EpochSeconds, Item::EpochMillis]) {
            for (wanted, name) in [
                (&[Item::Year4, Item::Year2][..], "a year (%Y or %y)"),
                (&[Item::Month, Item::MonthName][..], "a month (%m or %b)"),
                (&[Item::Day][..], "a day (%d)"),
            ] {
                if !has(wanted) {
                    return Err(format!("the time format `{text}` lacks {name}"));
                }
            }
            if has(&[Item::Hour12]) != has(&[Item::HalfDay]) {
                return Err(format!(
                    "the time format `{text}` must have both %I and %p, or %H instead"
                ));
            }
        }
        Ok(Self {
            items,
            text: text.to_owned(),
        })
    }

    fn items(text: &str) -> Result<Vec<Item>, String> {
        let mut items = Vec::new();
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            if byte != b'%' {
                items.push(Item::Literal(byte));
                continue;
            }
            let mut directive = bytes.next();
            if directive == Some(b'-') {
                // "%-d" and "%d" read alike: one or two digits
                directive = bytes.next();
            }
            match directive {
                Some(b'Y') => items.push(Item::Year4),
                Some(b'y') => items.push(Item::Year2),
                Some(b'm') => items.push(Item::Month),
                Some(b'b') => items.push(Item::MonthName),
                Some(b'd' | b'e') => items.push(Item::Day),
                Some(b'H') => items.push(Item::Hour),
                Some(b'I') => items.push(Item::Hour12),
                Some(b'p') => items.push(Item::HalfDay),
                Some(b'M') => items.push(Item::Minute),
                Some(b'S') => items.push(Item::Second),
                Some(b'f') => items.push(Item::Fraction),
                Some(b'z') => items.push(Item::Offset),
                Some(b'T') => items.extend([
                    Item::Hour,
                    Item::Literal(b':'),
                    Item::Minute,
                    Item::Literal(b':'),
                    Item::Second,
                ]),
                Some(b'F') => items.extend([
                    Item::Year4,
                    Item::Literal(b'-'),
                    Item::Month,
                    Item::Literal(b'-'),
                    Item::Day,
                ]),
                Some(b'%') => items.push(Item::Literal(b'%')),
                Some(other) => {
                    return Err(format!(
                        "the time format `{text}` has `%{}`, which is not known: use %Y %y %m %b %d %H %I %p %M %S %f (a fraction with its point) %z %F %T %%, or epoch_s, epoch_ms",
                        char::from(other)
                    ));
                }
                None => {
                    return Err(format!(
                        "the time format `{text}` ends in a lone %: write %% for a percent sign"
                    ));
                }
            }
        }
        Ok(items)
    }

    fn read(&self, text: &[u8]) -> Option<Read> {
        let mut rest = text;
        let (mut year, mut month, mut day) = (0, 1, 1);
        let (mut hour, mut minute, mut second, mut nanos) = (0, 0, 0, 0);
        let mut afternoon = None;
        let mut offset = None;
        for item in &self.items {
            match *item {
                Item::Literal(byte) => rest = rest.strip_prefix(&[byte])?,
                Item::Year4 => year = digits(&mut rest, 4, 4)? as i32,
                Item::Year2 => {
                    let short = digits(&mut rest, 2, 2)? as i32;
                    year = if short < 69 {
                        2000 + short
                    } else {
                        1900 + short
                    };
                }
                Item::Month => month = digits(&mut rest, 1, 2)?,
                Item::MonthName => {
                    let name = rest.get(..3)?;
                    let index = MONTHS
                        .iter()
                        .position(|month| name.eq_ignore_ascii_case(month.as_bytes()))?;
                    month = index as u32 + 1;
                    rest = &rest[3..];
                }
                Item::Day => day = digits(&mut rest, 1, 2)?,
                Item::Hour => hour = digits(&mut rest, 1, 2)?,
                Item::Hour12 => {
                    hour = digits(&mut rest, 1, 2).filter(|hour| (1..=12).contains(hour))? % 12
                }
                Item::HalfDay => {
                    let name = rest.get(..2)?;
                    afternoon = Some(
                        match [name[0].to_ascii_lowercase(), name[1].to_ascii_lowercase()] {
                            [b'a', b'm'] => false,
                            [b'p', b'm'] => true,
                            _ => return None,
                        },
                    );
                    rest = &rest[2..];
                }
                Item::Minute => minute = digits(&mut rest, 2, 2)?,
                Item::Second => second = digits(&mut rest, 2, 2)?,
                Item::Fraction => {
                    // may be absent altogether
                    if let Some(after) = rest.strip_prefix(b".") {
                        rest = after;
                        let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
                        nanos = digits(&mut rest, 1, 9)? * 10_u32.pow(9 - length.min(9) as u32);
                    }
                }
                Item::Offset => offset = Some(read_offset(&mut rest)?),
                Item::EpochSeconds => return Some(Read::Instant(epoch(text)?.checked_mul(1000)?)),
                Item::EpochMillis => return Some(Read::Instant(epoch(text)?)),
            }
        }
        if !rest.is_empty() {
            return None;
        }
        if afternoon == Some(true) {
            hour += 12;
        }
        let local = NaiveDate::from_ymd_opt(year, month, day)?
            .and_hms_nano_opt(hour, minute, second, nanos)?;
        Some(match offset {
            Some(seconds) => Read::Instant(
                local
                    .checked_sub_signed(TimeDelta::seconds(seconds))?
                    .and_utc()
                    .timestamp_millis(),
            ),
            None => Read::Local(local),
        })
    }
}

/// From `least` to `most` decimal digits.
fn digits(rest: &mut &[u8], least: usize, most: usize) -> Option<u32> {
    let length = rest
        .iter()
        .take(most)
        .take_while(|byte| byte.is_ascii_digit())
        .count();
    if length < least {
        return None;
    }
    let value = rest[..length]
        .iter()
        .fold(0, |value, byte| value * 10 + u32::from(byte - b'0'));
    *rest = &rest[length..];
    Some(value)
}

/// `Z`, `+01:00`, `-0500` or `+01`, in seconds east of UTC.
fn read_offset(rest: &mut &[u8]) -> Option<i64> {
    if let Some(after) = rest.strip_prefix(b"Z") {
        *rest = after;
        return Some(0);
    }
    let (sign, after) = match rest.split_first()? {
        (b'+', after) => (1, after),
        (b'-', after) => (-1, after),
        _ => return None,
    };
    *rest = after;
    let hours = i64::from(digits(rest, 2, 2)?);
    *rest = rest.strip_prefix(b":").unwrap_or(rest);
    let minutes = i64::from(digits(rest, 2, 2).unwrap_or(0));
    (hours <= 18 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn epoch(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]
    use super::*;

    fn new_york(formats: &[&str]) -> Times {
        Times {
            formats: formats
                .iter()
                .map(|format| TimeFormat::parse(format).unwrap())
                .collect(),
            zone: chrono_tz::America::New_York,
        }
    }

    #[test]
    fn local_times_become_utc_with_the_offset_of_their_season() {
        let times = new_york(&["%Y-%m-%d %H:%M:%S", "%-m/%-d/%y %H:%M"]);
        // 2016-01-01T05:14:00Z and 2016-07-01T04:00:00Z
        assert_eq!(times.instant_ms(b"1/1/16 0:14"), Ok(1_451_625_240_000));
        assert_eq!(
            times.instant_ms(b"2016-01-01 00:14:00"),
            Ok(1_451_625_240_000)
        );
        assert_eq!(
            times.instant_ms(b"2016-07-01 00:00:00"),
            Ok(1_467_345_600_000)
        );
    }

    #[test]
    fn an_hour_that_is_passed_twice_is_the_earlier_and_one_that_is_skipped_does_not_exist() {
        let times = new_york(&["%F %T"]);
        // 2016-11-06 01:30 EDT is 05:30 UTC; EST would be 06:30
        assert_eq!(
            times.instant_ms(b"2016-11-06 01:30:00"),
            Ok(1_478_410_200_000)
        );
        assert_eq!(
            times.instant_ms(b"2016-11-06 02:00:00"),
            Ok(1_478_415_600_000)
        );
        assert_eq!(
            times.instant_ms(b"2016-03-13 02:30:00"),
            Err(TimeError::Nonexistent)
        );
        assert_eq!(
            times.instant_ms(b"2016-03-13 01:59:59"),
            Ok(1_457_852_399_000)
        );
        assert_eq!(
            times.instant_ms(b"2016-03-13 03:00:00"),
            Ok(1_457_852_400_000)
        );
    }

    #[test]
    fn what_no_calendar_has_is_no_time() {
        let times = new_york(&["%F %T", "%m/%d/%Y %I:%M %p"]);
        for text in [
            "2016-02-30 00:00:00",
            "2016-13-01 00:00:00",
            "2016-01-01 24:00:00",
            "2016-01-01 00:60:00",
            "2016-01-01 00:00:60",
            "2016-01-01 00:00:00x",
            "2016-01-01",
            "16-01-01 00:00:00",
            "",
            "1/1/2016 13:00 PM",
            "1/1/2016 1:00",
        ] {
            assert_eq!(
                times.instant_ms(text.as_bytes()),
                Err(TimeError::NoMatch),
                "{text}"
            );
        }
        assert_eq!(
            times.instant_ms(b"1/1/2016 12:14 am"),
            Ok(1_451_625_240_000)
        );
        assert_eq!(
            times.instant_ms(b"1/1/2016 12:14 PM"),
            Ok(1_451_668_440_000)
        );
    }

    #[test]
    fn offsets_fractions_and_epochs_are_read() {
        let times = new_york(&["%Y-%m-%dT%H:%M:%S%f%z", "epoch_ms"]);
        assert_eq!(
            times.instant_ms(b"2016-01-01T00:14:00.5-05:00"),
            Ok(1_451_625_240_500)
        );
        assert_eq!(
            times.instant_ms(b"2016-01-01T05:14:00Z"),
            Ok(1_451_625_240_000)
        );
        assert_eq!(times.instant_ms(b"1451625240000"), Ok(1_451_625_240_000));
    }

    #[test]
    fn a_wrong_format_says_what_is_wrong_with_it() {
        for (text, part) in [
            ("%Y-%m", "a day"),
            ("%d %Q", "%Q"),
            ("%F %I", "%p"),
            ("%F %", "%%"),
        ] {
            let error = TimeFormat::parse(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
