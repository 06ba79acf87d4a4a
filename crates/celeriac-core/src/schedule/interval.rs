//! Intervals: elapsed time from an anchor, or rounded down to a clock on the wall.

use super::zone::Zone;
use super::{ScheduleError, second_of};
use jiff::Timestamp;
use jiff::tz::Offset;
use std::time::Duration;

/// The shortest interval.
pub const EVERY_MIN: Duration = Duration::from_millis(1);
/// The longest interval: a hundred years.
pub const EVERY_MAX: Duration = Duration::from_hours(36_525 * 24);

const MINUTE: i64 = 60;
const HOUR: i64 = 3600;
const DAY: i64 = 86_400;

/// How many neighbours on the grid are looked at: rounding and a change of the clock make several one.
const NEIGHBOURS_MAX: i64 = 16;

/// Celery's `schedule` (`celery/schedules.py` 5.7.0): again after `every`, counted from an anchor, so
/// that a late run does not move those after it.
///
/// A relative one is rounded down to what it is counted in: days to midnight, hours to the full hour,
/// minutes and seconds likewise, on the clock of its zone (`celery/utils/time.py` 5.7.0 `remaining`).
/// So one of 90 minutes comes every full hour, as in Celery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    every: Duration,
    relative: bool,
}

impl Interval {
    /// An interval of [`EVERY_MIN`] to [`EVERY_MAX`], rounded to microseconds as Python's `timedelta`.
    ///
    /// # Errors
    /// When it is shorter or longer.
    pub fn new(every: Duration, relative: bool) -> Result<Self, ScheduleError> {
        if every < EVERY_MIN || every > EVERY_MAX {
            return Err(ScheduleError::new(format!(
                "an interval of {every:?} is out of range; choose one from 1 ms to 36525 days"
            )));
        }
        let micros = (every.as_nanos() + 500) / 1000;
        Ok(Self { every: Duration::from_micros(micros as u64), relative })
    }

    /// An interval in seconds, as Celery's settings have it.
    ///
    /// # Errors
    /// When it is no number from 0.001 on, or longer than [`EVERY_MAX`].
    pub fn from_seconds(every: f64, relative: bool) -> Result<Self, ScheduleError> {
        let micros = (every * 1e6).round();
        // Not a number is not in a range.
        if !(0.0..=EVERY_MAX.as_micros() as f64).contains(&micros) {
            return Err(ScheduleError::new(format!(
                "an interval of {every} s is out of range; choose one from 0.001 s to 36525 days"
            )));
        }
        Self::new(Duration::from_micros(micros as u64), relative)
    }

    /// The time between two occurrences.
    pub fn every(&self) -> Duration {
        self.every
    }

    /// Whether it is rounded down to a clock on the wall.
    pub fn is_relative(&self) -> bool {
        self.relative
    }

    /// The first occurrence after `after`.
    pub fn next(&self, after: Timestamp, anchor: Timestamp, zone: &Zone) -> Option<Timestamp> {
        match self.grid(anchor, zone)? {
            Grid::Elapsed => {
                let steps = self.steps(anchor, after)?.max(0) + 1;
                self.instant(anchor, steps)
            }
            Grid::Clock(grid) => grid.next(second_of(after), zone),
        }
    }

    /// The last occurrence at or before `at`.
    pub fn previous(&self, at: Timestamp, anchor: Timestamp, zone: &Zone) -> Option<Timestamp> {
        match self.grid(anchor, zone)? {
            Grid::Elapsed => {
                let steps = self.steps(anchor, at)?;
                if steps < 1 { None } else { self.instant(anchor, steps) }
            }
            Grid::Clock(grid) => grid.previous(second_of(at), zone),
        }
    }

    /// How many occurrences lie in a span of time; `None` if they have to be visited.
    pub(super) fn count(
        &self,
        after: Timestamp,
        until: Timestamp,
        anchor: Timestamp,
    ) -> Option<u32> {
        if self.unit() != 0 {
            return None;
        }
        let count = self.steps(anchor, until)?.max(0) - self.steps(anchor, after)?.max(0);
        Some(u32::try_from(count.max(0)).unwrap_or(u32::MAX))
    }

