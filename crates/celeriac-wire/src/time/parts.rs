//! The fields of an ISO 8601 text, as dateutil 2.9 parser/isoparser.py reads them.

use jiff::Timestamp;
use jiff::civil::{Date, ISOWeekDate, Weekday};
use jiff::tz::Offset;

/// The first instant that Python has in UTC; an offset can name an earlier one.
const YEAR_1: Timestamp = Timestamp::constant(-62_135_596_800, 0);

/// A calendar date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DateParts {
    pub(crate) year: i16,
    pub(crate) month: i8,
    pub(crate) day: i8,
}

/// A time of day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TimeParts {
    pub(crate) hour: i8,
    pub(crate) minute: i8,
    pub(crate) second: i8,
    pub(crate) micros: i32,
    /// Seconds east of UTC; absent in a naive time.
    pub(crate) offset: Option<i32>,
}

/// A date and a time of day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    pub(crate) date: DateParts,
    pub(crate) time: TimeParts,
}

impl Parts {
    /// Parses a date, optionally followed by any one character and a time.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // dateutil refuses anything beyond ASCII.
        if !text.is_ascii() {
            return None;
        }
        let (date, rest) = DateParts::parse_prefix(text)?;
        let Some(time) = rest.get(1..) else {
            return Some(Self { date, time: TimeParts::default() });
        };
        let mut time = TimeParts::parse(time)?;
        if time.hour == 24 {
            time.hour = 0;
            let next = date.civil()?.tomorrow().ok()?;
            return Some(Self { date: DateParts::from_civil(next), time });
        }
        Some(Self { date, time })
    }

    /// Returns the instant; a naive time is UTC.
    pub(crate) fn timestamp(self) -> Option<Timestamp> {
        let Self { date, time } = self;
        let civil = date.civil()?.at(time.hour, time.minute, time.second, time.micros * 1000);
        let offset = Offset::from_seconds(time.offset.unwrap_or(0)).ok()?;
        offset.to_timestamp(civil).ok().filter(|instant| *instant >= YEAR_1)
    }
}

impl DateParts {
    /// Parses a date that is the whole text.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (date, rest) = Self::parse_prefix(text)?;
        rest.is_empty().then_some(date)
    }

    /// Parses the date a text starts with.
    fn parse_prefix(text: &str) -> Option<(Self, &str)> {
        let (year, rest) = digits(text, 4)?;
        if year == 0 {
            return None;
        }
        let year = year as i16;
        if rest.is_empty() {
            return Some((Self { year, month: 1, day: 1 }, rest));
        }
        let (dashed, rest) = eat(rest, '-');
        if let Some(rest) = rest.strip_prefix('W') {
            return Self::week(year, dashed, rest);
        }
        if let Some((ordinal, rest)) = digits(rest, 3).filter(|(_, rest)| !starts_with_digit(rest))
        {
            return Self::ordinal(year, ordinal, rest);
        }
        let (month, rest) = digits(rest, 2)?;
        if rest.is_empty() && dashed {
            return Self::checked(year, month, 1, rest);
        }
        let (dashed_again, rest) = eat(rest, '-');
        if dashed != dashed_again {
            return None;
        }
        let (day, rest) = digits(rest, 2)?;
        Self::checked(year, month, day, rest)
    }

    fn checked(year: i16, month: i32, day: i32, rest: &str) -> Option<(Self, &str)> {
        let date = Date::new(year, month as i8, day as i8).ok()?;
        Some((Self::from_civil(date), rest))
    }

    fn ordinal(year: i16, ordinal: i32, rest: &str) -> Option<(Self, &str)> {
        let first = Date::new(year, 1, 1).ok()?;
        if !(1..=i32::from(first.days_in_year())).contains(&ordinal) {
            return None;
        }
        let date = first.with().day_of_year(ordinal as i16).build().ok()?;
        Some((Self::from_civil(date), rest))
    }

    /// Reads `ww` or `ww-d` (`wwd` in the basic form) after the `W`.
    fn week(year: i16, dashed: bool, rest: &str) -> Option<(Self, &str)> {
        let (week, rest) = digits(rest, 2)?;
        let (dashed_again, after_dash) = eat(rest, '-');
        let (day, rest) = match digits(after_dash, 1) {
            Some((day, rest)) if dashed == dashed_again => (day, rest),
            _ if rest.is_empty() => (1, rest),
            _ => return None,
        };
        let weekday = Weekday::from_monday_one_offset(day as i8).ok()?;
        let date = ISOWeekDate::new(year, week as i8, weekday).ok()?.date();
        Some((Self::from_civil(date), rest))
    }

    fn civil(self) -> Option<Date> {
        Date::new(self.year, self.month, self.day).ok()
    }

    fn from_civil(date: Date) -> Self {
        Self { year: date.year(), month: date.month(), day: date.day() }
    }
}

impl TimeParts {
    /// Parses `hh[:mm[:ss[.fraction]]]` or the same without colons, and an offset.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let zone_at = text.find(['Z', 'z', '+', '-']).unwrap_or(text.len());
        let (clock, zone) = text.split_at(zone_at);
        let (hour, rest) = digits(clock, 2)?;
        let mut time = Self { hour: hour as i8, ..Self::default() };
        let colons = rest.starts_with(':');
        let rest = if rest.is_empty() { rest } else { time.parse_minute(rest, colons)? };
        if !rest.is_empty() {
            return None;
        }
        if !zone.is_empty() {
            time.offset = Some(parse_offset(zone)?);
        }
        let midnight = time.minute == 0 && time.second == 0 && time.micros == 0;
        let in_range = time.hour < 24 || (time.hour == 24 && midnight);
        (in_range && time.minute < 60 && time.second < 60).then_some(time)
    }

    fn parse_minute<'a>(&mut self, rest: &'a str, colons: bool) -> Option<&'a str> {
        let part = |rest: &'a str| {
            let rest = if colons { rest.strip_prefix(':')? } else { rest };
            digits(rest, 2)
        };
        let (minute, rest) = part(rest)?;
        self.minute = minute as i8;
        if rest.is_empty() {
            return Some(rest);
        }
        let (second, rest) = part(rest)?;
        self.second = second as i8;
        let Some(fraction) = rest.strip_prefix(['.', ',']) else {
            return Some(rest);
        };
        if !starts_with_digit(fraction) || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let six: String = fraction.chars().chain("000000".chars()).take(6).collect();
        self.micros = six.parse().ok()?;
        Some("")
    }
}

/// Reads `Z`, `±hh`, `±hhmm` or `±hh:mm` as seconds east of UTC.
fn parse_offset(zone: &str) -> Option<i32> {
    if zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let sign = if zone.starts_with('-') { -1 } else { 1 };
    let (hours, rest) = digits(zone.get(1..)?, 2)?;
    let minutes = match rest {
        "" => 0,
        _ => match digits(rest.strip_prefix(':').unwrap_or(rest), 2)? {
            (minutes, "") => minutes,
            _ => return None,
        },
    };
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

/// Reads exactly `count` digits.
fn digits(text: &str, count: usize) -> Option<(i32, &str)> {
    let (number, rest) = text.split_at_checked(count)?;
    if !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((number.parse().ok()?, rest))
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

fn eat(text: &str, c: char) -> (bool, &str) {
    match text.strip_prefix(c) {
        Some(rest) => (true, rest),
        None => (false, text),
    }
}
