//! Celery's `crontab`: minutes of a clock on the wall that five fields choose together.
//!
//! A day is searched by its month, its day, its hour, its minute, never minute by minute. The clock on
//! the wall becomes an instant span by span: within one offset of a zone both run alike.

mod field;

use self::field::{DAY_OF_MONTH, DAY_OF_WEEK, Field, HOUR, MINUTE, MONTH_OF_YEAR};
use super::zone::{Span, Zone};
use super::{DstRule, Gap, Repeat, ScheduleError, second_of};
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;
use jiff::{Timestamp, civil};
use std::fmt;

/// How many years ahead and back an occurrence is looked for. 29 February on one day of the week is at
/// most forty years away.
pub const SEARCH_YEARS_MAX: i64 = 41;
const SEARCH_SECONDS: i64 = SEARCH_YEARS_MAX * 366 * DAY;

const DAY: i64 = 86_400;
const DAY_MINUTES: u32 = 24 * 60;
const ALL_HOURS: u32 = (1 << 24) - 1;

/// The texts that stand for five fields (minute, hour, day of the month, month, day of the week).
const MACROS: [(&str, &str); 7] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
];

/// Celery's `crontab` (`celery/schedules.py` 5.7.0): a minute runs when **all** five fields have it.
///
/// The fields are kept as they were written, without spaces; two crontabs are equal when their texts
/// are. It is printed as a line of cron: minute, hour, day of the month, month, day of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crontab {
    minute: String,
    hour: String,
    day_of_week: String,
    day_of_month: String,
    month_of_year: String,
    fields: Fields,
}

/// The numbers of each field, a bit for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fields {
    pub(super) minutes: u64,
    pub(super) hours: u32,
    /// Bit 0 is Sunday.
    pub(super) weekdays: u8,
    pub(super) days: u32,
    pub(super) months: u16,
    /// The days of a month that are such weekdays, by the weekday of its first day.
    by_first: [u32; 7],
}

impl Crontab {
    /// Reads the five fields, in the order of Celery's arguments.
    ///
    /// # Errors
    /// Which field is wrong, why, and what to write; also when no month has such a day.
    pub fn parse(
        minute: &str,
        hour: &str,
        day_of_week: &str,
        day_of_month: &str,
        month_of_year: &str,
    ) -> Result<Self, ScheduleError> {
        let read = |field: Field, text: &str| field.parse(text);
        let (minute, minutes) = read(MINUTE, minute)?;
        let (hour, hours) = read(HOUR, hour)?;
        let (day_of_week, weekdays) = read(DAY_OF_WEEK, day_of_week)?;
        let (day_of_month, days) = read(DAY_OF_MONTH, day_of_month)?;
        let (month_of_year, months) = read(MONTH_OF_YEAR, month_of_year)?;
        let fields = Fields::new(minutes, hours as u32, weekdays as u8, days as u32, months as u16);
        if !fields.has_any_day() {
            return Err(ScheduleError::new(format!(
                "day_of_month {day_of_month:?} never occurs in month_of_year {month_of_year:?}; choose \
                 another day or add a month that has it"
            )));
        }
        Ok(Self { minute, hour, day_of_week, day_of_month, month_of_year, fields })
    }

    /// Reads a line of cron: `minute hour day-of-month month day-of-week`, or `@hourly`, `@daily`,
    /// `@midnight`, `@weekly`, `@monthly`, `@yearly`, `@annually`.
    ///
    /// # Errors
    /// As [`Self::parse`]; also when there are not five fields.
    pub fn from_string(line: &str) -> Result<Self, ScheduleError> {
        let mut line = line.trim();
        if line.starts_with('@') {
            let known = MACROS.iter().find(|(name, _)| name.eq_ignore_ascii_case(line));
            let Some((_, fields)) = known else {
                let names: Vec<&str> = MACROS.iter().map(|(name, _)| *name).collect();
                let names = names.join(", ");
                return Err(ScheduleError::new(format!(
                    "{:?} is not known; write one of {names}, or five fields",
                    shortened(line)
                )));
            };
            line = fields;
        }
        let mut fields = line.split_ascii_whitespace();
        let mut next = || fields.next();
        let five = (next(), next(), next(), next(), next(), next());
        let (Some(minute), Some(hour), Some(day), Some(month), Some(weekday), None) = five else {
            return Err(ScheduleError::new(format!(
                "{:?} has not five fields; write minute, hour, day of the month, month and day of the \
                 week with a space between, such as \"30 9 * * mon-fri\"",
                shortened(line)
            )));
        };
        Self::parse(minute, hour, weekday, day, month)
    }

    /// The field `minute` as it was written.
    pub fn minute(&self) -> &str {
        &self.minute
    }

    /// The field `hour` as it was written.
    pub fn hour(&self) -> &str {
        &self.hour
    }

