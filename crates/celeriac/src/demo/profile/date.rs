//! Dates and times as data files write them, in the unambiguous year-first order only.
//!
//! A date is `2024-02-29` or `2024/02/29`. A datetime is a date, `T` or one space,
//! `HH:MM`, optionally `:SS` and a fraction of 1 to 9 digits, optionally `Z`, `±HH:MM` or `±HHMM`.
//! Day-first and month-first notations stay text: nothing in `03/04/2024` says which it is.

/// A moment in seconds and nanoseconds; a time without an offset counts as UTC.
pub(super) type Moment = (i64, u32);

/// Parses a calendar date; returns its days since 1970-01-01.
pub(super) fn parse_date(text: &str) -> Option<i64> {
    let bytes = text.as_bytes();
    let separator = *bytes.get(4)?;
    if bytes.len() != 10 || !matches!(separator, b'-' | b'/') || bytes[7] != separator {
        return None;
    }
    let (year, month, day) = (digits(&bytes[..4])?, digits(&bytes[5..7])?, digits(&bytes[8..])?);
    let is_valid = year >= 1 && (1..=12).contains(&month) && day >= 1;
    (is_valid && day <= days_in_month(year, month)).then(|| days_from_civil(year, month, day))
}

/// Parses a date with a time.
pub(super) fn parse_datetime(text: &str) -> Option<Moment> {
    let days = parse_date(text.get(..10)?)?;
    let rest = text.as_bytes().get(11..)?;
    if !matches!(text.as_bytes()[10], b'T' | b' ') {
        return None;
    }
    let (clock, offset_seconds) = split_offset(rest)?;
    let (time, fraction) = match clock.iter().position(|&byte| byte == b'.') {
        Some(dot) if dot == 8 => (&clock[..dot], parse_fraction(&clock[dot + 1..])?),
        Some(_) => return None,
        None => (clock, 0),
    };
    let seconds = parse_clock(time)?;
    Some((days * 86_400 + seconds - offset_seconds, fraction))
}

/// Parses `HH:MM` or `HH:MM:SS` into seconds since midnight.
fn parse_clock(clock: &[u8]) -> Option<i64> {
    let seconds = match clock {
        [_, _, b':', _, _] => 0,
        [_, _, b':', _, _, b':', seconds @ ..] if seconds.len() == 2 => digits(seconds)?,
        _ => return None,
    };
    let (hours, minutes) = (digits(&clock[..2])?, digits(&clock[3..5])?);
    (hours < 24 && minutes < 60 && seconds < 60).then_some(hours * 3600 + minutes * 60 + seconds)
}

/// Parses the digits behind the dot into nanoseconds.
fn parse_fraction(fraction: &[u8]) -> Option<u32> {
    if !(1..=9).contains(&fraction.len()) {
        return None;
    }
    let scale = 10_i64.pow(9 - fraction.len() as u32);
    u32::try_from(digits(fraction)? * scale).ok()
}

/// Splits a trailing offset from UTC off, in seconds east.
fn split_offset(rest: &[u8]) -> Option<(&[u8], i64)> {
    if let [clock @ .., b'Z'] = rest {
        return Some((clock, 0));
    }
    let Some(at) = rest.iter().position(|byte| matches!(byte, b'+' | b'-')) else {
        return Some((rest, 0));
    };
    let (clock, offset) = rest.split_at(at);
    let (hours, minutes) = match offset {
        [_, hours @ .., b':', m1, m2] if hours.len() == 2 => (digits(hours)?, digits(&[*m1, *m2])?),
        [_, h1, h2, m1, m2] => (digits(&[*h1, *h2])?, digits(&[*m1, *m2])?),
        _ => return None,
    };
    let seconds = hours * 3600 + minutes * 60;
    let is_west = offset[0] == b'-';
    (hours < 24 && minutes < 60).then_some((clock, if is_west { -seconds } else { seconds }))
}

/// Parses ASCII digits; at most nine are ever passed.
fn digits(bytes: &[u8]) -> Option<i64> {
    bytes.iter().try_fold(0_i64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts days since 1970-01-01 in the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let past = year - 1;
    let leap_days = past / 4 - past / 100 + past / 400;
    let days_before_month: i64 = (1..month).map(|earlier| days_in_month(year, earlier)).sum();
    past * 365 + leap_days + days_before_month + day - 719_163
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_days_over_leap_years() {
        for (text, expected) in [
            ("1970-01-01", Some(0)),
            ("1969/12/31", Some(-1)),
            ("2000-02-29", Some(11_016)),
            ("2024-12-31", Some(20_088)),
            ("0001-01-01", Some(-719_162)),
            ("1900-02-29", None),
            ("2023-02-29", None),
            ("2023-13-01", None),
            ("2023-00-10", None),
            ("0000-01-01", None),
            ("2023-01/02", None),
            ("2023-1-2", None),
            ("01/02/2023", None),
            ("2023-01-0é", None),
        ] {
            assert_eq!(parse_date(text), expected, "{text}");
        }
    }

    #[test]
    fn reads_times_with_fraction_and_offset() {
        for (text, expected) in [
            ("1970-01-01T00:00", Some((0, 0))),
            ("1970-01-01 00:01:02.5", Some((62, 500_000_000))),
            ("1970-01-01T01:00:00Z", Some((3600, 0))),
            ("1970-01-01T01:00:00+01:00", Some((0, 0))),
            ("1970-01-01T00:00:00.000000001-0030", Some((1800, 1))),
            ("1970-01-01", None),
            ("1970-01-01T", None),
            ("1970-01-01T24:00", None),
            ("1970-01-01T00:00:60", None),
            ("1970-01-01T00:00.5", None),
            ("1970-01-01T00:00:00.", None),
            ("1970-01-01T00:00:00.0123456789", None),
            ("1970-01-01T00:00+1", None),
            ("1970-01-01  00:00", None),
            ("1970-01-0éT00:00", None),
        ] {
            assert_eq!(parse_datetime(text), expected, "{text}");
        }
    }
}