    /// How many whole intervals lie between an anchor and an instant; negative before it.
    fn steps(&self, anchor: Timestamp, at: Timestamp) -> Option<i128> {
        let passed = at.as_nanosecond() - anchor.as_nanosecond();
        passed.checked_div_euclid(self.every.as_nanos() as i128)
    }

    fn instant(&self, anchor: Timestamp, steps: i128) -> Option<Timestamp> {
        let passed = steps.checked_mul(self.every.as_nanos() as i128)?;
        Timestamp::from_nanosecond(anchor.as_nanosecond().checked_add(passed)?).ok()
    }

    /// What a relative interval is rounded down to, in seconds; 0 for none.
    fn unit(&self) -> i64 {
        match self.every.as_secs() {
            _ if !self.relative => 0,
            // Celery would round half a second to nothing.
            0 => 0,
            1..60 => 1,
            60..3600 => MINUTE,
            3600..86_400 => HOUR,
            _ => DAY,
        }
    }

    fn grid(&self, anchor: Timestamp, zone: &Zone) -> Option<Grid> {
        let unit = self.unit();
        if unit == 0 {
            return Some(Grid::Elapsed);
        }
        let seconds = self.every.as_secs() as i64;
        let step = seconds - seconds % unit;
        let first = if unit == DAY {
            let start = second_of(anchor);
            // Days are counted on the wall, with what is left of an interval.
            let subsecond = anchor.as_nanosecond() - i128::from(start) * 1_000_000_000;
            let part = subsecond + i128::from(self.every.subsec_nanos());
            let carried = i64::from(part >= 1_000_000_000);
            start + zone.span(start).offset + seconds + carried
        } else {
            round_down(second_of(self.instant(anchor, 1)?), unit, zone)
        };
        let first = if unit == DAY { first.div_euclid(DAY) } else { first };
        Some(Grid::Clock(ClockGrid { unit, step, first }))
    }
}

enum Grid {
    Elapsed,
    Clock(ClockGrid),
}

/// The occurrences of a relative interval.
struct ClockGrid {
    unit: i64,
    /// In seconds, a multiple of the unit.
    step: i64,
    /// The first occurrence in seconds since the epoch; for days, its day on the wall.
    first: i64,
}

impl ClockGrid {
    fn next(&self, after: i64, zone: &Zone) -> Option<Timestamp> {
        // Rounding down only makes earlier: nothing before this step is after `after`.
        let start = (self.position(after, zone) - 1).max(0);
        let mut near = start..start + NEIGHBOURS_MAX;
        let found = near.find_map(|step| self.occurrence(step, zone).filter(|at| *at > after));
        Timestamp::from_second(found?).ok()
    }

    fn previous(&self, at: i64, zone: &Zone) -> Option<Timestamp> {
        let start = self.position(at, zone) + NEIGHBOURS_MAX / 2;
        let mut near = (0..=start).rev().take(NEIGHBOURS_MAX as usize);
        let found = near.find_map(|step| self.occurrence(step, zone).filter(|found| *found <= at));
        Timestamp::from_second(found?).ok()
    }

    /// About which step a second lies at.
    fn position(&self, second: i64, zone: &Zone) -> i64 {
        if self.unit == DAY {
            let wall = second + zone.span(second).offset;
            (wall.div_euclid(DAY) - self.first).div_euclid(self.step / DAY)
        } else {
            (second - self.first).div_euclid(self.step)
        }
    }

    fn occurrence(&self, step: i64, zone: &Zone) -> Option<i64> {
        let moved = step.checked_mul(self.step)?;
        if self.unit == DAY {
            let midnight = (self.first + moved / DAY).checked_mul(DAY)?;
            zone.second_of(Offset::UTC.to_datetime(Timestamp::from_second(midnight).ok()?))
        } else {
            Some(round_down(self.first.checked_add(moved)?, self.unit, zone))
        }
    }
}

/// The last full minute or hour on the wall that is not after a second; a change of the clock that left
/// it out counts as one.
fn round_down(second: i64, unit: i64, zone: &Zone) -> i64 {
    let span = zone.span(second);
    let wall = second + span.offset;
    let full = wall - wall.rem_euclid(unit);
    if full - span.offset >= span.start {
        return full - span.offset;
    }
    let earlier = full - span.before;
    if earlier > second { span.start } else { earlier }
}