    /// The field `day_of_week` as it was written.
    pub fn day_of_week(&self) -> &str {
        &self.day_of_week
    }

    /// The field `day_of_month` as it was written.
    pub fn day_of_month(&self) -> &str {
        &self.day_of_month
    }

    /// The field `month_of_year` as it was written.
    pub fn month_of_year(&self) -> &str {
        &self.month_of_year
    }

    pub(super) fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The first occurrence after `after`; `None` when the calendar ends before.
    pub fn next(&self, after: Timestamp, zone: &Zone, dst: DstRule) -> Option<Timestamp> {
        let rule = self.resolve(dst);
        let mut from = second_of(after) + 1;
        let limit = from + SEARCH_SECONDS;
        while from < limit {
            let span = zone.span(from);
            if let Some(found) = self.fields.first_in(&span, from, rule) {
                return Timestamp::from_second(found).ok();
            }
            from = span.end;
        }
        None
    }

    /// The last occurrence at or before `at`; `None` when the calendar begins after it.
    pub fn previous(&self, at: Timestamp, zone: &Zone, dst: DstRule) -> Option<Timestamp> {
        let rule = self.resolve(dst);
        let mut until = second_of(at);
        let limit = until - SEARCH_SECONDS;
        while until > limit {
            let span = zone.span(until);
            if let Some(found) = self.fields.last_in(&span, until, rule) {
                return Timestamp::from_second(found).ok();
            }
            until = span.start - 1;
        }
        None
    }

    /// [`Repeat::Auto`] becomes what it means for this crontab.
    fn resolve(&self, dst: DstRule) -> DstRule {
        let repeat = match dst.repeat {
            Repeat::Auto if self.fields.hours == ALL_HOURS => Repeat::Both,
            Repeat::Auto => Repeat::First,
            other => other,
        };
        DstRule { repeat, ..dst }
    }
}

impl fmt::Display for Crontab {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { minute, hour, day_of_week, day_of_month, month_of_year, .. } = self;
        write!(formatter, "{minute} {hour} {day_of_month} {month_of_year} {day_of_week}")
    }
}

/// The beginning of a text, for an error.
fn shortened(text: &str) -> &str {
    let end = text.char_indices().nth(80).map_or(text.len(), |(at, _)| at);
    &text[..end]
}

impl Fields {
    fn new(minutes: u64, hours: u32, weekdays: u8, days: u32, months: u16) -> Self {
        let mut by_first = [0; 7];
        for (first, set) in by_first.iter_mut().enumerate() {
            for day in 1..=31 {
                let weekday = (first + day - 1) % 7;
                *set |= u32::from(weekdays >> weekday & 1) << day;
            }
        }
        Self { minutes, hours, weekdays, days, months, by_first }
    }

    /// Whether any month has any of the days, in a leap year at least.
    fn has_any_day(&self) -> bool {
        (1..=12).any(|month| {
            let longest = civil::date(2024, month, 1).days_in_month();
            self.months >> month & 1 == 1 && self.days & days_upto(longest) != 0
        })
    }

    /// The first second in a span, from `from` on, at which this runs.
    fn first_in(&self, span: &Span, from: i64, rule: DstRule) -> Option<i64> {
        let walls = walls(span, rule.repeat);
        let usual = self
            .first_wall(walls.0.max(from + span.offset))
            .filter(|wall| *wall < walls.1)
            .map(|wall| wall - span.offset);
        let gap = skipped(span, rule.gap);
        let lowest = gap.0.max(from + span.before);
        if lowest >= gap.1 {
            return usual;
        }
        let moved = self.first_wall(lowest).filter(|wall| *wall < gap.1);
        usual.into_iter().chain(moved.map(|wall| wall - span.before)).min()
    }

    /// The last second in a span, until `until` inclusively, at which this runs.
    fn last_in(&self, span: &Span, until: i64, rule: DstRule) -> Option<i64> {
        let walls = walls(span, rule.repeat);
        let usual = self
            .last_wall((walls.1 - 1).min(until + span.offset))
            .filter(|wall| *wall >= walls.0)
            .map(|wall| wall - span.offset);
        let gap = skipped(span, rule.gap);
        let highest = (gap.1 - 1).min(until + span.before);
        if highest < gap.0 {
            return usual;
        }
        let moved = self.last_wall(highest).filter(|wall| *wall >= gap.0);
        usual.into_iter().chain(moved.map(|wall| wall - span.before)).max()
    }

    /// The first time on the wall from `from` on, both in seconds as if the zone were UTC.
    fn first_wall(&self, from: i64) -> Option<i64> {
        let (date, minute) = split(from.checked_add(59)?)?;
        if self.has_day(date)
            && let Some(found) = self.minute_from(minute)
        {
            return Some(join(date, found));
        }
        Some(join(self.day_after(date)?, self.minute_from(0)?))
    }

