//! When an entry runs: intervals, crontabs, events of the sun, and single moments. Pure.
//!
//! A schedule is a set of instants, its occurrences; [`Schedule::next`] and [`Schedule::previous`] find
//! the neighbours of any instant. Nothing depends on when somebody looked last, so that two beats, or
//! one after a restart, find the same. The rules of the time zones are part of the program ([`Zone`]).
//!
//! ```
//! use celeriac_core::schedule::{Crontab, DstRule, Schedule, Zone};
//!
//! let schedule = Schedule::Crontab(Crontab::from_string("0 9 * * mon-fri")?);
//! let zone = Zone::named("Europe/Berlin")?;
//! assert_eq!(schedule.sentence(&zone), "every weekday at 09:00 Europe/Berlin");
//! let friday = "2026-11-20T12:00:00Z".parse()?;
//! let next = schedule.next(friday, friday, &zone, DstRule::default());
//! assert_eq!(next, Some("2026-11-23T08:00:00Z".parse()?));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod crontab;
mod interval;
mod sentence;
mod solar;
mod value;
mod zone;

#[cfg(test)]
mod tests;

pub use self::crontab::{Crontab, SEARCH_YEARS_MAX};
pub use self::interval::{EVERY_MAX, EVERY_MIN, Interval};
pub use self::solar::{SEARCH_DAYS_MAX, Solar, SolarEvent};
pub use self::zone::{ZONE_NAME_BYTES_MAX, Zone};

use jiff::Timestamp;
use std::fmt;
use std::str::FromStr;

/// When something is to run.
#[derive(Clone, Debug, PartialEq)]
pub enum Schedule {
    /// Again and again after the same time.
    Interval(Interval),
    /// When a clock on the wall shows it.
    Crontab(Crontab),
    /// When the sun does something.
    Solar(Solar),
    /// At one moment, and never again.
    Once(Timestamp),
}

impl Schedule {
    /// The first occurrence after `after`, exclusively; `None` when there is none any more.
    ///
    /// `anchor` is where an interval counts from: when its entry was made or last changed. The zone and
    /// the rule matter to crontabs, the zone to relative intervals too.
    pub fn next(
        &self,
        after: Timestamp,
        anchor: Timestamp,
        zone: &Zone,
        dst: DstRule,
    ) -> Option<Timestamp> {
        match self {
            Self::Interval(interval) => interval.next(after, anchor, zone),
            Self::Crontab(crontab) => crontab.next(after, zone, dst),
            Self::Solar(solar) => solar.next(after),
            Self::Once(at) => (*at > after).then_some(*at),
        }
    }

    /// The last occurrence at or before `at`; `None` when there was none yet.
    pub fn previous(
        &self,
        at: Timestamp,
        anchor: Timestamp,
        zone: &Zone,
        dst: DstRule,
    ) -> Option<Timestamp> {
        match self {
            Self::Interval(interval) => interval.previous(at, anchor, zone),
            Self::Crontab(crontab) => crontab.previous(at, zone, dst),
            Self::Solar(solar) => solar.previous(at),
            Self::Once(moment) => (*moment <= at).then_some(*moment),
        }
    }

    /// How many occurrences lie after `after` and until `until` inclusively, counted up to `max`.
    pub fn count(
        &self,
        after: Timestamp,
        until: Timestamp,
        anchor: Timestamp,
        zone: &Zone,
        dst: DstRule,
        max: u32,
    ) -> u32 {
        if let Self::Interval(interval) = self
            && let Some(count) = interval.count(after, until, anchor)
        {
            return count.min(max);
        }
        let mut count = 0;
        let mut at = after;
        while count < max
            && let Some(next) = self.next(at, anchor, zone, dst)
            && next <= until
        {
            at = next;
            count += 1;
        }
        count
    }
}

/// What to do with times on the wall that a change of the clock leaves out or repeats. For crontabs;
/// intervals are elapsed time, and the sun has no clock.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DstRule {
    /// For times that are left out.
    pub gap: Gap,
    /// For times that come twice.
    pub repeat: Repeat,
}

/// What becomes of a time that no clock shows, because it is set forward over it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Gap {
    /// It runs later by the length of the gap, as Celery's does.
    #[default]
    Shift,
    /// It does not run that day.
    Skip,
}

/// What becomes of a time that clocks show twice, because they are set back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeat {
    /// Both for a crontab that runs in every hour, the first for others.
    #[default]
    Auto,
    /// The first.
    First,
    /// The last.
    Last,
    /// Both.
    Both,
}

/// The words of the settings for a rule.
macro_rules! words {
    ($type:ident, $what:literal, $($variant:ident = $word:literal),+) => {
        impl $type {
            /// The word for it in settings and documents.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(self.as_str())
            }
        }

        impl FromStr for $type {
            type Err = ScheduleError;

            fn from_str(text: &str) -> Result<Self, ScheduleError> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => {
                        let text: String = text.chars().take(40).collect();
                        let words = [$($word),+].join(", ");
                        let what = $what;
                        Err(ScheduleError::new(format!("{text:?} is no {what}; write {words}")))
                    }
                }
            }
        }
    };
}
words!(Gap, "rule for a time that is left out", Shift = "shift", Skip = "skip");
words!(
    Repeat,
    "rule for a time that comes twice",
    Auto = "auto",
    First = "first",
    Last = "last",
    Both = "both"
);

/// What is wrong with a schedule, and what would be right, in one sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ScheduleError(String);

impl ScheduleError {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The whole second that an instant lies in, since the epoch.
fn second_of(at: Timestamp) -> i64 {
    at.as_second() - i64::from(at.subsec_nanosecond() < 0)
}

impl From<Interval> for Schedule {
    fn from(interval: Interval) -> Self {
        Self::Interval(interval)
    }
}

impl From<Crontab> for Schedule {
    fn from(crontab: Crontab) -> Self {
        Self::Crontab(crontab)
    }
}

impl From<Solar> for Schedule {
    fn from(solar: Solar) -> Self {
        Self::Solar(solar)
    }
}

impl From<Timestamp> for Schedule {
    fn from(at: Timestamp) -> Self {
        Self::Once(at)
    }
}