    /// The last time on the wall until `until` inclusively.
    fn last_wall(&self, until: i64) -> Option<i64> {
        let (date, minute) = split(until)?;
        if self.has_day(date)
            && let Some(found) = self.minute_until(minute)
        {
            return Some(join(date, found));
        }
        Some(join(self.day_before(date)?, self.minute_until(DAY_MINUTES - 1)?))
    }

    /// The first minute of a day from one on.
    fn minute_from(&self, minute: u32) -> Option<u32> {
        let (hour, minute) = (minute / 60, minute % 60);
        let rest = self.minutes >> minute << minute;
        if self.hours >> hour & 1 == 1 && rest != 0 {
            return Some(hour * 60 + rest.trailing_zeros());
        }
        let later = self.hours & !upto(hour);
        (later != 0).then(|| later.trailing_zeros() * 60 + self.minutes.trailing_zeros())
    }

    /// The last minute of a day until one inclusively.
    fn minute_until(&self, minute: u32) -> Option<u32> {
        let (hour, minute) = (minute / 60, minute % 60);
        let rest = self.minutes & ((2 << minute) - 1);
        if self.hours >> hour & 1 == 1 && rest != 0 {
            return Some(hour * 60 + rest.ilog2());
        }
        let earlier = self.hours & (upto(hour) >> 1);
        (earlier != 0).then(|| earlier.ilog2() * 60 + self.minutes.ilog2())
    }

    fn has_day(&self, date: Date) -> bool {
        let weekday = date.weekday().to_sunday_zero_offset();
        self.months >> date.month() & 1 == 1
            && self.days >> date.day() & 1 == 1
            && self.weekdays >> weekday & 1 == 1
    }

    fn day_after(&self, date: Date) -> Option<Date> {
        let (mut year, mut month) = (date.year(), date.month());
        let mut wanted = !upto(date.day() as u32);
        for _ in 0..=SEARCH_YEARS_MAX * 12 {
            let days = self.days_of(year, month)? & wanted;
            if days != 0 {
                return Date::new(year, month, days.trailing_zeros() as i8).ok();
            }
            wanted = !0;
            (year, month) = if month == 12 { (year + 1, 1) } else { (year, month + 1) };
        }
        None
    }

    fn day_before(&self, date: Date) -> Option<Date> {
        let (mut year, mut month) = (date.year(), date.month());
        let mut wanted = upto(date.day() as u32) >> 1;
        for _ in 0..=SEARCH_YEARS_MAX * 12 {
            let days = self.days_of(year, month)? & wanted;
            if days != 0 {
                return Date::new(year, month, days.ilog2() as i8).ok();
            }
            wanted = !0;
            (year, month) = if month == 1 { (year - 1, 12) } else { (year, month - 1) };
        }
        None
    }

    /// The days of one month, a bit for each; `None` outside the calendar.
    fn days_of(&self, year: i16, month: i8) -> Option<u32> {
        if self.months >> month & 1 == 0 {
            return Some(0);
        }
        let first = Date::new(year, month, 1).ok()?;
        let weekday = first.weekday().to_sunday_zero_offset();
        Some(self.days & days_upto(first.days_in_month()) & self.by_first[weekday as usize])
    }
}

/// The times on the wall that belong to a span, the second exclusive. Where a clock is set back, two
/// spans show the same times.
fn walls(span: &Span, repeat: Repeat) -> (i64, i64) {
    let (mut low, mut high) = (span.start + span.offset, span.end + span.offset);
    match repeat {
        Repeat::Both => {}
        Repeat::Last => high = high.min(span.end + span.after),
        Repeat::First | Repeat::Auto => low = low.max(span.start + span.before),
    }
    (low, high)
}

/// The times that no clock showed where this span begins; as many after its start is when they run.
fn skipped(span: &Span, gap: Gap) -> (i64, i64) {
    match gap {
        Gap::Shift => (span.start + span.before, span.start + span.offset),
        Gap::Skip => (0, 0),
    }
}

/// All bits from 0 to `bit`.
fn upto(bit: u32) -> u32 {
    u32::MAX >> (31 - bit)
}

/// The bits of the days of a month with so many.
fn days_upto(last: i8) -> u32 {
    upto(last as u32) - 1
}

/// The day, and the minute of it, of a second on the wall.
fn split(wall: i64) -> Option<(Date, u32)> {
    let shown = Offset::UTC.to_datetime(Timestamp::from_second(wall).ok()?);
    Some((shown.date(), shown.hour() as u32 * 60 + shown.minute() as u32))
}

fn join(date: Date, minute: u32) -> i64 {
    let midnight = DateTime::from_parts(date, civil::Time::midnight());
    // Fails in the last day of the year 9999 only, which is then never reached.
    let midnight = Offset::UTC.to_timestamp(midnight).unwrap_or(Timestamp::MAX);
    midnight.as_second() + i64::from(minute) * 60
}
